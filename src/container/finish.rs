//! Finishes a file in place: at its regular end, or after its writer was killed at any byte.
//!
//! Owns: the common rules. Does not know: the formats, each of which has its own `finish`.

use super::{Chapter, ContainerError, FileSummary, Storage, matroska, mp4, ogg};
use crate::media::FileFormat;

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
