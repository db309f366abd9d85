//! The link: the messages between the edge and its child processes, and their framing on a socket pair.
//!
//! Owns: the messages to and from a mixer (here), an [`output`] and an [`input`]; [`frame`]; the [`child`]'s end of the
//! link, its [`sandbox`] and the [`journal`] of a mixer; the JSON document of a recorded file ([`sidecar`]). Does not know: how processes are started, media.
//! In and out: a message is encoded with postcard behind a 32-bit length; writers put many messages into one write.

pub mod child;
pub mod frame;
pub mod input;
pub mod journal;
pub mod output;
pub mod sandbox;
pub mod sidecar;

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::filter::{FilterSpec, Removal};
use crate::id::{ParticipantId, RoomName, SourceId, ViewName};
use crate::layout::Scene;
use crate::media::{AudioEffort, EncodedPacket, Size, Sounds, SourcePacket};
use crate::overlay::{ImageName, ImageType, Overlay};
use crate::plan::{MixPlan, SourceSpec, StreamSet};
use crate::time::Timestamp;

/// From the edge to the mixer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToMixer {
    /// The first message.
    Configure(MixerSettings),
    /// A source begins, continues after a restart of the mixer, or has changed its codec.
    Source(SourceSpec),
    /// A source ended; no packets follow.
    SourceGone(SourceId),
    /// The filters of a source, in the order in which they are applied; replaces those before. May come before the
    /// source.
    Filters(SourceId, Vec<FilterSpec>),
    /// The filters of a view, in the order in which they are applied; replaces those before.
    ViewFilters(ViewName, Vec<FilterSpec>),
    /// One packet of a source.
    Packet(SourceId, SourcePacket),
    /// A packet of a microphone came that the mixer does not need: its sender is there. Once a second.
    Heard(SourceId),
    /// The scene of a view; replaces the one before.
    Scene(Scene),
    /// A view is not composed any more.
    SceneGone(ViewName),
    /// Which sources are mixed for which listeners; replaces the plan before.
    Mix(MixPlan),
    /// The video streams to encode; replaces the set before.
    Streams(StreamSet),
    /// The overlays of a view; replaces those before.
    Overlays(ViewName, Vec<Overlay>),
    /// A part of an image that is shown. The parts come in order; a new first part replaces the image.
    ImagePart {
        /// The image.
        name: ImageName,
        /// Its type.
        kind: ImageType,
        /// The part.
        part: Bytes,
        /// How many bytes follow.
        left: u32,
    },
    /// No overlay and no filter shows this image any more.
    ImageGone(ImageName),
    /// A receiver needs a keyframe of this stream. The mixer coalesces requests.
    Keyframe {
        /// The stream.
        serial: u32,
    },
}

impl ToMixer {
    /// Whether it is media, rather than an order.
    pub fn is_media(&self) -> bool {
        matches!(self, Self::Packet(..) | Self::Heard(_))
    }
}

/// The settings of a mixer; its first message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MixerSettings {
    /// The name of the room, for logs.
    pub room: RoomName,
    /// The epoch of the room, from which RTP timestamps count, also after a restart.
    pub epoch: Timestamp,
    /// Largest picture of a source; a larger one is refused before it is decoded.
    pub max_source: Size,
    /// Encode H.264 with openh264 instead of x264.
    pub openh264: bool,
    /// Time in which tiles move to new places, in milliseconds; 0 for no transitions.
    pub transition_ms: u32,
    /// CPU time that a filter may take for a frame.
    pub filter_budget: Duration,
    /// Threads for composing and for each encoder.
    pub threads: u32,
    /// Encoder settings of the mixes.
    pub sounds: Sounds,
}

/// From the mixer to the edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromMixer {
    /// The mixer has started.
    Ready {
        /// Features that are not available, as texts that name the GStreamer element and its Debian package.
        missing: Vec<String>,
    },
    /// One packet of a video stream.
    Video {
        /// The stream.
        serial: u32,
        /// The packet.
        packet: EncodedPacket,
    },
    /// The audio of one tick.
    Audio(AudioTick),
    /// A source cannot be decoded without a keyframe.
    KeyframeWanted(SourceId),
    /// A decoder of a source has failed: another one is made for its next keyframe.
    DecoderFailed(SourceId),
    /// The pictures of a source have this size, before rotation.
    SourceSize(SourceId, Size),
    /// The filter with this serial takes this CPU time for a frame.
    FilterLoad(u32, Duration),
    /// The filter with this serial was removed: why.
    FilterRemoved(u32, Removal, String),
    /// An image cannot be drawn: why.
    ImageFailed(ImageName, String),
    /// Levels of the participants in -dBov: 0 is loudest, 127 is silence (RFC 6464). About ten times a second.
    Levels(Vec<(ParticipantId, u8)>),
    /// Sent four times a second, and every 2 s when idle: a mixer whose report is late is killed as hung.
    Report(MixerReport),
}

/// One 20 ms tick of audio.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct AudioTick {
    /// The full mix, for every listener in neither list; None in silence.
    pub everyone: Option<EncodedPacket>,
    /// The same mix in thin quality: one packet for this tick and the ticks before it; None within a packet, and in
    /// silence.
    pub thin: Option<EncodedPacket>,
    /// Listeners that get `thin` instead of `everyone`, sorted.
    pub thin_listeners: Vec<ParticipantId>,
    /// The mix-minus of each talker, sent to it instead of `everyone` and `thin`, in the talker's quality; None while
    /// no other participant talks. Sorted by talker.
    pub mix_minus: Vec<(ParticipantId, Option<EncodedPacket>)>,
    /// Audible participants of this tick with their levels in -dBov, sorted by id; the loudest if there are many.
    pub heard: Vec<(ParticipantId, u8)>,
    /// The same for all ticks of the thin packet that ends with this tick.
    pub heard_thin: Vec<(ParticipantId, u8)>,
}

impl AudioTick {
    /// The packet for this listener.
    pub fn packet_for(&self, listener: ParticipantId) -> Option<&EncodedPacket> {
        if let Ok(at) = self.mix_minus.binary_search_by_key(&listener, |(talker, _)| *talker) {
            return self.mix_minus[at].1.as_ref();
        }
        match self.thin_listeners.binary_search(&listener) {
            Ok(_) => self.thin.as_ref(),
            Err(_) => self.everyone.as_ref(),
        }
    }

    /// The audible participants in the packet for this listener, including itself.
    pub fn heard_by(&self, listener: ParticipantId) -> &[(ParticipantId, u8)] {
        match self.thin_listeners.binary_search(&listener) {
            Ok(_) => &self.heard_thin,
            Err(_) => &self.heard,
        }
    }

    /// Whether no listener gets a packet.
    pub fn is_empty(&self) -> bool {
        self.everyone.is_none() && self.thin.is_none() && self.mix_minus.iter().all(|(_, packet)| packet.is_none())
    }
}

/// Counters of a mixer since its start.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct MixerReport {
    /// Video ticks run.
    pub video_ticks: u64,
    /// Video ticks that began more than half a frame late.
    pub video_late: u64,
    /// Video ticks skipped because the loop was late.
    pub video_left_out: u64,
    /// Frames not encoded because the encoder was busy or was being made.
    pub encoder_skipped: u64,
    /// Frames not encoded because the canvas was unchanged.
    pub unchanged: u64,
    /// Frames that repeat the last one, made without the encoder.
    pub repeated: u64,
    /// Video frames encoded, all streams.
    pub encoded: u64,
    /// Audio ticks run.
    pub audio_ticks: u64,
    /// Audio ticks that began more than 10 ms late.
    pub audio_late: u64,
    /// Audio ticks skipped because the loop was late: no listener gets these 20 ms.
    pub audio_left_out: u64,
    /// Audio ticks with reduced effort.
    pub audio_reduced: u64,
    /// Talkers left out of the mix because only the loudest were mixed, of all ticks.
    pub talkers_left_out: u64,
    /// The present effort of the audio mixer.
    pub audio_effort: AudioEffort,
    /// Audio packets encoded, all mixes.
    pub audio_encoded: u64,
    /// Audio packets concealed, of all sources.
    pub concealed: u64,
    /// Video frames dropped before decoding: incomplete, malformed or too large.
    pub source_frames_dropped: u64,
    /// H.264 NAL units skipped, because they are malformed or of a reserved type.
    pub source_units_skipped: u64,
    /// Frames filtered.
    pub filter_frames: u64,
    /// CPU time of the filters in microseconds.
    pub filter_cpu_us: u64,
    /// Filters removed because they had failed or were slow.
    pub filters_removed: u64,
    /// Messages dropped because the link to the edge was full.
    pub link_dropped: u64,
    /// The next report comes within this time.
    pub next: Duration,
    /// For how long the video or the audio loop has been busy with one tick; zero while both wait for the next.
    pub stalled: Duration,
    /// CPU time of the process in milliseconds.
    pub cpu_ms: u64,
    /// Resident memory in KiB.
    pub rss_kib: u64,
}
