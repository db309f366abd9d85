//! The link: what the edge and its processes say to each other, and how it is framed on a socket pair.
//!
//! Owns: the messages to and from a mixer (here), an [`output`] and an [`input`], their version, [`frame`], and the end of
//! the link that a [`child`] process has. Does not know: how processes are started, media.
//! A message is postcard behind a 32-bit length; writers batch many messages into one write.

pub mod child;
pub mod frame;
pub mod input;
pub mod output;
pub mod sidecar;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{ParticipantId, RoomName, SourceId};
use crate::layout::Scene;
use crate::media::{EncodedPacket, Size, Sounds, SourcePacket};
use crate::plan::{MixPlan, SourceSpec, StreamSet};
use crate::time::Timestamp;

/// From the edge to the mixer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToMixer {
    /// The first message.
    Configure(MixerSettings),
    /// A source begins, or goes on after a restart of the mixer, or has changed its codec.
    Source(SourceSpec),
    /// A source ended; its packets stop.
    SourceGone(SourceId),
    /// One packet of a source.
    Packet(SourceId, SourcePacket),
    /// What a view shows now; replaces the scene of the same view.
    Scene(Scene),
    /// Who is heard by whom now.
    Mix(MixPlan),
    /// Which video streams are wanted now.
    Streams(StreamSet),
    /// Somebody cannot decode this stream without a keyframe. Any number may be sent: the mixer coalesces them.
    Keyframe {
        /// The stream.
        serial: u32,
    },
}

impl ToMixer {
    /// Whether it is media, of which there is much, rather than an order.
    pub fn is_media(&self) -> bool {
        matches!(self, Self::Packet(..))
    }
}

/// What a mixer must know before anything else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MixerSettings {
    /// For logs and the process title.
    pub room: RoomName,
    /// The room's epoch: RTP timestamps count from here, also after a restart.
    pub epoch: Timestamp,
    /// Largest picture taken from a source; a larger one is refused before its decoder sees it.
    pub max_source: Size,
    /// Encode H.264 with openh264 instead of x264.
    pub openh264: bool,
    /// Threads for composing and for each encoder.
    pub threads: u32,
    /// How mixes are encoded.
    pub sounds: Sounds,
}

/// From the mixer to the edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromMixer {
    /// Codecs are loaded; says which of them are missing on this machine, in words.
    Ready {
        /// What this mixer cannot do, each with the package that mends it.
        missing: Vec<String>,
    },
    /// One packet of a video stream.
    Video {
        /// The stream.
        serial: u32,
        /// The packet.
        packet: EncodedPacket,
    },
    /// The sound of one tick.
    Audio(AudioTick),
    /// A source cannot be decoded without a keyframe.
    KeyframeWanted(SourceId),
    /// A source's picture has this size now, before rotation is undone.
    SourceSize(SourceId, Size),
    /// How loud everyone who can be heard is: -dBov, 0 loudest, 127 silence (RFC 6464). About ten times a second.
    Levels(Vec<(ParticipantId, u8)>),
    /// Sent four times a second, also when idle: the edge takes a mixer without any message for hung.
    Report(MixerReport),
}

/// One 20 ms tick of sound.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct AudioTick {
    /// What everyone hears who is in neither list; None while there is nothing to send (silence).
    pub everyone: Option<EncodedPacket>,
    /// The same, thin: one packet for this tick and those before it; None within a packet, and in silence.
    pub thin: Option<EncodedPacket>,
    /// Who gets `thin` instead of `everyone`; in order.
    pub thin_listeners: Vec<ParticipantId>,
    /// The minus-one of those who talk, instead of both and as good as they get it; None while nobody else does: send
    /// them nothing. In order.
    pub own: Vec<(ParticipantId, Option<EncodedPacket>)>,
    /// Who is heard in this tick, in order, each with its level in -dBov; of a crowd the loudest.
    pub heard: Vec<(ParticipantId, u8)>,
    /// The same of all ticks of the thin packet that ends with this tick.
    pub heard_thin: Vec<(ParticipantId, u8)>,
}

impl AudioTick {
    /// What this listener is sent.
    pub fn packet_for(&self, listener: ParticipantId) -> Option<&EncodedPacket> {
        if let Ok(at) = self.own.binary_search_by_key(&listener, |(talker, _)| *talker) {
            return self.own[at].1.as_ref();
        }
        match self.thin_listeners.binary_search(&listener) {
            Ok(_) => self.thin.as_ref(),
            Err(_) => self.everyone.as_ref(),
        }
    }

    /// Who is heard in what this listener is sent, itself included.
    pub fn heard_by(&self, listener: ParticipantId) -> &[(ParticipantId, u8)] {
        match self.thin_listeners.binary_search(&listener) {
            Ok(_) => &self.heard_thin,
            Err(_) => &self.heard,
        }
    }

    /// Whether anybody is sent anything.
    pub fn is_empty(&self) -> bool {
        self.everyone.is_none() && self.thin.is_none() && self.own.iter().all(|(_, own)| own.is_none())
    }
}

/// What a mixer has done since it started.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct MixerReport {
    /// Video ticks run.
    pub video_ticks: u64,
    /// Video ticks that began more than half a frame late.
    pub video_late: u64,
    /// Video ticks left out because those before them were late.
    pub video_left_out: u64,
    /// Frames not encoded because the encoder was busy.
    pub encoder_skipped: u64,
    /// Frames not encoded because nothing had changed.
    pub unchanged: u64,
    /// Video frames encoded, all streams.
    pub encoded: u64,
    /// Audio ticks run.
    pub audio_ticks: u64,
    /// Audio packets encoded, all mixes.
    pub audio_encoded: u64,
    /// Audio packets concealed, all sources.
    pub concealed: u64,
    /// How much longer than pictures what is heard waits in the mixer, lately: outputs shift pictures by it.
    pub sound_lag: Duration,
    /// Video frames dropped before decoding: gaps, garbage, too large.
    pub source_frames_dropped: u64,
    /// Messages dropped because the link to the edge was full.
    pub link_dropped: u64,
    /// For how long the video or the audio loop has been busy with one tick; zero while both wait for the next.
    pub stalled: Duration,
    /// CPU time of the process in milliseconds.
    pub cpu_ms: u64,
    /// Resident memory in KiB.
    pub rss_kib: u64,
}
