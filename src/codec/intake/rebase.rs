//! Removes jumps of the timestamps that a demuxer outputs, so that each track continues without a gap.
//!
//! Owns: [`Rebaser`], a pure state machine. Does not know: GStreamer, containers, and when media is played. In: the
//! running time of each unit (a GStreamer buffer of one track). Out: the offset to add to this time. "Read" is the time
//! before the addition, "written" the time after it.
//!
//! Video decoders of GStreamer never output a time before the last one, so steps back must be removed before them.
//! Steps forward up to [`PAUSE_MAX`] pass: only playback can tell a pause of one track from a jump
//! (`input::timeline`). Tracks that jump together get the same offset, so that they stay synchronized.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// One second. All times are in nanoseconds.
const SECOND: i64 = 1_000_000_000;
/// Larger steps back are jumps. Smaller ones are rounding or jitter.
const BACK_MAX: i64 = SECOND * 3 / 10;
/// After a larger step forward, a track is checked for a jump, for example one back to the offset of another track.
const FORWARD_MAX: i64 = 2 * SECOND;
/// Longest pause of a track. A larger step forward is a jump, unless the units are that far apart anyway.
const PAUSE_MAX: i64 = 10 * SECOND;
/// Longest duration of a unit that extends [`PAUSE_MAX`]: a longer one counts as this.
const SHOWN_MAX: i64 = 60 * SECOND;
/// If another track has a written time this near to the time after a step forward, then the source has continued during
/// the step, so the step is a pause.
const NEAR: i64 = SECOND * 3 / 2;
/// After a jump a track gets the offset of another one, if its time then deviates by this from the time that is due.
const ALIGNED_RANGE: RangeInclusive<i64> = -SECOND / 10..=SECOND;
/// A track that jumped first is moved forward by at most this, if another track had more media before the jump.
const SHORTER_MAX: i64 = 2 * SECOND;
/// Times in decoding order go back by at most this number of pictures: `max_num_reorder_frames` of ISO/IEC 14496-10 is
/// at most 16.
const REORDERED_MAX: i64 = 17;
/// Distance of two units of a track, until it is known.
const USUAL_STEP: i64 = SECOND / 50;
/// Distances of units are at least this.
const STEP_MIN: i64 = SECOND / 1_000;
/// Most tracks of a source; the times of further ones are not changed.
const TRACKS_MAX: usize = 64;

/// A unit of a track.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit {
    /// Running time of the DTS if known, else of the PTS.
    pub(super) time: i64,
    /// Duration, 0 if unknown.
    pub(super) duration: i64,
    /// The units are in decoding order, but `time` is that of the PTS, so it goes back where pictures are reordered.
    pub(super) reordered: bool,
}

/// Removes jumps of the tracks of one source.
#[derive(Debug, Default)]
pub(super) struct Rebaser {
    /// The tracks by number.
    lines: BTreeMap<usize, Line>,
    /// Jumps removed so far.
    jumps: u64,
}

/// The state of a track: the line that maps times read to times written, and the latest times.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// Time written minus time read.
    offset: i64,
    /// The last time written.
    last: i64,
    /// The largest time written.
    end: i64,
    /// The largest time written before `end` was.
    before: i64,
    /// The smallest recent distance of two units: it falls at once and at most doubles with each unit. None before the
    /// second unit.
    step: Option<i64>,
    /// Duration of the last unit, 0 if unknown.
    shown: i64,
    /// Number of the jump that gave this offset; 0 before the first jump.
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

    /// How far a time may be before `end` without being a jump.
    fn back_max(&self, reordered: bool) -> i64 {
        // A picture that is decoded after the picture at `end` may be presented before it, but not before the picture
        // at `before`. If these two are far apart, `end` is not a reordered picture but a wrong time.
        let distance = self.end.saturating_sub(self.before);
        let pictures = reordered && self.step.is_some_and(|step| distance <= step.saturating_mul(REORDERED_MAX));
        if pictures { distance.saturating_add(BACK_MAX) } else { BACK_MAX }
    }

    /// How far a time may be after `end` and still be a pause; the same rule as in `input::timeline`.
    fn pause_max(&self, reordered: bool) -> i64 {
        // Before the second unit the distance of units is not known, so any step may be the usual one.
        let Some(step) = self.step else { return i64::MAX };
        let pictures = if reordered { REORDERED_MAX } else { 1 };
        let usual = step.saturating_mul(pictures).max(self.shown.min(SHOWN_MAX));
        PAUSE_MAX.saturating_add(usual.saturating_add(usual / 2))
    }
}

impl Rebaser {
    /// The offset to add to the time of the next unit of a track.
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

    /// Number of jumps removed. A jump of several tracks counts once.
    pub(super) const fn jumps(&self) -> u64 {
        self.jumps
    }

    /// The state of a track that begins. Its offset is zero or that of another track, whichever puts its first time
    /// nearest to the latest time of any track.
    fn first(&self, read: i64) -> Line {
        let lines = || self.lines.values();
        let far = |offset: i64, line: &Line| read.saturating_add(offset).saturating_sub(line.end).saturating_abs();
        let distance = |offset: i64| lines().map(|line| far(offset, line)).min();
        let offsets = [(0, 0)].into_iter().chain(lines().map(|line| (line.offset, line.jump)));
        let (offset, jump) = offsets.min_by_key(|(offset, _)| distance(*offset)).unwrap_or_default();
        Line::new(offset, read.saturating_add(offset), jump)
    }

    /// The state of a track after a step back, or a step forward over [`FORWARD_MAX`]. In this order, the step is: a
    /// jump that another track has already made; a pause, which is kept; a jump that another track made too early; a
    /// new jump.
    fn jump(&mut self, track: usize, line: Line, unit: Unit) -> Line {
        let read = unit.time;
        let written = read.saturating_add(line.offset);
        let due = line.end.saturating_add(line.step.unwrap_or(USUAL_STEP).min(BACK_MAX));
        let others = || {
            let others = self.lines.iter().filter(|(other, at)| **other != track && at.offset != line.offset);
            others.map(|(_, other)| *other)
        };
        let deviation = |other: &Line| read.saturating_add(other.offset).saturating_sub(due);
        let aligned = others().filter(|other| ALIGNED_RANGE.contains(&deviation(other)));
        if let Some(other) = aligned.min_by_key(|other| deviation(other).abs()) {
            return line.moved(other.offset, read.saturating_add(other.offset), other.jump);
        }
        let continued = |other: &Line| other.end.saturating_sub(written).saturating_abs() <= NEAR;
        let forward = written.saturating_sub(line.end);
        if forward > 0 && (forward <= line.pause_max(unit.reordered) || self.lines.values().any(continued)) {
            return line.next(written);
        }
        // Another track made this jump first, because it had less media before the jump. Moving it forward keeps both
        // tracks synchronized, and this track has no step back.
        let shorter = |other: &Line| other.jump > line.jump && (-SHORTER_MAX..0).contains(&deviation(other));
        if let Some(other) = others().find(shorter) {
            let wait = -deviation(&other);
            for waiting in self.lines.values_mut().filter(|at| at.offset == other.offset) {
                waiting.offset = waiting.offset.saturating_add(wait);
            }
            return line.moved(other.offset.saturating_add(wait), due, other.jump);
        }
        self.jumps += 1;
        line.moved(due.saturating_sub(read), due, self.jumps)
    }
}

#[cfg(test)]
mod tests;
