//! Cuts decoded audio of any piece length into ticks of 20 ms, without discontinuities that the source does not have.
//!
//! Owns: [`Ticks`], a pure state machine. Does not know: codecs. In: samples with due times. Out: [`Tick`]s.

use std::collections::VecDeque;
use std::time::Duration;

use crate::media::{AUDIO_RATE, AUDIO_TICK_SAMPLES};
use crate::time::Timestamp;

/// A difference up to this between the due time of a piece and the end of the previous one is rounding or clock drift,
/// and is ignored. A larger one is a real gap or overlap.
const TOLERANCE: Duration = Duration::from_millis(30);
/// A gap up to this is filled with silence; after a longer one audio starts again.
const MAX_FILLED_GAP: Duration = Duration::from_millis(200);
/// Duration of a tick.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// One tick of audio.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tick {
    /// Due time of its first sample.
    pub(super) due: Timestamp,
    pub(super) samples: [f32; AUDIO_TICK_SAMPLES],
}

/// Cuts samples into ticks.
#[derive(Debug, Default)]
pub(super) struct Ticks {
    samples: VecDeque<f32>,
    /// Due time of the first of the samples.
    start: Timestamp,
    /// Samples after a long gap, with their due time: used after `samples` is padded to a tick.
    next: Option<(Timestamp, Vec<f32>)>,
}

impl Ticks {
    /// Whether less than a tick is buffered.
    pub(super) fn needs_samples(&self) -> bool {
        self.samples.len() < AUDIO_TICK_SAMPLES && self.next.is_none()
    }

    /// Adds samples, the first of which is due at `due`.
    pub(super) fn push(&mut self, due: Timestamp, samples: &[f32]) {
        // Samples due before the end of the last tick are appended to it.
        if self.samples.is_empty() && due >= self.start {
            self.start = due;
            self.samples.extend(samples);
            return;
        }
        let end = self.start + length(self.samples.len());
        let (gap, overlap) = (due.since(end), end.since(due));
        if gap > MAX_FILLED_GAP {
            self.next = Some((due, samples.to_vec()));
        } else if gap > TOLERANCE {
            self.samples.extend(std::iter::repeat_n(0.0, count(gap)));
            self.samples.extend(samples);
        } else {
            let skipped = if overlap > TOLERANCE { count(overlap).min(samples.len()) } else { 0 };
            self.samples.extend(&samples[skipped..]);
        }
    }

    /// The next complete tick.
    pub(super) fn pop(&mut self) -> Option<Tick> {
        if self.samples.len() < AUDIO_TICK_SAMPLES {
            let (due, samples) = self.next.take()?;
            if self.samples.is_empty() {
                self.push(due, &samples);
                return self.pop();
            }
            self.next = Some((due, samples));
            self.samples.resize(AUDIO_TICK_SAMPLES, 0.0);
        }
        let mut tick = Tick { due: self.start, samples: [0.0; AUDIO_TICK_SAMPLES] };
        for (to, from) in tick.samples.iter_mut().zip(self.samples.drain(..AUDIO_TICK_SAMPLES)) {
            *to = from;
        }
        self.start = self.start + TICK;
        Some(tick)
    }

    /// Pads the rest to a complete tick at the end of the audio.
    pub(super) fn finish(&mut self) {
        if !self.samples.is_empty() {
            self.samples.resize(self.samples.len().next_multiple_of(AUDIO_TICK_SAMPLES), 0.0);
        }
    }

    /// Due time of the first buffered sample.
    pub(super) fn due(&self) -> Option<Timestamp> {
        match &self.next {
            Some((due, _)) if self.samples.is_empty() => Some(*due),
            _ => (!self.samples.is_empty()).then_some(self.start),
        }
    }
}

fn length(samples: usize) -> Duration {
    Duration::from_micros(samples as u64 * 1_000_000 / u64::from(AUDIO_RATE))
}

fn count(time: Duration) -> usize {
    (time.as_micros() as u64 * u64::from(AUDIO_RATE) / 1_000_000) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(5_000_000 + micros)
    }

    fn all(ticks: &mut Ticks) -> Vec<Tick> {
        std::iter::from_fn(|| ticks.pop()).collect()
    }

    #[test]
    fn aac_frames_become_continuous_ticks() {
        let mut ticks = Ticks::default();
        let mut out = Vec::new();
        for i in 0..100_u64 {
            assert!(ticks.needs_samples());
            let samples: Vec<f32> = (0..1024).map(|n| (i * 1024 + n) as f32).collect();
            // Timestamps rounded to milliseconds, as containers do.
            ticks.push(at(i * 1024 * 1000 / 48 / 1000 * 1000), &samples);
            out.extend(all(&mut ticks));
        }
        assert_eq!(out.len(), 1024 * 100 / 960);
        let skipped: Vec<f32> = out.iter().flat_map(|tick| tick.samples).collect();
        assert!(skipped.iter().enumerate().all(|(i, sample)| *sample == i as f32));
        assert!(out.windows(2).all(|two| two[1].due == two[0].due + TICK));
    }

    #[test]
    fn short_gaps_are_filled_long_gaps_restart_and_overlaps_are_skipped() {
        let mut ticks = Ticks::default();
        ticks.push(at(0), &[1.0; 1920]);
        ticks.push(at(140_000), &[2.0; 960]);
        let out = all(&mut ticks);
        let firsts: Vec<f32> = out.iter().map(|tick| tick.samples[0]).collect();
        assert_eq!(firsts, [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0]);
        assert_eq!(out[7].due, at(140_000));

        ticks.push(at(160_000), &[3.0; 100]);
        assert!(ticks.pop().is_none() && ticks.needs_samples());
        ticks.push(at(2_000_000), &[4.0; 960]);
        assert!(!ticks.needs_samples());
        let out = all(&mut ticks);
        assert_eq!((out[0].due, out[0].samples[99], out[0].samples[100]), (at(160_000), 3.0, 0.0));
        assert_eq!((out[1].due, out[1].samples[0], out.len()), (at(2_000_000), 4.0, 2));

        ticks.push(at(3_000_000), &[5.0; 960]);
        ticks.push(at(2_970_000 - 1_000), &[6.0; 4800]);
        let out = all(&mut ticks);
        assert_eq!(out.len(), 3, "51 ms overlap");
        ticks.finish();
        assert_eq!(all(&mut ticks).len(), 1);
        ticks.finish();
        assert!(ticks.pop().is_none() && ticks.due().is_none());
    }

    proptest! {
        #[test]
        fn due_times_never_decrease(pieces in proptest::collection::vec((0..500_000_u64, 1..3000_usize), 1..50)) {
            let mut ticks = Ticks::default();
            let (mut now, mut last) = (0, None);
            for (step, length) in pieces {
                now += step;
                ticks.push(at(now), &vec![0.5; length]);
                while let Some(tick) = ticks.pop() {
                    prop_assert!(last.is_none_or(|last| tick.due >= last), "{:?} after {last:?}", tick.due);
                    last = Some(tick.due);
                }
                prop_assert!(ticks.needs_samples() && ticks.samples.len() < AUDIO_TICK_SAMPLES);
            }
        }
    }
}
