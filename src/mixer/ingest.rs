//! Ingest: packets of cameras and screens become pictures in their frame slots.
//!
//! Owns: per source the jitter buffer, the depayloader and the decoder; keyframe requests; the limits on what a sender
//! may cost. Does not know: tiles, encoders, threads (decoders bring their own, the [`Builder`] makes them). In:
//! packets, and which sources are shown. Out: pictures in [`FrameSlot`]s, and messages for the edge in the [`Outbox`].
//!
//! A fault of one source affects no other: its last picture stays until the compositor marks it as stale, its decoder
//! is replaced, and a keyframe is requested. A source that is not shown costs nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::builder::{Builder, Building};
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
/// The same for a source whose frames are refused: more requests would not change what it sends.
const ASK_REFUSED_INTERVAL: Duration = Duration::from_secs(3);
/// Most changes of the picture size within [`SIZE_CHANGES_WITHIN`]: each rebuilds the scalers.
const SIZE_CHANGES_MAX: usize = 4;
/// See [`SIZE_CHANGES_MAX`].
const SIZE_CHANGES_WITHIN: Duration = Duration::from_secs(10);
/// Most frames that wait while a decoder is made, from a keyframe on: 0.5 s at 30 frames a second, and as many as a new
/// decoder takes at once.
const PENDING_MAX: usize = 15;
/// Failed decoders within [`FAILURES_WITHIN`] after which keyframes are requested less often.
const FAILURES_MAX: usize = 5;
/// See [`FAILURES_MAX`].
const FAILURES_WITHIN: Duration = Duration::from_secs(10);

/// All video sources of a room.
pub struct Ingest {
    shared: Shared,
    sources: BTreeMap<SourceId, VideoSource>,
    shown: BTreeSet<SourceId>,
    /// Frames dropped before decoding by sources that have ended or are hidden.
    dropped: u64,
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
        Self { shared, sources: BTreeMap::new(), shown: BTreeSet::new(), dropped: 0 }
    }

    /// Adds a source, or changes its codec; its pictures go to `slot`.
    pub fn set_source(&mut self, spec: SourceSpec, slot: Arc<FrameSlot>) {
        if self.sources.get(&spec.source).is_some_and(|known| known.codec == spec.codec) {
            return;
        }
        self.remove_source(spec.source);
        let mut source = VideoSource::new(spec, slot);
        if self.shown.contains(&spec.source) {
            source.show();
        }
        self.sources.insert(spec.source, source);
    }

    /// Removes a source that has ended.
    pub fn remove_source(&mut self, source: SourceId) {
        if let Some(gone) = self.sources.remove(&source) {
            self.dropped += gone.dropped();
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
                entering.show();
                self.request_keyframe(source, now);
            }
        }
    }

    /// Handles a packet; drops it if its source is not shown.
    pub fn insert(&mut self, source: SourceId, packet: SourcePacket, now: Timestamp) {
        let Some(known) = self.sources.get_mut(&source) else { return };
        known.insert(packet, &self.shared, now);
        self.request_keyframe(source, now);
    }

    /// Handles what is due; returns when to call again if no packet comes before.
    pub fn poll(&mut self, now: Timestamp) -> Option<Timestamp> {
        let due: Vec<SourceId> =
            self.sources.iter().filter(|(_, source)| source.is_due(now)).map(|(&id, _)| id).collect();
        for id in due {
            if let Some(source) = self.sources.get_mut(&id) {
                source.run(&self.shared, now);
            }
            self.request_keyframe(id, now);
        }
        self.sources.values().filter_map(|source| source.wake).min()
    }

    /// Frames dropped before decoding: incomplete, malformed, too large, or too many for the decoder.
    pub fn dropped(&self) -> u64 {
        self.dropped + self.sources.values().map(VideoSource::dropped).sum::<u64>()
    }

    fn request_keyframe(&mut self, id: SourceId, now: Timestamp) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        if source.asks(now) {
            self.shared.outbox.push(FromMixer::KeyframeWanted(id));
        }
    }
}

/// One camera or screen.
struct VideoSource {
    codec: Codec,
    id: SourceId,
    slot: Arc<FrameSlot>,
    /// Its codec cannot be decoded on this machine: nothing is decoded, and no keyframe is requested.
    undecodable: bool,
    /// The picture size that was reported to the edge.
    reported: Arc<Mutex<Option<Size>>>,
    /// None while it is hidden.
    shown: Option<Shown>,
    /// It has sent a packet.
    has_sent: bool,
    wake: Option<Timestamp>,
    /// Frames dropped after the jitter buffer.
    refused: u64,
    /// Whether it needs a keyframe, and when one was requested last.
    keyframe: KeyframeNeed,
    /// The size in the headers of its frames, which may be rounded up to whole blocks.
    size: Option<Size>,
    size_changes: RateLimit,
    failures: RateLimit,
}

/// State of a source while it is shown.
struct Shown {
    jitter: VideoJitter,
    depayloader: Depayloader,
    decoder: Decoder,
    broken: Arc<AtomicBool>,
    looks: Arc<Mutex<Looks>>,
    /// A frame was lost after the jitter buffer: nothing is decoded before a keyframe.
    skipping: bool,
    last_pts: Timestamp,
}

enum Decoder {
    /// The next keyframe makes one.
    None,
    /// The builder makes it; the frames for it begin with the newest keyframe.
    Building {
        building: Building<VideoDecoder>,
        pending: VecDeque<(Bytes, Timestamp)>,
    },
    Ready(VideoDecoder),
}

#[derive(Debug, Default)]
struct KeyframeNeed {
    needed: bool,
    asked: Option<Timestamp>,
    /// Its frames are refused.
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
    /// A frame begins; its packets carry the changes of its look.
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

/// Limits how often something happens: the times of the events within the limit's window.
#[derive(Debug, Default)]
struct RateLimit(VecDeque<Timestamp>);

impl RateLimit {
    /// Whether another event is within `max` events in the last `within`; if so it is counted.
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
    fn new(spec: SourceSpec, slot: Arc<FrameSlot>) -> Self {
        Self {
            codec: spec.codec,
            id: spec.source,
            slot,
            undecodable: false,
            reported: Arc::default(),
            shown: None,
            has_sent: false,
            wake: None,
            refused: 0,
            keyframe: KeyframeNeed::default(),
            size: None,
            size_changes: RateLimit::default(),
            failures: RateLimit::default(),
        }
    }

    fn show(&mut self) {
        self.shown = Some(Shown {
            jitter: VideoJitter::default(),
            depayloader: Depayloader::new(self.codec),
            decoder: Decoder::None,
            broken: Arc::default(),
            looks: Arc::default(),
            skipping: true,
            last_pts: Timestamp::default(),
        });
        // The first packet of a source begins a keyframe.
        self.keyframe.needed = self.has_sent && !self.undecodable;
    }

    fn hide(&mut self) {
        self.shown = None;
        // A source that is shown again must not begin with its last picture.
        self.slot.clear();
        self.wake = None;
        self.refused = 0;
        self.keyframe.needed = false;
    }

    fn dropped(&self) -> u64 {
        self.refused + self.shown.as_ref().map_or(0, |shown| shown.jitter.stats().dropped_frames)
    }

    fn insert(&mut self, packet: SourcePacket, shared: &Shared, now: Timestamp) {
        self.has_sent = true;
        let Some(shown) = &mut self.shown else { return };
        let starts_keyframe = Depayloader::starts_keyframe(self.codec, &packet.payload);
        shown.jitter.insert(packet, starts_keyframe, now);
        self.run(shared, now);
    }

    /// Whether [`run`](Self::run) has something to do without another packet.
    fn is_due(&self, now: Timestamp) -> bool {
        let decoder = self.shown.as_ref().map(|shown| &shown.decoder);
        let is_built = matches!(decoder, Some(Decoder::Building { building, .. }) if building.is_done());
        is_built || self.wake.is_some_and(|at| at <= now)
    }

    fn run(&mut self, shared: &Shared, now: Timestamp) {
        self.wake = None;
        self.take_decoder(now);
        while let Some(shown) = &mut self.shown {
            match shown.jitter.poll(now) {
                VideoPoll::Frame(frame) => self.decode(&frame, shared, now),
                VideoPoll::KeyframeWanted => self.keyframe.needed = !self.undecodable,
                VideoPoll::Wait(until) => {
                    self.wake = Some(until);
                    return;
                }
                VideoPoll::Empty => return,
            }
        }
    }

    /// Takes the decoder that was being built, if it is there, and gives it the frames that waited.
    fn take_decoder(&mut self, now: Timestamp) {
        let Some(shown) = &mut self.shown else { return };
        let Decoder::Building { building, pending } = &mut shown.decoder else { return };
        let Some(built) = building.take() else { return };
        let pending = std::mem::take(pending);
        shown.decoder = Decoder::None;
        let mut decoder = match built {
            Ok(decoder) => decoder,
            Err(error) => return self.fail(&error, now),
        };
        for (frame, pts) in pending {
            if let Err(error) = decoder.push(frame, pts) {
                shown.decoder = Decoder::Ready(decoder);
                return self.fail(&error, now);
            }
        }
        shown.decoder = Decoder::Ready(decoder);
    }

    fn decode(&mut self, frame: &VideoFrame, shared: &Shared, now: Timestamp) {
        let Some(shown) = &mut self.shown else { return };
        if shown.broken.swap(false, Ordering::AcqRel) {
            shown.decoder = Decoder::None;
            shown.skipping = true;
        }
        if self.undecodable || shown.skipping && !frame.starts_keyframe {
            self.refuse();
            return;
        }
        let whole = match shown.depayloader.frame(&frame.packets) {
            Ok(whole) => whole,
            Err(error) => return self.fail(&error, now),
        };
        if let Some(size) = coded_size(self.codec, &whole)
            && !self.take_size(size, shared.limits, now)
        {
            return;
        }
        match self.push(whole, frame, shared) {
            Ok(()) => {
                self.keyframe.refused = false;
                if frame.starts_keyframe {
                    self.keyframe.needed = false;
                }
            }
            Err(error) => self.fail(&error, now),
        }
    }

    fn push(&mut self, whole: Bytes, frame: &VideoFrame, shared: &Shared) -> Result<(), CodecError> {
        let shown = self.shown.as_mut().expect("frames come from a source that is shown");
        let last = frame.packets.last().expect("a frame has packets");
        // The arrival of the frame, made unique because it identifies the frame.
        let pts = last.arrival.max(shown.last_pts + Duration::from_micros(1));
        shown.last_pts = pts;
        match &mut shown.decoder {
            Decoder::Ready(decoder) => {
                shown.looks.lock().begin(pts, frame);
                decoder.push(whole, pts)?;
            }
            Decoder::Building { pending, .. } => {
                if frame.starts_keyframe {
                    // Decoding begins with the newest keyframe.
                    self.refused += pending.len() as u64;
                    pending.clear();
                }
                if pending.len() >= PENDING_MAX {
                    return Err(CodecError::Behind(PENDING_MAX as u64));
                }
                shown.looks.lock().begin(pts, frame);
                pending.push_back((whole, pts));
            }
            Decoder::None => {
                let building = self.build(shared)?;
                let shown = self.shown.as_mut().expect("shown above");
                shown.looks.lock().begin(pts, frame);
                shown.decoder = Decoder::Building { building, pending: VecDeque::from([(whole, pts)]) };
                shown.skipping = false;
                return Ok(());
            }
        }
        shown.skipping = false;
        Ok(())
    }

    /// Begins to make a decoder.
    fn build(&mut self, shared: &Shared) -> Result<Building<VideoDecoder>, CodecError> {
        let shown = self.shown.as_mut().expect("only sources that are shown have decoders");
        // A decoder that was replaced may still report its end.
        shown.broken = Arc::default();
        let (writer, looks, broken) = (self.slot.writer(), shown.looks.clone(), shown.broken.clone());
        let (id, outbox, reported) = (self.id, shared.outbox.clone(), self.reported.clone());
        let sink = move |decoded| match decoded {
            Decoded::Picture { picture, pts } => {
                let size = picture.size();
                if reported.lock().replace(size) != Some(size) {
                    outbox.push(FromMixer::SourceSize(id, size));
                }
                let look = looks.lock().at(pts);
                writer.put(picture, look, pts);
            }
            Decoded::Failed(reason) => {
                tracing::debug!(source = %id, reason, "decoder failed");
                broken.store(true, Ordering::Release);
            }
        };
        let (codec, limits, built) = (self.codec, shared.limits, shared.built.clone());
        shared.builder.build(move || VideoDecoder::new(codec, limits, sink), move || built())
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
            tracing::debug!(source = %self.id, %size, "picture size changes too often");
            self.keyframe.refused = true;
            self.refuse();
            return false;
        }
        self.size = Some(size);
        true
    }

    fn fail(&mut self, error: &CodecError, now: Timestamp) {
        if error.is_permanent() {
            tracing::error!(source = %self.id, codec = %self.codec, %error, "source cannot be decoded");
            self.undecodable = true;
        } else {
            tracing::debug!(source = %self.id, codec = %self.codec, %error, "frame not decoded");
        }
        self.keyframe.refused = matches!(error, CodecError::Size { .. });
        let decoder_failed = self.undecodable || matches!(error, CodecError::Failed | CodecError::Pipeline(_));
        if decoder_failed && let Some(shown) = &mut self.shown {
            shown.decoder = Decoder::None;
            // A sender that breaks one decoder after the other is slowed down; see `asks`.
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

    /// Whether to request a keyframe now; counts as a request.
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};

    use super::*;
    use crate::codec::{EncodeSpec, EncodedFrame, H264Encoder, Payloader, Picture, VideoEncoder};
    use crate::id::ParticipantId;
    use crate::media::SourceKind;
    use crate::mixer::builder::tests::{PATIENCE, block};

    const SOURCE: SourceId = SourceId(1);
    const SIZE: Size = Size::new(64, 48);

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000 + ms * 1_000)
    }

    /// VP8 frames of one encoder; those with an even number show `luma`, the others one more. Frame 0 is a keyframe,
    /// and every eighth.
    fn frames(count: u32, luma: u8) -> Vec<Vec<SourcePacket>> {
        let codec = Codec::Vp8;
        let spec = EncodeSpec { codec, size: SIZE, fps: 30, bitrate_kbps: 200, h264: H264Encoder::X264, threads: 1 };
        let (to, encoded) = sync_channel::<EncodedFrame>(4);
        let mut encoder = VideoEncoder::new(spec, move |frame| to.send(frame).expect("taken")).expect("installed");
        let (mut payloader, mut sequence) = (Payloader::new(codec), 0);
        (0..count)
            .map(|n| {
                let picture = Picture::filled(SIZE, luma + (n % 2) as u8, 128, 128);
                assert!(encoder.push(&picture, Duration::from_millis(33 * u64::from(n)), n.is_multiple_of(8)));
                let frame = encoded.recv_timeout(PATIENCE).expect("one in, one out");
                let packets = payloader.packets(&frame, n * 3_000).into_iter().map(|packet| {
                    sequence += 1;
                    SourcePacket {
                        sequence,
                        timestamp: packet.timestamp,
                        marker: packet.marker,
                        arrival: at(33 * u64::from(n)),
                        audio_level: None,
                        rotation: None,
                        colours: None,
                        payload: packet.payload,
                    }
                });
                packets.collect()
            })
            .collect()
    }

    /// An ingest that shows one camera, and whose builder is busy until the first of these is dropped; the second tells
    /// when a decoder was built.
    struct Stage {
        ingest: Ingest,
        slot: Arc<FrameSlot>,
        outbox: Arc<Outbox>,
        built: Receiver<()>,
    }

    impl Stage {
        fn new(codec: Codec) -> (Self, std::sync::mpsc::SyncSender<()>) {
            let (tell, built) = sync_channel(64);
            let (outbox, builder) = (Arc::new(Outbox::default()), Builder::new("test"));
            let gate = block(&builder);
            let done = move || tell.send(()).expect("the test lives");
            let mut ingest = Ingest::new(DecodeLimits::default(), outbox.clone(), builder, done);
            let slot = Arc::new(FrameSlot::new(SourceKind::Camera));
            let spec = SourceSpec { source: SOURCE, participant: ParticipantId(1), kind: SourceKind::Camera, codec };
            ingest.set_source(spec, slot.clone());
            ingest.set_shown([SOURCE].into(), at(0));
            (Self { ingest, slot, outbox, built }, gate)
        }

        fn insert(&mut self, frame: &[SourcePacket]) {
            for packet in frame {
                self.ingest.insert(SOURCE, packet.clone(), packet.arrival);
            }
        }

        /// The messages so far; at least one must have come.
        fn messages(&self) -> Vec<FromMixer> {
            let mut messages = Vec::new();
            assert!(self.outbox.take(&mut messages));
            messages
        }

        /// Waits until the decoder has stored the frame that arrived at this time.
        fn wait_for_frame(&self, arrival: Timestamp) {
            for _ in 0..20_000 {
                if self.slot.arrival().is_some_and(|stored| stored >= arrival) {
                    return;
                }
                std::thread::park_timeout(Duration::from_millis(1));
            }
            panic!("no frame of {arrival:?}: {:?}", self.slot.arrival());
        }
    }

    #[test]
    fn frames_wait_for_a_decoder_that_is_being_built_and_none_is_lost() {
        let (mut stage, gate) = Stage::new(Codec::Vp8);
        let frames = frames(6, 80);
        for frame in &frames {
            stage.insert(frame);
        }
        assert!(stage.slot.arrival().is_none(), "nothing is decoded while the builder is busy");
        assert_eq!(stage.ingest.dropped(), 0);
        drop(gate);
        stage.built.recv_timeout(PATIENCE).expect("built");
        stage.ingest.poll(at(200));
        stage.wait_for_frame(at(33 * 5));
        assert_eq!(stage.ingest.dropped(), 0);
        assert_eq!(stage.messages(), [FromMixer::SourceSize(SOURCE, SIZE)], "no keyframe is requested");
    }

    #[test]
    fn the_newest_keyframe_is_kept_while_a_decoder_is_built_slowly() {
        let (mut stage, gate) = Stage::new(Codec::Vp8);
        let frames = frames(8 + 3, 80);
        // Eight frames with a keyframe first, and later many frames without one: those after the fifteenth are dropped.
        for frame in &frames[..8] {
            stage.insert(frame);
        }
        let (mut sequence, mut timestamp) = (frames[7].last().expect("packets").sequence, 7 * 3_000);
        for _ in 0..20 {
            (sequence, timestamp) = (sequence + 1, timestamp + 3_000);
            let delta = frames[7].last().expect("packets").clone();
            stage.insert(&[SourcePacket { sequence, timestamp, marker: true, ..delta }]);
        }
        assert_eq!(stage.ingest.dropped(), 8 + 20 - PENDING_MAX as u64, "the rest waits");
        assert_eq!(stage.messages(), [FromMixer::KeyframeWanted(SOURCE)]);
        // The keyframe takes the place of everything before it.
        for (frame, n) in frames[8..].iter().zip(1_u32..) {
            let mut frame = frame.clone();
            for packet in &mut frame {
                sequence += 1;
                (packet.sequence, packet.timestamp) = (sequence, timestamp + n * 3_000);
            }
            stage.insert(&frame);
        }
        assert_eq!(stage.ingest.dropped(), 8 + 20);
        drop(gate);
        stage.built.recv_timeout(PATIENCE).expect("built");
        stage.ingest.poll(at(2_000));
        stage.wait_for_frame(at(33 * 10));
    }

    #[test]
    fn a_camera_that_is_hidden_while_its_decoder_is_built_stays_hidden() {
        let (mut stage, gate) = Stage::new(Codec::Vp8);
        let frames = frames(9, 80);
        stage.insert(&frames[0]);
        stage.ingest.set_shown(BTreeSet::new(), at(40));
        stage.ingest.set_shown([SOURCE].into(), at(50));
        assert_eq!(stage.messages(), [FromMixer::KeyframeWanted(SOURCE)]);
        drop(gate);
        // The first decoder is no longer wanted; the next keyframe makes another one.
        stage.insert(&frames[8]);
        stage.built.recv_timeout(PATIENCE).expect("built");
        stage.ingest.poll(at(400));
        stage.wait_for_frame(at(33 * 8));
        assert!(stage.built.try_recv().is_err(), "one decoder was built");
    }

    #[test]
    fn a_source_that_cannot_be_decoded_is_not_asked_for_keyframes() {
        let (mut stage, gate) = Stage::new(Codec::Vp8);
        drop(gate);
        let frames = frames(9, 80);
        stage.insert(&frames[0]);
        let source = stage.ingest.sources.get_mut(&SOURCE).expect("known");
        source.fail(&CodecError::Unsupported(Codec::Vp8, "decoded here"), at(1));
        for frame in &frames[1..] {
            stage.insert(frame);
        }
        stage.ingest.poll(at(5_000));
        stage.ingest.set_shown(BTreeSet::new(), at(5_000));
        stage.ingest.set_shown([SOURCE].into(), at(6_000));
        stage.outbox.push(FromMixer::KeyframeWanted(SourceId(2)));
        assert_eq!(stage.messages(), [FromMixer::KeyframeWanted(SourceId(2))], "nothing of source 1");
    }
}
