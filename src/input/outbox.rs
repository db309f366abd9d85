//! The outbox: what an input has to say, until the link takes it.
//!
//! Owns: the bounded queue towards the edge. Does not know: sockets. In by [`Outbox::push`] from any thread, out by
//! [`Outbox::take`] on one. When the edge is slow the oldest packets go first; whoever decodes them asks for a keyframe.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

use crate::link::input::FromInput;

/// Messages held: about two seconds of one source.
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
    /// Payload bytes taken in, for the bitrate.
    bytes: u64,
    dropped: u64,
    closed: bool,
}

impl Outbox {
    /// Adds a message; drops the oldest packet when the queue is full, or the oldest message where there is none: a newer
    /// report says the same.
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

    /// Lets the reader end once it has taken what is there.
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
            audio_level: None,
            rotation: None,
            colours: None,
            payload: Bytes::from_static(&[0; 100]),
        };
        FromInput::Packet(SourceKind::Camera, packet)
    }

    #[test]
    fn a_slow_edge_loses_the_oldest_packets_and_no_words() {
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
