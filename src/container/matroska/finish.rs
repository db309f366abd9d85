//! Finishes a Matroska or WebM file: reads the complete clusters, truncates an incomplete one, and appends Cues and
//! Chapters.

use std::io::SeekFrom;
use std::time::Duration;

use super::ebml::{ElementHeader, binary, children, element, float, put_wide_size, uint, void};
use super::text::{self, DURATIONS, TextBlock};
use super::{
    BLOCK, BLOCK_GROUP, CHAPTERS, CLUSTER, CODEC_DELAY, CUES, DURATION, DURATION_RESERVED, EBML, INFO, SEEK_HEAD,
    SEEK_HEAD_RESERVED, SEGMENT, SIMPLE_BLOCK, SUBTITLE, TICK, TIMESTAMP, TRACK_ENTRY, TRACK_NUMBER, TRACK_TYPE,
    TRACKS, VIDEO, VOID, WRITING_APP,
};
use crate::container::reader::{FileReader, check_tail};
use crate::container::{Chapter, ContainerError, FileSummary, Storage};
use crate::media::FileFormat;

/// Largest EBML header, Info and Tracks, in bytes.
const MAX_HEADER: u64 = 1 << 16;

/// A seek point.
struct Cue {
    /// Milliseconds.
    time: u64,
    track: u64,
    /// Offset of the cluster within the Segment.
    position: u64,
}

/// What was read of a track so far. Times are in milliseconds.
#[derive(Default)]
struct Track {
    number: u64,
    /// Offset of its entry within the body of Tracks.
    entry: usize,
    /// Its track type.
    kind: u64,
    /// Decoder delay.
    delay: u64,
    samples: u64,
    /// Times of the last two blocks.
    newest: Option<(u64, u64)>,
    /// The newest caption, which lasts until the next one at most.
    caption: Option<TextBlock>,
}

impl Track {
    fn is_text(&self) -> bool {
        self.kind == SUBTITLE
    }

    /// End of the last block, which is assumed to last as long as the one before, but at most 1 s.
    fn end(&self) -> u64 {
        self.newest.map_or(0, |(before, newest)| (newest + (newest - before).min(1_000)).saturating_sub(self.delay))
    }
}

/// See [`crate::container::finish`].
pub(in crate::container) fn finish(
    format: FileFormat,
    file: &mut dyn Storage,
    chapters: &[Chapter],
) -> Result<FileSummary, ContainerError> {
    let foreign = |reason| ContainerError::Foreign { format, reason };
    let mut reader = FileReader::new(file)?;
    let length = reader.length;
    let ebml =
        element_at(&mut reader, 0)?.filter(|head| head.id == EBML).ok_or_else(|| foreign("it has no EBML header"))?;
    let segment_at = ebml.end;
    let Some(head) = reader.bytes(segment_at, 12)? else { return Err(ContainerError::Empty) };
    let segment = ElementHeader::read(&head).filter(|head| head.id == SEGMENT && head.length == 12);
    let segment = segment.ok_or_else(|| foreign("its Segment was written by another program"))?;
    let start = segment_at + 12;
    // The elements have the order in which the writer puts them; the reserved areas may be partly overwritten.
    let mut at = start + SEEK_HEAD_RESERVED as u64;
    let Some(info) = element_at(&mut reader, at)? else { return Err(ContainerError::Empty) };
    let duration_at = info.body;
    let info_length = (info.end - info.body).min(MAX_HEADER);
    let rest = reader.bytes(info.body, info_length)?.unwrap_or_default();
    let ours = rest
        .get(DURATION_RESERVED..)
        .is_some_and(|rest| rest.windows(WRITING_APP.len()).any(|window| window == WRITING_APP));
    if info.id != INFO || !ours {
        return Err(foreign("another program wrote it"));
    }
    let info_at = std::mem::replace(&mut at, info.end);
    let Some(entries) = element_at(&mut reader, at)? else { return Err(ContainerError::Empty) };
    if entries.id != TRACKS || entries.end - at > MAX_HEADER {
        return Err(foreign("there is no Tracks element after Info"));
    }
    let Some(body) = reader.bytes(entries.body, entries.end - entries.body)? else { return Err(ContainerError::Empty) };
    let mut tracks = tracks(&body).ok_or_else(|| foreign("its Tracks were written by another program"))?;
    let tracks_at = std::mem::replace(&mut at, entries.end);

    let mut cues = Vec::new();
    let mut corrections = Vec::new();
    while let Some(cluster) = element_at(&mut reader, at)?.filter(|head| head.id == CLUSTER) {
        let Some(cue) = cluster_in(&mut reader, &cluster, at - start, &mut tracks, &mut corrections)? else { break };
        cues.extend(cue);
        at = cluster.end;
    }
    let end = at;
    let media = tracks.iter().filter(|track| !track.is_text() && track.samples > 0);
    let Some(duration) = media.map(Track::end).max() else { return Err(ContainerError::Empty) };
    corrections.extend(tracks.iter().filter_map(|track| track.caption.as_ref()?.correction(duration)));
    // A track without captions is made void. Captions are the last track.
    let unused = tracks.pop_if(|track| track.is_text() && track.samples == 0);
    let mut summary = FileSummary {
        duration: Duration::from_millis(duration),
        samples: tracks.iter().map(|track| track.samples).collect(),
        bytes: length,
        cut: 0,
    };
    // An index after the clusters means that the file was finished before, perhaps not completely.
    let mut index_end = None;
    while let Some(head) = element_at(&mut reader, at)?.filter(|head| head.id == CUES || head.id == CHAPTERS) {
        at = head.end;
        index_end = Some(at);
    }
    if index_end == Some(length) && segment.size == Some(length - start) {
        return Ok(summary);
    }
    check_tail(end, length)?;
    if index_end.is_none() {
        summary.cut = length - end;
    }
    let mut index = Vec::new();
    element(&mut index, CUES, |out| cues.iter().for_each(|cue| put_cue(out, cue)));
    let chapters_at = end + index.len() as u64;
    if !chapters.is_empty() {
        element(&mut index, CHAPTERS, |out| put_chapters(out, chapters));
    }
    let mut places = vec![(INFO, info_at), (TRACKS, tracks_at), (CUES, end)];
    if !chapters.is_empty() {
        places.push((CHAPTERS, chapters_at));
    }
    summary.bytes = end + index.len() as u64;
    file.set_len(end)?;
    file.seek(SeekFrom::Start(end))?;
    file.write_all(&index)?;
    file.seek(SeekFrom::Start(start))?;
    file.write_all(&seek_head(&places, start))?;
    file.seek(SeekFrom::Start(duration_at))?;
    let mut element = Vec::new();
    float(&mut element, DURATION, duration as f64);
    file.write_all(&element)?;
    for (at, duration) in corrections {
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&duration.to_be_bytes())?;
    }
    if let Some(track) = unused {
        // One byte, so that there is no state between.
        file.seek(SeekFrom::Start(entries.body + track.entry as u64))?;
        file.write_all(&[VOID as u8])?;
    }
    // The Segment's size is written last: it marks the file as finished.
    file.sync()?;
    file.seek(SeekFrom::Start(segment_at + 4))?;
    let mut size = Vec::new();
    put_wide_size(&mut size, Some(summary.bytes - start));
    file.write_all(&size)?;
    file.sync()?;
    Ok(summary)
}

/// An element that lies completely within the file.
struct Element {
    id: u32,
    body: u64,
    end: u64,
}

fn element_at(reader: &mut FileReader<'_>, at: u64) -> Result<Option<Element>, ContainerError> {
    let available = reader.length.saturating_sub(at).min(ElementHeader::MAX_LENGTH);
    let Some(head) = reader.bytes(at, available)?.and_then(|bytes| ElementHeader::read(&bytes)) else {
        return Ok(None);
    };
    let body = at + head.length as u64;
    let end = head.size.and_then(|size| body.checked_add(size)).filter(|end| *end <= reader.length);
    Ok(end.map(|end| Element { id: head.id, body, end }))
}

/// Parses a Tracks element. None when its tracks are not numbered from 1, or not 1 to 16.
fn tracks(body: &[u8]) -> Option<Vec<Track>> {
    let mut next = 0;
    let entries = children(body).map(|(id, at, entry)| (std::mem::replace(&mut next, at + entry.len()), id, entry));
    let tracks = entries.filter(|(_, id, _)| *id == TRACK_ENTRY).map(|(at, _, entry)| {
        let number = |wanted| {
            let (.., bytes) = children(entry).find(|(id, ..)| *id == wanted)?;
            (bytes.len() <= 8).then(|| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
        };
        let delay = number(CODEC_DELAY).unwrap_or(0) / TICK;
        let (number, kind) = (number(TRACK_NUMBER)?, number(TRACK_TYPE)?);
        Some(Track { number, entry: at, kind, delay, ..Track::default() })
    });
    let tracks: Vec<Track> = tracks.collect::<Option<_>>()?;
    let numbered = tracks.iter().zip(1..).all(|(track, number)| track.number == number);
    (numbered && (1..=16).contains(&tracks.len())).then_some(tracks)
}

/// Counts a cluster's blocks and corrects the durations of captions; None when it is invalid. Returns a cue if the
/// cluster has a keyframe of the first video track, or in a file without video for every cluster.
fn cluster_in(
    reader: &mut FileReader<'_>,
    cluster: &Element,
    position: u64,
    tracks: &mut [Track],
    corrections: &mut Vec<(u64, u32)>,
) -> Result<Option<Option<Cue>>, ContainerError> {
    let Some(first) =
        element_at(reader, cluster.body)?.filter(|head| head.id == TIMESTAMP && head.end - head.body <= 8)
    else {
        return Ok(None);
    };
    let bytes = reader.bytes(first.body, first.end - first.body)?.unwrap_or_default();
    let start = bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    // Longer than a hundred years: not a valid time.
    if start > 100 * 366 * 86_400_000 {
        return Ok(None);
    }
    let main = tracks.iter().position(|track| track.kind == VIDEO).unwrap_or(0);
    let mut cue = None;
    let mut at = first.end;
    let mut seen: Vec<(usize, u64, Option<TextBlock>)> = Vec::new();
    while at < cluster.end {
        let Some(outer) = element_at(reader, at)?.filter(|head| head.end <= cluster.end) else { return Ok(None) };
        let (block, mut caption) = match outer.id {
            SIMPLE_BLOCK => (outer, None),
            // Block and durations, as the writer puts them.
            BLOCK_GROUP if outer.end - outer.body > DURATIONS => {
                let at = outer.end - DURATIONS;
                let durations = reader.bytes(at, DURATIONS)?.and_then(|bytes| text::durations(&bytes));
                let block = element_at(reader, outer.body)?.filter(|head| head.id == BLOCK && head.end == at);
                let (Some(durations), Some(block)) = (durations, block) else { return Ok(None) };
                (block, Some(TextBlock { time: 0, durations, at }))
            }
            _ => return Ok(None),
        };
        let end = caption.as_ref().map_or(block.end, |_| block.end + DURATIONS);
        let head = if block.end - block.body > 4 { reader.bytes(block.body, 4)? } else { None };
        let Some([number, high, low, flags]) = head.as_deref().and_then(|head| head.first_chunk().copied()) else {
            return Ok(None);
        };
        let track = usize::from(number & 0x7f).wrapping_sub(1);
        let time = start.checked_add_signed(i64::from(i16::from_be_bytes([high, low])));
        let (Some(time), Some(of)) = (time, tracks.get(track)) else { return Ok(None) };
        let before = seen.iter().rev().find(|(other, ..)| *other == track).map(|(_, time, _)| *time);
        let before = before.or_else(|| of.newest.map(|(_, newest)| newest));
        // Rounding to milliseconds may make two times equal, but never reorders them.
        if number & 0x80 == 0 || before.is_some_and(|before| time < before) || of.is_text() != caption.is_some() {
            return Ok(None);
        }
        if let Some(caption) = &mut caption {
            caption.time = time;
        }
        if track == main && flags & 0x80 != 0 && cue.is_none() {
            cue = Some(Cue { time, track: main as u64 + 1, position });
        }
        seen.push((track, time, caption));
        at = end;
    }
    for (track, time, caption) in seen {
        let track = &mut tracks[track];
        track.samples += 1;
        track.newest = Some((track.newest.map_or(time, |(_, newest)| newest), time));
        if let Some(before) = caption.and_then(|caption| track.caption.replace(caption)) {
            corrections.extend(before.correction(time));
        }
    }
    Ok(Some(cue))
}

fn put_cue(out: &mut Vec<u8>, cue: &Cue) {
    element(out, 0xbb, |out| {
        uint(out, 0xb3, cue.time);
        element(out, 0xb7, |out| {
            uint(out, 0xf7, cue.track);
            uint(out, 0xf1, cue.position);
        });
    });
}

fn put_chapters(out: &mut Vec<u8>, chapters: &[Chapter]) {
    element(out, 0x45b9, |out| {
        for (chapter, number) in chapters.iter().zip(1..) {
            element(out, 0xb6, |out| {
                uint(out, 0x73c4, number);
                uint(out, 0x91, chapter.time.as_nanos() as u64);
                element(out, 0x80, |out| {
                    binary(out, 0x85, chapter.title.as_bytes());
                    binary(out, 0x437c, b"und");
                });
            });
        }
    });
}

/// The SeekHead, padded to the space reserved for it.
fn seek_head(places: &[(u32, u64)], start: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(SEEK_HEAD_RESERVED);
    element(&mut out, SEEK_HEAD, |out| {
        for (id, at) in places {
            element(out, 0x4dbb, |out| {
                binary(out, 0x53ab, &id.to_be_bytes());
                uint(out, 0x53ac, at - start);
            });
        }
    });
    let left = SEEK_HEAD_RESERVED - out.len();
    void(&mut out, left);
    out
}
