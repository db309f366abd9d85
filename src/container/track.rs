//! Track descriptions: codec, dimensions, and the codec configuration that a decoder needs before the first sample.
//!
//! Owns: [`TrackSpec`] and the stored form of samples. Does not know: the containers' own structures.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::{ContainerError, UNITS, av1, avc};
use crate::media::{AUDIO_RATE, Codec, Size, VIDEO_CLOCK};

/// Opus pre-skip in samples (RFC 7845 §4.2): the algorithmic delay of libopus.
const OPUS_DELAY: u32 = 312;

/// Codec of a track. Unlike [`Codec`], which lists RTP encodings, it has AAC.
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
    /// Plain text that is shown for a time: captions. In lines, without markup.
    Text,
}

impl TrackCodec {
    /// Whether it is a video codec.
    pub const fn is_video(self) -> bool {
        matches!(self, Self::Vp8 | Self::Vp9 | Self::H264 | Self::Av1)
    }

    /// Whether it is text, whose samples are rare and do not follow each other without gaps.
    pub const fn is_text(self) -> bool {
        matches!(self, Self::Text)
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
            Self::Text => "caption",
        })
    }
}

/// One track of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackSpec {
    pub(super) name: String,
    pub(super) codec: TrackCodec,
    /// Of text, that of the video below it. Zero for audio.
    pub(super) size: Size,
    /// Zero for video and text.
    pub(super) channels: u8,
    /// Decoder delay in ticks: decoded at the start of the track but not played.
    pub(super) delay: u32,
    /// Codec configuration: an avcC or av1C record, an AudioSpecificConfig, an OpusHead, a WAVEFORMATEX.
    pub(super) private: Bytes,
}

impl TrackSpec {
    /// A video track that begins with `keyframe`, which contains the parameter sets (H.264) or sequence header (AV1).
    ///
    /// # Errors
    /// [`ContainerError::Malformed`] when these are missing or malformed, or the codec is an audio codec.
    pub fn video(codec: Codec, size: Size, keyframe: &Bytes) -> Result<Self, ContainerError> {
        let codec = TrackCodec::from(codec);
        let malformed = |reason| ContainerError::Malformed { codec, reason };
        let private = match codec {
            TrackCodec::H264 => avc::configuration(keyframe)
                .ok_or_else(|| malformed("the first keyframe has no parameter sets (SPS, PPS)"))?,
            TrackCodec::Av1 => {
                av1::configuration(keyframe).ok_or_else(|| malformed("the first keyframe has no sequence header"))?
            }
            TrackCodec::Vp8 | TrackCodec::Vp9 => Bytes::new(),
            _ => return Err(malformed("it is not a video codec")),
        };
        Ok(Self { name: String::new(), codec, size, channels: 0, delay: 0, private })
    }

    /// An Opus track at 48 kHz with `channels` 1 or 2 (RFC 7845 §5.1).
    pub fn opus(channels: u8) -> Self {
        let mut head = BytesMut::with_capacity(19);
        head.put_slice(b"OpusHead");
        head.put_u8(1);
        head.put_u8(channels);
        head.put_u16_le(OPUS_DELAY as u16);
        head.put_u32_le(AUDIO_RATE);
        head.put_i16_le(0);
        head.put_u8(0);
        Self::audio(TrackCodec::Opus, channels, OPUS_DELAY, head.freeze())
    }

    /// An AAC track at 48 kHz with its AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1). Sample times are presentation
    /// times: the encoder delay is already subtracted.
    pub fn aac(channels: u8, config: Bytes) -> Self {
        Self::audio(TrackCodec::Aac, channels, 0, config)
    }

    /// A G.711 track: mono, 8 kHz. Its sample times still use the 48 kHz clock of all audio tracks.
    pub fn g711(a_law: bool) -> Self {
        let mut format = BytesMut::with_capacity(18);
        // WAVEFORMATEX: tag, channels, samples per second, bytes per second, block align, bits per sample, extra size.
        format.put_u16_le(if a_law { 6 } else { 7 });
        format.put_u16_le(1);
        format.put_u32_le(8_000);
        format.put_u32_le(8_000);
        format.put_u16_le(1);
        format.put_u16_le(8);
        format.put_u16_le(0);
        Self::audio(if a_law { TrackCodec::Pcma } else { TrackCodec::Pcmu }, 1, 0, format.freeze())
    }

    /// A track of captions over video of this size.
    pub fn text(size: Size) -> Self {
        Self { size, ..Self::audio(TrackCodec::Text, 0, 0, Bytes::new()) }
    }

    const fn audio(codec: TrackCodec, channels: u8, delay: u32, private: Bytes) -> Self {
        Self { name: String::new(), codec, size: Size::new(0, 0), channels, delay, private }
    }

    /// The track with a name that players show.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    /// The track's codec.
    pub const fn codec(&self) -> TrackCodec {
        self.codec
    }

    /// Clock rate of sample times in Hz: 90,000 for video, 48,000 for audio and text.
    pub const fn clock(&self) -> u32 {
        if self.codec.is_video() { VIDEO_CLOCK } else { AUDIO_RATE }
    }

    /// The codec string of RFC 6381, for playlists and media types: `avc1.42e01f`, `mp4a.40.2`, `opus`.
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
            TrackCodec::Text => "tx3g".into(),
        }
    }

    /// Converts ticks of this track to [`UNITS`].
    pub(super) const fn units(&self, ticks: u64) -> u64 {
        ticks.saturating_mul(UNITS / self.clock() as u64)
    }

    /// The sample data as files store it.
    pub(super) fn stored(&self, data: Bytes) -> Result<Bytes, ContainerError> {
        let malformed = |reason| ContainerError::Malformed { codec: self.codec, reason };
        let data = match self.codec {
            TrackCodec::H264 => avc::length_prefixed(&data).ok_or_else(|| malformed("no NAL unit in it"))?,
            TrackCodec::Av1 => av1::without_temporal_delimiter(data),
            _ => data,
        };
        // MP4 stores sizes in 32 bits; no encoder here produces a sample near this limit.
        if data.is_empty() || data.len() > 1 << 28 {
            return Err(malformed("it is empty or longer than 256 MiB"));
        }
        Ok(data)
    }
}
