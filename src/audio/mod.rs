//! Audio arithmetic: sums, mix-minus, gain, fades, levels; the gate and the limiter; G.711 and its sample rate.
//!
//! Owns: operations on samples. Does not know: sources, codecs, listeners. In and out: slices of the caller; only
//! [`Upsampler`] allocates. Samples are mono `f32` at 48 kHz with full scale at 1.0, in slices of one tick
//! ([`crate::media::AUDIO_TICK_SAMPLES`]).

mod g711;
mod gate;
mod limiter;
mod upsample;

pub use g711::{alaw_to_linear, decode_alaw, decode_ulaw, ulaw_to_linear};
pub use gate::{Gate, GateState};
pub use limiter::Limiter;
pub use upsample::Upsampler;

/// The level of digital silence in -dBov (RFC 6464 section 3).
pub const SILENCE: u8 = 127;

/// Writes the sum of the contributions to `out`, without limiting. All slices have one length; without contributions
/// `out` is silence.
pub fn sum(contributions: &[&[f32]], out: &mut [f32]) {
    assert!(contributions.iter().all(|c| c.len() == out.len()), "contributions of one tick are of one length");
    for (i, out) in out.iter_mut().enumerate() {
        // Summed in f64 and rounded once, so that a difference is the sum of the others.
        *out = contributions.iter().map(|c| f64::from(c[i])).sum::<f64>() as f32;
    }
}

/// Writes `total` minus `own` to `out`: the mix-minus, exact to the rounding of the total.
pub fn minus(total: &[f32], own: &[f32], out: &mut [f32]) {
    assert!(total.len() == out.len() && own.len() == out.len(), "slices of one tick are of one length");
    for ((out, total), own) in out.iter_mut().zip(total).zip(own) {
        *out = total - own;
    }
}

/// The factor of a gain in decibels.
pub fn db_to_factor(db: f32) -> f32 {
    10_f32.powf(db / 20.0)
}

/// Multiplies all samples by a factor.
pub fn scale(samples: &mut [f32], factor: f32) {
    samples.iter_mut().for_each(|sample| *sample *= factor);
}

/// Multiplies by a factor that changes linearly from `from` to `to` over the slice, so that a changed gain does not
/// click. The last sample is multiplied by `to`.
pub fn ramp(samples: &mut [f32], from: f32, to: f32) {
    let step = (to - from) / samples.len().max(1) as f32;
    for (i, sample) in samples.iter_mut().enumerate() {
        *sample *= from + step * (i + 1) as f32;
    }
}

/// Fades in over the slice.
pub fn fade_in(samples: &mut [f32]) {
    ramp(samples, 0.0, 1.0);
}

/// Fades out over the slice.
pub fn fade_out(samples: &mut [f32]) {
    ramp(samples, 1.0, 0.0);
}

/// The level in -dBov (RFC 6464): 0 for a square wave at full scale, 3 for a sine at full scale, 127 for silence.
pub fn level_dbov(samples: &[f32]) -> u8 {
    let energy: f64 = samples.iter().map(|s| f64::from(*s) * f64::from(*s)).sum();
    let mean = energy / samples.len().max(1) as f64;
    // `as` saturates: 127 for no energy, 0 for samples above full scale.
    (-10.0 * mean.log10()).round().clamp(0.0, f64::from(SILENCE)) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::{AUDIO_RATE, AUDIO_TICK_SAMPLES};

    /// One tick of a tone at 440 Hz whose peaks are at this many decibels below full scale.
    pub(super) fn tone(db: f32, tick: usize) -> Vec<f32> {
        let peak = db_to_factor(db);
        (0..AUDIO_TICK_SAMPLES)
            .map(|i| (i + tick * AUDIO_TICK_SAMPLES) as f32 / AUDIO_RATE as f32)
            .map(|t| peak * (t * 440.0 * std::f32::consts::TAU).sin())
            .collect()
    }

    #[test]
    fn levels_are_those_of_rfc_6464() {
        assert_eq!(level_dbov(&[1.0, -1.0, 1.0, -1.0]), 0);
        assert_eq!(level_dbov(&tone(0.0, 0)), 3);
        assert_eq!(level_dbov(&tone(-27.0, 0)), 30);
        assert_eq!(level_dbov(&[0.0; 960]), SILENCE);
        assert_eq!(level_dbov(&[]), SILENCE);
        assert_eq!(level_dbov(&[9.0; 4]), 0);
    }

    #[test]
    fn a_sum_without_contributions_is_silence() {
        let mut out = [1.0; 4];
        sum(&[], &mut out);
        assert_eq!(out, [0.0; 4]);
    }

    #[test]
    fn fades_have_no_step() {
        let mut samples = [1.0; AUDIO_TICK_SAMPLES];
        fade_in(&mut samples);
        assert!(samples[0] < 0.002 && samples[AUDIO_TICK_SAMPLES - 1] == 1.0);
        assert!(samples.windows(2).all(|w| w[1] > w[0] && w[1] - w[0] < 0.002));
        fade_out(&mut samples);
        assert_eq!(samples[AUDIO_TICK_SAMPLES - 1], 0.0);
    }

    #[test]
    fn six_decibels_double_the_amplitude() {
        assert!((db_to_factor(6.0206) - 2.0).abs() < 1e-4);
        assert_eq!(db_to_factor(0.0), 1.0);
    }

    proptest! {
        #[test]
        fn everyone_minus_one_is_the_others(
            voices in prop::collection::vec(prop::collection::vec(-1.0_f32..1.0, 64), 1..8),
            pick in any::<prop::sample::Index>(),
        ) {
            let all: Vec<&[f32]> = voices.iter().map(Vec::as_slice).collect();
            let one = pick.index(all.len());
            let others: Vec<&[f32]> = all.iter().enumerate().filter(|(i, _)| *i != one).map(|(_, v)| *v).collect();
            let (mut total, mut rest, mut expected) = ([0.0; 64], [0.0; 64], [0.0; 64]);
            sum(&all, &mut total);
            minus(&total, all[one], &mut rest);
            sum(&others, &mut expected);
            for (rest, expected) in rest.iter().zip(expected) {
                prop_assert!((rest - expected).abs() <= 1e-6, "{rest} is not {expected}");
            }
        }

        #[test]
        fn a_mix_minus_of_g711_is_exact(
            voices in prop::collection::vec(prop::collection::vec(any::<u8>(), 64), 2..20),
        ) {
            // Sums of 16-bit samples are exact, so that nothing of the own samples is left.
            let voices: Vec<Vec<f32>> =
                voices.iter().map(|v| v.iter().map(|b| f32::from(ulaw_to_linear(*b)) / 32_768.0).collect()).collect();
            let all: Vec<&[f32]> = voices.iter().map(Vec::as_slice).collect();
            let (mut total, mut rest, mut expected) = ([0.0; 64], [0.0; 64], [0.0; 64]);
            sum(&all, &mut total);
            minus(&total, all[0], &mut rest);
            sum(&all[1..], &mut expected);
            prop_assert_eq!(rest, expected);
        }
    }
}
