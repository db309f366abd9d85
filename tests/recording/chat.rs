//! The chat of recordings, as text beside them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use commingle::id::ParticipantId;
use commingle::link::output::{Note, Target, ToOutput};
use commingle::media::FileFormat;

use crate::rig::{Reel, Rig, recordings, target};

fn chat(id: u32, name: &str, text: &str) -> Note {
    Note::Chat { participant: Some(ParticipantId(id)), name: name.into(), text: text.into() }
}

fn chat_of(folder: &Path) -> PathBuf {
    recordings(folder, FileFormat::Ogg).remove(0).with_extension("chat.txt")
}

#[test]
fn the_chat_of_a_finished_and_of_a_killed_recording_is_a_text_beside_it() {
    for killed in [false, true] {
        let folder = tempfile::tempdir().expect("a place for files");
        let reel = Reel::new(None);
        let mut rig = Rig::start(Target::File(target(folder.path(), FileFormat::Ogg)), &reel);
        rig.play(&reel, 0.5, 1.0);
        let at = |rig: &Rig, millis| rig.epoch + Duration::from_millis(millis);
        rig.send(&[ToOutput::Note(at(&rig, 1_500), chat(1, "Añn", "hello 👋\nall"))]);
        rig.play(&reel, 1.5, 1.0);
        rig.wait_until("a file", |rig| !rig.files.is_empty());
        rig.send(&[ToOutput::Note(at(&rig, 3_700_500), chat(2, "Ben", "late"))]);
        let first = "[00:00:01] Añn: hello 👋\n    all\n[01:01:40] Ben: late\n";
        if killed {
            // The JSON and the text are written every two seconds.
            rig.play(&reel, 4.5, 1.0);
            rig.kill();
        } else {
            rig.play(&reel, 1.7, 1.0);
            assert_eq!(rig.finish(), None);
        }
        assert_eq!(fs::read_to_string(chat_of(folder.path())).expect("there"), first, "killed: {killed}");
    }
}

#[test]
fn a_recording_without_messages_has_no_text() {
    let folder = tempfile::tempdir().expect("a place for files");
    let reel = Reel::new(None);
    let mut rig = Rig::start(Target::File(target(folder.path(), FileFormat::Ogg)), &reel);
    rig.play(&reel, 1.0, 4.0);
    assert_eq!(rig.finish(), None);
    assert!(!chat_of(folder.path()).exists());
}
