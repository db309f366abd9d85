//! The outbox of an input: messages and packets for the edge, until the link sends them.
//!
//! Owns: the bounded queue. Does not know: sockets. In: [`Outbox::push`], from any thread. Out: [`Outbox::take`], on
//! one thread. When the queue is full, the oldest packets are dropped; the decoder in the mixer then requests a
//! keyframe.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

use crate::link::input::FromInput;

/// Capacity of the queue: about two seconds of one source.
const MESSAGES_MAX: usize = 1024;

/// The queue towards the edge.
#[derive(Debug, Default)]
pub struct Outbox {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<FromInput>,
    /// Payload bytes pushed, for the bitrate.
    bytes: u64,
    dropped: u64,
    closed: bool,
}

impl Outbox {
    /// Adds a message. When the queue is full, drops the oldest packet, or without packets the oldest message, which is
    /// a report that a newer one replaces.
    pub fn push(&self, message: FromInput) {
        let mut state = self.state.lock();
        if let FromInput::Packet(_, packet) = &message {
            state.bytes += packet.payload.len() as u64;
        }
        if state.queue.len() >= MESSAGES_MAX {
            let oldest = state.queue.iter().position(|held| matches!(held, FromInput::Packet(..))).unwrap_or_default();
            state.queue.remove(oldest);
            state.dropped += 1;
        }
        state.queue.push_back(message);
        drop(state);
        self.filled.notify_one();
    }

    /// Waits for messages and moves all of them into `into`; false when the outbox is closed and empty.
    pub fn take(&self, into: &mut Vec<FromInput>) -> bool {
        let mut state = self.state.lock();
        while state.queue.is_empty() {
            if state.closed {
                return false;
            }
            self.filled.wait(&mut state);
        }
        into.extend(state.queue.drain(..));
        true
    }

    /// Closes the queue; the reader ends after taking the remaining messages.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_all();
    }

    /// Payload bytes pushed, and messages dropped, so far.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.bytes, state.dropped)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::media::{SourceKind, SourcePacket};
    use crate::time::Timestamp;

    fn packet(sequence: u16) -> FromInput {
        let packet = SourcePacket {
            sequence,
            timestamp: 0,
            marker: true,
            arrival: Timestamp::default(),
            captured: None,
            audio_level: None,
            rotation: None,
            colours: None,
            payload: Bytes::from_static(&[0; 100]),
        };
        FromInput::Packet(SourceKind::Camera, packet)
    }

    #[test]
    fn a_full_queue_drops_the_oldest_packets_and_no_control_messages() {
        let outbox = Outbox::default();
        outbox.push(FromInput::Ready { missing: Vec::new() });
        (0..MESSAGES_MAX as u16 + 2).for_each(|sequence| outbox.push(packet(sequence)));
        assert_eq!(outbox.counts(), ((MESSAGES_MAX as u64 + 2) * 100, 3));
        let mut all = Vec::new();
        assert!(outbox.take(&mut all));
        assert_eq!(
            (all.len(), &all[0], &all[1]),
            (MESSAGES_MAX, &FromInput::Ready { missing: Vec::new() }, &packet(3))
        );
        outbox.push(packet(9));
        outbox.close();
        assert!(outbox.take(&mut all));
        assert!(!outbox.take(&mut all));
    }
}
