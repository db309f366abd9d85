//! The send queue of a TCP connection.
//!
//! Owns: the bounds, and the drop policy for a slow receiver. Does not know: sockets. Datagrams enter by
//! [`Outbox::push`], each with its frame, and leave as a byte stream. Pure but for the wake-up: time is an argument.
//!
//! TCP turns loss into delay, so that late packets are dropped before they enter the stream; of video whole frames,
//! because the rest of an incomplete frame is useless. Payloads are encrypted: a stream counts as video by the size of
//! its packets.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::time::Timestamp;

/// Bytes that may wait: a large keyframe and some.
const FULL: usize = 256 * 1024;
/// While the oldest datagram has waited this long, no new video frame is accepted.
const LATE_VIDEO: Duration = Duration::from_millis(300);
/// While the oldest datagram has waited this long, no audio is accepted either.
const LATE_SOUND: Duration = Duration::from_secs(1);
/// A stream with a packet of this many bytes is video.
const VIDEO_PACKET: usize = 600;
/// RTP streams distinguished; we send four, with retransmissions.
const STREAMS: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(Timestamp, BytesMut)>,
    bytes: usize,
    streams: VecDeque<Stream>,
}

/// An RTP stream.
#[derive(Debug)]
struct Stream {
    ssrc: u32,
    is_video: bool,
    /// The current frame: its RTP timestamp, and whether it is dropped.
    frame: Option<(u32, bool)>,
}

impl Outbox {
    /// Queues the `frame` of a datagram; false when it was dropped.
    pub(crate) fn push(&self, now: Timestamp, datagram: &[u8], frame: impl FnOnce() -> BytesMut) -> bool {
        let taken = self.state.lock().push(now, datagram, frame);
        if taken {
            self.filled.notify_one();
        }
        taken
    }

    /// Moves the oldest frames to `stream` until that has at least `enough` bytes.
    pub(crate) fn fill(&self, stream: &mut BytesMut, enough: usize) {
        let mut state = self.state.lock();
        while stream.len() < enough
            && let Some((_, frame)) = state.waiting.pop_front()
        {
            state.bytes -= frame.len();
            stream.extend_from_slice(&frame);
        }
    }

    /// Waits until a frame may be queued.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }
}

impl State {
    fn push(&mut self, now: Timestamp, datagram: &[u8], frame: impl FnOnce() -> BytesMut) -> bool {
        let wanted = match rtp(datagram) {
            Some((ssrc, timestamp)) => self.wants(now, ssrc, timestamp, datagram.len()),
            None => self.has_room(datagram.len()),
        };
        if wanted {
            let frame = frame();
            self.bytes += frame.len();
            self.waiting.push_back((now, frame));
        }
        wanted
    }

    fn has_room(&self, length: usize) -> bool {
        self.bytes + length <= FULL
    }

    /// Whether an RTP packet is accepted.
    fn wants(&mut self, now: Timestamp, ssrc: u32, timestamp: u32, length: usize) -> bool {
        let waits = self.waiting.front().map_or(Duration::ZERO, |(since, _)| now.since(*since));
        let has_room = self.has_room(length);
        let at = self.streams.iter().position(|stream| stream.ssrc == ssrc).unwrap_or_else(|| {
            if self.streams.len() == STREAMS {
                self.streams.pop_front();
            }
            self.streams.push_back(Stream { ssrc, is_video: false, frame: None });
            self.streams.len() - 1
        });
        let stream = &mut self.streams[at];
        stream.is_video |= length >= VIDEO_PACKET;
        if !stream.is_video {
            return has_room && waits < LATE_SOUND;
        }
        let dropped = match stream.frame {
            Some((passing, dropped)) if passing == timestamp => dropped || !has_room,
            _ => !has_room || waits >= LATE_VIDEO,
        };
        stream.frame = Some((timestamp, dropped));
        !dropped
    }
}

/// SSRC and timestamp of an RTP packet; None for RTCP, DTLS and STUN (RFC 7983, RFC 5761 section 4).
fn rtp(datagram: &[u8]) -> Option<(u32, u32)> {
    let [128..=191, second, _, _, t0, t1, t2, t3, s0, s1, s2, s3, ..] = *datagram else { return None };
    let is_rtcp = (192..224).contains(&second);
    (!is_rtcp).then(|| (u32::from_be_bytes([s0, s1, s2, s3]), u32::from_be_bytes([t0, t1, t2, t3])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tcp::framed;
    use crate::transport::framing;

    const VIDEO: u32 = 1;
    const SOUND: u32 = 2;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(millis * 1_000)
    }

    fn packet(ssrc: u32, timestamp: u32, length: usize) -> Vec<u8> {
        let mut packet = vec![0x80, 96, 0, 1];
        packet.extend(timestamp.to_be_bytes());
        packet.extend(ssrc.to_be_bytes());
        packet.resize(length, 7);
        packet
    }

    fn push(outbox: &Outbox, now: Timestamp, datagram: &[u8]) -> bool {
        outbox.push(now, datagram, || framed(datagram))
    }

    fn drained(outbox: &Outbox) -> usize {
        let mut stream = BytesMut::new();
        outbox.fill(&mut stream, usize::MAX);
        stream.len()
    }

    #[test]
    fn a_frame_that_has_begun_is_accepted_whole_and_a_late_frame_not_at_all() {
        let outbox = Outbox::default();
        assert!(push(&outbox, at(0), &packet(VIDEO, 10, 1_000)));
        assert!(push(&outbox, at(400), &packet(VIDEO, 10, 50)), "the rest of it");
        assert!(!push(&outbox, at(400), &packet(VIDEO, 20, 1_000)));
        assert!(push(&outbox, at(400), &packet(SOUND, 5, 120)), "sound may be later than pictures");
        assert_eq!(drained(&outbox), 1_002 + 52 + 122);
        assert!(!push(&outbox, at(401), &packet(VIDEO, 20, 50)), "of a frame without a beginning");
        assert!(push(&outbox, at(402), &packet(VIDEO, 30, 1_000)));
    }

    #[test]
    fn a_queue_that_does_not_drain_is_bounded_and_still_accepts_stun() {
        let outbox = Outbox::default();
        for timestamp in 0..2_000 {
            push(&outbox, at(0), &packet(VIDEO, timestamp, 1_200));
        }
        assert!(!push(&outbox, at(0), &packet(VIDEO, 3_000, 1_200)));
        assert!(!push(&outbox, at(2_000), &packet(SOUND, 1, 100)), "sound that would be two seconds late");
        assert!(push(&outbox, at(2_000), &[0, 1, 0, 0]), "STUN");
        let waiting = drained(&outbox);
        assert!((FULL - 1_200..FULL + FULL / 500).contains(&waiting), "{waiting}");
    }

    #[test]
    fn a_chunk_has_the_requested_size_and_no_frame_is_cut() {
        let outbox = Outbox::default();
        for timestamp in 0..10 {
            push(&outbox, at(0), &packet(SOUND, timestamp, 100));
        }
        let mut stream = BytesMut::new();
        outbox.fill(&mut stream, 250);
        assert_eq!(stream.len(), 3 * 102);
        while framing::take(&mut stream, 100).expect("none is too long").is_some() {}
        assert!(stream.is_empty());
        assert_eq!(drained(&outbox), 7 * 102);
    }
}
