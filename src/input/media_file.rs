//! Files of the media folder.
//!
//! Owns: opening them so that neither a path nor a link leads out of the folder. Does not know: their contents. In: a
//! name. Out: an open file.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;

/// An open file of the media folder.
#[derive(Debug)]
pub(super) struct MediaFile(OwnedFd);

impl MediaFile {
    /// Opens a file below the folder. `..` and symbolic links must not lead out of it, and it must be a regular file.
    ///
    /// # Errors
    /// A text for moderators.
    pub(super) fn open(folder: &Path, name: &str) -> Result<Self, String> {
        let folder = open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| format!("the media folder cannot be opened: {error}"))?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = openat2(&folder, name, flags, Mode::empty(), inside).map_err(|error| match error {
            Errno::NOENT => format!("there is no file {name} in the media folder"),
            Errno::XDEV | Errno::LOOP => format!("{name} leads out of the media folder"),
            error => format!("{name} cannot be opened: {error}"),
        })?;
        let status = fstat(&file).map_err(|error| format!("{name} cannot be opened: {error}"))?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(format!("{name} is not a regular file"));
        }
        Ok(Self(file))
    }

    /// A path to the open file, for APIs that open files by path; valid while `self` exists.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_outside_the_folder_are_not_opened() {
        let outside = tempfile::tempdir().expect("a folder");
        fs::write(outside.path().join("secret"), "secret").expect("room for it");
        let media = outside.path().join("media");
        fs::create_dir_all(media.join("inner")).expect("room for it");
        fs::write(media.join("clip.mp4"), "clip").expect("room for it");
        symlink("clip.mp4", media.join("inside")).expect("a link");
        symlink("../secret", media.join("outside")).expect("a link");
        symlink(outside.path().join("secret"), media.join("absolute")).expect("a link");
        symlink("/proc/self/root/etc/passwd", media.join("magic")).expect("a link");

        let opened = MediaFile::open(&media, "clip.mp4").expect("is there");
        assert_eq!(fs::read_to_string(opened.path()).expect("open"), "clip");
        MediaFile::open(&media, "inside").expect("a link that stays inside");
        for name in ["outside", "absolute", "magic", "../secret", "/etc/passwd", "inner/../../secret"] {
            let error = MediaFile::open(&media, name).expect_err(name);
            assert!(error.contains("leads out"), "{name}: {error}");
        }
        assert!(MediaFile::open(&media, "inner").expect_err("a folder").contains("is not a regular file"));
        assert!(MediaFile::open(&media, "nothing").expect_err("not there").contains("no file nothing"));
        assert!(MediaFile::open(&outside.path().join("nowhere"), "x").expect_err("no folder").contains("media folder"));
    }
}
