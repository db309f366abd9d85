//! The writer: samples wait here until a second of every track is complete, and then become one piece of the file.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::{ContainerError, Sample, TrackSpec, UNITS, holds, matroska, mp4, ogg};
use crate::media::FileFormat;

/// A track that is so far behind the others is not waited for: what is late of it comes with the next fragment.
const PATIENCE: u64 = UNITS * 3 / 10;
/// So many bytes are a fragment whatever they last.
const MOST_BYTES: usize = 32 << 20;

/// Makes a growing file. Every piece it gives is to be appended with one write: then the file plays as it is at any
/// moment, and [`super::finish`] finds a whole fragment at its end.
#[derive(Debug)]
pub struct Writer {
    tracks: Vec<TrackSpec>,
    muxer: Muxer,
    every: u64,
    /// Units of time at which the fragment ends that is being filled.
    boundary: u64,
    /// Samples that wait, in order, one queue a track.
    waiting: Vec<VecDeque<Sample>>,
    /// The last sample of each track, written or not, and when it ends in units.
    newest: Vec<Option<(u64, u64)>>,
    bytes: usize,
    /// The file's beginning, until it is taken.
    header: Option<Bytes>,
}

#[derive(Debug)]
enum Muxer {
    Mp4(mp4::Muxer),
    Matroska,
    Ogg(ogg::Muxer),
}

impl Writer {
    /// A writer of these tracks, which cuts a fragment `every` so much media.
    ///
    /// # Errors
    /// [`ContainerError::Tracks`] when the format does not hold them.
    pub fn new(format: FileFormat, tracks: Vec<TrackSpec>, every: Duration) -> Result<Self, ContainerError> {
        let refuse = |what| Err(ContainerError::Tracks { format, what });
        if tracks.is_empty() || tracks.len() > 16 || !tracks.iter().all(|track| holds(format, track.codec)) {
            return refuse(match format {
                FileFormat::Mp4 => "H.264, AAC and Opus, in 1 to 16 tracks",
                FileFormat::Webm => "VP8, VP9, AV1 and Opus, in 1 to 16 tracks",
                FileFormat::Mkv => "1 to 16 tracks",
                FileFormat::Ogg => "one track of Opus",
            });
        }
        let (header, muxer) = match format {
            FileFormat::Mp4 => (mp4::beginning(&tracks), Muxer::Mp4(mp4::Muxer::default())),
            FileFormat::Webm | FileFormat::Mkv => (matroska::beginning(format, &tracks), Muxer::Matroska),
            FileFormat::Ogg if tracks.len() > 1 => return refuse("one track of Opus"),
            FileFormat::Ogg => (ogg::beginning(&tracks[0]), Muxer::Ogg(ogg::Muxer::new())),
        };
        let every = (every.as_micros() as u64).saturating_mul(UNITS) / 1_000_000;
        Ok(Self {
            muxer,
            every: every.max(1),
            boundary: every.max(1),
            waiting: tracks.iter().map(|_| VecDeque::new()).collect(),
            newest: vec![None; tracks.len()],
            bytes: 0,
            header: Some(header),
            tracks,
        })
    }

    /// Takes a sample. Those of one track come in order; what is presented later is decoded later.
    ///
    /// # Errors
    /// When there is no such track, the sample is broken, or does not come after the one before it; the file is as good
    /// as before.
    pub fn push(&mut self, sample: Sample) -> Result<(), ContainerError> {
        let track = sample.track;
        let spec = self.tracks.get(track).ok_or(ContainerError::NoTrack(track))?;
        if self.newest[track].is_some_and(|(time, _)| sample.time <= time) || sample.time > u64::MAX / UNITS {
            return Err(ContainerError::Unordered { track, time: sample.time });
        }
        let data = spec.stored(sample.data.clone())?;
        self.newest[track] = Some((sample.time, spec.units(sample.time + u64::from(sample.duration))));
        self.bytes += data.len();
        self.waiting[track].push_back(Sample { data, ..sample });
        Ok(())
    }

    /// Bytes to append to the file, all at once; None until a fragment is complete.
    pub fn poll(&mut self) -> Option<Bytes> {
        if let Some(header) = self.header.take() {
            return Some(header);
        }
        if self.waiting.iter().all(VecDeque::is_empty) {
            return None;
        }
        let ends = || self.newest.iter().map(|newest| newest.map_or(0, |(_, end)| end));
        let complete = ends().all(|end| end >= self.boundary)
            || ends().any(|end| end >= self.boundary.saturating_add(PATIENCE))
            || self.bytes > MOST_BYTES;
        if !complete {
            return None;
        }
        let boundary = if self.bytes > MOST_BYTES { u64::MAX } else { self.boundary };
        let fragment = self.cut(boundary);
        let next =
            self.waiting.iter().enumerate().filter_map(|(i, queue)| Some(self.tracks[i].units(queue.front()?.time)));
        let next = next.min().unwrap_or(0).max(self.boundary);
        self.boundary = (next / self.every + 1).saturating_mul(self.every);
        // Nothing in it: a gap in all tracks. What ends it may already be complete.
        fragment.or_else(|| self.poll())
    }

    /// What still waits, as the last fragment; None when nothing does. The file's end is made by [`super::finish`].
    pub fn end(&mut self) -> Option<Bytes> {
        self.header.take().or_else(|| self.cut(u64::MAX))
    }

    /// Everything that begins before `boundary` (in units).
    fn cut(&mut self, boundary: u64) -> Option<Bytes> {
        let mut fragment: Vec<Vec<Sample>> = Vec::with_capacity(self.tracks.len());
        for (spec, queue) in self.tracks.iter().zip(&mut self.waiting) {
            let count = queue.iter().take_while(|sample| spec.units(sample.time) < boundary).count();
            let next = queue.get(count).map(|sample| sample.time);
            let mut samples: Vec<Sample> = queue.drain(..count).collect();
            // A sample lasts until the next one; only of the very last is it not known better.
            for i in 0..samples.len() {
                if let Some(next) = samples.get(i + 1).map(|sample| sample.time).or(next) {
                    samples[i].duration = u32::try_from(next - samples[i].time).unwrap_or(u32::MAX);
                }
            }
            fragment.push(samples);
        }
        self.bytes = self.waiting.iter().flatten().map(|sample| sample.data.len()).sum();
        if fragment.iter().all(Vec::is_empty) {
            return None;
        }
        Some(match &mut self.muxer {
            Muxer::Mp4(muxer) => muxer.fragment(&fragment),
            Muxer::Matroska => matroska::fragment(&self.tracks, fragment),
            Muxer::Ogg(muxer) => muxer.fragment(&fragment[0]),
        })
    }
}
