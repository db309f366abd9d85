//! Uploaded images, decoded.
//!
//! Owns: the decoding of PNG, JPEG and SVG with limits of memory, and the scaling to the size that is drawn. Does not
//! know: overlays, where images come from. In: an [`Image`], whose size was checked by its first bytes; what decoders
//! read is checked again. Out: a [`Bitmap`]. Decoding takes longer than a tick, so it is not done on the thread of the
//! compositor; JPEG and PNG are decoded by safe Rust.

use std::io::Cursor;

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::raster::Raster;
use super::sprite::yuv;
use crate::codec::{Picture, PictureMut};
use crate::media::Size;
use crate::overlay::{IMAGE_PIXELS_MAX, IMAGE_SIDE_MAX, Image, ImageType, fits};

/// Longest side of a bitmap that is kept, in pixels; larger images are halved.
const KEPT_SIDE: usize = 1_920;
/// Longest side in which an SVG is drawn, in pixels.
const SVG_SIDE: f32 = 1_024.0;

/// A decoded image: premultiplied RGBA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    width: usize,
    height: usize,
    pixels: Vec<[u8; 4]>,
}

impl Bitmap {
    /// Decodes an image.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(image: &Image) -> Result<Self, String> {
        let decoded = match image.kind {
            ImageType::Png => png(&image.bytes),
            ImageType::Jpeg => jpeg(&image.bytes),
            ImageType::Svg => svg(&image.bytes),
        };
        let mut bitmap = decoded.map_err(|why| format!("the image cannot be decoded: {why}"))?;
        while bitmap.width.max(bitmap.height) > KEPT_SIDE {
            bitmap = bitmap.halved();
        }
        Ok(bitmap)
    }

    /// A bitmap of rows of `channels` bytes a pixel: grey, grey and alpha, RGB, or RGBA.
    fn of_rows(width: usize, height: usize, channels: usize, bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < width * height * channels {
            return Err("it is incomplete".into());
        }
        let pixels = bytes.chunks_exact(channels).take(width * height).map(|pixel| match *pixel {
            [grey] => [grey, grey, grey, 255],
            [grey, alpha] => premultiplied([grey, grey, grey, alpha]),
            [r, g, b] => [r, g, b, 255],
            [r, g, b, alpha] => premultiplied([r, g, b, alpha]),
            _ => [0; 4],
        });
        Ok(Self { width, height, pixels: pixels.collect() })
    }

    fn halved(&self) -> Self {
        let (width, height) = (self.width.div_ceil(2), self.height.div_ceil(2));
        let at = |x: usize, y: usize| self.pixels[y.min(self.height - 1) * self.width + x.min(self.width - 1)];
        let pixels = (0..width * height).map(|i| {
            let (x, y) = (i % width * 2, i / width * 2);
            let four = [at(x, y), at(x + 1, y), at(x, y + 1), at(x + 1, y + 1)];
            [0, 1, 2, 3].map(|c| (four.iter().map(|pixel| u32::from(pixel[c])).sum::<u32>().div_ceil(4)).min(255) as u8)
        });
        Self { width, height, pixels: pixels.collect() }
    }

    /// A picture of this size that the image covers; what does not fit is cut off at both sides. Black shines through
    /// where it is transparent.
    pub fn cover(&self, size: Size) -> Picture {
        let (width, height) = (size.width as usize, size.height as usize);
        // The part of the image with the aspect ratio of the picture.
        let part_width = (self.height * width / height).clamp(1, self.width);
        let part_height = (self.width * height / width).clamp(1, self.height);
        let (left, top) = ((self.width - part_width) / 2, (self.height - part_height) / 2);
        let rows = self.pixels.chunks_exact(self.width).skip(top).take(part_height);
        let pixels = rows.flat_map(|row| &row[left..left + part_width]).copied().collect();
        let raster = Self { width: part_width, height: part_height, pixels }.scaled(width, height);

        let mut picture = PictureMut::new(size);
        let (planes, strides) = picture.planes();
        for (i, (plane, stride)) in planes.into_iter().zip(strides).enumerate() {
            let by = if i == 0 { 1 } else { 2 };
            for (y, row) in plane.chunks_mut(stride).take(height.div_ceil(by)).enumerate() {
                for (x, sample) in row[..width.div_ceil(by)].iter_mut().enumerate() {
                    let mean = |channel: usize| {
                        let at =
                            |dx: usize, dy: usize| raster.pixels[(y * by + dy) * raster.width + x * by + dx][channel];
                        let sum: f32 = (0..by * by).map(|n| at(n % by, n / by)).sum();
                        (sum / (by * by) as f32 * 255.0).round().clamp(0.0, 255.0) as u8
                    };
                    *sample = yuv([mean(0), mean(1), mean(2)])[i];
                }
            }
        }
        picture.freeze()
    }

    /// Width by height.
    pub(super) fn aspect(&self) -> f32 {
        self.width as f32 / self.height as f32
    }

    /// The image in another size.
    pub(super) fn scaled(&self, width: usize, height: usize) -> Raster {
        let (columns, rows) = (weights(self.width, width), weights(self.height, height));
        // First to the width, only the pixels that are needed for the height.
        let mut narrow = vec![[0.0f32; 4]; width * self.height];
        for y in 0..self.height {
            let row = &self.pixels[y * self.width..][..self.width];
            for (to, (from, weights)) in narrow[y * width..][..width].iter_mut().zip(&columns) {
                for (pixel, weight) in row[*from..].iter().zip(weights) {
                    to.iter_mut().zip(pixel).for_each(|(to, value)| *to += f32::from(*value) / 255.0 * weight);
                }
            }
        }
        let mut raster = Raster::new(width, height);
        let stride = raster.width;
        for (y, (from, weights)) in rows.iter().enumerate() {
            let to = &mut raster.pixels[y * stride..][..width];
            for (row, weight) in narrow[from * width..].chunks_exact(width).zip(weights) {
                for (to, pixel) in to.iter_mut().zip(row) {
                    to.iter_mut().zip(pixel).for_each(|(to, value)| *to += value * weight);
                }
            }
        }
        raster
    }
}

fn premultiplied([r, g, b, alpha]: [u8; 4]) -> [u8; 4] {
    let by_alpha = |value: u8| ((u32::from(value) * u32::from(alpha) + 127) / 255) as u8;
    [by_alpha(r), by_alpha(g), by_alpha(b), alpha]
}

/// For each of `to` pixels: the first of `from` pixels that it depends on, and the weights of this one and the
/// following. A triangle as wide as two pixels of the coarser size.
fn weights(from: usize, to: usize) -> Vec<(usize, Vec<f32>)> {
    let scale = from as f32 / to as f32;
    let reach = scale.max(1.0);
    let one = |at: usize| {
        let center = (at as f32 + 0.5) * scale;
        let first = ((center - reach).floor().max(0.0) as usize).min(from - 1);
        let end = ((center + reach).ceil() as usize).clamp(first + 1, from);
        let weight = |pixel: usize| (1.0 - (pixel as f32 + 0.5 - center).abs() / reach).max(0.0);
        let weights: Vec<f32> = (first..end).map(weight).collect();
        let sum: f32 = weights.iter().sum();
        (first, weights.into_iter().map(|weight| weight / sum).collect())
    };
    (0..to).map(one).collect()
}

fn png(bytes: &[u8]) -> Result<Bitmap, String> {
    let mut decoder =
        png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: IMAGE_PIXELS_MAX as usize * 8 });
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(|error| error.to_string())?;
    let (width, height) = reader.info().size();
    if !fits(width, height) {
        return Err("it is too large".into());
    }
    let mut rows = vec![0; reader.output_buffer_size().ok_or("it is too large")?];
    let info = reader.next_frame(&mut rows).map_err(|error| error.to_string())?;
    Bitmap::of_rows(info.width as usize, info.height as usize, info.color_type.samples(), &rows)
}

fn jpeg(bytes: &[u8]) -> Result<Bitmap, String> {
    let side = IMAGE_SIDE_MAX as usize;
    let options =
        DecoderOptions::default().set_max_width(side).set_max_height(side).jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(Cursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| error.to_string())?;
    let (width, height) = decoder.dimensions().ok_or("it has no size")?;
    if !fits(width as u32, height as u32) {
        return Err("it is too large".into());
    }
    let rows = decoder.decode().map_err(|error| error.to_string())?;
    Bitmap::of_rows(width, height, 3, &rows)
}

/// Shapes only: images and texts within the SVG are not drawn.
fn svg(bytes: &[u8]) -> Result<Bitmap, String> {
    let options = usvg::Options {
        image_href_resolver: usvg::ImageHrefResolver {
            resolve_data: Box::new(|_, _, _| None),
            resolve_string: Box::new(|_, _| None),
        },
        ..usvg::Options::default()
    };
    let tree = usvg::Tree::from_data(bytes, &options).map_err(|error| error.to_string())?;
    let (width, height) = (tree.size().width(), tree.size().height());
    let scale = SVG_SIDE / width.max(height);
    let side = |length: f32| ((length * scale).round() as u32).clamp(1, SVG_SIDE as u32);
    let mut pixmap = Pixmap::new(side(width), side(height)).ok_or("it has no size")?;
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixmap.as_mut());
    let pixels = pixmap.data().chunks_exact(4).map(|pixel| [pixel[0], pixel[1], pixel[2], pixel[3]]).collect();
    Ok(Bitmap { width: pixmap.width() as usize, height: pixmap.height() as usize, pixels })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// A PNG of this size, left half red, right half transparent.
    fn half_red(width: u32, height: u32) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width, height);
        encoder.set_color(png::ColorType::Rgba);
        let mut writer = encoder.write_header().expect("a header");
        let row: Vec<u8> =
            (0..width).flat_map(|x| if x < width / 2 { [255, 0, 0, 255] } else { [0, 9, 9, 0] }).collect();
        writer.write_image_data(&row.repeat(height as usize)).expect("pixels");
        writer.finish().expect("an end");
        file
    }

    fn decode(bytes: &[u8]) -> Result<Bitmap, String> {
        Bitmap::decode(&Image::check(Bytes::copy_from_slice(bytes)).expect("an image"))
    }

    #[test]
    fn a_png_keeps_its_colours_and_transparency_at_every_scale() {
        let bitmap = decode(&half_red(64, 32)).expect("decoded");
        assert_eq!((bitmap.width, bitmap.height, bitmap.aspect()), (64, 32, 2.0));
        for (width, height) in [(16, 8), (64, 32), (200, 100)] {
            let raster = bitmap.scaled(width, height);
            let at = |x: usize| raster.pixels[height / 2 * raster.width + x];
            assert!(at(0)[0] > 0.99 && at(0)[3] > 0.99, "{:?}", at(0));
            assert!(at(width - 1)[3] < 0.01, "{:?}", at(width - 1));
            assert!(raster.pixels.iter().all(|pixel| pixel[0] <= pixel[3] + 0.001 && pixel[1] < 0.01), "{width}");
        }
    }

    #[test]
    fn large_images_are_halved_and_damaged_ones_refused() {
        let bitmap = decode(&half_red(2_400, 100)).expect("decoded");
        assert_eq!((bitmap.width, bitmap.height), (1_200, 50));
        let whole = half_red(64, 32);
        assert!(decode(&whole[..whole.len() - 20]).is_err());
        assert!(decode(&[0xff, 0xd8, 0xff, 0xc0, 0, 17, 8, 0, 9, 0, 9, 3]).is_err());
        assert!(decode(b"<svg xmlns='http://www.w3.org/2000/svg'><rect></svg>").is_err());
    }

    #[test]
    fn an_svg_is_drawn_in_its_aspect_ratio() {
        let svg = b"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 40 20'>\
            <rect width='20' height='20' fill='#00ff00'/></svg>";
        let bitmap = decode(svg).expect("decoded");
        assert_eq!((bitmap.width, bitmap.height), (1_024, 512));
        assert_eq!((bitmap.pixels[0], bitmap.pixels[1_023]), ([0, 255, 0, 255], [0; 4]));
    }
}
