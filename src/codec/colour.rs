//! Colour space conversion of I420 pictures whose matrix or range (ITU-T H.273) differs from that of the canvas.
//!
//! Owns: the conversion to [`Colours::default`] (limited-range BT.601), in place. Does not know: how the colour space
//! of a picture was signalled. In and out: a picture. Browsers send a captured HTML canvas as full-range BT.709, and a
//! camera as limited-range BT.601.

use super::picture::PictureMut;
use crate::media::{Colours, Matrix};

/// The number 1 in fixed point. With 16 fractional bits, products with 8-bit samples fit into an `i32`.
const ONE: f64 = 65_536.0;
/// Fractional bits.
const SHIFT: u32 = 16;

/// Converts a picture with these colours to the default colours.
pub fn to_default(picture: &mut PictureMut, from: Colours) {
    if from == Colours::default() {
        return;
    }
    let conversion = Conversion::new(from);
    let size = picture.size();
    let (width, height) = (size.width as usize, size.height as usize);
    let (chroma_width, chroma_height) = (width.div_ceil(2), height.div_ceil(2));
    let ([luma, blue, red], strides) = picture.planes();
    // The part of each luma sample that does not depend on itself; one per pair of columns.
    let mut offsets = vec![0_i32; chroma_width];
    for row in 0..chroma_height {
        let blue = &mut blue[row * strides[1]..][..chroma_width];
        let red = &mut red[row * strides[2]..][..chroma_width];
        for ((offset, blue), red) in offsets.iter_mut().zip(blue).zip(red) {
            let (cb, cr) = (i32::from(*blue) - 128, i32::from(*red) - 128);
            *offset = conversion.luma_offset(cb, cr);
            (*blue, *red) = conversion.chroma(cb, cr);
        }
        for row in row * 2..(row * 2 + 2).min(height) {
            let luma = &mut luma[row * strides[0]..][..width];
            for (pair, offset) in luma.chunks_mut(2).zip(&offsets) {
                for sample in pair {
                    *sample = ((i32::from(*sample) * conversion.luma_gain + offset) >> SHIFT).clamp(0, 255) as u8;
                }
            }
        }
    }
}

/// The affine map from a colour space to the default one, in fixed point. Grey stays grey, so luma has no influence on
/// chroma. Pairs are the coefficients of Cb and Cr.
struct Conversion {
    /// Coefficient of luma in luma.
    luma_gain: i32,
    /// Constant in luma, with the half that rounds.
    luma_constant: i32,
    luma_of: [i32; 2],
    blue_of: [i32; 2],
    red_of: [i32; 2],
}

impl Conversion {
    fn new(from: Colours) -> Self {
        let to = weights(Colours::default().matrix);
        // How Y, Cb and Cr depend on Cb and on Cr, all normalized (Y 0 to 1, Cb and Cr -0.5 to 0.5).
        let [by_blue, by_red] =
            [(1.0, 0.0), (0.0, 1.0)].map(|(cb, cr)| encode(to, decode(weights(from.matrix), cb, cr)));
        // From the source's range to the limited one: luma spans 219 or 255 steps, chroma 224 or 255; black is 16 or 0.
        let (luma_gain, luma_black, chroma_gain) =
            if from.full_range { (219.0 / 255.0, 0.0, 224.0 / 255.0) } else { (1.0, 16.0, 1.0) };
        let fixed = |value: f64| (value * ONE).round() as i32;
        let pair = |at: usize, scale: f64| [fixed(by_blue[at] * scale), fixed(by_red[at] * scale)];
        Self {
            luma_gain: fixed(luma_gain),
            luma_constant: fixed(16.0 - luma_black * luma_gain + 0.5),
            luma_of: pair(0, chroma_gain * 219.0 / 224.0),
            blue_of: pair(1, chroma_gain),
            red_of: pair(2, chroma_gain),
        }
    }

    /// The part of a luma sample that depends on chroma, and the constant part, in fixed point.
    fn luma_offset(&self, cb: i32, cr: i32) -> i32 {
        self.luma_constant + self.luma_of[0] * cb + self.luma_of[1] * cr
    }

    /// Cb and Cr after the conversion. The arguments are without their offset of 128.
    fn chroma(&self, cb: i32, cr: i32) -> (u8, u8) {
        let sample = |of: [i32; 2]| {
            let centred = (of[0] * cb + of[1] * cr + (1 << (SHIFT - 1))) >> SHIFT;
            (centred + 128).clamp(0, 255) as u8
        };
        (sample(self.blue_of), sample(self.red_of))
    }
}

/// Weights of red and blue in luma: Kr and Kb (ITU-T H.273 table 4).
const fn weights(matrix: Matrix) -> (f64, f64) {
    match matrix {
        Matrix::Bt601 => (0.299, 0.114),
        Matrix::Bt709 => (0.2126, 0.0722),
    }
}

/// Normalized red, green and blue of a colour with Y = 0.
fn decode((kr, kb): (f64, f64), cb: f64, cr: f64) -> [f64; 3] {
    let red = 2.0 * (1.0 - kr) * cr;
    let blue = 2.0 * (1.0 - kb) * cb;
    [red, -(kr * red + kb * blue) / (1.0 - kr - kb), blue]
}

/// Normalized Y, Cb and Cr of a colour.
fn encode((kr, kb): (f64, f64), [red, green, blue]: [f64; 3]) -> [f64; 3] {
    let luma = kr * red + (1.0 - kr - kb) * green + kb * blue;
    [luma, (blue - luma) / (2.0 * (1.0 - kb)), (red - luma) / (2.0 * (1.0 - kr))]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::Picture;
    use crate::media::Size;

    /// The samples of a colour from a sender with these colours.
    fn samples(rgb: [f64; 3], colours: Colours) -> [f64; 3] {
        let [y, cb, cr] = encode(weights(colours.matrix), rgb.map(|value| value / 255.0));
        if colours.full_range {
            [y * 255.0, 128.0 + cb * 255.0, 128.0 + cr * 255.0]
        } else {
            [16.0 + y * 219.0, 128.0 + cb * 224.0, 128.0 + cr * 224.0]
        }
    }

    fn any_colours() -> impl Strategy<Value = Colours> {
        (prop::sample::select(vec![Matrix::Bt601, Matrix::Bt709]), any::<bool>())
            .prop_map(|(matrix, full_range)| Colours { matrix, full_range })
    }

    proptest! {
        #[test]
        fn every_colour_is_preserved(
            rgb in prop::array::uniform3(0.0..=255.0_f64),
            colours in any_colours(),
            odd in any::<bool>(),
        ) {
            let [y, u, v] = samples(rgb, colours).map(|value| value.round().clamp(0.0, 255.0) as u8);
            let size = if odd { Size::new(5, 3) } else { Size::new(6, 4) };
            let mut picture = PictureMut::reclaim(Picture::filled(size, y, u, v)).expect("it is not shared");
            to_default(&mut picture, colours);
            let picture = picture.freeze();
            let expected = samples(rgb, Colours::default());
            let (width, height) = (size.width as usize, size.height as usize);
            for (i, expected) in expected.into_iter().enumerate() {
                let (plane, stride) = picture.plane(i);
                let by = if i == 0 { 1 } else { 2 };
                for row in 0..height.div_ceil(by) {
                    for sample in &plane[row * stride..][..width.div_ceil(by)] {
                        // Rounded twice; rounding errors of chroma have different weights for red and blue.
                        let error = (f64::from(*sample) - expected).abs();
                        prop_assert!(error < 2.0, "plane {}: {} for {}", i, sample, expected);
                    }
                }
            }
        }
    }
}
