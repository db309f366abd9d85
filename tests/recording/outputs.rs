//! Recordings by the output process: complete, killed, long, and with disk errors.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use commingle::container::{FileSummary, finish};
use commingle::id::{ParticipantId, SourceId};
use commingle::link::output::{FileTarget, Note, Target, ToOutput};
use commingle::link::sidecar::{FileState, Sidecar};
use commingle::media::{Codec, FileFormat, SourceKind, SourcePacket};
use commingle::plan::SourceSpec;

use crate::media::{FRAME, opus, video};
use crate::probe::{Probe, decodes};
use crate::rig::{Reel, Rig, recordings, target};

fn sidecar(file: &Path) -> Sidecar {
    let json = fs::read(file.with_extension("json")).expect("stands beside it");
    serde_json::from_slice(&json).expect("as documented")
}

fn repair(file: &Path, format: FileFormat) -> FileSummary {
    let chapters = sidecar(file).chapters();
    let mut file = File::options().read(true).write(true).open(file).expect("there");
    file.try_lock().expect("no process writes it any more");
    finish(format, &mut file, &chapters).expect("holds something")
}

/// Seconds of audio in a file.
fn sound(probe: &Probe) -> f64 {
    probe.packets("audio") as f64 * if probe.codec("audio") == "aac" { 1_024.0 / 48_000.0 } else { 0.02 }
}

fn present(id: u32, name: &str) -> Note {
    Note::Here { participant: ParticipantId(id), name: name.into() }
}

#[test]
fn a_recording_begins_with_a_keyframe_and_has_continuous_audio() {
    for (format, codec) in [
        (FileFormat::Mp4, Some(Codec::H264)),
        (FileFormat::Webm, Some(Codec::Vp8)),
        (FileFormat::Mkv, Some(Codec::H264)),
        (FileFormat::Ogg, None),
    ] {
        let folder = tempfile::tempdir().expect("a place for files");
        let reel = Reel::new(codec);
        let mut rig = Rig::start(Target::File(target(folder.path(), format)), &reel);
        let start = rig.epoch;
        rig.send(&[ToOutput::Note(start, present(1, "Ann")), ToOutput::Note(start, Note::Speaker(None))]);
        // The keyframes of the reel are 2 s apart: the first one is missed, the next begins the file. Then follow a
        // pause of the audio and a mixer restart.
        rig.feed(&reel, 14.0, |at| at >= 0.5 && !(6.0..8.0).contains(&at), |at| at > 0.3 && !(9.5..11.9).contains(&at));
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        rig.send(&[
            ToOutput::Note(at(3.0), present(2, "Böb")),
            ToOutput::Note(at(3.5), Note::Speaker(Some(ParticipantId(2)))),
            ToOutput::Note(at(5.0), Note::Gone(ParticipantId(1))),
        ]);
        assert_eq!(rig.finish(), None, "{format:?}");
        assert!(codec.is_none() || rig.keyframes_wanted > 0, "{format:?}: a keyframe is requested");
        let files = recordings(folder.path(), format);
        assert_eq!(files.len(), 1, "{files:?}");
        for path in [&files[0], &files[0].with_extension("json")] {
            let mode = fs::metadata(path).expect("there").permissions().mode();
            assert_eq!(mode & 0o007, 0, "{}: other users of the machine cannot read it", path.display());
        }
        let name = format!("daily-20261125-184231-o1.{}", format.extension());
        assert_eq!(files[0].file_name().expect("a name"), name.as_str());
        decodes(&files[0]);
        let probe = Probe::of(&files[0]);
        let begins = if codec.is_some() { 2.0 } else { 0.5 };
        let seconds = 14.0 - begins;
        assert!((probe.duration() - seconds).abs() < 0.1, "{format:?} lasts {} s", probe.duration());
        assert!((sound(&probe) - seconds).abs() < 0.06, "{format:?}: {} s of audio", sound(&probe));
        if codec.is_some() {
            assert!(probe.start("audio").abs() < 0.022 && probe.start("video").abs() < 0.001, "{format:?}");
            // Missing: from 9.5 s to the keyframe at 12 s.
            let expected = (seconds - 2.5) * 30.0;
            let frames = probe.packets("video") as f64;
            assert!((frames - expected).abs() < 5.0, "{format:?}: {frames} frames, not {expected}");
        }
        let sidecar = sidecar(&files[0]);
        assert_eq!((sidecar.state, sidecar.reason.as_deref()), (FileState::Finished, None));
        assert!((sidecar.duration - seconds).abs() < 0.1 && sidecar.ended.is_some());
        assert!((sidecar.offset - begins).abs() < 0.001, "{format:?} begins at {}", sidecar.offset);
        let people: Vec<(u32, f64)> = sidecar.people.iter().map(|stay| (stay.participant.0, stay.from)).collect();
        assert_eq!(people[0], (1, 0.0));
        assert!(people[1].0 == 2 && (people[1].1 - (3.0 - begins)).abs() < 0.001, "{people:?}");
        if format != FileFormat::Ogg {
            let titles: Vec<String> = probe.chapters().into_iter().map(|(title, _)| title).collect();
            assert_eq!(titles, ["daily", "Böb joins", "Böb speaks"], "{format:?}");
        }
        assert!(rig.files.iter().any(|file| file.complete && file.name == name), "{:?}", rig.files);
    }
}

/// A file every three seconds, split at keyframes: together they contain all media once.
#[test]
fn a_recording_is_split_at_keyframes_without_loss() {
    for (format, codec) in
        [(FileFormat::Mp4, Some(Codec::H264)), (FileFormat::Webm, Some(Codec::Vp8)), (FileFormat::Ogg, None)]
    {
        let folder = tempfile::tempdir().expect("a place for files");
        let reel = Reel::new(codec);
        let cut = FileTarget { cut_after: Some(Duration::from_secs(3)), ..target(folder.path(), format) };
        let mut rig = Rig::start(Target::File(cut), &reel);
        rig.feed(&reel, 14.0, |_| true, |_| true);
        assert_eq!(rig.finish(), None, "{format:?}");
        let files = recordings(folder.path(), format);
        assert!((3..=5).contains(&files.len()), "{files:?}");
        let (mut frames, mut seconds, mut lasts) = (0, 0.0, 0.0);
        for (file, number) in files.iter().zip(0..) {
            decodes(file);
            let probe = Probe::of(file);
            frames += if codec.is_some() { probe.packets("video") } else { 0 };
            seconds += sound(&probe);
            let sidecar = sidecar(file);
            assert_eq!(sidecar.part, number);
            assert!((sidecar.offset - lasts).abs() < 0.03, "{format:?}: file {number} begins at {}", sidecar.offset);
            lasts += sidecar.duration;
        }
        assert_eq!(frames, if codec.is_some() { 420 } else { 0 }, "{format:?}");
        assert!((seconds - 14.0).abs() < 0.06, "{format:?}: {seconds} s of audio");
    }
}

/// The process is killed at various times: the file is playable up to the last second, and is repaired.
#[test]
fn a_killed_recording_loses_at_most_the_last_second() {
    /// Speed of the media relative to real time.
    const SPEED: f64 = 2.0;
    let kinds = [
        (FileFormat::Mp4, false, Some(Codec::H264)),
        (FileFormat::Mp4, true, Some(Codec::H264)),
        (FileFormat::Webm, false, Some(Codec::Vp8)),
        (FileFormat::Mkv, false, Some(Codec::H264)),
        (FileFormat::Ogg, false, None),
    ];
    thread::scope(|scope| {
        for (kind, (format, opus, codec)) in kinds.into_iter().enumerate() {
            scope.spawn(move || {
                let reel = Reel::new(codec);
                for round in 0..4u32 {
                    let folder = tempfile::tempdir().expect("a place for files");
                    let target = FileTarget { opus, ..target(folder.path(), format) };
                    let mut rig = Rig::start(Target::File(target), &reel);
                    // Killed at a varying time after its start.
                    rig.play(&reel, 0.1, 1.0);
                    rig.wait_until("a file", |rig| !rig.files.is_empty());
                    let after = 1.3 + f64::from((round * 5 + kind as u32) * 7 % 20) * 0.17;
                    rig.play(&reel, after, SPEED);
                    let sent = rig.sent();
                    rig.kill();
                    let what = format!("{format:?}, killed after {after} s");
                    let file = recordings(folder.path(), format).remove(0);
                    for repaired in [false, true] {
                        if repaired {
                            let found = repair(&file, format);
                            assert!(sent - found.duration.as_secs_f64() <= 1.0, "{what}: {found:?}");
                        }
                        decodes(&file);
                        let probe = Probe::of(&file);
                        let lost = sent - sound(&probe);
                        assert!(lost <= 1.0, "{what}: {lost} s of audio are lost");
                        if codec.is_some() {
                            let lost = sent - probe.packets("video") as f64 / 30.0;
                            assert!(lost <= 1.0, "{what}: {lost} s of video are lost");
                        }
                    }
                    let beside = sidecar(&file);
                    assert_eq!(beside.state, FileState::Recording, "{what}: the state marks it for repair");
                }
            });
        }
    });
}

/// Half an hour of media, as fast as the process reads it.
#[test]
fn half_an_hour_has_no_drift_and_no_memory_growth() {
    for (format, codec) in [(FileFormat::Webm, Codec::Vp8), (FileFormat::Mp4, Codec::H264)] {
        half_an_hour(format, codec);
    }
}

fn half_an_hour(format: FileFormat, codec: Codec) {
    const SECONDS: f64 = 1_800.0;
    let folder = tempfile::tempdir().expect("a place for files");
    let reel = Reel::new(Some(codec));
    let mut rig = Rig::start(Target::File(target(folder.path(), format)), &reel);
    let mut seen = Vec::new();
    for part in 1..=6 {
        // Audio pauses for two of every twenty seconds.
        rig.feed(&reel, SECONDS / 6.0 * f64::from(part), |at| at % 20.0 < 18.0, |_| true);
        let whole = f64::from(part) * SECONDS / 6.0 - 2.0;
        rig.wait_until("all is written", |rig| rig.report.duration.as_secs_f64() >= whole);
        seen.push((rig.memory(), rig.report.bytes));
    }
    assert_eq!(rig.finish(), None);
    let file = recordings(folder.path(), format).remove(0);
    let probe = Probe::of(&file);
    assert_eq!(probe.packets("video"), (SECONDS * 30.0) as u64);
    let apart = sound(&probe) - SECONDS;
    assert!(apart.abs() < 0.045, "audio and video end {apart} s apart");
    assert!((probe.duration() - SECONDS).abs() < 0.05, "it lasts {} s", probe.duration());
    let (memory, bytes): (Vec<u64>, Vec<u64>) = seen.into_iter().unzip();
    assert!(memory[5] < memory[1] + 4_096, "memory grows: {memory:?} KiB");
    let each = |i: usize| bytes[i] - bytes[i - 1];
    assert!(each(5).abs_diff(each(1)) * 50 < each(1), "it does not grow evenly: {bytes:?}");
}

#[test]
fn disk_errors_name_the_fix() {
    let reel = Reel::new(Some(Codec::Vp8));
    let folder = tempfile::tempdir().expect("a place for files");
    let full = FileTarget { floor_bytes: u64::MAX / 2, ..target(folder.path(), FileFormat::Webm) };
    let mut rig = Rig::start(Target::File(full), &reel);
    let failure = rig.wait_for_end().expect("fails");
    assert!(failure.contains("MB free") && failure.contains("recordings.floor_mb"), "{failure}");

    let file = folder.path().join("file");
    fs::write(&file, "no folder").expect("writable");
    let mut rig = Rig::start(Target::File(target(&file.join("below"), FileFormat::Webm)), &reel);
    let failure = rig.wait_for_end().expect("fails");
    assert!(failure.contains("cannot make the folder"), "{failure}");

    let gone = folder.path().join("gone");
    let mut rig = Rig::start(Target::File(target(&gone, FileFormat::Webm)), &reel);
    rig.play(&reel, 1.0, 2.0);
    rig.wait_until("a file", |rig| !rig.files.is_empty());
    fs::remove_dir_all(&gone).expect("there");
    let failure = rig.wait_for_end().expect("fails");
    assert!(failure.contains("was deleted while it was being written"), "{failure}");
}

#[test]
fn existing_files_are_not_overwritten() {
    let reel = Reel::new(None);
    let folder = tempfile::tempdir().expect("a place for files");
    let taken = folder.path().join("daily-20261125-184231-o1.ogg");
    fs::write(&taken, "somebody's").expect("writable");
    let mut rig = Rig::start(Target::File(target(folder.path(), FileFormat::Ogg)), &reel);
    rig.feed(&reel, 1.0, |_| true, |_| true);
    assert_eq!(rig.finish(), None);
    assert_eq!(fs::read(&taken).expect("there"), b"somebody's");
    decodes(&folder.path().join("daily-20261125-184231-o1-001.ogg"));
}

#[test]
fn a_recording_is_finished_when_the_link_closes() {
    let reel = Reel::new(Some(Codec::Vp8));
    let folder = tempfile::tempdir().expect("a place for files");
    let mut rig = Rig::start(Target::File(target(folder.path(), FileFormat::Mkv)), &reel);
    rig.play(&reel, 1.0, 1.0);
    rig.wait_until("a file", |rig| !rig.files.is_empty());
    rig.hang_up();
    let file = recordings(folder.path(), FileFormat::Mkv).remove(0);
    assert_eq!(sidecar(&file).state, FileState::Finished);
    decodes(&file);
    assert!((Probe::of(&file).duration() - rig.sent()).abs() < 0.3);
}

/// Packets of each participant: reordered packets are sorted, and a screen that starts later gets a file of its own.
#[test]
fn separate_tracks_contain_the_packets_of_each_participant() {
    let folder = tempfile::tempdir().expect("a place for files");
    let reel = Reel::new(Some(Codec::Vp8));
    let mut rig = Rig::start(Target::Tracks(target(folder.path(), FileFormat::Mkv)), &reel);
    let spec =
        |source, kind, codec| SourceSpec { source: SourceId(source), participant: ParticipantId(7), kind, codec };
    let start = rig.epoch;
    rig.send(&[
        ToOutput::Note(start, present(7, "Ann")),
        ToOutput::Source(spec(1, SourceKind::Camera, Codec::Vp8)),
        ToOutput::Source(spec(2, SourceKind::Microphone, Codec::Opus)),
    ]);
    let (_, frames) = video(0, Codec::Vp8, 150);
    let (_, packets) = opus(0, 250);
    let source = |source: u32, sequence: u16, timestamp: u32, marker, at: f64, payload| {
        let arrival = start + Duration::from_secs_f64(at);
        ToOutput::Packet(
            SourceId(source),
            SourcePacket {
                sequence,
                timestamp,
                marker,
                arrival,
                captured: None,
                audio_level: None,
                rotation: None,
                colours: None,
                payload,
            },
        )
    };
    let mut payloader = commingle::codec::Payloader::new(Codec::Vp8);
    let mut messages: Vec<(f64, ToOutput)> = Vec::new();
    let mut sequence = 65_500u16;
    for (i, frame) in frames.iter().enumerate() {
        let at = i as f64 / 30.0;
        let frame =
            commingle::codec::EncodedFrame { data: frame.data.clone(), keyframe: frame.keyframe, pts: Duration::ZERO };
        for packet in payloader.packets(&frame, 4_294_960_000u32.wrapping_add(i as u32 * FRAME)) {
            messages.push((at, source(1, sequence, packet.timestamp, packet.marker, at, packet.payload.clone())));
            if i >= 60 {
                messages.push((at, source(3, sequence, packet.timestamp, packet.marker, at, packet.payload)));
            }
            sequence = sequence.wrapping_add(1);
        }
    }
    for (i, packet) in packets.iter().enumerate() {
        // Every seventh packet is 50 ms late.
        let at = i as f64 * 0.02 + if i % 7 == 3 { 0.05 } else { 0.0 };
        messages.push((at, source(2, i as u16, i as u32 * 960, false, i as f64 * 0.02, packet.data.clone())));
    }
    messages.sort_by(|a, b| a.0.total_cmp(&b.0));
    let screen = messages.iter().position(|(at, _)| *at >= 2.0).expect("long enough");
    let screen_spec = ToOutput::Source(spec(3, SourceKind::Screen, Codec::Vp8));
    messages.insert(screen, (2.0, screen_spec));
    let messages: Vec<ToOutput> = messages.into_iter().map(|(_, message)| message).collect();
    let (before, after) = messages.split_at(screen);
    before.chunks(20).for_each(|messages| rig.send(messages));
    rig.wait_until("a file", |rig| !rig.files.is_empty());
    after.chunks(20).for_each(|messages| rig.send(messages));
    assert_eq!(rig.finish(), None);
    let files = recordings(folder.path(), FileFormat::Mkv);
    let names: Vec<_> =
        files.iter().map(|file| file.file_name().expect("a name").to_string_lossy().into_owned()).collect();
    assert_eq!(names, ["daily-20261125-184231-o1-p7-000.mkv", "daily-20261125-184231-o1-p7-001.mkv"]);
    for file in &files {
        decodes(file);
    }
    let both = Probe::of(&files[0]);
    assert_eq!((both.packets("video"), both.packets("audio")), (150, 250));
    assert!((both.duration() - 5.0).abs() < 0.05, "{}", both.duration());
    let screen = Probe::of(&files[1]);
    assert!(!screen.has("audio"));
    assert_eq!(screen.packets("video"), 90);
    let beside = sidecar(&files[1]);
    assert_eq!(beside.participant, Some(ParticipantId(7)));
    assert!((beside.offset - 2.0).abs() < 0.01, "the screen begins at {}", beside.offset);
}

#[test]
fn a_recording_stops_with_a_complete_file_before_the_disk_is_full() {
    // Independent of what other processes write meanwhile.
    const ROOM: u64 = 400 << 20;
    let reel = Reel::new(Some(Codec::H264));
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a place for files");
    let disk = rustix::fs::statvfs(folder.path()).expect("there");
    let floor_bytes = (disk.f_bavail * disk.f_frsize).saturating_sub(ROOM);
    let target = FileTarget { floor_bytes, ..target(folder.path(), FileFormat::Mp4) };
    let mut rig = Rig::start(Target::File(target), &reel);
    rig.play(&reel, 1.5, 1.0);
    rig.wait_until("a file", |rig| !rig.files.is_empty());
    let filling = File::create(folder.path().join("filling")).expect("writable");
    rustix::fs::fallocate(&filling, rustix::fs::FallocateFlags::empty(), 0, 2 * ROOM).expect("so much is free");
    let failure = rig.wait_for_end().expect("fails");
    assert!(failure.contains("MB free") && failure.contains("recordings.floor_mb"), "{failure}");
    let file = recordings(folder.path(), FileFormat::Mp4).remove(0);
    decodes(&file);
    assert!((Probe::of(&file).duration() - rig.sent()).abs() < 1.0, "what there was is kept");
    let beside = sidecar(&file);
    assert_eq!((beside.state, beside.reason), (FileState::Failed, Some(failure)));
}

/// A file system of its own in memory, which requires root.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(kib: u32) -> Self {
        let disk = Self(tempfile::tempdir().expect("a place for files"));
        let options = format!("size={kib}k");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(disk.0.path()).status();
        assert!(mounted.is_ok_and(|status| status.success()), "tmpfs cannot be mounted: run this as root");
        disk
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the process may still have its file open. An error leaves a file system that is empty soon.
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// Without a floor, the disk is full in the middle of a fragment: the file is playable, and is finished when there is
/// space again.
#[test]
fn a_recording_on_a_full_disk_is_playable_and_finished_later() {
    let kinds = [
        (FileFormat::Mp4, Some(Codec::H264)),
        (FileFormat::Webm, Some(Codec::Vp8)),
        (FileFormat::Mkv, Some(Codec::H264)),
        (FileFormat::Ogg, None),
    ];
    for (format, codec) in kinds {
        let reel = Reel::new(codec);
        let disk = SmallDisk::new(512);
        let filling = disk.0.path().join("filling");
        fs::write(&filling, vec![1; 320 << 10]).expect("so much is free");
        let mut rig = Rig::start(Target::File(target(disk.0.path(), format)), &reel);
        rig.play(&reel, 60.0, 8.0);
        let failure = rig.wait_for_end().expect("fails");
        assert!(failure.contains("No space left"), "{format:?}: {failure}");
        let file = recordings(disk.0.path(), format).remove(0);
        decodes(&file);
        let before = sound(&Probe::of(&file));
        assert!(before > 1.0, "{format:?}: only {before} s are kept");
        fs::remove_file(&filling).expect("there");
        let repaired = repair(&file, format).duration.as_secs_f64();
        assert!(repaired > before - 0.1, "{format:?}: {before} s before the repair, {repaired} s after it");
        decodes(&file);
        let drafts = fs::read_dir(disk.0.path()).expect("there").filter(|entry| {
            entry.as_ref().is_ok_and(|entry| entry.path().extension().is_some_and(|extension| extension == "part"))
        });
        assert_eq!(drafts.count(), 0, "{format:?}: a draft of the sidecar takes space");
    }
}
