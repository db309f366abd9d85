//! Ingest: packets of cameras and screens become pictures in their frame slots.
//!
//! Owns: per source the jitter buffer, the depayloader and the decoder; when a keyframe is asked for; the limits of what a
//! sender may do to us. Does not know: tiles, encoders, threads (the decoder brings its own). In: packets and which
//! sources are shown. Out: pictures in [`FrameSlot`]s, and what the edge must know in the [`Outbox`].
//!
//! Nothing that goes wrong here goes further: a source that breaks keeps its last picture until the compositor takes it
//! for stale, its decoder is replaced, and it is asked for a keyframe. A source that nobody sees costs nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::compose::FrameSlot;
use super::outbox::Outbox;
use crate::codec::{CodecError, DecodeLimits, Decoded, Depayloader, VideoDecoder, coded_size};
use crate::id::SourceId;
use crate::jitter::{VideoFrame, VideoJitter, VideoPoll};
use crate::link::FromMixer;
use crate::media::{Codec, Look, Size, SourcePacket};
use crate::plan::SourceSpec;
use crate::time::Timestamp;

/// Shortest time from one keyframe request to the next, per source.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
/// The same for a source that only sends what is not taken: asking more often would not make its pictures smaller.
const ASK_REFUSED_INTERVAL: Duration = Duration::from_secs(3);
/// A sender may change its picture's size so often within [`SIZE_CHANGES_WITHIN`]; each makes decoder and scaler anew.
const SIZE_CHANGES_MAX: usize = 4;
/// See [`SIZE_CHANGES_MAX`].
const SIZE_CHANGES_WITHIN: Duration = Duration::from_secs(10);
/// A decoder that fails is replaced so often within [`FAILURES_WITHIN`]; then its source waits.
const FAILURES_MAX: usize = 5;
/// See [`FAILURES_MAX`].
const FAILURES_WITHIN: Duration = Duration::from_secs(10);

/// All video sources of a room.
pub struct Ingest {
    limits: DecodeLimits,
    outbox: Arc<Outbox>,
    sources: BTreeMap<SourceId, VideoSource>,
    shown: BTreeSet<SourceId>,
    /// Frames dropped before decoding by sources that are gone or hidden.
    dropped: u64,
}

impl Ingest {
    /// An ingest without sources.
    pub fn new(limits: DecodeLimits, outbox: Arc<Outbox>) -> Self {
        Self { limits, outbox, sources: BTreeMap::new(), shown: BTreeSet::new(), dropped: 0 }
    }

    /// Makes a source known, or that it has changed its codec; its pictures go to `slot`.
    pub fn set_source(&mut self, spec: SourceSpec, slot: Arc<FrameSlot>) {
        if self.sources.get(&spec.source).is_some_and(|known| known.codec == spec.codec) {
            return;
        }
        self.remove_source(spec.source);
        let mut source = VideoSource::new(spec, slot, self.outbox.clone());
        if self.shown.contains(&spec.source) {
            source.show();
        }
        self.sources.insert(spec.source, source);
    }

    /// The source is gone.
    pub fn remove_source(&mut self, source: SourceId) {
        if let Some(gone) = self.sources.remove(&source) {
            self.dropped += gone.dropped();
        }
    }

    /// These sources are seen by somebody; the others are not decoded.
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
                entering.show();
                self.tell(source, now);
            }
        }
    }

    /// Takes in a packet; one of a source that is not shown is dropped.
    pub fn insert(&mut self, source: SourceId, packet: SourcePacket, now: Timestamp) {
        let Some(known) = self.sources.get_mut(&source) else { return };
        known.insert(packet, self.limits, now);
        self.tell(source, now);
    }

    /// Does what has become due; tells when to call again although no packet came.
    pub fn poll(&mut self, now: Timestamp) -> Option<Timestamp> {
        let due: Vec<SourceId> =
            self.sources.iter().filter(|(_, s)| s.wake.is_some_and(|at| at <= now)).map(|(&id, _)| id).collect();
        for id in due {
            if let Some(source) = self.sources.get_mut(&id) {
                source.run(self.limits, now);
            }
            self.tell(id, now);
        }
        self.sources.values().filter_map(|source| source.wake).min()
    }

    /// Frames dropped before decoding: gaps, garbage, too large.
    pub fn dropped(&self) -> u64 {
        self.dropped + self.sources.values().map(VideoSource::dropped).sum::<u64>()
    }

    fn tell(&mut self, id: SourceId, now: Timestamp) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        if source.asks(now) {
            self.outbox.push(FromMixer::KeyframeWanted(id));
        }
    }
}

/// One camera or screen.
struct VideoSource {
    codec: Codec,
    id: SourceId,
    slot: Arc<FrameSlot>,
    outbox: Arc<Outbox>,
    /// The size of its pictures that the edge knows.
    told: Arc<Mutex<Option<Size>>>,
    /// None while nobody sees it.
    shown: Option<Shown>,
    /// It has sent something.
    heard: bool,
    wake: Option<Timestamp>,
    /// Frames dropped after the jitter buffer.
    refused: u64,
    /// It cannot be decoded without a keyframe; when it was last asked for one.
    keyframe: KeyframeNeed,
    /// What its frames announce, which may be rounded up to whole blocks.
    size: Option<Size>,
    size_changes: Recent,
    failures: Recent,
}

/// What a source needs while it is seen.
struct Shown {
    jitter: VideoJitter,
    depayloader: Depayloader,
    decoder: Option<VideoDecoder>,
    broken: Arc<AtomicBool>,
    looks: Arc<Mutex<Looks>>,
    /// A frame was lost after the jitter buffer: nothing is decoded before a keyframe.
    skipping: bool,
    last_pts: Timestamp,
}

#[derive(Debug, Default)]
struct KeyframeNeed {
    needed: bool,
    asked: Option<Timestamp>,
    /// What it sends is not taken.
    refused: bool,
}

/// The look of each frame that is being decoded.
#[derive(Debug, Default)]
struct Looks {
    last: Look,
    current: Look,
    /// From the frame with this time on.
    changes: VecDeque<(Timestamp, Look)>,
}

impl Looks {
    /// A frame begins; it says what of its look has changed.
    fn begin(&mut self, pts: Timestamp, frame: &VideoFrame) {
        let mut newest = frame.packets.iter().rev();
        let look = Look {
            rotation: newest.clone().find_map(|packet| packet.rotation).unwrap_or(self.last.rotation),
            colours: newest.find_map(|packet| packet.colours).unwrap_or(self.last.colours),
        };
        if look != self.last {
            self.last = look;
            self.changes.push_back((pts, look));
        }
    }

    fn at(&mut self, pts: Timestamp) -> Look {
        while let Some(&(from, look)) = self.changes.front()
            && from <= pts
        {
            self.current = look;
            self.changes.pop_front();
        }
        self.current
    }
}

/// When something happened, as far back as a limit asks.
#[derive(Debug, Default)]
struct Recent(VecDeque<Timestamp>);

impl Recent {
    /// Whether it may happen once more; if so it is counted.
    fn allow(&mut self, max: usize, within: Duration, now: Timestamp) -> bool {
        while self.0.front().is_some_and(|&at| now.since(at) > within) {
            self.0.pop_front();
        }
        let allowed = self.0.len() < max;
        if allowed {
            self.0.push_back(now);
        }
        allowed
    }
}

impl VideoSource {
    fn new(spec: SourceSpec, slot: Arc<FrameSlot>, outbox: Arc<Outbox>) -> Self {
        Self {
            codec: spec.codec,
            id: spec.source,
            slot,
            outbox,
            told: Arc::default(),
            shown: None,
            heard: false,
            wake: None,
            refused: 0,
            keyframe: KeyframeNeed::default(),
            size: None,
            size_changes: Recent::default(),
            failures: Recent::default(),
        }
    }

    fn show(&mut self) {
        self.shown = Some(Shown {
            jitter: VideoJitter::default(),
            depayloader: Depayloader::new(self.codec),
            decoder: None,
            broken: Arc::default(),
            looks: Arc::default(),
            skipping: true,
            last_pts: Timestamp::default(),
        });
        // A source that has sent nothing yet begins with a keyframe by itself.
        self.keyframe.needed = self.heard;
    }

    fn hide(&mut self) {
        self.shown = None;
        // What it shows when it comes back must not begin with how it looked when it went.
        self.slot.clear();
        self.wake = None;
        self.refused = 0;
        self.keyframe.needed = false;
    }

    fn dropped(&self) -> u64 {
        self.refused + self.shown.as_ref().map_or(0, |shown| shown.jitter.stats().dropped_frames)
    }

    fn insert(&mut self, packet: SourcePacket, limits: DecodeLimits, now: Timestamp) {
        self.heard = true;
        let Some(shown) = &mut self.shown else { return };
        let starts_keyframe = Depayloader::starts_keyframe(self.codec, &packet.payload);
        shown.jitter.insert(packet, starts_keyframe, now);
        self.run(limits, now);
    }

    fn run(&mut self, limits: DecodeLimits, now: Timestamp) {
        self.wake = None;
        while let Some(shown) = &mut self.shown {
            match shown.jitter.poll(now) {
                VideoPoll::Frame(frame) => self.decode(&frame, limits, now),
                VideoPoll::KeyframeWanted => self.keyframe.needed = true,
                VideoPoll::Wait(until) => {
                    self.wake = Some(until);
                    return;
                }
                VideoPoll::Empty => return,
            }
        }
    }

    fn decode(&mut self, frame: &VideoFrame, limits: DecodeLimits, now: Timestamp) {
        let Some(shown) = &mut self.shown else { return };
        if shown.broken.swap(false, Ordering::AcqRel) {
            shown.decoder = None;
            shown.skipping = true;
        }
        if shown.skipping && !frame.starts_keyframe {
            self.refuse();
            return;
        }
        let whole = match shown.depayloader.frame(&frame.packets) {
            Ok(whole) => whole,
            Err(error) => return self.fail(&error, now),
        };
        if let Some(size) = coded_size(self.codec, &whole)
            && !self.take_size(size, limits, now)
        {
            return;
        }
        match self.push(whole, frame, limits) {
            Ok(()) => {
                self.keyframe.refused = false;
                if frame.starts_keyframe {
                    self.keyframe.needed = false;
                }
            }
            Err(error) => self.fail(&error, now),
        }
    }

    fn push(&mut self, whole: Bytes, frame: &VideoFrame, limits: DecodeLimits) -> Result<(), CodecError> {
        let shown = self.shown.as_mut().expect("frames come from a source that is shown");
        let last = frame.packets.last().expect("a frame has packets");
        // The decoder's clock: when the frame was here; never the same twice, since it names the frame.
        let pts = last.arrival.max(shown.last_pts + Duration::from_micros(1));
        shown.last_pts = pts;
        // Only some frames say it; it holds until another does.
        shown.looks.lock().begin(pts, frame);
        let decoder = match &mut shown.decoder {
            Some(decoder) => decoder,
            None => {
                let (slot, looks, broken) = (self.slot.clone(), shown.looks.clone(), shown.broken.clone());
                let (id, outbox, told) = (self.id, self.outbox.clone(), self.told.clone());
                shown.decoder.insert(VideoDecoder::new(self.codec, limits, move |decoded| match decoded {
                    Decoded::Picture { picture, pts } => {
                        let size = picture.size();
                        if told.lock().replace(size) != Some(size) {
                            outbox.push(FromMixer::SourceSize(id, size));
                        }
                        let look = looks.lock().at(pts);
                        slot.put(picture, look, pts);
                    }
                    Decoded::Failed(reason) => {
                        tracing::debug!(source = %id, reason, "a decoder has failed");
                        broken.store(true, Ordering::Release);
                    }
                })?)
            }
        };
        decoder.push(whole, pts)?;
        shown.skipping = false;
        Ok(())
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
            tracing::debug!(source = %self.id, %size, "the picture's size changes too often");
            self.keyframe.refused = true;
            self.refuse();
            return false;
        }
        self.size = Some(size);
        true
    }

    fn fail(&mut self, error: &CodecError, now: Timestamp) {
        tracing::debug!(source = %self.id, codec = %self.codec, %error, "a frame is not decoded");
        self.keyframe.refused = matches!(error, CodecError::Size { .. });
        if matches!(error, CodecError::Failed)
            && let Some(shown) = &mut self.shown
        {
            shown.decoder = None;
            // Whoever breaks decoders one after the other is slowed down; see `asks`.
            self.keyframe.refused = !self.failures.allow(FAILURES_MAX, FAILURES_WITHIN, now);
        }
        self.refuse();
    }

    /// Drops the frame, and all until the next keyframe, which it needs now.
    fn refuse(&mut self) {
        self.refused += 1;
        self.keyframe.needed = true;
        if let Some(shown) = &mut self.shown {
            shown.skipping = true;
        }
    }

    /// Whether to ask for a keyframe now.
    fn asks(&mut self, now: Timestamp) -> bool {
        if !self.keyframe.needed {
            return false;
        }
        let interval = if self.keyframe.refused { ASK_REFUSED_INTERVAL } else { ASK_INTERVAL };
        if self.keyframe.asked.is_some_and(|asked| now.since(asked) < interval) {
            return false;
        }
        self.keyframe.asked = Some(now);
        true
    }
}
