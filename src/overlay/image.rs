//! Uploaded images as bytes: their type and size, read from their first bytes before anything decodes them.
//!
//! Owns: [`Image`], its limits, and the detection of PNG, JPEG and SVG. Does not know: pixels; only the mixer decodes
//! images, in its own process. In: the body of an upload; out: a checked [`Image`], or what is wrong with it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::svg;

/// Longest image, in bytes.
pub const IMAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest side of a PNG or JPEG, in pixels.
pub const IMAGE_SIDE_MAX: u32 = 8_192;
/// Most pixels of a PNG or JPEG.
pub const IMAGE_PIXELS_MAX: u64 = 16_000_000;

/// The type of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageType {
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
    /// SVG.
    Svg,
}

/// An uploaded image, not decoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its type, by its first bytes.
    pub kind: ImageType,
    /// The file.
    pub bytes: Bytes,
}

/// Why bytes are no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The first bytes are of no known type.
    #[error("this is no PNG, JPEG or SVG: send one of these")]
    Unknown,
    /// Too large, or with parts that are not drawn.
    #[error("{0}")]
    Refused(String),
}

impl ImageType {
    /// The media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Svg => "image/svg+xml",
        }
    }
}

impl Image {
    /// Checks an upload.
    ///
    /// # Errors
    /// What is wrong with it, and what is possible.
    pub fn check(bytes: Bytes) -> Result<Self, ImageError> {
        let refused = |why: String| Err(ImageError::Refused(why));
        if bytes.len() > IMAGE_BYTES_MAX {
            return refused(format!("the image has more than {IMAGE_BYTES_MAX} bytes: make it smaller"));
        }
        let (kind, size) = if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            (ImageType::Png, Some(png_size(&bytes)))
        } else if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
            (ImageType::Jpeg, Some(jpeg_size(&bytes)))
        } else if let Some(text) = svg_text(&bytes) {
            svg::check(text).map_err(ImageError::Refused)?;
            (ImageType::Svg, None)
        } else {
            return Err(ImageError::Unknown);
        };
        match size {
            Some(None) => refused("the image is damaged: its size cannot be read".into()),
            Some(Some((width, height))) if !fits(width, height) => refused(format!(
                "the image has {width}x{height} pixels: sides are 1 to {IMAGE_SIDE_MAX}, and all pixels at most \
                 {IMAGE_PIXELS_MAX}"
            )),
            _ => Ok(Self { kind, bytes }),
        }
    }
}

/// Whether an image of this size is decoded.
pub fn fits(width: u32, height: u32) -> bool {
    (1..=IMAGE_SIDE_MAX).contains(&width)
        && (1..=IMAGE_SIDE_MAX).contains(&height)
        && u64::from(width) * u64::from(height) <= IMAGE_PIXELS_MAX
}

/// Width and height in the chunk IHDR, which comes first.
fn png_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let number = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    (bytes.get(12..16)? == b"IHDR").then_some((number(16)?, number(20)?))
}

/// Width and height in the frame header (ITU T.81 section B.2.2).
fn jpeg_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let number = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let mut at = 2;
    loop {
        let (marker, code) = (*bytes.get(at)?, *bytes.get(at + 1)?);
        if marker != 0xff {
            return None;
        }
        match code {
            // A fill byte.
            0xff => at += 1,
            0x01 | 0xd0..=0xd7 => at += 2,
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                return Some((number(at + 7)?.into(), number(at + 5)?.into()));
            }
            // The end, or the beginning of a scan before a frame header.
            0xd8..=0xda => return None,
            _ => at += 2 + usize::from(number(at + 2)?).max(2),
        }
    }
}

/// The text, if it looks like an SVG document.
fn svg_text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let begins = ["<svg", "<?xml", "<!--", "<!DOCTYPE"].iter().any(|start| text.starts_with(start));
    (begins && text.contains("<svg")).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
        png.extend(width.to_be_bytes());
        png.extend(height.to_be_bytes());
        png
    }

    fn jpeg(width: u16, height: u16) -> Vec<u8> {
        // APP0 of 4 bytes, a fill byte, then the frame header.
        let mut jpeg = vec![0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2, 0xff, 0xff, 0xc2, 0, 17, 8];
        jpeg.extend(height.to_be_bytes());
        jpeg.extend(width.to_be_bytes());
        jpeg
    }

    fn check(bytes: &[u8]) -> Result<ImageType, ImageError> {
        Image::check(Bytes::copy_from_slice(bytes)).map(|image| image.kind)
    }

    #[test]
    fn the_type_follows_from_the_first_bytes() {
        assert_eq!(check(&png(320, 200)), Ok(ImageType::Png));
        assert_eq!(check(&jpeg(320, 200)), Ok(ImageType::Jpeg));
        assert_eq!(check(b"\xef\xbb\xbf <?xml version=\"1.0\"?><svg></svg>"), Ok(ImageType::Svg));
        for bytes in [&b"GIF89a"[..], b"", b"<html><svg></svg></html>", b"<?xml?><rss/>", b"RIFF1234WEBP"] {
            assert_eq!(check(bytes), Err(ImageError::Unknown));
        }
    }

    #[test]
    fn images_that_are_too_large_or_have_more_than_shapes_are_refused() {
        for (bytes, part) in [
            (png(8_193, 1), "8193x1"),
            (png(8_000, 8_000), "16000000"),
            (png(0, 5), "0x5"),
            (png(1, 1)[..20].to_vec(), "damaged"),
            (jpeg(65_535, 65_535), "65535x65535"),
            (jpeg(9, 9)[..12].to_vec(), "damaged"),
            (b"\xff\xd8\xff\xda\0\x02".to_vec(), "damaged"),
            (b"<svg><image href='file:///etc/passwd'/></svg>".to_vec(), "<image"),
            ([png(9, 9), vec![0; IMAGE_BYTES_MAX]].concat(), "4194304"),
        ] {
            let Err(ImageError::Refused(why)) = check(&bytes) else { panic!("{part} was taken") };
            assert!(why.contains(part), "{why}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(start in 0usize..3, rest in proptest::collection::vec(any::<u8>(), 0..200)) {
            let start: &[u8] = [&b"\x89PNG\r\n\x1a\n"[..], &[0xff, 0xd8, 0xff, 0xe0], b"<svg"][start];
            drop(check(&[start, &rest].concat()));
        }
    }
}
