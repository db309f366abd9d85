//! Reads a growing file while it is finished.
//!
//! Owns: the limit on what is truncated, and what the result states. Does not know: the formats.

use std::io::SeekFrom;
use std::time::Duration;

use super::{ContainerError, Storage};

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
