//! HLS store: the last segments and parts of a broadcast, and its playlists (RFC 8216bis, low-latency mode).
//!
//! Owns: [`Broadcast`], bounded in memory: the renditions of one broadcast with their last segments, and the playlists.
//! Does not know: HTTP, players, codecs. In: [`Piece`]s. Out: playlists and files, as [`Lookup`].
//!
//! Media sequence numbers, discontinuity sequence numbers and file names derive from the wall clock: the broadcast that
//! follows a restart of the server has greater media sequence numbers than the one before, and another discontinuity
//! sequence number, at the same URL. Players that reload the playlist go on with it, and no cache confuses the files of
//! both.

mod playlist;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

pub use self::playlist::Query;
use crate::media::{Size, Tier};

/// Complete segments in a playlist.
const LISTED_SEGMENTS: usize = 7;
/// Complete segments that are stored: more than listed, for players that lag behind the playlist.
const STORED_SEGMENTS: usize = 10;
/// Segments at the end of a playlist whose parts are listed: at least three target durations.
const SEGMENTS_WITH_PARTS: usize = 4;
/// Discontinuity sequence numbers begin below this. They differ from those before a restart, but must be small: hls.js
/// walks through an array of that length with each playlist, and seconds since 1970 would block a page for a minute.
const DISCONTINUITIES: u64 = 10_000;
/// A segment of captions without cues (W3C WebVTT).
const NO_CUES: &[u8] = b"WEBVTT\n";
/// Most parts of a segment; further parts are dropped. Reached only if keyframes stay away.
const PARTS_MAX: usize = 40;

/// One rendition of a broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rendition {
    /// Video at one tier.
    Video {
        /// Quality tier.
        tier: Tier,
        /// Frame size in pixels.
        size: Size,
        /// Frames per second.
        fps: u32,
        /// Peak bits per second, without audio.
        bandwidth: u32,
    },
    /// The audio mix: shared by all video renditions, and offered alone.
    Audio {
        /// Peak bits per second.
        bandwidth: u32,
    },
    /// Captions as WebVTT, in whole segments.
    Captions,
}

impl Rendition {
    /// Its folder in the URL.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Video { tier: Tier::High, .. } => "high",
            Self::Video { tier: Tier::Medium, .. } => "medium",
            Self::Video { tier: Tier::Low, .. } => "low",
            Self::Video { .. } => "slides",
            Self::Audio { .. } => "audio",
            Self::Captions => "captions",
        }
    }

    /// Whether it has an initialization section and parts.
    const fn has_parts(&self) -> bool {
        !matches!(self, Self::Captions)
    }

    /// The extension of its segments.
    const fn extension(&self) -> &'static str {
        if self.has_parts() { "m4s" } else { "vtt" }
    }
}

/// The stored renditions of a broadcast.
#[derive(Debug)]
pub struct Broadcast {
    part_target: Duration,
    segment_target: Duration,
    renditions: Vec<Track>,
    /// The process that produces pieces: each has its own initialization sections. Starts with the seconds since 1970
    /// at which the broadcast began, and grows by one with each process.
    generation: u64,
    /// Start in microseconds since 1970 of one segment, and its media sequence number. The same for all renditions,
    /// so that their numbers agree.
    anchor: Option<(u64, u64)>,
    ended: bool,
}

/// One rendition and its last segments.
#[derive(Debug)]
struct Track {
    rendition: Rendition,
    /// Initialization sections by generation, of stored segments only.
    inits: VecDeque<(u64, Bytes)>,
    codec: Option<String>,
    /// Language of captions (RFC 5646).
    language: Option<String>,
    segments: VecDeque<Segment>,
    /// Media sequence number of the first stored segment; None before the first one.
    first: Option<u64>,
    /// Discontinuity sequence number of the first stored segment.
    discontinuities: u64,
}

#[derive(Debug)]
struct Segment {
    generation: u64,
    /// The segment before it has another generation.
    discontinuity: bool,
    /// Start in microseconds since 1970.
    wall_micros: u64,
    parts: Vec<Part>,
    complete: bool,
}

#[derive(Debug)]
struct Part {
    duration: Duration,
    independent: bool,
    data: Bytes,
}

impl Segment {
    fn duration(&self) -> Duration {
        self.parts.iter().map(|part| part.duration).sum()
    }
}

/// Output of the packager for one rendition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Media initialization section.
    Init {
        /// Codec string (RFC 6381).
        codec: String,
        /// `ftyp` and `moov`.
        data: Bytes,
    },
    /// A part of the current segment.
    Part {
        /// Media duration.
        duration: Duration,
        /// It begins with a keyframe.
        independent: bool,
        /// `moof` and `mdat`; of captions WebVTT of the whole segment.
        data: Bytes,
    },
    /// The language of the rendition (RFC 5646), for captions.
    Language(String),
    /// Ends the current segment; the next part begins another.
    Cut {
        /// Start of the new segment, in microseconds since 1970.
        wall_micros: u64,
    },
}

/// Result of a request for a playlist or file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// A playlist.
    Playlist(String),
    /// A file, which never changes.
    File(Bytes),
    /// Not available yet: retry after the next [`Broadcast::push`].
    Pending,
    /// It does not exist, or not any more.
    NotFound,
    /// The requested segment is too far in the future (RFC 8216bis section 6.2.5.2).
    TooFar,
}

impl Broadcast {
    /// An empty broadcast with these renditions, which begins at `began`, in seconds since 1970.
    pub fn new(began: u64, renditions: Vec<Rendition>, segment_target: Duration, part_target: Duration) -> Self {
        let track = |rendition| Track {
            rendition,
            inits: VecDeque::new(),
            codec: None,
            language: None,
            segments: VecDeque::new(),
            first: None,
            discontinuities: began % DISCONTINUITIES,
        };
        let renditions = renditions.into_iter().map(track).collect();
        Self { part_target, segment_target, renditions, generation: began, anchor: None, ended: false }
    }

    /// Announces that the next pieces come from another process.
    pub fn begin_generation(&mut self) {
        self.generation += 1;
        self.fill_captions();
        self.renditions.iter_mut().for_each(Track::close);
    }

    /// Ends the broadcast.
    pub fn end(&mut self) {
        self.ended = true;
        self.fill_captions();
        self.renditions.iter_mut().for_each(Track::close);
    }

    /// Captions of a segment come at its end: adds a segment without cues where the process did not reach the end, so
    /// that all renditions have the same numbers.
    fn fill_captions(&mut self) {
        let Some(media) = self.renditions.first() else { return };
        let (next, duration) = (media.next(), media.segments.back().map_or(Duration::ZERO, Segment::duration));
        let captions = self.renditions.iter_mut().filter(|track| !track.rendition.has_parts() && track.next() == next);
        for track in captions.filter(|_| !duration.is_zero()) {
            if let Some(last) = track.segments.back_mut().filter(|last| !last.complete && last.parts.is_empty()) {
                last.parts.push(Part { duration, independent: true, data: Bytes::from_static(NO_CUES) });
            }
        }
    }

    /// Whether [`Broadcast::end`] was called.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Adds a piece of the rendition with index `rendition`. Unknown renditions, and parts before the first cut, are
    /// dropped.
    pub fn push(&mut self, rendition: usize, piece: Piece) {
        let generation = self.generation;
        let step = (self.segment_target.as_micros() as u64).max(1);
        let Some(track) = self.renditions.get_mut(rendition) else { return };
        match piece {
            Piece::Init { codec, data } => {
                track.codec = Some(codec);
                let segments = &track.segments;
                let used = |of| of != generation && segments.iter().any(|segment| segment.generation == of);
                track.inits.retain(|(of, _)| used(*of));
                track.inits.push_back((generation, data));
            }
            Piece::Part { duration, independent, data } => {
                let Some(last) = track.segments.back_mut().filter(|last| !last.complete) else { return };
                if last.parts.len() < PARTS_MAX {
                    last.parts.push(Part { duration, independent, data });
                }
            }
            Piece::Language(language) => track.language = Some(language),
            Piece::Cut { wall_micros } => {
                track.close();
                let (at, number) = *self.anchor.get_or_insert((wall_micros, wall_micros / step));
                // The same boundary is up to half a segment earlier or later in another rendition.
                let ahead = (wall_micros + step / 2).saturating_sub(at) / step;
                track.first.get_or_insert(number + ahead);
                let before = track.segments.back().map(|last| last.generation);
                let discontinuity = before.is_some_and(|before| before != generation);
                track.segments.push_back(Segment {
                    generation,
                    discontinuity,
                    wall_micros,
                    parts: Vec::new(),
                    complete: false,
                });
                track.evict();
            }
        }
    }

    /// The file at `{rendition}/{file}`.
    pub fn file(&self, rendition: &str, file: &str) -> Lookup {
        let Some(track) = self.renditions.iter().find(|track| track.rendition.name() == rendition) else {
            return Lookup::NotFound;
        };
        let Some((name, extension)) = file.split_once('.') else { return Lookup::NotFound };
        if extension != track.rendition.extension() && !(extension == "mp4" && track.rendition.has_parts()) {
            return Lookup::NotFound;
        }
        if let Some(generation) = name.strip_prefix("init-").and_then(|digits| digits.parse::<u64>().ok()) {
            let init = track.inits.iter().find(|(of, _)| *of == generation);
            return init.map_or(Lookup::NotFound, |(_, data)| Lookup::File(data.clone()));
        }
        let (segment, part) = match name.split_once('-') {
            Some((segment, part)) => (segment, part.parse::<usize>().ok()),
            None => (name, None),
        };
        let Ok(number) = segment.parse::<u64>() else { return Lookup::NotFound };
        let wants_part = name.contains('-');
        if wants_part && (part.is_none() || !track.rendition.has_parts()) {
            return Lookup::NotFound;
        }
        track.media(number, part, self.ended)
    }
}

impl Track {
    /// Completes the current segment, or removes it when it has no parts.
    fn close(&mut self) {
        match self.segments.back_mut() {
            Some(last) if last.parts.is_empty() => drop(self.segments.pop_back()),
            Some(last) => last.complete = true,
            None => {}
        }
    }

    /// Removes the oldest segments, and the initialization sections that no stored segment uses.
    fn evict(&mut self) {
        while self.segments.len() > STORED_SEGMENTS + 1 {
            self.segments.pop_front();
            self.first = self.first.map(|first| first + 1);
            if self.segments.front().is_some_and(|now_first| now_first.discontinuity) {
                self.discontinuities += 1;
            }
        }
        if let Some(oldest) = self.segments.front().map(|segment| segment.generation) {
            self.inits.retain(|(generation, _)| *generation >= oldest);
        }
    }

    /// Media sequence number of the segment after the last one; None before the first one.
    fn next(&self) -> Option<u64> {
        Some(self.first? + self.segments.len() as u64)
    }

    fn segment(&self, number: u64) -> Option<&Segment> {
        self.segments.get(usize::try_from(number.checked_sub(self.first?)?).ok()?)
    }

    fn media(&self, number: u64, part: Option<usize>, ended: bool) -> Lookup {
        let Some(segment) = self.segment(number) else {
            // A player may request the hinted part before it exists.
            let hinted = Some(number) == self.next() && part.is_none_or(|part| part == 0) && !ended;
            return if hinted { Lookup::Pending } else { Lookup::NotFound };
        };
        match part {
            Some(part) => match segment.parts.get(part) {
                Some(part) => Lookup::File(part.data.clone()),
                None if !segment.complete && part == segment.parts.len() => Lookup::Pending,
                None => Lookup::NotFound,
            },
            None if segment.complete => {
                let data: Vec<u8> = segment.parts.iter().flat_map(|part| part.data.iter().copied()).collect();
                Lookup::File(data.into())
            }
            None => Lookup::Pending,
        }
    }
}
