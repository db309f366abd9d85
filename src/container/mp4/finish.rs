//! Finishes an MP4: reads the complete fragments, truncates an incomplete one, and appends a `moov` with all sample
//! tables.

use std::io::SeekFrom;

use super::boxes::{Reader, children, find};
use super::movie::{Movie, SampleTables, Track};
use super::{RESERVED, SYNC};
use crate::container::reader::{FileReader, check_tail};
use crate::container::{Chapter, ContainerError, FileSummary, Storage, UNITS, duration_of};
use crate::media::FileFormat;

/// Largest `ftyp`, and largest `moov` of a growing file, in bytes.
const MAX_HEADER: u64 = 1 << 16;
/// Largest `moof` in bytes.
const MAX_MOOF: u64 = 16 << 20;

/// See [`crate::container::finish`].
pub(in crate::container) fn finish(
    file: &mut dyn Storage,
    chapters: &[Chapter],
) -> Result<FileSummary, ContainerError> {
    let foreign = |reason| ContainerError::Foreign { format: FileFormat::Mp4, reason };
    let mut reader = FileReader::new(file)?;
    let length = reader.length;
    let file_type = box_at(&mut reader, 0)?.filter(|head| &head.kind == b"ftyp" && head.size <= MAX_HEADER);
    let reserved = file_type.ok_or_else(|| foreign("it does not begin with ftyp"))?.size;
    // The reserved box is a `free` box, the header of the `mdat` around all fragments, or partly overwritten: only what
    // follows it identifies the file.
    let head = reader.bytes(reserved, RESERVED)?.ok_or(ContainerError::Empty)?;
    let moov = reserved + RESERVED;
    let Some(moov_head) = box_at(&mut reader, moov)? else { return Err(ContainerError::Empty) };
    if &moov_head.kind != b"moov" || moov_head.size > MAX_HEADER {
        return Err(foreign("there is no moov after ftyp"));
    }
    let Some(body) = reader.bytes(moov + 8, moov_head.size - 8)? else { return Err(ContainerError::Empty) };
    let mut movie = Movie::read(&body).ok_or_else(|| foreign("its moov was written by another program"))?;
    let mut states: Vec<TrackState> = movie.tracks.iter().map(|_| TrackState::default()).collect();
    let mut end = moov + moov_head.size;
    while let Some(size) = fragment_at(&mut reader, end, &movie, &mut states)? {
        end += size;
    }
    let mut tables: Vec<SampleTables> = states.into_iter().map(TrackState::finish).collect();
    let media = movie.tracks.iter().zip(&tables).filter(|(track, tables)| !track.is_text() && !tables.sizes.is_empty());
    let ends =
        media.map(|(track, tables)| track.units(tables.first + tables.length().saturating_sub(u64::from(track.delay))));
    let Some(duration) = ends.max() else { return Err(ContainerError::Empty) };
    end_captions(&mut movie, &mut tables, duration);
    let mut index = Vec::new();
    movie.write(&mut index, Some((&tables, chapters)))?;
    let mut summary = FileSummary {
        duration: duration_of(duration),
        samples: tables.iter().map(|tables| tables.sizes.len() as u64).collect(),
        bytes: end + index.len() as u64,
        cut: 0,
    };
    let mdat_header = mdat_header(end - reserved);
    let index_end = box_at(&mut reader, end)?.filter(|after| &after.kind == b"moov").map(|after| end + after.size);
    if head == mdat_header && index_end == Some(length) {
        // Already finished; existing chapters are kept even if others were passed.
        return Ok(FileSummary { bytes: length, ..summary });
    }
    check_tail(end, length)?;
    if index_end.is_none() {
        summary.cut = length - end;
    }
    file.set_len(end)?;
    file.seek(SeekFrom::Start(end))?;
    file.write_all(&index)?;
    file.sync()?;
    file.seek(SeekFrom::Start(reserved))?;
    file.write_all(&mdat_header)?;
    file.sync()?;
    Ok(summary)
}

/// Ends the captions, the last track, with the media, at `end` in [`UNITS`]; removes the track if there are none.
fn end_captions(movie: &mut Movie, all: &mut Vec<SampleTables>, end: u64) {
    let (Some(track), Some(tables)) = (movie.tracks.last().filter(|track| track.is_text()), all.last_mut()) else {
        return;
    };
    tables.end_by(end / (UNITS / u64::from(track.timescale)));
    if tables.sizes.is_empty() {
        movie.tracks.pop();
        all.pop();
    }
}

/// The header of an `mdat` of `size` bytes, as a 64-bit size.
fn mdat_header(size: u64) -> [u8; RESERVED as usize] {
    let mut head = [0; RESERVED as usize];
    head[..8].copy_from_slice(b"\0\0\0\x01mdat");
    head[8..].copy_from_slice(&size.to_be_bytes());
    head
}

/// Header of a box that lies completely within the file.
struct BoxHeader {
    kind: [u8; 4],
    size: u64,
}

fn box_at(reader: &mut FileReader<'_>, at: u64) -> Result<Option<BoxHeader>, ContainerError> {
    let Some(bytes) = reader.bytes(at, 8)? else { return Ok(None) };
    let mut header = Reader(&bytes);
    let size = u64::from(header.u32().unwrap_or(0));
    let kind = *header.0.first_chunk().expect("eight bytes were read");
    Ok((size >= 8 && at + size <= reader.length).then_some(BoxHeader { kind, size }))
}

/// What was read of a track so far.
#[derive(Debug, Default)]
struct TrackState {
    tables: SampleTables,
    /// Decode time and declared duration of the newest sample, in ticks.
    newest: Option<(u64, u32)>,
}

/// A track run (`trun`): samples of one fragment that lie side by side.
struct Run {
    track: usize,
    at: u64,
    /// Of each sample: decode time, duration, size, whether it is a sync sample.
    samples: Vec<(u64, u32, u32, bool)>,
}

impl TrackState {
    /// Whether a sample at this time is later than the newest, by a duration of 32 bits.
    fn follows(&self, time: u64) -> bool {
        self.newest.is_none_or(|(newest, _)| time > newest && time - newest <= u64::from(u32::MAX))
    }

    fn take(&mut self, run: &Run, video: bool) {
        self.tables.chunks.push((run.at, run.samples.len() as u32));
        for (time, duration, size, sync) in &run.samples {
            match self.newest {
                None => self.tables.first = *time,
                // A sample lasts until the next one begins; its declared duration was written before that was known.
                Some((newest, _)) => self.push_duration((time - newest) as u32),
            }
            self.newest = Some((*time, *duration));
            self.tables.sizes.push(*size);
            if *sync && video {
                self.tables.syncs.push(self.tables.sizes.len() as u32);
            }
        }
    }

    fn push_duration(&mut self, ticks: u32) {
        match self.tables.durations.last_mut() {
            Some((count, last)) if *last == ticks => *count += 1,
            _ => self.tables.durations.push((1, ticks)),
        }
    }

    fn finish(mut self) -> SampleTables {
        if let Some((_, duration)) = self.newest {
            self.push_duration(duration);
        }
        self.tables
    }
}

/// Adds the fragment at `at` to the tables and returns its size; None when there is no complete, valid fragment.
fn fragment_at(
    reader: &mut FileReader<'_>,
    at: u64,
    movie: &Movie,
    states: &mut [TrackState],
) -> Result<Option<u64>, ContainerError> {
    let Some(moof) = box_at(reader, at)?.filter(|head| &head.kind == b"moof" && head.size <= MAX_MOOF) else {
        return Ok(None);
    };
    let Some(mdat) = box_at(reader, at + moof.size)?.filter(|head| &head.kind == b"mdat") else { return Ok(None) };
    let Some(body) = reader.bytes(at + 8, moof.size - 8)? else { return Ok(None) };
    let data = at + moof.size + 8..at + moof.size + mdat.size;
    let Some(runs) = runs(&body, at, &movie.tracks) else { return Ok(None) };
    let mut newest: Vec<bool> = states.iter().map(|_| false).collect();
    for run in &runs {
        let end = run.samples.iter().try_fold(run.at, |end, sample| end.checked_add(u64::from(sample.2)));
        let inside = run.at >= data.start && end.is_some_and(|end| end <= data.end);
        let ordered = run.samples.windows(2).all(|pair| pair[1].0 > pair[0].0);
        let follows = run.samples.first().is_none_or(|first| states[run.track].follows(first.0));
        // The writer makes one run per track.
        if !inside || !ordered || !follows || std::mem::replace(&mut newest[run.track], true) {
            return Ok(None);
        }
    }
    for run in runs.iter().filter(|run| !run.samples.is_empty()) {
        states[run.track].take(run, movie.tracks[run.track].is_video());
    }
    Ok(Some(moof.size + mdat.size))
}

/// The runs of a `moof` at offset `at`; None when it differs from what the writer makes.
fn runs(moof: &[u8], at: u64, tracks: &[Track]) -> Option<Vec<Run>> {
    let mut runs = Vec::new();
    for (_, _, traf) in children(moof).filter(|(kind, ..)| kind == b"traf") {
        let mut header = Reader(find(traf, &[b"tfhd"])?);
        let flags = header.u32()?;
        let track = (header.u32()? as usize).checked_sub(1).filter(|track| *track < tracks.len())?;
        let mut time = Reader(find(traf, &[b"tfdt"])?);
        let version = time.u32()?;
        let base = time.u64()?;
        let mut run = Reader(find(traf, &[b"trun"])?);
        if (flags, version, run.u32()?) != (0x02_0000, 0x0100_0000, 0x0701) {
            return None;
        }
        let count = run.u32()? as usize;
        let at = at.checked_add(u64::from(run.u32()?))?;
        if run.0.len() != count.checked_mul(12)? {
            return None;
        }
        let mut time = base;
        let mut samples = Vec::with_capacity(count);
        for _ in 0..count {
            let (duration, size, flags) = (run.u32()?, run.u32()?, run.u32()?);
            samples.push((time, duration, size, flags == SYNC));
            time = time.checked_add(u64::from(duration)).filter(|time| *time < 1 << 44)?;
        }
        runs.push(Run { track, at, samples });
    }
    Some(runs)
}
