//! A received RTP stream: reordering, loss and retransmission, whole frames, gaps without media.
//!
//! Owns: sequence numbers, NACK and PLI scheduling, receiver report figures, statistics. Does not know: SRTP, sockets,
//! decoders. Time is an argument: packets go in by [`ReceiveStream::insert`], feedback to send comes out by
//! [`ReceiveStream::poll`], collected frames by [`ReceiveStream::frame`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::media::{Kind, SourcePacket};
use crate::time::Timestamp;

/// A sequence number further away than this restarts the numbering (RFC 3550 A.1 MAX_DROPOUT).
const MAX_JUMP: i64 = 3_000;
/// How long a missing video packet is waited for and requested; browsers wait about as long.
const VIDEO_HOLD: Duration = Duration::from_millis(1_000);
/// How long an audio packet may be late: it is not requested, and a player has concealed it by then.
const AUDIO_HOLD: Duration = Duration::from_millis(200);
/// Interval of NACKs for one packet: more than most round trips.
const NACK_INTERVAL: Duration = Duration::from_millis(100);
/// Interval of PLIs.
const PLI_INTERVAL: Duration = Duration::from_millis(500);
/// Collected frames that may wait for the decoder; later ones are dropped.
const FRAMES_MAX: usize = 60;
/// A gap between frames above this counts as a freeze.
pub(crate) const FREEZE: Duration = Duration::from_millis(200);

/// A decrypted RTP packet.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    pub(crate) starts_keyframe: bool,
    /// Bytes on the wire, without UDP and IP.
    pub(crate) size: usize,
    pub(crate) payload: Bytes,
}

/// Statistics of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct StreamStats {
    /// Packets received, without duplicates.
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// Packets not received in time.
    pub(crate) lost: u64,
    /// Packets received after they were found missing.
    pub(crate) repaired: u64,
    /// Whole frames with nothing missing before them; for audio, packets.
    pub(crate) frames: u64,
    /// Keyframes received.
    pub(crate) keyframes: u64,
    /// Gaps between frames above [`FREEZE`].
    pub(crate) freezes: u64,
    /// Sum of these gaps.
    pub(crate) frozen: Duration,
    /// Longest gap between two frames.
    pub(crate) longest_gap: Duration,
}

/// Feedback to send.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Feedback {
    /// Sequence numbers for a NACK.
    pub(crate) nack: Vec<u16>,
    /// A PLI is due.
    pub(crate) keyframe: bool,
}

#[derive(Debug)]
struct Missing {
    since: Timestamp,
    next_nack: Timestamp,
}

/// Figures of a report block (RFC 3550 section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ReceptionStats {
    pub(crate) fraction_lost: u8,
    pub(crate) total_lost: u32,
    pub(crate) highest: u32,
    pub(crate) jitter: u32,
}

/// One received stream.
#[derive(Debug)]
pub(crate) struct ReceiveStream {
    kind: Kind,
    clock_rate: u32,
    first: i64,
    newest: Option<i64>,
    /// Everything below was released or counted as lost.
    next: i64,
    reordered: BTreeMap<i64, Packet>,
    missing: BTreeMap<i64, Missing>,
    stats: StreamStats,
    /// Video: frames cannot be decoded before the next keyframe.
    needs_keyframe: bool,
    last_pli: Option<Timestamp>,
    /// RTP timestamp of the frame being assembled.
    timestamp: Option<u32>,
    partial: Vec<SourcePacket>,
    collect: bool,
    frames: VecDeque<Vec<SourcePacket>>,
    first_frame: Option<Timestamp>,
    last_frame: Option<Timestamp>,
    /// Begin of the statistics.
    since: Option<Timestamp>,
    /// Packets received since the numbering began, for receiver reports.
    received: u64,
    /// RFC 3550 A.8, in sixteenths of the clock's ticks.
    jitter: u32,
    transit: Option<i64>,
    reported: (u64, u64),
}

impl ReceiveStream {
    /// A stream without packets. With `collect`, [`ReceiveStream::frame`] gives the packets of whole frames; of audio,
    /// every packet.
    pub(crate) fn new(kind: Kind, clock_rate: u32, collect: bool) -> Self {
        Self {
            kind,
            clock_rate,
            first: 0,
            newest: None,
            next: 0,
            reordered: BTreeMap::new(),
            missing: BTreeMap::new(),
            stats: StreamStats::default(),
            needs_keyframe: kind == Kind::Video,
            last_pli: None,
            timestamp: None,
            partial: Vec::new(),
            collect,
            frames: VecDeque::new(),
            first_frame: None,
            last_frame: None,
            since: None,
            received: 0,
            jitter: 0,
            transit: None,
            reported: (0, 0),
        }
    }

    /// The statistics so far.
    pub(crate) fn stats(&self) -> StreamStats {
        self.stats
    }

    /// When the first frame was complete (video: the first keyframe).
    pub(crate) fn first_frame(&self) -> Option<Timestamp> {
        self.first_frame
    }

    /// Time since the first frame, or since [`ReceiveStream::reset_stats`].
    pub(crate) fn measured_for(&self, now: Timestamp) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// Begins the statistics anew: what was before belongs to joining.
    pub(crate) fn reset_stats(&mut self, now: Timestamp) {
        self.stats = StreamStats::default();
        self.since = Some(now);
        self.last_frame = self.last_frame.map(|_| now);
    }

    /// Inserts a packet.
    pub(crate) fn insert(&mut self, now: Timestamp, packet: Packet) {
        let number = self.number(packet.sequence);
        if number < self.next || self.reordered.contains_key(&number) {
            return;
        }
        self.received += 1;
        self.stats.packets += 1;
        self.stats.bytes += packet.size as u64;
        let newest = *self.newest.get_or_insert(number - 1);
        // A stream begins with a keyframe; only where it does not, one is requested.
        self.last_pli.get_or_insert(now);
        if number > newest {
            self.newest = Some(number);
            for lacking in newest + 1..number {
                self.missing.insert(lacking, Missing { since: now, next_nack: now });
            }
            self.measure_jitter(now, packet.timestamp);
        } else if self.missing.remove(&number).is_some() {
            self.stats.repaired += 1;
        }
        if number == self.next {
            self.next += 1;
            self.release(now, packet);
            self.release_reordered(now);
        } else {
            self.reordered.insert(number, packet);
        }
    }

    /// The feedback that is due; to be called after packets and at [`ReceiveStream::deadline`].
    pub(crate) fn poll(&mut self, now: Timestamp) -> Feedback {
        let mut feedback = Feedback::default();
        let hold = if self.kind == Kind::Video { VIDEO_HOLD } else { AUDIO_HOLD };
        while let Some(oldest) = self.missing.first_entry().filter(|oldest| now.since(oldest.get().since) >= hold) {
            let number = *oldest.key();
            oldest.remove();
            self.stats.lost += 1;
            self.partial.clear();
            self.needs_keyframe |= self.kind == Kind::Video;
            // The oldest missing packet is the one that blocks the release.
            self.next = number + 1;
            self.release_reordered(now);
        }
        if self.kind == Kind::Video {
            for (number, missing) in &mut self.missing {
                if missing.next_nack <= now {
                    missing.next_nack = now + NACK_INTERVAL;
                    feedback.nack.push(*number as u16);
                }
            }
            let sent_lately = self.last_pli.is_some_and(|sent| now.since(sent) < PLI_INTERVAL);
            if self.needs_keyframe && self.newest.is_some() && !sent_lately {
                self.last_pli = Some(now);
                feedback.keyframe = true;
            }
        }
        feedback
    }

    /// When [`ReceiveStream::poll`] is due next, unless packets arrive before.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        let hold = if self.kind == Kind::Video { VIDEO_HOLD } else { AUDIO_HOLD };
        let waits = self.missing.values().map(|missing| match self.kind {
            Kind::Video => missing.next_nack.min(missing.since + hold),
            Kind::Audio => missing.since + hold,
        });
        let again = self.last_pli.filter(|_| self.needs_keyframe).map(|sent| sent + PLI_INTERVAL);
        waits.chain(again).min()
    }

    /// The packets of the next collected frame; of audio, the next packet.
    pub(crate) fn frame(&mut self) -> Option<Vec<SourcePacket>> {
        self.frames.pop_front()
    }

    /// The figures of a report block, which ends the interval of `fraction_lost`. None before the first packet.
    pub(crate) fn report(&mut self) -> Option<ReceptionStats> {
        let newest = self.newest?;
        let expected = (newest - self.first + 1).max(0) as u64;
        let (expected_before, received_before) = self.reported;
        let (wanted, got) = (expected - expected_before, self.received - received_before);
        self.reported = (expected, self.received);
        let lost = wanted.saturating_sub(got);
        Some(ReceptionStats {
            fraction_lost: (lost * 256).checked_div(wanted).unwrap_or(0).min(255) as u8,
            total_lost: expected.saturating_sub(self.received).min(0x7f_ffff) as u32,
            highest: newest as u32,
            jitter: self.jitter >> 4,
        })
    }

    /// Ends the statistics: the time since the last frame counts as a gap.
    pub(crate) fn finish(&mut self, now: Timestamp) {
        self.measure_gap(now);
    }

    fn number(&mut self, sequence: u16) -> i64 {
        let Some(newest) = self.newest else {
            // One cycle above zero, so that packets from before the first one have positive numbers too.
            self.first = 0x1_0000 + i64::from(sequence);
            self.next = self.first;
            return self.first;
        };
        let number = newest + i64::from(sequence.wrapping_sub(newest as u16) as i16);
        if (number - newest).abs() <= MAX_JUMP {
            return number;
        }
        self.reordered.clear();
        self.missing.clear();
        self.partial.clear();
        self.newest = Some(number - 1);
        (self.first, self.next, self.received, self.reported) = (number, number, 0, (0, 0));
        number
    }

    fn release_reordered(&mut self, now: Timestamp) {
        while let Some(packet) = self.reordered.remove(&self.next) {
            self.next += 1;
            self.release(now, packet);
        }
    }

    /// Handles a packet in order.
    fn release(&mut self, now: Timestamp, packet: Packet) {
        if self.kind == Kind::Audio {
            self.frame_complete(now);
            if self.collect && self.frames.len() < FRAMES_MAX {
                self.frames.push_back(vec![source_packet(now, packet)]);
            }
            return;
        }
        if packet.starts_keyframe {
            self.needs_keyframe = false;
            self.stats.keyframes += 1;
        }
        if self.needs_keyframe {
            return;
        }
        if self.timestamp.replace(packet.timestamp) != Some(packet.timestamp) {
            self.partial.clear();
        }
        let marker = packet.marker;
        if self.collect {
            self.partial.push(source_packet(now, packet));
        }
        if marker {
            self.frame_complete(now);
            if self.collect && self.frames.len() < FRAMES_MAX {
                self.frames.push_back(std::mem::take(&mut self.partial));
            }
        }
    }

    fn frame_complete(&mut self, now: Timestamp) {
        self.measure_gap(now);
        self.stats.frames += 1;
        self.first_frame.get_or_insert(now);
        self.since.get_or_insert(now);
        self.last_frame = Some(now);
    }

    fn measure_gap(&mut self, now: Timestamp) {
        let gap = self.last_frame.map_or(Duration::ZERO, |last| now.since(last));
        self.stats.longest_gap = self.stats.longest_gap.max(gap);
        if gap > FREEZE {
            self.stats.freezes += 1;
            self.stats.frozen += gap;
        }
    }

    fn measure_jitter(&mut self, now: Timestamp, timestamp: u32) {
        let arrival = (u128::from(now.as_micros()) * u128::from(self.clock_rate) / 1_000_000) as i64;
        let transit = arrival.wrapping_sub(i64::from(timestamp)) & 0xffff_ffff;
        if let Some(before) = self.transit.replace(transit) {
            let difference = (transit.wrapping_sub(before) as i32).unsigned_abs();
            let sixteenth = (self.jitter + 8) >> 4;
            self.jitter = self.jitter.saturating_add(difference).saturating_sub(sixteenth);
        }
    }
}

fn source_packet(arrival: Timestamp, packet: Packet) -> SourcePacket {
    let Packet { sequence, timestamp, marker, payload, .. } = packet;
    SourcePacket {
        sequence,
        timestamp,
        marker,
        arrival,
        captured: None,
        audio_level: None,
        rotation: None,
        colours: None,
        payload,
    }
}

#[cfg(test)]
mod tests;
