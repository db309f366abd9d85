//! Captions in recordings, read back by ffprobe and ffmpeg.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use commingle::container::{Sample, TrackSpec, finish};
use commingle::id::ParticipantId;
use commingle::link::output::{Caption, FileTarget, Note, Target, ToOutput};
use commingle::media::{Codec, FileFormat};

use crate::files::write;
use crate::media::{SIZE, aac, opus, video};
use crate::probe::{Probe, decodes};
use crate::rig::{Reel, Rig, recordings, target};

/// A caption as ffmpeg converts it to SubRip: start and end in seconds, text.
type Cue = (f64, f64, String);

/// The captions of a file.
fn cues(file: &Path) -> Vec<Cue> {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-nostdin", "-v", "error", "-i"]).arg(file).args(["-map", "0:s:0", "-f", "srt", "-"]);
    let output = ffmpeg.output().expect("scripts/setup.sh test installs ffmpeg");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    let seconds = |time: &str| {
        let numbers = time.trim().split([':', ',']).map(|number| number.parse::<f64>().expect("a number"));
        numbers.zip([3_600.0, 60.0, 1.0, 0.001]).map(|(number, unit)| number * unit).sum::<f64>()
    };
    let block = |block: &str| {
        let mut lines = block.trim_start_matches(['\r', '\n']).lines().skip(1);
        let (start, end) = lines.next()?.split_once(" --> ")?;
        let text: Vec<&str> = lines.collect();
        Some((seconds(start), seconds(end), text.join("\n").replace('\u{2060}', "")))
    };
    text.replace('\r', "").split("\n\n").filter_map(block).collect()
}

fn assert_cues(file: &Path, expected: &[(f64, f64, &str)], tolerance: f64) {
    let cues = cues(file);
    let alike = cues.len() == expected.len()
        && cues.iter().zip(expected).all(|(cue, expected)| {
            (cue.0 - expected.0).abs() <= tolerance && (cue.1 - expected.1).abs() <= tolerance && cue.2 == expected.2
        });
    assert!(alike, "{}: {cues:?} instead of {expected:?}", file.display());
}

const FORMATS: [(FileFormat, &str); 2] = [(FileFormat::Mp4, "mov_text"), (FileFormat::Mkv, "subrip")];

#[test]
fn ffmpeg_reads_captions_of_growing_repaired_and_finished_files() {
    commingle::codec::init().expect("installed");
    let folder = tempfile::tempdir().expect("a place for files");
    let hard = "Añn: 1 < 2 & --> <b>x</b> שלום 👩‍👩‍👧";
    for (format, codec) in FORMATS {
        let mut tracks = vec![video(0, Codec::H264, 180)];
        tracks.push(if format == FileFormat::Mp4 { aac(1, 300) } else { opus(1, 300) });
        let caption = |time: f64, lasts: f64, text: &str| Sample {
            track: 2,
            time: (time * 48_000.0) as u64,
            duration: (lasts * 48_000.0) as u32,
            keyframe: true,
            data: text.to_owned().into(),
        };
        let captions =
            vec![caption(0.5, 1.0, hard), caption(2.0, 6.0, "Ann: two\nBob: three"), caption(3.7, 6.0, "Bob: three")];
        tracks.push((TrackSpec::text(SIZE).named("Captions"), captions));
        let pieces = write(format, tracks);
        let whole = pieces.concat();
        let file = folder.path().join(format!("captions.{}", format.extension()));

        let growing = &whole[..whole.len() - pieces.last().expect("pieces").len()];
        fs::write(&file, growing).expect("writable");
        decodes(&file);
        let begun: Vec<(f64, String)> = cues(&file).into_iter().map(|(from, _, text)| (from, text)).collect();
        assert_eq!(begun.len(), 3, "{format:?}: {begun:?}");
        assert!((begun[1].0 - 2.0).abs() < 0.01 && begun[1].1 == "Ann: two\nBob: three", "{begun:?}");

        for (length, seconds) in [(growing.len() + 100, 5.0), (whole.len(), 6.0)] {
            fs::write(&file, &whole[..length]).expect("writable");
            let mut opened = File::options().read(true).write(true).open(&file).expect("just written");
            finish(format, &mut opened, &[]).expect("holds something");
            decodes(&file);
            let probe = Probe::of(&file);
            assert_eq!(probe.codec("subtitle"), codec);
            assert!((probe.duration() - seconds).abs() < 0.05, "{format:?} lasts {} s", probe.duration());
            let expected = [(0.5, 1.5, hard), (2.0, 3.7, "Ann: two\nBob: three"), (3.7, seconds, "Bob: three")];
            assert_cues(&file, &expected, 0.05);
        }
    }
}

fn caption(participant: u32, name: &str, text: &str) -> Note {
    let (name, text) = (name.to_owned(), text.to_owned());
    Note::Caption(Caption { participant: ParticipantId(participant), name, text, language: Some("en".to_owned()) })
}

/// The first file begins at 2 s, the second at 8 s; a caption spans both.
#[test]
fn captions_of_a_recording_have_the_times_of_its_media() {
    for (format, codec) in FORMATS {
        let folder = tempfile::tempdir().expect("a place for files");
        let reel = Reel::new(Some(Codec::H264));
        let cut = FileTarget { cut_after: Some(Duration::from_secs(5)), ..target(folder.path(), format) };
        let mut rig = Rig::start(Target::File(cut), &reel);
        let start = rig.epoch;
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let notes = [
            (2.5, caption(1, "Ann", "first")),
            (3.25, caption(1, "Ann", "second\n\n-->")),
            (4.0, caption(2, "", "no name")),
            (7.5, caption(1, "Ann", "third")),
        ];
        for (time, note) in notes {
            rig.feed(&reel, time, |_| true, |at| at > 0.3);
            rig.send(&[ToOutput::Note(at(time), note)]);
        }
        rig.feed(&reel, 12.0, |_| true, |_| true);
        assert_eq!(rig.finish(), None, "{format:?}");
        let files = recordings(folder.path(), format);
        assert_eq!(files.len(), 2, "{files:?}");
        for file in &files {
            decodes(file);
            assert_eq!(Probe::of(file).codec("subtitle"), codec);
        }
        let first = [
            (0.5, 1.25, "Ann: first"),
            (1.25, 2.0, "Ann: second -->"),
            (2.0, 5.5, "Ann: second -->\nno name"),
            (5.5, 6.0, "Ann: third\nno name"),
        ];
        assert_cues(&files[0], &first, 0.06);
        let second = cues(&files[1]);
        assert!(second[0].0 < 0.01 && second[0].2 == "Ann: third\nno name", "{format:?}: {second:?}");
        let sidecar = fs::read_to_string(files[0].with_extension("json")).expect("stands beside it");
        assert!(sidecar.contains(r#""text": "first""#), "{sidecar}");
    }
}

#[test]
fn a_killed_recording_keeps_its_captions() {
    for (format, _) in FORMATS {
        let folder = tempfile::tempdir().expect("a place for files");
        let reel = Reel::new(Some(Codec::H264));
        let mut rig = Rig::start(Target::File(target(folder.path(), format)), &reel);
        rig.play(&reel, 1.0, 1.0);
        rig.send(&[ToOutput::Note(rig.epoch + Duration::from_secs(1), caption(1, "Ann", "still here"))]);
        rig.play(&reel, 3.0, 1.0);
        rig.kill();
        let file = recordings(folder.path(), format).remove(0);
        let mut opened = File::options().read(true).write(true).open(&file).expect("there");
        let end = finish(format, &mut opened, &[]).expect("holds something").duration.as_secs_f64();
        assert_cues(&file, &[(1.0, end, "Ann: still here")], 0.06);
    }
}

#[test]
fn a_recording_without_captions_has_no_track_for_them() {
    for (format, _) in FORMATS {
        let folder = tempfile::tempdir().expect("a place for files");
        let reel = Reel::new(Some(Codec::H264));
        let mut rig = Rig::start(Target::File(target(folder.path(), format)), &reel);
        rig.feed(&reel, 3.0, |_| true, |_| true);
        assert_eq!(rig.finish(), None);
        let file = recordings(folder.path(), format).remove(0);
        assert!(!Probe::of(&file).has("subtitle"), "{format:?}");
    }
}
