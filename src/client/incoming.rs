//! What one stream brings, judged packet by packet: loss and repair, whole frames, how long nothing came.
//!
//! Owns: sequence numbers, what is missing and when it is asked for, the gaps between frames and packets. Does not know:
//! SRTP, sockets, pictures. Time is an argument: packets go in by [`Incoming::insert`], what is due comes out by
//! [`Incoming::poll`], frames of a stream that is to be decoded by [`Incoming::frame`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::media::{Kind, SourcePacket};
use crate::time::Timestamp;

/// A sequence number further away than this begins another numbering (RFC 3550 A.1 MAX_DROPOUT).
const MAX_JUMP: i64 = 3_000;
/// How long a missing packet of video is waited and asked for; browsers do the same for about as long.
const VIDEO_HOLD: Duration = Duration::from_millis(1_000);
/// How long a missing packet of audio may be late: nobody asks for it, and a player has gone on by then.
const AUDIO_HOLD: Duration = Duration::from_millis(200);
/// From one request for a missing packet to the next: more than most round trips.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// From one request for a keyframe to the next.
const KEYFRAME_AGAIN: Duration = Duration::from_millis(500);
/// Frames that may wait to be decoded.
const FRAMES_MAX: usize = 60;
/// So long without a new frame, people see a freeze.
pub(crate) const FREEZE: Duration = Duration::from_millis(200);

/// An RTP packet in the clear.
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

/// What has been counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    /// Packets that came, each once.
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// Packets that never came.
    pub(crate) lost: u64,
    /// Packets that came after they were missed.
    pub(crate) repaired: u64,
    /// Whole frames with nothing missing before them; for audio, packets.
    pub(crate) frames: u64,
    /// Keyframes that came.
    pub(crate) keyframes: u64,
    /// How often no frame came for longer than [`FREEZE`].
    pub(crate) freezes: u64,
    /// How long these were together.
    pub(crate) frozen: Duration,
    /// The longest time between two frames.
    pub(crate) longest_gap: Duration,
}

/// What is due.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// Packets to ask for again.
    pub(crate) missing: Vec<u16>,
    /// A keyframe is needed.
    pub(crate) keyframe: bool,
}

#[derive(Debug)]
struct Missing {
    since: Timestamp,
    ask: Timestamp,
}

/// Numbers for a receiver report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reception {
    pub(crate) fraction_lost: u8,
    pub(crate) total_lost: u32,
    pub(crate) highest: u32,
    pub(crate) jitter: u32,
}

/// One received stream.
#[derive(Debug)]
pub(crate) struct Incoming {
    kind: Kind,
    clock_rate: u32,
    first: i64,
    newest: Option<i64>,
    /// Everything below was given on or given up.
    next: i64,
    held: BTreeMap<i64, Packet>,
    missing: BTreeMap<i64, Missing>,
    counts: Counts,
    /// Video: frames cannot be shown until a keyframe comes.
    broken: bool,
    keyframe_asked: Option<Timestamp>,
    /// The frame being collected.
    timestamp: Option<u32>,
    open: Vec<SourcePacket>,
    keep: bool,
    frames: VecDeque<Vec<SourcePacket>>,
    first_frame: Option<Timestamp>,
    last_frame: Option<Timestamp>,
    /// From when on is counted.
    since: Option<Timestamp>,
    /// Packets that came since the numbering began, for receiver reports.
    received: u64,
    /// RFC 3550 A.8, in sixteenths of the clock's ticks.
    jitter: u32,
    transit: Option<i64>,
    reported: (u64, u64),
}

impl Incoming {
    /// A stream that has not begun. `keep` collects the frames' packets for a decoder, of sound all packets.
    pub(crate) fn new(kind: Kind, clock_rate: u32, keep: bool) -> Self {
        Self {
            kind,
            clock_rate,
            first: 0,
            newest: None,
            next: 0,
            held: BTreeMap::new(),
            missing: BTreeMap::new(),
            counts: Counts::default(),
            broken: kind == Kind::Video,
            keyframe_asked: None,
            timestamp: None,
            open: Vec::new(),
            keep,
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

    /// What has been counted so far.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// When the first frame was whole (video: the first keyframe).
    pub(crate) fn first_frame(&self) -> Option<Timestamp> {
        self.first_frame
    }

    /// From the first frame, or from [`Incoming::begin`] on, until now.
    pub(crate) fn counted_for(&self, now: Timestamp) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// Counts from now on: what was before belongs to joining.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        self.counts = Counts::default();
        self.since = Some(now);
        self.last_frame = self.last_frame.map(|_| now);
    }

    /// Takes a packet.
    pub(crate) fn insert(&mut self, now: Timestamp, packet: Packet) {
        let number = self.number(packet.sequence);
        if number < self.next || self.held.contains_key(&number) {
            return;
        }
        self.received += 1;
        self.counts.packets += 1;
        self.counts.bytes += packet.size as u64;
        let newest = *self.newest.get_or_insert(number - 1);
        // A stream begins with a keyframe unasked; only if none comes it is asked for.
        self.keyframe_asked.get_or_insert(now);
        if number > newest {
            self.newest = Some(number);
            for lacking in newest + 1..number {
                self.missing.insert(lacking, Missing { since: now, ask: now });
            }
            self.measure_jitter(now, packet.timestamp);
        } else if self.missing.remove(&number).is_some() {
            self.counts.repaired += 1;
        }
        if number == self.next {
            self.next += 1;
            self.give(now, packet);
            self.give_held(now);
        } else {
            self.held.insert(number, packet);
        }
    }

    /// What is due now; call it after packets and at [`Incoming::deadline`].
    pub(crate) fn poll(&mut self, now: Timestamp) -> Due {
        let mut due = Due::default();
        let hold = if self.kind == Kind::Video { VIDEO_HOLD } else { AUDIO_HOLD };
        while let Some(oldest) = self.missing.first_entry().filter(|oldest| now.since(oldest.get().since) >= hold) {
            let number = *oldest.key();
            oldest.remove();
            self.counts.lost += 1;
            self.open.clear();
            self.broken |= self.kind == Kind::Video;
            // The oldest missing packet is always the one that is waited for.
            self.next = number + 1;
            self.give_held(now);
        }
        if self.kind == Kind::Video {
            for (number, missing) in &mut self.missing {
                if missing.ask <= now {
                    missing.ask = now + ASK_AGAIN;
                    due.missing.push(*number as u16);
                }
            }
            let asked_lately = self.keyframe_asked.is_some_and(|asked| now.since(asked) < KEYFRAME_AGAIN);
            if self.broken && self.newest.is_some() && !asked_lately {
                self.keyframe_asked = Some(now);
                due.keyframe = true;
            }
        }
        due
    }

    /// When [`Incoming::poll`] next has something to say, unless packets come before.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        let hold = if self.kind == Kind::Video { VIDEO_HOLD } else { AUDIO_HOLD };
        let waits = self.missing.values().map(|missing| match self.kind {
            Kind::Video => missing.ask.min(missing.since + hold),
            Kind::Audio => missing.since + hold,
        });
        let again = self.keyframe_asked.filter(|_| self.broken).map(|asked| asked + KEYFRAME_AGAIN);
        waits.chain(again).min()
    }

    /// The packets of the next whole frame, where they are kept; of sound, the next packet.
    pub(crate) fn frame(&mut self) -> Option<Vec<SourcePacket>> {
        self.frames.pop_front()
    }

    /// The numbers of a receiver report, which begins the next interval. None before the first packet.
    pub(crate) fn report(&mut self) -> Option<Reception> {
        let newest = self.newest?;
        let expected = (newest - self.first + 1).max(0) as u64;
        let (expected_before, received_before) = self.reported;
        let (wanted, got) = (expected - expected_before, self.received - received_before);
        self.reported = (expected, self.received);
        let lost = wanted.saturating_sub(got);
        Some(Reception {
            fraction_lost: (lost * 256).checked_div(wanted).unwrap_or(0).min(255) as u8,
            total_lost: expected.saturating_sub(self.received).min(0x7f_ffff) as u32,
            highest: newest as u32,
            jitter: self.jitter >> 4,
        })
    }

    /// The time is over: what has been silent until now counts as a gap.
    pub(crate) fn finish(&mut self, now: Timestamp) {
        self.measure_gap(now);
    }

    fn number(&mut self, sequence: u16) -> i64 {
        let Some(newest) = self.newest else {
            // One cycle above zero, so that packets from before the first one have numbers too.
            self.first = 0x1_0000 + i64::from(sequence);
            self.next = self.first;
            return self.first;
        };
        let number = newest + i64::from(sequence.wrapping_sub(newest as u16) as i16);
        if (number - newest).abs() <= MAX_JUMP {
            return number;
        }
        self.held.clear();
        self.missing.clear();
        self.open.clear();
        self.newest = Some(number - 1);
        (self.first, self.next, self.received, self.reported) = (number, number, 0, (0, 0));
        number
    }

    fn give_held(&mut self, now: Timestamp) {
        while let Some(packet) = self.held.remove(&self.next) {
            self.next += 1;
            self.give(now, packet);
        }
    }

    /// Takes a packet whose turn it is.
    fn give(&mut self, now: Timestamp, packet: Packet) {
        if self.kind == Kind::Audio {
            self.shown(now);
            if self.keep && self.frames.len() < FRAMES_MAX {
                self.frames.push_back(vec![source_packet(now, packet)]);
            }
            return;
        }
        if packet.starts_keyframe {
            self.broken = false;
            self.counts.keyframes += 1;
        }
        if self.broken {
            return;
        }
        if self.timestamp.replace(packet.timestamp) != Some(packet.timestamp) {
            self.open.clear();
        }
        let marker = packet.marker;
        if self.keep {
            self.open.push(source_packet(now, packet));
        }
        if marker {
            self.shown(now);
            if self.keep && self.frames.len() < FRAMES_MAX {
                self.frames.push_back(std::mem::take(&mut self.open));
            }
        }
    }

    fn shown(&mut self, now: Timestamp) {
        self.measure_gap(now);
        self.counts.frames += 1;
        self.first_frame.get_or_insert(now);
        self.since.get_or_insert(now);
        self.last_frame = Some(now);
    }

    fn measure_gap(&mut self, now: Timestamp) {
        let gap = self.last_frame.map_or(Duration::ZERO, |last| now.since(last));
        self.counts.longest_gap = self.counts.longest_gap.max(gap);
        if gap > FREEZE {
            self.counts.freezes += 1;
            self.counts.frozen += gap;
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
    SourcePacket { sequence, timestamp, marker, arrival, audio_level: None, rotation: None, colours: None, payload }
}

#[cfg(test)]
mod tests;
