//! The writer: queues samples until a fragment of every track is complete, then muxes it.
//!
//! Owns: the queues and the fragment boundaries. Does not know: the file. In: [`Writer::push`]. Out: [`Writer::poll`].

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::{ContainerError, Sample, TrackSpec, UNITS, matroska, mp4, ogg, supports};
use crate::media::{AUDIO_RATE, FileFormat};

/// A fragment does not wait for a track that lags further behind; its late samples go into the next fragment. In
/// [`UNITS`].
const MAX_TRACK_LAG: u64 = UNITS * 3 / 10;
/// Longest pause between captions in one sample of an MP4, in ticks: 12 hours. Durations have 32 bits.
const MAX_PAUSE: u64 = 12 * 3_600 * AUDIO_RATE as u64;
/// A fragment of any duration ends at this size.
const MAX_FRAGMENT_BYTES: usize = 32 << 20;

/// Muxes a growing file. Append each returned buffer with a single write: the file is then playable at any moment, and
/// [`super::finish`] finds a complete fragment at its end.
#[derive(Debug)]
pub struct Writer {
    tracks: Vec<TrackSpec>,
    muxer: Muxer,
    /// Duration of a fragment in [`UNITS`].
    fragment_duration: u64,
    /// End of the current fragment in [`UNITS`].
    boundary: u64,
    /// Samples not yet written, in order, one queue per track.
    pending: Vec<VecDeque<Sample>>,
    /// The last sample of each track, written or pending: its time in ticks and its end in [`UNITS`].
    newest: Vec<Option<(u64, u64)>>,
    /// Size of the pending samples.
    bytes: usize,
    /// The file header, until it is returned.
    header: Option<Bytes>,
}

#[derive(Debug)]
enum Muxer {
    Mp4(mp4::Muxer),
    Matroska,
    Ogg(ogg::Muxer),
}

impl Writer {
    /// A writer of 1 to 16 tracks, with fragments of `fragment_duration`.
    ///
    /// # Errors
    /// [`ContainerError::Tracks`] when the format does not support the tracks.
    pub fn new(
        format: FileFormat,
        tracks: Vec<TrackSpec>,
        fragment_duration: Duration,
    ) -> Result<Self, ContainerError> {
        let refuse = |supported| Err(ContainerError::Tracks { format, supported });
        if tracks.is_empty() || tracks.len() > 16 || !tracks.iter().all(|track| supports(format, track.codec)) {
            return refuse(match format {
                FileFormat::Mp4 => "H.264, AAC, Opus and captions, in 1 to 16 tracks",
                FileFormat::Webm => "VP8, VP9, AV1 and Opus, in 1 to 16 tracks",
                FileFormat::Mkv => "1 to 16 tracks",
                FileFormat::Ogg => "one track of Opus",
            });
        }
        if tracks.iter().rev().skip(1).any(|track| track.codec.is_text()) {
            return refuse("captions in its last track");
        }
        let (header, muxer) = match format {
            FileFormat::Mp4 => (mp4::header(&tracks), Muxer::Mp4(mp4::Muxer::default())),
            FileFormat::Webm | FileFormat::Mkv => (matroska::header(format, &tracks), Muxer::Matroska),
            FileFormat::Ogg if tracks.len() > 1 => return refuse("one track of Opus"),
            FileFormat::Ogg => (ogg::header(&tracks[0]), Muxer::Ogg(ogg::Muxer::new())),
        };
        let fragment_duration = ((fragment_duration.as_micros() as u64).saturating_mul(UNITS) / 1_000_000).max(1);
        Ok(Self {
            muxer,
            fragment_duration,
            boundary: fragment_duration,
            pending: tracks.iter().map(|_| VecDeque::new()).collect(),
            newest: vec![None; tracks.len()],
            bytes: 0,
            header: Some(header),
            tracks,
        })
    }

    /// Queues a sample. Samples of one track come in order of time; decoding order equals presentation order.
    ///
    /// # Errors
    /// [`ContainerError::NoTrack`], [`ContainerError::Malformed`] or [`ContainerError::Unordered`]. The sample is
    /// dropped and the file stays valid.
    pub fn push(&mut self, sample: Sample) -> Result<(), ContainerError> {
        let track = sample.track;
        let spec = self.tracks.get(track).ok_or(ContainerError::NoTrack(track))?;
        if self.newest[track].is_some_and(|(time, _)| sample.time <= time) || sample.time > u64::MAX / UNITS {
            return Err(ContainerError::Unordered { track, time: sample.time });
        }
        let sample = Sample { data: spec.stored(sample.data)?, ..sample };
        match &self.muxer {
            Muxer::Mp4(_) if spec.codec.is_text() => {
                self.push_pause(track, sample.time);
                let data = mp4::text_sample(&sample.data);
                self.enqueue(Sample { data, duration: sample.duration.max(1), ..sample });
            }
            Muxer::Matroska if spec.codec.is_text() => {
                self.enqueue(Sample { data: matroska::text_block(&sample.data), ..sample });
            }
            _ => self.enqueue(sample),
        }
        Ok(())
    }

    /// Fills the time before a caption: in an MP4 each moment of a track belongs to a sample.
    fn push_pause(&mut self, track: usize, until: u64) {
        let ticks = UNITS / u64::from(self.tracks[track].clock());
        let mut time = self.newest[track].map_or(0, |(_, end)| end / ticks);
        while time < until {
            let duration = (until - time).min(MAX_PAUSE);
            self.enqueue(Sample {
                track,
                time,
                duration: duration as u32,
                keyframe: true,
                data: mp4::text_sample(&[]),
            });
            time += duration;
        }
    }

    fn enqueue(&mut self, sample: Sample) {
        let end = self.tracks[sample.track].units(sample.time.saturating_add(u64::from(sample.duration)));
        self.newest[sample.track] = Some((sample.time, end));
        self.bytes += sample.data.len();
        self.pending[sample.track].push_back(sample);
    }

    /// The next bytes to append to the file, in one write; None until a fragment is complete.
    pub fn poll(&mut self) -> Option<Bytes> {
        if let Some(header) = self.header.take() {
            return Some(header);
        }
        if self.pending.iter().all(VecDeque::is_empty) {
            return None;
        }
        // Nothing waits for captions.
        let media = || self.tracks.iter().zip(&self.newest).filter(|(track, _)| !track.codec.is_text());
        let ends = || media().map(|(_, newest)| newest.map_or(0, |(_, end)| end));
        let complete = ends().all(|end| end >= self.boundary)
            || ends().any(|end| end >= self.boundary.saturating_add(MAX_TRACK_LAG))
            || self.bytes > MAX_FRAGMENT_BYTES;
        if !complete {
            return None;
        }
        let boundary = if self.bytes > MAX_FRAGMENT_BYTES { u64::MAX } else { self.boundary };
        let fragment = self.cut(boundary);
        let next =
            self.pending.iter().enumerate().filter_map(|(i, queue)| Some(self.tracks[i].units(queue.front()?.time)));
        let next = next.min().unwrap_or(0).max(self.boundary);
        self.boundary = (next / self.fragment_duration + 1).saturating_mul(self.fragment_duration);
        // An empty fragment is a gap in all tracks; the fragment after the gap may already be complete.
        fragment.or_else(|| self.poll())
    }

    /// The pending samples as the last fragment; None when there are none. [`super::finish`] then completes the file.
    pub fn end(&mut self) -> Option<Bytes> {
        self.header.take().or_else(|| self.cut(u64::MAX))
    }

    /// Muxes all samples that begin before `boundary` (in [`UNITS`]).
    fn cut(&mut self, boundary: u64) -> Option<Bytes> {
        let mut fragment: Vec<Vec<Sample>> = Vec::with_capacity(self.tracks.len());
        for (spec, queue) in self.tracks.iter().zip(&mut self.pending) {
            let count = queue.iter().take_while(|sample| spec.units(sample.time) < boundary).count();
            let next = queue.get(count).map(|sample| sample.time);
            let mut samples: Vec<Sample> = queue.drain(..count).collect();
            // A sample lasts until the next one begins; the declared duration is used only for the last one.
            for i in 0..samples.len() {
                if let Some(next) = samples.get(i + 1).map(|sample| sample.time).or(next) {
                    samples[i].duration = u32::try_from(next - samples[i].time).unwrap_or(u32::MAX);
                }
            }
            fragment.push(samples);
        }
        self.bytes = self.pending.iter().flatten().map(|sample| sample.data.len()).sum();
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
