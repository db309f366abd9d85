//! Pictures to and from PNG files.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use commingle::codec::Picture;
use commingle::media::Size;

/// RGB bytes of a picture (BT.601, limited range).
pub(crate) fn rgb(picture: &Picture) -> Vec<u8> {
    let size = picture.size();
    let planes: [(&[u8], usize); 3] = std::array::from_fn(|i| picture.plane(i));
    let value = |i: usize, x: u32, y: u32| f32::from(planes[i].0[y as usize * planes[i].1 + x as usize]);
    let mut bytes = Vec::with_capacity((size.width * size.height * 3) as usize);
    for (x, y) in (0..size.height).flat_map(|y| (0..size.width).map(move |x| (x, y))) {
        let luma = 1.164 * (value(0, x, y) - 16.0);
        let (u, v) = (value(1, x / 2, y / 2) - 128.0, value(2, x / 2, y / 2) - 128.0);
        let color = [luma + 1.596 * v, luma - 0.392 * u - 0.813 * v, luma + 2.017 * u];
        bytes.extend(color.map(|value| value.round().clamp(0.0, 255.0) as u8));
    }
    bytes
}

/// Writes RGB bytes.
pub(crate) fn write(path: &Path, size: Size, rgb: &[u8]) {
    let file = File::create(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut encoder = png::Encoder::new(BufWriter::new(file), size.width, size.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    encoder.write_header().and_then(|mut writer| writer.write_image_data(rgb)).expect("the disk takes it");
}

/// Reads RGB bytes.
pub(crate) fn read(path: &Path) -> (Size, Vec<u8>) {
    let hint = "is there no golden picture yet? UPDATE_GOLDEN=1 writes it";
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}; {hint}", path.display()));
    let mut reader = png::Decoder::new(BufReader::new(file)).read_info().expect("a PNG");
    let mut bytes = vec![0; reader.output_buffer_size().expect("small")];
    let info = reader.next_frame(&mut bytes).expect("whole");
    bytes.truncate(info.buffer_size());
    (Size::new(info.width, info.height), bytes)
}
