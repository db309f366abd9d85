//! What is seen and heard, in each second.

use std::collections::HashSet;
use std::f32::consts::TAU;
use std::fmt;

/// Points at which a picture is looked at, across and down.
const GRID: (usize, usize) = (48, 27);
/// How far from the background a point must be to be the ball's.
const APART: u32 = 100;
/// Samples a second.
const RATE: f32 = 48_000.0;

/// The pictures since it was last asked.
#[derive(Default)]
pub(crate) struct Sight {
    frames: u32,
    size: (usize, usize),
    colour: [u8; 3],
    places: HashSet<(usize, usize)>,
}

impl Sight {
    pub(crate) fn is_blind(&self) -> bool {
        self.frames == 0
    }

    /// Looks at a picture of RGB, as GStreamer lays it: each line begins at a multiple of four bytes.
    pub(crate) fn look(&mut self, rgb: &[u8], width: usize, height: usize) {
        let (columns, rows) = GRID;
        let stride = (3 * width).next_multiple_of(4);
        let grid = (0..rows).flat_map(|row| (0..columns).map(move |column| (column, row)));
        let points: Vec<((usize, usize), [u8; 3])> = grid
            .filter_map(|(column, row)| {
                let at = (2 * row + 1) * height / (2 * rows) * stride + (2 * column + 1) * width / (2 * columns) * 3;
                Some(((column, row), rgb.get(at..at + 3)?.try_into().ok()?))
            })
            .collect();
        if points.is_empty() {
            return;
        }
        self.colour = std::array::from_fn(|channel| {
            let mut values: Vec<u8> = points.iter().map(|(_, colour)| colour[channel]).collect();
            values.sort_unstable();
            values[values.len() / 2]
        });
        let ball: Vec<_> = points.iter().filter(|(_, colour)| distance(*colour, self.colour) > APART).collect();
        if !ball.is_empty() {
            let middle =
                |of: fn(&(usize, usize)) -> usize| ball.iter().map(|(at, _)| of(at)).sum::<usize>() / ball.len();
            self.places.insert((middle(|at| at.0), middle(|at| at.1)));
        }
        self.frames += 1;
        self.size = (width, height);
    }
}

fn distance(one: [u8; 3], other: [u8; 3]) -> u32 {
    one.iter().zip(other).map(|(a, b)| u32::from(a.abs_diff(b))).sum()
}

/// The sound since it was last asked.
pub(crate) struct Hearing {
    hz: f32,
    samples: Vec<f32>,
}

impl Hearing {
    /// It listens for a tone of this frequency.
    pub(crate) fn new(hz: f32) -> Self {
        Self { hz, samples: Vec::new() }
    }

    /// Listens to samples of 32 bits, little end first.
    pub(crate) fn listen(&mut self, samples: &[u8]) {
        let (samples, _) = samples.as_chunks::<4>();
        self.samples.extend(samples.iter().map(|sample| f32::from_le_bytes(*sample)));
    }

    /// The level of one frequency in dB of full scale, by Goertzel's way under a Hann window.
    fn level(&self, hz: f32) -> f32 {
        let turn = 2.0 * (TAU * hz / RATE).cos();
        let count = self.samples.len() as f32;
        let (mut last, mut before) = (0.0, 0.0);
        for (n, sample) in self.samples.iter().enumerate() {
            let window = (1.0 - (TAU * n as f32 / count).cos()) / count;
            (last, before) = (sample * window + turn * last - before, last);
        }
        10.0 * (last * last + before * before - turn * last * before).max(1e-12).log10()
    }
}

/// What one second was like.
pub(crate) struct Second {
    frames: u32,
    size: (usize, usize),
    colour: [u8; 3],
    places: usize,
    tone_db: f32,
    beside_db: f32,
}

impl Second {
    /// Takes what has gathered.
    pub(crate) fn of(sight: &mut Sight, hearing: &mut Hearing) -> Self {
        let Sight { frames, size, colour, places } = std::mem::take(sight);
        let (tone_db, beside_db) = (hearing.level(hearing.hz), hearing.level(1.3 * hearing.hz));
        hearing.samples.clear();
        Self { frames, size, colour, places: places.len(), tone_db, beside_db }
    }

    /// Several as a list of JSON.
    pub(crate) fn list(seconds: &[Self]) -> String {
        let each: Vec<String> = seconds.iter().map(ToString::to_string).collect();
        format!("[{}]", each.join(","))
    }
}

/// As JSON.
impl fmt::Display for Second {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frames, size: (width, height), colour, places, tone_db, beside_db } = self;
        write!(
            f,
            r#"{{"frames":{frames},"width":{width},"height":{height},"colour":{colour:?},"places":{places},"tone_db":{tone_db:.1},"beside_db":{beside_db:.1}}}"#
        )
    }
}
