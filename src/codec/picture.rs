//! Pictures: I420 in memory, cheap to clone.
//!
//! Owns: [`Picture`] (shared, read only), [`PictureMut`] (one owner, writable) and the pool they come from. Does not
//! know: the contents. A picture is either the buffer of a decoder, mapped without a copy, or memory in GStreamer's
//! default layout of I420, which an encoder takes without a copy.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;

use crate::media::{Rect, Size};

/// An I420 picture. A clone shares the memory.
#[derive(Clone)]
pub struct Picture(Content);

#[derive(Clone)]
enum Content {
    Mapped(Arc<gst_video::VideoFrame<gst_video::video_frame::Readable>>),
    Owned(Arc<Pixels>),
    /// A part of another picture, with even edges.
    Part(Arc<Picture>, Rect),
}

/// Memory of one I420 picture in GStreamer's default layout: one plane after the other, rows padded to four bytes.
struct Pixels {
    size: Size,
    data: Vec<u8>,
}

const fn up(value: u32, to: u32) -> usize {
    (value.div_ceil(to) * to) as usize
}

/// Strides of the planes of an owned picture.
const fn strides(size: Size) -> [usize; 3] {
    let chroma = up(size.width.div_ceil(2), 4);
    [up(size.width, 4), chroma, chroma]
}

/// Rows of the planes.
const fn rows(size: Size) -> [usize; 3] {
    let chroma = size.height.div_ceil(2) as usize;
    [chroma * 2, chroma, chroma]
}

impl Pixels {
    fn new(size: Size) -> Self {
        let (strides, rows) = (strides(size), rows(size));
        let length = (0..3).map(|i| strides[i] * rows[i]).sum();
        Self { size, data: vec![0; length] }
    }

    fn plane(&self, i: usize) -> &[u8] {
        let (strides, rows) = (strides(self.size), rows(self.size));
        let start: usize = (0..i).map(|i| strides[i] * rows[i]).sum();
        &self.data[start..start + strides[i] * rows[i]]
    }
}

impl Picture {
    /// A picture of one colour.
    pub fn filled(size: Size, y: u8, u: u8, v: u8) -> Self {
        let mut picture = PictureMut::new(size);
        let (planes, _) = picture.planes();
        for (plane, value) in planes.into_iter().zip([y, u, v]) {
            plane.fill(value);
        }
        picture.freeze()
    }

    /// The picture in the buffer of a decoder; None if it is not I420 with 8 bits.
    pub(super) fn mapped(buffer: gst::Buffer, info: &gst_video::VideoInfo) -> Option<Self> {
        if info.format() != gst_video::VideoFormat::I420 {
            return None;
        }
        let frame = gst_video::VideoFrame::from_buffer_readable(buffer, info).ok()?;
        Some(Self(Content::Mapped(Arc::new(frame))))
    }

    /// Its size in pixels.
    pub fn size(&self) -> Size {
        match &self.0 {
            Content::Mapped(frame) => Size::new(frame.width(), frame.height()),
            Content::Owned(pixels) => pixels.size,
            Content::Part(_, rect) => rect.size(),
        }
    }

    /// Plane 0 (Y), 1 (U) or 2 (V) from its first pixel on, and its stride in bytes.
    ///
    /// # Panics
    /// If `i` is above 2.
    pub fn plane(&self, i: usize) -> (&[u8], usize) {
        match &self.0 {
            Content::Mapped(frame) => {
                let data = frame.plane_data(i as u32).expect("I420 has three planes");
                (data, frame.plane_stride()[i] as usize)
            }
            Content::Owned(pixels) => (pixels.plane(i), strides(pixels.size)[i]),
            Content::Part(whole, rect) => {
                let (data, stride) = whole.plane(i);
                let half = u32::from(i > 0);
                (&data[(rect.y >> half) as usize * stride + (rect.x >> half) as usize..], stride)
            }
        }
    }

    /// The part within `rect`, without a copy. Left and top are rounded down to even numbers, and `rect` is clipped to
    /// the picture. None if nothing is left.
    pub fn part(&self, rect: Rect) -> Option<Self> {
        let size = self.size();
        let (x, y) = (rect.x & !1, rect.y & !1);
        let (width, height) =
            (rect.width.min(size.width.checked_sub(x)?), rect.height.min(size.height.checked_sub(y)?));
        if width == 0 || height == 0 {
            return None;
        }
        if (x, y, width, height) == (0, 0, size.width, size.height) {
            return Some(self.clone());
        }
        let (whole, x, y) = match &self.0 {
            Content::Part(whole, outer) => (whole.clone(), outer.x + x, outer.y + y),
            _ => (Arc::new(self.clone()), x, y),
        };
        Some(Self(Content::Part(whole, Rect { x, y, width, height })))
    }

    /// A buffer for an encoder: shares owned memory, and copies a mapped picture.
    pub(super) fn to_buffer(&self) -> gst::Buffer {
        struct Lent(Arc<Pixels>);
        impl AsRef<[u8]> for Lent {
            fn as_ref(&self) -> &[u8] {
                &self.0.data
            }
        }
        if let Content::Owned(pixels) = &self.0 {
            return gst::Buffer::from_slice(Lent(pixels.clone()));
        }
        let copy = self.to_owned_picture();
        copy.to_buffer()
    }

    fn to_owned_picture(&self) -> Self {
        self.copied().freeze()
    }

    /// A copy that can be changed.
    pub(super) fn copied(&self) -> PictureMut {
        let mut copy = PictureMut::new(self.size());
        let (planes, strides) = copy.planes();
        for (i, plane) in planes.into_iter().enumerate() {
            let (from, from_stride) = self.plane(i);
            let width = if i == 0 { self.size().width } else { self.size().width.div_ceil(2) } as usize;
            let height = if i == 0 { self.size().height } else { self.size().height.div_ceil(2) } as usize;
            for row in 0..height {
                plane[row * strides[i]..][..width].copy_from_slice(&from[row * from_stride..][..width]);
            }
        }
        copy
    }
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({})", self.size())
    }
}

/// A picture being drawn: the only reference to its memory.
pub struct PictureMut(Arc<Pixels>);

impl PictureMut {
    /// A picture with undefined contents (zeros).
    pub fn new(size: Size) -> Self {
        Self(Arc::new(Pixels::new(size)))
    }

    /// Makes a picture writable and keeps its contents.
    ///
    /// # Errors
    /// Returns the picture if it is shared or mapped.
    pub fn reclaim(picture: Picture) -> Result<Self, Picture> {
        let Content::Owned(mut pixels) = picture.0 else { return Err(picture) };
        if Arc::get_mut(&mut pixels).is_some() { Ok(Self(pixels)) } else { Err(Picture(Content::Owned(pixels))) }
    }

    /// Its size in pixels.
    pub fn size(&self) -> Size {
        self.0.size
    }

    /// The planes Y, U, V and their strides in bytes.
    pub fn planes(&mut self) -> ([&mut [u8]; 3], [usize; 3]) {
        let pixels = Arc::get_mut(&mut self.0).expect("a PictureMut is the only reference");
        let (strides, rows) = (strides(pixels.size), rows(pixels.size));
        let (y, chroma) = pixels.data.split_at_mut(strides[0] * rows[0]);
        let (u, v) = chroma.split_at_mut(strides[1] * rows[1]);
        ([y, u, v], strides)
    }

    /// A buffer that elements may change in place.
    pub(super) fn into_buffer(self) -> gst::Buffer {
        gst::Buffer::from_mut_slice(Arc::into_inner(self.0).expect("a PictureMut is the only reference").data)
    }

    /// Makes the picture read only.
    pub fn freeze(self) -> Picture {
        Picture(Content::Owned(self.0))
    }
}

/// A pool of pictures of one size: memory is reused when its picture is not shared any more.
#[derive(Default)]
pub struct PicturePool {
    lent: Vec<Picture>,
}

impl PicturePool {
    /// Most pictures in the pool; further ones are not reused.
    const KEPT: usize = 4;

    /// A writable picture with undefined contents.
    pub fn take(&mut self, size: Size) -> PictureMut {
        self.lent.retain(|picture| picture.size() == size);
        for i in 0..self.lent.len() {
            match PictureMut::reclaim(self.lent.swap_remove(i)) {
                Ok(free) => return free,
                Err(used) => {
                    self.lent.push(used);
                    let last = self.lent.len() - 1;
                    self.lent.swap(i, last);
                }
            }
        }
        PictureMut::new(size)
    }

    /// Makes the picture read only, and keeps its memory in the pool.
    pub fn lend(&mut self, picture: PictureMut) -> Picture {
        let picture = picture.freeze();
        if self.lent.len() < Self::KEPT {
            self.lent.push(picture.clone());
        }
        picture
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_gstreamers() {
        crate::codec::init().expect("GStreamer is installed");
        for (width, height) in [(1280, 720), (2, 2), (426, 240), (854, 480), (33, 17)] {
            let info =
                gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, width, height).build().expect("plain");
            let size = Size::new(width, height);
            assert_eq!(info.stride(), strides(size).map(|stride| stride as i32), "{size}");
            let picture = PictureMut::new(size).freeze();
            assert_eq!(info.size(), picture.to_buffer().size(), "{size}");
        }
    }

    #[test]
    fn a_part_is_a_window_on_the_whole() {
        let mut picture = PictureMut::new(Size::new(16, 8));
        let (planes, strides) = picture.planes();
        for row in 0..8 {
            for column in 0..16 {
                planes[0][row * strides[0] + column] = (row * 16 + column) as u8;
            }
        }
        let picture = picture.freeze();
        let part = picture.part(Rect { x: 5, y: 2, width: 8, height: 4 }).expect("inside");
        assert_eq!(part.size(), Size::new(8, 4));
        assert_eq!(part.plane(0).0[0], 2 * 16 + 4);
        let inner = part.part(Rect { x: 2, y: 2, width: 100, height: 100 }).expect("inside");
        assert_eq!(inner.size(), Size::new(6, 2));
        assert_eq!(inner.plane(0).0[0], 4 * 16 + 6);
        assert!(picture.part(Rect { x: 16, y: 0, width: 2, height: 2 }).is_none());
        let copied = inner.to_owned_picture();
        assert_eq!(copied.plane(0).0[..6], inner.plane(0).0[..6]);
    }

    #[test]
    fn memory_is_reused_only_when_it_is_not_shared() {
        let size = Size::new(4, 4);
        let mut pool = PicturePool::default();
        let drawn = pool.take(size);
        let first = pool.lend(drawn);
        let address = first.plane(0).0.as_ptr();
        let drawn = pool.take(size);
        let second = pool.lend(drawn);
        assert_ne!(second.plane(0).0.as_ptr(), address);
        drop(first);
        assert_eq!(pool.take(size).freeze().plane(0).0.as_ptr(), address);
    }
}
