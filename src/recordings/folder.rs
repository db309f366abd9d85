//! The folder of recordings: scan, open, edit sidecars, delete.
//!
//! Owns: all file operations on recordings; every call blocks. Symbolic links and other files that are not regular
//! files are refused. A sidecar is replaced atomically, so that readers never see a partial one. Does not know: repair,
//! upload, HTTP.

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

/// Largest sidecar that is read, in bytes: chat of several days is a few MiB.
const SIDECAR_MAX: u64 = 32 * 1024 * 1024;

/// The folder of recordings.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Held during a read-modify-write of a sidecar.
    editing: Mutex<()>,
}

/// A recording: a file with its sidecar, or the sidecar of a file that was uploaded and removed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) name: FileName,
    /// The file; None after it was uploaded and removed.
    pub(super) local: Option<LocalFile>,
    /// The sidecar, or why it cannot be read.
    pub(super) sidecar: Result<Sidecar, String>,
}

/// Metadata of a file on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalFile {
    /// Size in bytes.
    pub bytes: u64,
    /// Time of the last modification.
    pub modified: SystemTime,
}

impl Folder {
    /// A folder at `path`, which need not exist.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, editing: Mutex::new(()) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn path_of(&self, name: &FileName) -> PathBuf {
        self.path.join(name.as_str())
    }

    /// All recordings; empty when the folder does not exist.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(super) fn scan(&self) -> io::Result<Vec<Entry>> {
        let names = self.names()?;
        let (sidecars, media): (BTreeSet<_>, BTreeSet<_>) =
            names.into_iter().partition(|name| name.content() == Content::Sidecar);
        let accompanied: BTreeSet<FileName> = media.iter().map(FileName::sidecar).collect();
        // A file may have been deleted since the listing.
        let local = media.iter().filter_map(|name| self.entry(name).ok());
        let gone = sidecars.difference(&accompanied).filter_map(|sidecar| self.uploaded_entry(sidecar));
        Ok(local.chain(gone).collect())
    }

    /// The names of all recordings and sidecars.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(super) fn names(&self) -> io::Result<BTreeSet<FileName>> {
        let listing = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
            listing => listing?,
        };
        let mut names = BTreeSet::new();
        for entry in listing {
            // Files with other names do not belong to the library.
            let name = entry?.file_name().to_str().and_then(|text| text.parse::<FileName>().ok());
            names.extend(name.filter(|name| !matches!(name.content(), Content::Transcript | Content::Chat)));
        }
        Ok(names)
    }

    /// One recording.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], also if it is not a regular file, and other I/O errors.
    pub(super) fn entry(&self, name: &FileName) -> io::Result<Entry> {
        match self.open(name) {
            Ok((_, local)) => Ok(Entry { name: name.clone(), local: Some(local), sidecar: self.sidecar(name) }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.uploaded_entry(&name.sidecar()).filter(|entry| entry.name == *name).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// The recording of a sidecar, if its file was uploaded and removed.
    fn uploaded_entry(&self, sidecar: &FileName) -> Option<Entry> {
        let sidecar = self.sidecar(sidecar).ok()?;
        let name = sidecar.upload.as_ref()?.location.rsplit('/').next()?.parse::<FileName>().ok()?;
        Some(Entry { name, local: None, sidecar: Ok(sidecar) })
    }

    /// The sidecar of a recording, or why it cannot be read.
    pub(super) fn sidecar(&self, name: &FileName) -> Result<Sidecar, String> {
        let sidecar = name.sidecar();
        let bytes = self.read(&sidecar).map_err(|error| format!("{sidecar} cannot be read: {error}"))?;
        serde_json::from_slice(&bytes).map_err(|error| format!("{sidecar} is malformed: {error}"))
    }

    /// The chapters of a recording from its sidecar; empty without one.
    pub(super) fn chapters(&self, name: &FileName) -> Vec<Chapter> {
        self.whole_sidecar(name).map(|sidecar| sidecar.chapters()).unwrap_or_default()
    }

    /// The captions of a recording as WebVTT; None without captions.
    pub(super) fn transcript(&self, name: &FileName) -> Option<String> {
        self.whole_sidecar(name)?.transcript()
    }

    /// The chat of a recording as text; None without messages.
    pub(super) fn chat_text(&self, name: &FileName) -> Option<String> {
        self.whole_sidecar(name)?.chat_text()
    }

    /// Writes the text of the chat beside a recording, if it has messages: its writer may have been killed before.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn write_chat(&self, name: &FileName) -> io::Result<()> {
        let Some(text) = self.chat_text(name) else { return Ok(()) };
        let _one_at_a_time = self.editing.lock();
        self.replace(&name.chat(), &text)
    }

    fn whole_sidecar(&self, name: &FileName) -> Option<link::sidecar::Sidecar> {
        serde_json::from_slice(&self.read(&name.sidecar()).ok()?).ok()
    }

    fn read(&self, name: &FileName) -> io::Result<Vec<u8>> {
        let (file, local) = self.open(name)?;
        if local.bytes > SIDECAR_MAX {
            return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {SIDECAR_MAX} bytes")));
        }
        let mut bytes = Vec::with_capacity(local.bytes as usize);
        file.take(SIDECAR_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], also if it is not a regular file, and other I/O errors.
    pub(super) fn open(&self, name: &FileName) -> io::Result<(File, LocalFile)> {
        self.open_with(name, OpenOptions::new().read(true))
    }

    /// Opens a file for repair and locks it.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] when it is locked by another process, and the errors of [`Folder::open`].
    pub(super) fn open_locked(&self, name: &FileName) -> io::Result<File> {
        let (file, _) = self.open_with(name, OpenOptions::new().read(true).write(true))?;
        file.try_lock()?;
        Ok(file)
    }

    fn open_with(&self, name: &FileName, options: &mut OpenOptions) -> io::Result<(File, LocalFile)> {
        // NONBLOCK: opening a named pipe must not wait for its other end.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
        let no_file = || io::Error::new(ErrorKind::NotFound, "not a regular file");
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
        Ok((file, LocalFile { bytes: metadata.len(), modified: metadata.modified()? }))
    }

    /// Edits the sidecar of a recording.
    ///
    /// # Errors
    /// The sidecar cannot be read or written; it is unchanged then.
    pub(super) fn edit(&self, name: &FileName, change: impl FnOnce(&mut Document)) -> io::Result<()> {
        let _one_at_a_time = self.editing.lock();
        let text = self.preview(name, change)?;
        self.replace(&name.sidecar(), &text)
    }

    /// Replaces a file atomically.
    fn replace(&self, name: &FileName, text: &str) -> io::Result<()> {
        let new = self.path.join(format!(".{name}.new"));
        let mut file =
            File::options().write(true).create(true).truncate(true).mode(link::sidecar::FILE_MODE).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(new, self.path_of(name))?;
        // A rename is durable only after its folder is synced.
        File::open(&self.path)?.sync_all()
    }

    /// The text of the sidecar after an edit, which is not written.
    ///
    /// # Errors
    /// The sidecar cannot be read.
    pub(super) fn preview(&self, name: &FileName, change: impl FnOnce(&mut Document)) -> io::Result<String> {
        let mut document = Document::parse(&self.read(&name.sidecar())?)?;
        change(&mut document);
        Ok(document.to_text())
    }

    /// Deletes the file and keeps its sidecar.
    ///
    /// # Errors
    /// I/O errors, except that the file does not exist.
    pub(super) fn remove_media(&self, name: &FileName) -> io::Result<()> {
        remove(&self.path_of(name))
    }

    /// Deletes a recording, its chat and its sidecar.
    ///
    /// # Errors
    /// I/O errors, except that a file does not exist.
    pub(super) fn remove(&self, name: &FileName) -> io::Result<()> {
        self.remove_media(name)?;
        let _no_edit = self.editing.lock();
        remove(&self.path_of(&name.chat()))?;
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
    use crate::recordings::sidecar::{SidecarState, Uploaded};

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
    fn a_scan_finds_only_recordings() {
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
        assert_eq!(found[0].local.expect("here").bytes, 5);
        assert_eq!(found[0].sidecar.as_ref().expect("readable").state, SidecarState::Finished);
        assert!(found[1].sidecar.as_ref().is_err_and(|why| why.contains("b.json")), "its JSON is a link: {found:?}");
        assert_eq!(folder.entry(&name("e.mp4")).expect_err("a link").kind(), ErrorKind::NotFound);
        assert_eq!(folder.entry(&name("d.mp4")).expect_err("a folder").kind(), ErrorKind::NotFound);
        assert!(Folder::new(dir.path().join("nowhere")).scan().expect("empty").is_empty());
    }

    #[test]
    fn an_uploaded_and_removed_recording_is_still_listed() {
        let (dir, folder) = folder(&[("a.mp4", "12345"), ("a.json", FINISHED)]);
        let to = Uploaded { location: "s3://bucket/calls/a.mp4".into(), etag: None, sha256: "0".into(), bytes: 5 };
        folder.edit(&name("a.mp4"), |document| document.mark_uploaded(&to)).expect("writable");
        assert!(fs::read_to_string(dir.path().join("a.json")).expect("there").contains("\"hi\""));
        folder.remove_media(&name("a.mp4")).expect("writable");
        let entry = folder.entry(&name("a.mp4")).expect("the sidecar is there");
        assert_eq!((entry.local, entry.sidecar.expect("readable").upload), (None, Some(to)));
        assert_eq!(folder.scan().expect("readable").len(), 1);
        assert!(folder.entry(&name("a.webm")).is_err(), "that is another file");
        folder.remove(&name("a.mp4")).expect("writable");
        assert!(folder.scan().expect("readable").is_empty());
        assert!(folder.edit(&name("a.mp4"), |_| {}).is_err(), "a deleted sidecar is not created again");
    }

    #[test]
    fn a_locked_file_cannot_be_opened_for_repair() {
        let (dir, folder) = folder(&[("a.mp4", "12345")]);
        let writer = File::options().write(true).open(dir.path().join("a.mp4")).expect("there");
        writer.lock().expect("it is not locked");
        assert_eq!(folder.open_locked(&name("a.mp4")).expect_err("locked").kind(), ErrorKind::WouldBlock);
        assert!(folder.open(&name("a.mp4")).is_ok(), "reading is free");
        drop(writer);
        assert!(folder.open_locked(&name("a.mp4")).is_ok());
    }
}
