//! What a track is: its codec, and what a decoder must know before the first sample.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::{ContainerError, UNITS, av1, avc};
use crate::media::{AUDIO_RATE, Codec, Size, VIDEO_CLOCK};

/// What an Opus decoder gives first and a player leaves out, in samples: libopus' own delay (RFC 7845 §4.2 calls it pre-skip).
const OPUS_DELAY: u32 = 312;

/// What a track may be encoded with. Not [`Codec`], which has the words of RTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrackCodec {
    /// VP8.
    Vp8,
    /// VP9.
    Vp9,
    /// H.264.
    H264,
    /// AV1.
    Av1,
    /// Opus.
    Opus,
    /// AAC, any profile.
    Aac,
    /// G.711 mu-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
}

impl TrackCodec {
    /// Whether it is pictures.
    pub const fn is_video(self) -> bool {
        matches!(self, Self::Vp8 | Self::Vp9 | Self::H264 | Self::Av1)
    }
}

impl From<Codec> for TrackCodec {
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::Vp8 => Self::Vp8,
            Codec::Vp9 => Self::Vp9,
            Codec::H264 => Self::H264,
            Codec::Av1 => Self::Av1,
            Codec::Opus => Self::Opus,
            Codec::Pcmu => Self::Pcmu,
            Codec::Pcma => Self::Pcma,
        }
    }
}

impl fmt::Display for TrackCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vp8 => "VP8 frame",
            Self::Vp9 => "VP9 frame",
            Self::H264 => "H.264 access unit",
            Self::Av1 => "AV1 temporal unit",
            Self::Opus => "Opus packet",
            Self::Aac => "AAC packet",
            Self::Pcmu | Self::Pcma => "G.711 packet",
        })
    }
}

/// One track of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackSpec {
    pub(super) name: String,
    pub(super) codec: TrackCodec,
    /// Zero for sound.
    pub(super) size: Size,
    /// Zero for video.
    pub(super) channels: u8,
    /// Ticks of what a decoder gives at first that are not played.
    pub(super) delay: u32,
    /// What the format's description of the codec holds: an avcC or av1C record, an AudioSpecificConfig, an OpusHead.
    pub(super) private: Bytes,
}

impl TrackSpec {
    /// A track of video that begins with this keyframe: of H.264 with its parameter sets, of AV1 with its sequence header.
    ///
    /// # Errors
    /// [`ContainerError::Malformed`] when they are missing or broken, or the codec is one of sound.
    pub fn video(codec: Codec, size: Size, keyframe: &Bytes) -> Result<Self, ContainerError> {
        let codec = TrackCodec::from(codec);
        let malformed = |reason| ContainerError::Malformed { codec, reason };
        let private = match codec {
            TrackCodec::H264 => avc::configuration(keyframe)
                .ok_or_else(|| malformed("a stream begins with a keyframe that has its parameter sets"))?,
            TrackCodec::Av1 => av1::configuration(keyframe)
                .ok_or_else(|| malformed("a stream begins with a keyframe that has its sequence header"))?,
            TrackCodec::Vp8 | TrackCodec::Vp9 => Bytes::new(),
            _ => return Err(malformed("it is no video")),
        };
        Ok(Self { name: String::new(), codec, size, channels: 0, delay: 0, private })
    }

    /// A track of Opus, with so many channels.
    pub fn opus(channels: u8) -> Self {
        let mut head = BytesMut::with_capacity(19);
        head.put_slice(b"OpusHead");
        head.put_u8(1);
        head.put_u8(channels);
        head.put_u16_le(OPUS_DELAY as u16);
        head.put_u32_le(AUDIO_RATE);
        head.put_i16_le(0);
        head.put_u8(0);
        Self::sound(TrackCodec::Opus, channels, OPUS_DELAY, head.freeze())
    }

    /// A track of AAC at 48 kHz, with its AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1). A sample's time is when what a
    /// decoder gives for it is heard: the encoder's delay is taken off already.
    pub fn aac(channels: u8, config: Bytes) -> Self {
        Self::sound(TrackCodec::Aac, channels, 0, config)
    }

    /// A track of G.711: one channel, 8 kHz, though its times count in 48 kHz as those of all sound.
    pub fn g711(a_law: bool) -> Self {
        let mut format = BytesMut::with_capacity(18);
        // WAVEFORMATEX: tag, channels, samples and bytes a second, bytes a sample, bits a sample, no more.
        format.put_u16_le(if a_law { 6 } else { 7 });
        format.put_u16_le(1);
        format.put_u32_le(8_000);
        format.put_u32_le(8_000);
        format.put_u16_le(1);
        format.put_u16_le(8);
        format.put_u16_le(0);
        Self::sound(if a_law { TrackCodec::Pcma } else { TrackCodec::Pcmu }, 1, 0, format.freeze())
    }

    const fn sound(codec: TrackCodec, channels: u8, delay: u32, private: Bytes) -> Self {
        Self { name: String::new(), codec, size: Size::new(0, 0), channels, delay, private }
    }

    /// The same track with a name that players show.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Its codec.
    pub const fn codec(&self) -> TrackCodec {
        self.codec
    }

    /// Ticks of its clock a second.
    pub const fn clock(&self) -> u32 {
        if self.codec.is_video() { VIDEO_CLOCK } else { AUDIO_RATE }
    }

    /// Its name in playlists and media types (RFC 6381): `avc1.42e01f`, `mp4a.40.2`, `opus`.
    pub fn codec_string(&self) -> String {
        match self.codec {
            TrackCodec::H264 => avc::codec_string(&self.private),
            TrackCodec::Av1 => av1::codec_string(&self.private),
            TrackCodec::Aac => {
                let object = self.private.first().map_or(2, |first| first >> 3);
                format!("mp4a.40.{object}")
            }
            TrackCodec::Vp8 => "vp8".into(),
            TrackCodec::Vp9 => "vp9".into(),
            TrackCodec::Opus => "opus".into(),
            TrackCodec::Pcmu => "ulaw".into(),
            TrackCodec::Pcma => "alaw".into(),
        }
    }

    /// Ticks as units of time that are the same for every track.
    pub(super) const fn units(&self, ticks: u64) -> u64 {
        ticks.saturating_mul(UNITS / self.clock() as u64)
    }

    /// The sample as it lies in files.
    pub(super) fn stored(&self, data: Bytes) -> Result<Bytes, ContainerError> {
        let malformed = |reason| ContainerError::Malformed { codec: self.codec, reason };
        let data = match self.codec {
            TrackCodec::H264 => avc::length_prefixed(&data).ok_or_else(|| malformed("no NAL unit in it"))?,
            TrackCodec::Av1 => av1::without_delimiter(data),
            _ => data,
        };
        // A length is told in 32 bits, and what is so long is none of ours.
        if data.is_empty() || data.len() > 1 << 28 {
            return Err(malformed("it is empty, or longer than anything encoded"));
        }
        Ok(data)
    }
}
