//! The input process as the edge sees it: configured over its link, it sends a source in real time.

#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod network;
mod odd_files;
mod odd_rtmp;
mod odd_rtsp;
mod rig;

use std::time::Duration;

use commingle::codec::Depayloader;
use commingle::link::input::ToInput;
use commingle::media::{AUDIO_RATE, Codec, Size, SourceKind, VIDEO_CLOCK};
use commingle::room::document::InputState;
use commingle::time::Timestamp;

use rig::{CLAPS, Clips, Rig, loudness, luma, settings, tone};

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.since(from).as_secs_f64()
}

/// Times of the flashes: when the first white picture of each flash was sent.
fn flashes(rig: &Rig) -> Vec<Timestamp> {
    let pictures = rig.pictures();
    let white: Vec<bool> = pictures.iter().map(|(_, _, picture)| luma(picture) > 120.0).collect();
    (1..white.len()).filter(|&i| white[i] && !white[i - 1]).map(|i| pictures[i].1).collect()
}

/// Times of the beeps: when the first loud millisecond of each beep is due, if packets are played as they are sent.
fn beeps(rig: &Rig) -> Vec<Timestamp> {
    let mut loud_before = true;
    let mut beeps = Vec::new();
    for (_, arrival, samples) in rig.sound() {
        for (i, millisecond) in samples.chunks(48).enumerate() {
            let loud = loudness(millisecond) > 0.1;
            // The tone crosses zero twice per millisecond: it is over when a whole tick was quiet.
            if loud && !loud_before {
                beeps.push(arrival + Duration::from_millis(i as u64));
                loud_before = true;
            }
        }
        if loudness(&samples) < 0.01 {
            loud_before = false;
        }
    }
    beeps
}

/// Checks that there were at least `least` flashes, each with a synchronous beep.
pub fn check_claps(rig: &Rig, least: usize) {
    let (flashes, beeps) = (flashes(rig), beeps(rig));
    assert!(flashes.len() >= least, "{} flashes, {} beeps", flashes.len(), beeps.len());
    for flash in flashes {
        let apart = |beep: &Timestamp| flash.as_micros().abs_diff(beep.as_micros());
        let nearest = beeps.iter().map(apart).min().expect("beeps");
        assert!(nearest < 45_000, "a flash and its beep are {nearest} us apart");
    }
}

#[test]
fn a_file_is_sent_in_real_time_with_synchronized_audio_and_video() {
    let clips = Clips::new();
    clips.make("claps.mp4", &format!("{CLAPS} -t 5 -c:v libx264 -preset fast -bf 3 -c:a aac"));
    let mut rig = Rig::new(settings("file:claps.mp4", clips.folder()));
    assert_eq!(rig.until_ended(), None, "the end of a file is not a failure");

    let frames = rig.frames();
    assert_eq!(frames.len(), 125, "all of its pictures");
    let (first, last) = (frames[0][0].arrival, frames[124][0].arrival);
    assert!((4.85..5.1).contains(&seconds(first, last)), "{} s of real time", seconds(first, last));
    for two in frames.windows(2) {
        assert_eq!(two[1][0].timestamp.wrapping_sub(two[0][0].timestamp), VIDEO_CLOCK / 25);
    }
    let keys: Vec<usize> =
        (0..125).filter(|&i| Depayloader::starts_keyframe(Codec::H264, &frames[i][0].payload)).collect();
    assert_eq!(keys, [0, 50, 100], "a keyframe every two seconds");
    let numbers = |kind| rig.of(kind).windows(2).all(|two| two[1].sequence == two[0].sequence.wrapping_add(1));
    assert!(numbers(SourceKind::Camera) && numbers(SourceKind::Microphone));
    let sound = rig.of(SourceKind::Microphone);
    assert!(sound.windows(2).all(|two| two[1].timestamp.wrapping_sub(two[0].timestamp) == 960), "a gap in the audio");
    assert!((248..=256).contains(&sound.len()), "{} ticks of audio", sound.len());

    check_claps(&rig, 4);
    assert!(rig.reports.len() >= 20, "{} reports in five seconds", rig.reports.len());
    let running: Vec<_> = rig.reports.iter().filter(|(_, report)| report.state == InputState::Live).collect();
    let (_, report) = running[running.len() / 2];
    assert!(report.bitrate > 50_000 && report.size == Some(Size::new(320, 180)), "{report:?}");
    assert_eq!((report.reconnects, report.late, report.link_dropped), (0, 0, 0));
    assert_eq!(rig.state(), Some(InputState::Finished));
}

#[test]
fn a_repeated_file_has_no_gap_and_a_requested_keyframe_is_sent() {
    let clips = Clips::new();
    clips.make(
        "short.webm",
        "-f lavfi -i testsrc2=s=320x180:r=25:d=1 -f lavfi -i sine=f=600:d=1 -c:v libvpx -cpu-used 8 -deadline realtime \
         -c:a libopus",
    );
    let mut rig = Rig::new({
        let mut settings = settings("file:short.webm", clips.folder());
        settings.repeat = true;
        settings
    });
    rig.until("three rounds", |rig| rig.of(SourceKind::Microphone).len() > 160);
    let frames = rig.frames().len();
    rig.send(&ToInput::Keyframe);
    let key =
        |rig: &Rig| rig.frames()[frames..].iter().any(|f| Depayloader::starts_keyframe(Codec::H264, &f[0].payload));
    rig.until("a keyframe", key);
    assert!(rig.frames().len() - frames < 15, "it came {} frames late", rig.frames().len() - frames);

    for two in rig.frames().windows(2) {
        let step = two[1][0].timestamp.wrapping_sub(two[0][0].timestamp);
        assert!(step < VIDEO_CLOCK / 8, "a freeze of {} ms", step / 90);
    }
    for two in rig.of(SourceKind::Microphone).windows(2) {
        let step = two[1].timestamp.wrapping_sub(two[0].timestamp);
        assert!(step < AUDIO_RATE / 12, "silence of {} ms", step / 48);
    }
    let heard: Vec<f32> = rig.sound().into_iter().flat_map(|(_, _, samples)| samples).collect();
    assert!(tone(&heard[24_000..48_000], 600.0) > 0.9);
    rig.send(&ToInput::Stop);
    assert_eq!(rig.until_ended(), None);
}

#[test]
fn sources_without_audio_or_video_and_of_any_size_and_rate_are_supported() {
    let clips = Clips::new();
    clips.make("sound.mp3", "-f lavfi -i sine=f=600:d=1");
    let mut rig = Rig::new(settings("file:sound.mp3", clips.folder()));
    assert_eq!(rig.until_ended(), None);
    assert!(rig.of(SourceKind::Camera).is_empty() && rig.of(SourceKind::Microphone).len() >= 48);

    clips.make("large.mp4", "-f lavfi -i testsrc2=s=1440x1080:r=60:d=1 -vf setsar=4/3 -c:v libx264 -preset ultrafast");
    let mut rig = Rig::new(settings("file:large.mp4", clips.folder()));
    assert_eq!(rig.until_ended(), None);
    assert!(rig.of(SourceKind::Microphone).is_empty());
    let pictures = rig.pictures();
    assert!((25..=32).contains(&pictures.len()), "{} pictures of 60", pictures.len());
    assert!(pictures.iter().all(|(_, _, picture)| picture.size() == Size::new(1280, 720)), "not scaled to the canvas");
}

#[test]
fn sources_that_cannot_be_played_end_with_a_reason() {
    let clips = Clips::new();
    std::fs::write(clips.folder().join("letter.mp4"), "Dear Sir or Madam,\n".repeat(500)).expect("room for it");
    let why = |url: &str| Rig::new(settings(url, clips.folder())).until_ended().expect("a reason");
    assert!(why("file:nothing.mp4").contains("no file nothing.mp4"));
    assert!(!why("file:letter.mp4").is_empty());
    assert!(why("http://10.0.0.1/x").contains("private network"));
    assert!(why("srt://127.0.0.2:9000").contains("loopback"));
    assert!(why("http://[::ffff:169.254.169.254]/latest").contains("metadata"));
}

#[test]
fn the_process_exits_when_the_link_closes() {
    let clips = Clips::new();
    clips.make("long.mp4", "-f lavfi -i testsrc2=s=320x180:r=25:d=30 -c:v libx264 -preset ultrafast");
    let mut rig = Rig::new(settings("file:long.mp4", clips.folder()));
    rig.until("pictures", |rig| rig.of(SourceKind::Camera).len() > 20);
    let pid = rustix::process::Pid::from_raw(rig.pid() as i32).expect("a pid");
    let (mut child, link) = rig.into_parts();
    drop(link);
    let status = child.0.wait().expect("it ends");
    assert!(status.success(), "{status}");
    assert!(rustix::process::test_kill_process(pid).is_err());
}
