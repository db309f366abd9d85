//! What a room orders from its mixer: plain data in whole values, of which the latest is valid.
//!
//! Owns: [`SourceSpec`], [`MixPlan`], [`StreamSet`]; the scene is in [`crate::layout`]. Does not know: how the mixer
//! carries them out.

use serde::{Deserialize, Serialize};

use crate::id::{ParticipantId, SourceId};
use crate::media::{Codec, Size, SoundQuality, SourceKind, StreamKey};

/// A source that the mixer decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSpec {
    /// Its id in packets, scenes and mix plans.
    pub source: SourceId,
    /// Its participant, whose mix-minus omits this source.
    pub participant: ParticipantId,
    /// Camera, screen or microphone.
    pub kind: SourceKind,
    /// Its codec. A source that changes its codec is announced again.
    pub codec: Codec,
}

/// The audio sources to mix, and the listeners.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct MixPlan {
    /// The sources to mix; others are not decoded.
    pub sources: Vec<MixInput>,
    /// The listeners. Without listeners and outputs nothing is mixed. Listeners that are silent share one mix.
    pub listeners: Vec<Listener>,
    /// Outputs need the mix of all sources, in full quality.
    pub outputs: bool,
}

/// A participant that receives a mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The participant.
    pub participant: ParticipantId,
    /// The quality of its audio.
    pub quality: SoundQuality,
}

/// One source in a mix.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MixInput {
    /// The source.
    pub source: SourceId,
    /// Gain in decibels.
    pub gain_db: f32,
}

/// The video streams to encode; other encoders stop.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StreamSet {
    /// The streams.
    pub streams: Vec<StreamSpec>,
}

/// One video stream to encode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSpec {
    /// Its number in packets; used once in a room.
    pub serial: u32,
    /// View, codec and tier.
    pub key: StreamKey,
    /// Encoded size in pixels.
    pub size: Size,
    /// Frames per second.
    pub fps: u32,
    /// Target bitrate of the payload in kbit/s.
    pub bitrate_kbps: u32,
    /// An output takes it: frames come at a steady rate also while the canvas is unchanged.
    pub steady: bool,
}
