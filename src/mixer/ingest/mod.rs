//! Ingest: packets of cameras and screens become pictures in their frame slots.
//!
//! Owns: per source the jitter buffer, the depayloader and the decoder; keyframe requests; the limits on what a sender
//! may cost. Does not know: tiles, encoders, threads (decoders bring their own, the [`Builder`] makes them). In:
//! packets, and which sources are shown. Out: pictures in [`FrameSlot`]s, and messages for the edge in the [`Outbox`].
//!
//! A fault of one source affects no other: its last picture stays until the compositor marks it as stale, its decoder
//! is replaced, and a keyframe is requested. A source that is not shown is not decoded; its packets since the last
//! keyframe are kept within bounds, because its sender may ignore keyframe requests.

mod batch;
mod decoding;
mod history;
mod layers;
mod requests;
mod source;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::source::VideoSource;
use super::builder::Builder;
use super::compose::FrameSlot;
use super::filter::Stage;
use super::lip_sync::LipSync;
use super::outbox::Outbox;
use crate::codec::DecodeLimits;
use crate::id::SourceId;
use crate::link::FromMixer;
use crate::media::{Size, SourcePacket};
use crate::plan::SourceSpec;
use crate::time::Timestamp;

/// Most bytes of packets that are kept for all hidden sources of the room.
const HISTORY_BYTES: usize = 32 << 20;

/// All video sources of a room.
pub struct Ingest {
    shared: Shared,
    sources: BTreeMap<SourceId, VideoSource>,
    shown: BTreeSet<SourceId>,
    wanted: BTreeMap<SourceId, Size>,
    /// Frames dropped before decoding by sources that have ended or are hidden.
    dropped: u64,
    /// Malformed units skipped of sources that have ended.
    skipped: u64,
}

/// What all sources share.
struct Shared {
    limits: DecodeLimits,
    outbox: Arc<Outbox>,
    builder: Builder,
    built: Arc<dyn Fn() + Send + Sync>,
}

impl Ingest {
    /// An ingest without sources. `built` is called on the builder's thread when a decoder is ready; it must cause a
    /// call of [`poll`](Self::poll).
    pub fn new(
        limits: DecodeLimits,
        outbox: Arc<Outbox>,
        builder: Builder,
        built: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let shared = Shared { limits, outbox, builder, built: Arc::new(built) };
        Self {
            shared,
            sources: BTreeMap::new(),
            shown: BTreeSet::new(),
            wanted: BTreeMap::new(),
            dropped: 0,
            skipped: 0,
        }
    }

    /// Adds a source, or changes its codec; its pictures go through `filters` to `slot`, as late as `lip_sync` says.
    pub fn set_source(
        &mut self,
        spec: SourceSpec,
        slot: Arc<FrameSlot>,
        filters: Arc<Stage>,
        lip_sync: Option<Arc<LipSync>>,
    ) {
        if self.sources.get(&spec.source).is_some_and(|known| known.codec() == spec.codec) {
            return;
        }
        self.remove_source(spec.source);
        let mut source = VideoSource::new(spec, slot, filters, lip_sync);
        if let Some(size) = self.wanted.get(&spec.source) {
            source.want(*size);
        }
        if self.shown.contains(&spec.source) {
            source.show(&self.shared);
        }
        self.sources.insert(spec.source, source);
    }

    /// Removes a source that has ended.
    pub fn remove_source(&mut self, source: SourceId) {
        if let Some(gone) = self.sources.remove(&source) {
            self.dropped += gone.dropped();
            self.skipped += gone.skipped();
        }
    }

    /// Sets the sources that are shown; the others are not decoded.
    pub fn set_shown(&mut self, shown: BTreeSet<SourceId>, now: Timestamp) {
        for &hidden in self.shown.difference(&shown) {
            if let Some(source) = self.sources.get_mut(&hidden) {
                self.dropped += source.dropped();
                source.hide();
            }
        }
        let entering: Vec<SourceId> = shown.difference(&self.shown).copied().collect();
        self.shown = shown;
        for source in entering {
            if let Some(entering) = self.sources.get_mut(&source) {
                entering.show(&self.shared);
                self.report(source, now);
            }
        }
    }

    /// Sets the sizes at which sources are shown at most: of a source with spatial layers no larger ones are decoded.
    pub fn want(&mut self, sizes: &BTreeMap<SourceId, Size>) {
        for (source, size) in sizes {
            if let Some(source) = self.sources.get_mut(source) {
                source.want(*size);
            }
        }
        self.wanted.clone_from(sizes);
    }

    /// Handles a packet; keeps it for later if its source is not shown.
    pub fn insert(&mut self, source: SourceId, packet: SourcePacket, now: Timestamp) {
        let Some(known) = self.sources.get_mut(&source) else { return };
        known.insert(packet, &self.shared, now);
        if known.kept_bytes() > 0 && self.sources.values().map(VideoSource::kept_bytes).sum::<usize>() > HISTORY_BYTES {
            // The longest one is the least likely to be needed: its sender sends few keyframes unless they are
            // requested.
            let longest = self.sources.values_mut().max_by_key(|source| source.kept_bytes());
            longest.expect("one was found above").forget_packets();
        }
        self.report(source, now);
    }

    /// Handles what is due; returns when to call again if no packet comes before.
    pub fn poll(&mut self, now: Timestamp) -> Option<Timestamp> {
        let due: Vec<SourceId> =
            self.sources.iter().filter(|(_, source)| source.is_due(now)).map(|(&id, _)| id).collect();
        for id in due {
            if let Some(source) = self.sources.get_mut(&id) {
                source.run(&self.shared, now);
            }
            self.report(id, now);
        }
        self.sources.values().filter_map(VideoSource::wake).min()
    }

    /// Frames dropped before decoding: incomplete, malformed, too large, or too many for the decoder.
    pub fn dropped(&self) -> u64 {
        self.dropped + self.sources.values().map(VideoSource::dropped).sum::<u64>()
    }

    /// Malformed or reserved units skipped, in frames whose other units were used.
    pub fn skipped(&self) -> u64 {
        self.skipped + self.sources.values().map(VideoSource::skipped).sum::<u64>()
    }

    /// Reports what has happened to a source: failed decoders, and that it needs a keyframe.
    fn report(&mut self, id: SourceId, now: Timestamp) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        for _ in 0..source.take_failures() {
            self.shared.outbox.push(FromMixer::DecoderFailed(id));
        }
        if source.asks(now) {
            self.shared.outbox.push(FromMixer::KeyframeWanted(id));
        }
    }
}
