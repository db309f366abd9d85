//! Jumps of timestamps in MPEG-TS (ISO/IEC 13818-1), removed before the demuxer, which would lose media at them.
//!
//! Owns: [`Retimer`], a pure state machine. Does not know: GStreamer, and when media is played. In: bytes of a
//! transport stream. Out: the same bytes with PCR, PTS and DTS that continue. The continuity counters continue too
//! where the timestamps have jumped, because there another stream was appended; lost packets stay visible.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::RangeInclusive;

/// First byte of a packet.
const SYNC: u8 = 0x47;
/// Length of a packet.
const PACKET: usize = 188;
/// Distances of packets: plain, with a time before each (M2TS), with error correction after each (DVB, ATSC).
const STRIDES: [usize; 4] = [188, 192, 204, 208];
/// Bytes without packets after which they are passed on.
const SEARCH_MAX: usize = 16 << 10;
/// Units of PTS and DTS in a second.
const SECOND: i64 = 90_000;
/// Timestamps have 33 bits.
const WRAP: i64 = 1 << 33;
/// The first timestamp: an output does not wrap for 26 hours, and media may begin before it.
const START: i64 = 10 * SECOND;
/// Larger steps of a track, backwards or forwards, are jumps. The clock never steps back.
const STEP_RANGE: RangeInclusive<i64> = -SECOND * 3 / 10..=2 * SECOND;
/// After a jump a track keeps its distance to another track, if it then deviates by this from its usual step.
const ALIGNED_RANGE: RangeInclusive<i64> = -SECOND * 3 / 10..=SECOND;
/// Timestamps of different tracks that are this near belong together.
const NEAR: i64 = SECOND * 3 / 2;
/// Distance of two timestamps of a track, unless known.
const USUAL_STEP: i64 = SECOND / 50;
/// Most tracks that are followed; a stream has at most 8191.
const TRACKS_MAX: usize = 64;

/// Removes jumps of timestamps. All numbers are units of 1/90,000 s.
#[derive(Debug, Default)]
pub(super) struct Retimer {
    stride: Option<usize>,
    /// Bytes before the end of a packet.
    pending: Vec<u8>,
    tracks: Tracks,
    counters: BTreeMap<u16, Counter>,
}

/// The timestamps of a stream.
#[derive(Debug, Default)]
struct Tracks {
    media: BTreeMap<u16, Line>,
    clocks: BTreeMap<u16, Line>,
    /// The track that was placed last.
    latest: Option<u16>,
    /// The last PCR written.
    clock: Option<i64>,
    /// Jumps since they were last taken; a jump of several tracks counts once.
    jumps: u64,
}

/// The state of a track or a clock.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// The last timestamp of the source.
    read: i64,
    /// The last timestamp written, without wraps.
    written: i64,
    /// The last distance of two timestamps.
    step: i64,
    /// [`Tracks::clock`] at the last timestamp.
    clock: i64,
}

impl Line {
    /// What continues this line for a timestamp of the source.
    const fn follow(&self, timestamp: i64) -> i64 {
        self.written + distance(self.read, timestamp)
    }

    /// The same, if the timestamp is near to the last one.
    fn near(&self, timestamp: i64) -> Option<i64> {
        (distance(self.read, timestamp).abs() <= NEAR).then(|| self.follow(timestamp))
    }
}

/// Continuity counter of one PID.
#[derive(Debug, Clone, Copy, Default)]
struct Counter {
    /// The last counter written.
    written: u8,
    /// Written minus read.
    offset: u8,
    /// Continue the counter with the next packet.
    resumes: bool,
}

/// Distance of two timestamps of 33 bits, at most half of their range.
const fn distance(from: i64, to: i64) -> i64 {
    let forward = (to - from).rem_euclid(WRAP);
    if forward >= WRAP / 2 { forward - WRAP } else { forward }
}

impl Retimer {
    /// Takes bytes, and returns all whole packets with changed timestamps.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            let rest = &mut pending[at..];
            match self.stride {
                Some(stride) if rest.len() < stride => break,
                Some(stride) if rest[0] == SYNC => {
                    self.packet(&mut rest[..PACKET]);
                    at += stride;
                }
                Some(_) => self.stride = None,
                None => match find(rest) {
                    Some((skipped, stride)) => {
                        at += skipped;
                        self.stride = Some(stride);
                    }
                    None if rest.len() >= SEARCH_MAX => at += rest.len() - 3 * STRIDES[3],
                    None => break,
                },
            }
        }
        self.pending = pending.split_off(at);
        pending
    }

    /// The bytes that are left at the end of the stream.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.pending);
        if self.stride.take().is_some() && rest.len() >= PACKET && rest[0] == SYNC {
            self.packet(&mut rest[..PACKET]);
        }
        rest
    }

    /// Forgets the bytes before the end of a packet: the stream is interrupted.
    pub(super) fn interrupt(&mut self) {
        self.stride = None;
        self.pending.clear();
    }

    /// Number of bytes taken but not returned.
    pub(super) const fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The number of jumps since the last call; a jump of several tracks counts once.
    pub(super) const fn take_jumps(&mut self) -> u64 {
        std::mem::replace(&mut self.tracks.jumps, 0)
    }

    fn packet(&mut self, packet: &mut [u8]) {
        let pid = u16::from_be_bytes([packet[1] & 0x1f, packet[2]]);
        let (has_adaptation, has_payload) = (packet[3] & 0x20 != 0, packet[3] & 0x10 != 0);
        let scrambled = packet[3] & 0xc0 != 0;
        let adaptation = if has_adaptation { usize::from(packet[4]) + 1 } else { 0 };
        if packet[1] & 0x80 != 0 || 4 + adaptation > PACKET {
            return;
        }
        let mut jumped = false;
        if adaptation >= 8 && packet[5] & 0x10 != 0 {
            jumped |= self.tracks.clock(pid, &mut packet[6..12]);
        }
        let unit = &mut packet[4 + adaptation..];
        if has_payload && !scrambled && is_timed(unit) {
            jumped |= self.tracks.unit(pid, unit);
        }
        if jumped {
            self.counters.values_mut().for_each(|counter| counter.resumes = true);
        }
        if has_payload {
            self.count(pid, &mut packet[3]);
        }
    }

    /// Changes the continuity counter in the fourth byte of a packet with a payload.
    fn count(&mut self, pid: u16, byte: &mut u8) {
        let read = *byte & 0x0f;
        let known = self.counters.len();
        let counter = match self.counters.entry(pid) {
            Entry::Vacant(_) if known >= TRACKS_MAX => return,
            Entry::Vacant(vacant) => {
                vacant.insert(Counter { written: read, ..Counter::default() });
                return;
            }
            Entry::Occupied(occupied) => occupied.into_mut(),
        };
        if std::mem::take(&mut counter.resumes) {
            counter.offset = (counter.written + 1).wrapping_sub(read) & 0x0f;
        }
        counter.written = (read + counter.offset) & 0x0f;
        *byte = *byte & 0xf0 | counter.written;
    }
}

/// Whether a payload that begins a unit is a PES packet with a timestamp, within this packet.
fn is_timed(unit: &[u8]) -> bool {
    let begins = |stream: u8| matches!(stream, 0xbd | 0xc0..=0xef | 0xfd);
    match unit {
        [0, 0, 1, stream, _, _, marks, times, _, rest @ ..] => {
            let length = match times >> 6 {
                2 => 5,
                3 => 10,
                _ => return false,
            };
            begins(*stream) && marks >> 6 == 2 && rest.len() >= length
        }
        _ => false,
    }
}

/// The first packet, as the number of bytes before it, and the distance of packets.
fn find(bytes: &[u8]) -> Option<(usize, usize)> {
    let is_packet = |at: usize| bytes.get(at).is_some_and(|byte| *byte == SYNC);
    (0..bytes.len().min(2 * STRIDES[3])).find_map(|at| {
        let stride = STRIDES.into_iter().find(|stride| (0..3).all(|n| is_packet(at + n * stride)))?;
        Some((at, stride))
    })
}

impl Tracks {
    /// Changes the timestamps of a PES packet; true after a jump.
    fn unit(&mut self, pid: u16, unit: &mut [u8]) -> bool {
        if !self.media.contains_key(&pid) && self.media.len() >= TRACKS_MAX {
            return false;
        }
        let presented = read_time(&unit[9..14]);
        let decoded = if unit[7] >> 6 == 3 { read_time(&unit[14..19]) } else { presented };
        let (written, jumped) = self.media(pid, decoded);
        write_time(&mut unit[9..14], written + distance(decoded, presented));
        if unit[7] >> 6 == 3 {
            write_time(&mut unit[14..19], written);
        }
        jumped
    }

    /// The timestamp to be written for one of a track, and whether it jumped.
    fn media(&mut self, pid: u16, read: i64) -> (i64, bool) {
        let others = || self.media.iter().filter(|(other, _)| **other != pid).map(|(_, line)| line);
        let latest = self.latest.filter(|latest| *latest != pid).and_then(|latest| self.media.get(&latest));
        let shared = latest.into_iter().chain(others()).find_map(|line| line.near(read));
        // No other track has jumped with it.
        let mut first = false;
        let (written, step, jumped) = match self.media.get(&pid) {
            Some(line) => {
                let written = line.follow(read);
                let step = written - line.written;
                // Subtitles and slides have large steps, as the clock has in the same time.
                let pauses = self.clock.is_some_and(|clock| (clock - line.clock - step).abs() <= NEAR);
                if STEP_RANGE.contains(&step) || step > 0 && pauses {
                    (written, if (1..=SECOND).contains(&step) { step } else { line.step }, false)
                } else {
                    let usual = line.written + line.step;
                    let shared = shared.filter(|shared| ALIGNED_RANGE.contains(&(shared - usual)));
                    first = shared.is_none();
                    (shared.unwrap_or(usual), line.step, true)
                }
            }
            // Begins where the other tracks are, else the clock, else with the last of them.
            None => {
                let clock = || self.clocks.values().find_map(|clock| clock.near(read));
                let last = || others().chain(self.clocks.values()).map(|line| line.written).max();
                (shared.or_else(clock).or_else(last).unwrap_or(START), USUAL_STEP, false)
            }
        };
        self.media.insert(pid, Line { read, written, step, clock: self.clock.unwrap_or(written) });
        self.latest = Some(pid);
        self.jumps += u64::from(first);
        (written, jumped)
    }

    /// Changes a PCR; true after a jump.
    fn clock(&mut self, pid: u16, field: &mut [u8]) -> bool {
        if !self.clocks.contains_key(&pid) && self.clocks.len() >= TRACKS_MAX {
            return false;
        }
        let high = i64::from(u32::from_be_bytes([field[0], field[1], field[2], field[3]]));
        let read = high << 1 | i64::from(field[4] >> 7);
        let (written, step, jumped) = match self.clocks.get(&pid) {
            Some(line) => {
                let step = distance(line.read, read);
                let jumped = !(0..=*STEP_RANGE.end()).contains(&step);
                let step = if jumped { line.step } else { step };
                (line.written + step, step.clamp(1, SECOND / 10), jumped)
            }
            None => {
                let latest = self.latest.and_then(|latest| self.media.get(&latest));
                (latest.and_then(|line| line.near(read)).unwrap_or(START), USUAL_STEP, false)
            }
        };
        self.clock = Some(written);
        self.clocks.insert(pid, Line { read, written, step, clock: written });
        let base = written.rem_euclid(WRAP);
        field[..4].copy_from_slice(&((base >> 1) as u32).to_be_bytes());
        field[4] = field[4] & 0x7f | ((base & 1) as u8) << 7;
        jumped
    }
}

/// A PTS or DTS in five bytes.
fn read_time(field: &[u8]) -> i64 {
    let bits = |byte: u8| i64::from(byte);
    bits(field[0] >> 1 & 7) << 30
        | bits(field[1]) << 22
        | bits(field[2] >> 1) << 15
        | bits(field[3]) << 7
        | bits(field[4] >> 1)
}

fn write_time(field: &mut [u8], time: i64) {
    let time = time.rem_euclid(WRAP);
    field[0] = field[0] & 0xf1 | ((time >> 29) as u8 & 0x0e);
    field[1] = (time >> 22) as u8;
    field[2] = field[2] & 1 | ((time >> 14) as u8 & 0xfe);
    field[3] = (time >> 7) as u8;
    field[4] = field[4] & 1 | ((time << 1) as u8 & 0xfe);
}

#[cfg(test)]
mod tests;
