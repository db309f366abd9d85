//! The folder of recordings: what stands in it, and how its files are opened, told about and removed.
//!
//! Owns: every call on the disk for recordings; all of them block. Symbolic links are refused, and so is whatever is not a
//! plain file. A JSON is replaced as a whole, so that no reader sees half of one. Does not know: who asks, and why.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::name::{Content, FileName};
use super::sidecar::{Document, Sidecar};
use crate::container::Chapter;
use crate::link;

/// The largest JSON that is read: chat of days is a few MiB.
const SIDECAR_MAX: u64 = 32 * 1024 * 1024;

/// The folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Held while a JSON is read, changed and written.
    editing: Mutex<()>,
}

/// One recording's file, or what is told of one that was uploaded and is no longer here.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// Its name.
    pub(super) name: FileName,
    /// Size and time of the last change; None when the file is no longer here.
    pub(super) here: Option<Here>,
    /// What its JSON says, or why there is nothing to read.
    pub(super) told: Result<Sidecar, String>,
}

/// A file that is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Here {
    /// Its size.
    pub bytes: u64,
    /// When it was changed last.
    pub modified: SystemTime,
}

impl Folder {
    /// The folder at `path`, which need not exist.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, editing: Mutex::new(()) }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a file of it is.
    pub(super) fn path_of(&self, name: &FileName) -> PathBuf {
        self.path.join(name.as_str())
    }

    /// Every recording; a folder that does not exist has none.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(super) fn scan(&self) -> io::Result<Vec<Entry>> {
        let names = self.names()?;
        let (sidecars, media): (BTreeSet<_>, BTreeSet<_>) =
            names.into_iter().partition(|name| name.content() == Content::Sidecar);
        let accompanied: BTreeSet<FileName> = media.iter().map(FileName::sidecar).collect();
        // One that was removed meanwhile is no error.
        let here = media.iter().filter_map(|name| self.entry(name).ok());
        let gone = sidecars.difference(&accompanied).filter_map(|sidecar| self.moved(sidecar));
        Ok(here.chain(gone).collect())
    }

    /// The names of recordings and of the JSON beside them.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(super) fn names(&self) -> io::Result<BTreeSet<FileName>> {
        let listing = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
            listing => listing?,
        };
        let mut names = BTreeSet::new();
        for entry in listing {
            // What has no proper name is none of ours.
            names.extend(entry?.file_name().to_str().and_then(|text| text.parse::<FileName>().ok()));
        }
        Ok(names)
    }

    /// One recording.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], also for what is no plain file; or what the disk says.
    pub(super) fn entry(&self, name: &FileName) -> io::Result<Entry> {
        match self.open(name) {
            Ok((_, here)) => Ok(Entry { name: name.clone(), here: Some(here), told: self.told(name) }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.moved(&name.sidecar()).filter(|moved| moved.name == *name).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// The recording that a JSON tells of, if it was uploaded and removed here.
    fn moved(&self, sidecar: &FileName) -> Option<Entry> {
        let told = self.told(sidecar).ok()?;
        let name = told.upload.as_ref()?.location.rsplit('/').next()?.parse::<FileName>().ok()?;
        Some(Entry { name, here: None, told: Ok(told) })
    }

    /// What the JSON of a recording says, or why there is nothing to read.
    pub(super) fn told(&self, name: &FileName) -> Result<Sidecar, String> {
        let sidecar = name.sidecar();
        let bytes = self.read(&sidecar).map_err(|error| format!("{sidecar} cannot be read: {error}"))?;
        serde_json::from_slice(&bytes).map_err(|error| format!("{sidecar} does not tell what it must: {error}"))
    }

    /// The chapters that a recording is to have; none when nothing tells.
    pub(super) fn chapters(&self, name: &FileName) -> Vec<Chapter> {
        let told = self
            .read(&name.sidecar())
            .ok()
            .and_then(|bytes| serde_json::from_slice::<link::sidecar::Sidecar>(&bytes).ok());
        told.map(|told| told.chapters()).unwrap_or_default()
    }

    fn read(&self, name: &FileName) -> io::Result<Vec<u8>> {
        let (file, here) = self.open(name)?;
        if here.bytes > SIDECAR_MAX {
            return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {SIDECAR_MAX} bytes")));
        }
        let mut bytes = Vec::with_capacity(here.bytes as usize);
        file.take(SIDECAR_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], also for what is no plain file; or what the disk says.
    pub(super) fn open(&self, name: &FileName) -> io::Result<(File, Here)> {
        self.open_with(name, OpenOptions::new().read(true))
    }

    /// Opens a file for finishing it, if nobody else holds its lock.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] when somebody does; those of [`Folder::open`].
    pub(super) fn open_locked(&self, name: &FileName) -> io::Result<File> {
        let (file, _) = self.open_with(name, OpenOptions::new().read(true).write(true))?;
        file.try_lock()?;
        Ok(file)
    }

    fn open_with(&self, name: &FileName, options: &mut OpenOptions) -> io::Result<(File, Here)> {
        // A pipe must not make us wait for its other end.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
        let no_file = || io::Error::new(ErrorKind::NotFound, "it is no plain file");
        let opened = options.custom_flags(flags.cast_signed()).open(self.path_of(name));
        let file = opened.map_err(|error| match (error.kind(), error.raw_os_error()) {
            (ErrorKind::IsADirectory, _) => no_file(),
            (_, Some(code)) if code == Errno::LOOP.raw_os_error() => no_file(),
            _ => error,
        })?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(no_file());
        }
        Ok((file, Here { bytes: metadata.len(), modified: metadata.modified()? }))
    }

    /// Changes what is told of a recording.
    ///
    /// # Errors
    /// When the JSON cannot be read or written; the old one then stays.
    pub(super) fn edit(&self, name: &FileName, change: impl FnOnce(&mut Document)) -> io::Result<()> {
        let _one_at_a_time = self.editing.lock();
        let sidecar = name.sidecar();
        let text = self.preview(name, change)?;
        let new = self.path.join(format!(".{sidecar}.new"));
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(new, self.path_of(&sidecar))?;
        // The rename is lasting only with its folder.
        File::open(&self.path)?.sync_all()
    }

    /// What a change would make of what is told of a recording.
    ///
    /// # Errors
    /// When the JSON cannot be read.
    pub(super) fn preview(&self, name: &FileName, change: impl FnOnce(&mut Document)) -> io::Result<String> {
        let mut document = Document::parse(&self.read(&name.sidecar())?)?;
        change(&mut document);
        Ok(document.to_text())
    }

    /// Removes the file, and keeps what is told of it.
    ///
    /// # Errors
    /// What the disk says; that it is gone already is no error.
    pub(super) fn remove_media(&self, name: &FileName) -> io::Result<()> {
        remove(&self.path_of(name))
    }

    /// Removes a recording with its JSON.
    ///
    /// # Errors
    /// What the disk says; that one of both is gone already is no error.
    pub(super) fn remove(&self, name: &FileName) -> io::Result<()> {
        self.remove_media(name)?;
        let _no_edit = self.editing.lock();
        remove(&self.path_of(&name.sidecar()))
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;
    use crate::recordings::sidecar::{Uploaded, Written};

    fn folder(files: &[(&str, &str)]) -> (TempDir, Folder) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            fs::write(dir.path().join(name), text).expect("it is writable");
        }
        let folder = Folder::new(dir.path().to_owned());
        (dir, folder)
    }

    fn name(text: &str) -> FileName {
        text.parse().expect("a name")
    }

    const FINISHED: &str = r#"{"room":"r","recording":"o1","state":"finished","chat":["hi"]}"#;

    #[test]
    fn only_recordings_are_found() {
        let (dir, folder) = folder(&[
            ("a.mp4", "12345"),
            ("a.json", FINISHED),
            ("b.webm", ""),
            ("c.json", FINISHED),
            (".a.json.new", "{"),
            ("notes.txt", "x"),
        ]);
        fs::create_dir(dir.path().join("d.mp4")).expect("it is writable");
        symlink("/etc/hostname", dir.path().join("e.mp4")).expect("it is writable");
        symlink(dir.path().join("a.json"), dir.path().join("b.json")).expect("it is writable");
        let found = folder.scan().expect("readable");
        let names: Vec<_> = found.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["a.mp4", "b.webm"]);
        assert_eq!(found[0].here.expect("here").bytes, 5);
        assert_eq!(found[0].told.as_ref().expect("readable").state, Written::Finished);
        assert!(found[1].told.as_ref().is_err_and(|why| why.contains("b.json")), "its JSON is a link: {found:?}");
        assert_eq!(folder.entry(&name("e.mp4")).expect_err("a link").kind(), ErrorKind::NotFound);
        assert_eq!(folder.entry(&name("d.mp4")).expect_err("a folder").kind(), ErrorKind::NotFound);
        assert!(Folder::new(dir.path().join("nowhere")).scan().expect("empty").is_empty());
    }

    #[test]
    fn a_recording_that_was_moved_away_is_still_told_of() {
        let (dir, folder) = folder(&[("a.mp4", "12345"), ("a.json", FINISHED)]);
        let to = Uploaded { location: "s3://bucket/calls/a.mp4".into(), etag: None, sha256: "0".into(), bytes: 5 };
        folder.edit(&name("a.mp4"), |document| document.uploaded(&to)).expect("writable");
        assert!(fs::read_to_string(dir.path().join("a.json")).expect("there").contains("\"hi\""));
        folder.remove_media(&name("a.mp4")).expect("writable");
        let entry = folder.entry(&name("a.mp4")).expect("told of");
        assert_eq!((entry.here, entry.told.expect("readable").upload), (None, Some(to)));
        assert_eq!(folder.scan().expect("readable").len(), 1);
        assert!(folder.entry(&name("a.webm")).is_err(), "that is another file");
        folder.remove(&name("a.mp4")).expect("writable");
        assert!(folder.scan().expect("readable").is_empty());
        assert!(folder.edit(&name("a.mp4"), |_| {}).is_err(), "what is gone is not made anew");
    }

    #[test]
    fn a_file_somebody_writes_is_not_to_be_had() {
        let (dir, folder) = folder(&[("a.mp4", "12345")]);
        let writer = File::options().write(true).open(dir.path().join("a.mp4")).expect("there");
        writer.lock().expect("nobody else has it");
        assert_eq!(folder.open_locked(&name("a.mp4")).expect_err("locked").kind(), ErrorKind::WouldBlock);
        assert!(folder.open(&name("a.mp4")).is_ok(), "reading is free");
        drop(writer);
        assert!(folder.open_locked(&name("a.mp4")).is_ok());
    }
}
