//! File formats: encoded media in, the bytes of files out; and files whose writer was killed, mended in place.
//!
//! Owns: MP4 in fragments (ISO/IEC 14496-12, -14, -15), Matroska and WebM (RFC 9559), Opus in Ogg (RFC 7845), and what a
//! finished file has that a growing one cannot have. Does not know: sockets, threads, clocks, folders. [`Writer`] takes
//! [`Sample`]s and gives bytes to append; [`finish`] works on whatever reads, writes and seeks.
//!
//! The boxes, elements and pages are written here and not by a crate. `mp4-atom` decodes any box inside any other without a
//! limit of depth: a file of four kilobytes overflows the stack. `mkv-element` writes a body of 16,383 bytes as one of
//! unknown size, and has no sizes of fixed width to fill in later. `ogg` cannot change a page that is written already.

pub mod av1;
pub mod avc;
pub mod bits;
mod finish;
mod fragment;
mod matroska;
pub mod mp4;
mod ogg;
mod track;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, Write};
use std::time::Duration;

use bytes::Bytes;

pub use self::finish::{Chapter, Found, finish};
pub use self::fragment::Writer;
pub use self::track::{TrackCodec, TrackSpec};
use crate::media::FileFormat;

/// Units a second in which the clocks of all tracks are whole numbers: 8 of them are a tick of video, 15 one of sound.
const UNITS: u64 = 720_000;

/// Whether a file of this format may hold a track of this codec.
pub const fn holds(format: FileFormat, codec: TrackCodec) -> bool {
    match format {
        FileFormat::Mp4 => matches!(codec, TrackCodec::H264 | TrackCodec::Aac | TrackCodec::Opus),
        FileFormat::Webm => matches!(codec, TrackCodec::Vp8 | TrackCodec::Vp9 | TrackCodec::Av1 | TrackCodec::Opus),
        FileFormat::Mkv => true,
        FileFormat::Ogg => matches!(codec, TrackCodec::Opus),
    }
}

/// One frame of video, or one packet of sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Its track, counted from zero.
    pub track: usize,
    /// When it begins, in ticks of its track's clock (90 kHz for video, 48 kHz for sound), from the file's beginning.
    pub time: u64,
    /// How long it lasts, in the same ticks. That the next one comes later or sooner than it says does no harm.
    pub duration: u32,
    /// Decoding may begin here; always so for sound.
    pub keyframe: bool,
    /// A VP8 or VP9 frame, an H.264 access unit in Annex B, an AV1 temporal unit, or a packet of sound.
    pub data: Bytes,
}

/// What can be read, written, sought, cut and made safe: a file, or memory.
pub trait Storage: Read + Write + Seek {
    /// Cuts or extends it.
    ///
    /// # Errors
    /// The system's.
    fn set_len(&mut self, length: u64) -> io::Result<()>;

    /// Returns when what was written survives a loss of power.
    ///
    /// # Errors
    /// The system's.
    fn sync(&mut self) -> io::Result<()>;
}

impl Storage for File {
    fn set_len(&mut self, length: u64) -> io::Result<()> {
        Self::set_len(self, length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

impl Storage for Cursor<Vec<u8>> {
    fn set_len(&mut self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.get_mut().resize(length, 0);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why media could not be written, or a file not be finished.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The tracks do not fit the format.
    #[error("a {} file holds {what}", .format.extension())]
    Tracks {
        /// The format.
        format: FileFormat,
        /// What it holds instead.
        what: &'static str,
    },
    /// No such track.
    #[error("there is no track {0}")]
    NoTrack(usize),
    /// A sample that does not come after the one before it.
    #[error("track {track}: a sample at tick {time} does not come after the one before it")]
    Unordered {
        /// The track.
        track: usize,
        /// The sample's time.
        time: u64,
    },
    /// A sample that is not what its codec says.
    #[error("a broken {codec}: {reason}")]
    Malformed {
        /// The codec.
        codec: TrackCodec,
        /// What is wrong.
        reason: &'static str,
    },
    /// Not a file that was written here.
    #[error("not a {} file of this server: {reason}", .format.extension())]
    Foreign {
        /// The format.
        format: FileFormat,
        /// What is wrong.
        reason: &'static str,
    },
    /// Nothing to play in it.
    #[error("nothing was recorded: the file holds no whole fragment")]
    Empty,
    /// Broken in the middle.
    #[error("damaged at byte {at} of {length}, too far from its end to cut it there: it is left as it is")]
    Damaged {
        /// Where the first broken byte is.
        at: u64,
        /// The file's length.
        length: u64,
    },
    /// More samples than tables can tell of.
    #[error("the file is too large for an index")]
    TooLarge,
    /// Reading or writing fails.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Units of time as a duration.
const fn duration_of(units: u64) -> Duration {
    Duration::new(units / UNITS, ((units % UNITS) * 1_000_000_000 / UNITS) as u32)
}
