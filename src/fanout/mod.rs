//! From one encoded stream to many subscribers.
//!
//! Owns: [`Subscriber`], the bounded queue between the fan-out and one peer (or output); [`Recent`], what a stream has sent
//! since its last keyframe, so that whoever joins need not wait for the next; and [`Rewriter`], which makes a stream's
//! packets one subscriber's own. Does not know: connections, streams' contents beyond VP8's picture id.
//! The fan-out pushes and never waits. Either a writer waits for one subscriber's packets with [`Subscriber::next`], or whoever
//! serves many is told by a [`Bell`] and takes them with [`Subscriber::pop`].

mod contributors;
mod queue;
mod recent;
mod rewrite;

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

pub use self::contributors::{Contributor, Contributors, Names};
use self::queue::{Pushed, Queue};
pub use self::recent::Recent;
pub use self::rewrite::{Header, Rewriter};
use crate::media::EncodedPacket;
use crate::time::Timestamp;

/// What a subscriber's writer sends next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// A packet of sound, and who is heard in it.
    Audio(EncodedPacket, Contributors),
    /// A packet of video.
    Video {
        /// The packet.
        packet: EncodedPacket,
        /// It does not continue what was sent before it: another stream begins, or packets were dropped.
        resumes: bool,
    },
    /// Who has this number will not be heard any more (RFC 3550 section 6.6).
    Left(u32),
}

/// Counters of one subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubscriberStats {
    /// Video packets dropped because the subscriber was too slow, and while it waited for a keyframe afterwards.
    pub video_dropped: u64,
    /// Audio packets dropped because the subscriber was too slow.
    pub audio_dropped: u64,
}

/// What has become of a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// There are packets to send.
    Packets,
    /// A keyframe is needed.
    KeyframeWanted,
    /// A stream that was wanted flows.
    Switched,
}

/// Tells whoever serves many subscribers that one has news.
pub trait Bell: Debug + Send + Sync {
    /// Called by the fan-out for every packet: it must return at once.
    fn ring(&self, news: News);
}

/// Who is told of a subscriber's news.
#[derive(Debug)]
enum Told {
    /// A writer and an asker of its own, each of whom waits for it.
    Tasks { ready: Notify, keyframe: Notify, switched: Notify },
    /// Somebody who waits for many.
    Bell(Arc<dyn Bell>),
}

impl Told {
    fn tell(&self, news: News) {
        match (self, news) {
            (Self::Bell(bell), news) => bell.ring(news),
            (Self::Tasks { ready, .. }, News::Packets) => ready.notify_one(),
            (Self::Tasks { keyframe, .. }, News::KeyframeWanted) => keyframe.notify_one(),
            (Self::Tasks { switched, .. }, News::Switched) => switched.notify_one(),
        }
    }
}

impl Default for Told {
    fn default() -> Self {
        Self::Tasks { ready: Notify::new(), keyframe: Notify::new(), switched: Notify::new() }
    }
}

/// The queue of one who gets streams. Closed until [`Subscriber::resume`]: what is pushed before is nobody's loss.
#[derive(Debug, Default)]
pub struct Subscriber {
    queue: Mutex<Queue>,
    told: Told,
    video_dropped: AtomicU64,
    audio_dropped: AtomicU64,
}

impl Subscriber {
    /// One whose news are told by a bell; nobody waits for them.
    pub fn with_bell(bell: Arc<dyn Bell>) -> Self {
        Self { told: Told::Bell(bell), ..Self::default() }
    }

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
        let news = [(wants_keyframe, News::KeyframeWanted), (switched, News::Switched), (queued, News::Packets)];
        news.into_iter().filter(|(is_so, _)| *is_so).for_each(|(_, news)| self.told.tell(news));
    }

    /// Queues a packet of sound; the oldest leaves when there are too many.
    pub fn push_audio(&self, packet: &EncodedPacket, heard: &Contributors) {
        let pushed = self.queue.lock().push_audio(packet, heard);
        if pushed.dropped > 0 {
            self.audio_dropped.fetch_add(pushed.dropped, Ordering::Relaxed);
        }
        if pushed.queued {
            self.told.tell(News::Packets);
        }
    }

    /// Whoever has this number as a contributing source will not be heard any more; told after what waits of its sound.
    pub fn left(&self, csrc: u32) {
        if self.queue.lock().left(csrc) {
            self.told.tell(News::Packets);
        }
    }

    /// Opens the queue, or empties it after an interruption: what is sent next begins with a keyframe.
    pub fn resume(&self) {
        self.queue.lock().resume();
    }

    /// The next packet to send, if there is one; sound goes first.
    pub fn pop(&self) -> Option<Outgoing> {
        self.queue.lock().pop()
    }

    /// The next packet of sound to send, if there is one, or who has left it; video waits.
    pub fn pop_audio(&self) -> Option<Outgoing> {
        self.queue.lock().pop_audio()
    }

    /// Waits for the next packet to send; sound goes first. For one writer.
    pub async fn next(&self) -> Outgoing {
        loop {
            if let Some(outgoing) = self.pop() {
                return outgoing;
            }
            self.heard(News::Packets).await;
        }
    }

    /// Waits for the next packet of sound to send, or for who has left it; video waits. For the same writer.
    pub async fn next_audio(&self) -> Outgoing {
        loop {
            if let Some(outgoing) = self.pop_audio() {
                return outgoing;
            }
            self.heard(News::Packets).await;
        }
    }

    /// Waits until a keyframe is needed; requests made meanwhile are one. For one asker.
    pub async fn keyframe_wanted(&self) {
        self.heard(News::KeyframeWanted).await;
    }

    /// Waits until a stream that was wanted flows. For one asker.
    pub async fn switched(&self) {
        self.heard(News::Switched).await;
    }

    async fn heard(&self, news: News) {
        match (&self.told, news) {
            (Told::Tasks { ready, .. }, News::Packets) => ready.notified().await,
            (Told::Tasks { keyframe, .. }, News::KeyframeWanted) => keyframe.notified().await,
            (Told::Tasks { switched, .. }, News::Switched) => switched.notified().await,
            (Told::Bell(_), _) => std::future::pending().await,
        }
    }

    /// Whether video waits to be sent.
    pub fn has_video(&self) -> bool {
        self.queue.lock().has_video()
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
        subscriber.push_audio(&packet(0, true), &Contributors::none());
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
