//! Limits on the bodies of HTTP responses that GStreamer reads as a whole: playlists of HLS, and what they name.
//!
//! Owns: the recognition of playlists by their first bytes, the limits. Does not know: HTTP. In and out: bodies. The
//! demuxer keeps a playlist and each of its lines in memory, also keys and, while they are decrypted, segments. A body
//! of another source is read only as fast as it is played, and may be endless.

use std::io::{self, Cursor, Read};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first line of a playlist (RFC 8216 section 4.3.1.1).
const PLAYLIST: &[u8] = b"#EXTM3U";
/// A byte order mark, which GStreamer permits before it.
const BYTE_ORDER_MARK: &[u8] = &[0xef, 0xbb, 0xbf];
/// Most bytes of a playlist: ten times one of a day with segments of six seconds.
const PLAYLIST_BYTES_MAX: u64 = 8 << 20;
/// Most lines of a playlist: a day with segments of four seconds has 65,000. Each needs 500 bytes of the demuxer.
const PLAYLIST_LINES_MAX: u64 = 100_000;
/// Most bytes of what a playlist names: 20 s at 50 Mbit/s.
const PART_BYTES_MAX: u64 = 128 << 20;

type Body = Box<dyn Read + Send>;

/// The limits of the responses of one source.
#[derive(Debug, Default)]
pub(super) struct BodyLimit {
    /// A playlist was read, so that the other bodies are its parts.
    has_playlist: AtomicBool,
}

impl BodyLimit {
    /// The body with its limit. Waits for its first bytes.
    ///
    /// # Errors
    /// Of reading the body.
    pub(super) fn limited(&self, mut body: Body) -> io::Result<Body> {
        let mut first = Vec::new();
        body.by_ref().take((BYTE_ORDER_MARK.len() + PLAYLIST.len()) as u64).read_to_end(&mut first)?;
        let text = first.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&first);
        let is_playlist = text.starts_with(PLAYLIST);
        if is_playlist {
            self.has_playlist.store(true, Ordering::Relaxed);
        }
        let body = Cursor::new(first).chain(body);
        Ok(match (is_playlist, self.has_playlist.load(Ordering::Relaxed)) {
            (true, _) => Box::new(Limited { body, bytes: PLAYLIST_BYTES_MAX, lines: PLAYLIST_LINES_MAX }),
            (false, true) => Box::new(Limited { body, bytes: PART_BYTES_MAX, lines: u64::MAX }),
            (false, false) => Box::new(body),
        })
    }
}

/// A body of which so many bytes and lines may still come.
struct Limited<R> {
    body: R,
    bytes: u64,
    lines: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.body.read(buffer)?;
        let lines =
            if self.lines == u64::MAX { 0 } else { buffer[..length].iter().filter(|byte| **byte == b'\n').count() };
        let rest = (self.bytes.checked_sub(length as u64), self.lines.checked_sub(lines as u64));
        let (Some(bytes), Some(lines)) = rest else {
            tracing::warn!("a playlist, or what it names, is too large: the source is not read any further");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the response is too large"));
        };
        (self.bytes, self.lines) = (bytes, lines);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a body to its end or error; returns how many bytes came before it.
    fn read(limit: &BodyLimit, body: impl Read + Send + 'static) -> (u64, bool) {
        let mut body = limit.limited(Box::new(body)).expect("readable");
        let (mut bytes, mut buffer) = (0, vec![0; 64 << 10]);
        loop {
            match body.read(&mut buffer) {
                Ok(0) => return (bytes, true),
                Ok(length) => bytes += length as u64,
                Err(_) => return (bytes, false),
            }
        }
    }

    fn playlist(line: &str, lines: usize) -> Cursor<Vec<u8>> {
        Cursor::new(format!("#EXTM3U\n{}", line.repeat(lines)).into_bytes())
    }

    #[test]
    fn long_and_endless_playlists_are_refused() {
        let limit = BodyLimit::default();
        assert!(read(&limit, playlist("#EXTINF:4,\nsegment.ts\n", 40_000)).1, "two days");
        let (bytes, whole) = read(&limit, playlist("#EXTINF:4,\nsegment.ts\n", 500_000));
        assert!(!whole && bytes < PLAYLIST_BYTES_MAX, "a million lines");
        let (bytes, whole) = read(&limit, playlist("\n", 1_000_000));
        assert!(!whole && bytes <= PLAYLIST_LINES_MAX, "of one byte");
        // One endless line, and one after a byte order mark.
        for begin in [&b"#EXTM3U"[..], &[BYTE_ORDER_MARK, PLAYLIST].concat()] {
            let (bytes, whole) = read(&limit, Cursor::new(begin.to_vec()).chain(io::repeat(b'x')));
            assert!(!whole && bytes <= PLAYLIST_BYTES_MAX);
        }
    }

    #[test]
    fn what_a_playlist_names_is_limited_and_other_sources_are_not() {
        let limit = BodyLimit::default();
        let endless = || io::repeat(b'x').take(PART_BYTES_MAX + 1);
        assert_eq!(read(&limit, endless()), (PART_BYTES_MAX + 1, true), "a source without a playlist");
        assert!(read(&limit, playlist("key\n", 3)).1);
        // A key, a segment, or the playlist when it is read again.
        let (bytes, whole) = read(&limit, endless());
        assert!(!whole && bytes <= PART_BYTES_MAX);
        assert_eq!(read(&limit, io::repeat(b'\n').take(1 << 20)), (1 << 20, true), "lines of a segment do not count");
        assert_eq!(read(&limit, io::empty()), (0, true));
    }
}
