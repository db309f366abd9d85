//! The VP8 frame that repeats the picture before it, made without an encoder (RFC 6386).
//!
//! Owns: the bits of that frame. Does not know: streams, when a picture is repeated. In: the size. Out: the frame.
//!
//! Each macroblock is copied from the last frame with a zero motion vector and without a residual. The frame updates no
//! reference frame and no probability, so neither the encoder nor the decoder changes state: it may be put between any
//! two frames of a stream, and its loss has no consequence.

use bytes::Bytes;

use crate::media::Size;

/// Probability that a flag is 0 in 256ths, as if the flag were a bit of a number (RFC 6386 section 7.3).
const EVEN: u8 = 128;

/// The frame that shows the picture before it once more, about 30 to 150 bytes.
pub fn repeat_frame(size: Size) -> Bytes {
    let (columns, rows) = (size.width.div_ceil(16), size.height.div_ceil(16));
    let mut first = BoolEncoder::default();
    // Section 9.3: no segmentation. Section 9.4: loop filter of type 0, level 0, sharpness 0, no adjustments. Section
    // 9.5: one partition of coefficients. Section 9.6: quantizer 0 and no differences.
    first.zeros(1 + 1 + 6 + 3 + 1 + 2 + 7 + 5);
    // Section 9.7: golden and alternate frame are neither refreshed nor copied to, and keep their signs.
    first.zeros(1 + 1 + 2 + 2 + 1 + 1);
    // Probabilities are not kept. Section 9.8: the last frame is not refreshed, because it would not change.
    first.zeros(1 + 1);
    // Section 13.4: no probability of a coefficient changes.
    for row in COEFFICIENT_UPDATES {
        for at in 0..COEFFICIENT_TOKENS {
            first.write(row.get(at).copied().unwrap_or(255), false);
        }
    }
    // Section 9.10: macroblocks may be without coefficients, and nearly all are.
    first.write(EVEN, true);
    first.number(1, 8);
    // Nearly no macroblock is intra-coded; nearly all refer to the last frame, else to the golden frame.
    first.number(1, 8);
    first.number(255, 8);
    first.number(u32::from(EVEN), 8);
    // No probability of a mode changes. Section 17.2: none of a motion vector.
    first.zeros(1 + 1);
    for probability in MOTION_UPDATES {
        first.write(probability, false);
    }
    for row in 0..rows {
        for column in 0..columns {
            first.write(1, true);
            first.write(1, true);
            first.write(255, false);
            first.write(zero_motion(row > 0, column > 0), false);
        }
    }
    let first = first.finish();
    // Section 9.1: not a keyframe, version 0, shown.
    let tag = 1 | 1 << 4 | (first.len() as u32) << 5;
    let mut frame = tag.to_le_bytes()[..3].to_vec();
    frame.extend(first);
    frame.extend(BoolEncoder::default().finish());
    frame.into()
}

/// Probability of a zero motion vector (section 16.3): the more of the neighbours have one, the higher.
const fn zero_motion(has_above: bool, has_left: bool) -> u8 {
    match (has_above, has_left) {
        (false, false) => 7,
        (true, true) => 234,
        _ => 135,
    }
}

/// The boolean entropy encoder of section 7.3.
struct BoolEncoder {
    output: Vec<u8>,
    range: u32,
    bottom: u32,
    /// Shifts before a byte is complete.
    bits: u32,
}

impl Default for BoolEncoder {
    fn default() -> Self {
        Self { output: Vec::new(), range: 255, bottom: 0, bits: 24 }
    }
}

impl BoolEncoder {
    /// Writes a flag that is 0 with this probability in 256ths.
    fn write(&mut self, probability: u8, flag: bool) {
        let split = 1 + (((self.range - 1) * u32::from(probability)) >> 8);
        if flag {
            self.bottom = self.bottom.wrapping_add(split);
            self.range -= split;
        } else {
            self.range = split;
        }
        while self.range < 128 {
            self.range <<= 1;
            if self.bottom & 1 << 31 != 0 {
                self.carry();
            }
            self.bottom <<= 1;
            self.bits -= 1;
            if self.bits == 0 {
                self.output.push((self.bottom >> 24) as u8);
                self.bottom &= (1 << 24) - 1;
                self.bits = 8;
            }
        }
    }

    fn zeros(&mut self, count: usize) {
        (0..count).for_each(|_| self.write(EVEN, false));
    }

    /// Writes a number of so many bits, the highest first.
    fn number(&mut self, number: u32, bits: u32) {
        (0..bits).rev().for_each(|bit| self.write(EVEN, number >> bit & 1 == 1));
    }

    fn carry(&mut self) {
        for byte in self.output.iter_mut().rev() {
            let (sum, carries) = byte.overflowing_add(1);
            *byte = sum;
            if !carries {
                break;
            }
        }
    }

    fn finish(mut self) -> Vec<u8> {
        // A number of 32 zero bits moves all that matters into the output.
        self.zeros(32);
        self.output
    }
}

/// Tokens with a probability of their own.
const COEFFICIENT_TOKENS: usize = 11;

/// Probabilities that a coefficient's probability is not updated (section 13.4), by block type, band and context.
/// Values that are missing at the end of a row are 255.
#[rustfmt::skip]
const COEFFICIENT_UPDATES: [&[u8]; 4 * 8 * 3] = [
    &[], &[], &[], &[176, 246], &[223, 241, 252], &[249, 253, 253], &[255, 244, 252], &[234, 254, 254], &[253],
    &[255, 246, 254], &[239, 253, 254], &[254, 255, 254], &[255, 248, 254], &[251, 255, 254], &[], &[255, 253, 254],
    &[251, 254, 254], &[254, 255, 254], &[255, 254, 253, 255, 254], &[250, 255, 254, 255, 254], &[254], &[], &[], &[],
    &[217], &[225, 252, 241, 253, 255, 255, 254], &[234, 250, 241, 250, 253, 255, 253, 254], &[255, 254],
    &[223, 254, 254], &[238, 253, 254, 254], &[255, 248, 254], &[249, 254], &[], &[255, 253], &[247, 254], &[],
    &[255, 253, 254], &[252], &[], &[255, 254, 254], &[253], &[], &[255, 254, 253], &[250], &[254], &[], &[], &[],
    &[186, 251, 250], &[234, 251, 244, 254], &[251, 251, 243, 253, 254, 255, 254], &[255, 253, 254], &[236, 253, 254],
    &[251, 253, 253, 254, 254], &[255, 254, 254], &[254, 254, 254], &[], &[255, 254], &[254, 254], &[254], &[],
    &[254], &[], &[], &[], &[], &[], &[], &[], &[], &[], &[], &[248], &[250, 254, 252, 254], &[248, 254, 249, 253],
    &[255, 253, 253], &[246, 253, 253], &[252, 254, 251, 254, 254], &[255, 254, 252], &[248, 254, 253],
    &[253, 255, 254, 254], &[255, 251, 254], &[245, 251, 254], &[253, 253, 254], &[255, 251, 253], &[252, 253, 254],
    &[255, 254], &[255, 252], &[249, 255, 254], &[255, 255, 254], &[255, 255, 253], &[250], &[], &[], &[254], &[],
];

/// Probabilities that a probability of a motion vector is not updated (section 17.2), rows first.
const MOTION_UPDATES: [u8; 2 * 19] = [
    237, 246, 253, 253, 254, 254, 254, 254, 254, 254, 254, 254, 254, 254, 250, 250, 252, 254, 254, 231, 243, 245, 253,
    254, 254, 254, 254, 254, 254, 254, 254, 254, 254, 251, 251, 254, 254, 254,
];

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::codec::{
        DecodeLimits, Decoded, Effort, EncodeSpec, H264Encoder, Picture, PictureMut, VideoDecoder, VideoEncoder,
    };
    use crate::media::Codec;
    use crate::time::Timestamp;

    const WAIT: Duration = Duration::from_secs(20);

    /// A picture with edges and gradients that depend on `seed`.
    fn textured(size: Size, seed: u32) -> Picture {
        let mut picture = PictureMut::new(size);
        let (planes, strides) = picture.planes();
        for (plane, stride) in planes.into_iter().zip(strides) {
            for (row, line) in plane.chunks_exact_mut(stride).enumerate() {
                for (column, pixel) in line.iter_mut().enumerate() {
                    *pixel = (((row as u32 / 5) ^ (column as u32 / 7)) * 29 + seed * 13 + column as u32) as u8;
                }
            }
        }
        picture.freeze()
    }

    fn planes(picture: &Picture) -> Vec<Vec<u8>> {
        let Size { width, height } = picture.size();
        [(width, height), (width.div_ceil(2), height.div_ceil(2)), (width.div_ceil(2), height.div_ceil(2))]
            .into_iter()
            .enumerate()
            .map(|(i, (width, height))| {
                let (plane, stride) = picture.plane(i);
                (0..height as usize).flat_map(|row| plane[row * stride..][..width as usize].to_vec()).collect()
            })
            .collect()
    }

    /// Decodes frames one after the other.
    fn decoded(frames: &[Bytes]) -> Vec<Vec<Vec<u8>>> {
        let (to, pictures) = sync_channel(1);
        let sink = move |decoded| to.send(decoded).expect("taken");
        let mut decoder = VideoDecoder::new(Codec::Vp8, DecodeLimits::default(), sink).expect("installed");
        (0..)
            .zip(frames)
            .map(|(n, frame)| {
                decoder.push(frame.clone(), Timestamp::from_micros(n)).expect("taken");
                match pictures.recv_timeout(WAIT).expect("one in, one out") {
                    Decoded::Picture { picture, .. } => planes(&picture),
                    Decoded::KeyframeWanted => panic!("frame {n} refers to a missing picture"),
                    Decoded::Failed(reason) => panic!("frame {n}: {reason}"),
                }
            })
            .collect()
    }

    fn encoded(size: Size, pictures: u32) -> Vec<Bytes> {
        let (to, frames) = sync_channel(1);
        let (codec, h264, effort) = (Codec::Vp8, H264Encoder::X264, Effort::Good);
        let spec = EncodeSpec { codec, size, fps: 30, bitrate_kbps: 300, h264, threads: 1, effort };
        let mut encoder = VideoEncoder::new(spec, move |frame| to.send(frame.data).expect("taken")).expect("installed");
        (0..pictures)
            .map(|n| {
                assert!(encoder.push(&textured(size, n), Duration::from_millis(33) * n, false));
                frames.recv_timeout(WAIT).expect("one in, one out")
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        /// A decoder shows the same picture again, and decodes the frames that follow as if nothing had been between.
        #[test]
        fn a_repeated_picture_is_identical_and_the_stream_continues(
            (width, height) in (8..400_u32, 8..300_u32),
            repeats in prop::collection::vec(0..3_usize, 6),
        ) {
            let frames = encoded(Size::new(width * 2, height * 2), 6);
            let plain = decoded(&frames);
            let repeat = repeat_frame(Size::new(width * 2, height * 2));
            let (mut mixed, mut expected) = (Vec::new(), Vec::new());
            for ((frame, shown), repeats) in frames.iter().zip(&plain).zip(&repeats) {
                mixed.extend([frame.clone()].into_iter().chain(std::iter::repeat_n(repeat.clone(), *repeats)));
                expected.extend(std::iter::repeat_n(shown.clone(), 1 + repeats));
            }
            prop_assert!(decoded(&mixed) == expected);
        }

        #[test]
        fn a_repeated_picture_costs_few_bytes(width in 8..1_920_u32, height in 8..1_080_u32) {
            prop_assert!(repeat_frame(Size::new(width, height)).len() < 300);
        }
    }
}
