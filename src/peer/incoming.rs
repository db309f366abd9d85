//! What a peer sends: one reader for each received track.
//!
//! Owns: the way from a track's queue to the sink, and keyframe requests to the track's sender. Does not know: what the
//! sink does. The queue of a track holds 256 packets and drops silently, so a reader does nothing slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use rtc::rtcp;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc::rtp;
use tokio::task::AbortHandle;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};

use super::description::Taken;
use super::{Counters, SourceSink, engine};
use crate::media::{Codec, Colours, Matrix, Rotation, SourceKind, SourcePacket};
use crate::time::{self, Timestamp};

/// A source is asked for a keyframe at most this often.
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(500);
/// Stands for "no packet has come yet" beside 32-bit SSRCs.
const NO_SSRC: u64 = u64::MAX;

/// What the readers must know of the agreed descriptions; replaced whole by a new offer.
#[derive(Debug, Default)]
pub(super) struct Agreed {
    formats: Vec<(u8, Codec)>,
    sources: Vec<(String, SourceKind)>,
    audio_level: Option<u8>,
    orientation: Option<u8>,
    colour_space: Option<u8>,
}

impl Agreed {
    pub(super) fn new(taken: &Taken, sources: &[(String, SourceKind)]) -> Self {
        Self {
            formats: taken.formats.iter().map(|format| (format.payload_type, format.codec)).collect(),
            sources: sources.to_vec(),
            audio_level: taken.extension(engine::AUDIO_LEVEL),
            orientation: taken.extension(engine::ORIENTATION),
            colour_space: taken.extension(engine::COLOUR_SPACE),
        }
    }

    /// The source and codec a packet belongs to.
    fn source(&self, mid: &str, payload_type: u8) -> Option<(SourceKind, Codec)> {
        let (_, kind) = self.sources.iter().find(|(known, _)| known == mid)?;
        let (_, codec) = self.formats.iter().find(|(known, _)| *known == payload_type)?;
        (codec.kind() == kind.kind()).then_some((*kind, *codec))
    }

    fn packet(&self, packet: &rtp::Packet, arrival: Timestamp) -> SourcePacket {
        let whole = |id: Option<u8>| packet.header.get_extension(id?);
        let extension = |id: Option<u8>| whole(id)?.first().copied();
        SourcePacket {
            sequence: packet.header.sequence_number,
            timestamp: packet.header.timestamp,
            marker: packet.header.marker,
            arrival,
            // The upper bit says "voice", by the client's own judgement (RFC 6464).
            audio_level: extension(self.audio_level).map(|byte| byte & 0x7f),
            rotation: extension(self.orientation).map(rotation),
            colours: whole(self.colour_space).and_then(|bytes| colours(&bytes)),
            payload: packet.payload.clone(),
        }
    }
}

/// The two rotation bits of 3GPP TS 26.114 section 7.4.5: how far to turn clockwise before showing.
fn rotation(byte: u8) -> Rotation {
    match byte & 3 {
        0 => Rotation::None,
        1 => Rotation::Right,
        2 => Rotation::Half,
        _ => Rotation::Left,
    }
}

/// The meaning of samples by the color-space extension of WebRTC: primaries, transfer, matrix (each a code point of ITU-T
/// H.273), then range and chroma siting in one byte. Senders give it with keyframes.
fn colours(bytes: &[u8]) -> Option<Colours> {
    let &[_, _, matrix, range_and_siting, ..] = bytes else { return None };
    // BT.709's weights are close to those of its successors (BT.2020); what is unknown counts as the default.
    let matrix = if matches!(matrix, 1 | 9 | 10) { Matrix::Bt709 } else { Matrix::Bt601 };
    Some(Colours { matrix, full_range: (range_and_siting >> 4) & 3 == 2 })
}

/// A received track and its reader.
pub(super) struct Incoming {
    pub(super) mid: String,
    track: Arc<dyn TrackRemote>,
    ssrc: Arc<AtomicU64>,
    asked: Option<Timestamp>,
    reader: AbortHandle,
}

impl Incoming {
    pub(super) fn start(
        mid: String,
        track: Arc<dyn TrackRemote>,
        agreed: Arc<ArcSwap<Agreed>>,
        sink: Arc<dyn SourceSink>,
        counters: Arc<Counters>,
    ) -> Self {
        let ssrc = Arc::new(AtomicU64::new(NO_SSRC));
        let reader = Reader { mid: mid.clone(), track: track.clone(), agreed, sink, counters, ssrc: Arc::clone(&ssrc) };
        let reader = tokio::spawn(reader.run()).abort_handle();
        Self { mid, track, ssrc, asked: None, reader }
    }

    /// That of what has come last.
    pub(super) fn ssrc(&self) -> Option<u32> {
        u32::try_from(self.ssrc.load(Ordering::Relaxed)).ok()
    }

    /// Asks for a keyframe, unless that was done just now or nothing has come yet (then a keyframe comes first anyway).
    pub(super) async fn request_keyframe(&mut self, now: Timestamp) {
        let Some(media_ssrc) = self.ssrc() else { return };
        if self.asked.is_some_and(|asked| now.since(asked) < KEYFRAME_INTERVAL) {
            return;
        }
        self.asked = Some(now);
        self.say(vec![Box::new(PictureLossIndication { sender_ssrc: 0, media_ssrc })]).await;
    }

    /// Tells the sender how much it may send, all its streams together; once something has come of this one.
    pub(super) async fn limit(&self, bits_per_second: u64) {
        let Some(ssrc) = self.ssrc() else { return };
        let limit =
            ReceiverEstimatedMaximumBitrate { sender_ssrc: 0, bitrate: bits_per_second as f32, ssrcs: vec![ssrc] };
        self.say(vec![Box::new(limit)]).await;
    }

    /// Says something in RTCP; whether the connection took it.
    pub(super) async fn say(&self, packets: Vec<Box<dyn rtcp::Packet>>) -> bool {
        let said = self.track.write_rtcp(packets).await;
        if let Err(error) = &said {
            tracing::debug!(%error, mid = self.mid, "a sender could not be told something");
        }
        said.is_ok()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

struct Reader {
    mid: String,
    track: Arc<dyn TrackRemote>,
    agreed: Arc<ArcSwap<Agreed>>,
    sink: Arc<dyn SourceSink>,
    counters: Arc<Counters>,
    ssrc: Arc<AtomicU64>,
}

impl Reader {
    async fn run(self) {
        while let Some(event) = self.track.poll().await {
            match event {
                TrackRemoteEvent::OnRtpPacket(packet) => self.packet(&packet),
                TrackRemoteEvent::OnEnded => return,
                _ => {}
            }
        }
    }

    fn packet(&self, packet: &rtp::Packet) {
        self.counters.packets_in.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes_in.fetch_add(packet.payload.len() as u64, Ordering::Relaxed);
        let agreed = self.agreed.load();
        let Some((kind, codec)) = agreed.source(&self.mid, packet.header.payload_type) else {
            self.counters.strange_in.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.ssrc.store(u64::from(packet.header.ssrc), Ordering::Relaxed);
        self.sink.packet(&self.mid, kind, codec, agreed.packet(packet, time::now()));
    }
}
