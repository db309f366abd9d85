//! Sound codecs: Opus both ways, G.711 coming in. Everything inside is mono `f32` at 48 kHz.
//!
//! Owns: what a packet's payload sounds like, and what a lost one sounds like.
//! Does not know: which packet is due (the jitter buffer), who hears it (the mix). One decoder per source, one encoder
//! per mix; each belongs to one thread. This is the only importer of `opus`.

use bytes::Bytes;

use crate::audio::{Upsampler, decode_alaw, decode_ulaw, fade_in};
use crate::media::{AUDIO_RATE, AUDIO_TICK_SAMPLES, Codec};

/// Longest packet Opus allows, 120 ms, in samples (RFC 6716 section 2.1.4).
const PACKET_MAX: usize = AUDIO_RATE as usize * 120 / 1000;

/// The decoders' smallest step, 2.5 ms; concealment comes in whole steps.
const STEP: usize = AUDIO_RATE as usize / 400;

/// Largest frame the encoder may write. 20 ms at 510 kbit/s is 1275 bytes, which is also RFC 6716's limit.
const FRAME_MAX: usize = 1275;

/// Largest packet that others are joined to: what fits into a datagram with its headers.
const JOINED_MAX: usize = 1200;

/// Why a payload is not sound.
#[derive(Debug, thiserror::Error)]
pub enum SoundError {
    /// A codec that carries no sound.
    #[error("{0} is not a sound codec: send opus, PCMU or PCMA")]
    NotSound(Codec),
    /// Nothing in the packet.
    #[error("an empty payload")]
    Empty,
    /// More than 120 ms of sound in one packet.
    #[error("a packet of {0} bytes holds more than 120 ms of sound")]
    TooLong(usize),
    /// Not Opus.
    #[error("not an opus packet: {0}")]
    Opus(#[from] opus::Error),
}

/// Turns the payloads of one source into samples.
#[derive(Debug)]
pub enum SoundDecoder {
    /// Opus, RFC 6716.
    Opus(OpusDecoder),
    /// G.711, 8 kHz.
    G711(Box<G711Decoder>),
}

impl SoundDecoder {
    /// A decoder of the codec.
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
    /// The payload is not of this codec; the decoder goes on with the next one.
    pub fn decode(&mut self, payload: &[u8]) -> Result<&[f32], SoundError> {
        match self {
            Self::Opus(decoder) => decoder.decode(payload),
            Self::G711(decoder) => decoder.decode(payload),
        }
    }

    /// Makes up `samples` samples (at most 120 ms, in steps of 2.5 ms) in place of a lost packet. `next` is the payload
    /// that follows the lost one, where it has come already: Opus may carry a copy of the lost sound in it.
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
        // Mono also for stereo packets: libopus mixes them down while it decodes.
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
        // With `fec` libopus itself falls back to concealment where `next` holds no copy of the lost sound.
        let out = &mut self.samples[..samples];
        let fec = !next.is_empty();
        if self.decoder.decode_float(next, out, fec).is_err() && self.decoder.decode_float(&[], out, false).is_err() {
            out.fill(0.0);
        }
        out
    }
}

/// A G.711 decoder with concealment in the manner of a fading echo.
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
    /// How long a lost packet's echo takes to fade to nothing.
    const FADE_OUT: usize = AUDIO_TICK_SAMPLES;
    /// How long the first packet after a loss takes to fade in.
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

    /// The last sound played backwards while it fades: no step where it begins, and no buzz as from a repeated piece.
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

/// What a mix is encoded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Purpose {
    /// Talking people: intelligible at low rates.
    #[default]
    Voice,
    /// Anything: true to the input.
    Music,
}

/// How a mix is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpusSettings {
    /// What for.
    pub purpose: Purpose,
    /// Target in bit/s, without RTP.
    pub bitrate: u32,
    /// 0 (cheap) to 10.
    pub complexity: u8,
    /// Loss to protect against by in-band FEC, in percent; 0 for none.
    pub expected_loss: u8,
}

impl Default for OpusSettings {
    fn default() -> Self {
        Self { purpose: Purpose::Voice, bitrate: 48_000, complexity: 5, expected_loss: 8 }
    }
}

/// Turns one mix into Opus packets of 20 ms.
///
/// Its owner knows better than libopus when nothing is to be heard, so libopus' discontinuous transmission is off: its
/// voice detection takes a held note for noise, and stops sending it.
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
            encoder.set_complexity(i32::from(settings.complexity.min(10)))?;
            encoder.set_inband_fec(settings.expected_loss > 0)?;
            encoder.set_packet_loss_perc(i32::from(settings.expected_loss.min(100)))?;
            Ok(encoder)
        };
        let encoder = build().expect("a constant rate and clamped settings are taken; only memory can be missing");
        Self { encoder, frame: [0; FRAME_MAX] }
    }

    /// Encodes one tick. None where libopus refuses the samples: the receiver conceals one frame.
    pub fn encode(&mut self, samples: &[f32; AUDIO_TICK_SAMPLES]) -> Option<Bytes> {
        match self.encoder.encode_float(samples, &mut self.frame) {
            Ok(length) => Some(Bytes::copy_from_slice(&self.frame[..length])),
            Err(error) => {
                tracing::warn!(%error, "a tick of sound could not be encoded");
                None
            }
        }
    }

    /// Takes in what a listener has heard until now from another encoder, oldest first, so that the next frame goes on
    /// where he is.
    pub fn prime<'a>(&mut self, heard: impl IntoIterator<Item = &'a [f32; AUDIO_TICK_SAMPLES]>) {
        for samples in heard {
            let _unheard = self.encode(samples);
        }
    }

    /// Makes frames from now on independent of those before (`false` goes back to normal): for the frame with which
    /// a receiver is switched over to this encoder, since its decoder has not seen the earlier ones.
    pub fn set_independent(&mut self, independent: bool) {
        self.encoder.set_prediction_disabled(independent).expect("a switch that takes both values");
    }
}

/// One packet of several that follow each other, 120 ms at most. None where they do not fit together.
///
/// libopus would encode so much at once too, in a mode of its own at low rates, and into frames of which either all or
/// none are independent. So there would be a seam between packets of different length, and much too few bits for it.
pub fn joined(packets: &[Bytes]) -> Option<Bytes> {
    if let [packet] = packets {
        return Some(packet.clone());
    }
    let mut joined = [0; JOINED_MAX];
    let packets: Vec<&[u8]> = packets.iter().map(|packet| &packet[..]).collect();
    match opus::Repacketizer::new().and_then(|mut repacketizer| repacketizer.combine(&packets, &mut joined)) {
        Ok(length) => Some(Bytes::copy_from_slice(&joined[..length])),
        Err(error) => {
            tracing::warn!(%error, "packets of sound could not be joined");
            None
        }
    }
}

/// A frame of discontinuous transmission (RFC 7587 section 3.1.3): a table of contents without content, for 20 ms of
/// mono. It tells a receiver that a pause begins, so that it does not take the missing packets for lost ones.
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
        // Noise that changes every tick: what is lost cannot be guessed from what was before.
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
