//! The outbox: the queue of messages from the mixer's threads to the link.
//!
//! Owns: the bounded queue, and the policy for a slow reader: the oldest media message is dropped, and a video stream
//! that lost a packet is dropped until its next keyframe, because no decoder could use the rest. Does not know:
//! sockets. In: [`Outbox::push`], from any thread. Out: [`Outbox::take`], on one thread.

use std::collections::{BTreeSet, VecDeque};

use parking_lot::{Condvar, Mutex};

use crate::link::FromMixer;
use crate::media::EncodedPacket;

/// Most messages in the queue: about 2 s of a room with five streams.
const MESSAGES_MAX: usize = 4096;
/// Most payload bytes in the queue: bounds the memory of large keyframes.
const BYTES_MAX: usize = 8 << 20;

/// The queue of messages to the edge.
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
    /// Streams that lost a packet: their packets are dropped until a keyframe.
    broken: BTreeSet<u32>,
    closed: bool,
}

impl Outbox {
    /// Adds a message; drops older media when the queue is full.
    pub fn push(&self, message: FromMixer) {
        self.push_all(std::iter::once(message));
    }

    /// Adds several messages and wakes the reader once.
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

    /// Forgets all streams but these, which are still encoded.
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

    /// Drops the oldest media message, or the oldest message if there is no media: a newer report replaces an older
    /// one.
    fn drop_oldest(&mut self) {
        let media = |m: &FromMixer| matches!(m, FromMixer::Video { .. } | FromMixer::Audio(_));
        let oldest = self.queue.iter().position(media).unwrap_or_default();
        let Some(message) = self.queue.remove(oldest) else { return };
        self.bytes -= size(&message);
        self.dropped += 1;
        let FromMixer::Video { serial, .. } = message else { return };
        self.broken.insert(serial);
        // Packets of this stream up to its next keyframe cannot be decoded any more.
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
            let mix_minus = tick.mix_minus.iter().filter_map(|(_, packet)| packet.as_ref());
            tick.everyone.iter().chain(mix_minus).map(of).sum()
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
    fn a_stream_that_lost_a_packet_is_dropped_until_its_keyframe() {
        let outbox = Outbox::default();
        outbox.push(video(1, true));
        outbox.push(FromMixer::Ready { missing: Vec::new() });
        outbox.push_all((1..MESSAGES_MAX).map(|_| FromMixer::Audio(AudioTick::default())));
        assert_eq!((outbox.dropped(), outbox.broken()), (1, vec![1]));
        outbox.push(video(1, false));
        outbox.push(video(2, false));
        assert_eq!(outbox.dropped(), 3, "the packet that cannot be decoded, and the oldest audio message");
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
    fn bytes_are_bounded_and_a_stream_continues_with_a_queued_keyframe() {
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
    fn a_closed_outbox_returns_the_queued_messages_and_then_ends() {
        let outbox = Outbox::default();
        outbox.push(video(1, true));
        outbox.close();
        assert_eq!(taken(&outbox).len(), 1);
        assert!(!outbox.take(&mut Vec::new()));
    }
}
