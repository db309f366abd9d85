//! Test pictures of the benchmarks.

use commingle::codec::{Picture, PictureMut};
use commingle::media::Size;

/// A moving picture with texture, so that encoders are loaded.
pub(super) fn moving(size: Size, frame: u64) -> Picture {
    let mut picture = PictureMut::new(size);
    let (planes, strides) = picture.planes();
    for (i, plane) in planes.into_iter().enumerate() {
        let by = if i == 0 { 1 } else { 2 };
        for y in 0..size.height / by {
            for x in 0..size.width / by {
                let (x, y, frame) = (x * by, y * by, frame as u32 * 3);
                let texture = (((x + frame) / 8) ^ ((y + frame / 2) / 8)) % 24 + (x * 7 + y * 13) % 5;
                let at = (y / by) as usize * strides[i] + (x / by) as usize;
                plane[at] =
                    if i == 0 { 60 + (x * 120 / size.width + texture) as u8 } else { 118 + (texture / 3) as u8 };
            }
        }
    }
    picture.freeze()
}
