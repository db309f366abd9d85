//! The outbox: the queues of messages from the mixer's threads to the link.
//!
//! Owns: the bounded queues, and the policy for a slow reader: the oldest media message is dropped, and a video stream
//! that lost a packet is dropped until its next keyframe, because no decoder could use the rest. Audio has a queue and
//! a lock of its own, so that an audio tick never waits for a thread that sends video. Does not know: sockets. In:
//! [`Outbox::push`] and [`Outbox::push_audio`], from any thread. Out: [`Outbox::take`], on one thread, audio first.
//! Beside the queues is the [`Journal`], for what must not be lost with this process.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};

use parking_lot::Mutex;

use crate::link::FromMixer;
use crate::link::journal::Journal;

/// Most messages in the queue: about 2 s of a room with five streams.
const MESSAGES_MAX: usize = 4096;
/// Most messages in the queue of the audio: 1.7 s of ticks (50 per second) and level reports (10 per second).
const AUDIO_MAX: usize = 100;
/// Most payload bytes in the queue: bounds the memory of large keyframes.
const BYTES_MAX: usize = 8 << 20;

/// The queues of messages to the edge.
#[derive(Debug, Default)]
pub struct Outbox {
    state: Mutex<State>,
    audio: Mutex<AudioQueue>,
    /// The thread that takes the messages; it is parked while there are none.
    reader: OnceLock<Thread>,
    journal: Arc<Journal>,
}

#[derive(Debug, Default)]
struct AudioQueue {
    queue: VecDeque<FromMixer>,
    dropped: u64,
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
    /// Empty queues, with the journal of this process.
    pub fn new(journal: Arc<Journal>) -> Self {
        Self { journal, ..Self::default() }
    }

    /// What the edge reads after this process has died.
    pub const fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// Adds a message that is not audio; drops older media when the queue is full.
    pub fn push(&self, message: FromMixer) {
        self.push_all(std::iter::once(message));
    }

    /// Adds several messages and wakes the reader once.
    pub fn push_all(&self, messages: impl IntoIterator<Item = FromMixer>) {
        let mut state = self.state.lock();
        for message in messages {
            state.push(message);
        }
        drop(state);
        self.wake();
    }

    /// Adds messages of an audio tick; drops the oldest when their queue is full.
    pub fn push_audio(&self, messages: impl IntoIterator<Item = FromMixer>) {
        let mut audio = self.audio.lock();
        for message in messages {
            if audio.queue.len() == AUDIO_MAX {
                audio.queue.pop_front();
                audio.dropped += 1;
            }
            audio.queue.push_back(message);
        }
        drop(audio);
        self.wake();
    }

    /// Waits for messages and moves all of them into `into`; false when the outbox is closed and empty. Always called
    /// by the same thread.
    pub fn take(&self, into: &mut Vec<FromMixer>) -> bool {
        let reader = self.reader.get_or_init(thread::current);
        debug_assert_eq!(reader.id(), thread::current().id(), "another thread would not be woken");
        loop {
            into.extend(self.audio.lock().queue.drain(..));
            let mut state = self.state.lock();
            state.bytes = 0;
            into.extend(state.queue.drain(..));
            if !into.is_empty() || state.closed {
                return !into.is_empty();
            }
            drop(state);
            thread::park();
        }
    }

    /// Lets the reader end once it has taken what is there.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.wake();
    }

    /// Messages dropped so far.
    pub fn dropped(&self) -> u64 {
        let audio = self.audio.lock().dropped;
        audio + self.state.lock().dropped
    }

    /// A reader that is about to park does not miss it: `park` then returns at once.
    fn wake(&self) {
        if let Some(reader) = self.reader.get() {
            reader.unpark();
        }
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

    /// Drops the oldest video message, or the oldest message if there is no video: a newer report replaces an older
    /// one.
    fn drop_oldest(&mut self) {
        let video = |m: &FromMixer| matches!(m, FromMixer::Video { .. });
        let oldest = self.queue.iter().position(video).unwrap_or_default();
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
    if let FromMixer::Video { packet, .. } = message { packet.payload.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::id::ParticipantId;
    use crate::media::EncodedPacket;

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
        outbox.push_all((1..MESSAGES_MAX).map(|_| video(2, true)));
        assert_eq!((outbox.dropped(), outbox.broken()), (1, vec![1]));
        outbox.push(video(1, false));
        outbox.push(video(2, false));
        assert_eq!(outbox.dropped(), 3, "the packet that cannot be decoded, and the oldest of the other stream");
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

    fn levels(n: usize) -> FromMixer {
        FromMixer::Levels(vec![(ParticipantId(n as u32), 30)])
    }

    #[test]
    fn audio_waits_neither_for_video_nor_behind_it() {
        let outbox = Outbox::default();
        outbox.push_all((0..MESSAGES_MAX).map(|_| video(1, true)));
        let sending_video = outbox.state.lock();
        outbox.push_audio([levels(1)]);
        drop(sending_video);
        let all = taken(&outbox);
        assert_eq!((&all[0], all.len()), (&levels(1), 1 + MESSAGES_MAX));
    }

    #[test]
    fn the_queue_of_the_audio_is_bounded_and_keeps_the_newest() {
        let outbox = Outbox::default();
        outbox.push_audio((0..AUDIO_MAX + 3).map(levels));
        assert_eq!(outbox.dropped(), 3);
        let all = taken(&outbox);
        assert_eq!((all.len(), &all[0]), (AUDIO_MAX, &levels(3)));
    }

    #[test]
    fn a_waiting_reader_gets_every_message_of_both_queues() {
        let outbox = Outbox::default();
        let got = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut all = Vec::new();
                let mut batch = Vec::new();
                while outbox.take(&mut batch) {
                    all.append(&mut batch);
                }
                all
            });
            for n in 0..50 {
                outbox.push_audio([levels(n)]);
                outbox.push(video(1, true));
                thread::yield_now();
            }
            outbox.close();
            reader.join().expect("it only reads")
        });
        assert_eq!(got.len(), 100);
        let audio = got.iter().filter(|message| matches!(message, FromMixer::Levels(_)));
        assert!(audio.eq((0..50).map(levels).collect::<Vec<_>>().iter()));
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
