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
const SEI: u8 = 6;
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
}

impl AvcConfig {
    /// The parameter sets of an access unit; None without SPS and PPS.
    pub fn of(access_unit: &[u8]) -> Option<Self> {
        let sets = |kind| -> Vec<Bytes> {
            nal_units(access_unit).filter(|unit| unit[0] & 0x1f == kind).map(Bytes::copy_from_slice).collect()
        };
        let (sps, pps) = (sets(SPS), sets(PPS));
        Self { sps, pps }.complete()
    }

    /// Itself, if it has a usable SPS and a PPS.
    fn complete(self) -> Option<Self> {
        (self.sps.first().is_some_and(|sps| sps.len() >= 4) && !self.pps.is_empty()).then_some(self)
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

    /// Parses a record; also returns the size of a NAL unit's length field, 1 to 4 bytes. The parameter sets may be
    /// absent: they then precede the keyframes.
    fn parse(mut record: Bytes) -> Option<(Option<Self>, usize)> {
        let mut header_bytes = [0; 5];
        record.try_copy_to_slice(&mut header_bytes).ok()?;
        if header_bytes[0] != 1 {
            return None;
        }
        let sets = |record: &mut Bytes, mask: u8| -> Option<Vec<Bytes>> {
            let count = record.try_get_u8().ok()? & mask;
            (0..count).map(|_| split_prefixed(record, 2)).collect()
        };
        let mut config = Self { sps: sets(&mut record, 0x1f)?, pps: sets(&mut record, 0xff)? };
        config.sps.retain(|set| !set.is_empty());
        config.pps.retain(|set| !set.is_empty());
        Some((config.complete(), usize::from(header_bytes[4] & 3) + 1))
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
    /// No frame: parameter sets, an end of sequence or a command frame.
    Other,
}

/// An H.264 frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoFrame {
    /// The access unit in Annex B; keyframes begin with the parameter sets.
    pub access_unit: Bytes,
    /// Decoding can begin with it: it contains an IDR picture or a recovery point.
    pub keyframe: bool,
    /// Presentation time minus timestamp of the message, in milliseconds.
    pub composition_ms: i32,
    /// NAL units that were removed: reserved or unspecified types, and damaged headers.
    pub removed_units: usize,
}

/// Parser of the video messages of one stream.
#[derive(Debug)]
pub struct VideoReader {
    /// The parameter sets of the last sequence header, or of a later message.
    config: Option<AvcConfig>,
    /// Size of a NAL unit's length field, 1 to 4 bytes.
    length_size: usize,
}

impl Default for VideoReader {
    fn default() -> Self {
        Self { config: None, length_size: 4 }
    }
}

impl VideoReader {
    /// Parses one message.
    ///
    /// # Errors
    /// The message is malformed, or not H.264. The next one may be read.
    pub fn read(&mut self, mut message: Bytes) -> Result<VideoTag, FlvError> {
        let first = message.try_get_u8().map_err(|_| FlvError::Empty("video"))?;
        // The high bit marks a codec of enhanced RTMP.
        if first & 0x80 != 0 || first & 0x0f != 7 {
            return Err(FlvError::VideoCodec);
        }
        // Frame type 5: a command frame for players.
        if first >> 4 == 5 {
            return Ok(VideoTag::Other);
        }
        let kind = message.try_get_u8().map_err(|_| FlvError::Empty("video"))?;
        if kind > 1 {
            return Ok(VideoTag::Other);
        }
        let composition_ms = message.try_get_int(3).map_err(|_| FlvError::Malformed("video"))? as i32;
        if message.is_empty() {
            return Err(FlvError::Empty("video"));
        }
        if kind == 0 {
            let (config, length_size) = AvcConfig::parse(message).ok_or(FlvError::Malformed("video"))?;
            (self.config, self.length_size) = (config.or_else(|| self.config.take()), length_size);
            return Ok(VideoTag::Config);
        }
        self.frame(&message, composition_ms)
    }

    /// Converts a frame to Annex B. Some encoders mark every I-frame as a keyframe, so the mark is not used.
    fn frame(&mut self, message: &Bytes, composition_ms: i32) -> Result<VideoTag, FlvError> {
        let mut units = self.units(message).ok_or(FlvError::Malformed("video"))?;
        let all = units.len();
        // The types that H.264 defines (table 7-1); the high bit is always zero.
        units.retain(|unit| unit[0] < 0x80 && matches!(unit[0] & 0x1f, 1..=23));
        let removed_units = all - units.len();
        let of = |kind: u8| units.iter().filter(move |unit| unit[0] & 0x1f == kind);
        let sps = of(SPS).filter(|unit| unit.len() >= 4).cloned().collect();
        let sets = AvcConfig { sps, pps: of(PPS).cloned().collect() };
        self.update(sets);
        let keyframe = of(IDR).next().is_some() || of(SEI).any(is_recovery_point);
        if !units.iter().any(|unit| matches!(unit[0] & 0x1f, 1..=5)) {
            return if units.is_empty() { Err(FlvError::Malformed("video")) } else { Ok(VideoTag::Other) };
        }
        let complete = |config: &&AvcConfig| !config.sps.is_empty() && !config.pps.is_empty();
        let config = self.config.as_ref().filter(complete).ok_or(FlvError::NoConfig("video"))?;
        let mut access_unit = BytesMut::with_capacity(message.len() + 256);
        let sets = config.sps.iter().chain(&config.pps).filter(|_| keyframe);
        let stored = units.iter().filter(|unit| !matches!(unit[0] & 0x1f, SPS | PPS | ACCESS_UNIT_DELIMITER));
        for unit in sets.chain(stored) {
            access_unit.put_slice(&[0, 0, 0, 1]);
            access_unit.put_slice(unit);
        }
        let access_unit = access_unit.freeze();
        Ok(VideoTag::Frame(VideoFrame { access_unit, keyframe, composition_ms, removed_units }))
    }

    /// The NAL units of a frame, without empty ones; also of a frame in Annex B, which some encoders send.
    fn units(&self, message: &Bytes) -> Option<Vec<Bytes>> {
        let (mut rest, mut units) = (message.clone(), Vec::new());
        while !rest.is_empty() {
            match split_prefixed(&mut rest, self.length_size) {
                Some(unit) => units.push(unit),
                None if message.starts_with(&[0, 0, 1]) || message.starts_with(&[0, 0, 0, 1]) => {
                    return Some(nal_units(message).map(|unit| message.slice_ref(unit)).collect());
                }
                None => return None,
            }
        }
        units.retain(|unit| !unit.is_empty());
        Some(units)
    }

    /// Takes parameter sets that were sent in a frame, in one message or in two.
    fn update(&mut self, sets: AvcConfig) {
        let AvcConfig { sps, pps } = sets;
        let known = self.config.take().unwrap_or(AvcConfig { sps: Vec::new(), pps: Vec::new() });
        let config = AvcConfig {
            sps: if sps.is_empty() { known.sps } else { sps },
            pps: if pps.is_empty() { known.pps } else { pps },
        };
        self.config = (!config.sps.is_empty() || !config.pps.is_empty()).then_some(config);
    }
}

/// Whether a SEI unit has a recovery point message (ITU-T H.264 section D.1.8): payload type 6.
fn is_recovery_point(unit: &Bytes) -> bool {
    let mut rest = &unit[1..];
    while let [kind, length, after @ ..] = rest {
        if *kind == 6 {
            return true;
        }
        // Longer types and lengths belong to messages that come after the ones that encoders send first.
        let Some(next) = after.get(usize::from(*length)..).filter(|_| *kind != 255 && *length != 255) else {
            return false;
        };
        rest = next;
    }
    false
}

/// A parsed audio message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AudioTag {
    /// A sequence header: the AudioSpecificConfig (ISO/IEC 14496-3 section 1.6.2.1).
    Config(Bytes),
    /// A raw AAC frame.
    Frame(Bytes),
    /// Raw AAC frames that had an ADTS header each, and their AudioSpecificConfig.
    Adts {
        /// The configuration that the headers say.
        config: Bytes,
        /// The frames.
        frames: Vec<Bytes>,
    },
}

/// Parses an audio message.
///
/// # Errors
/// The message is malformed, or not AAC. The next one may be read.
pub fn read_audio(mut message: Bytes) -> Result<AudioTag, FlvError> {
    let first = message.try_get_u8().map_err(|_| FlvError::Empty("audio"))?;
    if first >> 4 != 10 {
        return Err(FlvError::AudioCodec);
    }
    let kind = message.try_get_u8().map_err(|_| FlvError::Empty("audio"))?;
    if message.is_empty() {
        return Err(FlvError::Empty("audio"));
    }
    match kind {
        0 if sample_rate(&message).is_some() => Ok(AudioTag::Config(message)),
        // No raw frame begins like an ADTS header: its first element would be `ID_END`.
        1 => Ok(split_adts(&message).unwrap_or(AudioTag::Frame(message))),
        _ => Err(FlvError::Malformed("audio")),
    }
}

/// Sample rates by index (ISO/IEC 14496-3 table 1.18).
const SAMPLE_RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

/// The sample rate in Hz of an AudioSpecificConfig; None if it is malformed or no kind of AAC.
pub fn sample_rate(config: &[u8]) -> Option<u32> {
    let [a, b, ..] = *config else { return None };
    // AAC Main, LC, SSR, LTP; SBR and PS in front of one of these.
    if !matches!(a >> 3, 1..=5 | 29) {
        return None;
    }
    match usize::from((a & 7) << 1 | b >> 7) {
        15 => {
            let bits = config.get(1..5).map(|bytes| bytes.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)));
            bits.map(|bits| bits >> 7 & 0xff_ffff).filter(|rate| (1_000..=192_000).contains(rate))
        }
        index => SAMPLE_RATES.get(index).copied(),
    }
}

/// Splits a message of ADTS frames (ISO/IEC 14496-3 section 1.A.2); None unless it is made of these only.
fn split_adts(message: &Bytes) -> Option<AudioTag> {
    let (mut rest, mut frames, mut config) = (message.clone(), Vec::new(), None);
    while !rest.is_empty() {
        let [a, b, c, d, e, f, g] = *rest.first_chunk()?;
        if a != 0xff || b & 0xf6 != 0xf0 || g & 3 != 0 {
            return None;
        }
        let (kind, rate, channels) = ((c >> 6) + 1, c >> 2 & 0xf, (c & 1) << 2 | d >> 6);
        let length = usize::from(d & 3) << 11 | usize::from(e) << 3 | usize::from(f) >> 5;
        let header = if b & 1 == 0 { 9 } else { 7 };
        if length < header || length > rest.len() || usize::from(rate) >= SAMPLE_RATES.len() {
            return None;
        }
        config.get_or_insert([kind << 3 | rate >> 1, (rate & 1) << 7 | channels << 3]);
        let frame = rest.split_to(length).slice(header..);
        frames.extend((!frame.is_empty()).then_some(frame));
    }
    Some(AudioTag::Adts { config: Bytes::copy_from_slice(&config?), frames })
}

/// Why a message cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FlvError {
    /// A message of this media type without contents.
    #[error("empty RTMP {0} message")]
    Empty(&'static str),
    /// A malformed message of this media type.
    #[error("malformed RTMP {0} message")]
    Malformed(&'static str),
    /// A frame of this media type before the first sequence header.
    #[error("RTMP {0} without its configuration: the encoder must send the sequence header first")]
    NoConfig(&'static str),
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
        assert_eq!(reader.read(frame.clone()), Err(FlvError::NoConfig("video")));
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
        assert_eq!(read_audio(Bytes::new()), Err(FlvError::Empty("audio")));
        let mut reader = VideoReader::default();
        assert_eq!(reader.read(Bytes::from_static(&[0x12, 1])), Err(FlvError::VideoCodec));
        assert_eq!(reader.read(Bytes::from_static(b"\x90hvc1")), Err(FlvError::VideoCodec));
        assert_eq!(reader.read(Bytes::from_static(&[0x17, 2, 0, 0, 0])), Ok(VideoTag::Other));
        assert_eq!(reader.read(Bytes::from_static(&[0x57, 0])), Ok(VideoTag::Other));
    }

    /// A reader with the parameter sets of [`key_unit`].
    fn reader() -> VideoReader {
        let mut reader = VideoReader::default();
        reader.read(video_config(&AvcConfig::of(&key_unit()).expect("has sets"))).expect("whole");
        reader
    }

    fn frame_of(reader: &mut VideoReader, message: &[u8]) -> VideoFrame {
        match reader.read(Bytes::copy_from_slice(message)) {
            Ok(VideoTag::Frame(frame)) => frame,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bad_messages_are_errors_and_the_next_frame_is_read() {
        let mut reader = reader();
        let inter = [0x27, 1, 0, 0, 0, 0, 0, 0, 2, 0x41, 8];
        for (bad, error) in [
            (&[][..], FlvError::Empty("video")),
            (&[0x27], FlvError::Empty("video")),
            (&[0x27, 1, 0, 0], FlvError::Malformed("video")),
            (&[0x27, 1, 0, 0, 0], FlvError::Empty("video")),
            (&[0x17, 0, 0, 0, 0], FlvError::Empty("video")),
            (&[0x17, 0, 0, 0, 0, 1, 0x42], FlvError::Malformed("video")),
            (&[0x27, 1, 0, 0, 0, 0, 0, 0, 9, 0x41, 8], FlvError::Malformed("video")),
            (&[0x27, 1, 0, 0, 0, 0, 0, 0, 0], FlvError::Malformed("video")),
            (&[0x24, 1, 0, 0, 0], FlvError::VideoCodec),
        ] {
            assert_eq!(reader.read(Bytes::copy_from_slice(bad)), Err(error), "{bad:?}");
            assert_eq!(frame_of(&mut reader, &inter).access_unit[4..], [0x41, 8]);
        }
        assert_eq!(reader.read(Bytes::from_static(&[0x17, 2])), Ok(VideoTag::Other), "an end of sequence");
    }

    #[test]
    fn reserved_and_damaged_nal_units_are_removed_and_counted() {
        let message =
            [0x27, 1, 0, 0, 0, 0, 0, 0, 2, 0x40, 1, 0, 0, 0, 2, 0x5e, 2, 0, 0, 0, 2, 0xc1, 3, 0, 0, 0, 2, 0x41, 8];
        let frame = frame_of(&mut reader(), &message);
        assert_eq!((&frame.access_unit[..], frame.removed_units), (&[0, 0, 0, 1, 0x41, 8][..], 3));
    }

    #[test]
    fn parameter_sets_are_taken_from_frames_too() {
        let sps = [0x67, 0x42, 0xc0, 0x1e, 1];
        let message = |units: &[&[u8]]| {
            let prefixed = units.iter().flat_map(|unit| [&(unit.len() as u32).to_be_bytes()[..], unit].concat());
            [0x17, 1, 0, 0, 0].into_iter().chain(prefixed).collect::<Vec<u8>>()
        };
        let sets = [&[0, 0, 0, 1][..], &sps, &[0, 0, 0, 1, 0x68, 7], &[0, 0, 0, 1, 0x65, 5]].concat();
        // In one frame, in messages of their own, and after a sequence header without any.
        let mut reader = VideoReader::default();
        assert_eq!(frame_of(&mut reader, &message(&[&sps, &[0x68, 7], &[0x65, 5]])).access_unit, sets);
        let mut reader = VideoReader::default();
        assert_eq!(reader.read(message(&[&sps]).into()), Ok(VideoTag::Other));
        assert_eq!(reader.read(message(&[&[0x68, 7]]).into()), Ok(VideoTag::Other));
        assert_eq!(frame_of(&mut reader, &message(&[&[0x65, 5]])).access_unit, sets);
        let mut reader = VideoReader::default();
        let empty = [0x17, 0, 0, 0, 0, 1, 0x42, 0, 0x1e, 0xff, 0xe0, 0];
        assert_eq!(reader.read(Bytes::copy_from_slice(&empty)), Ok(VideoTag::Config));
        assert_eq!(reader.read(message(&[&[0x65, 5]]).into()), Err(FlvError::NoConfig("video")));
        assert_eq!(frame_of(&mut reader, &message(&[&sps, &[0x68, 7], &[0x65, 5]])).access_unit, sets);
    }

    #[test]
    fn frames_in_annex_b_and_recovery_points_are_read() {
        let annex_b = [&[0x17, 1, 0, 0, 0][..], &key_unit()].concat();
        let frame = frame_of(&mut VideoReader::default(), &annex_b);
        assert_eq!(&frame.access_unit[..], [&SETS[..18], &[0, 0, 0, 1, 0x65, 5, 6, 7]].concat());
        // A recovery point after another SEI message, with a picture that is not IDR.
        let message = [0x27, 1, 0, 0, 0, 0, 0, 0, 8, 6, 5, 1, 9, 6, 1, 0xc4, 0x80, 0, 0, 0, 2, 0x41, 8];
        let frame = frame_of(&mut reader(), &message);
        assert!(frame.keyframe && frame.access_unit.starts_with(&SETS[..18]));
        let other = [0x27, 1, 0, 0, 0, 0, 0, 0, 4, 6, 5, 1, 6, 0, 0, 0, 2, 0x41, 8];
        assert!(!frame_of(&mut reader(), &other).keyframe);
    }

    /// An ADTS frame: AAC LC, 44.1 kHz, stereo.
    fn adts(payload: &[u8], checksum: bool) -> Vec<u8> {
        let header = if checksum { 9 } else { 7 };
        let length = payload.len() + header;
        let mut frame =
            vec![0xff, 0xf0 | u8::from(!checksum), 0x50, 0x80, (length >> 3) as u8, (length << 5) as u8 | 0x1f, 0xfc];
        frame.resize(header, 0);
        frame.extend(payload);
        frame
    }

    #[test]
    fn adts_headers_are_removed_and_give_the_configuration() {
        let config = Bytes::from_static(&[0x12, 0x10]);
        assert_eq!(sample_rate(&config), Some(44_100));
        for (message, frames) in [
            (adts(&[1, 2, 3], false), vec![&[1, 2, 3][..]]),
            (adts(&[1, 2, 3], true), vec![&[1, 2, 3]]),
            ([adts(&[1], false), adts(&[2, 3], true)].concat(), vec![&[1], &[2, 3]]),
            (adts(&[], false), vec![]),
        ] {
            let frames = frames.into_iter().map(Bytes::copy_from_slice).collect();
            assert_eq!(read_audio(audio_frame(&message)), Ok(AudioTag::Adts { config: config.clone(), frames }));
        }
        // A length that does not fit: a raw frame.
        let short = &adts(&[1, 2, 3], false)[..9];
        assert_eq!(read_audio(audio_frame(short)), Ok(AudioTag::Frame(Bytes::copy_from_slice(short))));
    }

    #[test]
    fn bad_audio_messages_are_errors() {
        for (bad, error) in [
            (&[0xaf][..], FlvError::Empty("audio")),
            (&[0xaf, 0], FlvError::Empty("audio")),
            (&[0xaf, 1], FlvError::Empty("audio")),
            (&[0xaf, 0, 0x12], FlvError::Malformed("audio")),
            (&[0xaf, 0, 0, 0], FlvError::Malformed("audio")),
            (&[0xaf, 0, 0x16, 0x90], FlvError::Malformed("audio")),
            (&[0xaf, 7, 1], FlvError::Malformed("audio")),
            (&[0x9f, 1], FlvError::AudioCodec),
        ] {
            assert_eq!(read_audio(Bytes::copy_from_slice(bad)), Err(error), "{bad:?}");
        }
        assert_eq!(sample_rate(&[0x17, 0x80, 0x5d, 0xc0, 0x08]), Some(48_000), "a rate that is written out");
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
