//! Container formats: muxes encoded samples into files, and finalizes or repairs files in place.
//!
//! Owns: fragmented MP4 (ISO/IEC 14496-12, -14, -15), Matroska and WebM (RFC 9559), Opus in Ogg (RFC 7845), and the
//! index, duration and chapters that are added when a file is finished. Does not know: sockets, threads, clocks,
//! folders. [`ivf`] is only read, as the load generator's clips. In: [`Sample`]s, through [`Writer`]. Out: bytes to
//! append to the file. [`finish`] works on any [`Storage`].
//!
//! Captions are a track of text ([`TrackSpec::text`]): `tx3g` in MP4 (3GPP TS 26.245), `S_TEXT/UTF8` in Matroska. Its
//! samples are written at once with the duration that is planned for them. [`finish`] shortens those that were replaced
//! earlier, and removes a track without captions from the index. [`webvtt`] is text of its own.
//!
//! The boxes, elements and pages are written here and not by a crate. `mp4-atom` decodes nested boxes without a depth
//! limit: a file of 4 kB overflows the stack. `mkv-element` writes a body of 16,383 bytes with the reserved "unknown
//! size", and cannot write sizes of fixed width that are filled in later. `ogg` cannot change a page that is already
//! written.

pub mod av1;
pub mod avc;
pub mod bits;
mod finish;
mod fragment;
pub mod ivf;
mod matroska;
pub mod mp4;
mod ogg;
mod reader;
mod track;
pub mod webvtt;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, Write};
use std::time::Duration;

use bytes::Bytes;

pub use self::finish::finish;
pub use self::fragment::Writer;
pub use self::reader::{Chapter, FileSummary};
pub use self::track::{TrackCodec, TrackSpec};
use crate::media::FileFormat;

/// Common time units per second: a multiple of every track clock (8 units per 90 kHz tick, 15 per 48 kHz tick).
const UNITS: u64 = 720_000;

/// Whether a file of this format may contain a track of this codec.
pub const fn supports(format: FileFormat, codec: TrackCodec) -> bool {
    match format {
        FileFormat::Mp4 => {
            matches!(codec, TrackCodec::H264 | TrackCodec::Aac | TrackCodec::Opus | TrackCodec::Text)
        }
        // Its only text codec is deprecated (D_WEBVTT), and browsers do not show it.
        FileFormat::Webm => matches!(codec, TrackCodec::Vp8 | TrackCodec::Vp9 | TrackCodec::Av1 | TrackCodec::Opus),
        FileFormat::Mkv => true,
        FileFormat::Ogg => matches!(codec, TrackCodec::Opus),
    }
}

/// One encoded video frame or audio packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Index of its track, from 0.
    pub track: usize,
    /// Presentation time since the start of the file, in ticks of the track's clock (90 kHz video, 48 kHz others).
    pub time: u64,
    /// Duration in the same ticks. It is corrected when the next sample begins earlier or later.
    pub duration: u32,
    /// Decoding may begin here; always true for audio and text.
    pub keyframe: bool,
    /// A VP8 or VP9 frame, an H.264 access unit (Annex B), an AV1 temporal unit, an audio packet, or text in UTF-8.
    pub data: Bytes,
}

/// A file, or memory that behaves like one.
pub trait Storage: Read + Write + Seek {
    /// Truncates it, or extends it with zeros.
    ///
    /// # Errors
    /// I/O errors of the operating system.
    fn set_len(&mut self, length: u64) -> io::Result<()>;

    /// Flushes written data to the device (`fdatasync`).
    ///
    /// # Errors
    /// I/O errors of the operating system.
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

/// Why a sample could not be written or a file not be finished.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The format does not support these tracks.
    #[error("a {} file supports only {supported}", .format.extension())]
    Tracks {
        /// The requested format.
        format: FileFormat,
        /// What the format supports.
        supported: &'static str,
    },
    /// A sample names a track that does not exist.
    #[error("there is no track {0}")]
    NoTrack(usize),
    /// A sample is not later than the previous sample of its track.
    #[error("track {track}: timestamp {time} is not later than that of the previous sample")]
    Unordered {
        /// Index of the track.
        track: usize,
        /// The sample's time in ticks.
        time: u64,
    },
    /// A sample is not valid for its codec.
    #[error("malformed {codec}: {reason}")]
    Malformed {
        /// Codec of the track.
        codec: TrackCodec,
        /// What is wrong.
        reason: &'static str,
    },
    /// The file was not written by this module.
    #[error("not a {} file written by this server: {reason}", .format.extension())]
    Foreign {
        /// The expected format.
        format: FileFormat,
        /// What is wrong.
        reason: &'static str,
    },
    /// The file contains no media.
    #[error("nothing was recorded: the file contains no complete fragment")]
    Empty,
    /// The file is corrupt, and not only in the fragment that was being written.
    #[error("corrupt at byte {at} of {length}: too much data follows to truncate the file there; it is left unchanged")]
    Damaged {
        /// Offset of the first invalid byte.
        at: u64,
        /// Length of the file in bytes.
        length: u64,
    },
    /// The index exceeds the 32-bit size of its box.
    #[error("the file is too large for an index")]
    TooLarge,
    /// An I/O operation failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Converts [`UNITS`] to a duration.
const fn duration_of(units: u64) -> Duration {
    Duration::new(units / UNITS, ((units % UNITS) * 1_000_000_000 / UNITS) as u32)
}
