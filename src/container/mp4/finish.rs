//! Finishing an MP4: the fragments that are whole are read, what is torn after them is cut off, and tables of all samples
//! are appended.

use std::io::SeekFrom;

use super::boxes::{Reader, children, find};
use super::movie::{Movie, Tables, Track};
use super::{RESERVED, SYNC};
use crate::container::finish::{Walk, damaged};
use crate::container::{Chapter, ContainerError, Found, Storage, duration_of};
use crate::media::FileFormat;

/// The largest `ftyp` and `moov` of a growing file, in bytes.
const MOST_HEAD: u64 = 1 << 16;
/// The largest `moof`.
const MOST_MOOF: u64 = 16 << 20;

/// See [`crate::container::finish`].
pub(in crate::container) fn finish(file: &mut dyn Storage, chapters: &[Chapter]) -> Result<Found, ContainerError> {
    let foreign = |reason| ContainerError::Foreign { format: FileFormat::Mp4, reason };
    let mut walk = Walk::new(file)?;
    let length = walk.length;
    let file_type = box_at(&mut walk, 0)?.filter(|head| &head.kind == b"ftyp" && head.size <= MOST_HEAD);
    let reserved = file_type.ok_or_else(|| foreign("it does not begin with ftyp"))?.size;
    // A box of its own, or the head of one around the fragments, or a torn mixture of both: what counts is what follows.
    let head = walk.bytes(reserved, RESERVED)?.ok_or(ContainerError::Empty)?;
    let moov = reserved + RESERVED;
    let Some(moov_head) = box_at(&mut walk, moov)? else { return Err(ContainerError::Empty) };
    if &moov_head.kind != b"moov" || moov_head.size > MOST_HEAD {
        return Err(foreign("the fragments' moov is not where it should be"));
    }
    let Some(body) = walk.bytes(moov + 8, moov_head.size - 8)? else { return Err(ContainerError::Empty) };
    let movie = Movie::read(&body).ok_or_else(|| foreign("its moov is another's"))?;
    let mut state: Vec<State> = movie.tracks.iter().map(|_| State::default()).collect();
    let mut end = moov + moov_head.size;
    while let Some(size) = fragment_at(&mut walk, end, &movie, &mut state)? {
        end += size;
    }
    let tables: Vec<Tables> = state.into_iter().map(State::finish).collect();
    if tables.iter().all(|tables| tables.sizes.is_empty()) {
        return Err(ContainerError::Empty);
    }
    let mut index = Vec::new();
    movie.write(&mut index, Some((&tables, chapters)))?;
    let lasts = movie
        .tracks
        .iter()
        .zip(&tables)
        .map(|(track, tables)| track.units(tables.first + tables.length().saturating_sub(u64::from(track.delay))));
    let mut found = Found {
        duration: duration_of(lasts.max().unwrap_or(0)),
        samples: tables.iter().map(|tables| tables.sizes.len() as u64).collect(),
        bytes: end + index.len() as u64,
        cut: 0,
    };
    let around = around(end - reserved);
    let index_there = box_at(&mut walk, end)?.filter(|after| &after.kind == b"moov").map(|after| end + after.size);
    if head == around && index_there == Some(length) {
        // Finished already; with other chapters perhaps, which then stay.
        return Ok(Found { bytes: length, ..found });
    }
    damaged(end, length)?;
    if index_there.is_none() {
        found.cut = length - end;
    }
    file.set_len(end)?;
    file.seek(SeekFrom::Start(end))?;
    file.write_all(&index)?;
    file.sync()?;
    file.seek(SeekFrom::Start(reserved))?;
    file.write_all(&around)?;
    file.sync()?;
    Ok(found)
}

/// The head of an `mdat` of so many bytes.
fn around(size: u64) -> [u8; RESERVED as usize] {
    let mut head = [0; RESERVED as usize];
    head[..8].copy_from_slice(b"\0\0\0\x01mdat");
    head[8..].copy_from_slice(&size.to_be_bytes());
    head
}

/// A box in the file, all of whose bytes are there.
struct Head {
    kind: [u8; 4],
    size: u64,
}

fn box_at(walk: &mut Walk<'_>, at: u64) -> Result<Option<Head>, ContainerError> {
    let Some(bytes) = walk.bytes(at, 8)? else { return Ok(None) };
    let mut reader = Reader(&bytes);
    let size = u64::from(reader.u32().unwrap_or(0));
    let kind = *reader.0.first_chunk().expect("eight were read");
    Ok((size >= 8 && at + size <= walk.length).then_some(Head { kind, size }))
}

/// What is known of a track so far.
#[derive(Debug, Default)]
struct State {
    tables: Tables,
    /// When the newest sample is decoded, and how long it says it lasts.
    newest: Option<(u64, u32)>,
}

/// Samples of one fragment that lie side by side.
struct Run {
    track: usize,
    at: u64,
    /// Of each: when it is decoded, how long it lasts, its size, whether decoding may begin there.
    samples: Vec<(u64, u32, u32, bool)>,
}

impl State {
    /// Whether the tables can go on with a sample at this time.
    fn follows(&self, time: u64) -> bool {
        self.newest.is_none_or(|(newest, _)| time > newest && time - newest <= u64::from(u32::MAX))
    }

    fn take(&mut self, run: &Run, video: bool) {
        self.tables.chunks.push((run.at, run.samples.len() as u32));
        for (time, duration, size, sync) in &run.samples {
            match self.newest {
                None => self.tables.first = *time,
                // A sample lasts until the next one begins, whatever was written when that was not known yet.
                Some((newest, _)) => self.lasts((time - newest) as u32),
            }
            self.newest = Some((*time, *duration));
            self.tables.sizes.push(*size);
            if *sync && video {
                self.tables.syncs.push(self.tables.sizes.len() as u32);
            }
        }
    }

    fn lasts(&mut self, ticks: u32) {
        match self.tables.durations.last_mut() {
            Some((count, last)) if *last == ticks => *count += 1,
            _ => self.tables.durations.push((1, ticks)),
        }
    }

    fn finish(mut self) -> Tables {
        if let Some((_, duration)) = self.newest {
            self.lasts(duration);
        }
        self.tables
    }
}

/// Reads the fragment at `at` into the tables; its size, or None when there is no whole one.
fn fragment_at(
    walk: &mut Walk<'_>,
    at: u64,
    movie: &Movie,
    state: &mut [State],
) -> Result<Option<u64>, ContainerError> {
    let Some(moof) = box_at(walk, at)?.filter(|head| &head.kind == b"moof" && head.size <= MOST_MOOF) else {
        return Ok(None);
    };
    let Some(mdat) = box_at(walk, at + moof.size)?.filter(|head| &head.kind == b"mdat") else { return Ok(None) };
    let Some(body) = walk.bytes(at + 8, moof.size - 8)? else { return Ok(None) };
    let data = at + moof.size + 8..at + moof.size + mdat.size;
    let Some(runs) = runs(&body, at, &movie.tracks) else { return Ok(None) };
    let mut newest: Vec<bool> = state.iter().map(|_| false).collect();
    for run in &runs {
        let end = run.samples.iter().try_fold(run.at, |end, sample| end.checked_add(u64::from(sample.2)));
        let inside = run.at >= data.start && end.is_some_and(|end| end <= data.end);
        let ordered = run.samples.windows(2).all(|pair| pair[1].0 > pair[0].0);
        let follows = run.samples.first().is_none_or(|first| state[run.track].follows(first.0));
        // One run a track, as they are written here.
        if !inside || !ordered || !follows || std::mem::replace(&mut newest[run.track], true) {
            return Ok(None);
        }
    }
    for run in runs.iter().filter(|run| !run.samples.is_empty()) {
        state[run.track].take(run, movie.tracks[run.track].is_video());
    }
    Ok(Some(moof.size + mdat.size))
}

/// The runs of a `moof` at `at`; None when it is not as it is written here.
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
