//! From one encoded stream to many subscribers.
//!
//! Owns: [`Subscriber`], the bounded queue between the fan-out and one peer (or output), and [`Rewriter`], which makes a
//! stream's packets one subscriber's own. Does not know: connections, streams' contents beyond VP8's picture id.
//! The fan-out pushes and never waits; one writer per subscriber takes packets out with [`Subscriber::next`].

mod rewrite;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

pub use self::rewrite::{Header, Rewriter};
use crate::media::{EncodedPacket, VIDEO_CLOCK};

/// Video packets a subscriber may be behind: a large keyframe and the frames around it.
const VIDEO_MAX: usize = 512;
/// Audio packets a subscriber may be behind: half a second.
const AUDIO_MAX: usize = 25;
/// A keyframe that did not come is asked for again after so much of the stream, in ticks of the video clock.
const ASK_AGAIN: u32 = VIDEO_CLOCK;

/// What a subscriber's writer sends next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// A packet of sound.
    Audio(EncodedPacket),
    /// A packet of video.
    Video {
        /// The packet.
        packet: EncodedPacket,
        /// It does not continue what was sent before it: another stream begins, or packets were dropped.
        resumes: bool,
    },
}

/// Counters of one subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubscriberStats {
    /// Video packets dropped because the subscriber was too slow, and while it waited for a keyframe afterwards.
    pub video_dropped: u64,
    /// Audio packets dropped because the subscriber was too slow.
    pub audio_dropped: u64,
}

/// The queue of one who gets streams. Closed until [`Subscriber::resume`]: what is pushed before is nobody's loss.
#[derive(Debug, Default)]
pub struct Subscriber {
    queue: Mutex<Queue>,
    ready: Notify,
    keyframe: Notify,
    video_dropped: AtomicU64,
    audio_dropped: AtomicU64,
}

impl Subscriber {
    /// Queues a packet of the video stream with this serial. After another stream, or after drops, packets are taken
    /// only from the next keyframe on, and one is asked for.
    pub fn push_video(&self, stream: u32, packet: &EncodedPacket) {
        let pushed = self.queue.lock().push_video(stream, packet);
        if pushed.dropped > 0 {
            self.video_dropped.fetch_add(pushed.dropped, Ordering::Relaxed);
        }
        if pushed.wants_keyframe {
            self.keyframe.notify_one();
        }
        if pushed.queued {
            self.ready.notify_one();
        }
    }

    /// Queues a packet of sound; the oldest leaves when there are too many.
    pub fn push_audio(&self, packet: &EncodedPacket) {
        let pushed = self.queue.lock().push_audio(packet);
        if pushed.dropped > 0 {
            self.audio_dropped.fetch_add(pushed.dropped, Ordering::Relaxed);
        }
        if pushed.queued {
            self.ready.notify_one();
        }
    }

    /// Opens the queue, or empties it after an interruption: what is sent next begins with a keyframe.
    pub fn resume(&self) {
        *self.queue.lock() = Queue { open: true, ..Queue::default() };
    }

    /// The next packet to send; sound goes first. For one writer.
    pub async fn next(&self) -> Outgoing {
        loop {
            if let Some(outgoing) = self.queue.lock().pop() {
                return outgoing;
            }
            self.ready.notified().await;
        }
    }

    /// Waits until a keyframe is needed; requests made meanwhile are one. For one asker.
    pub async fn keyframe_wanted(&self) {
        self.keyframe.notified().await;
    }

    /// Counters so far.
    pub fn stats(&self) -> SubscriberStats {
        SubscriberStats {
            video_dropped: self.video_dropped.load(Ordering::Relaxed),
            audio_dropped: self.audio_dropped.load(Ordering::Relaxed),
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    open: bool,
    video: VecDeque<Outgoing>,
    audio: VecDeque<EncodedPacket>,
    /// The stream whose packets are taken; None while a keyframe is waited for.
    flowing: Option<u32>,
    /// When a keyframe was last asked for, in the stream's time.
    asked: Option<u32>,
    /// Packets not taken now are a slow subscriber's loss, not the wait of a new one.
    overflowed: bool,
}

/// What became of a pushed packet.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pushed {
    queued: bool,
    dropped: u64,
    wants_keyframe: bool,
}

impl Queue {
    fn push_video(&mut self, stream: u32, packet: &EncodedPacket) -> Pushed {
        let mut pushed = Pushed::default();
        if !self.open {
            return pushed;
        }
        let mut resumes = false;
        if self.flowing != Some(stream) {
            self.flowing = None;
            if !packet.starts_keyframe {
                pushed.dropped = u64::from(self.overflowed);
                pushed.wants_keyframe = self.ask(packet.timestamp);
                return pushed;
            }
            self.flowing = Some(stream);
            self.asked = None;
            self.overflowed = false;
            resumes = true;
        }
        if self.video.len() == VIDEO_MAX {
            // What waits is late already: the next keyframe catches up at once.
            pushed.dropped = self.video.len() as u64 + 1;
            self.video.clear();
            self.flowing = None;
            self.overflowed = true;
            pushed.wants_keyframe = self.ask(packet.timestamp);
            return pushed;
        }
        self.video.push_back(Outgoing::Video { packet: packet.clone(), resumes });
        pushed.queued = true;
        pushed
    }

    fn push_audio(&mut self, packet: &EncodedPacket) -> Pushed {
        let mut pushed = Pushed::default();
        if !self.open {
            return pushed;
        }
        if self.audio.len() == AUDIO_MAX {
            self.audio.pop_front();
            pushed.dropped = 1;
        }
        self.audio.push_back(packet.clone());
        pushed.queued = true;
        pushed
    }

    fn pop(&mut self) -> Option<Outgoing> {
        self.audio.pop_front().map(Outgoing::Audio).or_else(|| self.video.pop_front())
    }

    /// Whether a keyframe is to be asked for now: once per wait, and again when it does not come.
    fn ask(&mut self, timestamp: u32) -> bool {
        // A stream that began anew counts from elsewhere: then the difference is large and it is asked again.
        let due = self.asked.is_none_or(|asked| timestamp.wrapping_sub(asked) >= ASK_AGAIN);
        if due {
            self.asked = Some(timestamp);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn packet(timestamp: u32, starts_keyframe: bool) -> EncodedPacket {
        EncodedPacket { timestamp, marker: true, starts_keyframe, payload: Bytes::from_static(b"payload") }
    }

    fn open() -> Queue {
        Queue { open: true, ..Queue::default() }
    }

    const QUEUED: Pushed = Pushed { queued: true, dropped: 0, wants_keyframe: false };

    #[test]
    fn nothing_is_queued_or_counted_before_the_subscriber_is_open() {
        let mut queue = Queue::default();
        assert_eq!(queue.push_video(1, &packet(0, true)), Pushed::default());
        assert_eq!(queue.push_audio(&packet(0, true)), Pushed::default());
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn a_new_subscriber_asks_once_and_begins_with_a_keyframe() {
        let mut queue = open();
        assert_eq!(queue.push_video(1, &packet(0, false)), Pushed { wants_keyframe: true, ..Pushed::default() });
        assert_eq!(queue.push_video(1, &packet(3_000, false)), Pushed::default());
        assert_eq!(queue.push_video(1, &packet(6_000, true)), QUEUED);
        assert_eq!(queue.push_video(1, &packet(9_000, false)), QUEUED);
        assert_eq!(queue.pop(), Some(Outgoing::Video { packet: packet(6_000, true), resumes: true }));
        assert_eq!(queue.pop(), Some(Outgoing::Video { packet: packet(9_000, false), resumes: false }));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn a_keyframe_that_does_not_come_is_asked_for_again() {
        let mut queue = open();
        let asked: Vec<u32> = (0..120)
            .map(|frame| frame * 3_000)
            .filter(|t| queue.push_video(1, &packet(*t, false)).wants_keyframe)
            .collect();
        assert_eq!(asked, [0, 90_000, 180_000, 270_000]);
    }

    #[test]
    fn another_stream_begins_with_its_keyframe() {
        let mut queue = open();
        queue.push_video(1, &packet(0, true));
        assert!(queue.push_video(2, &packet(3_000, false)).wants_keyframe);
        assert_eq!(queue.push_video(2, &packet(6_000, true)), QUEUED);
        queue.pop();
        assert_eq!(queue.pop(), Some(Outgoing::Video { packet: packet(6_000, true), resumes: true }));
    }

    #[test]
    fn a_slow_subscriber_loses_video_up_to_the_next_keyframe_and_all_of_it_is_counted() {
        let mut queue = open();
        for frame in 0..VIDEO_MAX as u32 {
            assert_eq!(queue.push_video(1, &packet(frame, frame == 0)), QUEUED);
        }
        let pushed = queue.push_video(1, &packet(1_000, false));
        assert_eq!(pushed, Pushed { queued: false, dropped: VIDEO_MAX as u64 + 1, wants_keyframe: true });
        let pushed = queue.push_video(1, &packet(1_001, false));
        assert_eq!(pushed, Pushed { queued: false, dropped: 1, wants_keyframe: false });
        assert_eq!(queue.push_video(1, &packet(1_002, true)), QUEUED);
        assert_eq!(queue.pop(), Some(Outgoing::Video { packet: packet(1_002, true), resumes: true }));
    }

    #[test]
    fn the_oldest_sound_leaves_first_and_sound_goes_before_video() {
        let mut queue = open();
        queue.push_video(1, &packet(0, true));
        for tick in 0..AUDIO_MAX as u32 + 3 {
            assert_eq!(queue.push_audio(&packet(tick, true)).dropped, u64::from(tick >= AUDIO_MAX as u32));
        }
        assert_eq!(queue.pop(), Some(Outgoing::Audio(packet(3, true))));
    }

    #[tokio::test]
    async fn a_resumed_subscriber_forgets_what_waited_and_wants_a_keyframe() {
        let subscriber = Subscriber::default();
        subscriber.resume();
        subscriber.push_video(1, &packet(0, true));
        subscriber.push_audio(&packet(0, true));
        subscriber.resume();
        subscriber.push_video(1, &packet(3_000, false));
        subscriber.keyframe_wanted().await;
        subscriber.push_video(1, &packet(6_000, true));
        assert_eq!(subscriber.next().await, Outgoing::Video { packet: packet(6_000, true), resumes: true });
        assert_eq!(subscriber.stats(), SubscriberStats::default());
    }

    #[derive(Debug, Clone)]
    enum Op {
        Video { stream: u32, keyframe: bool },
        Audio,
        Pop(usize),
        Resume,
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            20 => (0..3_u32, prop::bool::weighted(0.05)).prop_map(|(stream, keyframe)| Op::Video { stream, keyframe }),
            20 => prop::bool::weighted(0.02).prop_map(|keyframe| Op::Video { stream: 0, keyframe }),
            5 => Just(Op::Audio),
            2 => (0..200_usize).prop_map(Op::Pop),
            1 => Just(Op::Resume),
        ];
        prop::collection::vec(op, 0..3_000)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever happens, what comes out is runs of one stream in order, each begun by a keyframe, and it is bounded.
        #[test]
        fn what_comes_out_can_be_decoded(ops in ops()) {
            let mut queue = open();
            let mut sent: Vec<(u32, u32, bool)> = Vec::new();
            let mut last: Option<u32> = None;
            for (time, op) in ops.into_iter().enumerate() {
                match op {
                    Op::Video { stream, keyframe } => {
                        sent.push((time as u32, stream, keyframe));
                        queue.push_video(stream, &packet(time as u32, keyframe));
                    }
                    Op::Audio => { queue.push_audio(&packet(time as u32, true)); }
                    Op::Resume => queue = open(),
                    Op::Pop(count) => {
                        for _ in 0..count {
                            let Some(outgoing) = queue.pop() else { break };
                            let Outgoing::Video { packet, resumes } = outgoing else { continue };
                            let at = sent.iter().position(|(t, ..)| *t == packet.timestamp).expect("was pushed");
                            if resumes {
                                prop_assert!(packet.starts_keyframe);
                            } else {
                                // The one before it in its stream was the last to come out.
                                let (_, stream, _) = sent[at];
                                let before = sent[..at].iter().rev().find(|(_, s, _)| *s == stream).map(|(t, ..)| *t);
                                prop_assert_eq!(last, before);
                            }
                            prop_assert!(last.is_none_or(|last| last < packet.timestamp));
                            last = Some(packet.timestamp);
                        }
                    }
                }
                prop_assert!(queue.video.len() <= VIDEO_MAX && queue.audio.len() <= AUDIO_MAX);
            }
        }
    }
}
