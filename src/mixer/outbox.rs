//! The outbox: what the mixer's threads have to say, until the link takes it.
//!
//! Owns: the bounded queue towards the edge, and what happens when the edge is slow: the oldest media goes first, and a
//! video stream that lost a packet stays silent until its next keyframe, because its decoder could not use the rest.
//! Does not know: sockets. In by [`Outbox::push`] from any thread, out by [`Outbox::take`] on one.

use std::collections::{BTreeSet, VecDeque};

use parking_lot::{Condvar, Mutex};

use crate::link::FromMixer;
use crate::media::EncodedPacket;

/// Messages held; about two seconds of a room with a handful of streams.
const MESSAGES_MAX: usize = 4096;
/// Payload bytes held, so that large keyframes cannot fill the memory.
const BYTES_MAX: usize = 8 << 20;

/// The queue towards the edge.
#[derive(Debug, Default)]
pub struct Outbox {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<FromMixer>,
    bytes: usize,
    dropped: u64,
    /// Streams of which a packet was dropped: nothing of them goes out before a keyframe.
    broken: BTreeSet<u32>,
    closed: bool,
}

impl Outbox {
    /// Adds a message; drops older media when the queue is full.
    pub fn push(&self, message: FromMixer) {
        self.push_all(std::iter::once(message));
    }

    /// Adds messages that belong together with one wake-up of the reader.
    pub fn push_all(&self, messages: impl IntoIterator<Item = FromMixer>) {
        let mut state = self.state.lock();
        for message in messages {
            state.push(message);
        }
        if !state.queue.is_empty() {
            self.filled.notify_one();
        }
    }

    /// Waits for messages and moves all of them into `into`; false when the outbox is closed and empty.
    pub fn take(&self, into: &mut Vec<FromMixer>) -> bool {
        let mut state = self.state.lock();
        while state.queue.is_empty() {
            if state.closed {
                return false;
            }
            self.filled.wait(&mut state);
        }
        state.bytes = 0;
        into.extend(state.queue.drain(..));
        true
    }

    /// Lets the reader end once it has taken what is there.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_all();
    }

    /// Messages dropped so far.
    pub fn dropped(&self) -> u64 {
        self.state.lock().dropped
    }

    /// The streams that need a keyframe to go on.
    pub fn broken(&self) -> Vec<u32> {
        self.state.lock().broken.iter().copied().collect()
    }

    /// Streams that are still encoded; what is known of any other is forgotten.
    pub fn keep(&self, serials: &BTreeSet<u32>) {
        self.state.lock().broken.retain(|serial| serials.contains(serial));
    }
}

impl State {
    fn push(&mut self, message: FromMixer) {
        if let FromMixer::Video { serial, packet } = &message
            && self.broken.contains(serial)
        {
            if !packet.starts_keyframe {
                self.dropped += 1;
                return;
            }
            self.broken.remove(serial);
        }
        self.bytes += size(&message);
        self.queue.push_back(message);
        while self.queue.len() > MESSAGES_MAX || self.bytes > BYTES_MAX {
            self.drop_oldest();
        }
    }

    /// Drops the oldest message that carries media, or else the oldest one: a newer report says the same.
    fn drop_oldest(&mut self) {
        let media = |m: &FromMixer| matches!(m, FromMixer::Video { .. } | FromMixer::Audio(_));
        let oldest = self.queue.iter().position(media).unwrap_or_default();
        let Some(message) = self.queue.remove(oldest) else { return };
        self.bytes -= size(&message);
        self.dropped += 1;
        let FromMixer::Video { serial, .. } = message else { return };
        self.broken.insert(serial);
        // What follows of this stream, up to its next keyframe, has become useless.
        let (mut whole, mut dropped, mut bytes) = (false, 0, 0);
        self.queue.retain(|m| match m {
            FromMixer::Video { serial: other, packet } if *other == serial && !whole => {
                whole = packet.starts_keyframe;
                dropped += u64::from(!whole);
                bytes += if whole { 0 } else { size(m) };
                whole
            }
            _ => true,
        });
        if whole {
            self.broken.remove(&serial);
        }
        self.dropped += dropped;
        self.bytes -= bytes;
    }
}

fn size(message: &FromMixer) -> usize {
    let of = |packet: &EncodedPacket| packet.payload.len();
    match message {
        FromMixer::Video { packet, .. } => of(packet),
        FromMixer::Audio(tick) => {
            let own = tick.own.iter().filter_map(|(_, packet)| packet.as_ref());
            tick.everyone.iter().chain(own).map(of).sum()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::link::AudioTick;

    fn video(serial: u32, starts_keyframe: bool) -> FromMixer {
        let payload = Bytes::from_static(&[0; 1000]);
        FromMixer::Video { serial, packet: EncodedPacket { timestamp: 0, marker: true, starts_keyframe, payload } }
    }

    fn taken(outbox: &Outbox) -> Vec<FromMixer> {
        let mut all = Vec::new();
        assert!(outbox.take(&mut all));
        all
    }

    #[test]
    fn a_stream_that_lost_a_packet_is_silent_until_its_keyframe() {
        let outbox = Outbox::default();
        outbox.push(video(1, true));
        outbox.push(FromMixer::Ready { missing: Vec::new() });
        outbox.push_all((1..MESSAGES_MAX).map(|_| FromMixer::Audio(AudioTick::default())));
        assert_eq!((outbox.dropped(), outbox.broken()), (1, vec![1]));
        outbox.push(video(1, false));
        outbox.push(video(2, false));
        assert_eq!(outbox.dropped(), 3, "the useless packet, and the oldest sound for stream 2");
        let all = taken(&outbox);
        assert_eq!(all.len(), MESSAGES_MAX);
        assert!(matches!(all[0], FromMixer::Ready { .. }), "what is not media is kept");
        assert_eq!(all.last(), Some(&video(2, false)));
        outbox.push(video(1, true));
        outbox.push(video(1, false));
        assert_eq!(taken(&outbox), [video(1, true), video(1, false)]);
        assert!(outbox.broken().is_empty());
    }

    #[test]
    fn bytes_are_bounded_and_a_keyframe_that_is_queued_mends_the_stream() {
        const PAYLOAD: usize = 4_000;
        const { assert!(BYTES_MAX / PAYLOAD < MESSAGES_MAX, "the bytes must fill it first") };
        let outbox = Outbox::default();
        let large = |starts_keyframe| {
            let payload = Bytes::from_static(&[0; PAYLOAD]);
            FromMixer::Video {
                serial: 7,
                packet: EncodedPacket { timestamp: 0, marker: true, starts_keyframe, payload },
            }
        };
        outbox.push_all((0..=BYTES_MAX / PAYLOAD).map(|i| large(i == 100)));
        assert_eq!(outbox.dropped(), 100, "everything before the keyframe");
        assert!(outbox.broken().is_empty());
        assert_eq!(taken(&outbox)[0], large(true));
    }

    #[test]
    fn a_closed_outbox_gives_out_the_rest_and_ends() {
        let outbox = Outbox::default();
        outbox.push(video(1, true));
        outbox.close();
        assert_eq!(taken(&outbox).len(), 1);
        assert!(!outbox.take(&mut Vec::new()));
    }
}
