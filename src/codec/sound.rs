//! Sound codecs: Opus both ways, G.711 coming in. Everything inside is mono `f32` at 48 kHz.
//!
//! Owns: what a packet's payload sounds like, and what a lost one sounds like; when a frame need not be sent.
//! Does not know: which packet is due (the jitter buffer), who hears it (the mix). One decoder per source, one encoder
//! per mix; each belongs to one thread. This is the only importer of `opus`.

use bytes::Bytes;

use crate::audio::{Upsampler, decode_alaw, decode_ulaw, ramp};
use crate::media::{AUDIO_RATE, AUDIO_TICK_SAMPLES, Codec};

/// Longest packet Opus allows, 120 ms, in samples (RFC 6716 section 2.1.4).
const PACKET_MAX: usize = AUDIO_RATE as usize * 120 / 1000;

/// The decoders' smallest step, 2.5 ms; concealment comes in whole steps.
const STEP: usize = AUDIO_RATE as usize / 400;

/// Largest frame the encoder may write. 20 ms at 510 kbit/s is 1275 bytes, which is also RFC 6716's limit.
const FRAME_MAX: usize = 1275;

/// Frames of discontinuous transmission that are sent before the encoder falls silent: the first tells the receiver's
/// decoder that a pause begins, the others are for the case that the first is lost.
const PAUSE_FRAMES_SENT: u32 = 3;

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
    G711(G711Decoder),
}

impl SoundDecoder {
    /// A decoder of the codec.
    ///
    /// # Errors
    /// [`SoundError::NotSound`] for a video codec.
    pub fn new(codec: Codec) -> Result<Self, SoundError> {
        match codec {
            Codec::Opus => Ok(Self::Opus(OpusDecoder::new()?)),
            Codec::Pcmu => Ok(Self::G711(G711Decoder::new(decode_ulaw))),
            Codec::Pcma => Ok(Self::G711(G711Decoder::new(decode_alaw))),
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
            ramp(&mut self.samples[..edge], 0.0, 1.0);
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
        Self { purpose: Purpose::Voice, bitrate: 32_000, complexity: 5, expected_loss: 8 }
    }
}

/// Turns one mix into Opus packets of 20 ms.
#[derive(Debug)]
pub struct OpusEncoder {
    encoder: opus::Encoder,
    frame: [u8; FRAME_MAX],
    /// Frames of discontinuous transmission in a row.
    pause: u32,
}

impl OpusEncoder {
    /// An encoder; discontinuous transmission is on.
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
            encoder.set_dtx(true)?;
            Ok(encoder)
        };
        let encoder = build().expect("a constant rate and clamped settings are taken; only memory can be missing");
        Self { encoder, frame: [0; FRAME_MAX], pause: 0 }
    }

    /// Encodes one tick; None when the frame need not be sent, because the receiver knows already that there is a pause.
    pub fn encode(&mut self, samples: &[f32; AUDIO_TICK_SAMPLES]) -> Option<Bytes> {
        let frame = self.write(samples)?;
        // RFC 7587 section 3.1.3 and the Opus API: a frame of up to 2 bytes need not be sent.
        self.pause = if frame.len() > 2 { 0 } else { self.pause + 1 };
        (self.pause <= PAUSE_FRAMES_SENT).then_some(frame)
    }

    /// The receiver has been told of the pause: feeding the encoder more silence tells it nothing new.
    pub fn is_pausing(&self) -> bool {
        self.pause >= PAUSE_FRAMES_SENT
    }

    /// A frame of silence for a receiver that came during a pause, or lost what told it of the pause.
    pub fn encode_pause(&mut self) -> Option<Bytes> {
        self.write(&[0.0; AUDIO_TICK_SAMPLES])
    }

    /// Takes in what a listener has heard until now from another encoder, oldest first, and makes the next frame
    /// follow it: a receiver that is switched over to this encoder hears no seam.
    pub fn prime<'a>(&mut self, heard: impl IntoIterator<Item = &'a [f32; AUDIO_TICK_SAMPLES]>) {
        for samples in heard {
            let _unheard = self.write(samples);
        }
        self.pause = 0;
    }

    /// Makes frames from now on independent of those before (`false` goes back to normal): for the frame with which
    /// a receiver is switched over to this encoder, since its decoder has not seen the earlier ones.
    pub fn set_independent(&mut self, independent: bool) {
        self.encoder.set_prediction_disabled(independent).expect("a switch that takes both values");
    }

    /// None where libopus refuses the samples: the receiver conceals one frame.
    fn write(&mut self, samples: &[f32; AUDIO_TICK_SAMPLES]) -> Option<Bytes> {
        match self.encoder.encode_float(samples, &mut self.frame) {
            Ok(length) => Some(Bytes::copy_from_slice(&self.frame[..length])),
            Err(error) => {
                tracing::warn!(%error, "a tick of sound could not be encoded");
                None
            }
        }
    }
}
