//! Finishing a Matroska or WebM file: the clusters that are whole are read, what is torn after them is cut off, and an index
//! is appended.

use std::io::SeekFrom;
use std::time::Duration;

use super::ebml::{Head, binary, children, element, float, put_wide_size, uint, void};
use super::{
    APP, CHAPTERS, CLUSTER, CODEC_DELAY, CUES, DURATION, DURATION_ROOM, EBML, INFO, SEEK_HEAD, SEEK_ROOM, SEGMENT,
    SIMPLE_BLOCK, TICK, TIMESTAMP, TRACK_ENTRY, TRACK_NUMBER, TRACK_TYPE, TRACKS,
};
use crate::container::finish::{Walk, damaged};
use crate::container::{Chapter, ContainerError, Found, Storage};
use crate::media::FileFormat;

/// The largest EBML head, Info and Tracks, in bytes.
const MOST_HEAD: u64 = 1 << 16;

/// A cluster where playing may begin: its time, and where it lies in the Segment.
struct Cue {
    time: u64,
    track: u64,
    position: u64,
}

/// What is known of a track so far.
#[derive(Default)]
struct Track {
    number: u64,
    video: bool,
    /// Ticks at its beginning that are not played.
    delay: u64,
    samples: u64,
    /// The newest two times.
    newest: Option<(u64, u64)>,
}

impl Track {
    /// When it ends: the last block lasts as long as the one before it, as far as is known.
    fn end(&self) -> u64 {
        self.newest.map_or(0, |(before, newest)| (newest + (newest - before).min(1_000)).saturating_sub(self.delay))
    }
}

/// See [`crate::container::finish`].
pub(in crate::container) fn finish(
    format: FileFormat,
    file: &mut dyn Storage,
    chapters: &[Chapter],
) -> Result<Found, ContainerError> {
    let foreign = |reason| ContainerError::Foreign { format, reason };
    let mut walk = Walk::new(file)?;
    let length = walk.length;
    let ebml =
        element_at(&mut walk, 0)?.filter(|head| head.id == EBML).ok_or_else(|| foreign("it has no EBML head"))?;
    let segment_at = ebml.end;
    let Some(head) = walk.bytes(segment_at, 12)? else { return Err(ContainerError::Empty) };
    let segment = Head::read(&head).filter(|head| head.id == SEGMENT && head.length == 12);
    let segment = segment.ok_or_else(|| foreign("its Segment is another's"))?;
    let start = segment_at + 12;
    // In their order, as they are written here; what fills the reserved rooms may be torn.
    let mut at = start + SEEK_ROOM as u64;
    let Some(info) = element_at(&mut walk, at)? else { return Err(ContainerError::Empty) };
    let duration_at = info.body;
    let info_length = (info.end - info.body).min(MOST_HEAD);
    let rest = walk.bytes(info.body, info_length)?.unwrap_or_default();
    let ours = rest.get(DURATION_ROOM..).is_some_and(|rest| rest.windows(APP.len()).any(|window| window == APP));
    if info.id != INFO || !ours {
        return Err(foreign("another program wrote it"));
    }
    let info_at = std::mem::replace(&mut at, info.end);
    let Some(entries) = element_at(&mut walk, at)? else { return Err(ContainerError::Empty) };
    if entries.id != TRACKS || entries.end - at > MOST_HEAD {
        return Err(foreign("its tracks are not where they should be"));
    }
    let Some(body) = walk.bytes(entries.body, entries.end - entries.body)? else { return Err(ContainerError::Empty) };
    let mut tracks = tracks(&body).ok_or_else(|| foreign("its tracks are another's"))?;
    let tracks_at = std::mem::replace(&mut at, entries.end);

    let mut cues = Vec::new();
    while let Some(cluster) = element_at(&mut walk, at)?.filter(|head| head.id == CLUSTER) {
        let Some(cue) = cluster_in(&mut walk, &cluster, at - start, &mut tracks)? else { break };
        cues.extend(cue);
        at = cluster.end;
    }
    if tracks.iter().all(|track| track.samples == 0) {
        return Err(ContainerError::Empty);
    }
    let end = at;
    let lasts = tracks.iter().map(Track::end).max().unwrap_or(0);
    let mut found = Found {
        duration: Duration::from_millis(lasts),
        samples: tracks.iter().map(|track| track.samples).collect(),
        bytes: length,
        cut: 0,
    };
    // What comes after the clusters: the index, if this was done before.
    let mut index_there = None;
    while let Some(head) = element_at(&mut walk, at)?.filter(|head| head.id == CUES || head.id == CHAPTERS) {
        at = head.end;
        index_there = Some(at);
    }
    if index_there == Some(length) && segment.size == Some(length - start) {
        return Ok(found);
    }
    damaged(end, length)?;
    if index_there.is_none() {
        found.cut = length - end;
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
    found.bytes = end + index.len() as u64;
    file.set_len(end)?;
    file.seek(SeekFrom::Start(end))?;
    file.write_all(&index)?;
    file.seek(SeekFrom::Start(start))?;
    file.write_all(&seek_head(&places, start))?;
    file.seek(SeekFrom::Start(duration_at))?;
    let mut duration = Vec::new();
    float(&mut duration, DURATION, lasts as f64);
    file.write_all(&duration)?;
    // The Segment's size says that all the rest is there.
    file.sync()?;
    file.seek(SeekFrom::Start(segment_at + 4))?;
    let mut size = Vec::new();
    put_wide_size(&mut size, Some(found.bytes - start));
    file.write_all(&size)?;
    file.sync()?;
    Ok(found)
}

/// An element in the file, all of whose bytes are there.
struct Element {
    id: u32,
    body: u64,
    end: u64,
}

fn element_at(walk: &mut Walk<'_>, at: u64) -> Result<Option<Element>, ContainerError> {
    let available = walk.length.saturating_sub(at).min(Head::MOST);
    let Some(head) = walk.bytes(at, available)?.and_then(|bytes| Head::read(&bytes)) else { return Ok(None) };
    let body = at + head.length as u64;
    let end = head.size.and_then(|size| body.checked_add(size)).filter(|end| *end <= walk.length);
    Ok(end.map(|end| Element { id: head.id, body, end }))
}

/// What a Tracks element says, as far as it matters here.
fn tracks(body: &[u8]) -> Option<Vec<Track>> {
    let entries = children(body).filter(|(id, ..)| *id == TRACK_ENTRY);
    let tracks = entries.map(|(.., entry)| {
        let number = |wanted| {
            let (.., bytes) = children(entry).find(|(id, ..)| *id == wanted)?;
            (bytes.len() <= 8).then(|| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
        };
        let delay = number(CODEC_DELAY).unwrap_or(0) / TICK;
        Some(Track { number: number(TRACK_NUMBER)?, video: number(TRACK_TYPE)? == 1, delay, ..Track::default() })
    });
    let tracks: Vec<Track> = tracks.collect::<Option<_>>()?;
    let numbered = tracks.iter().zip(1..).all(|(track, number)| track.number == number);
    (numbered && (1..=16).contains(&tracks.len())).then_some(tracks)
}

/// Counts a cluster's blocks; None when it is broken. Its cue, if playing may begin there: with a keyframe of the first track
/// of video, or anywhere where there is none.
fn cluster_in(
    walk: &mut Walk<'_>,
    cluster: &Element,
    position: u64,
    tracks: &mut [Track],
) -> Result<Option<Option<Cue>>, ContainerError> {
    let Some(first) = element_at(walk, cluster.body)?.filter(|head| head.id == TIMESTAMP && head.end - head.body <= 8)
    else {
        return Ok(None);
    };
    let bytes = walk.bytes(first.body, first.end - first.body)?.unwrap_or_default();
    let start = bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    // A hundred years: nothing recorded is so long.
    if start > 100 * 366 * 86_400_000 {
        return Ok(None);
    }
    let main = tracks.iter().position(|track| track.video).unwrap_or(0);
    let mut cue = None;
    let mut at = first.end;
    let mut seen: Vec<(usize, u64)> = Vec::new();
    while at < cluster.end {
        let Some(block) = element_at(walk, at)?.filter(|head| head.id == SIMPLE_BLOCK && head.end <= cluster.end)
        else {
            return Ok(None);
        };
        let head = if block.end - block.body > 4 { walk.bytes(block.body, 4)? } else { None };
        let Some([number, high, low, flags]) = head.as_deref().and_then(|head| head.first_chunk().copied()) else {
            return Ok(None);
        };
        let track = usize::from(number & 0x7f).wrapping_sub(1);
        let time = start.checked_add_signed(i64::from(i16::from_be_bytes([high, low])));
        let (Some(time), Some(of)) = (time, tracks.get(track)) else { return Ok(None) };
        let before = seen.iter().rev().find(|(other, _)| *other == track).map(|(_, time)| *time);
        let before = before.or_else(|| of.newest.map(|(_, newest)| newest));
        // Rounded, two times may be the same; none is before the other.
        if number & 0x80 == 0 || before.is_some_and(|before| time < before) {
            return Ok(None);
        }
        if track == main && flags & 0x80 != 0 && cue.is_none() {
            cue = Some(Cue { time, track: main as u64 + 1, position });
        }
        seen.push((track, time));
        at = block.end;
    }
    for (track, time) in seen {
        let track = &mut tracks[track];
        track.samples += 1;
        track.newest = Some((track.newest.map_or(time, |(_, newest)| newest), time));
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

/// The SeekHead, which fills the room reserved for it.
fn seek_head(places: &[(u32, u64)], start: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(SEEK_ROOM);
    element(&mut out, SEEK_HEAD, |out| {
        for (id, at) in places {
            element(out, 0x4dbb, |out| {
                binary(out, 0x53ab, &id.to_be_bytes());
                uint(out, 0x53ac, at - start);
            });
        }
    });
    let left = SEEK_ROOM - out.len();
    void(&mut out, left);
    out
}
