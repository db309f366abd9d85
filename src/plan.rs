//! What a room orders from its mixer: plain data, whole values, newest wins.
//!
//! Owns: [`SourceSpec`], [`MixPlan`], [`StreamSet`]; the picture's order, the scene, stands in [`crate::layout`].
//! Does not know: how the mixer carries them out.

use serde::{Deserialize, Serialize};

use crate::id::{ParticipantId, SourceId};
use crate::media::{Codec, Size, SoundQuality, SourceKind, StreamKey};

/// A source the mixer is to take in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSpec {
    /// Names it in packets, scenes and mix plans.
    pub source: SourceId,
    /// Whose it is: the minus-one leaves this participant's sources out.
    pub participant: ParticipantId,
    /// Camera, screen or microphone.
    pub kind: SourceKind,
    /// How it is encoded. A source that changes its codec is announced again.
    pub codec: Codec,
}

/// Who is heard, and by whom.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct MixPlan {
    /// The sources that sound; any other is neither decoded nor heard.
    pub sources: Vec<MixInput>,
    /// Everyone who listens. Without listeners nothing is mixed. Who listens without talking gets the shared mix.
    pub listeners: Vec<Listener>,
    /// Outputs take everyone's mix as well, at its best.
    pub outputs: bool,
}

/// Somebody who hears a mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Who.
    pub participant: ParticipantId,
    /// How good.
    pub quality: SoundQuality,
}

/// One source in a mix.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MixInput {
    /// The source.
    pub source: SourceId,
    /// Made louder or softer by so many decibels.
    pub gain_db: f32,
}

/// The video streams that somebody receives; any other encoder stops.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StreamSet {
    /// Every stream wanted.
    pub streams: Vec<StreamSpec>,
}

/// One video stream to encode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSpec {
    /// Names the stream in packets; never used twice in a room.
    pub serial: u32,
    /// What it is.
    pub key: StreamKey,
    /// Encoded size in pixels.
    pub size: Size,
    /// Frames a second.
    pub fps: u32,
    /// Target bitrate in kbit/s.
    pub bitrate_kbps: u32,
}
