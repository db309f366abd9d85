//! Scaling and turning of I420 pictures, through libyuv.
//!
//! Owns: the only `unsafe` code of the crate: the calls to libyuv and the checks that make them sound.
//! Does not know: why. In: a picture and a picture to draw on. Why libyuv: docs/scaling.md.
#![allow(unsafe_code)]

use std::ffi::c_int;

use super::picture::{Picture, PictureMut};
use crate::media::{Rotation, Size};

/// libyuv's `kFilterBox`: averages all source pixels under a target pixel; becomes bilinear where less than half.
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

/// Panics unless the plane holds every row libyuv will touch: a safe caller must not be able to reach past its end.
fn check(plane: &[u8], stride: usize, size: Size, i: usize) {
    let half = usize::from(i > 0);
    let (width, height) = (size.width as usize, size.height as usize);
    let (width, height) = ((width + half) >> half, (height + half) >> half);
    assert!(width > 0 && height > 0 && width <= stride, "plane {i} of {size}: stride {stride}");
    assert!((height - 1) * stride + width <= plane.len(), "plane {i} of {size}: {} bytes", plane.len());
}

/// Draws `from` onto the whole of `to`.
///
/// # Panics
/// When a picture has no pixels.
pub fn scale(from: &Picture, to: &mut PictureMut) {
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

/// The size of a picture after turning it.
pub const fn rotated_size(size: Size, rotation: Rotation) -> Size {
    match rotation {
        Rotation::None | Rotation::Half => size,
        Rotation::Left | Rotation::Right => Size::new(size.height, size.width),
    }
}

/// Draws `from`, turned, onto `to`.
///
/// # Panics
/// When `to` is not of [`rotated_size`], or has no pixels.
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
    // SAFETY: as in `scale`; the target's size was compared with the turned source's.
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
            // libyuv's box rounds down where it averages many pixels.
            let near = |value: u8, expected: u8| value.abs_diff(expected) <= 4;
            prop_assert!(corners(&to).into_iter().all(|value| near(value, grey)));
            prop_assert!(near(to.plane(1).0[0], 90) && near(to.plane(2).0[0], 200));
        }

        #[test]
        fn scales_parts((x, y) in (0u32..40, 0u32..40), (w, h) in (1u32..40, 1u32..40)) {
            let whole = quadrants(Size::new(41, 41));
            if let Some(part) = whole.part(crate::media::Rect { x, y, width: w, height: h }) {
                let mut to = PictureMut::new(Size::new(20, 10));
                scale(&part, &mut to);
                prop_assert!(corners(&to.freeze()).iter().all(|value| (46..=200).contains(value)));
            }
        }
    }
}
