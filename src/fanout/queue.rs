//! The queue of one subscriber. Pure: it neither waits nor notifies.
//!
//! Owns: which stream flows, which one is wanted instead, the queued packets, and which are dropped when there are too
//! many. Does not know: sessions, tiers. In: packets of streams; out: [`Outgoing`].

use std::collections::VecDeque;
use std::time::Duration;

use super::{Contributors, GopCache, Outgoing};
use crate::media::{AUDIO_RATE, EncodedPacket, VIDEO_CLOCK};
use crate::time::Timestamp;

/// Most queued video packets: a large keyframe and the frames around it.
pub(super) const VIDEO_MAX: usize = 512;
/// Most queued audio packets, and their greatest age relative to the newest: half a second.
pub(super) const AUDIO_MAX: usize = 25;
/// See [`AUDIO_MAX`]; in ticks of the RTP clock of audio.
const AUDIO_AGE_MAX: u32 = AUDIO_RATE / 2;
/// Time in the stream after which a keyframe that did not come is requested again, in ticks of the RTP clock of video.
const ASK_AGAIN: u32 = VIDEO_CLOCK;
/// Most departed contributors that are queued; with more the oldest are dropped, since BYE is optional.
const LEFT_MAX: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Queue {
    open: bool,
    video: VecDeque<Waiting>,
    audio: VecDeque<(EncodedPacket, Contributors)>,
    /// CSRCs of contributors that have left.
    left: VecDeque<u32>,
    /// The stream that is to flow.
    wanted: Option<u32>,
    /// The stream whose packets are queued; None while no stream has begun.
    flowing: Option<u32>,
    /// RTP time of the latest keyframe request, in the wanted stream.
    asked: Option<u32>,
    /// Packets that are not queued count as dropped: the subscriber was too slow, and is not new.
    overflowed: bool,
    /// A part of a frame has been taken: the rest must follow.
    within_frame: bool,
}

#[derive(Debug)]
struct Waiting {
    since: Timestamp,
    packet: EncodedPacket,
    resumes: bool,
}

/// The effects of a pushed packet.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pushed {
    pub(super) queued: bool,
    pub(super) dropped: u64,
    pub(super) wants_keyframe: bool,
    /// The wanted stream has begun to flow.
    pub(super) switched: bool,
}

impl Queue {
    pub(super) fn want(&mut self, stream: Option<u32>) {
        if self.wanted == stream {
            return;
        }
        self.wanted = stream;
        self.asked = None;
        if stream.is_none() {
            self.flowing = None;
            self.drop_waiting();
        }
    }

    pub(super) fn wanted(&self) -> Option<u32> {
        self.wanted
    }

    pub(super) fn flowing(&self) -> Option<u32> {
        self.flowing
    }

    pub(super) fn resume(&mut self) {
        *self = Self { open: true, wanted: self.wanted, left: std::mem::take(&mut self.left), ..Self::default() };
    }

    pub(super) fn push_video(
        &mut self,
        stream: u32,
        packet: &EncodedPacket,
        recent: &GopCache,
        now: Timestamp,
    ) -> Pushed {
        let mut pushed = Pushed::default();
        let begins = self.wanted == Some(stream) && self.flowing != self.wanted;
        if !self.open || !begins && self.flowing != Some(stream) {
            return pushed;
        }
        if begins {
            if recent.is_empty() {
                pushed.dropped = u64::from(self.overflowed);
                pushed.wants_keyframe = self.ask(packet.timestamp);
                return pushed;
            }
            // Queued packets of the previous stream are obsolete: a keyframe follows.
            self.drop_waiting();
            self.flowing = self.wanted;
            self.asked = None;
            self.overflowed = false;
            for (n, packet) in recent.replay().enumerate() {
                self.video.push_back(Waiting { since: now, packet, resumes: n == 0 });
            }
            return Pushed { queued: true, switched: true, ..pushed };
        }
        if self.video.len() >= VIDEO_MAX {
            // The queued packets are late already; the next keyframe catches up at once.
            pushed.dropped = self.video.len() as u64 + 1;
            self.video.clear();
            self.within_frame = false;
            self.flowing = None;
            self.overflowed = true;
            pushed.wants_keyframe = self.ask(packet.timestamp);
            return pushed;
        }
        self.video.push_back(Waiting { since: now, packet: packet.clone(), resumes: false });
        pushed.queued = true;
        pushed
    }

    pub(super) fn push_audio(&mut self, packet: &EncodedPacket, heard: &Contributors) -> Pushed {
        let mut pushed = Pushed::default();
        if !self.open {
            return pushed;
        }
        let is_old = |(waiting, _): &(EncodedPacket, Contributors)| {
            packet.timestamp.wrapping_sub(waiting.timestamp) > AUDIO_AGE_MAX
        };
        while self.audio.len() == AUDIO_MAX || self.audio.front().is_some_and(is_old) {
            self.audio.pop_front();
            pushed.dropped += 1;
        }
        self.audio.push_back((packet.clone(), heard.clone()));
        pushed.queued = true;
        pushed
    }

    /// Queues a contributor that has left; false while the queue is closed.
    pub(super) fn left(&mut self, csrc: u32) -> bool {
        if self.open {
            if self.left.len() == LEFT_MAX {
                self.left.pop_front();
            }
            self.left.push_back(csrc);
        }
        self.open
    }

    pub(super) fn pop(&mut self) -> Option<Outgoing> {
        self.pop_audio().or_else(|| {
            let Waiting { packet, resumes, .. } = self.video.pop_front()?;
            self.within_frame = !packet.marker;
            Some(Outgoing::Video { packet, resumes })
        })
    }

    pub(super) fn pop_audio(&mut self) -> Option<Outgoing> {
        let sound = self.audio.pop_front().map(|(packet, heard)| Outgoing::Audio(packet, heard));
        // Queued audio still contains the contributors that have left.
        sound.or_else(|| self.left.pop_front().map(Outgoing::Left))
    }

    pub(super) fn has_video(&self) -> bool {
        !self.video.is_empty()
    }

    pub(super) fn backlog(&self, now: Timestamp) -> Duration {
        self.video.front().map_or(Duration::ZERO, |oldest| now.since(oldest.since))
    }

    /// Drops queued video, except the rest of a frame of which a part has been taken.
    fn drop_waiting(&mut self) {
        let kept = if self.within_frame {
            self.video.iter().position(|waiting| waiting.packet.marker).map_or(self.video.len(), |end| end + 1)
        } else {
            0
        };
        self.video.truncate(kept);
    }

    /// Whether to request a keyframe now: once per wait, and again each [`ASK_AGAIN`].
    fn ask(&mut self, timestamp: u32) -> bool {
        // The time of a restarted stream differs much, which repeats the request.
        let due = self.asked.is_none_or(|asked| timestamp.wrapping_sub(asked) >= ASK_AGAIN);
        if due {
            self.asked = Some(timestamp);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn packet(timestamp: u32, starts_keyframe: bool) -> EncodedPacket {
        EncodedPacket { timestamp, marker: true, starts_keyframe, payload: Bytes::from_static(b"payload") }
    }

    /// A fan-out with one subscriber; packets define the time.
    #[derive(Default)]
    struct FanOut {
        queue: Queue,
        recent: BTreeMap<u32, GopCache>,
    }

    impl FanOut {
        fn open(wanted: u32) -> Self {
            let mut fan_out = Self::default();
            fan_out.queue.resume();
            fan_out.queue.want(Some(wanted));
            fan_out
        }

        fn push(&mut self, stream: u32, timestamp: u32, keyframe: bool) -> Pushed {
            let packet = packet(timestamp, keyframe);
            let recent = self.recent.entry(stream).or_default();
            recent.push(&packet);
            self.queue.push_video(stream, &packet, recent, Timestamp::from_micros(timestamp.into()))
        }

        fn pop(&mut self) -> Option<(u32, bool)> {
            match self.queue.pop()? {
                Outgoing::Video { packet, resumes } => Some((packet.timestamp, resumes)),
                other => panic!("no sound was pushed: {other:?}"),
            }
        }
    }

    const QUEUED: Pushed = Pushed { queued: true, dropped: 0, wants_keyframe: false, switched: false };
    const BEGUN: Pushed = Pushed { switched: true, ..QUEUED };
    const ASKED: Pushed = Pushed { queued: false, dropped: 0, wants_keyframe: true, switched: false };
    const NOTHING: Pushed = Pushed { wants_keyframe: false, ..ASKED };

    #[test]
    fn nothing_is_queued_or_counted_before_the_subscriber_is_open() {
        let mut fan_out = FanOut::default();
        fan_out.queue.want(Some(1));
        assert_eq!(fan_out.push(1, 0, true), NOTHING);
        assert_eq!(fan_out.queue.push_audio(&packet(0, true), &Contributors::none()), NOTHING);
        assert_eq!(fan_out.pop(), None);
    }

    #[test]
    fn a_new_subscriber_requests_one_keyframe_and_begins_with_it() {
        let mut fan_out = FanOut::open(1);
        assert_eq!(fan_out.push(1, 0, false), ASKED);
        assert_eq!(fan_out.push(1, 3_000, false), NOTHING);
        assert_eq!(fan_out.push(1, 6_000, true), BEGUN);
        assert_eq!(fan_out.push(1, 9_000, false), QUEUED);
        assert_eq!(fan_out.pop(), Some((6_000, true)));
        assert_eq!(fan_out.pop(), Some((9_000, false)));
        assert_eq!(fan_out.pop(), None);
    }

    #[test]
    fn a_subscriber_that_joins_soon_after_a_keyframe_needs_no_other() {
        let mut fan_out = FanOut::open(2);
        for frame in 0..4 {
            fan_out.push(1, frame * 3_000, frame == 0);
        }
        fan_out.queue.want(Some(1));
        assert_eq!(fan_out.push(1, 12_000, false), BEGUN);
        let sent: Vec<_> = std::iter::from_fn(|| fan_out.pop()).collect();
        assert_eq!(sent, [(11_640, true), (11_730, false), (11_820, false), (11_910, false), (12_000, false)]);
    }

    #[test]
    fn a_departure_follows_the_last_audio_and_is_dropped_while_the_queue_is_closed() {
        let mut fan_out = FanOut::default();
        assert!(!fan_out.queue.left(3));
        fan_out.queue.resume();
        assert_eq!(fan_out.queue.pop(), None);
        fan_out.queue.push_audio(&packet(1, true), &Contributors::none());
        for csrc in 0..=LEFT_MAX as u32 {
            assert!(fan_out.queue.left(csrc));
        }
        fan_out.queue.push_audio(&packet(2, true), &Contributors::none());
        for time in [1, 2] {
            assert_eq!(fan_out.queue.pop_audio(), Some(Outgoing::Audio(packet(time, true), Contributors::none())));
        }
        let left: Vec<_> = std::iter::from_fn(|| fan_out.queue.pop_audio()).collect();
        assert!(left.into_iter().eq((1..=LEFT_MAX as u32).map(Outgoing::Left)), "the last ones");
    }

    #[test]
    fn a_keyframe_that_does_not_come_is_requested_again() {
        let mut fan_out = FanOut::open(1);
        let asked: Vec<u32> =
            (0..120).map(|frame| frame * 3_000).filter(|t| fan_out.push(1, *t, false).wants_keyframe).collect();
        assert_eq!(asked, [0, 90_000, 180_000, 270_000]);
    }

    #[test]
    fn a_stream_flows_until_the_wanted_one_can_begin() {
        let mut fan_out = FanOut::open(1);
        fan_out.push(1, 0, true);
        fan_out.pop();
        fan_out.queue.want(Some(2));
        assert_eq!(fan_out.push(2, 3_000, false), ASKED);
        assert_eq!(fan_out.push(1, 3_000, false), QUEUED);
        assert_eq!(fan_out.pop(), Some((3_000, false)));
        assert_eq!(fan_out.push(1, 6_000, false), QUEUED);
        assert_eq!(fan_out.push(2, 6_000, true), BEGUN);
        assert_eq!(fan_out.push(1, 9_000, false), NOTHING, "the previous stream has stopped");
        assert_eq!(fan_out.pop(), Some((6_000, true)), "and its queued packets are dropped");
        assert_eq!(fan_out.queue.flowing(), Some(2));
        fan_out.queue.want(None);
        assert_eq!(fan_out.push(2, 9_000, false), NOTHING);
        assert_eq!(fan_out.pop(), None);
    }

    #[test]
    fn a_frame_that_is_partly_sent_is_completed() {
        let mut fan_out = FanOut::open(1);
        let mut recent = GopCache::default();
        for part in 0..3 {
            let packet = EncodedPacket { marker: part == 2, ..packet(0, part == 0) };
            recent.push(&packet);
            fan_out.queue.push_video(1, &packet, &recent, Timestamp::default());
        }
        assert_eq!(fan_out.pop(), Some((0, true)));
        fan_out.push(1, 3_000, false);
        fan_out.queue.want(Some(2));
        fan_out.push(2, 3_000, true);
        let sent: Vec<_> = std::iter::from_fn(|| fan_out.pop()).collect();
        assert_eq!(sent, [(0, false), (0, false), (3_000, true)]);
    }

    #[test]
    fn a_slow_subscriber_loses_video_up_to_the_next_keyframe_and_all_losses_are_counted() {
        let mut fan_out = FanOut::open(1);
        for frame in 0..VIDEO_MAX as u32 {
            assert!(fan_out.push(1, frame * 9_000, frame == 0).queued);
        }
        assert!(fan_out.queue.backlog(Timestamp::from_micros(9_000_000)) >= Duration::from_secs(4));
        let at = VIDEO_MAX as u32 * 9_000;
        let pushed = fan_out.push(1, at, false);
        assert_eq!(pushed, Pushed { dropped: VIDEO_MAX as u64 + 1, ..ASKED });
        assert_eq!(fan_out.push(1, at + 1, false), Pushed { dropped: 1, ..NOTHING });
        assert_eq!(fan_out.push(1, at + 2, true), BEGUN);
        assert_eq!(fan_out.pop(), Some((at + 2, true)));
    }

    #[test]
    fn the_oldest_audio_is_dropped_first_and_audio_goes_before_video() {
        let mut fan_out = FanOut::open(1);
        fan_out.push(1, 0, true);
        for tick in 0..AUDIO_MAX as u32 + 3 {
            let pushed = fan_out.queue.push_audio(&packet(tick, true), &Contributors::none());
            assert_eq!(pushed.dropped, u64::from(tick >= AUDIO_MAX as u32));
        }
        assert_eq!(fan_out.queue.pop(), Some(Outgoing::Audio(packet(3, true), Contributors::none())));
    }

    #[derive(Debug, Clone)]
    enum Op {
        Video { stream: u32, keyframe: bool },
        Want(Option<u32>),
        Pop(usize),
        Resume,
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            20 => (0..3_u32, prop::bool::weighted(0.05)).prop_map(|(stream, keyframe)| Op::Video { stream, keyframe }),
            20 => prop::bool::weighted(0.02).prop_map(|keyframe| Op::Video { stream: 0, keyframe }),
            1 => prop::option::weighted(0.9, 0..3_u32).prop_map(Op::Want),
            2 => (0..200_usize).prop_map(Op::Pop),
            1 => Just(Op::Resume),
        ];
        prop::collection::vec(op, 0..3_000)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// The output is a sequence of runs of one stream without gaps, each begun by a keyframe, in the order of time;
        /// and the queue is bounded.
        #[test]
        fn what_comes_out_can_be_decoded(ops in ops()) {
            let mut fan_out = FanOut::open(0);
            // The payload is the packet's stream and its number there.
            let mut sent: BTreeMap<u32, u32> = BTreeMap::new();
            let mut last: Option<(u32, u32, u32)> = None;
            for (time, op) in ops.into_iter().enumerate() {
                match op {
                    Op::Video { stream, keyframe } => {
                        let number = sent.entry(stream).or_default();
                        *number += 1;
                        let payload = Bytes::from([stream.to_be_bytes(), number.to_be_bytes()].concat());
                        let packet = EncodedPacket { payload, ..packet(time as u32 * 3_000, keyframe) };
                        let recent = fan_out.recent.entry(stream).or_default();
                        recent.push(&packet);
                        fan_out.queue.push_video(stream, &packet, recent, Timestamp::from_micros(time as u64));
                    }
                    Op::Want(stream) => fan_out.queue.want(stream),
                    Op::Resume => {
                        fan_out.queue.resume();
                        last = None;
                    }
                    Op::Pop(count) => {
                        for _ in 0..count {
                            let Some(Outgoing::Video { packet, resumes }) = fan_out.queue.pop() else { break };
                            let word = |at: usize| u32::from_be_bytes(packet.payload[at..at + 4].try_into().expect("four"));
                            let (stream, number) = (word(0), word(4));
                            if resumes {
                                prop_assert!(packet.starts_keyframe);
                            } else {
                                let (before, count, _) = last.expect("something came before");
                                prop_assert_eq!((stream, number), (before, count + 1));
                            }
                            prop_assert!(last.is_none_or(|(.., time)| time < packet.timestamp));
                            last = Some((stream, number, packet.timestamp));
                        }
                    }
                }
                prop_assert!(fan_out.queue.video.len() <= VIDEO_MAX + 300 && fan_out.queue.audio.len() <= AUDIO_MAX);
            }
        }
    }
}
