//! Quality (VMAF, SSIM, PSNR), bits and CPU time of encoders, as the tables of docs/encoding.md: for the tiers `low`
//! and `slides` VP8, VP9, H.264 and AV1, and at 360p and 720p the settings among which the server chooses.
//!
//! GStreamer's encoders run in the pipelines of the server, with other values of `cpu-used` and the like; those that
//! Debian 12 does not have run in ffmpeg. All have a keyframe every 10 s. The last two columns are the bits at equal
//! VMAF: those of the line, as a share of those that VP8 needs for the same VMAF with `cpu-used=-12` and `-6`. An
//! argument selects the tables whose name contains it: `cargo bench --bench encoders -- slides`.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod quality;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use commingle::codec;
use commingle::media::Size;
use commingle::time::process_cpu;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSinkCallbacks, AppSrc};

use quality::{Clip, Quality, Studio};

const VP8: &str = include_str!("../pipelines/encode_vp8.gst");
const VP9: &str = include_str!("../pipelines/encode_vp9.gst");
const X264: &str = include_str!("../pipelines/encode_h264.gst");
const OPENH264: &str = include_str!("../pipelines/encode_h264_openh264.gst");

/// One line of a table.
#[derive(Clone)]
struct Encoder {
    name: &'static str,
    setting: String,
    by: By,
}

#[derive(Clone)]
enum By {
    /// A pipeline with the holes of the server's, and how its frames are stored.
    GStreamer(String, Store),
    /// Arguments of ffmpeg, with `{kbps}` and `{keyframe_distance}`.
    Ffmpeg(&'static str),
}

#[derive(Clone, Copy)]
enum Store {
    /// IVF with this code of the codec.
    Ivf([u8; 4]),
    /// H.264 in Annex B.
    AnnexB,
}

/// One encoding of a clip.
struct Point {
    kbps: f64,
    /// CPU time of a frame in milliseconds.
    cost: f64,
    quality: Quality,
}

/// Bitrates of a table in kbit/s: that of its lines, and further ones of the two encoders that others are compared
/// with.
type Rates = (u32, &'static [u32]);

const LOW: [u32; 6] = [60, 80, 100, 160, 200, 250];
const SLIDES: [u32; 6] = [20, 25, 35, 45, 60, 80];

/// Title, bitrates, encoders and clip of a table.
type Table<'a> = (&'a str, Rates, Vec<Encoder>, &'a dyn Fn() -> Clip);

fn main() {
    codec::init().expect("GStreamer and its elements are installed");
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let studio = Studio::open();
    let (low, half, full) = (Size::new(320, 180), Size::new(640, 360), Size::new(1280, 720));
    let tables: [Table<'_>; 6] = [
        ("low, faces", (125, &LOW), thin(), &|| studio.faces(low, 15, 300)),
        ("slides, faces", (30, &SLIDES), thin(), &|| studio.faces(half, 1, 40)),
        ("low, screen", (125, &LOW), screens(), &|| studio.screen(low, 15, 300)),
        ("slides, screen", (30, &SLIDES), screens(), &|| studio.screen(half, 1, 48)),
        ("medium, faces", (500, &[]), full_rate(), &|| studio.faces(half, 30, 300)),
        ("high, faces", (1_500, &[]), full_rate(), &|| studio.faces(full, 30, 150)),
    ];
    for (name, rates, encoders, clip) in tables.into_iter().filter(|(name, ..)| name.contains(&only)) {
        table(&studio, name, rates, &encoders, &clip());
    }
}

/// All settings of the server, and what else could be offered for thin links.
fn thin() -> Vec<Encoder> {
    let mut encoders: Vec<Encoder> = [-12, -6, -4, -3, -2, -1].map(vp8).into();
    encoders.push(Encoder {
        name: "VP8",
        setting: "deadline=0 cpu-used=0".into(),
        by: By::GStreamer(VP8.replace("deadline=1", "deadline=0").replace("{speed}", "0"), Store::Ivf(*b"VP80")),
    });
    encoders.extend([9, 7, 5, 4].map(vp9));
    encoders.extend([1, 2, 5, 7].map(x264));
    encoders.extend(["low", "high"].map(openh264));
    encoders.extend(AV1.map(ffmpeg));
    encoders
}

/// Encoders with and without their modes for shared screens.
fn screens() -> Vec<Encoder> {
    let mut encoders: Vec<Encoder> = [-12, -6, -1].map(vp8).into();
    encoders.extend([7, 4].map(vp9));
    encoders.extend([2, 7].map(x264));
    encoders.extend(SCREEN_MODES.map(ffmpeg));
    encoders
}

fn full_rate() -> Vec<Encoder> {
    let mut encoders: Vec<Encoder> = [-12, -8, -6, -4].map(vp8).into();
    encoders.extend([9, 7].map(vp9));
    encoders.extend([1, 2, 3].map(x264));
    encoders.push(openh264("low"));
    encoders
}

fn vp8(speed: i32) -> Encoder {
    let pipeline = VP8.replace("{speed}", &speed.to_string());
    Encoder { name: "VP8", setting: format!("cpu-used={speed}"), by: By::GStreamer(pipeline, Store::Ivf(*b"VP80")) }
}

fn vp9(speed: i32) -> Encoder {
    let pipeline = VP9.replace("{speed}", &speed.to_string());
    Encoder { name: "VP9", setting: format!("cpu-used={speed}"), by: By::GStreamer(pipeline, Store::Ivf(*b"VP90")) }
}

fn x264(preset: usize) -> Encoder {
    let names = ["", "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"];
    let pipeline = X264.replace("{speed}", &preset.to_string());
    Encoder { name: "H.264 (x264)", setting: names[preset].into(), by: By::GStreamer(pipeline, Store::AnnexB) }
}

fn openh264(complexity: &str) -> Encoder {
    let pipeline = OPENH264.replace("complexity=low", &format!("complexity={complexity}"));
    let setting = format!("complexity={complexity}");
    Encoder { name: "H.264 (OpenH264)", setting, by: By::GStreamer(pipeline, Store::AnnexB) }
}

fn ffmpeg((name, setting, arguments): (&'static str, &str, &'static str)) -> Encoder {
    Encoder { name, setting: setting.into(), by: By::Ffmpeg(arguments) }
}

macro_rules! libvpx {
    ($codec:literal, $more:literal) => {
        concat!(
            "-c:v ",
            $codec,
            " -deadline realtime -threads 1 -b:v {kbps}k -minrate {kbps}k -maxrate {kbps}k -bufsize {kbps}k -qmin 2 \
             -qmax 56 -g {keyframe_distance} -lag-in-frames 0 -auto-alt-ref 0 ",
            $more
        )
    };
}

macro_rules! libaom {
    ($more:literal) => {
        concat!(
            "-c:v libaom-av1 -usage realtime -threads 1 -row-mt 0 -b:v {kbps}k -minrate {kbps}k -maxrate {kbps}k \
             -bufsize {kbps}k -g {keyframe_distance} -lag-in-frames 0 ",
            $more
        )
    };
}

macro_rules! svt {
    ($preset:literal) => {
        concat!(
            "-c:v libsvtav1 -preset ",
            $preset,
            " -svtav1-params rtc=1:pred-struct=1:rc=2:tbr={kbps}:keyint={keyframe_distance}:lp=1:buf-sz=1000:\
             buf-initial-sz=500:buf-optimal-sz=600"
        )
    };
}

const AV1: [(&str, &str, &str); 6] = [
    ("AV1 (libaom)", "cpu-used=8", libaom!("-cpu-used 8")),
    ("AV1 (libaom)", "cpu-used=7", libaom!("-cpu-used 7")),
    ("AV1 (SVT-AV1)", "preset 13", svt!(13)),
    ("AV1 (SVT-AV1)", "preset 12", svt!(12)),
    ("AV1 (SVT-AV1)", "preset 10", svt!(10)),
    ("AV1 (SVT-AV1)", "preset 8", svt!(8)),
];

const SCREEN_MODES: [(&str, &str, &str); 7] = [
    ("VP8 (ffmpeg)", "cpu-used=-6", libvpx!("libvpx", "-cpu-used -6")),
    ("VP8 (ffmpeg)", "cpu-used=-6, screen", libvpx!("libvpx", "-cpu-used -6 -screen-content-mode 1")),
    ("VP8 (ffmpeg)", "cpu-used=-1, screen", libvpx!("libvpx", "-cpu-used -1 -screen-content-mode 1")),
    ("VP9 (ffmpeg)", "cpu-used=7", libvpx!("libvpx-vp9", "-cpu-used 7 -aq-mode 3")),
    ("VP9 (ffmpeg)", "cpu-used=7, screen", libvpx!("libvpx-vp9", "-cpu-used 7 -aq-mode 3 -tune-content screen")),
    ("AV1 (libaom)", "cpu-used=8", libaom!("-cpu-used 8")),
    ("AV1 (libaom)", "cpu-used=8, screen", libaom!("-cpu-used 8 -aom-params tune-content=screen")),
];

fn table(studio: &Studio, name: &str, rates: Rates, encoders: &[Encoder], clip: &Clip) {
    let (rate, further) = rates;
    println!("\n{name}: {} at {} frames per second, {} frames, {rate} kbit/s\n", clip.size, clip.fps, clip.frames);
    let is_compared = !further.is_empty();
    let names = if is_compared { " bits / VP8 -12 | bits / VP8 -6 |" } else { "" };
    println!("| encoder | setting | kbit/s | ms per frame | VMAF | SSIM | PSNR |{names}");
    println!("|---|---|---|---|---|---|---|{}", if is_compared { "---|---|" } else { "" });
    // Reading the clip is no part of the encoder.
    let reading = studio.encode(clip, "-c:v wrapped_avframe -f null", Path::new("-"));
    let at = |encoder: &Encoder, kbps: u32| measure(studio, encoder, kbps, clip, reading);
    // The first two lines are VP8 with -12 and -6.
    let curves: Vec<Vec<(f64, f64)>> = encoders[..2]
        .iter()
        .filter(|_| is_compared)
        .map(|encoder| {
            let points = further.iter().chain([&rate]).map(|kbps| at(encoder, *kbps));
            let mut curve: Vec<(f64, f64)> = points.map(|point| (point.kbps, point.quality.vmaf)).collect();
            curve.sort_by(|a, b| a.0.total_cmp(&b.0));
            curve
        })
        .collect();
    for encoder in encoders {
        let Point { kbps, cost, quality: Quality { vmaf, ssim, psnr } } = at(encoder, rate);
        print!(
            "| {} | {} | {kbps:.0} | {cost:.2} | {vmaf:.1} | {ssim:.3} | {psnr:.1} |",
            encoder.name, encoder.setting
        );
        for curve in &curves {
            print!(" {} |", share(kbps, vmaf, curve));
        }
        println!();
    }
}

/// A bitrate as a share of that which reaches the same VMAF on a curve, interpolated between two of its points.
fn share(kbps: f64, vmaf: f64, curve: &[(f64, f64)]) -> String {
    let (first, last) = (curve[0], curve[curve.len() - 1]);
    if vmaf < first.1 {
        return format!("> {:.2}", kbps / first.0);
    }
    let pair = curve.windows(2).find(|pair| pair[0].1 <= vmaf && vmaf < pair[1].1);
    let Some([below, above]) = pair.and_then(|pair| <[(f64, f64); 2]>::try_from(pair).ok()) else {
        return format!("< {:.2}", kbps / last.0);
    };
    let part = (vmaf - below.1) / (above.1 - below.1);
    format!("{:.2}", kbps / (below.0 * (above.0 / below.0).powf(part)))
}

fn measure(studio: &Studio, encoder: &Encoder, kbps: u32, clip: &Clip, reading: f64) -> Point {
    let (file, bytes, seconds) = match &encoder.by {
        By::GStreamer(pipeline, store) => {
            let frames = encode(pipeline, kbps, clip);
            let bytes = frames.0.iter().map(|frame| frame.len() as u64).sum();
            (keep(studio, &frames.0, *store, clip), bytes, frames.1.as_secs_f64())
        }
        By::Ffmpeg(arguments) => {
            let file = studio.file("encoded.mkv");
            let arguments = arguments
                .replace("{kbps}", &kbps.to_string())
                .replace("{keyframe_distance}", &keyframe_distance(clip).to_string());
            let seconds = studio.encode(clip, &arguments, &file) - reading;
            let bytes = studio.payload(&file);
            (file, bytes, seconds)
        }
    };
    let per_second = f64::from(clip.fps) / clip.frames as f64;
    Point {
        kbps: bytes as f64 * 8.0 * per_second / 1_000.0,
        cost: seconds * 1_000.0 / clip.frames as f64,
        quality: studio.quality(&file, clip),
    }
}

/// Frames from one keyframe to the next: 10 s, as in the server.
const fn keyframe_distance(clip: &Clip) -> u32 {
    10 * clip.fps
}

/// Encodes a clip picture by picture, as the server does. Returns the frames and the CPU time.
fn encode(pipeline: &str, kbps: u32, clip: &Clip) -> (Vec<Vec<u8>>, Duration) {
    let Size { width, height } = clip.size;
    let text: Vec<&str> = pipeline.lines().filter(|line| !line.starts_with('#')).collect();
    let mut text = text.join(" ");
    for (hole, value) in [
        ("{width}", width),
        ("{height}", height),
        ("{fps}", clip.fps),
        ("{queue}", 2),
        ("{threads}", 1),
        ("{keyframe_distance}", keyframe_distance(clip)),
        ("{bitrate_kbps}", kbps),
        ("{bitrate_bps}", kbps * 1_000),
    ] {
        text = text.replace(hole, &value.to_string());
    }
    let pipeline = gst::parse::launch(&text).expect("parses").downcast::<gst::Pipeline>().expect("a pipeline");
    let source = pipeline.by_name("in").expect("named").downcast::<AppSrc>().expect("an appsrc");
    let sink = pipeline.by_name("out").expect("named").downcast::<AppSink>().expect("an appsink");
    let encoded = frames_of(&sink);
    pipeline.set_state(gst::State::Playing).expect("starts");
    let bytes = std::fs::read(&clip.path).expect("just made");
    let before = process_cpu();
    let frames = bytes
        .chunks_exact((width * height * 3 / 2) as usize)
        .zip(0..)
        .map(|(picture, n)| {
            let mut buffer = gst::Buffer::from_slice(picture.to_vec());
            let fields = buffer.get_mut().expect("just made");
            let time = |n: u64| gst::ClockTime::from_nseconds(n * 1_000_000_000 / u64::from(clip.fps));
            fields.set_pts(time(n));
            fields.set_duration(time(1));
            source.push_buffer(buffer).expect("takes it");
            encoded.recv_timeout(Duration::from_secs(60)).expect("one in, one out")
        })
        .collect();
    let took = process_cpu() - before;
    pipeline.set_state(gst::State::Null).expect("ends");
    (frames, took)
}

fn frames_of(sink: &AppSink) -> Receiver<Vec<u8>> {
    let (to, encoded) = sync_channel(4);
    sink.set_callbacks(
        AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let frame =
                    sample.buffer().and_then(|buffer| buffer.map_readable().ok()).ok_or(gst::FlowError::Error)?;
                to.send(frame.to_vec()).map_err(|_| gst::FlowError::Eos)?;
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
    encoded
}

/// Writes frames to a file that ffmpeg reads.
fn keep(studio: &Studio, frames: &[Vec<u8>], store: Store, clip: &Clip) -> PathBuf {
    let (name, mut bytes) = match store {
        Store::AnnexB => ("encoded.h264", Vec::new()),
        Store::Ivf(codec) => {
            let mut header = b"DKIF\0\0\x20\0".to_vec();
            header.extend(codec);
            header.extend((clip.size.width as u16).to_le_bytes());
            header.extend((clip.size.height as u16).to_le_bytes());
            for field in [clip.fps, 1, frames.len() as u32, 0] {
                header.extend(field.to_le_bytes());
            }
            ("encoded.ivf", header)
        }
    };
    for (frame, n) in frames.iter().zip(0_u64..) {
        if let Store::Ivf(_) = store {
            bytes.extend((frame.len() as u32).to_le_bytes());
            bytes.extend(n.to_le_bytes());
        }
        bytes.extend(frame);
    }
    let file = studio.file(name);
    std::fs::write(&file, bytes).expect("disk space");
    file
}
