//! One file of a recording on disk, its sidecar and the text of its chat.
//!
//! Owns: [`OutputFile`]: the file, its lock and its written fragments; [`Folder`]: file names and free disk space. Does
//! not know: the origin of samples. In: samples. Out: a file and a sidecar. Each fragment is written at once: if this
//! process is killed, only the current fragment is lost.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::events::EventLog;
use crate::container::{self, ContainerError, Sample, TrackSpec, Writer};
use crate::id::{OutputId, ParticipantId, RoomName};
use crate::link::output::FileTarget;
use crate::link::sidecar::{CHAT_EXTENSION, FILE_MODE, FOLDER_MODE, FileState, Sidecar};
use crate::output::Failure;
use crate::time::{Timestamp, unix_seconds};

/// Fragment duration. Together with media in flight, at most the last second is lost on a crash.
const FRAGMENT_DURATION: Duration = Duration::from_millis(500);
/// Interval of sidecar updates after events, and without; it grows with the size of the sidecar.
const SIDECAR_INTERVAL_CHANGED: Duration = Duration::from_secs(2);
const SIDECAR_INTERVAL_UNCHANGED: Duration = Duration::from_secs(15);
/// Most file numbers tried until an unused name is found.
const MAX_NAME_ATTEMPTS: u32 = 10_000;

/// The folder of a recording's files.
#[derive(Debug)]
pub(super) struct Folder {
    target: FileTarget,
    room: RoomName,
    recording: OutputId,
    epoch: Timestamp,
    /// Number of the next file.
    next: u32,
}

impl Folder {
    /// Creates the folder if necessary, and checks the free disk space.
    ///
    /// # Errors
    /// A text that names the fix.
    pub(super) fn open(
        target: FileTarget,
        room: RoomName,
        recording: OutputId,
        epoch: Timestamp,
    ) -> Result<Self, Failure> {
        let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&target.folder);
        made.map_err(|error| file_failure("make the folder", &target.folder, &error))?;
        let folder = Self { next: target.part, target, room, recording, epoch };
        folder.check()?;
        Ok(folder)
    }

    /// The requested target.
    pub(super) const fn target(&self) -> &FileTarget {
        &self.target
    }

    /// Checks the free disk space against `recordings.floor_mb`.
    ///
    /// # Errors
    /// A text with the free space and the setting.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let folder = &self.target.folder;
        let disk = rustix::fs::statvfs(folder).map_err(|error| file_failure("look at", folder, &error.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < self.target.floor_bytes {
            return Err(Failure(format!(
                "the disk of {} has {} MB free, less than recordings.floor_mb = {}: free disk space or lower the \
                 setting",
                folder.display(),
                free / 1_000_000,
                self.target.floor_bytes / 1_000_000,
            )));
        }
        Ok(())
    }

    /// Creates the next file; never overwrites an existing one.
    ///
    /// # Errors
    /// A text that names the fix.
    pub(super) fn create(
        &mut self,
        tracks: Vec<TrackSpec>,
        start: Timestamp,
        participant: Option<ParticipantId>,
        events: EventLog,
    ) -> Result<OutputFile, Failure> {
        self.check()?;
        let format = self.target.format;
        let writer = Writer::new(format, tracks, FRAGMENT_DURATION).map_err(|error| Failure(error.to_string()))?;
        let (number, name, file) = self.new_file(participant)?;
        let path = self.target.folder.join(format!("{name}.{}", format.extension()));
        // Repair skips locked files.
        if let Err(TryLockError::Error(error)) = file.try_lock() {
            tracing::warn!(%error, file = %path.display(), "recording file cannot be locked");
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
            captions: Vec::new(),
            left_out: 0,
        };
        let mut output_file = OutputFile {
            file,
            writer,
            sidecar_path: self.target.folder.join(format!("{name}.json")),
            path,
            sidecar,
            events,
            sidecar_written: None,
            changed: true,
            chat_written: 0,
            unordered: 0,
        };
        output_file.write_fragments()?;
        output_file.write_sidecar(start);
        Ok(output_file)
    }

    fn new_file(&mut self, participant: Option<ParticipantId>) -> Result<(u32, String, File), Failure> {
        let FileTarget { folder, stem, format, .. } = &self.target;
        for number in self.next..self.next + MAX_NAME_ATTEMPTS {
            let name = match participant {
                Some(participant) => format!("{stem}-{participant}-{number:03}"),
                None if number == 0 => stem.clone(),
                None => format!("{stem}-{number:03}"),
            };
            let path = folder.join(format!("{name}.{}", format.extension()));
            match File::options().read(true).write(true).create_new(true).mode(FILE_MODE).open(&path) {
                Ok(file) => {
                    self.next = number + 1;
                    return Ok((number, name, file));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(file_failure("write", &path, &error)),
            }
        }
        Err(Failure(format!("all names for another file of {stem} are taken in {}", folder.display())))
    }
}

/// A file that is being written.
#[derive(Debug)]
pub(super) struct OutputFile {
    file: File,
    path: PathBuf,
    /// Where the JSON is.
    sidecar_path: PathBuf,
    writer: Writer,
    sidecar: Sidecar,
    events: EventLog,
    /// Time of the last sidecar update; in the future for large sidecars.
    sidecar_written: Option<Timestamp>,
    /// The event log changed since.
    changed: bool,
    /// Number of messages in the text of the chat.
    chat_written: usize,
    /// Samples dropped because they were out of order.
    unordered: u64,
}

impl OutputFile {
    /// File name without the folder.
    pub(super) fn name(&self) -> &str {
        &self.sidecar.file
    }

    /// Number of the file within the recording.
    pub(super) const fn number(&self) -> u32 {
        self.sidecar.part
    }

    /// Bytes written.
    pub(super) const fn bytes(&self) -> u64 {
        self.sidecar.bytes
    }

    /// Number of samples dropped because they were out of order.
    pub(super) const fn unordered(&self) -> u64 {
        self.unordered
    }

    /// The event log, to be changed.
    pub(super) const fn events(&mut self) -> &mut EventLog {
        self.changed = true;
        &mut self.events
    }

    /// Adds a sample, and writes the fragments that are complete.
    ///
    /// # Errors
    /// Writing failed.
    pub(super) fn push(&mut self, sample: Sample) -> Result<(), Failure> {
        match self.writer.push(sample) {
            Ok(()) => self.write_fragments(),
            Err(ContainerError::Unordered { .. }) => {
                self.unordered += 1;
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, file = %self.path.display(), "sample dropped from recording");
                Ok(())
            }
        }
    }

    /// Sets the current duration for the sidecar.
    pub(super) const fn set_duration(&mut self, duration: Duration) {
        self.sidecar.duration = duration.as_secs_f64();
    }

    fn write_fragments(&mut self) -> Result<(), Failure> {
        while let Some(fragment) = self.writer.poll() {
            self.append(&fragment)?;
        }
        Ok(())
    }

    fn append(&mut self, fragment: &[u8]) -> Result<(), Failure> {
        if let Err(error) = self.file.write_all(fragment) {
            self.remove_incomplete_fragment();
            return Err(file_failure("write", &self.path, &error));
        }
        self.sidecar.bytes += fragment.len() as u64;
        Ok(())
    }

    /// Frees the space of a fragment that did not fit: the index may fit there, and the file ends with a whole fragment.
    fn remove_incomplete_fragment(&mut self) {
        let whole = self.sidecar.bytes;
        if let Err(error) = self.file.set_len(whole).and_then(|()| self.file.seek(SeekFrom::Start(whole))) {
            tracing::warn!(%error, file = %self.path.display(), "an incomplete fragment cannot be removed");
        }
    }

    /// Writes the sidecar if it is due.
    ///
    /// # Errors
    /// The file was deleted.
    pub(super) fn tick(&mut self, now: Timestamp) -> Result<(), Failure> {
        let links = self.file.metadata().map_err(|error| file_failure("look at", &self.path, &error))?.nlink();
        if links == 0 {
            return Err(Failure(format!("{} was deleted while it was being written", self.path.display())));
        }
        let interval = if self.changed { SIDECAR_INTERVAL_CHANGED } else { SIDECAR_INTERVAL_UNCHANGED };
        if self.sidecar_written.is_none_or(|sidecar_written| now.since(sidecar_written) >= interval) {
            self.write_sidecar(now);
        }
        Ok(())
    }

    /// Replaces the sidecar, and the text of the chat if it has grown. An error is logged and does not end the
    /// recording.
    fn write_sidecar(&mut self, now: Timestamp) {
        self.events.fill(&mut self.sidecar);
        self.changed = false;
        let sidecar_written = serde_json::to_vec_pretty(&self.sidecar).map_err(io::Error::other).and_then(|json| {
            // Large sidecars are written less often.
            self.sidecar_written = Some(now + Duration::from_millis(json.len() as u64 / 100));
            replace(&self.sidecar_path, &json)
        });
        if let Err(error) = sidecar_written {
            tracing::warn!(%error, file = %self.sidecar_path.display(), "sidecar of a recording cannot be written");
        }
        if self.sidecar.chat.len() > self.chat_written
            && let Some(text) = self.sidecar.chat_text()
        {
            let path = self.chat_path();
            match replace(&path, text.as_bytes()) {
                Ok(()) => self.chat_written = self.sidecar.chat.len(),
                Err(error) => tracing::warn!(%error, file = %path.display(), "chat of a recording cannot be written"),
            }
        }
    }

    fn chat_path(&self) -> PathBuf {
        self.sidecar_path.with_extension(CHAT_EXTENSION)
    }

    /// Finishes the file. `reason` is the failure that ended the recording, if any.
    ///
    /// # Errors
    /// Writing failed; the file is playable nevertheless.
    pub(super) fn close(mut self, now: Timestamp, reason: Option<&Failure>) -> Result<(), Failure> {
        let mut appended = Ok(());
        while let Some(fragment) = self.writer.end() {
            appended = appended.and_then(|()| self.append(&fragment));
        }
        self.events.fill(&mut self.sidecar);
        self.sidecar.state = if reason.is_some() { FileState::Failed } else { FileState::Finished };
        let chapters = self.sidecar.chapters();
        let closed = match container::finish(self.sidecar.format, &mut self.file, &chapters) {
            Ok(summary) => {
                self.sidecar.duration = summary.duration.as_secs_f64();
                self.sidecar.bytes = summary.bytes;
                Ok(())
            }
            // No complete fragment: the file is removed.
            Err(ContainerError::Empty) => {
                if self.chat_written > 0 {
                    // It may be gone, and the others are removed nevertheless.
                    let _ = fs::remove_file(self.chat_path());
                }
                let removed = fs::remove_file(&self.path).and_then(|()| fs::remove_file(&self.sidecar_path));
                return removed.map_err(|error| file_failure("remove", &self.path, &error));
            }
            // The file is playable; the library repairs it later.
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

/// Replaces a file atomically.
fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".part");
    let write = || {
        let mut file = File::options().write(true).create(true).truncate(true).mode(FILE_MODE).open(&draft)?;
        file.write_all(contents)?;
        // Without this, the file may be empty after a power loss: rename(2) does not wait for data.
        file.sync_data()?;
        fs::rename(&draft, path)
    };
    write().inspect_err(|_| {
        // It takes space on a full disk. An error means that it was not created.
        let _ = fs::remove_file(&draft);
    })
}

fn file_failure(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure(format!("cannot {what} {}: {error}", path.display()))
}

fn wall_clock() -> String {
    let now = i64::try_from(unix_seconds()).ok().and_then(|now| OffsetDateTime::from_unix_timestamp(now).ok());
    now.and_then(|now| now.format(&Rfc3339).ok()).unwrap_or_default()
}
