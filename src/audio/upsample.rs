//! Upsampling from 8 kHz (G.711) to 48 kHz.

use std::f64::consts::PI;

/// Output samples per input sample.
const FACTOR: usize = 6;
/// Taps per phase, that is input samples per output sample; the delay is half of them, 1.5 ms.
const TAPS: usize = 24;
/// Cut-off frequency (-6 dB) in Hz: the telephone band ends at 3.4 kHz, its image begins at 4.6 kHz (8 - 3.4).
const CUTOFF: f64 = 3_800.0;
/// Kaiser window parameter: 70 dB of stop band attenuation.
const BETA: f64 = 7.0;

/// A polyphase FIR filter: a windowed sinc. It keeps the last samples, so that packets join without a click.
#[derive(Debug, Clone)]
pub struct Upsampler {
    phases: [[f32; TAPS]; FACTOR],
    /// The last input samples, newest first.
    history: [f32; TAPS],
}

impl Default for Upsampler {
    fn default() -> Self {
        let length = TAPS * FACTOR;
        let middle = (length - 1) as f64 / 2.0;
        // As a fraction of the Nyquist frequency of the output.
        let cutoff = 2.0 * CUTOFF / (8_000.0 * FACTOR as f64);
        let mut phases = [[0.0; TAPS]; FACTOR];
        for (phase, taps) in phases.iter_mut().enumerate() {
            let tap = |i: usize| {
                let x = (i * FACTOR + phase) as f64 - middle;
                let sinc = if x == 0.0 { 1.0 } else { (PI * x * cutoff).sin() / (PI * x * cutoff) };
                // The Kaiser window; -1 and 1 are its ends.
                let position = x / (length as f64 / 2.0);
                sinc * bessel(BETA * (1.0 - position * position).sqrt())
            };
            // Each phase has a gain of exactly 1 at 0 Hz: a constant has no ripple of 8 kHz.
            let gain: f64 = (0..TAPS).map(tap).sum();
            for (i, out) in taps.iter_mut().enumerate() {
                *out = (tap(i) / gain) as f32;
            }
        }
        Self { phases, history: [0.0; TAPS] }
    }
}

impl Upsampler {
    /// Appends six samples at 48 kHz to `out` for each sample at 8 kHz.
    pub fn process(&mut self, input: &[f32], out: &mut Vec<f32>) {
        out.reserve(input.len() * FACTOR);
        for &sample in input {
            self.history.rotate_right(1);
            self.history[0] = sample;
            for taps in &self.phases {
                out.push(taps.iter().zip(&self.history).map(|(tap, sample)| tap * sample).sum());
            }
        }
    }
}

/// The modified Bessel function of the first kind and order zero, by its series.
fn bessel(x: f64) -> f64 {
    let quarter = x * x / 4.0;
    let (mut term, mut sum) = (1.0, 1.0);
    for k in 1..40 {
        term *= quarter / f64::from(k * k);
        sum += term;
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tone(hz: f64, rate: f64, count: usize) -> Vec<f32> {
        (0..count).map(|i| (2.0 * PI * hz * i as f64 / rate).sin() as f32).collect()
    }

    /// Amplitude of one frequency in samples at 48 kHz, by correlation over whole periods.
    fn amplitude(samples: &[f32], hz: f64) -> f64 {
        let (mut re, mut im) = (0.0, 0.0);
        for (i, sample) in samples.iter().enumerate() {
            let angle = 2.0 * PI * hz * i as f64 / 48_000.0;
            re += f64::from(*sample) * angle.cos();
            im += f64::from(*sample) * angle.sin();
        }
        2.0 * (re * re + im * im).sqrt() / samples.len() as f64
    }

    #[test]
    fn the_speech_band_passes_and_images_do_not() {
        for hz in [100.0, 300.0, 1_000.0, 2_000.0, 3_000.0, 3_400.0] {
            let mut out = Vec::new();
            Upsampler::default().process(&tone(hz, 8_000.0, 1_000), &mut out);
            assert_eq!(out.len(), 6_000);
            // The last 100 ms: settled, and whole periods of all frequencies.
            let settled = &out[1_200..];
            let through = amplitude(settled, hz);
            assert!((0.9..1.05).contains(&through), "{hz} Hz came out at {through}");
            for image in [8_000.0 - hz, 8_000.0 + hz, 16_000.0 - hz, 24_000.0 - hz] {
                let rest = amplitude(settled, image);
                assert!(rest < 0.003, "{hz} Hz left {rest} at {image} Hz");
            }
        }
    }

    #[test]
    fn a_constant_has_no_ripple() {
        let mut out = Vec::new();
        Upsampler::default().process(&[0.25; 100], &mut out);
        assert!(out[TAPS * FACTOR..].iter().all(|s| (s - 0.25).abs() < 1e-6));
    }

    proptest! {
        #[test]
        fn packets_of_any_length_give_the_same_samples(
            samples in prop::collection::vec(-1.0_f32..1.0, 2..400),
            cut in any::<prop::sample::Index>(),
        ) {
            let cut = cut.index(samples.len());
            let (mut whole, mut parts, mut upsampler) = (Vec::new(), Vec::new(), Upsampler::default());
            Upsampler::default().process(&samples, &mut whole);
            upsampler.process(&samples[..cut], &mut parts);
            upsampler.process(&samples[cut..], &mut parts);
            prop_assert_eq!(whole, parts);
        }
    }
}
