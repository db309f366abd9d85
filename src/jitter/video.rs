//! The jitter buffer for video: whole frames in order, without delay if no packet is missing and none was added.
//!
//! Owns: the packets of incomplete frames, the wait for a missing packet, keyframe requests. Does not know: codecs. In:
//! packets. Out: [`VideoPoll`]. A missing packet is waited for; then the buffer continues with the next keyframe.

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use super::{Number, Numbers};
use crate::media::{SourcePacket, VIDEO_CLOCK};
use crate::time::Timestamp;

/// Wait for a missing packet: two lost retransmissions at a round-trip time of 60 ms. Shorter than a visible freeze,
/// and than the time to a requested keyframe, which loses packets too.
const HOLD: Duration = Duration::from_millis(240);
/// Longest delay that is added: less than [`MAX_SPAN`].
const DELAY_MAX: Duration = Duration::from_millis(400);
/// Interval of keyframe requests while none comes.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Most packets in the buffer: two frames of 1 MB, and more than a camera sends in 1 s.
const MAX_PACKETS: usize = 2_000;
/// Most RTP time in the buffer after the incomplete frame: 1 s.
const MAX_SPAN: u32 = VIDEO_CLOCK;

/// The result of [`VideoJitter::poll`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VideoPoll {
    /// The next frame.
    Frame(VideoFrame),
    /// Request a keyframe: the packets in the buffer cannot be decoded. Repeated every 500 ms while packets come and
    /// none of them starts a keyframe.
    KeyframeWanted,
    /// Poll again at this time, or when a packet comes.
    Wait(Timestamp),
    /// Poll again when a packet comes.
    Empty,
}

/// All packets of one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoFrame {
    /// The packets in order, contiguous in sequence; never empty.
    pub packets: Vec<SourcePacket>,
    /// It is a keyframe.
    pub starts_keyframe: bool,
    /// Frames are missing before this one, which is a keyframe.
    pub after_gap: bool,
}

/// Counters of a [`VideoJitter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VideoStats {
    /// Packets inserted.
    pub received: u64,
    /// Duplicate packets.
    pub duplicate: u64,
    /// Packets that came after their frame was returned or dropped, and stray packets.
    pub late: u64,
    /// Packets that did not come in time.
    pub lost: u64,
    /// Frames returned.
    pub frames: u64,
    /// Frames of which at least one packet came, and which were dropped.
    pub dropped_frames: u64,
    /// Packets dropped because the buffer was full.
    pub overflow: u64,
}

#[derive(Debug)]
struct Held {
    packet: SourcePacket,
    starts_keyframe: bool,
    inserted: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A keyframe is needed first.
    Waiting,
    /// The next frame begins at the floor.
    Flowing,
}

/// State of the packets from the floor on.
enum Head {
    /// A frame that ends before this number.
    Complete(i64),
    /// This packet is missing, and later ones are held.
    Hole(i64),
    /// No packet, or a frame whose end has not come.
    Open,
}

/// The jitter buffer of one video source.
#[derive(Debug)]
pub struct VideoJitter {
    hold: Duration,
    /// See [`VideoJitter::set_delay`].
    delay: Duration,
    numbers: Numbers,
    packets: BTreeMap<i64, Held>,
    /// All packets below this number were returned or dropped. None before the first packet.
    floor: Option<i64>,
    /// The floor is still that of the first packet: a reordered packet may move it back.
    fresh: bool,
    state: State,
    /// The missing packet at the head, and since when it is missing.
    hole: Option<(i64, Timestamp)>,
    after_gap: bool,
    asked: Option<Timestamp>,
    heard_since_asked: bool,
    last_dropped: Option<u32>,
    stats: VideoStats,
}

impl Default for VideoJitter {
    fn default() -> Self {
        Self::new(HOLD)
    }
}

impl VideoJitter {
    /// An empty buffer that waits `hold` for a missing packet (the default is 240 ms).
    pub fn new(hold: Duration) -> Self {
        Self {
            hold,
            delay: Duration::ZERO,
            numbers: Numbers::default(),
            packets: BTreeMap::new(),
            floor: None,
            fresh: true,
            state: State::Waiting,
            hole: None,
            after_gap: false,
            asked: None,
            heard_since_asked: false,
            last_dropped: None,
            stats: VideoStats::default(),
        }
    }

    /// The counters.
    pub fn stats(&self) -> VideoStats {
        self.stats
    }

    /// Sets the time from the arrival of a frame's last packet until the frame is returned; 0.4 s at most.
    pub fn set_delay(&mut self, delay: Duration) {
        self.delay = delay.min(DELAY_MAX);
    }

    /// Inserts a packet. `starts_keyframe`: its payload is the first one of a keyframe. Call [`Self::poll`] afterwards
    /// until it returns no more frames.
    pub fn insert(&mut self, packet: SourcePacket, starts_keyframe: bool, now: Timestamp) {
        self.stats.received += 1;
        let number = match self.numbers.take(packet.sequence) {
            Number::Known(number) => number,
            Number::Stray => {
                self.stats.late += 1;
                return;
            }
            Number::Restart(number) => {
                self.restart();
                number
            }
        };
        let floor = *self.floor.get_or_insert(number);
        if number < floor {
            if !self.fresh {
                self.stats.late += 1;
                return;
            }
            self.floor = Some(number);
        }
        if self.packets.contains_key(&number) {
            self.stats.duplicate += 1;
            return;
        }
        self.heard_since_asked = true;
        self.packets.insert(number, Held { packet, starts_keyframe, inserted: now });
        if self.packets.len() > MAX_PACKETS || self.spans_too_much() {
            self.overflow();
        }
    }

    /// The next frame or request; call until the result is neither a frame nor a keyframe request.
    pub fn poll(&mut self, now: Timestamp) -> VideoPoll {
        loop {
            if self.state == State::Waiting {
                let start = self.packets.iter().find(|(_, held)| held.starts_keyframe).map(|(&number, _)| number);
                let Some(start) = start else {
                    self.drop_stale(now);
                    return self.ask(now);
                };
                self.drop_before(start);
                self.state = State::Flowing;
            }
            match self.head() {
                Head::Complete(end) => {
                    let due = self.due(end);
                    if !self.delay.is_zero() && now < due {
                        return VideoPoll::Wait(due);
                    }
                    return VideoPoll::Frame(self.take_before(end));
                }
                Head::Open => return VideoPoll::Empty,
                Head::Hole(missing) => {
                    let deadline = self.missing_since(missing) + self.hold;
                    if now < deadline {
                        return VideoPoll::Wait(deadline);
                    }
                    self.skip(missing);
                }
            }
        }
    }

    fn head(&self) -> Head {
        let Some(floor) = self.floor else { return Head::Open };
        let mut next = floor;
        let mut timestamp = None;
        for (&number, held) in self.packets.range(floor..) {
            if number != next {
                return Head::Hole(next);
            }
            // A frame without a marker ends where the timestamp changes.
            if timestamp.is_some_and(|t| t != held.packet.timestamp) {
                return Head::Complete(next);
            }
            timestamp = Some(held.packet.timestamp);
            next += 1;
            if held.packet.marker {
                return Head::Complete(next);
            }
        }
        Head::Open
    }

    /// When the frame that ends before `end` is returned.
    fn due(&self, end: i64) -> Timestamp {
        let last = self.packets.range(..end).next_back();
        last.map_or_else(Timestamp::default, |(_, held)| held.packet.arrival + self.delay)
    }

    fn take_before(&mut self, end: i64) -> VideoFrame {
        let rest = self.packets.split_off(&end);
        let frame = mem::replace(&mut self.packets, rest);
        let starts_keyframe = frame.values().next().is_some_and(|held| held.starts_keyframe);
        self.floor = Some(end);
        self.fresh = false;
        self.stats.frames += 1;
        VideoFrame {
            packets: frame.into_values().map(|held| held.packet).collect(),
            starts_keyframe,
            after_gap: mem::take(&mut self.after_gap),
        }
    }

    /// Since when packets after the missing one are held.
    fn missing_since(&mut self, missing: i64) -> Timestamp {
        if let Some((number, since)) = self.hole
            && number == missing
        {
            return since;
        }
        let behind = self.packets.range(missing + 1..).map(|(_, held)| held.inserted);
        let since = behind.min().expect("a hole is seen by the packets behind it");
        self.hole = Some((missing, since));
        since
    }

    /// Stops waiting for a missing packet: continues with the next keyframe in the buffer, or waits for one.
    fn skip(&mut self, missing: i64) {
        let start = self.packets.range(missing..).find(|(_, held)| held.starts_keyframe).map(|(&number, _)| number);
        self.drop_before(start.unwrap_or(missing + 1));
        if start.is_none() {
            self.state = State::Waiting;
        }
    }

    fn ask(&mut self, now: Timestamp) -> VideoPoll {
        if !self.heard_since_asked {
            return VideoPoll::Empty;
        }
        match self.asked {
            Some(asked) if now < asked + ASK_AGAIN => VideoPoll::Wait(asked + ASK_AGAIN),
            _ => {
                self.asked = Some(now);
                self.heard_since_asked = false;
                VideoPoll::KeyframeWanted
            }
        }
    }

    /// While a keyframe is needed: keeps packets for a while, because the first packet of the keyframe may be
    /// reordered.
    fn drop_stale(&mut self, now: Timestamp) {
        let stale = self.packets.iter().rev().find(|(_, held)| held.inserted + self.hold <= now);
        if let Some((&number, _)) = stale {
            self.drop_before(number + 1);
        }
    }

    fn spans_too_much(&self) -> bool {
        let (Some((_, first)), Some((_, last))) = (self.packets.first_key_value(), self.packets.last_key_value())
        else {
            return false;
        };
        let span = |from: &Held| last.packet.timestamp.wrapping_sub(from.packet.timestamp) as i32;
        if span(first) <= MAX_SPAN as i32 {
            return false;
        }
        // The incomplete frame does not count: a screen may send a frame every few seconds.
        let behind = self.packets.values().find(|held| held.packet.timestamp != first.packet.timestamp);
        behind.is_some_and(|held| span(held) > MAX_SPAN as i32)
    }

    fn overflow(&mut self) {
        let before = self.packets.len();
        let newest = self.packets.last_key_value().map_or(0, |(&number, _)| number);
        let keyframe = self.packets.iter().rev().find(|(_, held)| held.starts_keyframe).map(|(&number, _)| number);
        let keyframe = keyframe.filter(|number| Some(number) != self.packets.keys().next());
        self.drop_before(keyframe.unwrap_or(newest + 1));
        if keyframe.is_none() {
            self.state = State::Waiting;
        }
        self.stats.overflow += (before - self.packets.len()) as u64;
    }

    /// Moves the floor up: packets below are dropped, missing ones are lost.
    fn drop_before(&mut self, limit: i64) {
        let Some(floor) = self.floor.filter(|&floor| floor < limit) else { return };
        let rest = self.packets.split_off(&limit);
        let dropped = mem::replace(&mut self.packets, rest);
        self.stats.lost += (limit - floor) as u64 - dropped.len() as u64;
        self.count_dropped(dropped);
        self.floor = Some(limit);
        self.fresh = false;
        self.after_gap = self.stats.frames > 0;
    }

    fn count_dropped(&mut self, dropped: BTreeMap<i64, Held>) {
        for held in dropped.into_values() {
            // Packets of one frame may be dropped in several steps.
            if self.last_dropped.replace(held.packet.timestamp) != Some(held.packet.timestamp) {
                self.stats.dropped_frames += 1;
            }
        }
    }

    fn restart(&mut self) {
        let dropped = mem::take(&mut self.packets);
        self.count_dropped(dropped);
        self.floor = None;
        self.fresh = true;
        self.state = State::Waiting;
        self.hole = None;
        self.after_gap = self.stats.frames > 0;
    }
}

#[cfg(test)]
mod tests;
