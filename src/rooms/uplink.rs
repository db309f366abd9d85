//! The path of a participant's packets to its room's mixer.
//!
//! Owns: which source a media section is, the codec with which each source is announced, and how often that may change;
//! which packets of a microphone the mixer does not need; the rate of each source. Does not know: what is in a packet.
//! Sessions call in for every packet; packets leave through the link of the mixer that runs at the moment, and to
//! outputs that record participants' tracks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::command::Command;
use super::silence::{Need, SilenceFilter};
use super::source_rate::SourceRate;
use crate::id::{ParticipantId, SourceId};
use crate::link::ToMixer;
use crate::link::output::ToOutput;
use crate::media::{Codec, SourceKind, SourcePacket};
use crate::metrics::{Counter, Registry};
use crate::peer::SourceSink;
use crate::plan::SourceSpec;
use crate::process::{MixerLink, OutputLink};
use crate::room::Input;
use crate::room::moderation::Withheld;
use crate::time::{self, Timestamp};

/// The link of a room's mixer while it has one.
pub(super) type CurrentLink = Arc<ArcSwapOption<MixerLink>>;
/// The outputs that take every participant's packets as they are.
pub(super) type Taps = Arc<ArcSwap<Vec<Arc<OutputLink>>>>;

/// Announcements of a source that may follow each other at once.
const ANNOUNCEMENTS: u32 = 3;
/// From one more announcement to the next.
const ANNOUNCEMENT_INTERVAL: Duration = Duration::from_millis(500);

/// Packets of all participants that reach no mixer.
#[derive(Debug, Default, Clone)]
pub struct UplinkCounters {
    unrouted: Counter,
    codec_changes: Counter,
    unselected: Counter,
    encoding_changes: Counter,
    over_rate: Counter,
}

impl UplinkCounters {
    /// Puts them into a registry.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "source_packets_unrouted",
            "RTP packets of participants dropped: they belong to no source, their sender waits in the lobby, or the room has \
             no mixer",
            self.unrouted.clone(),
        );
        registry.register(
            "source_packets_codec_changes",
            "RTP packets of participants dropped: their source changes its codec too often",
            self.codec_changes.clone(),
        );
        registry.register(
            "source_packets_unselected",
            "RTP packets of simulcast encodings dropped: another encoding is nearer to the size of the tile",
            self.unselected.clone(),
        );
        registry.register(
            "source_packets_over_rate",
            "RTP packets of participants dropped: their source sends more packets or bytes a second than any needs",
            self.over_rate.clone(),
        );
        registry.register(
            "source_encoding_changes",
            "Selections of a simulcast encoding, the first of each source included",
            self.encoding_changes.clone(),
        );
    }
}

/// One participant's path to the mixer.
pub(super) struct Uplink {
    participant: ParticipantId,
    sources: ArcSwap<Vec<(SourceKind, SourceId)>>,
    announcements: Mutex<Announcements>,
    rates: Mutex<BTreeMap<SourceId, SourceRate>>,
    /// Its participant waits in the lobby: nobody gets its packets.
    held: AtomicBool,
    /// Its microphone is in no mix.
    unmixed: AtomicBool,
    /// Bits of [`Withheld`].
    withheld: AtomicU8,
    silence: Mutex<SilenceFilter>,
    link: CurrentLink,
    taps: Taps,
    room: mpsc::Sender<Command>,
    counters: UplinkCounters,
}

impl Uplink {
    pub(super) fn new(
        participant: ParticipantId,
        sources: Vec<(SourceKind, SourceId)>,
        link: CurrentLink,
        taps: Taps,
        room: mpsc::Sender<Command>,
        counters: UplinkCounters,
    ) -> Self {
        Self {
            participant,
            sources: ArcSwap::from_pointee(sources),
            announcements: Mutex::default(),
            rates: Mutex::default(),
            held: AtomicBool::new(false),
            unmixed: AtomicBool::new(false),
            withheld: AtomicU8::default(),
            silence: Mutex::default(),
            link,
            taps,
            room,
            counters,
        }
    }

    /// The participant's new offer sends these.
    pub(super) fn set_sources(&self, sources: Vec<(SourceKind, SourceId)>) {
        self.announcements.lock().retain(|source| sources.iter().any(|(_, id)| *id == source));
        self.rates.lock().retain(|source, _| sources.iter().any(|(_, id)| id == source));
        self.sources.store(Arc::new(sources));
    }

    /// Holds the packets of a participant in the lobby: they are dropped, and its sources do not start.
    pub(super) fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    /// Keeps these kinds from outputs that record tracks.
    pub(super) fn withhold(&self, withheld: Withheld) {
        self.withheld.store(withheld.bits(), Ordering::Relaxed);
    }

    /// The room's mix contains these sources; the mixer needs no packets of other microphones.
    pub(super) fn set_mixed(&self, mixed: impl Fn(SourceId) -> bool) {
        let unmixed = self.source(SourceKind::Microphone).is_some_and(|source| !mixed(source));
        self.unmixed.store(unmixed, Ordering::Relaxed);
    }

    /// What the mixer needs of a packet. Only of a microphone whose participant also sends pictures it needs a sign of
    /// life, by which it distinguishes a camera that was stopped from a sender that is lost.
    fn need(&self, source: SourceId, kind: SourceKind, packet: &SourcePacket) -> Need {
        if kind != SourceKind::Microphone {
            return Need::Packet;
        }
        let mixed = !self.unmixed.load(Ordering::Relaxed);
        let need = self.silence.lock().need(mixed, packet.audio_level, packet.payload.len(), packet.arrival);
        let is_useless = need == Need::Sign && !self.announcements.lock().any_beside(source);
        if is_useless { Need::Nothing } else { need }
    }

    /// Whether a packet is within the rate of its source.
    fn is_within_rate(&self, source: SourceId, kind: SourceKind, packet: &SourcePacket) -> bool {
        let mut rates = self.rates.lock();
        let rate = rates.entry(source).or_insert_with(|| SourceRate::new(kind.kind(), packet.arrival));
        rate.allow(packet.payload.len(), packet.arrival)
    }

    fn source(&self, kind: SourceKind) -> Option<SourceId> {
        self.sources.load().iter().find(|(known, _)| *known == kind).map(|(_, id)| *id)
    }

    /// Announces a source to mixer and room when it begins or changes its codec; false where that is too often. The
    /// mixer reads the announcement ahead of the packet, from the same queue; the room keeps it for the next mixer.
    /// While the room's queue is full, each packet tries again.
    fn announce(&self, link: &MixerLink, source: SourceId, kind: SourceKind, codec: Codec) -> bool {
        let mut announcements = self.announcements.lock();
        let announced = announcements.announced(source, codec);
        if announced == Some(Reported(true)) {
            return true;
        }
        if announced.is_none() {
            if !announcements.announce(source, codec, time::now()) {
                return false;
            }
            let spec = SourceSpec { source, participant: self.participant, kind, codec };
            link.send(ToMixer::Source(spec));
            self.taps.load().iter().for_each(|tap| tap.send(ToOutput::Source(spec)));
        }
        if self.room.try_send(Command::Input(Input::SourceStarted(source, codec))).is_ok() {
            announcements.reported(source);
        }
        true
    }
}

impl SourceSink for Uplink {
    fn packet(&self, _mid: &str, kind: SourceKind, codec: Codec, packet: SourcePacket) {
        if self.held.load(Ordering::Relaxed) {
            self.counters.unrouted.inc();
            return;
        }
        let link = self.link.load();
        let (Some(source), Some(link)) = (self.source(kind), link.as_ref()) else {
            self.counters.unrouted.inc();
            return;
        };
        if !self.is_within_rate(source, kind, &packet) {
            self.counters.over_rate.inc();
            return;
        }
        if !self.announce(link, source, kind, codec) {
            self.counters.codec_changes.inc();
            return;
        }
        if !Withheld::from_bits(self.withheld.load(Ordering::Relaxed)).contains(kind) {
            self.taps.load().iter().for_each(|tap| tap.send(ToOutput::Packet(source, packet.clone())));
        }
        match self.need(source, kind, &packet) {
            Need::Packet => link.queue(ToMixer::Packet(source, packet)),
            Need::Sign => link.queue(ToMixer::Heard(source)),
            Need::Nothing => {}
        }
    }

    fn flush(&self) {
        if let Some(link) = self.link.load().as_ref() {
            link.flush();
        }
    }

    fn encoding(&self, kind: SourceKind, rid: &str) {
        self.counters.encoding_changes.inc();
        let Some(source) = self.source(kind) else { return };
        // While the room's queue is full, its document shows the encoding before.
        let _ = self.room.try_send(Command::Input(Input::SourceEncoding(source, rid.to_owned())));
    }

    fn unselected(&self) {
        self.counters.unselected.inc();
    }

    /// Its last picture goes at once; recordings of it go on, since it may come back.
    fn ended(&self, kind: SourceKind) {
        let link = self.link.load();
        let (Some(source), Some(link)) = (self.source(kind), link.as_ref()) else { return };
        if self.announcements.lock().end(source) {
            link.send(ToMixer::SourceGone(source));
        }
    }
}

/// Whether the room knows of an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reported(bool);

/// The codecs with which the sources of one participant are announced, and how often that changes: each announcement is
/// an input of the room and builds a decoder, and a sender may alternate between two negotiated payload types.
#[derive(Debug, Default)]
struct Announcements(Vec<Announcement>);

#[derive(Debug)]
struct Announcement {
    source: SourceId,
    /// None after the source has ended.
    codec: Option<(Codec, Reported)>,
    /// Announcements that may follow at once.
    left: u32,
    /// When one was last added to them.
    refilled: Timestamp,
}

impl Announcements {
    /// Whether the source is announced with this codec; None if it is not.
    fn announced(&self, source: SourceId, codec: Codec) -> Option<Reported> {
        let announcement = self.0.iter().find(|announcement| announcement.source == source)?;
        announcement.codec.filter(|(known, _)| *known == codec).map(|(_, reported)| reported)
    }

    /// Announces the source with another codec; false where it has changed too often.
    fn announce(&mut self, source: SourceId, codec: Codec, now: Timestamp) -> bool {
        let at = self.0.iter().position(|announcement| announcement.source == source).unwrap_or_else(|| {
            self.0.push(Announcement { source, codec: None, left: ANNOUNCEMENTS, refilled: now });
            self.0.len() - 1
        });
        let announcement = &mut self.0[at];
        while announcement.left < ANNOUNCEMENTS && now.since(announcement.refilled) >= ANNOUNCEMENT_INTERVAL {
            announcement.left += 1;
            announcement.refilled = announcement.refilled + ANNOUNCEMENT_INTERVAL;
        }
        if announcement.left == 0 {
            return false;
        }
        if announcement.left == ANNOUNCEMENTS {
            announcement.refilled = now;
        }
        announcement.left -= 1;
        announcement.codec = Some((codec, Reported(false)));
        true
    }

    /// The room knows of the latest announcement of the source.
    fn reported(&mut self, source: SourceId) {
        let announcement = self.0.iter_mut().find(|announcement| announcement.source == source);
        if let Some((_, reported)) = announcement.and_then(|announcement| announcement.codec.as_mut()) {
            *reported = Reported(true);
        }
    }

    /// The source has ended and is announced again with its next packet; false where it was not announced.
    fn end(&mut self, source: SourceId) -> bool {
        let announcement = self.0.iter_mut().find(|announcement| announcement.source == source);
        announcement.is_some_and(|announcement| announcement.codec.take().is_some())
    }

    /// Whether another source than this is announced.
    fn any_beside(&self, source: SourceId) -> bool {
        self.0.iter().any(|announcement| announcement.source != source && announcement.codec.is_some())
    }

    /// Forgets sources that the participant sends no more.
    fn retain(&mut self, sends: impl Fn(SourceId) -> bool) {
        self.0.retain(|announcement| sends(announcement.source));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CAMERA: SourceId = SourceId(1);
    const SCREEN: SourceId = SourceId(2);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(10_000_000 + millis * 1_000)
    }

    /// Packets of one source: whether each passes, and how many announcements there are.
    fn pass(announcements: &mut Announcements, packets: impl IntoIterator<Item = (u64, Codec)>) -> (Vec<bool>, usize) {
        let mut count = 0;
        let passed = packets.into_iter().map(|(millis, codec)| {
            if announcements.announced(CAMERA, codec).is_some() {
                return true;
            }
            let announced = announcements.announce(CAMERA, codec, at(millis));
            count += usize::from(announced);
            announced
        });
        (passed.collect(), count)
    }

    #[test]
    fn a_source_that_alternates_between_two_codecs_is_announced_a_few_times_a_second() {
        let alternating = (0..10_000).map(|n| (n, if n % 2 == 0 { Codec::Vp8 } else { Codec::H264 }));
        let (passed, count) = pass(&mut Announcements::default(), alternating);
        assert_eq!(count, 3 + 19, "three at once, then two a second");
        let share = passed.iter().filter(|passed| **passed).count();
        assert!((5_000..5_100).contains(&share), "the packets of the announced codec pass: {share} of 10,000");
    }

    #[test]
    fn a_source_that_changes_its_codec_now_and_then_loses_nothing() {
        let seldom = (0..10_000).map(|n| (n, if n / 1_000 % 2 == 0 { Codec::Vp8 } else { Codec::Vp9 }));
        let (passed, count) = pass(&mut Announcements::default(), seldom);
        assert!(passed.iter().all(|passed| *passed));
        assert_eq!(count, 10);
    }

    #[test]
    fn a_source_that_ends_and_begins_without_end_is_limited_in_the_same_way() {
        let mut announcements = Announcements::default();
        let mut count = 0;
        for n in 0..1_000 {
            count += usize::from(announcements.announce(CAMERA, Codec::Vp8, at(n)));
            announcements.end(CAMERA);
            assert!(!announcements.end(CAMERA), "the mixer is notified once");
        }
        assert_eq!(count, 3 + 1);
        assert!(announcements.announce(SCREEN, Codec::Vp8, at(1_000)), "each source has its own limit");
    }

    #[test]
    fn sources_that_are_sent_no_more_are_forgotten() {
        let mut announcements = Announcements::default();
        for screen in 2..100 {
            announcements.announce(CAMERA, Codec::Vp8, at(0));
            announcements.announce(SourceId(screen), Codec::Vp8, at(0));
            announcements.reported(SourceId(screen));
            assert_eq!(announcements.announced(SourceId(screen), Codec::Vp8), Some(Reported(true)));
            announcements.retain(|source| source == CAMERA);
            assert_eq!(announcements.0.len(), 1);
        }
    }

    #[test]
    fn a_mixer_needs_no_packets_of_microphones_that_are_silent_or_in_no_mix() {
        const MICROPHONE: SourceId = SourceId(3);
        let sources = vec![(SourceKind::Camera, CAMERA), (SourceKind::Microphone, MICROPHONE)];
        let (room, _commands) = mpsc::channel(1);
        let uplink = Uplink::new(
            ParticipantId(1),
            sources,
            CurrentLink::default(),
            Taps::default(),
            room,
            UplinkCounters::default(),
        );
        let packet = |ms, level| SourcePacket {
            sequence: 0,
            timestamp: 0,
            marker: false,
            arrival: at(ms),
            captured: None,
            audio_level: Some(level),
            rotation: None,
            colours: None,
            payload: bytes::Bytes::from_static(b"quiet"),
        };
        let of_microphone = |ms, level| uplink.need(MICROPHONE, SourceKind::Microphone, &packet(ms, level));
        let of_camera = |ms| uplink.need(CAMERA, SourceKind::Camera, &packet(ms, 127));
        assert_eq!(of_microphone(0, 127), Need::Packet);
        assert_eq!(of_microphone(1_000, 127), Need::Nothing, "silent for a second");
        assert_eq!(of_camera(1_000), Need::Packet);
        assert_eq!(of_microphone(1_020, 40), Need::Packet, "it speaks");
        uplink.set_mixed(|_| false);
        assert_eq!(of_microphone(1_040, 40), Need::Nothing, "muted");
        assert_eq!(of_camera(1_040), Need::Packet);
        assert_eq!(of_microphone(3_000, 40), Need::Nothing, "no camera has begun");
        uplink.announcements.lock().announce(CAMERA, Codec::Vp8, at(3_000));
        assert_eq!(of_microphone(5_000, 40), Need::Sign, "the mixer shows a camera without frames as lost");
        assert_eq!(of_microphone(5_020, 40), Need::Nothing);
        uplink.set_mixed(|source| source == MICROPHONE);
        assert_eq!(of_microphone(5_040, 40), Need::Packet);
    }

    #[tokio::test]
    async fn packets_over_the_rate_of_their_source_are_dropped_and_counted() {
        const MICROPHONE: SourceId = SourceId(3);
        let sources = vec![(SourceKind::Camera, CAMERA), (SourceKind::Microphone, MICROPHONE)];
        let (room, mut commands) = mpsc::channel(8);
        let (ours, _theirs) = tokio::net::UnixStream::pair().expect("sockets");
        let link = CurrentLink::default();
        link.store(Some(Arc::new(MixerLink::to(ours.into_split().1))));
        let counters = UplinkCounters::default();
        let uplink = Uplink::new(ParticipantId(1), sources, link, Taps::default(), room, counters.clone());
        let packet = SourcePacket {
            sequence: 0,
            timestamp: 0,
            marker: false,
            arrival: at(0),
            captured: None,
            audio_level: None,
            rotation: None,
            colours: None,
            payload: bytes::Bytes::from_static(b"x"),
        };
        for _ in 0..6_000 {
            uplink.packet("0", SourceKind::Camera, Codec::Vp8, packet.clone());
        }
        assert_eq!(counters.over_rate.get(), 1_000, "of 6,000 at once");
        uplink.packet("1", SourceKind::Microphone, Codec::Opus, packet.clone());
        assert_eq!(counters.over_rate.get(), 1_000, "another source has its own rate");
        let later = SourcePacket { arrival: at(1_000), ..packet };
        (0..3_000).for_each(|_| uplink.packet("0", SourceKind::Camera, Codec::Vp8, later.clone()));
        assert_eq!(counters.over_rate.get(), 1_500, "a second later");
        assert!(commands.try_recv().is_ok(), "the source is announced once it is taken");
    }

    proptest! {
        #[test]
        fn announcements_never_exceed_their_rate(steps in prop::collection::vec((0_u64..400, any::<bool>()), 1..300)) {
            let (mut announcements, mut now, mut times) = (Announcements::default(), 0, Vec::new());
            for (wait, vp8) in steps {
                now += wait;
                let codec = if vp8 { Codec::Vp8 } else { Codec::H264 };
                if announcements.announced(CAMERA, codec).is_none() && announcements.announce(CAMERA, codec, at(now)) {
                    times.push(now);
                }
            }
            // Any five within less than a second are too many: three at once and one after each half second.
            prop_assert!(times.windows(5).all(|five| five[4] - five[0] >= 1_000), "{:?}", times);
        }
    }
}
