//! From one encoded stream to many subscribers.
//!
//! Owns: [`Subscriber`], the bounded queue between the fan-out and one peer (or output); [`Recent`], what a stream has sent
//! since its last keyframe, so that whoever joins need not wait for the next; and [`Rewriter`], which makes a stream's
//! packets one subscriber's own. Does not know: connections, streams' contents beyond VP8's picture id.
//! The fan-out pushes and never waits; one writer per subscriber takes packets out with [`Subscriber::next`].

mod queue;
mod recent;
mod rewrite;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use self::queue::{Pushed, Queue};
pub use self::recent::Recent;
pub use self::rewrite::{Header, Rewriter};
use crate::media::EncodedPacket;
use crate::time::Timestamp;

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
    switched: Notify,
    video_dropped: AtomicU64,
    audio_dropped: AtomicU64,
}

impl Subscriber {
    /// From now on this video stream is wanted; None for no video. What flows goes on until the new one can begin.
    pub fn want(&self, stream: Option<u32>) {
        self.queue.lock().want(stream);
    }

    /// The video stream that flows now.
    pub fn flowing(&self) -> Option<u32> {
        self.queue.lock().flowing()
    }

    /// Queues a packet of the video stream with this serial, if it flows or is wanted. A stream begins at a keyframe: this
    /// packet's, or the one in `recent` (what the stream has sent since its last keyframe, this packet included), else one is
    /// asked for. `now` is for the age of what waits.
    pub fn push_video(&self, stream: u32, packet: &EncodedPacket, recent: &Recent, now: Timestamp) {
        let Pushed { queued, dropped, wants_keyframe, switched } =
            self.queue.lock().push_video(stream, packet, recent, now);
        if dropped > 0 {
            self.video_dropped.fetch_add(dropped, Ordering::Relaxed);
        }
        if wants_keyframe {
            self.keyframe.notify_one();
        }
        if switched {
            self.switched.notify_one();
        }
        if queued {
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
        self.queue.lock().resume();
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

    /// The next packet of sound to send; video waits. For the same writer.
    pub async fn next_audio(&self) -> Outgoing {
        loop {
            if let Some(packet) = self.queue.lock().pop_audio() {
                return Outgoing::Audio(packet);
            }
            self.ready.notified().await;
        }
    }

    /// Waits until a keyframe is needed; requests made meanwhile are one. For one asker.
    pub async fn keyframe_wanted(&self) {
        self.keyframe.notified().await;
    }

    /// Waits until a stream that was wanted flows. For one asker.
    pub async fn switched(&self) {
        self.switched.notified().await;
    }

    /// How long the oldest packet of video has been waiting.
    pub fn backlog(&self, now: Timestamp) -> Duration {
        self.queue.lock().backlog(now)
    }

    /// Counters so far.
    pub fn stats(&self) -> SubscriberStats {
        SubscriberStats {
            video_dropped: self.video_dropped.load(Ordering::Relaxed),
            audio_dropped: self.audio_dropped.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[tokio::test]
    async fn a_resumed_subscriber_forgets_what_waited_and_wants_a_keyframe() {
        let packet = |timestamp, starts_keyframe| EncodedPacket {
            timestamp,
            marker: true,
            starts_keyframe,
            payload: Bytes::from_static(b"payload"),
        };
        let subscriber = Subscriber::default();
        let (mut recent, now) = (Recent::default(), Timestamp::default());
        subscriber.want(Some(1));
        subscriber.resume();
        recent.push(&packet(0, true));
        subscriber.push_video(1, &packet(0, true), &recent, now);
        subscriber.switched().await;
        subscriber.push_audio(&packet(0, true));
        subscriber.resume();
        let old = Recent::default();
        subscriber.push_video(1, &packet(3_000, false), &old, now);
        subscriber.keyframe_wanted().await;
        recent.push(&packet(6_000, true));
        subscriber.push_video(1, &packet(6_000, true), &recent, now);
        assert_eq!(subscriber.next().await, Outgoing::Video { packet: packet(6_000, true), resumes: true });
        assert_eq!(subscriber.stats(), SubscriberStats::default());
    }
}
