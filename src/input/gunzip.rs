//! Responses compressed with gzip (RFC 1952), which some servers send although the request does not accept it.
//!
//! Owns: the recognition by the first bytes, because not every server declares it, and the limit on expansion. Does not
//! know: HTTP. In and out: bodies.

use std::io::{self, Cursor, Read};

use flate2::read::MultiGzDecoder;

/// The first bytes of a gzip file. No media begins with them.
const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Decompressed size in bytes that every response may have.
const SMALL: u64 = 4 << 20;
/// Ratio of decompressed to compressed size up to which larger responses are accepted. Playlists reach 30.
const EXPANSION_MAX: u64 = 100;

type Body = Box<dyn Read + Send>;

/// The contents of a body, and whether it is compressed. Waits for its first two bytes.
///
/// # Errors
/// Of reading the body.
pub(super) fn decompressed(mut body: Body) -> io::Result<(Body, bool)> {
    let mut first = Vec::with_capacity(MAGIC.len());
    body.by_ref().take(MAGIC.len() as u64).read_to_end(&mut first)?;
    let compressed = first == MAGIC;
    let body = Cursor::new(first).chain(body);
    if !compressed {
        return Ok((Box::new(body), false));
    }
    let expanded = Expanded { decoder: MultiGzDecoder::new(Counted { body, count: 0 }), count: 0 };
    Ok((Box::new(expanded), true))
}

/// Counts the bytes that are read.
struct Counted<R> {
    body: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.body.read(buffer)?;
        self.count += length as u64;
        Ok(length)
    }
}

/// Decompresses up to the limit.
struct Expanded<R> {
    decoder: MultiGzDecoder<Counted<R>>,
    count: u64,
}

impl<R: Read> Read for Expanded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.decoder.read(buffer)?;
        self.count += length as u64;
        if self.count > SMALL.max(self.decoder.get_ref().count * EXPANSION_MAX) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the decompressed response is too large"));
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).expect("room for it");
        encoder.finish().expect("room for it")
    }

    fn read(bytes: Vec<u8>) -> io::Result<(Vec<u8>, bool)> {
        let (mut body, compressed) = decompressed(Box::new(Cursor::new(bytes)))?;
        let mut read = Vec::new();
        body.read_to_end(&mut read)?;
        Ok((read, compressed))
    }

    #[test]
    fn compressed_bodies_are_recognized_and_others_are_kept() {
        let playlist = b"#EXTM3U\n#EXTINF:2.0,\nsegment.ts\n".repeat(100);
        assert_eq!(read(gzip(&playlist)).expect("whole"), (playlist.clone(), true));
        let twice = [gzip(&playlist), gzip(b"#EXT-X-ENDLIST\n")].concat();
        assert_eq!(read(twice).expect("whole").0, [&playlist[..], b"#EXT-X-ENDLIST\n"].concat());
        for plain in [&b""[..], b"G", &[0x1f], &playlist] {
            assert_eq!(read(plain.to_vec()).expect("whole"), (plain.to_vec(), false));
        }
    }

    #[test]
    fn damaged_bodies_and_bombs_are_errors() {
        let whole = gzip(&b"#EXTM3U\n".repeat(1000));
        assert!(read(whole[..whole.len() / 2].to_vec()).is_err());
        let bomb = gzip(&vec![0; 20 << 20]);
        assert!(bomb.len() < 100 << 10, "{} bytes", bomb.len());
        assert_eq!(read(bomb).map(|(bytes, _)| bytes.len()).expect_err("too much").kind(), io::ErrorKind::InvalidData);
    }
}
