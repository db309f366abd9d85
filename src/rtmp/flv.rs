//! FLV tags (Adobe's FLV specification 10.1, annex E) of H.264 and AAC: the payload of RTMP audio and video messages.
//!
//! Owns: tag layout, the AVCDecoderConfigurationRecord (ISO/IEC 14496-15 section 5.3.3.1), and conversion between Annex
//! B, which this crate uses, and length-prefixed NAL units. Does not know: connections. In and out: messages; parsing
//! untrusted ones returns errors and never panics.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::container::avc::nal_units;

/// First byte of a tag: AVC keyframe.
const KEYFRAME_AVC: u8 = 0x17;
/// First byte of a tag: AVC inter frame.
const INTER_AVC: u8 = 0x27;
/// First byte of a tag: AAC. Its other fields (44 kHz, 16 bits, stereo) are fixed by the specification.
const AAC: u8 = 0xaf;
/// Largest composition time offset in milliseconds: 24 bits, signed.
const COMPOSITION_MAX: i32 = 0x7f_ffff;

const IDR: u8 = 5;
const SPS: u8 = 7;
const PPS: u8 = 8;
const ACCESS_UNIT_DELIMITER: u8 = 9;

/// The parameter sets of an H.264 stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AvcConfig {
    /// Sequence parameter sets, without start codes; the first has at least 4 bytes.
    pub sps: Vec<Bytes>,
    /// Picture parameter sets.
    pub pps: Vec<Bytes>,
    /// Size of a NAL unit's length field, 1 to 4 bytes.
    length_size: usize,
}

impl AvcConfig {
    /// The parameter sets of an access unit; None without SPS and PPS.
    pub fn of(access_unit: &[u8]) -> Option<Self> {
        let sets = |kind| -> Vec<Bytes> {
            nal_units(access_unit).filter(|unit| unit[0] & 0x1f == kind).map(Bytes::copy_from_slice).collect()
        };
        let (sps, pps) = (sets(SPS), sets(PPS));
        (sps.first().is_some_and(|sps| sps.len() >= 4) && !pps.is_empty()).then_some(Self { sps, pps, length_size: 4 })
    }

    fn record(&self) -> Bytes {
        let mut record = BytesMut::new();
        record.put_slice(&[1, self.sps[0][1], self.sps[0][2], self.sps[0][3], 0xff]);
        let mut put = |count: u8, sets: &[Bytes]| {
            record.put_u8(count | sets.len() as u8);
            for set in sets {
                record.put_u16(set.len() as u16);
                record.put_slice(set);
            }
        };
        put(0xe0, &self.sps[..self.sps.len().min(31)]);
        put(0, &self.pps[..self.pps.len().min(255)]);
        record.freeze()
    }

    fn parse(mut record: Bytes) -> Option<Self> {
        let mut header_bytes = [0; 5];
        record.try_copy_to_slice(&mut header_bytes).ok()?;
        if header_bytes[0] != 1 {
            return None;
        }
        let sets = |record: &mut Bytes, mask: u8| -> Option<Vec<Bytes>> {
            let count = record.try_get_u8().ok()? & mask;
            (0..count).map(|_| split_prefixed(record, 2).filter(|set| !set.is_empty())).collect()
        };
        let sps = sets(&mut record, 0x1f)?;
        let pps = sets(&mut record, 0xff)?;
        let valid = sps.first().is_some_and(|sps| sps.len() >= 4) && !pps.is_empty();
        valid.then_some(Self { sps, pps, length_size: usize::from(header_bytes[4] & 3) + 1 })
    }
}

/// Splits off an item that is prefixed with its length in `length_size` bytes.
fn split_prefixed(bytes: &mut Bytes, length_size: usize) -> Option<Bytes> {
    let length = bytes.try_get_uint(length_size).ok()? as usize;
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

/// The AVC sequence header: sent before the first frame, and again when the parameter sets change.
pub fn video_config(config: &AvcConfig) -> Bytes {
    let record = config.record();
    tag(&[KEYFRAME_AVC, 0, 0, 0, 0], record.len(), |tag| tag.put_slice(&record))
}

/// The tag of an access unit in Annex B, presented `composition_ms` after its timestamp. Parameter sets are omitted,
/// because [`video_config`] contains them.
pub fn video_frame(access_unit: &[u8], keyframe: bool, composition_ms: i32) -> Bytes {
    let composition = composition_ms.clamp(-COMPOSITION_MAX - 1, COMPOSITION_MAX).to_be_bytes();
    let header_bytes =
        [if keyframe { KEYFRAME_AVC } else { INTER_AVC }, 1, composition[1], composition[2], composition[3]];
    tag(&header_bytes, access_unit.len() + 64, |tag| {
        for unit in nal_units(access_unit).filter(|unit| !matches!(unit[0] & 0x1f, SPS | PPS | ACCESS_UNIT_DELIMITER)) {
            tag.put_u32(unit.len() as u32);
            tag.put_slice(unit);
        }
    })
}

/// The AAC sequence header: sent before the first audio frame.
pub fn audio_config(audio_specific_config: &[u8]) -> Bytes {
    tag(&[AAC, 0], audio_specific_config.len(), |tag| tag.put_slice(audio_specific_config))
}

/// The tag of a raw AAC frame.
pub fn audio_frame(frame: &[u8]) -> Bytes {
    tag(&[AAC, 1], frame.len(), |tag| tag.put_slice(frame))
}

fn tag(header_bytes: &[u8], capacity: usize, write: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut tag = BytesMut::with_capacity(header_bytes.len() + capacity);
    tag.put_slice(header_bytes);
    write(&mut tag);
    tag.freeze()
}

/// A parsed video message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VideoTag {
    /// A sequence header with parameter sets.
    Config,
    /// A frame.
    Frame(VideoFrame),
    /// No frame: an end of sequence or a command frame.
    Other,
}

/// An H.264 frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoFrame {
    /// The access unit in Annex B; keyframes begin with the parameter sets.
    pub access_unit: Bytes,
    /// It contains an IDR picture.
    pub keyframe: bool,
    /// Presentation time minus timestamp of the message, in milliseconds.
    pub composition_ms: i32,
}

/// Parser of the video messages of one stream.
#[derive(Debug, Default)]
pub struct VideoReader {
    config: Option<AvcConfig>,
}

impl VideoReader {
    /// Parses one message.
    ///
    /// # Errors
    /// The message is malformed, or not H.264.
    pub fn read(&mut self, mut message: Bytes) -> Result<VideoTag, FlvError> {
        let first = message.try_get_u8().map_err(|_| FlvError::Malformed("video"))?;
        // The high bit marks a codec of enhanced RTMP.
        if first & 0x80 != 0 || first & 0x0f != 7 {
            return Err(FlvError::VideoCodec);
        }
        // Frame type 5: a command frame for players.
        if first >> 4 == 5 {
            return Ok(VideoTag::Other);
        }
        let kind = message.try_get_u8().map_err(|_| FlvError::Malformed("video"))?;
        let composition = message.try_get_int(3).map_err(|_| FlvError::Malformed("video"))? as i32;
        match kind {
            0 => {
                self.config = Some(AvcConfig::parse(message).ok_or(FlvError::Malformed("video"))?);
                Ok(VideoTag::Config)
            }
            1 => {
                let config = self.config.as_ref().ok_or(FlvError::NoConfig)?;
                frame(config, message, composition).map(VideoTag::Frame).ok_or(FlvError::Malformed("video"))
            }
            _ => Ok(VideoTag::Other),
        }
    }
}

/// Converts a frame to Annex B. It is a keyframe if it has an IDR unit: some encoders mark every I-frame as a keyframe.
fn frame(config: &AvcConfig, mut message: Bytes, composition_ms: i32) -> Option<VideoFrame> {
    let mut units = Vec::new();
    let length = message.len();
    while !message.is_empty() {
        units.push(split_prefixed(&mut message, config.length_size)?);
    }
    units.retain(|unit| !unit.is_empty());
    let keyframe = units.iter().any(|unit| unit[0] & 0x1f == IDR);
    let mut access_unit = BytesMut::with_capacity(length + 256);
    let sets = config.sps.iter().chain(&config.pps).filter(|_| keyframe);
    let stored = units.iter().filter(|unit| !matches!(unit[0] & 0x1f, SPS | PPS | ACCESS_UNIT_DELIMITER));
    for unit in sets.chain(stored) {
        access_unit.put_slice(&[0, 0, 0, 1]);
        access_unit.put_slice(unit);
    }
    (!access_unit.is_empty()).then(|| VideoFrame { access_unit: access_unit.freeze(), keyframe, composition_ms })
}

/// A parsed audio message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AudioTag {
    /// A sequence header: the AudioSpecificConfig (ISO/IEC 14496-3 section 1.6.2.1).
    Config(Bytes),
    /// A raw AAC frame.
    Frame(Bytes),
}

/// Parses an audio message.
///
/// # Errors
/// The message is malformed, or not AAC.
pub fn read_audio(mut message: Bytes) -> Result<AudioTag, FlvError> {
    let first = message.try_get_u8().map_err(|_| FlvError::Malformed("audio"))?;
    if first >> 4 != 10 {
        return Err(FlvError::AudioCodec);
    }
    match message.try_get_u8().map_err(|_| FlvError::Malformed("audio"))? {
        0 if message.len() >= 2 => Ok(AudioTag::Config(message)),
        1 if !message.is_empty() => Ok(AudioTag::Frame(message)),
        _ => Err(FlvError::Malformed("audio")),
    }
}

/// Why a message cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FlvError {
    /// A malformed message of this media type.
    #[error("malformed RTMP {0} message")]
    Malformed(&'static str),
    /// A frame before the first sequence header.
    #[error("RTMP video without parameter sets: the encoder must send the AVC sequence header first")]
    NoConfig,
    /// A video codec other than H.264.
    #[error("video over RTMP must be H.264: change the encoder's setting")]
    VideoCodec,
    /// An audio codec other than AAC.
    #[error("audio over RTMP must be AAC: change the encoder's setting")]
    AudioCodec,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETS: [u8; 19] = [0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x1e, 1, 2, 0, 0, 0, 1, 0x68, 0xce, 0x3c, 0x80, 0];

    fn key_unit() -> Vec<u8> {
        [&[0, 0, 0, 1, 9, 0x10], &SETS[..18], &[0, 0, 1, 0x65, 5, 6, 7]].concat()
    }

    #[test]
    fn h264_is_read_as_it_was_written() {
        let config = AvcConfig::of(&key_unit()).expect("has sets");
        assert_eq!((config.sps.len(), config.pps.len()), (1, 1));
        let mut reader = VideoReader::default();
        let inter = [0, 0, 0, 1, 0x41, 8, 9, 0, 0, 1, 0x41, 10];
        let frame = video_frame(&inter, false, -3);
        assert_eq!(&frame[..], [0x27, 1, 0xff, 0xff, 0xfd, 0, 0, 0, 3, 0x41, 8, 9, 0, 0, 0, 2, 0x41, 10]);
        assert_eq!(reader.read(frame.clone()), Err(FlvError::NoConfig));
        let header = video_config(&config);
        assert_eq!(&header[..11], [0x17, 0, 0, 0, 0, 1, 0x42, 0xc0, 0x1e, 0xff, 0xe1]);
        assert_eq!(reader.read(header), Ok(VideoTag::Config));
        let read = |reader: &mut VideoReader, tag| match reader.read(tag) {
            Ok(VideoTag::Frame(frame)) => frame,
            other => panic!("{other:?}"),
        };
        let key = read(&mut reader, video_frame(&key_unit(), true, 40));
        assert_eq!((key.keyframe, key.composition_ms), (true, 40));
        assert_eq!(&key.access_unit[..], [&SETS[..18], &[0, 0, 0, 1, 0x65, 5, 6, 7]].concat());
        let inter = read(&mut reader, frame);
        assert_eq!((inter.keyframe, inter.composition_ms), (false, -3));
        assert_eq!(&inter.access_unit[..], [0, 0, 0, 1, 0x41, 8, 9, 0, 0, 0, 1, 0x41, 10]);
        assert_eq!(AvcConfig::of(&inter.access_unit), None);
    }

    #[test]
    fn aac_is_read_as_it_was_written_and_other_codecs_are_refused() {
        let config = audio_config(&[0x11, 0x88]);
        assert_eq!(read_audio(config), Ok(AudioTag::Config(Bytes::from_static(&[0x11, 0x88]))));
        assert_eq!(read_audio(audio_frame(&[1, 2])), Ok(AudioTag::Frame(Bytes::from_static(&[1, 2]))));
        assert_eq!(read_audio(Bytes::from_static(&[0x2f, 1])), Err(FlvError::AudioCodec));
        assert_eq!(read_audio(Bytes::new()), Err(FlvError::Malformed("audio")));
        let mut reader = VideoReader::default();
        assert_eq!(reader.read(Bytes::from_static(&[0x12, 1])), Err(FlvError::VideoCodec));
        assert_eq!(reader.read(Bytes::from_static(b"\x90hvc1")), Err(FlvError::VideoCodec));
        assert_eq!(reader.read(Bytes::from_static(&[0x17, 2, 0, 0, 0])), Ok(VideoTag::Other));
        assert_eq!(reader.read(Bytes::from_static(&[0x57, 0])), Ok(VideoTag::Other));
    }

    proptest! {
        #[test]
        fn arbitrary_messages_do_not_panic(
            first in any::<u8>(),
            kind in 0u8..3,
            rest in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let message = |body: &[u8]| Bytes::from([&[first, kind], body].concat());
            let mut reader = VideoReader::default();
            let _ = reader.read(Bytes::from([&[0x17, 0, 0, 0, 0, 1], &rest[..]].concat()));
            let _ = reader.read(message(&rest));
            let _ = reader.read(Bytes::from([&[0x17, 1, 0, 0, 0], &rest[..]].concat()));
            let _ = read_audio(message(&rest));
        }

        #[test]
        fn nal_units_are_kept_in_order(units in prop::collection::vec(prop::collection::vec(1u8..=255, 1..50), 1..6)) {
            let mut access_unit = Vec::new();
            for unit in &units {
                access_unit.extend([0, 0, 0, 1, 0x41]);
                access_unit.extend(unit);
            }
            let mut reader = VideoReader::default();
            reader.read(video_config(&AvcConfig::of(&key_unit()).expect("has sets"))).expect("whole");
            let Ok(VideoTag::Frame(frame)) = reader.read(video_frame(&access_unit, false, 0)) else {
                return Err(TestCaseError::fail("no frame"));
            };
            prop_assert_eq!(&frame.access_unit[..], &access_unit[..]);
        }
    }
}
