//! The limiter: reduces the gain of a loud mix instead of clipping it.
//!
//! Owns: the gain. Does not know: sources. In and out: samples, in place, without delay.

use crate::media::AUDIO_RATE;

/// Threshold: -1 dBFS.
const THRESHOLD: f32 = 0.891_250_9;
/// Time constants of attack and release in milliseconds.
const ATTACK_MS: f32 = 1.0;
const RELEASE_MS: f32 = 120.0;
/// A gain so close to 1 (0.01 dB) is set to 1: quiet samples are unchanged.
const UNITY: f32 = 0.999;

/// The limiter of one mix. A smoothed gain reduces peaks to -1 dBFS; a soft knee limits samples to 1.0 before the gain
/// has followed. There is no look-ahead and no delay.
#[derive(Debug, Clone)]
pub struct Limiter {
    gain: f32,
    attack: f32,
    release: f32,
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new(ATTACK_MS, RELEASE_MS)
    }
}

impl Limiter {
    /// A limiter with time constants in milliseconds (the default is 1 and 120).
    pub fn new(attack_ms: f32, release_ms: f32) -> Self {
        let follow = |ms: f32| 1.0 - (-1_000.0 / (ms.max(0.01) * AUDIO_RATE as f32)).exp();
        Self { gain: 1.0, attack: follow(attack_ms), release: follow(release_ms) }
    }

    /// Limits the samples in place; the state continues from tick to tick.
    pub fn process(&mut self, samples: &mut [f32]) {
        for sample in samples {
            // A decoder may output any value for a hostile packet; it must not stay in the gain.
            let dry = if sample.is_finite() { *sample } else { 0.0 };
            let peak = dry.abs();
            let wanted = if peak > THRESHOLD { THRESHOLD / peak } else { 1.0 };
            let follow = if wanted < self.gain { self.attack } else { self.release };
            self.gain += (wanted - self.gain) * follow;
            if wanted == 1.0 && self.gain > UNITY {
                self.gain = 1.0;
            }
            *sample = bend(dry * self.gain);
        }
    }
}

/// The soft knee: linear up to the threshold, then towards 1.0.
fn bend(sample: f32) -> f32 {
    let peak = sample.abs();
    if peak <= THRESHOLD {
        return sample;
    }
    let room = 1.0 - THRESHOLD;
    (THRESHOLD + room * ((peak - THRESHOLD) / room).tanh()).min(1.0).copysign(sample)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::tone;
    use super::*;

    #[test]
    fn loud_input_is_reduced_and_not_clipped() {
        let mut limiter = Limiter::default();
        let mut out = Vec::new();
        for tick in 0..50 {
            let mut samples: Vec<f32> = tone(0.0, tick).iter().map(|s| s * 4.0).collect();
            limiter.process(&mut samples);
            out = samples;
        }
        let peak = out.iter().fold(0.0_f32, |a, s| a.max(s.abs()));
        assert!((0.8..=1.0).contains(&peak), "{peak}");
        // A clipped sine of four times full scale stands at the edge five sixths of the time.
        let at_the_edge = out.iter().filter(|s| s.abs() > 0.95 * peak).count() as f32 / out.len() as f32;
        assert!(at_the_edge < 0.4, "{at_the_edge}");
    }

    #[test]
    fn the_gain_recovers_after_a_peak() {
        let mut limiter = Limiter::default();
        limiter.process(&mut [3.0; 960]);
        for tick in 0..100 {
            limiter.process(&mut tone(-20.0, tick));
        }
        let (before, mut after) = (tone(-20.0, 0), tone(-20.0, 0));
        limiter.process(&mut after);
        assert_eq!(before, after);
    }

    #[test]
    fn values_that_are_not_finite_become_silence_and_leave_no_trace() {
        let mut limiter = Limiter::default();
        let mut samples = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.5];
        limiter.process(&mut samples);
        assert_eq!(samples, [0.0, 0.0, 0.0, 0.5]);
    }

    proptest! {
        #[test]
        fn nothing_is_ever_over_full_scale(samples in prop::collection::vec(-60.0_f32..60.0, 1..2_000)) {
            let mut limiter = Limiter::default();
            let mut out = samples.clone();
            limiter.process(&mut out);
            for (out, dry) in out.iter().zip(&samples) {
                prop_assert!(out.abs() <= 1.0 && out.abs() <= dry.abs() && out * dry >= 0.0, "{dry} became {out}");
            }
        }

        #[test]
        fn below_one_decibel_nothing_is_touched(samples in prop::collection::vec(-THRESHOLD..THRESHOLD, 1..2_000)) {
            let mut out = samples.clone();
            Limiter::default().process(&mut out);
            prop_assert_eq!(out, samples);
        }
    }
}
