//! One file of a recording on the disk, and the JSON beside it.
//!
//! Owns: [`Part`]: the file, its lock, what was written to it; [`Folder`]: names, and how much is free. Does not know: where
//! samples come from. Every piece of the file is written at once: who kills this process takes no more than what had not
//! become a piece yet.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::diary::Pages;
use crate::container::{self, ContainerError, Sample, TrackSpec, Writer};
use crate::id::{OutputId, ParticipantId, RoomName};
use crate::link::output::FileTarget;
use crate::link::sidecar::{FileState, Sidecar};
use crate::output::Failure;
use crate::time::{Timestamp, unix_seconds};

/// A piece of a file. Half a second: with what is on its way no more than the last second is lost.
const PIECE: Duration = Duration::from_millis(500);
/// The JSON is written again this long after it was written, and longer the larger it is: when it has changed, and when
/// nothing but the file's length has.
const SIDECAR_CHANGED: Duration = Duration::from_secs(2);
const SIDECAR_SAME: Duration = Duration::from_secs(15);
/// Numbers that are tried for a name that is not taken.
const NAMES: u32 = 10_000;

/// Where the files of a recording go.
#[derive(Debug)]
pub(super) struct Folder {
    target: FileTarget,
    room: RoomName,
    recording: OutputId,
    epoch: Timestamp,
    /// The number of the next file.
    next: u32,
}

impl Folder {
    /// Makes the folder if it is missing, and looks whether files fit into it.
    ///
    /// # Errors
    /// Words that say what to change.
    pub(super) fn open(
        target: FileTarget,
        room: RoomName,
        recording: OutputId,
        epoch: Timestamp,
    ) -> Result<Self, Failure> {
        fs::create_dir_all(&target.folder).map_err(|error| failed("make the folder", &target.folder, &error))?;
        let folder = Self { next: target.part, target, room, recording, epoch };
        folder.check()?;
        Ok(folder)
    }

    /// What was asked for.
    pub(super) const fn target(&self) -> &FileTarget {
        &self.target
    }

    /// Fails when the disk is almost full.
    ///
    /// # Errors
    /// Words that say how much is free, and which setting it is.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let folder = &self.target.folder;
        let disk = rustix::fs::statvfs(folder).map_err(|error| failed("look at", folder, &error.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < self.target.floor_bytes {
            return Err(Failure(format!(
                "the disk of {} has {} MB free, less than recordings.floor_mb = {} wants: make room, or lower it",
                folder.display(),
                free / 1_000_000,
                self.target.floor_bytes / 1_000_000,
            )));
        }
        Ok(())
    }

    /// Begins the next file. A file that is there already is never touched.
    ///
    /// # Errors
    /// Words that say what to change.
    pub(super) fn create(
        &mut self,
        tracks: Vec<TrackSpec>,
        start: Timestamp,
        participant: Option<ParticipantId>,
        pages: Pages,
    ) -> Result<Part, Failure> {
        self.check()?;
        let format = self.target.format;
        let writer = Writer::new(format, tracks, PIECE).map_err(|error| Failure(error.to_string()))?;
        let (number, name, file) = self.new_file(participant)?;
        let path = self.target.folder.join(format!("{name}.{}", format.extension()));
        // Whoever mends files leaves those alone that are locked.
        if let Err(TryLockError::Error(error)) = file.try_lock() {
            tracing::warn!(%error, file = %path.display(), "a recording cannot be locked");
        }
        let sidecar = Sidecar {
            file: format!("{name}.{}", format.extension()),
            room: self.room.clone(),
            recording: self.recording,
            part: number,
            format,
            state: FileState::Recording,
            reason: None,
            started: wall_clock(),
            ended: None,
            offset: start.since(self.epoch).as_secs_f64(),
            duration: 0.0,
            bytes: 0,
            participant,
            people: Vec::new(),
            layouts: Vec::new(),
            speakers: Vec::new(),
            chat: Vec::new(),
            left_out: 0,
        };
        let mut part = Part {
            file,
            writer,
            beside: self.target.folder.join(format!("{name}.json")),
            path,
            sidecar,
            pages,
            written: None,
            changed: true,
            unordered: 0,
        };
        part.write_pieces()?;
        part.write_sidecar(start);
        Ok(part)
    }

    fn new_file(&mut self, participant: Option<ParticipantId>) -> Result<(u32, String, File), Failure> {
        let FileTarget { folder, stem, format, .. } = &self.target;
        for number in self.next..self.next + NAMES {
            let name = match participant {
                Some(participant) => format!("{stem}-{participant}-{number:03}"),
                None if number == 0 => stem.clone(),
                None => format!("{stem}-{number:03}"),
            };
            let path = folder.join(format!("{name}.{}", format.extension()));
            match File::options().read(true).write(true).create_new(true).open(&path) {
                Ok(file) => {
                    self.next = number + 1;
                    return Ok((number, name, file));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed("write", &path, &error)),
            }
        }
        Err(Failure(format!("all names for another file of {stem} are taken in {}", folder.display())))
    }
}

/// A file that grows.
#[derive(Debug)]
pub(super) struct Part {
    file: File,
    path: PathBuf,
    /// Where the JSON is.
    beside: PathBuf,
    writer: Writer,
    sidecar: Sidecar,
    pages: Pages,
    /// When the JSON was written last.
    written: Option<Timestamp>,
    /// Something happened since.
    changed: bool,
    /// Samples that did not come after the one before them.
    unordered: u64,
}

impl Part {
    /// Its name, without the folder.
    pub(super) fn name(&self) -> &str {
        &self.sidecar.file
    }

    /// Its number within the recording.
    pub(super) const fn number(&self) -> u32 {
        self.sidecar.part
    }

    /// Bytes on the disk.
    pub(super) const fn bytes(&self) -> u64 {
        self.sidecar.bytes
    }

    /// Samples left out because they did not come in order.
    pub(super) const fn unordered(&self) -> u64 {
        self.unordered
    }

    /// What happens is written down.
    pub(super) const fn pages(&mut self) -> &mut Pages {
        self.changed = true;
        &mut self.pages
    }

    /// Adds a sample, and writes what is complete by it.
    ///
    /// # Errors
    /// The disk does not take it.
    pub(super) fn push(&mut self, sample: Sample) -> Result<(), Failure> {
        match self.writer.push(sample) {
            Ok(()) => self.write_pieces(),
            Err(ContainerError::Unordered { .. }) => {
                self.unordered += 1;
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, file = %self.path.display(), "a sample is left out");
                Ok(())
            }
        }
    }

    /// How long it is by now.
    pub(super) const fn lasts(&mut self, duration: Duration) {
        self.sidecar.duration = duration.as_secs_f64();
    }

    fn write_pieces(&mut self) -> Result<(), Failure> {
        while let Some(piece) = self.writer.poll() {
            self.append(&piece)?;
        }
        Ok(())
    }

    fn append(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.file.write_all(piece).map_err(|error| failed("write", &self.path, &error))?;
        self.sidecar.bytes += piece.len() as u64;
        Ok(())
    }

    /// Time passes: the JSON is written if it is due.
    ///
    /// # Errors
    /// Somebody has deleted the file.
    pub(super) fn tick(&mut self, now: Timestamp) -> Result<(), Failure> {
        let links = self.file.metadata().map_err(|error| failed("look at", &self.path, &error))?.nlink();
        if links == 0 {
            return Err(Failure(format!("{} was deleted while it was being written", self.path.display())));
        }
        let every = if self.changed { SIDECAR_CHANGED } else { SIDECAR_SAME };
        if self.written.is_none_or(|written| now.since(written) >= every) {
            self.write_sidecar(now);
        }
        Ok(())
    }

    /// Writes the JSON, as a whole or not at all. What goes wrong is no reason to stop the recording itself.
    fn write_sidecar(&mut self, now: Timestamp) {
        self.pages.fill(&mut self.sidecar);
        self.changed = false;
        let written = serde_json::to_vec_pretty(&self.sidecar).map_err(io::Error::other).and_then(|json| {
            // The larger it is, the rarer.
            self.written = Some(now + Duration::from_millis(json.len() as u64 / 100));
            let draft = self.beside.with_extension("json.part");
            fs::write(&draft, json)?;
            fs::rename(&draft, &self.beside)
        });
        if let Err(error) = written {
            tracing::warn!(%error, file = %self.beside.display(), "what stands beside a recording cannot be written");
        }
    }

    /// Makes it a finished file; the reason is why nothing more comes, where nobody asked for that.
    ///
    /// # Errors
    /// The disk does not take it. What was written plays nevertheless.
    pub(super) fn close(mut self, now: Timestamp, reason: Option<&Failure>) -> Result<(), Failure> {
        let mut appended = Ok(());
        while let Some(piece) = self.writer.end() {
            appended = appended.and_then(|()| self.append(&piece));
        }
        self.pages.fill(&mut self.sidecar);
        self.sidecar.state = if reason.is_some() { FileState::Failed } else { FileState::Finished };
        let chapters = self.sidecar.chapters();
        let closed = match container::finish(self.sidecar.format, &mut self.file, &chapters) {
            Ok(found) => {
                self.sidecar.duration = found.duration.as_secs_f64();
                self.sidecar.bytes = found.bytes;
                Ok(())
            }
            // It was begun a moment ago: there is nothing to keep.
            Err(ContainerError::Empty) => {
                let removed = fs::remove_file(&self.path).and_then(|()| fs::remove_file(&self.beside));
                return removed.map_err(|error| failed("remove", &self.path, &error));
            }
            // It plays as it is; the next server tries again.
            Err(error) => {
                self.sidecar.state = FileState::Recording;
                Err(Failure(format!("cannot finish {}: {error}", self.path.display())))
            }
        };
        self.sidecar.reason = reason.map(|Failure(reason)| reason.clone());
        self.sidecar.ended = Some(wall_clock());
        self.write_sidecar(now);
        appended.and(closed)
    }
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure(format!("cannot {what} {}: {error}", path.display()))
}

fn wall_clock() -> String {
    let now = i64::try_from(unix_seconds()).ok().and_then(|now| OffsetDateTime::from_unix_timestamp(now).ok());
    now.and_then(|now| now.format(&Rfc3339).ok()).unwrap_or_default()
}
