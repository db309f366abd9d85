//! Audio codecs: decoders for Opus and G.711, an encoder for Opus. Samples are mono `f32` at 48 kHz.
//!
//! Owns: decoding, concealment of lost packets, encoding. Does not know: which packet is due (the jitter buffer),
//! listeners (the mix). In and out: payloads and samples. One decoder per source, one encoder per mix; each belongs to
//! one thread. This module is the only importer of `opus`.

use bytes::Bytes;

use crate::audio::{Upsampler, decode_alaw, decode_ulaw, fade_in};
use crate::media::{AUDIO_RATE, AUDIO_TICK_SAMPLES, AudioEffort, Codec};

/// Longest Opus packet in samples: 120 ms (RFC 6716 section 2.1.4).
const PACKET_MAX: usize = AUDIO_RATE as usize * 120 / 1000;

/// Shortest Opus frame in samples: 2.5 ms. Concealment is a multiple of it.
const STEP: usize = AUDIO_RATE as usize / 400;

/// Largest encoded frame in bytes: 20 ms at 510 kbit/s, the limit of RFC 6716.
const FRAME_MAX: usize = 1275;

/// Largest joined packet in bytes: it must fit into a datagram with its headers.
const JOINED_MAX: usize = 1200;

/// Why a payload was not decoded.
#[derive(Debug, thiserror::Error)]
pub enum SoundError {
    /// Not an audio codec.
    #[error("{0} is not an audio codec: send opus, PCMU or PCMA")]
    NotSound(Codec),
    /// The payload is empty.
    #[error("empty payload")]
    Empty,
    /// More than 120 ms in one packet.
    #[error("packet of {0} bytes contains more than 120 ms")]
    TooLong(usize),
    /// A malformed Opus packet.
    #[error("malformed opus packet: {0}")]
    Opus(#[from] opus::Error),
}

/// Decodes the payloads of one source.
#[derive(Debug)]
pub enum SoundDecoder {
    /// Opus, RFC 6716.
    Opus(OpusDecoder),
    /// G.711, 8 kHz.
    G711(Box<G711Decoder>),
}

impl SoundDecoder {
    /// A decoder for the codec.
    ///
    /// # Errors
    /// [`SoundError::NotSound`] for a video codec.
    pub fn new(codec: Codec) -> Result<Self, SoundError> {
        match codec {
            Codec::Opus => Ok(Self::Opus(OpusDecoder::new()?)),
            Codec::Pcmu => Ok(Self::G711(Box::new(G711Decoder::new(decode_ulaw)))),
            Codec::Pcma => Ok(Self::G711(Box::new(G711Decoder::new(decode_alaw)))),
            other => Err(SoundError::NotSound(other)),
        }
    }

    /// Decodes one payload.
    ///
    /// # Errors
    /// The payload is malformed; the decoder continues with the next one.
    pub fn decode(&mut self, payload: &[u8]) -> Result<&[f32], SoundError> {
        match self {
            Self::Opus(decoder) => decoder.decode(payload),
            Self::G711(decoder) => decoder.decode(payload),
        }
    }

    /// Conceals `samples` samples of a lost packet: at most 120 ms, in steps of 2.5 ms. `next` is the payload after the
    /// lost one, if it is there: it may contain in-band FEC for the lost packet.
    pub fn conceal(&mut self, samples: usize, next: Option<&[u8]>) -> &[f32] {
        let samples = (samples.min(PACKET_MAX) / STEP).max(1) * STEP;
        match self {
            Self::Opus(decoder) => decoder.conceal(samples, next.unwrap_or_default()),
            Self::G711(decoder) => decoder.conceal(samples),
        }
    }
}

/// An Opus decoder.
#[derive(Debug)]
pub struct OpusDecoder {
    decoder: opus::Decoder,
    samples: Vec<f32>,
}

impl OpusDecoder {
    fn new() -> Result<Self, SoundError> {
        // One channel for stereo packets too: libopus mixes them down.
        let decoder = opus::Decoder::new(AUDIO_RATE, opus::Channels::Mono)?;
        Ok(Self { decoder, samples: vec![0.0; PACKET_MAX] })
    }

    fn decode(&mut self, payload: &[u8]) -> Result<&[f32], SoundError> {
        if payload.is_empty() {
            return Err(SoundError::Empty);
        }
        let count = self.decoder.decode_float(payload, &mut self.samples, false)?;
        Ok(&self.samples[..count])
    }

    fn conceal(&mut self, samples: usize, next: &[u8]) -> &[f32] {
        // With `fec` libopus conceals if `next` contains no FEC data.
        let out = &mut self.samples[..samples];
        let fec = !next.is_empty();
        if self.decoder.decode_float(next, out, fec).is_err() && self.decoder.decode_float(&[], out, false).is_err() {
            out.fill(0.0);
        }
        out
    }
}

/// A G.711 decoder that conceals with a fading echo.
#[derive(Debug)]
pub struct G711Decoder {
    expand: fn(&[u8], &mut Vec<f32>),
    upsampler: Upsampler,
    narrow: Vec<f32>,
    samples: Vec<f32>,
    /// Samples concealed since the last packet.
    concealed: usize,
}

impl G711Decoder {
    /// Time in which the echo of a lost packet fades to silence.
    const FADE_OUT: usize = AUDIO_TICK_SAMPLES;
    /// Time in which the first packet after a loss fades in.
    const FADE_IN: usize = STEP;

    fn new(expand: fn(&[u8], &mut Vec<f32>)) -> Self {
        Self { expand, upsampler: Upsampler::default(), narrow: Vec::new(), samples: Vec::new(), concealed: 0 }
    }

    fn decode(&mut self, payload: &[u8]) -> Result<&[f32], SoundError> {
        if payload.is_empty() {
            return Err(SoundError::Empty);
        }
        if payload.len() > PACKET_MAX / 6 {
            return Err(SoundError::TooLong(payload.len()));
        }
        self.narrow.clear();
        (self.expand)(payload, &mut self.narrow);
        self.samples.clear();
        self.upsampler.process(&self.narrow, &mut self.samples);
        if std::mem::take(&mut self.concealed) > 0 {
            let edge = self.samples.len().min(Self::FADE_IN);
            fade_in(&mut self.samples[..edge]);
        }
        Ok(&self.samples)
    }

    /// The last samples in reverse, with a fade: no step at the begin, and no buzz of a repeated period.
    fn conceal(&mut self, samples: usize) -> &[f32] {
        let already = self.concealed;
        let echo = std::mem::take(&mut self.samples);
        let fading = |i: usize| 1.0 - (already + i) as f32 / Self::FADE_OUT as f32;
        self.samples.extend((0..samples).map(|i| {
            let source = echo.len().checked_sub(1 + i).map_or(0.0, |at| echo[at]);
            source * fading(i).max(0.0)
        }));
        self.concealed += samples;
        &self.samples
    }
}

/// The Opus application of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Purpose {
    /// `VOIP`: speech, intelligible at low bitrates.
    #[default]
    Voice,
    /// `AUDIO`: any signal.
    Music,
}

/// Parameters of an Opus encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpusSettings {
    /// The Opus application.
    pub purpose: Purpose,
    /// Target bitrate in bit/s, without RTP headers.
    pub bitrate: u32,
    /// Complexity, 0 (fast) to 10.
    pub complexity: u8,
    /// Expected packet loss in percent for in-band FEC; 0 for no FEC.
    pub expected_loss: u8,
}

impl Default for OpusSettings {
    fn default() -> Self {
        let complexity = AudioEffort::FULL.opus_complexity;
        Self { purpose: Purpose::Voice, bitrate: 48_000, complexity, expected_loss: 8 }
    }
}

/// Encodes one mix as Opus packets of 20 ms.
///
/// DTX of libopus is off, because its voice detection takes a held note for noise and stops sending it. The mix decides
/// about pauses.
#[derive(Debug)]
pub struct OpusEncoder {
    encoder: opus::Encoder,
    frame: [u8; FRAME_MAX],
}

impl OpusEncoder {
    /// An encoder.
    pub fn new(settings: OpusSettings) -> Self {
        let application = match settings.purpose {
            Purpose::Voice => opus::Application::Voip,
            Purpose::Music => opus::Application::Audio,
        };
        let build = || -> opus::Result<opus::Encoder> {
            let mut encoder = opus::Encoder::new(AUDIO_RATE, opus::Channels::Mono, application)?;
            encoder.set_bitrate(opus::Bitrate::Bits(settings.bitrate.clamp(6_000, 510_000) as i32))?;
            encoder.set_complexity(complexity(settings.complexity))?;
            encoder.set_inband_fec(settings.expected_loss > 0)?;
            encoder.set_packet_loss_perc(i32::from(settings.expected_loss.min(100)))?;
            Ok(encoder)
        };
        let encoder = build().expect("a constant rate and clamped settings are taken; only memory can be missing");
        Self { encoder, frame: [0; FRAME_MAX] }
    }

    /// Changes the complexity from the next tick on, 0 (fast) to 10. The stream continues without a gap.
    pub fn set_complexity(&mut self, to: u8) {
        self.encoder.set_complexity(complexity(to)).expect("a complexity from 0 to 10 is taken");
    }

    /// Encodes one tick. None if libopus returns an error: the receiver conceals one frame.
    pub fn encode(&mut self, samples: &[f32; AUDIO_TICK_SAMPLES]) -> Option<Bytes> {
        match self.encoder.encode_float(samples, &mut self.frame) {
            Ok(length) => Some(Bytes::copy_from_slice(&self.frame[..length])),
            Err(error) => {
                tracing::warn!(%error, "audio tick not encoded");
                None
            }
        }
    }

    /// Encodes ticks that a listener got from another encoder, oldest first, and drops the packets: the next packet
    /// continues these ticks.
    pub fn prime<'a>(&mut self, heard: impl IntoIterator<Item = &'a [f32; AUDIO_TICK_SAMPLES]>) {
        for samples in heard {
            let _unheard = self.encode(samples);
        }
    }

    /// Makes the following frames independent of the frames before them, or dependent again: for the first frame of a
    /// receiver that is switched to this encoder, whose decoder has not got the earlier frames.
    pub fn set_independent(&mut self, independent: bool) {
        self.encoder.set_prediction_disabled(independent).expect("a switch that takes both values");
    }
}

fn complexity(wanted: u8) -> i32 {
    i32::from(wanted.min(10))
}

/// Joins consecutive packets to one of at most 120 ms. None if they cannot be joined.
///
/// libopus can encode long packets itself, but in another mode at low bitrates, and with either all or no frames
/// independent. A change of the packet length would be audible.
pub fn joined(packets: &[Bytes]) -> Option<Bytes> {
    if let [packet] = packets {
        return Some(packet.clone());
    }
    let mut joined = [0; JOINED_MAX];
    let packets: Vec<&[u8]> = packets.iter().map(|packet| &packet[..]).collect();
    match opus::Repacketizer::new().and_then(|mut repacketizer| repacketizer.combine(&packets, &mut joined)) {
        Ok(length) => Some(Bytes::copy_from_slice(&joined[..length])),
        Err(error) => {
            tracing::warn!(%error, "audio packets not joined");
            None
        }
    }
}

/// A DTX frame (RFC 7587 section 3.1.3): a table of contents without data, for 20 ms of mono. A receiver takes missing
/// packets after it for a pause, not for loss.
pub fn pause_frame() -> Bytes {
    const CELT_FULLBAND_20_MS_MONO: u8 = 31 << 3;
    Bytes::from_static(&[CELT_FULLBAND_20_MS_MONO])
}

#[cfg(test)]
mod tests {
    use std::f32::consts::TAU;

    use super::*;

    fn tone(n: usize) -> [f32; AUDIO_TICK_SAMPLES] {
        std::array::from_fn(|i| 0.3 * (TAU * 440.0 * (n * AUDIO_TICK_SAMPLES + i) as f32 / AUDIO_RATE as f32).sin())
    }

    fn rms(samples: &[f32]) -> f32 {
        (samples.iter().map(|s| s * s).sum::<f32>() / samples.len() as f32).sqrt()
    }

    #[test]
    fn a_held_note_is_encoded_for_ever() {
        let (mut encoder, mut decoder) = (OpusEncoder::new(OpusSettings::default()), OpusDecoder::new().expect("opus"));
        for n in 0..500 {
            let packet = encoder.encode(&tone(n)).expect("samples are fine");
            let heard = rms(decoder.decode(&packet).expect("opus"));
            assert!(n < 2 || (0.15..0.3).contains(&heard), "{heard} at tick {n}");
        }
    }

    #[test]
    fn a_lost_frame_is_found_in_the_next_one() {
        let mut encoder = OpusEncoder::new(OpusSettings { expected_loss: 20, ..OpusSettings::default() });
        let decoder = || SoundDecoder::new(Codec::Opus).expect("opus is sound");
        let (mut repaired, mut concealed) = (decoder(), decoder());
        // Noise that changes every tick: a lost tick cannot be predicted from the ticks before.
        let mut seed = 1u32;
        let mut speech = |n: usize| -> [f32; AUDIO_TICK_SAMPLES] {
            let pitch = 110.0 + 40.0 * ((n * 7) % 5) as f32;
            std::array::from_fn(|i| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let noise = (seed >> 9) as f32 / 8_388_608.0 - 0.5;
                let t = (n * AUDIO_TICK_SAMPLES + i) as f32 / AUDIO_RATE as f32;
                0.4 * ((TAU * pitch * t).sin().powi(7)) * (if n.is_multiple_of(4) { 0.1 } else { 1.0 }) + 0.02 * noise
            })
        };
        let packets: Vec<Bytes> = (0..60).map(|n| encoder.encode(&speech(n)).expect("fine")).collect();
        let mut whole = decoder();
        let (mut repair_error, mut conceal_error) = (0.0, 0.0);
        for n in 0..59 {
            let truth = whole.decode(&packets[n]).expect("opus").to_vec();
            if n % 10 == 9 {
                let error = |made: &[f32]| rms(&made.iter().zip(&truth).map(|(a, b)| a - b).collect::<Vec<_>>());
                repair_error += error(repaired.conceal(AUDIO_TICK_SAMPLES, Some(&packets[n + 1])));
                conceal_error += error(concealed.conceal(AUDIO_TICK_SAMPLES, None));
            } else {
                repaired.decode(&packets[n]).expect("opus");
                concealed.decode(&packets[n]).expect("opus");
            }
        }
        assert!(repair_error < 0.8 * conceal_error, "{repair_error} with the copy, {conceal_error} without");
    }

    #[test]
    fn joined_packets_sound_like_those_they_are_made_of() {
        let (mut encoder, decoder) = (OpusEncoder::new(OpusSettings::default()), || OpusDecoder::new().expect("opus"));
        let packets: Vec<Bytes> = (0..3).map(|n| encoder.encode(&tone(n)).expect("samples are fine")).collect();
        let (mut one_by_one, mut at_once) = (decoder(), decoder());
        let apart: Vec<f32> =
            packets.iter().flat_map(|packet| one_by_one.decode(packet).expect("opus").to_vec()).collect();
        let packet = joined(&packets).expect("of one encoder");
        assert_eq!(at_once.decode(&packet).expect("opus"), apart);
        assert_eq!(joined(&packets[..1]).as_ref(), Some(&packets[0]));
        assert_eq!(joined(&[packets[0].clone(), pause_frame()]), None, "of another mode");
    }

    #[test]
    fn a_pause_frame_is_silence() {
        let mut decoder = SoundDecoder::new(Codec::Opus).expect("opus is sound");
        let samples = decoder.decode(&pause_frame()).expect("opus");
        assert_eq!(samples.len(), AUDIO_TICK_SAMPLES);
        assert!(rms(samples) < 1e-6);
    }

    #[test]
    fn g711_is_six_times_as_many_samples_and_its_loss_fades() {
        let mut decoder = SoundDecoder::new(Codec::Pcmu).expect("mu-law is sound");
        let payload: Vec<u8> = (0..160).map(|i| if (i / 8) % 2 == 0 { 0x9f } else { 0x1f }).collect();
        assert_eq!(decoder.decode(&payload).expect("any byte is sound").len(), AUDIO_TICK_SAMPLES);
        let before = rms(decoder.decode(&payload).expect("any byte is sound"));
        let first = rms(decoder.conceal(AUDIO_TICK_SAMPLES, None));
        assert!(first > 0.2 * before && first < before, "{first} after {before}");
        assert!(rms(decoder.conceal(AUDIO_TICK_SAMPLES, None)) < 1e-6);
    }

    #[test]
    fn what_is_not_sound_is_an_error_and_the_decoder_goes_on() {
        for codec in [Codec::Opus, Codec::Pcma] {
            let mut decoder = SoundDecoder::new(codec).expect("a sound codec");
            assert!(matches!(decoder.decode(&[]), Err(SoundError::Empty)));
            let _any = decoder.decode(&[0xff; 1400]);
            assert!(decoder.decode(&[0; 2000]).is_err() || codec == Codec::Opus);
            assert_eq!(decoder.conceal(1, None).len(), STEP);
            assert_eq!(decoder.conceal(1_000_000, Some(&[1, 2, 3])).len(), PACKET_MAX);
        }
        assert!(matches!(SoundDecoder::new(Codec::Vp8), Err(SoundError::NotSound(Codec::Vp8))));
    }
}
