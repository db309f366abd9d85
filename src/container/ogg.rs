//! Opus in Ogg (RFC 3533, 7845): pages of complete packets.
//!
//! A growing file is an ordinary one without an end-of-stream page. To finish it, its last complete page gets that
//! flag.
//!
//! Owns: page layout, checksums and the muxer. Does not know: files.

use std::io::SeekFrom;

use bytes::Bytes;

use super::reader::{FileReader, check_tail};
use super::{ContainerError, FileSummary, Sample, Storage, TrackSpec, UNITS, duration_of};
use crate::media::{AUDIO_RATE, FileFormat};

/// Length of a page header without its segment table.
const HEAD: usize = 27;
/// Page flag: beginning of stream.
const FIRST: u8 = 2;
/// Page flag: end of stream.
const LAST: u8 = 4;
/// Serial number of the file's only logical stream.
const SERIAL: u32 = 1;
/// Most segments of one page.
const MAX_SEGMENTS: usize = 255;

/// Header of a growing file: OpusHead and OpusTags, a page each.
pub(super) fn header(track: &TrackSpec) -> Bytes {
    let mut tags = b"OpusTags".to_vec();
    let put = |tags: &mut Vec<u8>, text: &str| {
        tags.extend((text.len() as u32).to_le_bytes());
        tags.extend(text.as_bytes());
    };
    put(&mut tags, "commingle");
    tags.extend(u32::from(!track.name.is_empty()).to_le_bytes());
    if !track.name.is_empty() {
        put(&mut tags, &format!("TITLE={}", track.name));
    }
    let mut out = Vec::new();
    put_page(&mut out, FIRST, 0, 0, &[&track.private]);
    put_page(&mut out, 0, 0, 1, &[&tags]);
    out.into()
}

/// Muxes the pages of a file.
#[derive(Debug)]
pub(super) struct Muxer {
    number: u32,
}

impl Muxer {
    pub(super) const fn new() -> Self {
        Self { number: 2 }
    }

    /// Muxes one fragment as pages. Granule positions (RFC 7845 §4) count decoded samples including the pre-skip.
    pub(super) fn fragment(&mut self, samples: &[Sample]) -> Bytes {
        let mut out = Vec::new();
        let mut rest = samples;
        while !rest.is_empty() {
            let mut segments = 0;
            let fits = rest.iter().take_while(|sample| {
                segments += sample.data.len() / 255 + 1;
                segments <= MAX_SEGMENTS
            });
            let count = fits.count().max(1);
            let (page, after) = rest.split_at(count);
            rest = after;
            let end = page.last().map_or(0, |last| last.time + u64::from(last.duration));
            let packets: Vec<&[u8]> = page.iter().map(|sample| &sample.data[..]).collect();
            put_page(&mut out, 0, end, self.number, &packets);
            self.number = self.number.wrapping_add(1);
        }
        out.into()
    }
}

/// Appends a page of complete packets.
fn put_page(out: &mut Vec<u8>, flags: u8, position: u64, number: u32, packets: &[&[u8]]) {
    let start = out.len();
    out.extend(b"OggS\0");
    out.push(flags);
    out.extend(position.to_le_bytes());
    out.extend(SERIAL.to_le_bytes());
    out.extend(number.to_le_bytes());
    out.extend([0; 4]);
    let segments: usize = packets.iter().map(|packet| packet.len() / 255 + 1).sum();
    out.push(segments as u8);
    for packet in packets {
        out.resize(out.len() + packet.len() / 255, 255);
        out.push((packet.len() % 255) as u8);
    }
    packets.iter().for_each(|packet| out.extend(*packet));
    seal(&mut out[start..]);
}

/// Writes a page's checksum into it, and returns it.
fn seal(page: &mut [u8]) -> [u8; 4] {
    page[22..26].fill(0);
    let sum = checksum(page).to_le_bytes();
    page[22..26].copy_from_slice(&sum);
    sum
}

/// The checksum of RFC 3533 §6: CRC-32 with the polynomial 0x04c11db7, neither reflected nor inverted.
fn checksum(page: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut sum = (i as u32) << 24;
            let mut bit = 0;
            while bit < 8 {
                sum = sum << 1 ^ if sum & 0x8000_0000 == 0 { 0 } else { 0x04c1_1db7 };
                bit += 1;
            }
            table[i] = sum;
            i += 1;
        }
        table
    };
    page.iter().fold(0, |sum, byte| sum << 8 ^ TABLE[(sum >> 24) as usize ^ usize::from(*byte)])
}

/// A complete page.
struct Page {
    bytes: Vec<u8>,
    packets: u64,
    /// The checksum is valid for the flags as stored. It is not after an interrupted [`finish`].
    sealed: bool,
}

impl Page {
    fn flags(&self) -> u8 {
        self.bytes[5]
    }

    fn position(&self) -> u64 {
        u64::from_le_bytes(*self.bytes[6..].first_chunk().expect("a head is longer"))
    }

    fn number(&self) -> u32 {
        u32::from_le_bytes(*self.bytes[18..].first_chunk().expect("a head is longer"))
    }
}

fn page_at(reader: &mut FileReader<'_>, at: u64) -> Result<Option<Page>, ContainerError> {
    let Some(head) = reader.bytes(at, HEAD as u64)?.filter(|head| head.starts_with(b"OggS\0")) else { return Ok(None) };
    let segments = u64::from(head[HEAD - 1]);
    let Some(table) = reader.bytes(at + HEAD as u64, segments)? else { return Ok(None) };
    let length = HEAD as u64 + segments + table.iter().map(|segment| u64::from(*segment)).sum::<u64>();
    let Some(bytes) = reader.bytes(at, length)? else { return Ok(None) };
    // `finish` may have been interrupted after it set the end-of-stream flag and before it wrote all of the checksum.
    let sums = [bytes[5] & !LAST, bytes[5] | LAST].map(|flags| {
        let mut page = bytes.clone();
        page[5] = flags;
        seal(&mut page)
    });
    let stored = &bytes[22..26];
    let whole = (0..4).all(|i| sums.iter().any(|sum| sum[i] == stored[i]));
    let packets = table.iter().filter(|segment| **segment < 255).count() as u64;
    let sealed = stored == sums[usize::from(bytes[5] & LAST != 0)];
    Ok(whole.then_some(Page { bytes, packets, sealed }))
}

/// See [`crate::container::finish`].
pub(super) fn finish(file: &mut dyn Storage) -> Result<FileSummary, ContainerError> {
    let foreign = |reason| ContainerError::Foreign { format: FileFormat::Ogg, reason };
    let mut reader = FileReader::new(file)?;
    let length = reader.length;
    let Some(first) = page_at(&mut reader, 0)? else {
        return Err(if length < 64 { ContainerError::Empty } else { foreign("it does not begin with an Ogg page") });
    };
    let head = first.bytes.get(HEAD + 1..).filter(|head| head.starts_with(b"OpusHead") && head.len() == 19);
    let head =
        head.filter(|_| first.flags() == FIRST && first.number() == 0).ok_or_else(|| foreign("it contains no Opus"))?;
    let delay = u64::from(u16::from_le_bytes([head[10], head[11]]));
    let mut at = first.bytes.len() as u64;
    let (mut number, mut packets, mut position) = (1, 0, 0);
    let mut last = None;
    while let Some(page) = page_at(&mut reader, at)? {
        if page.number() != number
            || page.flags() & !LAST != 0
            || page.position() < position
            || page.position() > 1 << 50
        {
            break;
        }
        (number, position) = (number.wrapping_add(1), page.position());
        // Page 1 holds the OpusTags.
        if number > 2 {
            packets += page.packets;
            last = Some((at, page.sealed && page.flags() & LAST != 0));
        }
        at += page.bytes.len() as u64;
    }
    let Some((last_at, marked)) = last else { return Err(ContainerError::Empty) };
    let units = position.saturating_sub(delay).saturating_mul(UNITS / u64::from(AUDIO_RATE));
    let summary = FileSummary { duration: duration_of(units), samples: vec![packets], bytes: at, cut: length - at };
    if marked && at == length {
        return Ok(summary);
    }
    check_tail(at, length)?;
    let mut page = reader.bytes(last_at, at - last_at)?.unwrap_or_default();
    page[5] |= LAST;
    seal(&mut page);
    file.set_len(at)?;
    // Only the header changes: flags and checksum.
    file.seek(SeekFrom::Start(last_at))?;
    file.write_all(&page[..HEAD])?;
    file.sync()?;
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_the_crc_of_rfc_3533() {
        // CRC-32 of POSIX cksum without the final inversion.
        assert_eq!(checksum(b"123456789"), 0x89a1_897f);
    }

    #[test]
    fn a_written_page_is_read_back_and_a_corrupt_one_is_not() {
        let packet = vec![7; 510];
        let mut out = Vec::new();
        put_page(&mut out, FIRST, 960, 3, &[&packet, b"ab"]);
        assert_eq!(out[HEAD - 1..HEAD + 4], [4, 255, 255, 0, 2]);
        let mut file = std::io::Cursor::new(out.clone());
        let page = page_at(&mut FileReader::new(&mut file).expect("memory"), 0).expect("memory").expect("complete");
        assert_eq!((page.flags(), page.position(), page.number(), page.packets), (FIRST, 960, 3, 2));
        out[40] ^= 1;
        let damaged = page_at(&mut FileReader::new(&mut std::io::Cursor::new(out)).expect("memory"), 0);
        assert!(damaged.expect("memory").is_none());
    }
}
