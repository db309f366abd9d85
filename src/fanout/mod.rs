//! From one encoded stream to many subscribers.
//!
//! Owns: [`Subscriber`], the bounded queue between the fan-out and one peer, which selects the tier of its stream;
//! [`Demand`], where the subscribers of a room report what they need of it; [`GopCache`], what a stream has sent since
//! its last keyframe, so that a new subscriber need not wait for the next; and [`Rewriter`], which gives each
//! subscriber's packets its own headers. Does not know: connections, rooms, streams' contents beyond VP8's picture id.
//!
//! The fan-out pushes packets and never waits. A session takes them: it waits for its own subscriber with
//! [`Subscriber::next`], or it serves many, is notified by a [`Bell`] and takes packets with [`Subscriber::pop`]. A
//! session reports receptions with [`Subscriber::report`] and keyframe requests with [`Subscriber::request_keyframe`].
//! Only changes of the selected stream and keyframe requests reach the room, by way of [`Demand`].

mod contributors;
mod demand;
mod gop_cache;
mod queue;
mod rewrite;
mod selector;

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

pub use self::contributors::{Contributor, Contributors, Names};
pub use self::demand::{Demand, Demanded};
pub use self::gop_cache::GopCache;
use self::queue::{Pushed, Queue};
pub use self::rewrite::{Header, Rewriter};
pub use self::selector::Selection;
use self::selector::Selector;
use crate::id::{ParticipantId, ViewName};
use crate::media::{Codec, EncodedPacket, StreamKey, Tier};
use crate::tier::{Costs, Reception};
use crate::time::Timestamp;

/// An item that a session sends next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// An audio packet and its contributing sources.
    Audio(EncodedPacket, Contributors),
    /// A video packet.
    Video {
        /// The packet.
        packet: EncodedPacket,
        /// It does not continue the packet before it: another stream begins, or packets were dropped.
        resumes: bool,
    },
    /// The contributing source with this CSRC has left: send BYE for it (RFC 3550 section 6.6).
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

/// Notifies a session that serves many subscribers that one of them has packets to send.
pub trait Bell: Debug + Send + Sync {
    /// Called by the fan-out for every packet: it must return at once.
    fn ring(&self);
}

/// How the session is notified of packets.
#[derive(Debug)]
enum Ready {
    /// One writer waits.
    Writer(Notify),
    /// A thread serves many subscribers.
    Bell(Arc<dyn Bell>),
}

impl Ready {
    fn notify(&self) {
        match self {
            Self::Writer(notify) => notify.notify_one(),
            Self::Bell(bell) => bell.ring(),
        }
    }
}

impl Default for Ready {
    fn default() -> Self {
        Self::Writer(Notify::new())
    }
}

/// A subscriber's place in its room.
#[derive(Debug)]
struct Attachment {
    participant: ParticipantId,
    demand: Arc<Demand>,
    selector: Selector,
}

/// One receiver of streams. Closed until [`Subscriber::resume`]: packets pushed before are ignored and not counted.
#[derive(Debug, Default)]
pub struct Subscriber {
    queue: Mutex<Queue>,
    ready: Ready,
    /// None until the session belongs to a room.
    attachment: Mutex<Option<Attachment>>,
    video_dropped: AtomicU64,
    audio_dropped: AtomicU64,
}

impl Subscriber {
    /// A subscriber whose session is notified by a bell; [`Subscriber::next`] is not for it.
    pub fn with_bell(bell: Arc<dyn Bell>) -> Self {
        Self { ready: Ready::Bell(bell), ..Self::default() }
    }

    /// The room's task takes over: from now on the subscriber reports to `demand` as this participant, and selects
    /// tiers by their bitrates (`costs`).
    pub fn attach(&self, participant: ParticipantId, demand: Arc<Demand>, costs: Costs, now: Timestamp) {
        *self.attachment.lock() = Some(Attachment { participant, demand, selector: Selector::new(costs, now) });
    }

    /// The room's task assigns a view in a codec, or no video; in a pinned tier, or None for the best tier that the
    /// link carries.
    pub fn assign(&self, video: Option<(ViewName, Codec)>, pinned: Option<Tier>, now: Timestamp) {
        let mut attachment = self.attachment.lock();
        let Some(Attachment { participant, demand, selector }) = attachment.as_mut() else { return };
        if selector.assign(video, pinned, now) {
            if selector.key().is_none() {
                self.queue.lock().want(None);
            }
            demand.select(*participant);
        }
    }

    /// The stream that this subscriber selects; None for no video.
    pub fn selected(&self) -> Option<StreamKey> {
        self.attachment.lock().as_ref()?.selector.key()
    }

    /// The tier that this subscriber selects; None before [`Subscriber::attach`].
    pub fn selection(&self) -> Option<Selection> {
        Some(self.attachment.lock().as_ref()?.selector.selection())
    }

    /// The session reports how packets arrive. When the link carries another tier, the room is notified of the
    /// selection, and the session is to send no video for the returned time, so that the link's queue can drain.
    pub fn report(&self, reception: &Reception, now: Timestamp) -> Option<Duration> {
        let mut attachment = self.attachment.lock();
        let Attachment { participant, demand, selector } = attachment.as_mut()?;
        let from = selector.selection().tier;
        let pause = selector.report(reception, now)?;
        if selector.key().is_none() {
            self.queue.lock().want(None);
        }
        let to = selector.selection().tier;
        tracing::debug!(target: "commingle::tier", %participant, ?from, ?to, ?reception, "tier changed");
        demand.select(*participant);
        Some(pause)
    }

    /// The session's receiver cannot decode the selected stream without a keyframe.
    pub fn request_keyframe(&self) {
        let wanted = self.queue.lock().wanted();
        if let (Some(serial), Some(Attachment { demand, .. })) = (wanted, self.attachment.lock().as_ref()) {
            demand.keyframe(serial);
        }
    }

    /// The room's task resolves the selected stream to its serial. The stream that flows goes on until this one can
    /// begin.
    pub fn want(&self, stream: u32) {
        self.queue.lock().want(Some(stream));
    }

    /// The video stream that flows now.
    pub fn flowing(&self) -> Option<u32> {
        self.queue.lock().flowing()
    }

    /// Queues a packet of the video stream with this serial, if it flows or is wanted. A stream begins with a keyframe:
    /// the one in `recent` (what the stream has sent since its last keyframe, this packet included), or else one is
    /// requested. `now` is for the age of the backlog.
    pub fn push_video(&self, stream: u32, packet: &EncodedPacket, recent: &GopCache, now: Timestamp) {
        let Pushed { queued, dropped, wants_keyframe, switched } =
            self.queue.lock().push_video(stream, packet, recent, now);
        if dropped > 0 {
            self.video_dropped.fetch_add(dropped, Ordering::Relaxed);
        }
        if (wants_keyframe || switched)
            && let Some(Attachment { participant, demand, .. }) = self.attachment.lock().as_ref()
        {
            if wants_keyframe {
                demand.keyframe(stream);
            }
            if switched {
                demand.select(*participant);
            }
        }
        if queued {
            self.ready.notify();
        }
    }

    /// Queues an audio packet and drops the oldest ones if there are too many.
    pub fn push_audio(&self, packet: &EncodedPacket, heard: &Contributors) {
        let pushed = self.queue.lock().push_audio(packet, heard);
        if pushed.dropped > 0 {
            self.audio_dropped.fetch_add(pushed.dropped, Ordering::Relaxed);
        }
        if pushed.queued {
            self.ready.notify();
        }
    }

    /// Queues the departure of a contributing source behind its last audio.
    pub fn left(&self, csrc: u32) {
        if self.queue.lock().left(csrc) {
            self.ready.notify();
        }
    }

    /// Opens the queue, or empties it after an interruption: video continues with a keyframe.
    pub fn resume(&self) {
        self.queue.lock().resume();
    }

    /// The next item to send, if there is one; audio goes first.
    pub fn pop(&self) -> Option<Outgoing> {
        self.queue.lock().pop()
    }

    /// The next item other than video, if there is one.
    pub fn pop_audio(&self) -> Option<Outgoing> {
        self.queue.lock().pop_audio()
    }

    /// Waits for the next item to send; audio goes first. For one writer.
    pub async fn next(&self) -> Outgoing {
        loop {
            if let Some(outgoing) = self.pop() {
                return outgoing;
            }
            self.notified().await;
        }
    }

    /// Waits for the next item other than video. For the same writer.
    pub async fn next_audio(&self) -> Outgoing {
        loop {
            if let Some(outgoing) = self.pop_audio() {
                return outgoing;
            }
            self.notified().await;
        }
    }

    async fn notified(&self) {
        match &self.ready {
            Ready::Writer(notify) => notify.notified().await,
            Ready::Bell(_) => std::future::pending().await,
        }
    }

    /// Whether video is queued.
    pub fn has_video(&self) -> bool {
        self.queue.lock().has_video()
    }

    /// The age of the oldest queued video packet.
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
    use std::collections::BTreeSet;

    use bytes::Bytes;

    use super::*;
    use crate::tier::{Ladder, Limit};

    const ME: ParticipantId = ParticipantId(1);

    fn packet(timestamp: u32, starts_keyframe: bool) -> EncodedPacket {
        EncodedPacket { timestamp, marker: true, starts_keyframe, payload: Bytes::from_static(b"payload") }
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(millis * 1_000)
    }

    fn program() -> Option<(ViewName, Codec)> {
        Some((ViewName::program(), Codec::Vp8))
    }

    fn attached(participant: u32, demand: &Arc<Demand>) -> Subscriber {
        let subscriber = Subscriber::default();
        subscriber.attach(ParticipantId(participant), demand.clone(), Ladder::default().costs(), at(0));
        subscriber.assign(program(), None, at(0));
        subscriber
    }

    fn selected(participants: impl IntoIterator<Item = u32>) -> Demanded {
        let selections = participants.into_iter().map(ParticipantId).collect();
        Demanded { selections, ..Demanded::default() }
    }

    #[tokio::test]
    async fn a_resumed_subscriber_drops_its_queue_and_requests_a_keyframe() {
        let demand = Arc::new(Demand::default());
        let subscriber = attached(ME.0, &demand);
        let (mut recent, now) = (GopCache::default(), Timestamp::default());
        subscriber.want(1);
        subscriber.resume();
        demand.take();
        recent.push(&packet(0, true));
        subscriber.push_video(1, &packet(0, true), &recent, now);
        assert_eq!(demand.take(), selected([ME.0]), "it has switched");
        subscriber.push_audio(&packet(0, true), &Contributors::none());
        subscriber.resume();
        let old = GopCache::default();
        subscriber.push_video(1, &packet(3_000, false), &old, now);
        demand.changed().await;
        assert_eq!(demand.take(), Demanded { keyframes: BTreeSet::from([1]), ..Demanded::default() });
        recent.push(&packet(6_000, true));
        subscriber.push_video(1, &packet(6_000, true), &recent, now);
        assert_eq!(subscriber.next().await, Outgoing::Video { packet: packet(6_000, true), resumes: true });
        assert_eq!(subscriber.stats(), SubscriberStats::default());
    }

    #[test]
    fn a_keyframe_request_names_the_stream_that_the_subscriber_waits_for() {
        let demand = Arc::new(Demand::default());
        let subscriber = attached(ME.0, &demand);
        demand.take();
        subscriber.request_keyframe();
        assert_eq!(demand.take(), Demanded::default(), "the room has no stream for it yet");
        subscriber.want(7);
        (0..100).for_each(|_| subscriber.request_keyframe());
        assert_eq!(demand.take(), Demanded { keyframes: BTreeSet::from([7]), ..Demanded::default() });
    }

    #[test]
    fn a_pinned_tier_ignores_receptions_and_another_choice_begins_anew() {
        let demand = Arc::new(Demand::default());
        let subscriber = attached(ME.0, &demand);
        let tier = |subscriber: &Subscriber| subscriber.selected().map(|key| key.tier);
        let lost = Reception { lost: 0.9, ..Reception::default() };
        assert!(subscriber.report(&lost, at(2_000)).is_some());
        assert!(subscriber.selection().is_some_and(|selection| selection.limit == Some(Limit::Loss)));
        assert_eq!(demand.take(), selected([ME.0]));
        subscriber.assign(program(), Some(Tier::Medium), at(3_000));
        assert_eq!((tier(&subscriber), demand.take()), (Some(Tier::Medium), selected([ME.0])));
        assert_eq!(subscriber.report(&lost, at(9_000)), None);
        assert_eq!(subscriber.selection(), Some(Selection { tier: Tier::Medium, limit: None }));
        subscriber.assign(program(), Some(Tier::Audio), at(9_000));
        assert_eq!(tier(&subscriber), None, "the tier audio has no video");
        // What interrupts the video keeps what is known of the link.
        subscriber.assign(None, None, at(9_000));
        subscriber.assign(program(), None, at(10_000));
        assert_eq!(tier(&subscriber), Some(Tier::High));
        demand.take();
        subscriber.assign(program(), None, at(11_000));
        assert_eq!(demand.take(), Demanded::default(), "nothing has changed");
    }

    #[test]
    fn reports_of_a_thousand_subscribers_cause_no_input_of_the_room_until_a_tier_changes() {
        let demand = Arc::new(Demand::default());
        let subscribers: Vec<Subscriber> = (1..=1_000).map(|participant| attached(participant, &demand)).collect();
        demand.take();
        // A minute of reports, six a second.
        let fine = Reception { lost: 0.01, queue: Some(Duration::from_millis(10)), ..Reception::default() };
        for report in 0..360 {
            for subscriber in &subscribers {
                assert_eq!(subscriber.report(&fine, at(report * 1_000 / 6)), None);
            }
        }
        assert_eq!(demand.take(), Demanded::default());
        // All links become thin at once: one entry each, and one batch.
        let thin = Reception { capacity: Some(250_000), queue: Some(Duration::from_secs(1)), ..Reception::default() };
        for report in 0..100 {
            for subscriber in &subscribers {
                subscriber.report(&thin, at(60_000 + report));
            }
        }
        assert_eq!(demand.take(), selected(1..=1_000));
        assert!(subscribers.iter().all(|one| one.selected().is_some_and(|key| key.tier == Tier::Low)));
        assert_eq!(demand.take(), Demanded::default());
    }
}
