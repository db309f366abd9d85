//! Finishing a file in place: at its regular end, and after its writer was killed at any byte.

use std::io::SeekFrom;
use std::time::Duration;

use super::{ContainerError, Storage, matroska, mp4, ogg};
use crate::media::FileFormat;

/// What a writer that is killed leaves unfinished is one piece. More than this much that is broken is not cut off.
const MOST_CUT: u64 = 64 << 20;

/// A place in a file that its player can jump to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chapter {
    /// When it begins, from the file's beginning.
    pub time: Duration,
    /// What it is called.
    pub title: String,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// From its beginning to the end of the track that lasts longest.
    pub duration: Duration,
    /// Samples of each track.
    pub samples: Vec<u64>,
    /// The file's length now.
    pub bytes: u64,
    /// Bytes that were cut off its end, because they were no whole fragment.
    pub cut: u64,
}

/// Makes a growing file a finished one: one whose length is known, that can be sought in, with these chapters (in order).
/// Nothing but its end and a few bytes of its head is written; it takes memory for the index alone. A file that is finished
/// already stays as it is. May be interrupted and repeated.
///
/// # Errors
/// [`ContainerError::Empty`] when it holds no whole fragment, [`ContainerError::Foreign`] when it was not written by a
/// [`super::Writer`], [`ContainerError::Damaged`] when it is broken elsewhere than at its end: the file is unchanged then.
pub fn finish(format: FileFormat, file: &mut dyn Storage, chapters: &[Chapter]) -> Result<Found, ContainerError> {
    match format {
        FileFormat::Mp4 => mp4::finish(file, chapters),
        FileFormat::Webm | FileFormat::Mkv => matroska::finish(format, file, chapters),
        FileFormat::Ogg => ogg::finish(file),
    }
}

/// Refuses to cut off what cannot be the piece that was being written.
pub(super) const fn damaged(at: u64, length: u64) -> Result<(), ContainerError> {
    if length - at > MOST_CUT { Err(ContainerError::Damaged { at, length }) } else { Ok(()) }
}

/// Reads a file here and there.
pub(super) struct Walk<'a> {
    file: &'a mut dyn Storage,
    /// The file's length.
    pub(super) length: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(file: &'a mut dyn Storage) -> Result<Self, ContainerError> {
        let length = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, length })
    }

    /// So many bytes at this place; None when the file ends before. The caller bounds `count`.
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
