//! Finishes a file in place: at its regular end, or after its writer was killed at any byte.
//!
//! Owns: the common rules and the reader. Does not know: the formats, each of which has its own `finish`.

use std::io::SeekFrom;
use std::time::Duration;

use super::{ContainerError, Storage, matroska, mp4, ogg};
use crate::media::FileFormat;

/// Most bytes that are truncated. A killed writer leaves one incomplete fragment; more invalid data has another cause.
const MAX_TAIL: u64 = 64 << 20;

/// A chapter mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chapter {
    /// Start, since the beginning of the file.
    pub time: Duration,
    /// The title that players show.
    pub title: String,
}

/// Contents of a finished file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSummary {
    /// Duration of the longest track.
    pub duration: Duration,
    /// Number of samples of each track.
    pub samples: Vec<u64>,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Bytes truncated because they were an incomplete fragment.
    pub cut: u64,
}

/// Finishes a growing file: adds duration, seek index and chapters (in order of time).
///
/// Only the end of the file and a few bytes of its header are written, and only the index is held in memory. A finished
/// file is left unchanged. May be interrupted at any point and repeated.
///
/// # Errors
/// [`ContainerError::Empty`] when there is no complete fragment, [`ContainerError::Foreign`] when the file was not
/// written by a [`super::Writer`], [`ContainerError::Damaged`] when it is corrupt before its last fragment. The file is
/// unchanged then.
pub fn finish(format: FileFormat, file: &mut dyn Storage, chapters: &[Chapter]) -> Result<FileSummary, ContainerError> {
    match format {
        FileFormat::Mp4 => mp4::finish(file, chapters),
        FileFormat::Webm | FileFormat::Mkv => matroska::finish(format, file, chapters),
        FileFormat::Ogg => ogg::finish(file),
    }
}

/// Refuses a truncation at `at` of more than [`MAX_TAIL`] bytes.
pub(super) const fn check_tail(at: u64, length: u64) -> Result<(), ContainerError> {
    if length - at > MAX_TAIL { Err(ContainerError::Damaged { at, length }) } else { Ok(()) }
}

/// Random-access reads from a file of known length.
pub(super) struct FileReader<'a> {
    file: &'a mut dyn Storage,
    pub(super) length: u64,
}

impl<'a> FileReader<'a> {
    pub(super) fn new(file: &'a mut dyn Storage) -> Result<Self, ContainerError> {
        let length = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, length })
    }

    /// Reads `count` bytes at offset `at`; None when the file ends before. The caller bounds `count`.
    pub(super) fn bytes(&mut self, at: u64, count: u64) -> Result<Option<Vec<u8>>, ContainerError> {
        if at.checked_add(count).is_none_or(|end| end > self.length) {
            return Ok(None);
        }
        let mut bytes = vec![0; count as usize];
        self.file.seek(SeekFrom::Start(at))?;
        self.file.read_exact(&mut bytes)?;
        Ok(Some(bytes))
    }
}
