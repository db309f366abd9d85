//! Times of a demuxer's tracks that jump, moved so that each track continues.
//!
//! Owns: [`Rebaser`], a pure state machine. Does not know: GStreamer, containers, and when media is played. In: the
//! running time of each unit. Out: what is to be added to it. Video decoders of GStreamer never output a time before
//! the last one, so steps back must be removed before them. Steps forward up to [`PAUSE_MAX`] pass: only playback can
//! tell a pause of one track from a jump (`input::timeline`).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// All times are in nanoseconds.
const SECOND: i64 = 1_000_000_000;
/// Larger steps back are jumps. Smaller ones are rounding or jitter.
const BACK_MAX: i64 = SECOND * 3 / 10;
/// After a larger step forward, a track may return to the offset of another one.
const FORWARD_MAX: i64 = 2 * SECOND;
/// Longest pause of a track. A larger step forward is a jump, unless the units are that far apart anyway.
const PAUSE_MAX: i64 = 10 * SECOND;
/// A unit that is shown longer does not make a larger step a pause.
const SHOWN_MAX: i64 = 60 * SECOND;
/// A track that is this near to the time after a step forward has continued meanwhile, so the step is a pause.
const NEAR: i64 = SECOND * 3 / 2;
/// After a jump a track gets the offset of another one, if it then deviates by this from its usual step.
const ALIGNED_RANGE: RangeInclusive<i64> = -SECOND / 10..=SECOND;
/// A track that jumped first is moved forward by at most this, if the other track had more media before the jump.
const SHORTER_MAX: i64 = 2 * SECOND;
/// Pictures in decoding order go back by at most this number of pictures (ISO/IEC 14496-10, `max_num_reorder_frames`).
const REORDERED_MAX: i64 = 17;
/// Distance of two units of a track, unless known.
const USUAL_STEP: i64 = SECOND / 50;
/// Distances of units are at least this.
const STEP_MIN: i64 = SECOND / 1_000;
/// Most tracks that are followed.
const TRACKS_MAX: usize = 64;

/// A unit of a track.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit {
    /// Running time of decoding if known, else of presentation.
    pub(super) time: i64,
    /// Duration, 0 if unknown.
    pub(super) duration: i64,
    /// The units are in decoding order, and the time is that of presentation.
    pub(super) reordered: bool,
}

/// Removes jumps of the tracks of one source.
#[derive(Debug, Default)]
pub(super) struct Rebaser {
    lines: BTreeMap<usize, Line>,
    jumps: u64,
}

/// The state of a track.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// Time written minus time read.
    offset: i64,
    /// The last time written.
    last: i64,
    /// The largest time written.
    end: i64,
    /// The largest time written before `end`.
    before: i64,
    /// Smallest distance of the last units.
    step: Option<i64>,
    /// Duration of the last unit.
    shown: i64,
    /// Number of the jump that gave this offset; 0 before any.
    jump: u64,
}

impl Line {
    const fn new(offset: i64, written: i64, jump: u64) -> Self {
        Self { offset, last: written, end: written, before: written, step: None, shown: 0, jump }
    }

    /// The line after a unit at this time.
    fn next(self, written: i64) -> Self {
        let distance = written.saturating_sub(self.last).saturating_abs().max(STEP_MIN);
        let step = self.step.map_or(distance, |step| distance.min(step.saturating_mul(2)));
        let (before, end) = if written > self.end { (self.end, written) } else { (self.before, self.end) };
        Self { last: written, end, before, step: Some(step), ..self }
    }

    /// The line after a jump to this time.
    fn moved(self, offset: i64, written: i64, jump: u64) -> Self {
        let end = self.end.max(written);
        Self { offset, last: written, end, before: end, jump, ..self }
    }

    /// How far a time may be before the largest one.
    fn back_max(&self, reordered: bool) -> i64 {
        // A picture in decoding order is presented after the last but one that was the latest. A single time far in the
        // future is no such picture.
        let distance = self.end.saturating_sub(self.before);
        let pictures = reordered && self.step.is_some_and(|step| distance <= step.saturating_mul(REORDERED_MAX));
        if pictures { distance.saturating_add(BACK_MAX) } else { BACK_MAX }
    }

    /// How far a time may be after the largest one, as `input::timeline` has it too.
    fn pause_max(&self, reordered: bool) -> i64 {
        // Nothing is known about the pace before the second unit.
        let Some(step) = self.step else { return i64::MAX };
        let pictures = if reordered { REORDERED_MAX } else { 1 };
        let usual = step.saturating_mul(pictures).max(self.shown.min(SHOWN_MAX));
        PAUSE_MAX.saturating_add(usual.saturating_add(usual / 2))
    }
}

impl Rebaser {
    /// What is to be added to the time of the next unit of a track.
    pub(super) fn offset(&mut self, track: usize, unit: Unit) -> i64 {
        let read = unit.time;
        let mut line = match self.lines.get(&track) {
            Some(line) => {
                let written = read.saturating_add(line.offset);
                let step = written.saturating_sub(line.end);
                if step < -line.back_max(unit.reordered) || step > FORWARD_MAX {
                    self.jump(track, *line, unit)
                } else {
                    line.next(written)
                }
            }
            None if self.lines.len() >= TRACKS_MAX => return 0,
            None => self.first(read),
        };
        line.shown = unit.duration;
        self.lines.insert(track, line);
        line.offset
    }

    /// A track has ended.
    pub(super) fn end(&mut self, track: usize) {
        self.lines.remove(&track);
    }

    /// Number of jumps removed. A jump of several tracks is one.
    pub(super) const fn jumps(&self) -> u64 {
        self.jumps
    }

    /// A track begins without an offset, or with that of another track, whichever is nearer to the other track.
    fn first(&self, read: i64) -> Line {
        let lines = || self.lines.values();
        let far = |offset: i64, line: &Line| read.saturating_add(offset).saturating_sub(line.end).saturating_abs();
        let distance = |offset: i64| lines().map(|line| far(offset, line)).min();
        let offsets = [(0, 0)].into_iter().chain(lines().map(|line| (line.offset, line.jump)));
        let (offset, jump) = offsets.min_by_key(|(offset, _)| distance(*offset)).unwrap_or_default();
        Line::new(offset, read.saturating_add(offset), jump)
    }

    /// The line after a step back, or a step forward over [`FORWARD_MAX`].
    fn jump(&mut self, track: usize, line: Line, unit: Unit) -> Line {
        let read = unit.time;
        let written = read.saturating_add(line.offset);
        let usual = line.end.saturating_add(line.step.unwrap_or(USUAL_STEP).min(BACK_MAX));
        let others = || {
            let others = self.lines.iter().filter(|(other, at)| **other != track && at.offset != line.offset);
            others.map(|(_, other)| *other)
        };
        let deviation = |other: &Line| read.saturating_add(other.offset).saturating_sub(usual);
        let aligned = others().filter(|other| ALIGNED_RANGE.contains(&deviation(other)));
        if let Some(other) = aligned.min_by_key(|other| deviation(other).abs()) {
            return line.moved(other.offset, read.saturating_add(other.offset), other.jump);
        }
        let continued = |other: &Line| other.end.saturating_sub(written).saturating_abs() <= NEAR;
        let forward = written.saturating_sub(line.end);
        if forward > 0 && (forward <= line.pause_max(unit.reordered) || self.lines.values().any(continued)) {
            return line.next(written);
        }
        // The other track had less media before the jump that both have made: it has to wait for this one.
        let shorter = |other: &Line| other.jump > line.jump && (-SHORTER_MAX..0).contains(&deviation(other));
        if let Some(other) = others().find(shorter) {
            let wait = -deviation(&other);
            for waiting in self.lines.values_mut().filter(|at| at.offset == other.offset) {
                waiting.offset = waiting.offset.saturating_add(wait);
            }
            return line.moved(other.offset.saturating_add(wait), usual, other.jump);
        }
        self.jumps += 1;
        line.moved(usual.saturating_sub(read), usual, self.jumps)
    }
}

#[cfg(test)]
mod tests;
