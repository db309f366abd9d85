//! Intake of files in several formats, with checks of pictures and tones.

use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use tempfile::TempDir;

use super::*;

/// Time limit of each test.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes a clip with ffmpeg; returns the temporary folder.
fn clip(name: &str, arguments: &str) -> (TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a folder for a clip");
    let path = folder.path().join(name);
    let status = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error"])
        .args(arguments.split_whitespace())
        .arg(&path)
        .status()
        .expect("ffmpeg is installed");
    assert!(status.success(), "ffmpeg made no {name}");
    (folder, path)
}

struct Taken {
    pictures: Vec<Shot>,
    samples: Vec<f32>,
    /// Times of the buffers of samples, and their lengths.
    stretches: Vec<(Duration, usize)>,
}

fn waker() -> (impl Fn() + Send + Sync + 'static, Receiver<()>) {
    let (wake, woken) = sync_channel(1);
    (move || wake.try_send(()).unwrap_or_default(), woken)
}

/// Reads a source to its end.
fn take(intake: &Intake, woken: &Receiver<()>) -> Result<Taken, String> {
    let mut taken = Taken { pictures: Vec::new(), samples: Vec::new(), stretches: Vec::new() };
    loop {
        if let Some(reason) = intake.failed() {
            return Err(reason);
        }
        taken.pictures.extend(std::iter::from_fn(|| intake.picture()));
        for stretch in std::iter::from_fn(|| intake.sound()) {
            taken.stretches.push((stretch.pts, stretch.samples.len()));
            taken.samples.extend(stretch.samples);
        }
        if intake.is_over() {
            return Ok(taken);
        }
        woken.recv_timeout(PATIENCE).expect("an event of the source");
    }
}

fn file(name: &str, arguments: &str) -> Result<Taken, String> {
    let (_folder, path) = clip(name, arguments);
    let (wake, woken) = waker();
    let intake = Intake::file(&path, wake).map_err(|error| error.to_string())?;
    take(&intake, &woken)
}

/// Strength of a tone of this frequency, 0 to 1.
fn tone(samples: &[f32], hertz: f32) -> f32 {
    let (mut real, mut imaginary, mut power) = (0.0, 0.0, 1e-9);
    for (i, sample) in samples.iter().enumerate() {
        let angle = std::f32::consts::TAU * hertz * i as f32 / AUDIO_RATE as f32;
        real += sample * angle.cos();
        imaginary += sample * angle.sin();
        power += sample * sample;
    }
    (real * real + imaginary * imaginary) * 2.0 / (samples.len() as f32 * power)
}

const TWO_SECONDS: &str = "-f lavfi -i testsrc2=s=320x180:r=25:d=2 -f lavfi -i sine=f=600:d=2:r=44100";

fn check_two_seconds(taken: &Taken, name: &str) {
    assert!((49..=51).contains(&taken.pictures.len()), "{name}: {} pictures", taken.pictures.len());
    assert!(taken.pictures.windows(2).all(|two| two[0].pts < two[1].pts), "{name}: pictures are out of order");
    assert!(taken.pictures.iter().all(|shot| shot.picture.size() == Size::new(320, 180)), "{name}");
    let seconds = taken.samples.len() as f32 / AUDIO_RATE as f32;
    assert!((1.9..2.15).contains(&seconds), "{name}: {seconds} s of sound");
    let middle = &taken.samples[AUDIO_RATE as usize / 2..AUDIO_RATE as usize * 3 / 2];
    assert!(tone(middle, 600.0) > 0.9, "{name}: no tone");
    let first = taken.pictures[0].pts.abs_diff(taken.stretches[0].0);
    assert!(first < Duration::from_millis(60), "{name}: picture and sound begin {first:?} apart");
    for two in taken.stretches.windows(2) {
        let end = two[0].0 + Duration::from_secs_f64(two[0].1 as f64 / f64::from(AUDIO_RATE));
        assert!(end.abs_diff(two[1].0) < Duration::from_millis(5), "{name}: a gap at {end:?}");
    }
}

#[test]
fn usual_containers_and_codecs_are_decoded_in_order_and_in_time() {
    let kinds = [
        ("b-frames.mp4", "-c:v libx264 -preset fast -bf 3 -c:a aac"),
        ("hevc.mp4", "-c:v libx265 -x265-params log-level=error -preset ultrafast -c:a aac"),
        ("h264.ts", "-c:v libx264 -preset fast -c:a ac3"),
        ("mpeg2.ts", "-c:v mpeg2video -c:a mp2"),
        ("vp8.webm", "-c:v libvpx -deadline realtime -cpu-used 8 -c:a libopus"),
        ("vp9.mkv", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -c:a libmp3lame"),
        ("h264.flv", "-c:v libx264 -preset ultrafast -c:a aac"),
    ];
    for (name, codecs) in kinds {
        let taken = file(name, &format!("{TWO_SECONDS} -shortest {codecs}")).expect(name);
        check_two_seconds(&taken, name);
    }
}

#[test]
fn a_source_may_have_audio_or_video_only() {
    for name in ["alone.mp3", "alone.wav", "alone.ogg", "alone.m4a", "alone.flac"] {
        let taken = file(name, "-f lavfi -i sine=f=600:d=1 -ac 2").expect(name);
        assert!(taken.pictures.is_empty());
        assert!(tone(&taken.samples[4800..43_000], 600.0) > 0.9, "{name}");
    }
    let taken = file("alone.mp4", "-f lavfi -i testsrc2=s=320x180:r=25:d=1 -c:v libx264 -bf 2").expect("pictures");
    assert_eq!((taken.pictures.len(), taken.samples.len()), (25, 0));
}

#[test]
fn odd_interlaced_deep_and_anamorphic_pictures_are_converted() {
    let made = |name: &str, arguments: &str| file(name, arguments).expect(name).pictures;
    let odd = made("odd.mkv", "-f lavfi -i testsrc=s=321x181:r=10:d=1 -pix_fmt yuv420p -c:v libvpx");
    assert_eq!(odd[0].picture.size(), Size::new(321, 181));
    let deep = made("deep.mkv", "-f lavfi -i testsrc2=s=320x180:r=10:d=1 -pix_fmt yuv422p10le -c:v libx264 -qp 5");
    assert_eq!((deep.len(), deep[0].picture.size()), (10, Size::new(320, 180)));
    let laced = made(
        "laced.ts",
        "-f lavfi -i testsrc2=s=720x576:r=50:d=1 -vf interlace -c:v mpeg2video -b:v 4M -flags +ildct+ilme -aspect 16:9",
    );
    assert!((24..=26).contains(&laced.len()), "{} pictures of 25 interlaced ones", laced.len());
    let (wide, high) = laced[0].pixel;
    assert!((wide as f32 / high as f32 - 64.0 / 45.0).abs() < 0.01, "pixels of {wide}:{high}");
    let hd = made("hd.mp4", "-f lavfi -i testsrc2=s=1280x720:r=5:d=1 -c:v libx264 -colorspace bt709 -color_range pc");
    assert_eq!(hd[0].colours, Colours { matrix: Matrix::Bt709, full_range: true });
}

#[test]
fn a_change_of_size_is_followed() {
    let (folder, path) = clip("small.ts", "-f lavfi -i testsrc2=s=320x180:r=25:d=1 -c:v libx264");
    let (other, large) = clip("large.ts", "-f lavfi -i testsrc2=s=640x360:r=25:d=1 -c:v libx264 -output_ts_offset 1");
    let mut joined = std::fs::read(&path).expect("just made");
    joined.extend(std::fs::read(&large).expect("just made"));
    let both = folder.path().join("both.ts");
    std::fs::write(&both, joined).expect("room for it");
    let (wake, woken) = waker();
    let taken = take(&Intake::file(&both, wake).expect("opens"), &woken).expect("a stream");
    let sizes: Vec<Size> = taken.pictures.iter().map(|shot| shot.picture.size()).collect();
    assert_eq!((sizes.first(), sizes.last()), (Some(&Size::new(320, 180)), Some(&Size::new(640, 360))));
    drop(other);
}

#[test]
fn files_that_are_not_media_or_too_large_are_refused_with_a_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("text.mp4");
    std::fs::write(&text, "nothing to see here\n".repeat(100)).expect("room for it");
    let (wake, woken) = waker();
    let refused = Intake::file(&text, wake).map_err(|error| error.to_string());
    assert!(refused.and_then(|intake| take(&intake, &woken)).is_err());

    let (wake, _woken) = waker();
    let missing = Intake::file(&folder.path().join("missing.mp4"), wake).map(drop).expect_err("is not there");
    assert!(!missing.to_string().is_empty());

    let huge = "-f lavfi -i color=s=5000x3000:r=1:d=1 -c:v libx264 -preset ultrafast";
    let reason = file("huge.mp4", huge).map(|taken| taken.pictures.len()).expect_err("too large");
    assert!(reason.contains("5000x3000") && reason.contains("4096x2304"), "{reason}");
}

#[test]
fn a_picture_that_is_too_large_after_small_ones_ends_the_source() {
    for codec in [
        "libvpx -deadline realtime -cpu-used 8",
        "libvpx-vp9 -deadline realtime -cpu-used 8",
        "libx264 -preset ultrafast",
        "mjpeg -pix_fmt yuvj420p",
    ] {
        let (folder, _small) = clip("small.mkv", &format!("-f lavfi -i testsrc2=s=320x180:r=5:d=1 -c:v {codec}"));
        let (other, large) = clip("large.mkv", &format!("-f lavfi -i color=s=5008x3008:r=1:d=1 -c:v {codec}"));
        std::fs::copy(&large, folder.path().join("large.mkv")).expect("room for it");
        let list = folder.path().join("list");
        std::fs::write(&list, "file small.mkv\nfile large.mkv\n").expect("room for it");
        // The container announces the size of the first picture.
        let (both, path) = clip("both.mkv", &format!("-f concat -i {} -c copy", list.display()));
        let (wake, woken) = waker();
        let reason =
            Intake::file(&path, wake).map_err(|error| error.to_string()).and_then(|intake| take(&intake, &woken));
        let reason = reason.map(|taken| taken.pictures.len()).expect_err(codec);
        assert!(reason.contains("5008x3008") && reason.contains("4096x2304"), "{codec}: {reason}");
        drop((other, both));
    }
}

#[test]
fn an_intake_that_is_not_read_waits_and_can_be_dropped() {
    let (_folder, path) = clip("long.mp4", "-f lavfi -i testsrc2=s=320x180:r=25:d=20 -c:v libx264 -preset ultrafast");
    let (wake, woken) = waker();
    let intake = Intake::file(&path, wake).expect("opens");
    while intake.shared.state.lock().pictures.len() < PICTURES_MAX {
        woken.recv_timeout(PATIENCE).expect("pictures");
    }
    assert!(intake.is_settled() && !intake.has_ended() && intake.is_finite());
    assert_eq!((intake.track(Kind::Video), intake.track(Kind::Audio)), (Track::Open, Track::Absent));
    let shared = Arc::downgrade(&intake.shared);
    drop(intake);
    for _ in 0..200 {
        if shared.strong_count() == 0 {
            return;
        }
        let _ = woken.recv_timeout(Duration::from_millis(20));
    }
    panic!("its threads still hold it");
}

#[test]
fn a_pipeline_with_full_queues_changes_its_state() {
    let (_folder, path) = clip("wait.mp4", "-f lavfi -i testsrc2=s=320x180:r=25:d=9 -f lavfi -i sine=d=9 -c:a aac");
    let (wake, woken) = waker();
    let intake = Intake::file(&path, wake).expect("opens");
    let full = |state: &State| state.pictures.len() >= PICTURES_MAX && state.sounds.len() >= SOUNDS_MAX;
    while !full(&intake.shared.state.lock()) {
        woken.recv_timeout(PATIENCE).expect("media");
    }
    let decode = intake.graphs.lock()[0].element("decode").expect("its name");
    let pipeline = decode.parent().and_downcast::<gst::Pipeline>().expect("it is in one");
    let (say, said) = sync_channel(1);
    std::thread::spawn(move || {
        for state in [gst::State::Paused, gst::State::Playing] {
            pipeline.set_state(state).expect("it can");
        }
        say.send(()).expect("it is waited for");
    });
    said.recv_timeout(PATIENCE).expect("it must not wait for its media to be taken");
}

#[test]
fn a_source_between_two_parts_has_not_ended() {
    use Track::{Absent, Between, Ended, Open};
    for (video, audio, ended) in [
        (Absent, Open, false),
        (Absent, Between, false),
        (Between, Between, false),
        (Between, Open, false),
        // The part that follows has no video.
        (Between, Ended, true),
        (Absent, Ended, true),
        (Ended, Ended, true),
    ] {
        let state = State { video, audio, ..State::default() };
        assert_eq!(state.has_ended(), ended, "{video:?}, {audio:?}");
        assert!(!State { unsettled: 1, ..state }.has_ended());
    }
}
