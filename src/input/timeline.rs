//! The timestamp rule of all inputs: turns the timestamps of a source into positions without jumps.
//!
//! Owns: [`Timeline`], [`Wrapped`] and [`gap`], all pure. Does not know: protocols, media, the clock. In: timestamps
//! with arrival times. Out: positions, from which due times follow ([`super::playout`]).
//!
//! The rule: a timestamp more than [`TOLERANCE`] before the previous one of its track, or more than [`MAX_DEVIATION`]
//! from what is due, is a jump. The track then continues at once, and the other track follows onto the same line when
//! its timestamps jump too, so that audio and video stay synchronized as the source says.
//!
//! What is due: in a live source, the previous position plus the time that has passed since; in other sources, which
//! are read ahead, the position that is played. There a step forward may be a pause of one track, so only [`gap`]
//! decides, when the unit is the next to be played.

use std::num::NonZeroU32;
use std::time::Duration;

use super::index;
use crate::media::Kind;
use crate::time::Timestamp;

/// Position of the first unit. Not 0: the other track may begin before it, and pictures may be presented before it.
const START: i64 = 3_000_000;
/// Larger steps backwards are jumps. Smaller ones are rounding, jitter, or pictures in decoding order.
const TOLERANCE: Duration = Duration::from_millis(300);
/// Largest deviation from what is due.
const MAX_DEVIATION: Duration = Duration::from_secs(2);
/// After a jump a track follows the other track's line if it then deviates by at most this from what is due.
const ALIGNMENT: Duration = Duration::from_millis(300);
/// Longest pause of one track in a source that is not live, while the other track continues.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// A track that has delivered nothing for this time is not waited for.
const SILENCE: Duration = Duration::from_millis(300);
/// Distance of two units, unless known.
const USUAL_STEP: u32 = 20_000;
/// A larger distance of two units is a pause or a jump.
const STEP_MAX: u32 = 20_000_000;

/// Turns timestamps into positions. All numbers are microseconds.
#[derive(Debug)]
pub(super) struct Timeline {
    live: bool,
    /// Video and audio.
    lines: [Option<Line>; 2],
    jumps: u64,
}

/// A distance of two units in microseconds, if it is known. Without a tag: of `Option<i64>`, rustc 1.95.0 with
/// optimisation level 1 reads the tag in [`Timeline::usual_step`] also where a track has not begun and nothing is
/// initialised, and loads from an address that depends on it.
type Step = Option<NonZeroU32>;

/// The state of one track.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// Position minus timestamp.
    offset: i64,
    /// The latest position.
    position: i64,
    /// When the unit of this position arrived.
    arrival: Timestamp,
    /// The last distance of two units, if there were two.
    step: Step,
    /// The distance before it.
    step_before: Step,
}

impl Line {
    /// The track after a jump: its distances are those before.
    const fn moved(self, offset: i64, position: i64, arrival: Timestamp) -> Self {
        Self { offset, position, arrival, ..self }
    }

    /// A track that begins.
    const fn new(offset: i64, position: i64, arrival: Timestamp) -> Self {
        Self { offset, position, arrival, step: None, step_before: None }
    }
}

const fn micros(time: Duration) -> i64 {
    time.as_micros() as i64
}

impl Timeline {
    /// A timeline for a live source, or for one that can be read at any speed.
    pub(super) const fn new(live: bool) -> Self {
        Self { live, lines: [None; 2], jumps: 0 }
    }

    /// The position of a unit with this timestamp in microseconds. `playing` is the position that is played when it
    /// arrives, if the source is not live and playback has begun.
    pub(super) fn place(
        &mut self,
        kind: Kind,
        timestamp: i64,
        arrival: Timestamp,
        playing: Option<Duration>,
    ) -> Duration {
        let other = self.lines[1 - index(kind)];
        let live = self.live;
        let due = |line: Line| {
            let passed = line.position.saturating_add(micros(arrival.since(line.arrival)));
            if live { Some(passed) } else { playing.map(micros) }
        };
        let line = match (self.lines[index(kind)], other) {
            (None, None) => Line::new(START.saturating_sub(timestamp), START, arrival),
            (None, Some(other)) => self.first(other, due(other), timestamp, arrival),
            (Some(line), _) => self.next(line, other, due(line), timestamp, arrival),
        };
        self.lines[index(kind)] = Some(line);
        Duration::from_micros(line.offset.saturating_add(timestamp).max(0) as u64)
    }

    /// Whether a position is too far from what is due.
    fn deviates(&self, position: i64, due: Option<i64>) -> bool {
        due.is_some_and(|due| {
            let early = position.saturating_sub(due);
            early < -micros(MAX_DEVIATION) || (self.live && early > micros(MAX_DEVIATION))
        })
    }

    /// A track begins on the other track's line, or with what is due.
    fn first(&mut self, other: Line, due: Option<i64>, timestamp: i64, arrival: Timestamp) -> Line {
        let shared = timestamp.saturating_add(other.offset);
        let jumped = self.deviates(shared, due);
        self.jumps += u64::from(jumped);
        let position = due.filter(|_| jumped).unwrap_or(shared);
        Line::new(position.saturating_sub(timestamp), position, arrival)
    }

    fn next(&mut self, line: Line, other: Option<Line>, due: Option<i64>, timestamp: i64, arrival: Timestamp) -> Line {
        let position = timestamp.saturating_add(line.offset);
        let step = position.saturating_sub(line.position);
        if step >= -micros(TOLERANCE) && !self.deviates(position, due) {
            if step <= 0 {
                // A picture in decoding order, or jitter.
                return line;
            }
            let known = u32::try_from(step).ok().filter(|step| *step <= STEP_MAX).and_then(NonZeroU32::new);
            let known = known.or(line.step);
            return Line { position, arrival, step: known, step_before: line.step, ..line };
        }
        let step = i64::from(line.step.map_or(USUAL_STEP, NonZeroU32::get)).min(micros(ALIGNMENT));
        let resumed = line.position.saturating_add(step).max(due.unwrap_or(i64::MIN));
        let latest = resumed.saturating_add(micros(if self.live { ALIGNMENT } else { MAX_DEVIATION }));
        let shared = other.map(|other| timestamp.saturating_add(other.offset));
        let shared = shared.filter(|shared| (resumed.saturating_sub(micros(ALIGNMENT))..=latest).contains(shared));
        self.jumps += u64::from(shared.is_none());
        let position = shared.unwrap_or(resumed);
        line.moved(position.saturating_sub(timestamp), position.max(line.position), arrival)
    }

    /// Moves tracks to an earlier position, to close a [`gap`].
    pub(super) fn close(&mut self, gap: &Gap) {
        self.jumps += 1;
        for (line, moves) in self.lines.iter_mut().zip(gap.moves) {
            if let Some(line) = line.as_mut().filter(|_| moves) {
                line.offset -= micros(gap.by);
                line.position -= micros(gap.by);
                line.step = line.step_before;
            }
        }
    }

    /// Distance of two units before the last one of a track. The distance of the last one may be a jump; it counts only
    /// if there is no other.
    pub(super) fn usual_step(&self, kind: Kind) -> Duration {
        let step = self.lines[index(kind)].and_then(|line| line.step_before.or(line.step));
        Duration::from_micros(step.map_or(USUAL_STEP, NonZeroU32::get).into())
    }

    /// Number of jumps so far.
    pub(super) const fn jumps(&self) -> u64 {
        self.jumps
    }
}

/// The next unit of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The track is absent or has ended.
    None,
    /// Nothing has arrived since this time.
    Awaited(Timestamp),
    /// It is due at this time, `usual` after the one before.
    Held {
        /// Due time.
        due: Timestamp,
        /// The distance of the units before it.
        usual: Duration,
    },
}

/// A gap that playback must not wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    /// Whether video and audio are moved.
    pub(super) moves: [bool; 2],
    /// How far they are moved.
    pub(super) by: Duration,
}

/// The gap before the next units of video and audio, if it is too long: for all tracks [`MAX_DEVIATION`], for one track
/// while the other continues [`MAX_PAUSE`].
pub(super) fn gap(next: [Next; 2], now: Timestamp) -> Option<Gap> {
    let wait = |next: Next| match next {
        Next::Held { due, usual } => Some((due.since(now), usual)),
        Next::None | Next::Awaited(_) => None,
    };
    let (wait_video, wait_audio) = (wait(next[0]), wait(next[1]));
    let far = |wait: Option<(Duration, Duration)>| {
        // Slides and other slow sources have long steps.
        wait.is_some_and(|(wait, usual)| wait > MAX_DEVIATION + usual * 3 / 2)
    };
    let idle = |next: Next| match next {
        Next::None => true,
        Next::Awaited(since) => now.since(since) > SILENCE,
        Next::Held { .. } => false,
    };
    let far = [far(wait_video), far(wait_audio)];
    let waits = [wait_video, wait_audio].map(|wait| wait.map(|(wait, _)| wait));
    if (0..2).all(|track| far[track] || idle(next[track])) {
        let by = waits.into_iter().flatten().min()?;
        return Some(Gap { moves: [true; 2], by });
    }
    let track = (0..2).find(|track| far[*track] && waits[*track].is_some_and(|wait| wait > MAX_PAUSE))?;
    Some(Gap { moves: [track == 0, track == 1], by: waits[track]? })
}

/// Unwraps the 32-bit timestamps of both tracks of one clock.
#[derive(Debug, Default)]
pub(super) struct Wrapped([Option<(u32, i64)>; 2]);

impl Wrapped {
    /// The timestamp nearest to the previous one of its track, else to that of the other track.
    pub(super) fn unwrap(&mut self, kind: Kind, raw: u32) -> i64 {
        let track = index(kind);
        let nearest = |(before, unwrapped): (u32, i64)| unwrapped + i64::from(raw.wrapping_sub(before).cast_signed());
        let unwrapped = self.0[track].or(self.0[1 - track]).map_or_else(|| i64::from(raw), nearest);
        self.0[track] = Some((raw, unwrapped));
        unwrapped
    }
}

#[cfg(test)]
mod tests;
