//! The audio that bots send: a continuous tone, or speech with pauses ([`speech`](super::speech)), as Opus packets of
//! 20 ms.
//!
//! Owns: encoded loops, shared by all bots, and the packet that one microphone sends at each tick of 20 ms. Does not
//! know: RTP, clocks; the caller counts the ticks.

use std::sync::Arc;

use bytes::Bytes;

use super::speech::{self, Conversation, Speaking, VOICES};
use crate::codec::sound::{OpusEncoder, OpusSettings, Purpose};
use crate::media::{AUDIO_RATE, AUDIO_TICK_SAMPLES};

/// Packets per second.
pub(super) const PACKETS_PER_SECOND: usize = AUDIO_RATE as usize / AUDIO_TICK_SAMPLES;
/// Frequency of the tone in Hz. The loop of one second has whole periods, so it repeats without a click.
const TONE_HZ: f32 = 440.0;
/// Amplitude of the tone (full scale is 1): about as loud as speech.
const TONE_AMPLITUDE: f32 = 0.15;
/// Seconds of each voice's loop.
const VOICE_SECONDS: usize = 4;
/// Packets that are still sent after a talk spurt before DTX begins, as in libopus.
const DTX_HANGOVER: usize = 10;
/// During DTX one packet is sent per this number of ticks (400 ms), as in libopus.
const DTX_INTERVAL: usize = 20;
/// Audio level of digital silence, in -dBov (RFC 6464).
const SILENCE_LEVEL: u8 = 127;

/// The packet of one tick, before RTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AudioPacket {
    /// An Opus packet.
    pub(super) payload: Bytes,
    /// Audio level in -dBov (RFC 6464).
    pub(super) level: u8,
    /// RTP marker: the first packet after a pause (RFC 3551 section 4.1).
    pub(super) marker: bool,
}

/// A loop of encoded packets with their levels.
#[derive(Debug)]
pub(super) struct AudioLoop(Vec<(Bytes, u8)>);

impl AudioLoop {
    /// Encodes samples; those at the end that do not fill a packet are left out.
    fn encode(samples: &[f32]) -> Self {
        let settings = OpusSettings { purpose: Purpose::Voice, bitrate: 32_000, complexity: 5, expected_loss: 0 };
        let mut encoder = OpusEncoder::new(settings);
        let (ticks, _) = samples.as_chunks::<AUDIO_TICK_SAMPLES>();
        Self(ticks.iter().filter_map(|tick| Some((encoder.encode(tick)?, level(tick)))).collect())
    }

    fn tone() -> Self {
        let sample = |i: usize| {
            let time = i as f32 / AUDIO_RATE as f32;
            TONE_AMPLITUDE * (time * TONE_HZ * std::f32::consts::TAU).sin()
        };
        Self::encode(&(0..AUDIO_RATE as usize).map(sample).collect::<Vec<_>>())
    }

    fn silence() -> Self {
        Self::encode(&vec![0.0; AUDIO_RATE as usize])
    }

    /// The packet at this index, which may exceed the length: the loop repeats.
    fn packet(&self, at: usize, marker: bool) -> AudioPacket {
        let (payload, level) = self.0[at % self.0.len()].clone();
        AudioPacket { payload, level, marker }
    }
}

/// The level of one packet's samples, in -dBov (RFC 6464).
fn level(samples: &[f32]) -> u8 {
    let power = samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len() as f32;
    // Zero power is an infinite level, which the cast limits.
    ((-10.0 * power.log10()).round() as u8).min(SILENCE_LEVEL)
}

/// The audio of the bots of one room, encoded once.
#[derive(Debug)]
pub(super) struct Audio {
    silence: AudioLoop,
    kind: AudioKind,
}

#[derive(Debug)]
enum AudioKind {
    Tone(AudioLoop),
    Speech(Vec<AudioLoop>, Conversation),
}

impl Audio {
    /// Each talker sends a continuous tone.
    pub(super) fn tone() -> Self {
        Self { silence: AudioLoop::silence(), kind: AudioKind::Tone(AudioLoop::tone()) }
    }

    /// This number of talkers take turns to speak. Encoding takes about a second.
    pub(super) fn speech(talkers: usize) -> Self {
        let voices = (0..VOICES.min(talkers)).map(|voice| AudioLoop::encode(&speech::voice(voice, VOICE_SECONDS)));
        let kind = AudioKind::Speech(voices.collect(), Conversation::new(talkers, &mut speech::random()));
        Self { silence: AudioLoop::silence(), kind }
    }
}

/// The microphone of one bot.
#[derive(Debug)]
pub(super) struct Microphone {
    audio: Arc<Audio>,
    /// Index among the talkers; None if the bot never talks.
    talker: Option<usize>,
    /// DTX has begun, so the next talk spurt begins with a marker.
    paused: bool,
}

impl Microphone {
    pub(super) const fn new(audio: Arc<Audio>, talker: Option<usize>) -> Self {
        Self { audio, talker, paused: false }
    }

    /// The packet of a tick of 20 ms; None if DTX sends none. All bots of a room count the ticks from the same moment,
    /// so that their talkers take turns.
    pub(super) fn packet(&mut self, tick: usize) -> Option<AudioPacket> {
        let silence = &self.audio.silence;
        let (voices, conversation) = match &self.audio.kind {
            AudioKind::Tone(tone) => {
                return Some(if self.talker.is_some() {
                    tone.packet(tick, false)
                } else {
                    silence.packet(tick, false)
                });
            }
            AudioKind::Speech(voices, conversation) => (voices, conversation),
        };
        // Ticks of silence so far.
        let since = match self.talker.map(|talker| (talker, conversation.at(talker, tick))) {
            Some((talker, Speaking::Spurt { at })) => {
                let marker = std::mem::replace(&mut self.paused, false);
                return Some(voices[talker % voices.len()].packet(at, marker));
            }
            Some((_, Speaking::Pause { since })) => since,
            None => tick,
        };
        let in_dtx = since.checked_sub(DTX_HANGOVER);
        self.paused = in_dtx.is_some();
        let due = in_dtx.is_none_or(|ticks| ticks % DTX_INTERVAL == DTX_INTERVAL - 1);
        due.then(|| silence.packet(since, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_and_silence_are_50_packets_a_second() {
        let audio = Arc::new(Audio::tone());
        let (mut talker, mut listener) = (Microphone::new(audio.clone(), Some(0)), Microphone::new(audio, None));
        let second = |microphone: &mut Microphone| -> Vec<AudioPacket> {
            (0..PACKETS_PER_SECOND).filter_map(|tick| microphone.packet(tick)).collect()
        };
        let (tone, silence) = (second(&mut talker), second(&mut listener));
        assert_eq!((tone.len(), silence.len()), (50, 50));
        assert_eq!(talker.packet(50), Some(tone[0].clone()));
        // A sine of amplitude 0.15 has -19.5 dBov.
        assert!(tone.iter().all(|packet| (19..=20).contains(&packet.level) && !packet.marker));
        assert!(silence.iter().all(|packet| packet.level == SILENCE_LEVEL));
        assert!(tone[25].payload.len() > silence[25].payload.len());
    }

    #[test]
    fn a_bot_that_never_talks_sends_a_packet_every_400_ms() {
        let mut microphone = Microphone::new(Arc::new(Audio::speech(1)), None);
        let sent: Vec<usize> = (0..100).filter(|tick| microphone.packet(*tick).is_some()).collect();
        let hangover: Vec<usize> = (0..DTX_HANGOVER).collect();
        assert_eq!(sent, [&hangover[..], &[29, 49, 69, 89]].concat());
    }

    #[test]
    fn speech_is_packets_in_talk_spurts_and_dtx_between() {
        let mut microphone = Microphone::new(Arc::new(Audio::speech(1)), Some(0));
        let packets: Vec<_> = (0..60 * PACKETS_PER_SECOND).map(|tick| microphone.packet(tick)).collect();
        let spoken = packets.iter().flatten().filter(|packet| packet.level < 60).count();
        let share = spoken as f64 / packets.len() as f64;
        assert!((0.2..0.8).contains(&share), "one talker alone speaks some of the time: {share}");
        let paused = packets.iter().filter(|packet| packet.is_none()).count();
        assert!(paused > packets.len() / 10, "{paused}");
        for (before, packet) in packets.iter().zip(&packets[1..]) {
            // A talk spurt after a pause begins with a marked packet, and no other packet is marked.
            let begins = before.is_none() && packet.as_ref().is_some_and(|packet| packet.level < SILENCE_LEVEL);
            assert!(!begins || packet.as_ref().is_some_and(|packet| packet.marker));
        }
        let markers = packets.iter().flatten().filter(|packet| packet.marker);
        assert!(markers.clone().count() > 3 && markers.clone().all(|packet| packet.level < SILENCE_LEVEL));
    }
}
