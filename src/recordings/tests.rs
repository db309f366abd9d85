//! Repair, mostly with a `finish` that appends a marker instead of real media.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::container::{Sample, TrackSpec, Writer};
use crate::media::FileFormat;

/// A hanging test fails after this time.
const TEST_TIMEOUT: Duration = Duration::from_secs(10);

fn appending() -> Finish {
    Finish::by(|name, file, _| {
        if name.as_str().contains("hopeless") {
            return Err("there is not one whole frame in it".to_owned());
        }
        assert!(!name.as_str().contains("bug"), "a bug in the repair");
        io::Seek::seek(file, io::SeekFrom::End(0)).map_err(|error| error.to_string())?;
        file.write_all(b" mended").map_err(|error| error.to_string())?;
        Ok(Duration::from_secs(61))
    })
}

struct Disk(TempDir);

impl Disk {
    fn new(states: &[(&str, &str)]) -> Self {
        let disk = Self(tempfile::tempdir().expect("the temporary folder can be written"));
        fs::create_dir(disk.0.path().join("recordings")).expect("it is writable");
        for (stem, state) in states {
            fs::write(disk.path(&format!("{stem}.mp4")), "media").expect("it is writable");
            let text = format!(
                r#"{{"room":"r","recording":"o1","state":"{state}","started":"2026-11-25T10:00:00Z","more":[1]}}"#
            );
            fs::write(disk.path(&format!("{stem}.json")), text).expect("it is writable");
        }
        disk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("recordings").join(name)
    }

    fn media(&self, stem: &str) -> String {
        fs::read_to_string(self.path(&format!("{stem}.mp4"))).expect("it is there")
    }

    fn sidecar(&self, stem: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(&format!("{stem}.json"))).expect("it is there")).expect("JSON")
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

#[tokio::test]
async fn other_users_of_the_machine_cannot_read_recordings() {
    let data = tempfile::tempdir().expect("the temporary folder can be written");
    let inside = data.path().join("data");
    let library = Library::open(&inside, appending(), None);
    for made in [inside.join("recordings"), inside.join(".lock")] {
        assert_eq!(mode(&made) & 0o007, 0, "{}", made.display());
    }
    drop(library);
    // A sidecar that the repair replaces.
    let disk = Disk::new(&[("a", "recording")]);
    let library = Library::open(disk.0.path(), appending(), None);
    next(&mut library.changes()).await;
    assert_eq!(mode(&disk.path("a.json")) & 0o007, 0);
}

async fn next(changes: &mut broadcast::Receiver<RecordingFile>) -> RecordingFile {
    tokio::time::timeout(TEST_TIMEOUT, changes.recv()).await.expect("in time").expect("the library lives")
}

#[tokio::test]
async fn files_of_a_killed_server_are_repaired_at_start() {
    let disk = Disk::new(&[
        ("a", "recording"),
        ("b", "finished"),
        ("c-hopeless", "recording"),
        ("d-bug", "recording"),
        ("e", "failed"),
    ]);
    let library = Library::open(disk.0.path(), appending(), None);
    let mut changes = library.changes();
    let (first, second, third) = (next(&mut changes).await, next(&mut changes).await, next(&mut changes).await);
    assert_eq!(
        (first.file.as_str(), first.state, first.duration, first.bytes),
        ("a.mp4", FileState::Mended, Some(61.0), 12)
    );
    assert_eq!(disk.media("a"), "media mended");
    let sidecar = disk.sidecar("a");
    assert_eq!(
        (&sidecar["state"], &sidecar["ended"], &sidecar["more"][0]),
        (&"mended".into(), &"2026-11-25T10:01:01Z".into(), &1.into())
    );
    assert_eq!((second.file.as_str(), second.state), ("c-hopeless.mp4", FileState::Broken));
    assert!(second.reason.expect("it says why").contains("not one whole frame"));
    assert_eq!((third.file.as_str(), third.state), ("d-bug.mp4", FileState::Broken), "a panic ends one repair only");
    for stem in ["b", "c-hopeless", "d-bug", "e"] {
        assert_eq!(disk.media(stem), "media", "{stem} is unchanged");
    }
    assert_eq!(disk.sidecar("c-hopeless")["state"], "recording", "the next server tries again");
    assert_eq!((library.counters().mended.get(), library.counters().broken.get()), (1, 2));
    let name = "c-hopeless.mp4".parse().expect("a name");
    assert!(!library.open_file(&name).await.expect("it can be downloaded").running);
    library.delete(&name).await.expect("it can be removed");
}

#[tokio::test(start_paused = true)]
async fn a_locked_file_is_not_repaired_until_it_is_unlocked() {
    let disk = Disk::new(&[("a", "recording"), ("b", "recording")]);
    let writers: Vec<File> =
        ["a.mp4", "b.mp4"].map(|name| File::options().append(true).open(disk.path(name)).expect("there")).into();
    writers.iter().for_each(|writer| writer.lock().expect("it is not locked"));
    let library = Library::open(disk.0.path(), appending(), None);
    let mut changes = library.changes();
    let tried = tokio::time::timeout(Duration::from_secs(3), changes.recv()).await;
    assert!(tried.is_err(), "a locked file was touched: {tried:?}");
    // The output of `a` finishes the file itself.
    fs::write(disk.path("a.json"), r#"{"room":"r","recording":"o1","state":"finished"}"#).expect("it is writable");
    let [a, b] = <[File; 2]>::try_from(writers).expect("two");
    drop(a);
    let first = next(&mut changes).await;
    assert_eq!((first.file.as_str(), first.state), ("a.mp4", FileState::Finished));
    assert_eq!(disk.media("a"), "media", "a finished file needs no repair");
    let never = tokio::time::timeout(Duration::from_secs(60), changes.recv()).await;
    assert!(never.is_err(), "the locked file was touched: {never:?}");
    drop(b);
}

#[tokio::test]
async fn files_are_repaired_when_their_output_exits() {
    let disk = Disk::new(&[]);
    let library = Library::open(disk.0.path(), appending(), None);
    let mut changes = library.changes();
    for (stem, state, expected) in [("x", "recording", FileState::Mended), ("y", "finished", FileState::Finished)] {
        fs::write(disk.path(&format!("{stem}.webm")), "media").expect("it is writable");
        let text = format!(r#"{{"room":"r","recording":"o1","state":"{state}"}}"#);
        fs::write(disk.path(&format!("{stem}.json")), text).expect("it is writable");
        library.finished(format!("{stem}.webm").parse().expect("a name"));
        assert_eq!(next(&mut changes).await.state, expected);
    }
    library.finished("gone.mp4".parse().expect("a name"));
    library.close().await;
    assert!(changes.try_recv().is_err(), "a deleted file was reported");
}

#[tokio::test]
async fn the_chat_of_a_repaired_recording_is_beside_it_and_deleted_with_it() {
    let disk = Disk::new(&[]);
    fs::write(disk.path("a.ogg"), "media").expect("it is writable");
    let sidecar = r#"{"file":"a.ogg","room":"r","recording":"o1","part":0,"format":"ogg","state":"recording",
        "started":"2026-11-25T10:00:00Z","offset":0.0,"duration":0.0,"bytes":0,"people":[],"layouts":[],"speakers":[],
        "chat":[{"at":1.5,"participant":"p1","name":"Ann","text":"hello"}]}"#;
    fs::write(disk.path("a.json"), sidecar).expect("it is writable");
    // The writer was killed between the JSON and the text.
    fs::write(disk.path("a.chat.txt"), "").expect("it is writable");
    let library = Library::open(disk.0.path(), appending(), None);
    let file = next(&mut library.changes()).await;
    assert_eq!((file.state, file.chat.as_deref()), (FileState::Mended, Some("/v1/recordings/a.chat.txt")));
    assert_eq!(fs::read_to_string(disk.path("a.chat.txt")).expect("there"), "[00:00:01] Ann: hello\n");
    assert_eq!(mode(&disk.path("a.chat.txt")) & 0o007, 0);
    assert_eq!(library.list(None).await.expect("readable").len(), 1, "the text is no recording of its own");
    library.delete(&file.file).await.expect("it can be removed");
    assert!(!disk.path("a.chat.txt").exists());
}

#[tokio::test]
async fn of_two_servers_with_one_folder_only_the_first_repairs() {
    let disk = Disk::new(&[]);
    let first = Library::open(disk.0.path(), appending(), None);
    // A new file, which an output of the first server writes.
    fs::write(disk.path("a.mp4"), "media").expect("it is writable");
    fs::write(disk.path("a.json"), r#"{"room":"r","recording":"o1","state":"recording"}"#).expect("it is writable");
    let second = Library::open(disk.0.path(), appending(), None);
    assert!(tokio::time::timeout(Duration::from_millis(200), second.changes().recv()).await.is_err());
    assert_eq!(disk.media("a"), "media");
    // A background task holds its library, and so the lock of the folder.
    first.inner.tasks.wait().await;
    second.inner.tasks.wait().await;
    drop((first, second));
    let third = Library::open(disk.0.path(), appending(), None);
    assert_eq!(next(&mut third.changes()).await.state, FileState::Mended);
}

#[tokio::test]
async fn an_unusable_folder_does_not_prevent_the_start() {
    let disk = Disk::new(&[]);
    let file = disk.path("file");
    fs::write(&file, "").expect("it is writable");
    let library = Library::open(&file, appending(), None);
    assert!(matches!(library.list(None).await, Err(LibraryError::Disk(_))), "a request reports the error");
    let library = Library::open(&disk.path("new/er"), appending(), None);
    assert_eq!(library.list(None).await.expect("the folder was created"), []);
}

#[tokio::test]
async fn incomplete_files_of_every_format_are_repaired() {
    let disk = Disk::new(&[]);
    for (format, tracks) in [
        (FileFormat::Ogg, vec![TrackSpec::opus(1)]),
        (FileFormat::Webm, vec![TrackSpec::opus(2)]),
        (FileFormat::Mkv, vec![TrackSpec::opus(2)]),
        (FileFormat::Mp4, vec![TrackSpec::opus(2)]),
    ] {
        let mut writer = Writer::new(format, tracks, Duration::from_secs(1)).expect("they fit");
        let mut bytes = Vec::new();
        // Ten seconds of packets of 20 ms, at 48 kHz.
        for packet in 0..500 {
            let data = vec![packet as u8 | 1; 40].into();
            let sample = Sample { track: 0, time: packet * 960, duration: 960, keyframe: true, data };
            writer.push(sample).expect("in order");
            while let Some(piece) = writer.poll() {
                bytes.extend_from_slice(&piece);
            }
        }
        let extension = format.extension();
        // Within the fragment that was being written.
        bytes.truncate(bytes.len() - 100);
        fs::write(disk.path(&format!("{extension}.{extension}")), &bytes).expect("it is writable");
        let sidecar = r#"{"room":"r","recording":"o1","state":"recording","started":"2026-11-25T10:00:00Z"}"#;
        fs::write(disk.path(&format!("{extension}.json")), sidecar).expect("it is writable");
    }
    let library = Library::open(disk.0.path(), Finish::in_place(), None);
    let mut changes = library.changes();
    for _ in FileFormat::ALL {
        let file = next(&mut changes).await;
        assert_eq!((file.state, &file.reason), (FileState::Mended, &None), "{file:?}");
        let duration = file.duration.expect("it is known");
        assert!((7.5..=10.0).contains(&duration), "{file:?}");
        assert!(file.bytes > 10_000, "{file:?}");
    }
}
