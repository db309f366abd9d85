//! The way of a participant's packets to its room's mixer.
//!
//! Owns: which source a media section is, and the codec it was last announced with. Does not know: what is in a packet.
//! Track readers call in; packets leave through the link that the room runs at the moment, and to outputs that record
//! participants as they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::command::Command;
use crate::id::{ParticipantId, SourceId};
use crate::link::ToMixer;
use crate::link::output::ToOutput;
use crate::media::{Codec, SourceKind, SourcePacket};
use crate::peer::SourceSink;
use crate::plan::SourceSpec;
use crate::process::{MixerLink, OutputLink};
use crate::room::Input;

/// The link of a room's mixer while it has one.
pub(super) type CurrentLink = Arc<ArcSwapOption<MixerLink>>;
/// The outputs that take every participant's packets as they are.
pub(super) type Taps = Arc<ArcSwap<Vec<Arc<OutputLink>>>>;

/// One participant's way to the mixer.
pub(super) struct Uplink {
    participant: ParticipantId,
    sources: ArcSwap<Vec<(SourceKind, SourceId)>>,
    /// Codec of each source as announced: read and written only by track readers, seldom at once.
    announced: Mutex<Vec<(SourceId, Codec)>>,
    link: CurrentLink,
    taps: Taps,
    room: mpsc::Sender<Command>,
    homeless: AtomicU64,
}

impl Uplink {
    pub(super) fn new(
        participant: ParticipantId,
        sources: Vec<(SourceKind, SourceId)>,
        link: CurrentLink,
        taps: Taps,
        room: mpsc::Sender<Command>,
    ) -> Self {
        Self {
            participant,
            sources: ArcSwap::from_pointee(sources),
            announced: Mutex::default(),
            link,
            taps,
            room,
            homeless: AtomicU64::new(0),
        }
    }

    /// The participant's new offer sends these.
    pub(super) fn set_sources(&self, sources: Vec<(SourceKind, SourceId)>) {
        self.sources.store(Arc::new(sources));
    }

    /// Packets dropped because they belong to no source, or there was no mixer.
    pub(super) fn homeless(&self) -> u64 {
        self.homeless.load(Ordering::Relaxed)
    }

    /// Tells mixer and room of a source's codec when it is new. The mixer hears it ahead of the packet, on the same
    /// queue; the room remembers it for the next mixer. A room too busy to hear it now hears it with the next packet.
    fn announce(&self, link: &MixerLink, source: SourceId, kind: SourceKind, codec: Codec) {
        let mut announced = self.announced.lock();
        if announced.contains(&(source, codec)) {
            return;
        }
        let spec = SourceSpec { source, participant: self.participant, kind, codec };
        link.send(ToMixer::Source(spec));
        self.taps.load().iter().for_each(|tap| tap.send(ToOutput::Source(spec)));
        if self.room.try_send(Command::Input(Input::SourceStarted(source, codec))).is_ok() {
            announced.retain(|(other, _)| *other != source);
            announced.push((source, codec));
        }
    }
}

impl SourceSink for Uplink {
    fn packet(&self, _mid: &str, kind: SourceKind, codec: Codec, packet: SourcePacket) {
        let source = self.sources.load().iter().find(|(known, _)| *known == kind).map(|(_, id)| *id);
        let link = self.link.load();
        let (Some(source), Some(link)) = (source, link.as_ref()) else {
            self.homeless.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.announce(link, source, kind, codec);
        for tap in self.taps.load().iter() {
            tap.send(ToOutput::Packet(source, packet.clone()));
        }
        link.send(ToMixer::Packet(source, packet));
    }

    /// Its last picture goes at once; recordings of it go on, since it may come back.
    fn ended(&self, kind: SourceKind) {
        let source = self.sources.load().iter().find(|(known, _)| *known == kind).map(|(_, id)| *id);
        let link = self.link.load();
        let (Some(source), Some(link)) = (source, link.as_ref()) else { return };
        self.announced.lock().retain(|(announced, _)| *announced != source);
        link.send(ToMixer::SourceGone(source));
    }
}
