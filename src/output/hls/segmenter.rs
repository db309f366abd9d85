//! Segments one HLS rendition: samples become parts, and parts become segments.
//!
//! Owns: [`Segmenter`]: the boundaries of parts and segments. Pure. Does not know: other renditions; segment boundaries
//! may be set from outside. In: samples. Out: [`HlsPiece`]s. Each sample waits for the next one, which determines its
//! duration.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::container::{ContainerError, Sample, TrackSpec, mp4};
use crate::link::output::HlsPiece;

/// A last sample without predecessor is assumed to last a second divided by this.
const DEFAULT_RATE: u32 = 30;

/// Most pending segment boundaries; audio never lags behind video by so many segments.
const MAX_CUTS: usize = 8;

/// Segment boundaries.
enum Cuts {
    /// At the first keyframe at or after each multiple of `segment` ticks; `next` is the next multiple.
    Keyframes { segment: u64, next: u64 },
    /// At the times set by [`Segmenter::cut_at`], in ticks.
    External(VecDeque<u64>),
}

/// Segments one rendition.
pub(super) struct Segmenter {
    track: TrackSpec,
    /// Target duration of a part in ticks.
    part: u64,
    begun: bool,
    cuts: Cuts,
    /// Samples of the current part.
    samples: Vec<Sample>,
    /// The newest sample, whose duration is not known yet.
    last: Option<Sample>,
    sequence: u32,
}

impl Segmenter {
    /// A rendition whose segments begin at the first keyframe at or after each multiple of `segment`, with parts of at
    /// most `part`.
    pub(super) fn at_keyframes(track: TrackSpec, segment: Duration, part: Duration) -> Self {
        let segment = ticks(segment, track.clock()).max(1);
        Self::new(track, Cuts::Keyframes { segment, next: 0 }, part)
    }

    /// A rendition, all of whose samples are keyframes, with segment boundaries set by [`Segmenter::cut_at`].
    pub(super) fn with_external_cuts(track: TrackSpec, part: Duration) -> Self {
        Self::new(track, Cuts::External(VecDeque::new()), part)
    }

    fn new(track: TrackSpec, cuts: Cuts, part: Duration) -> Self {
        let part = ticks(part, track.clock());
        Self { track, part, begun: false, cuts, samples: Vec::new(), last: None, sequence: 0 }
    }

    /// Begins a segment at the first sample at or after this time since the epoch. Only for external boundaries.
    pub(super) fn cut_at(&mut self, at: Duration) {
        let at = ticks(at, self.track.clock());
        if let Cuts::External(cuts) = &mut self.cuts
            && cuts.len() < MAX_CUTS
        {
            cuts.push_back(at);
        }
    }

    /// Adds the next sample, with its time in ticks since the epoch; the first must be a keyframe.
    ///
    /// # Errors
    /// The sample is malformed.
    pub(super) fn push(&mut self, time: u64, keyframe: bool, data: Bytes) -> Result<Vec<HlsPiece>, ContainerError> {
        let mut pieces = Vec::new();
        if !self.begun {
            self.begun = true;
            let data = mp4::initialization(std::slice::from_ref(&self.track));
            pieces.push(HlsPiece::Init { codec: self.track.codec_string(), data });
            pieces.push(self.cut(time));
        } else if let Some(mut last) = self.last.take() {
            last.duration = u32::try_from(time.saturating_sub(last.time)).unwrap_or(u32::MAX);
            let length = u64::from(last.duration);
            if self.samples.first().is_some_and(|first| time.saturating_sub(first.time) > self.part) {
                // The previous sample lasted longer than predicted.
                pieces.extend(self.flush(last.time)?);
            }
            self.samples.push(last);
            let begins = keyframe && self.is_due(time);
            // A sample of the same duration would make the part too long.
            let began = self.samples.first().map_or(time, |first| first.time);
            if begins || time.saturating_sub(began) + length > self.part {
                pieces.extend(self.flush(time)?);
            }
            if begins {
                pieces.push(self.cut(time));
            }
        }
        self.last = Some(Sample { track: 0, time, duration: 0, keyframe, data });
        Ok(pieces)
    }

    /// Ends the rendition with the last part.
    ///
    /// # Errors
    /// As [`Segmenter::push`].
    pub(super) fn end(&mut self) -> Result<Vec<HlsPiece>, ContainerError> {
        let Some(mut last) = self.last.take() else { return Ok(Vec::new()) };
        last.duration = self.samples.last().map_or_else(|| self.track.clock() / DEFAULT_RATE, |before| before.duration);
        let end = last.time + u64::from(last.duration);
        self.samples.push(last);
        Ok(self.flush(end)?.into_iter().collect())
    }

    /// Whether a segment should begin with a sample of this time.
    fn is_due(&self, time: u64) -> bool {
        match &self.cuts {
            Cuts::Keyframes { next, .. } => time >= *next,
            Cuts::External(cuts) => cuts.front().is_some_and(|cut| time >= *cut),
        }
    }

    fn cut(&mut self, time: u64) -> HlsPiece {
        match &mut self.cuts {
            Cuts::Keyframes { segment, next } => *next = (time / *segment + 1) * *segment,
            Cuts::External(cuts) => cuts.retain(|cut| *cut > time),
        }
        HlsPiece::Cut { at: self.seconds(time) }
    }

    /// Completes the current part, which ends at `end`.
    fn flush(&mut self, end: u64) -> Result<Option<HlsPiece>, ContainerError> {
        let Some(first) = self.samples.first() else { return Ok(None) };
        let (began, independent) = (first.time, first.keyframe);
        self.sequence += 1;
        let data = mp4::part(&self.track, self.sequence, began, &self.samples)?;
        self.samples.clear();
        Ok(Some(HlsPiece::Part { duration: self.seconds(end - began), independent, data }))
    }

    fn seconds(&self, ticks: u64) -> Duration {
        Duration::from_nanos((u128::from(ticks) * 1_000_000_000 / u128::from(self.track.clock())) as u64)
    }
}

fn ticks(length: Duration, clock: u32) -> u64 {
    (length.as_micros() * u128::from(clock) / 1_000_000) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::{Codec, Size};

    const SEGMENT: Duration = Duration::from_secs(2);
    const PART: Duration = Duration::from_millis(500);

    fn segmenter() -> Segmenter {
        let track = TrackSpec::video(Codec::Vp8, Size::new(320, 180), &Bytes::new()).expect("VP8 needs no parameters");
        Segmenter::at_keyframes(track, SEGMENT, PART)
    }

    /// All pieces of frames with these times and keyframe flags.
    fn all(frames: &[(u64, bool)]) -> Vec<HlsPiece> {
        let mut segmenter = segmenter();
        let mut pieces = Vec::new();
        for (time, keyframe) in frames {
            pieces.extend(segmenter.push(*time, *keyframe, Bytes::from_static(b"frame")).expect("any bytes are VP8"));
        }
        pieces.extend(segmenter.end().expect("as before"));
        pieces
    }

    #[test]
    fn thirty_frames_per_second_make_four_parts_per_segment() {
        let frames: Vec<(u64, bool)> = (60..241).map(|n| (n * 3_000, n % 60 == 0)).collect();
        let pieces = all(&frames);
        let summary: String = pieces
            .iter()
            .map(|piece| match piece {
                HlsPiece::Init { .. } => "i",
                HlsPiece::Cut { .. } => "|",
                HlsPiece::Part { independent: true, duration, .. } if *duration == PART => "P",
                HlsPiece::Part { duration, .. } if *duration == PART => "p",
                HlsPiece::Part { .. } => "-",
                HlsPiece::Language(_) => "l",
            })
            .collect();
        assert_eq!(summary, "i|Pppp|Pppp|Pppp|-");
        assert_eq!(pieces[1], HlsPiece::Cut { at: SEGMENT });
    }

    #[test]
    fn external_boundaries_are_the_only_ones() {
        let track = TrackSpec::aac(1, Bytes::from_static(&[0x11, 0x88]));
        let mut segmenter = Segmenter::with_external_cuts(track, PART);
        segmenter.cut_at(Duration::from_millis(2_170));
        let mut cuts = Vec::new();
        for n in 102..500_u64 {
            if n == 190 {
                segmenter.cut_at(Duration::from_millis(4_170));
            }
            let pieces = segmenter.push(n * 1_024, true, Bytes::from_static(b"sound")).expect("any bytes are AAC");
            cuts.extend(pieces.into_iter().filter_map(|piece| match piece {
                HlsPiece::Cut { at } => Some(at.as_micros()),
                _ => None,
            }));
        }
        assert_eq!(cuts, [2_176_000, 4_181_333], "the first sample, and the first one at or after the second boundary");
    }

    proptest! {
        #[test]
        fn parts_cover_all_time_and_are_no_longer_than_the_target_or_a_frame(
            start in 0..10_000_000_000_u64,
            steps in prop::collection::vec((1..30_000_u64, prop::bool::weighted(0.1)), 1..300),
        ) {
            let mut time = start;
            let mut frames = vec![(start, true)];
            for (step, keyframe) in &steps {
                time += step;
                frames.push((time, *keyframe));
            }
            let longest = steps.iter().map(|(step, _)| *step).max().unwrap_or(0);
            let limit = PART.max(Duration::from_nanos(longest * 1_000_000_000 / 90_000)) + Duration::from_micros(12);
            let (mut covered, mut cuts) = (Duration::ZERO, 0);
            for piece in all(&frames) {
                match piece {
                    HlsPiece::Part { duration, .. } => {
                        prop_assert!(duration <= limit, "{duration:?} is longer than {limit:?}");
                        covered += duration;
                    }
                    HlsPiece::Cut { .. } => cuts += 1,
                    HlsPiece::Init { .. } | HlsPiece::Language(_) => {}
                }
            }
            let whole = (time - start) as f64 / 90_000.0;
            prop_assert!(covered.as_secs_f64() >= whole - 0.001);
            prop_assert!(cuts <= 1 + (whole / 2.0) as usize + 1);
        }
    }
}
