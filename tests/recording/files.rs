//! Files of every format, while they grow, after a crash, and finished.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use commingle::container::{Chapter, FileSummary, Sample, TrackSpec, Writer, finish, mp4};
use commingle::media::{Codec, FileFormat};

use crate::media::{KEYFRAMES, aac, opus, video};
use crate::probe::{Probe, decodes, jump};

/// Seconds of media in each file.
const SECONDS: u64 = 6;

/// The fragments of a file, and the codec names of ffprobe.
struct Made {
    name: &'static str,
    format: FileFormat,
    pieces: Vec<bytes::Bytes>,
    video: Option<&'static str>,
    audio: &'static str,
}

/// The fragments of a file with these tracks.
pub fn write(format: FileFormat, tracks: Vec<(TrackSpec, Vec<Sample>)>) -> Vec<bytes::Bytes> {
    let (specs, samples): (Vec<_>, Vec<_>) = tracks.into_iter().unzip();
    let mut samples: Vec<(f64, Sample)> = samples
        .into_iter()
        .flatten()
        .map(|sample| (sample.time as f64 / f64::from(specs[sample.track].clock()), sample))
        .collect();
    samples.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut writer = Writer::new(format, specs, Duration::from_secs(1)).expect("fits");
    let mut pieces = Vec::new();
    for (_, sample) in samples {
        writer.push(sample).expect("in order");
        pieces.extend(std::iter::from_fn(|| writer.poll()));
    }
    pieces.extend(std::iter::from_fn(|| writer.end()));
    pieces
}

fn all() -> Vec<Made> {
    commingle::codec::init().expect("installed");
    let frames = SECONDS * 30;
    let ticks = SECONDS * 50;
    let made = |name, format, video: Option<(&'static str, Codec)>, audio: &'static str| {
        let mut tracks: Vec<(TrackSpec, Vec<Sample>)> = Vec::new();
        tracks.extend(video.map(|(_, codec)| crate::media::video(0, codec, frames)));
        let number = tracks.len();
        tracks.push(if audio == "aac" { aac(number, ticks) } else { opus(number, ticks) });
        Made { name, format, pieces: write(format, tracks), video: video.map(|(name, _)| name), audio }
    };
    vec![
        made("aac.mp4", FileFormat::Mp4, Some(("h264", Codec::H264)), "aac"),
        made("opus.mp4", FileFormat::Mp4, Some(("h264", Codec::H264)), "opus"),
        made("vp8.webm", FileFormat::Webm, Some(("vp8", Codec::Vp8)), "opus"),
        made("vp9.webm", FileFormat::Webm, Some(("vp9", Codec::Vp9)), "opus"),
        made("h264.mkv", FileFormat::Mkv, Some(("h264", Codec::H264)), "opus"),
        made("aac.mkv", FileFormat::Mkv, Some(("h264", Codec::H264)), "aac"),
        made("sound.ogg", FileFormat::Ogg, None, "opus"),
    ]
}

fn finished(path: &Path, format: FileFormat, chapters: &[Chapter]) -> FileSummary {
    let mut file = File::options().read(true).write(true).open(path).expect("just written");
    finish(format, &mut file, chapters).expect("holds something")
}

/// Checks a file that contains `seconds` of media.
fn judge(path: &Path, made: &Made, seconds: f64) -> Probe {
    let name = made.name;
    let probe = Probe::of(path);
    decodes(path);
    assert_eq!(probe.codec("audio"), made.audio, "{name}");
    let sound = probe.packets("audio") as f64 * if made.audio == "aac" { 1_024.0 / 48_000.0 } else { 0.02 };
    assert!((sound - seconds).abs() < 0.05, "{name}: {sound} s of sound, not {seconds}");
    assert_eq!(probe.has("video"), made.video.is_some(), "{name}");
    if let Some(codec) = made.video {
        assert_eq!(probe.codec("video"), codec, "{name}");
        assert_eq!(probe.packets("video"), (seconds * 30.0).round() as u64, "{name}: frames");
        let apart = (probe.start("video") - probe.start("audio")).abs();
        assert!(apart < 0.022, "{name}: the streams begin {apart} s apart");
    }
    probe
}

fn put(folder: &Path, made: &Made, bytes: &[u8]) -> PathBuf {
    let path = folder.join(made.name);
    fs::write(&path, bytes).expect("writable");
    path
}

#[test]
fn files_are_playable_while_they_grow_after_a_crash_and_when_finished() {
    let folder = tempfile::tempdir().expect("a place for files");
    let chapters = [(0, "Ann joins"), (2_500, "Böb spricht")]
        .map(|(ms, title)| Chapter { time: Duration::from_millis(ms), title: title.into() });
    for made in all() {
        // Growing: without the last fragment.
        let whole = made.pieces.concat();
        let growing = &whole[..whole.len() - made.pieces.last().expect("pieces").len()];
        let path = put(folder.path(), &made, growing);
        judge(&path, &made, SECONDS as f64 - 1.0);

        // Truncated in the middle of a write, and repaired.
        let path = put(folder.path(), &made, &whole[..growing.len() + 100]);
        let found = finished(&path, made.format, &[]);
        assert_eq!(found.cut, 100, "{}", made.name);
        let probe = judge(&path, &made, SECONDS as f64 - 1.0);
        let lasts = probe.duration();
        assert!((lasts - found.duration.as_secs_f64()).abs() < 0.03, "{}: {lasts}, not {found:?}", made.name);

        // Finished at its regular end.
        let path = put(folder.path(), &made, &whole);
        let found = finished(&path, made.format, &chapters);
        let probe = judge(&path, &made, SECONDS as f64);
        let lasts = probe.duration();
        assert!((lasts - SECONDS as f64).abs() < 0.03, "{} lasts {lasts} s", made.name);
        assert!((lasts - found.duration.as_secs_f64()).abs() < 0.03, "{}: {lasts}, not {found:?}", made.name);
        let kept: Vec<(String, f64)> = probe.chapters();
        if made.format != FileFormat::Ogg {
            assert_eq!(kept, [("Ann joins".to_owned(), 0.0), ("Böb spricht".to_owned(), 2.5)], "{}", made.name);
        }
        if made.video.is_some() {
            let keyframes = KEYFRAMES as f64 / 30.0;
            for to in [0.5, 3.1, 5.9] {
                let lands = jump(&path, "v:0", to);
                let expected = (to / keyframes).floor() * keyframes;
                assert!((lands - expected).abs() < 0.002, "{}: a jump to {to} lands at {lands}", made.name);
            }
        } else {
            let lands = jump(&path, "a:0", 3.1);
            assert!((2.0..=3.1).contains(&lands), "{}: a jump to 3.1 lands at {lands}", made.name);
        }
    }
}

/// After a mixer restart the stream continues with other parameter sets, another size, and a gap, in the same file.
#[test]
fn a_file_with_changed_parameter_sets_is_playable() {
    commingle::codec::init().expect("installed");
    let folder = tempfile::tempdir().expect("a place for files");
    for (name, format, codec) in [
        ("h264.mp4", FileFormat::Mp4, Codec::H264),
        ("h264.mkv", FileFormat::Mkv, Codec::H264),
        ("vp8.webm", FileFormat::Webm, Codec::Vp8),
    ] {
        let (spec, mut samples) = video(0, codec, 60);
        let (_, mut after) = crate::media::video_of(0, codec, 60, commingle::media::Size::new(640, 360));
        after.iter_mut().for_each(|sample| sample.time += 4 * 90_000);
        samples.extend(after);
        let path = folder.path().join(name);
        fs::write(&path, write(format, vec![(spec, samples), opus(1, 300)]).concat()).expect("writable");
        for done in [false, true] {
            if done {
                finished(&path, format, &[]);
            }
            decodes(&path);
            let probe = Probe::of(&path);
            assert_eq!((probe.packets("video"), probe.packets("audio")), (120, 300), "{name}");
            let lands = jump(&path, "v:0", 5.0);
            assert!((lands - 4.0).abs() < 0.002, "{name}: a jump to 5 lands at {lands}");
        }
    }
}

/// HLS: an initialization section and parts with decode times set by the caller.
#[test]
fn parts_are_playable_after_their_initialization_section() {
    commingle::codec::init().expect("installed");
    let folder = tempfile::tempdir().expect("a place for files");
    for (kind, (spec, samples)) in [("video", video(0, Codec::H264, 60)), ("audio", aac(0, 100))] {
        let mut bytes = mp4::initialization(std::slice::from_ref(&spec)).to_vec();
        let mut packets = 0;
        for (samples, sequence) in samples.chunks(15).zip(1..) {
            let base = u64::from(spec.clock()) * 3_600 + samples[0].time;
            bytes.extend(mp4::part(&spec, sequence, base, samples).expect("whole samples"));
            packets += samples.len() as u64;
        }
        let path = folder.path().join("parts.mp4");
        fs::write(&path, bytes).expect("writable");
        decodes(&path);
        let probe = Probe::of(&path);
        assert_eq!(probe.packets(kind), packets);
        assert!((probe.start(kind) - 3_600.0).abs() < 0.05, "{kind} begins at {}", probe.start(kind));
        let expected = if kind == "video" { "avc1.42" } else { "mp4a.40.2" };
        assert!(spec.codec_string().starts_with(expected), "{}", spec.codec_string());
    }
}
