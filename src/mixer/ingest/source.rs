//! One camera or screen: its packets become frames for its decoder.
//!
//! Owns: the jitter buffer, the depayloader, the check of sizes, when a keyframe is needed. Does not know: the other
//! sources, which sources are shown. In: packets. Out: frames for [`Decoding`].

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::decoding::{Decoding, Owner};
use super::history::History;
use super::layers::SpatialLayers;
use super::requests::{KeyframeNeed, RateLimit};
use crate::codec::{CodecError, DecodeLimits, Depayloader, Entry, coded_size, entry};
use crate::jitter::{VideoFrame, VideoJitter, VideoPoll};
use crate::media::{Codec, Kind, Size, SourcePacket};
use crate::mixer::compose::FrameSlot;
use crate::mixer::filter::Stage;
use crate::mixer::lip_sync::LipSync;
use crate::plan::SourceSpec;
use crate::time::Timestamp;

/// Most changes of the picture size within [`SIZE_CHANGES_WITHIN`]: each rebuilds the scalers.
const SIZE_CHANGES_MAX: usize = 4;
/// See [`SIZE_CHANGES_MAX`].
const SIZE_CHANGES_WITHIN: Duration = Duration::from_secs(10);
/// Failed decoders within [`FAILURES_WITHIN`] after which keyframes are requested less often.
const FAILURES_MAX: usize = 5;
/// See [`FAILURES_MAX`].
const FAILURES_WITHIN: Duration = Duration::from_secs(10);

/// One camera or screen.
pub(super) struct VideoSource {
    owner: Owner,
    /// Its codec cannot be decoded on this machine: nothing is decoded, and no keyframe is requested.
    undecodable: bool,
    /// This machine cannot decode from a recovery point on.
    needs_idr: bool,
    depayloader: Depayloader,
    lip_sync: Option<Arc<LipSync>>,
    /// None while it is hidden.
    shown: Option<Shown>,
    /// Its packets while it is hidden, and while its sender ignores keyframe requests.
    history: History,
    /// It has sent a packet.
    has_sent: bool,
    wake: Option<Timestamp>,
    /// Frames dropped after the jitter buffer.
    refused: u64,
    keyframe: KeyframeNeed,
    /// The size in the headers of its frames, which may be rounded up to whole blocks.
    size: Option<Size>,
    size_changes: RateLimit,
    failures: RateLimit,
    /// Failed decoders that were not reported yet.
    unreported_failures: u32,
    layers: SpatialLayers,
}

/// State of a source while it is shown.
struct Shown {
    jitter: VideoJitter,
    decoding: Decoding,
    /// A frame was lost: nothing is decoded before a keyframe or recovery point.
    skipping: bool,
    /// The decoder has asked for a keyframe: it decodes nothing before an IDR picture.
    damaged: bool,
}

impl VideoSource {
    pub(super) fn new(
        spec: SourceSpec,
        slot: Arc<FrameSlot>,
        filters: Arc<Stage>,
        lip_sync: Option<Arc<LipSync>>,
    ) -> Self {
        Self {
            owner: Owner { id: spec.source, codec: spec.codec, slot, filters, sizes: Arc::default() },
            undecodable: false,
            needs_idr: false,
            depayloader: Depayloader::new(spec.codec),
            lip_sync,
            shown: None,
            history: History::default(),
            has_sent: false,
            wake: None,
            refused: 0,
            keyframe: KeyframeNeed::default(),
            size: None,
            size_changes: RateLimit::default(),
            failures: RateLimit::default(),
            unreported_failures: 0,
            layers: SpatialLayers::default(),
        }
    }

    /// The size at which it is shown at most.
    pub(super) fn want(&mut self, size: Size) {
        self.layers.want(size);
    }

    /// Its codec.
    pub(super) const fn codec(&self) -> Codec {
        self.owner.codec
    }

    /// Decodes it from now on, beginning with its packets since the last keyframe.
    pub(super) fn show(&mut self, shared: &Shared) {
        let packets = self.history.packets();
        let mut decoding = Decoding::default();
        decoding.catch_up(packets.len());
        self.shown = Some(Shown { jitter: VideoJitter::default(), decoding, skipping: true, damaged: false });
        for packet in packets {
            let arrival = packet.arrival;
            self.receive(packet, shared, arrival);
        }
        if let Some(shown) = &mut self.shown {
            shown.decoding.caught_up();
        }
        // The first packet of a source begins a keyframe. One is also requested after packets that were kept: it
        // replaces those that wait for the decoder.
        self.keyframe.needed = self.has_sent && !self.undecodable;
    }

    /// Stops decoding.
    pub(super) fn hide(&mut self) {
        self.shown = None;
        // A source that is shown again must not begin with its last picture.
        self.owner.slot.clear();
        self.owner.filters.clear();
        self.wake = None;
        self.refused = 0;
        self.keyframe.needed = false;
    }

    /// Frames dropped since it was shown.
    pub(super) fn dropped(&self) -> u64 {
        let of_shown = |shown: &Shown| shown.jitter.stats().dropped_frames + shown.decoding.dropped();
        self.refused + self.shown.as_ref().map_or(0, of_shown)
    }

    /// Malformed or reserved units skipped.
    pub(super) fn skipped(&self) -> u64 {
        self.depayloader.skipped()
    }

    /// Memory of the packets that are kept, in bytes.
    pub(super) const fn kept_bytes(&self) -> usize {
        self.history.bytes()
    }

    /// Drops the packets that are kept; the next keyframe begins anew.
    pub(super) fn forget_packets(&mut self) {
        self.history.clear();
    }

    /// Handles a packet.
    pub(super) fn insert(&mut self, packet: SourcePacket, shared: &Shared, now: Timestamp) {
        self.has_sent = true;
        if self.keeps_packets() {
            let starts = Depayloader::starts_key_picture(self.owner.codec, &packet.payload);
            self.history.insert(packet.clone(), starts);
        } else {
            self.history.clear();
        }
        if packet.marker
            && let Some(lip_sync) = &self.lip_sync
        {
            lip_sync.arrived(Kind::Video, &packet);
        }
        // The jitter buffer drops packets before the first keyframe, which may be its parameter sets.
        self.depayloader.observe(&packet.payload);
        self.receive(packet, shared, now);
    }

    /// Whether its packets are needed when it is shown the next time. A sender that answers keyframe requests needs no
    /// history while it is shown; whether it does is known soon after the request that follows [`show`](Self::show).
    fn keeps_packets(&self) -> bool {
        let is_needed = match self.keyframe.answers() {
            _ if self.shown.is_none() => true,
            Some(answers) => !answers,
            None => self.history.has_keyframe(),
        };
        is_needed && !self.undecodable
    }

    fn receive(&mut self, packet: SourcePacket, shared: &Shared, now: Timestamp) {
        let Some(shown) = &mut self.shown else { return };
        let starts_keyframe = Depayloader::starts_keyframe(self.owner.codec, &packet.payload);
        shown.jitter.insert(packet, starts_keyframe, now);
        self.run(shared, now);
    }

    /// When to call [`run`](Self::run), if no packet comes before.
    pub(super) const fn wake(&self) -> Option<Timestamp> {
        self.wake
    }

    /// Whether [`run`](Self::run) has something to do without another packet.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let is_built = self.shown.as_ref().is_some_and(|shown| shown.decoding.is_built());
        is_built || self.wake.is_some_and(|at| at <= now)
    }

    /// Decodes what can be decoded.
    pub(super) fn run(&mut self, shared: &Shared, now: Timestamp) {
        self.wake = None;
        self.feed(now);
        if let (Some(lip_sync), Some(shown)) = (&self.lip_sync, &mut self.shown) {
            shown.jitter.set_delay(lip_sync.video_delay(now));
        }
        while let Some(shown) = &mut self.shown {
            match shown.jitter.poll(now) {
                VideoPoll::Frame(frame) => self.decode(&frame, shared, now),
                VideoPoll::KeyframeWanted => self.keyframe.needed = !self.undecodable,
                VideoPoll::Wait(until) => {
                    self.wake = self.wake.into_iter().chain([until]).min();
                    break;
                }
                VideoPoll::Empty => break,
            }
        }
        let batch_due = self.shown.as_ref().and_then(|shown| shown.decoding.batch_due());
        self.wake = self.wake.into_iter().chain(batch_due).min();
    }

    /// Feeds the decoder with the frames that wait for it.
    fn feed(&mut self, now: Timestamp) {
        let Some(shown) = &mut self.shown else { return };
        match shown.decoding.feed(now) {
            Ok(again) => self.wake = again.map(|again| now + again),
            Err(error) => self.fail(&error, now),
        }
    }

    fn decode(&mut self, frame: &VideoFrame, shared: &Shared, now: Timestamp) {
        let Some(shown) = &mut self.shown else { return };
        let failed = shown.decoding.take_failure();
        self.unreported_failures += u32::from(failed);
        if failed || frame.after_gap {
            shown.skipping = true;
        }
        if shown.decoding.take_keyframe_wanted() {
            shown.damaged = true;
            self.keyframe.needed = true;
        }
        if self.undecodable {
            self.refuse();
            return;
        }
        if frame.starts_keyframe
            && let Some(first) = frame.packets.first()
        {
            let sizes = Depayloader::spatial_layers(self.owner.codec, &first.payload);
            self.layers.keyframe(sizes, now);
        }
        self.depayloader.set_highest_layer(self.layers.highest(now));
        let whole = match self.depayloader.frame(&frame.packets) {
            Ok(Some(whole)) => whole,
            Ok(None) => return,
            Err(error) => return self.fail(&error, now),
        };
        let begins = entry(self.owner.codec, &whole).filter(|at| *at == Entry::Keyframe || !self.needs_idr);
        if shown.skipping && begins.is_none() {
            self.refuse();
            return;
        }
        if let Some(size) = coded_size(self.owner.codec, &whole)
            && !self.take_size(size, shared.limits, now)
        {
            return;
        }
        let Some(shown) = &mut self.shown else { return };
        if matches!(begins, Some(Entry::RecoveryPoint { .. }))
            && (shown.skipping || shown.damaged && !shown.decoding.recovers())
        {
            // The decoder in use may need an IDR picture, and has pictures of before the loss.
            shown.decoding.end();
        }
        if let Err(error) = shown.decoding.push(whole, frame, begins, &self.owner, shared) {
            return self.fail(&error, now);
        }
        shown.skipping = false;
        self.keyframe.refused = false;
        if begins.is_some() {
            shown.damaged = false;
            self.keyframe.came(now);
        }
        self.keyframe.needed |= self.layers.needs_keyframe(now);
    }

    /// Whether a picture that announces this size is taken.
    fn take_size(&mut self, size: Size, limits: DecodeLimits, now: Timestamp) -> bool {
        if self.size == Some(size) {
            return true;
        }
        if !limits.allow(size) {
            self.fail(&CodecError::Size { size, max: limits.max }, now);
            return false;
        }
        if self.size.is_some() && !self.size_changes.allow(SIZE_CHANGES_MAX, SIZE_CHANGES_WITHIN, now) {
            tracing::debug!(source = %self.owner.id, %size, "picture size changes too often");
            self.keyframe.refused = true;
            self.refuse();
            return false;
        }
        self.size = Some(size);
        true
    }

    pub(super) fn fail(&mut self, error: &CodecError, now: Timestamp) {
        let (source, codec) = (self.owner.id, self.owner.codec);
        let recovers = self.shown.as_ref().is_some_and(|shown| shown.decoding.recovers());
        if error.is_permanent() && recovers {
            tracing::warn!(%source, %codec, %error, "source can only be decoded from an IDR picture on");
            self.needs_idr = true;
        } else if error.is_permanent() {
            tracing::error!(%source, %codec, %error, "source cannot be decoded");
            self.undecodable = true;
        } else {
            tracing::debug!(%source, %codec, %error, "frame not decoded");
        }
        self.keyframe.refused = matches!(error, CodecError::Size { .. });
        let decoder_failed = error.is_permanent() || matches!(error, CodecError::Failed | CodecError::Pipeline(_));
        if decoder_failed && let Some(shown) = &mut self.shown {
            shown.decoding.end();
            self.unreported_failures += u32::from(!error.is_permanent());
            // A sender that breaks one decoder after the other is slowed down; see `KeyframeNeed`.
            self.keyframe.refused = !self.failures.allow(FAILURES_MAX, FAILURES_WITHIN, now);
        }
        self.refuse();
    }

    /// Drops the frame and all until the next keyframe, which is requested unless the codec cannot be decoded.
    fn refuse(&mut self) {
        self.refused += 1;
        self.keyframe.needed = !self.undecodable;
        if let Some(shown) = &mut self.shown {
            shown.skipping = true;
        }
    }

    /// The number of decoders that have failed since the last call.
    pub(super) fn take_failures(&mut self) -> u32 {
        std::mem::take(&mut self.unreported_failures)
    }

    /// Whether to request a keyframe now; counts as a request.
    pub(super) fn asks(&mut self, now: Timestamp) -> bool {
        self.keyframe.asks(now)
    }
}
