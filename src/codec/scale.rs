//! Scaling and rotation of I420 pictures by libyuv; bilinear scaling by `bilinear` below, which is faster.
//!
//! Owns: the only `unsafe` code of the crate: the calls of libyuv, the SIMD loads, and the checks that make them sound.
//! Does not know: tiles. In: a picture. Out: another picture. docs/scaling.md has the measurements behind the choice.
#![allow(unsafe_code)]

use std::ffi::c_int;

use super::picture::{Picture, PictureMut};
use crate::media::{Rect, Rotation, Size};

/// `kFilterBox` of libyuv: the average of all source pixels under a target pixel; bilinear below two by two pixels.
const FILTER_BOX: c_int = 3;

#[link(name = "yuv")]
unsafe extern "C" {
    fn I420Scale(
        src_y: *const u8,
        src_stride_y: c_int,
        src_u: *const u8,
        src_stride_u: c_int,
        src_v: *const u8,
        src_stride_v: c_int,
        src_width: c_int,
        src_height: c_int,
        dst_y: *mut u8,
        dst_stride_y: c_int,
        dst_u: *mut u8,
        dst_stride_u: c_int,
        dst_v: *mut u8,
        dst_stride_v: c_int,
        dst_width: c_int,
        dst_height: c_int,
        filtering: c_int,
    ) -> c_int;

    fn I420Rotate(
        src_y: *const u8,
        src_stride_y: c_int,
        src_u: *const u8,
        src_stride_u: c_int,
        src_v: *const u8,
        src_stride_v: c_int,
        dst_y: *mut u8,
        dst_stride_y: c_int,
        dst_u: *mut u8,
        dst_stride_u: c_int,
        dst_v: *mut u8,
        dst_stride_v: c_int,
        width: c_int,
        height: c_int,
        mode: c_int,
    ) -> c_int;
}

/// Panics unless the plane contains every row that libyuv accesses: safe code must not cause an access past its end.
fn check(plane: &[u8], stride: usize, size: Size, i: usize) {
    let half = usize::from(i > 0);
    let (width, height) = (size.width as usize, size.height as usize);
    let (width, height) = ((width + half) >> half, (height + half) >> half);
    assert!(width > 0 && height > 0 && width <= stride, "plane {i} of {size}: stride {stride}");
    assert!((height - 1) * stride + width <= plane.len(), "plane {i} of {size}: {} bytes", plane.len());
}

/// Scales `from` to the size of `to`.
///
/// # Panics
/// If a picture has no pixels.
pub fn scale(from: &Picture, to: &mut PictureMut) {
    #[cfg(target_arch = "x86_64")]
    if bilinear::scale(from, to) {
        return;
    }
    scale_libyuv(from, to);
}

fn scale_libyuv(from: &Picture, to: &mut PictureMut) {
    let (src, dst) = (from.size(), to.size());
    let source: [(&[u8], usize); 3] = std::array::from_fn(|i| from.plane(i));
    let (planes, strides) = to.planes();
    for i in 0..3 {
        check(source[i].0, source[i].1, src, i);
        check(planes[i], strides[i], dst, i);
    }
    // SAFETY: `check` holds for every plane: from its start, `stride` and the plane's size stay inside the slice. The
    // target is borrowed mutably, so it overlaps no source. libyuv keeps no pointer.
    let failed = unsafe {
        I420Scale(
            source[0].0.as_ptr(),
            source[0].1 as c_int,
            source[1].0.as_ptr(),
            source[1].1 as c_int,
            source[2].0.as_ptr(),
            source[2].1 as c_int,
            src.width as c_int,
            src.height as c_int,
            planes[0].as_mut_ptr(),
            strides[0] as c_int,
            planes[1].as_mut_ptr(),
            strides[1] as c_int,
            planes[2].as_mut_ptr(),
            strides[2] as c_int,
            dst.width as c_int,
            dst.height as c_int,
            FILTER_BOX,
        )
    };
    assert_eq!(failed, 0, "libyuv scales {src} to {dst}");
}

/// Memory of the intermediate pictures of [`shrink`], reused.
#[derive(Default)]
pub struct Halves(Vec<PictureMut>);

/// Scales `from` to the size of `to`, and halves it first as often as possible: libyuv halves fast and exactly, while
/// its filter for other factors above two takes three times as long as bilinear scaling.
///
/// # Panics
/// If a picture has no pixels.
pub fn shrink(from: &Picture, to: &mut PictureMut, halves: &mut Halves) {
    let target = to.size();
    let mut from = from.clone();
    let mut kept = std::mem::take(&mut halves.0).into_iter();
    loop {
        let Size { width, height } = from.size();
        let half = Size::new(width / 2, height / 2);
        if half.width < target.width || half.height < target.height || half == target {
            break;
        }
        let mut smaller = match kept.next() {
            Some(kept) if kept.size() == half => kept,
            _ => PictureMut::new(half),
        };
        let even = Rect { x: 0, y: 0, width: half.width * 2, height: half.height * 2 };
        scale(&from.part(even).expect("not empty"), &mut smaller);
        keep(halves, std::mem::replace(&mut from, smaller.freeze()));
    }
    scale(&from, to);
    keep(halves, from);
}

fn keep(halves: &mut Halves, picture: Picture) {
    // The first picture belongs to the caller and may be shared.
    if let Ok(half) = PictureMut::reclaim(picture) {
        halves.0.push(half);
    }
}

/// The size of a picture after rotation.
pub const fn rotated_size(size: Size, rotation: Rotation) -> Size {
    match rotation {
        Rotation::None | Rotation::Half => size,
        Rotation::Left | Rotation::Right => Size::new(size.height, size.width),
    }
}

/// Rotates `from` into `to`.
///
/// # Panics
/// If `to` has another size than [`rotated_size`], or no pixels.
pub fn rotate(from: &Picture, rotation: Rotation, to: &mut PictureMut) {
    let src = from.size();
    assert_eq!(to.size(), rotated_size(src, rotation), "size of the turned picture");
    let mode = match rotation {
        Rotation::None => 0,
        Rotation::Right => 90,
        Rotation::Half => 180,
        Rotation::Left => 270,
    };
    let dst = to.size();
    let source: [(&[u8], usize); 3] = std::array::from_fn(|i| from.plane(i));
    let (planes, strides) = to.planes();
    for i in 0..3 {
        check(source[i].0, source[i].1, src, i);
        check(planes[i], strides[i], dst, i);
    }
    // SAFETY: as in `scale`; the size of the target was compared with that of the rotated source.
    let failed = unsafe {
        I420Rotate(
            source[0].0.as_ptr(),
            source[0].1 as c_int,
            source[1].0.as_ptr(),
            source[1].1 as c_int,
            source[2].0.as_ptr(),
            source[2].1 as c_int,
            planes[0].as_mut_ptr(),
            strides[0] as c_int,
            planes[1].as_mut_ptr(),
            strides[1] as c_int,
            planes[2].as_mut_ptr(),
            strides[2] as c_int,
            src.width as c_int,
            src.height as c_int,
            mode,
        )
    };
    assert_eq!(failed, 0, "libyuv turns {src}");
}

/// Bilinear scaling by factors without a fast path in libyuv, which computes two pixels at a time; this code computes
/// eight (SSSE3).
#[cfg(target_arch = "x86_64")]
mod bilinear {
    use std::arch::x86_64::*;

    use super::super::picture::{Picture, PictureMut};

    /// Weights are 64ths: the largest that fit the signed bytes of `pmaddubsw`.
    const ONE: u32 = 64;

    /// The two source pixels next to a target pixel, and the distance from the first.
    fn between(at: usize, from: usize, to: usize) -> (usize, usize, u32) {
        let center = (2 * at + 1) * from * ONE as usize;
        let position = (center / (2 * to)).saturating_sub(ONE as usize / 2);
        let first = position / ONE as usize;
        (first, (first + 1).min(from - 1), position as u32 % ONE)
    }

    /// The sources of eight target pixels in a row.
    struct Eight {
        /// Index of the first target pixel.
        target: usize,
        /// Index of the first of sixteen source bytes.
        source: usize,
        pick: [u8; 16],
        weigh: [u8; 16],
    }

    /// None if eight target pixels need more than sixteen source pixels, or a side is too short.
    fn plan(from: usize, to: usize) -> Option<Vec<Eight>> {
        let last_source = from.checked_sub(16)?;
        let last_target = to.checked_sub(8)?;
        (0..to)
            .step_by(8)
            .map(|target| {
                let target = target.min(last_target);
                let source = between(target, from, to).0.min(last_source);
                let (mut pick, mut weigh) = ([0; 16], [0; 16]);
                for i in 0..8 {
                    let (first, second, weight) = between(target + i, from, to);
                    (pick[2 * i], pick[2 * i + 1]) = ((first - source) as u8, (second - source) as u8);
                    (weigh[2 * i], weigh[2 * i + 1]) = ((ONE - weight) as u8, weight as u8);
                }
                pick.iter().all(|pick| *pick < 16).then_some(Eight { target, source, pick, weigh })
            })
            .collect()
    }

    /// Scales if this is the fastest method; otherwise returns false and draws nothing.
    pub(super) fn scale(from: &Picture, to: &mut PictureMut) -> bool {
        let (src, dst) = (from.size(), to.size());
        // From one half downwards two taps skip pixels; at whole factors libyuv only averages or doubles.
        let fits = |from: u32, to: u32| from < 2 * to;
        let doubled = 2 * src.width == dst.width && 2 * src.height == dst.height;
        if src == dst || doubled || !fits(src.width, dst.width) || !fits(src.height, dst.height) {
            return false;
        }
        if !is_x86_feature_detected!("ssse3") {
            return false;
        }
        let half = |side: u32| side.div_ceil(2) as usize;
        let (Some(luma), Some(chroma)) =
            (plan(src.width as usize, dst.width as usize), plan(half(src.width), half(dst.width)))
        else {
            return false;
        };
        let (planes, strides) = to.planes();
        for (i, target) in planes.into_iter().enumerate() {
            let (source, stride) = from.plane(i);
            let full = [src.width as usize, src.height as usize, dst.height as usize];
            let [width, rows, target_rows] =
                if i == 0 { full } else { [half(src.width), half(src.height), half(dst.height)] };
            let across = if i == 0 { &luma } else { &chroma };
            let mut blended = vec![0; width];
            for (row, target) in target.chunks_mut(strides[i]).take(target_rows).enumerate() {
                let (first, second, weight) = between(row, rows, target_rows);
                let (first, second) = (&source[first * stride..][..width], &source[second * stride..][..width]);
                // SAFETY: the processor has SSSE3, checked above.
                unsafe {
                    if weight == 0 {
                        row_across(first, target, across);
                    } else {
                        rows_blended(first, second, weight, &mut blended);
                        row_across(&blended, target, across);
                    }
                }
            }
        }
        true
    }

    fn load(bytes: &[u8; 16]) -> __m128i {
        // SAFETY: sixteen bytes are read, unaligned, from an array of sixteen.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    /// Multiplies pairs of pixels with pairs of weights and adds, rounding.
    #[target_feature(enable = "ssse3")]
    fn weighed(pairs: __m128i, weights: __m128i) -> __m128i {
        let sums = _mm_maddubs_epi16(pairs, weights);
        _mm_srli_epi16::<6>(_mm_add_epi16(sums, _mm_set1_epi16(ONE as i16 / 2)))
    }

    #[target_feature(enable = "ssse3")]
    fn rows_blended(first: &[u8], second: &[u8], weight: u32, to: &mut [u8]) {
        let weights = _mm_set1_epi16((weight << 8 | (ONE - weight)) as i16);
        let (first, first_rest) = first.as_chunks::<16>();
        let (second, second_rest) = second.as_chunks::<16>();
        let (to, to_rest) = to.as_chunks_mut::<16>();
        for ((first, second), to) in first.iter().zip(second).zip(to) {
            let (first, second) = (load(first), load(second));
            let low = weighed(_mm_unpacklo_epi8(first, second), weights);
            let high = weighed(_mm_unpackhi_epi8(first, second), weights);
            // SAFETY: sixteen bytes are written, unaligned, to an array of sixteen.
            unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), _mm_packus_epi16(low, high)) };
        }
        for ((first, second), to) in first_rest.iter().zip(second_rest).zip(to_rest) {
            *to = ((u32::from(*first) * (ONE - weight) + u32::from(*second) * weight + ONE / 2) / ONE) as u8;
        }
    }

    #[target_feature(enable = "ssse3")]
    fn row_across(from: &[u8], to: &mut [u8], plan: &[Eight]) {
        for eight in plan {
            let source = from[eight.source..].first_chunk().expect("planned inside the row");
            let pairs = _mm_shuffle_epi8(load(source), load(&eight.pick));
            let pixels = weighed(pairs, load(&eight.weigh));
            let low = _mm_cvtsi128_si64(_mm_packus_epi16(pixels, pixels));
            to[eight.target..][..8].copy_from_slice(&low.to_le_bytes());
        }
    }

    #[cfg(test)]
    mod tests {
        use proptest::prelude::*;

        use super::*;
        use crate::media::Size;

        fn noise(size: Size, seed: u32) -> Picture {
            let mut picture = PictureMut::new(size);
            let mut state = seed | 1;
            let (planes, _) = picture.planes();
            for value in planes.into_iter().flatten() {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *value = (state >> 24) as u8;
            }
            picture.freeze()
        }

        proptest! {
            #[test]
            fn is_what_bilinear_means(
                (w, h) in (32u32..130, 4u32..70), (tw, th) in (32u32..130, 4u32..70), seed: u32,
            ) {
                let from = noise(Size::new(w, h), seed);
                let mut to = PictureMut::new(Size::new(tw, th));
                if !scale(&from, &mut to) {
                    return Ok(());
                }
                let to = to.freeze();
                for i in 0..3 {
                    let sides = |size: Size| {
                        let half = |side: u32| if i == 0 { side } else { side.div_ceil(2) } as usize;
                        (half(size.width), half(size.height))
                    };
                    let ((w, h), (tw, th)) = (sides(from.size()), sides(to.size()));
                    let ((source, stride), (target, target_stride)) = (from.plane(i), to.plane(i));
                    let at = |x: usize, y: usize| f64::from(source[y * stride + x]);
                    let place = |at: usize, from: usize, to: usize| {
                        let position = (at as f64 + 0.5) * from as f64 / to as f64 - 0.5;
                        let position = position.clamp(0.0, from as f64 - 1.0);
                        (position as usize, (position as usize + 1).min(from - 1), position.fract())
                    };
                    for (x, y) in (0..th).flat_map(|y| (0..tw).map(move |x| (x, y))) {
                        let ((x0, x1, fx), (y0, y1, fy)) = (place(x, w, tw), place(y, h, th));
                        let upper = at(x0, y0) * (1.0 - fx) + at(x1, y0) * fx;
                        let lower = at(x0, y1) * (1.0 - fx) + at(x1, y1) * fx;
                        let exact = upper * (1.0 - fy) + lower * fy;
                        let seen = f64::from(target[y * target_stride + x]);
                        // Positions are rounded to 64ths of a pixel, in both directions.
                        prop_assert!((seen - exact).abs() <= 10.0, "plane {} at {},{}: {} {}", i, x, y, seen, exact);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn corners(picture: &Picture) -> [u8; 4] {
        let (y, stride) = picture.plane(0);
        let (width, height) = (picture.size().width as usize, picture.size().height as usize);
        let at = |column: usize, row: usize| y[row * stride + column];
        [at(0, 0), at(width - 1, 0), at(0, height - 1), at(width - 1, height - 1)]
    }

    fn quadrants(size: Size) -> Picture {
        let mut picture = PictureMut::new(size);
        let (planes, strides) = picture.planes();
        for row in 0..size.height {
            for column in 0..size.width {
                let value = 50 * (1 + u8::from(column >= size.width / 2) + 2 * u8::from(row >= size.height / 2));
                planes[0][row as usize * strides[0] + column as usize] = value;
            }
        }
        picture.freeze()
    }

    #[test]
    fn turns_clockwise() {
        let picture = quadrants(Size::new(16, 8));
        assert_eq!(corners(&picture), [50, 100, 150, 200]);
        for (rotation, expected) in [
            (Rotation::None, [50, 100, 150, 200]),
            (Rotation::Right, [150, 50, 200, 100]),
            (Rotation::Half, [200, 150, 100, 50]),
            (Rotation::Left, [100, 200, 50, 150]),
        ] {
            let mut turned = PictureMut::new(rotated_size(picture.size(), rotation));
            rotate(&picture, rotation, &mut turned);
            assert_eq!(corners(&turned.freeze()), expected, "{rotation:?}");
        }
    }

    proptest! {
        #[test]
        fn scales_any_size_and_keeps_the_corners(
            (w, h) in (1u32..90, 1u32..90), (tw, th) in (1u32..90, 1u32..90), grey in 0u8..=255,
        ) {
            let mut to = PictureMut::new(Size::new(tw, th));
            scale(&Picture::filled(Size::new(w, h), grey, 90, 200), &mut to);
            let to = to.freeze();
            // The box filter of libyuv rounds down when it averages many pixels.
            let near = |value: u8, expected: u8| value.abs_diff(expected) <= 4;
            prop_assert!(corners(&to).into_iter().all(|value| near(value, grey)));
            prop_assert!(near(to.plane(1).0[0], 90) && near(to.plane(2).0[0], 200));
        }

        #[test]
        fn shrinks_like_it_scales(
            (w, h) in (1u32..200, 1u32..200),
            (tw, th) in (1u32..60, 1u32..60),
            grey in 0u8..=255,
        ) {
            let from = Picture::filled(Size::new(w, h), grey, 90, 200);
            let mut halves = Halves::default();
            for _ in 0..2 {
                let mut to = PictureMut::new(Size::new(tw, th));
                shrink(&from, &mut to, &mut halves);
                prop_assert!(corners(&to.freeze()).into_iter().all(|value| value.abs_diff(grey) <= 4));
                prop_assert_eq!(from.plane(0).0[0], grey, "the source stays as it was");
            }
        }

        #[test]
        fn scales_parts((x, y) in (0u32..40, 0u32..40), (w, h) in (1u32..40, 1u32..40)) {
            let whole = quadrants(Size::new(41, 41));
            if let Some(part) = whole.part(Rect { x, y, width: w, height: h }) {
                let mut to = PictureMut::new(Size::new(20, 10));
                scale(&part, &mut to);
                prop_assert!(corners(&to.freeze()).iter().all(|value| (46..=200).contains(value)));
            }
        }
    }
}
