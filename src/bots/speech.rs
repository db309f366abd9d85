//! Artificial speech: who talks when in a conversation, and voices that codecs and level meters take for speech.
//!
//! Owns: talk spurts, pauses and turns with the statistics of ITU-T P.59, and the samples of a few voices. Does not
//! know: Opus, RTP. Pure: random numbers are an argument; time is counted in ticks of 20 ms.

use std::f32::consts::TAU;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::media::AUDIO_RATE;

/// The conversation repeats after so many ticks: three minutes.
const PERIOD: usize = 9_000;
/// Mean talk spurt, in ticks (ITU-T P.59: 1.004 s).
const SPURT: f64 = 50.0;
/// Mean pause of a talker within a turn, in ticks.
const PAUSE_IN_TURN: f64 = 20.0;
/// Mean pause of a talker who is alone, in ticks (P.59: 1.587 s).
const PAUSE_ALONE: f64 = 79.0;
/// Mean silence between two turns, in ticks (P.59: 0.508 s).
const MUTUAL_SILENCE: f64 = 25.0;
/// Mean overlap of two turns, in ticks (P.59: 0.228 s).
const DOUBLE_TALK: f64 = 11.0;
/// How many turns begin before the one before has ended.
const OVERLAPS: f64 = 0.35;
/// Most spurts of one turn.
const SPURTS_MAX: f64 = 5.0;
/// Different voices.
pub(super) const VOICES: usize = 3;

/// Random numbers that are the same in each run, so that runs can be compared.
pub(super) fn random() -> impl FnMut() -> f64 {
    let mut random = StdRng::seed_from_u64(59);
    move || random.random()
}

/// An exponentially distributed length in ticks, as P.59 has it, from `least` to five times the mean.
fn ticks(random: &mut impl FnMut() -> f64, mean: f64, least: usize) -> usize {
    let length = -mean * (1.0 - random()).max(1e-9).ln();
    (length as usize).clamp(least, (mean * 5.0) as usize)
}

/// What a talker does at a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaking {
    /// A talk spurt; `at` is the position in the talker's voice.
    Spurt { at: usize },
    /// A pause, for so many ticks already.
    Pause { since: usize },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spurt {
    from: usize,
    to: usize,
}

/// A conversation of some talkers: they take turns, sometimes two talk at once. It repeats.
#[derive(Debug)]
pub(super) struct Conversation {
    /// The spurts of each talker in order, without overlap.
    spurts: Vec<Vec<Spurt>>,
}

impl Conversation {
    /// A conversation of so many talkers; `random` gives numbers from 0 to 1.
    pub(super) fn new(talkers: usize, random: &mut impl FnMut() -> f64) -> Self {
        let mut spurts = vec![Vec::new(); talkers];
        // When the turn began, who has it, and when all turns before it had ended.
        let (mut now, mut talker, mut ended) = (0, 0, 0);
        while talkers > 0 && now < PERIOD {
            let count = 1 + (random() * SPURTS_MAX) as usize;
            for spurt in 0..count {
                let to = now + ticks(random, SPURT, 10);
                if to > PERIOD {
                    return Self { spurts };
                }
                spurts[talker].push(Spurt { from: now, to });
                let pause = if talkers == 1 { PAUSE_ALONE } else { PAUSE_IN_TURN };
                now = if spurt + 1 < count || talkers == 1 { to + ticks(random, pause, 5) } else { to };
            }
            if talkers == 1 {
                continue;
            }
            let last = spurts[talker].last().copied().unwrap_or(Spurt { from: now, to: now });
            // Any other talker is next.
            talker = (talker + 1 + (random() * (talkers - 1) as f64) as usize % (talkers - 1)) % talkers;
            let begin = if random() < OVERLAPS {
                // At most two talk at once: earlier turns have ended.
                last.to.saturating_sub(ticks(random, DOUBLE_TALK, 2)).max(last.from + 1).max(ended)
            } else {
                last.to + ticks(random, MUTUAL_SILENCE, 5)
            };
            now = spurts[talker].last().map_or(begin, |own| begin.max(own.to + 1));
            ended = ended.max(last.to);
        }
        Self { spurts }
    }

    /// What a talker does at a tick.
    pub(super) fn at(&self, talker: usize, tick: usize) -> Speaking {
        let (at, round) = (tick % PERIOD, tick / PERIOD);
        let spurts = &self.spurts[talker];
        let next = spurts.partition_point(|spurt| spurt.from <= at);
        match next.checked_sub(1).map(|last| spurts[last]) {
            // The position goes on from spurt to spurt, so that they differ.
            Some(spurt) if at < spurt.to => Speaking::Spurt { at: at - spurt.from + 7 * next },
            Some(spurt) => Speaking::Pause { since: at - spurt.to },
            None => {
                // The last spurt was in the period before; where there was none, the pause began with the conversation.
                let last = spurts.last().filter(|_| round > 0);
                Speaking::Pause { since: last.map_or(tick, |spurt| PERIOD - spurt.to + at) }
            }
        }
    }
}

/// Formants of five vowels in Hz (Peterson and Barney 1952, rounded): a, e, i, o, u.
const VOWELS: [[f32; 3]; 5] = [
    [730.0, 1_090.0, 2_440.0],
    [530.0, 1_840.0, 2_480.0],
    [270.0, 2_290.0, 3_010.0],
    [570.0, 840.0, 2_410.0],
    [300.0, 870.0, 2_240.0],
];
/// Width of a formant, in Hz.
const FORMANT_WIDTH: f32 = 120.0;
/// Highest harmonic, in Hz.
const BANDWIDTH: f32 = 4_000.0;
/// Mean pitch of each voice, in Hz.
const PITCH: [f32; VOICES] = [115.0, 205.0, 150.0];
/// Syllables per second.
const SYLLABLES: f32 = 4.0;
/// Power of the samples: -26 dBov, the nominal level of speech (ITU-T P.56).
const POWER: f32 = 0.002_5;

/// Samples of a voice at 48 kHz: voiced syllables with moving pitch and formants, and noise between them.
pub(super) fn voice(voice: usize, seconds: usize) -> Vec<f32> {
    let mut random = StdRng::seed_from_u64(voice as u64);
    let syllables = (seconds as f32 * SYLLABLES) as usize;
    let vowels: Vec<[f32; 3]> = (0..syllables).map(|_| VOWELS[random.random_range(0..VOWELS.len())]).collect();
    let step = 1.0 / AUDIO_RATE as f32;
    let mut phase = 0.0_f32;
    let mut samples: Vec<f32> = (0..seconds * AUDIO_RATE as usize)
        .map(|i| {
            let time = i as f32 * step * SYLLABLES;
            let (syllable, part) = (time as usize % syllables, time.fract());
            let (from, to) = (vowels[syllable], vowels[(syllable + 1) % syllables]);
            let pitch = PITCH[voice % VOICES] * (1.0 + 0.12 * (time * 1.7).sin() - 0.1 * part);
            phase = (phase + pitch * step).fract();
            // Three of four parts of a syllable are voiced.
            let loudness = (part / 0.75 * TAU / 2.0).sin().max(0.0);
            let harmonics = (BANDWIDTH / pitch) as usize;
            let voiced: f32 = (1..=harmonics)
                .map(|k| {
                    let frequency = k as f32 * pitch;
                    let gain: f32 = (0..3)
                        .map(|f| {
                            let formant = from[f] + (to[f] - from[f]) * part;
                            1.0 / (1.0 + ((frequency - formant) / FORMANT_WIDTH).powi(2))
                        })
                        .sum();
                    (gain + 0.05) / (k as f32).sqrt() * (TAU * phase * k as f32).sin()
                })
                .sum();
            let noise = if part > 0.8 { 0.15 * random.random_range(-1.0..1.0) } else { 0.0 };
            voiced * loudness + noise
        })
        .collect();
    let power = samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len() as f32;
    let gain = (POWER / power).sqrt();
    samples.iter_mut().for_each(|sample| *sample = (*sample * gain).clamp(-1.0, 1.0));
    samples
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seeded(seed: u64) -> impl FnMut() -> f64 {
        let mut random = StdRng::seed_from_u64(seed);
        move || random.random()
    }

    proptest! {
        #[test]
        fn talkers_take_turns(talkers in 1..12_usize, seed: u64) {
            let conversation = Conversation::new(talkers, &mut seeded(seed));
            for spurts in &conversation.spurts {
                prop_assert!(spurts.iter().all(|spurt| spurt.from < spurt.to && spurt.to <= PERIOD));
                prop_assert!(spurts.windows(2).all(|pair| pair[0].to < pair[1].from));
            }
            let talking = |tick| {
                let speaking = (0..talkers).map(|talker| conversation.at(talker, tick));
                speaking.filter(|speaking| matches!(speaking, Speaking::Spurt { .. })).count()
            };
            let counts: Vec<usize> = (0..PERIOD).map(talking).collect();
            prop_assert!(counts.iter().all(|count| *count <= 2), "never more than two at once");
            let share = |wanted: fn(usize) -> bool| {
                counts.iter().filter(|count| wanted(**count)).count() as f64 / PERIOD as f64
            };
            let speech = share(|count| count > 0);
            prop_assert!((0.2..0.95).contains(&speech), "speech {speech}");
            prop_assert!(share(|count| count == 2) < 0.15, "double talk");
        }

        #[test]
        fn a_pause_lasts_from_the_end_of_a_spurt_to_the_next(talkers in 1..5_usize, seed: u64) {
            let conversation = Conversation::new(talkers, &mut seeded(seed));
            for talker in 0..talkers {
                let mut before = conversation.at(talker, 0);
                for tick in 1..2 * PERIOD {
                    let now = conversation.at(talker, tick);
                    if let (Speaking::Pause { since }, Speaking::Pause { since: next }) = (before, now) {
                        prop_assert_eq!(next, since + 1, "tick {}", tick);
                    }
                    before = now;
                }
            }
        }
    }

    #[test]
    fn voices_have_the_level_of_speech_and_change() {
        for number in 0..VOICES {
            let samples = voice(number, 1);
            let power = |part: &[f32]| part.iter().map(|sample| sample * sample).sum::<f32>() / part.len() as f32;
            assert!((power(&samples) - POWER).abs() < POWER * 0.1);
            let parts: Vec<f32> = samples.chunks_exact(960).map(power).collect();
            let loudest = parts.iter().copied().fold(0.0, f32::max);
            let softest = parts.iter().copied().fold(1.0, f32::min);
            assert!(loudest > 10.0 * softest, "syllables: {softest} to {loudest}");
        }
        assert_ne!(voice(0, 1), voice(1, 1));
    }
}
