//! Timed text (3GPP TS 26.245): captions in the lower part of the video.

use bytes::Bytes;

use super::boxes::boxed;
use crate::container::TrackSpec;

/// Name of the only font and its size: the defaults of ffmpeg, which would add them as markup to each text otherwise.
const FONT: &[u8] = b"Arial";
/// See [`FONT`]; players scale it.
const FONT_SIZE: u8 = 16;

/// A text sample (§5.17): length and text in UTF-8. An empty text shows nothing.
pub(in crate::container) fn text_sample(text: &[u8]) -> Bytes {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    let text = &text[..usize::from(length)];
    [&length.to_be_bytes(), text].concat().into()
}

/// A TextSampleEntry (§5.16): white letters on half transparent black, centred at the lower edge.
pub(super) fn text_entry(out: &mut Vec<u8>, spec: &TrackSpec) {
    let side = |pixels: u32| u16::try_from(pixels).unwrap_or(u16::MAX).to_be_bytes();
    boxed(out, b"tx3g", |out| {
        // Data reference 1, no display flags.
        out.extend([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
        // Horizontally centred (1), vertically at the bottom (-1); background.
        out.extend([1, 0xff, 0, 0, 0, 0x80]);
        // The text box: top, left, bottom, right.
        out.extend([0; 4]);
        out.extend(side(spec.size.height));
        out.extend(side(spec.size.width));
        // The style: for all characters, font 1, plain, white.
        out.extend([0, 0, 0, 0, 0, 1, 0, FONT_SIZE]);
        out.extend([0xff; 4]);
        boxed(out, b"ftab", |out| {
            out.extend([0, 1, 0, 1, FONT.len() as u8]);
            out.extend(FONT);
        });
    });
}
