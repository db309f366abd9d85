//! HLS: which parts and segments there are, and the playlists that tell of them (RFC 8216bis, its low-latency mode).
//!
//! Owns: [`Broadcast`], bounded in memory: renditions of one broadcast with their last segments, and its playlists. Does
//! not know: HTTP, who watches, what is in a part. Pure: pieces are pushed, playlists and files are asked for.
//!
//! A segment's name holds the broadcast's own tag, so that no cache takes it for one of an earlier broadcast of the room.

mod playlist;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

pub use self::playlist::Query;
use crate::media::{Size, Tier};

/// Whole segments that a playlist lists.
const LISTED: usize = 7;
/// Whole segments that can still be had; a slow player is behind the playlist.
const KEPT: usize = 10;
/// Of so many of the last whole segments the parts are listed: three target durations.
const WITH_PARTS: usize = 4;
/// Parts of one segment, all that a broken keyframe rhythm may make of it; the oldest are not dropped, it is cut.
const PARTS_MAX: usize = 40;

/// What one rendition shows or plays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rendition {
    /// A tier of the picture.
    Video {
        /// Which.
        tier: Tier,
        /// Pixels.
        size: Size,
        /// Frames a second.
        fps: u32,
        /// Bits a second at most, without sound.
        bandwidth: u32,
    },
    /// Everyone's mix, which all pictures share, and which stands alone as well.
    Sound {
        /// Bits a second at most.
        bandwidth: u32,
    },
}

impl Rendition {
    /// Its folder's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Video { tier: Tier::High, .. } => "high",
            Self::Video { tier: Tier::Medium, .. } => "medium",
            Self::Video { tier: Tier::Low, .. } => "low",
            Self::Video { .. } => "slides",
            Self::Sound { .. } => "audio",
        }
    }
}

/// A broadcast: everything that its players may ask for.
#[derive(Debug)]
pub struct Broadcast {
    tag: String,
    part_target: Duration,
    segment_target: Duration,
    renditions: Vec<Track>,
    /// Counts every process that made pieces: each has initialization sections of its own.
    generation: u32,
    ended: bool,
}

/// One rendition and its last segments.
#[derive(Debug)]
struct Track {
    rendition: Rendition,
    /// Initialization sections by generation; as many as the kept segments need.
    inits: VecDeque<(u32, Bytes)>,
    codec: Option<String>,
    segments: VecDeque<Segment>,
    /// The number of the first segment kept.
    first: u64,
    /// How many discontinuities went before the first segment kept.
    discontinuities: u64,
}

#[derive(Debug)]
struct Segment {
    generation: u32,
    /// Media of another process came before it.
    discontinuity: bool,
    /// When it begins, in microseconds since 1970.
    wall_micros: u64,
    parts: Vec<Part>,
    whole: bool,
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

/// A piece of a rendition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Its initialization section, and its codec as playlists name it (RFC 6381).
    Init {
        /// The codec.
        codec: String,
        /// The section.
        data: Bytes,
    },
    /// A part of the segment that grows.
    Part {
        /// How long it is.
        duration: Duration,
        /// A player may begin with it.
        independent: bool,
        /// Its bytes.
        data: Bytes,
    },
    /// The next part begins another segment, at this time on the wall clock in microseconds since 1970.
    Cut {
        /// When.
        wall_micros: u64,
    },
}

/// What a request for a playlist or file is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// This.
    Playlist(String),
    /// This, which never changes.
    File(Bytes),
    /// Nothing yet: ask again when another piece has come.
    Later,
    /// There is no such thing (any more).
    Nothing,
    /// It asks for something too far in the future (RFC 8216bis section 6.2.5.2).
    TooFar,
}

impl Broadcast {
    /// A broadcast with these renditions, and nothing of them yet. `tag` is in the names of its files.
    pub fn new(tag: String, renditions: Vec<Rendition>, segment_target: Duration, part_target: Duration) -> Self {
        let track = |rendition| Track {
            rendition,
            inits: VecDeque::new(),
            codec: None,
            segments: VecDeque::new(),
            first: 0,
            discontinuities: 0,
        };
        let renditions = renditions.into_iter().map(track).collect();
        Self { tag, part_target, segment_target, renditions, generation: 0, ended: false }
    }

    /// The next pieces come from another process than those before.
    pub fn begin_again(&mut self) {
        self.generation += 1;
        self.renditions.iter_mut().for_each(Track::close);
    }

    /// Nothing follows.
    pub fn end(&mut self) {
        self.ended = true;
        self.renditions.iter_mut().for_each(Track::close);
    }

    /// Whether nothing follows.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes in a piece of a rendition; what belongs to none is dropped.
    pub fn push(&mut self, rendition: usize, piece: Piece) {
        let generation = self.generation;
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
                let Some(last) = track.segments.back_mut().filter(|last| !last.whole) else { return };
                if last.parts.len() < PARTS_MAX {
                    last.parts.push(Part { duration, independent, data });
                }
            }
            Piece::Cut { wall_micros } => {
                track.close();
                let before = track.segments.back().map(|last| last.generation);
                let discontinuity = before.is_some_and(|before| before != generation);
                track.segments.push_back(Segment {
                    generation,
                    discontinuity,
                    wall_micros,
                    parts: Vec::new(),
                    whole: false,
                });
                track.forget();
            }
        }
    }

    /// What stands at `{rendition}/{file}`.
    pub fn file(&self, rendition: &str, file: &str) -> Found {
        let Some(track) = self.renditions.iter().find(|track| track.rendition.name() == rendition) else {
            return Found::Nothing;
        };
        let Some(rest) = file.strip_prefix(&self.tag).and_then(|rest| rest.strip_prefix('-')) else {
            return Found::Nothing;
        };
        let Some((name, "mp4" | "m4s")) = rest.split_once('.') else { return Found::Nothing };
        if let Some(generation) = name.strip_prefix("init").and_then(|digits| digits.parse::<u32>().ok()) {
            let init = track.inits.iter().find(|(of, _)| *of == generation);
            return init.map_or(Found::Nothing, |(_, data)| Found::File(data.clone()));
        }
        let (segment, part) = match name.split_once('-') {
            Some((segment, part)) => (segment, part.parse::<usize>().ok()),
            None => (name, None),
        };
        let Ok(number) = segment.parse::<u64>() else { return Found::Nothing };
        let wants_part = name.contains('-');
        if wants_part && part.is_none() {
            return Found::Nothing;
        }
        track.media(number, part, self.ended)
    }
}

impl Track {
    /// The segment that grew is whole; one without parts never was.
    fn close(&mut self) {
        match self.segments.back_mut() {
            Some(last) if last.parts.is_empty() => drop(self.segments.pop_back()),
            Some(last) => last.whole = true,
            None => {}
        }
    }

    /// Forgets the oldest segments, and the initialization sections that only they needed.
    fn forget(&mut self) {
        while self.segments.len() > KEPT + 1 {
            self.segments.pop_front();
            self.first += 1;
            if self.segments.front().is_some_and(|now_first| now_first.discontinuity) {
                self.discontinuities += 1;
            }
        }
        if let Some(oldest) = self.segments.front().map(|segment| segment.generation) {
            self.inits.retain(|(generation, _)| *generation >= oldest);
        }
    }

    /// The number of the segment after the last, whole or growing.
    fn next(&self) -> u64 {
        self.first + self.segments.len() as u64
    }

    fn segment(&self, number: u64) -> Option<&Segment> {
        self.segments.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn media(&self, number: u64, part: Option<usize>, ended: bool) -> Found {
        let Some(segment) = self.segment(number) else {
            // The one that is hinted at may be asked for before it is there.
            let hinted = number == self.next() && part.is_none_or(|part| part == 0) && !ended;
            return if hinted { Found::Later } else { Found::Nothing };
        };
        match part {
            Some(part) => match segment.parts.get(part) {
                Some(part) => Found::File(part.data.clone()),
                None if !segment.whole && part == segment.parts.len() => Found::Later,
                None => Found::Nothing,
            },
            None if segment.whole => {
                let data: Vec<u8> = segment.parts.iter().flat_map(|part| part.data.iter().copied()).collect();
                Found::File(data.into())
            }
            None => Found::Later,
        }
    }
}
