//! CPU time of composing, encoding and decoding, of the whole process, in lines `name: value`.
//!
//! The compositor is compared with GStreamer's `compositor` and with ffmpeg's `scale` and `xstack` in the same run:
//! n x n cameras at 30 frames per second composed to 1280x720, with every frame new, from 640x360 and in the size of
//! their tiles. Ours includes scaling of every frame on arrival; ffmpeg's does not include reading the cameras. An
//! argument selects a part: `2x2` to `7x7`, `views`, `decorations` or `codecs`.
#![allow(clippy::print_stdout)]

mod picture;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use commingle::codec::{
    self, DecodeLimits, Decoded, Effort, EncodeSpec, EncodedFrame, H264Encoder, Picture, VideoDecoder, VideoEncoder,
};
use commingle::id::{ParticipantId, SourceId, ViewName};
use commingle::layout::{Arranger, Attendance, LayoutKind, ObjectFit, Scene, Style, Tile};
use commingle::media::{Codec, Look, Rect, Size, SourceKind};
use commingle::mixer::compose::{Compositor, FrameSlot};
use commingle::time::Timestamp;
use gstreamer as gst;
use gstreamer::prelude::*;

use picture::moving;

const CANVAS: Size = Size::new(1280, 720);
const CAMERA: Size = Size::new(640, 360);
const PHONE: Size = Size::new(360, 640);
const FRAMES: u64 = 150;

/// CPU time of all threads of this process.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The minimum of three runs: other load on the machine only adds time.
fn least(run: impl Fn() -> f64) -> f64 {
    (0..3).map(|_| run()).fold(f64::INFINITY, f64::min)
}

fn per_frame(work: impl FnOnce()) -> f64 {
    let before = cpu();
    work();
    (cpu() - before).as_secs_f64() * 1000.0 / FRAMES as f64
}

/// Cells of one size, placed like the grid layout, so that all compositors draw the same.
fn cells(side: u32) -> Vec<Rect> {
    grid(&(0..side * side).collect::<Vec<_>>()).into_iter().map(|(_, rect)| rect).collect()
}

/// The cameras of a grid with their places.
fn grid(cameras: &[u32]) -> Vec<(u32, Rect)> {
    let keys: Vec<_> = cameras.iter().map(|i| (ParticipantId(*i), SourceKind::Camera)).collect();
    let attendance = Attendance { cells: &keys, speaker: None };
    let arrangement = Arranger::default().arrange(&LayoutKind::Grid.into(), CANVAS, &attendance);
    arrangement.placed.into_iter().map(|placed| (placed.key.0.0, placed.rect)).collect()
}

/// What our compositor draws.
#[derive(Clone, Copy)]
struct Ours<'a> {
    side: u32,
    pictures: &'a [Picture],
    kind: SourceKind,
    decorated: bool,
    /// The first shows all cameras, the others all but one each, as participants that do not see themselves.
    views: u32,
}

fn ours(Ours { side, pictures, kind, decorated, views }: Ours<'_>) -> f64 {
    let all: Vec<u32> = (0..side * side).collect();
    let slot = |i: &u32| (SourceId(*i), Arc::new(FrameSlot::new(kind)));
    let slots: HashMap<_, _> = all.iter().map(slot).collect();
    let view = |view: u32| {
        let seen: Vec<u32> = all.iter().copied().filter(|camera| view == 0 || *camera != view - 1).collect();
        let tiles = grid(&seen).into_iter().map(|(i, rect)| Tile {
            participant: ParticipantId(i),
            kind,
            source: Some(SourceId(i)),
            rect,
            fit: ObjectFit::Auto,
            label: if decorated { format!("Participant {i}") } else { String::new() },
            initials: "P".into(),
            avatar: None,
            speaking: decorated && i == 1,
            muted: decorated && i % 3 == 0,
            poor_connection: false,
            hand_raised: false,
            reaction: None,
        });
        let (view, style) = (ViewName::program(), Style::default());
        let scene = Scene { view, canvas: CANVAS, fps: 30, tiles: tiles.collect(), more: None, style };
        let mut compositor = Compositor::new(None);
        compositor.set_scene(&scene);
        compositor
    };
    let mut compositors: Vec<Compositor> = (0..views).map(view).collect();
    let mut tick = |frame: u64| {
        let now = Timestamp::from_micros(frame * 33_333);
        for (i, slot) in slots.values().enumerate() {
            slot.writer().put(pictures[(frame as usize + i) % pictures.len()].clone(), Look::default(), now);
        }
        for compositor in &mut compositors {
            assert!(compositor.compose(now, &slots).changed);
        }
    };
    (0..10).for_each(&mut tick);
    per_frame(|| (10..10 + FRAMES).for_each(&mut tick))
}

/// ffmpeg's `scale` and `xstack` on one thread, without the time to read the cameras; None if there is no ffmpeg.
fn ffmpegs(side: u32, pictures: &[Picture]) -> Option<f64> {
    let (size, file) = (pictures[0].size(), tempfile::NamedTempFile::new().expect("a temporary folder"));
    let bytes: Vec<u8> = pictures.iter().flat_map(raw).collect();
    std::fs::write(file.path(), bytes).expect("room for thirty pictures");
    let run = |outputs: &[String]| {
        let mut command = Command::new("ffmpeg");
        command.args(["-hide_banner", "-benchmark", "-filter_complex_threads", "1"]);
        for _ in 0..side * side {
            let side = format!("{}x{}", size.width, size.height);
            command.args(["-threads", "1", "-stream_loop", "-1", "-f", "rawvideo", "-pixel_format", "yuv420p"]);
            command.args(["-video_size", &side, "-framerate", "30", "-i"]).arg(file.path());
        }
        command.args(outputs).args(["-frames:v", &FRAMES.to_string(), "-f", "null", "-"]);
        let output = command.output().ok()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let seconds = |name: &str| -> Option<f64> {
            let line = text.lines().find(|line| line.starts_with("bench: utime="))?;
            line.split_once(name)?.1.split('s').next()?.parse().ok()
        };
        Some((seconds("utime=")? + seconds("stime=")?) * 1000.0 / FRAMES as f64)
    };
    let mut filters = String::new();
    for (i, Rect { width, height, .. }) in cells(side).into_iter().enumerate() {
        write!(filters, "[{i}:v]scale={width}:{height}:flags=fast_bilinear[s{i}];").expect("a String takes all");
    }
    (0..side * side).for_each(|i| write!(filters, "[s{i}]").expect("a String takes all"));
    let places: Vec<String> = cells(side).iter().map(|Rect { x, y, .. }| format!("{x}_{y}")).collect();
    write!(filters, "xstack=inputs={}:layout={}[all]", side * side, places.join("|")).expect("a String takes all");
    let composing = run(&["-filter_complex".into(), filters, "-map".into(), "[all]".into()])?;
    let maps: Vec<String> = (0..side * side).flat_map(|i| ["-map".into(), format!("{i}:v")]).collect();
    Some(composing - run(&maps)?)
}

fn raw(picture: &Picture) -> Vec<u8> {
    let mut bytes = Vec::new();
    (0..3).for_each(|plane| bytes.extend_from_slice(picture.plane(plane).0));
    bytes
}

/// GStreamer's `compositor`, fed with the same pictures without a decoder, as fast as possible.
fn gstreamers(side: u32, pictures: &[Picture]) -> f64 {
    let mut description = String::from("compositor name=mix background=black");
    for (i, Rect { x, y, width, height }) in cells(side).into_iter().enumerate() {
        write!(description, " sink_{i}::xpos={x} sink_{i}::ypos={y} sink_{i}::width={width} sink_{i}::height={height}")
            .expect("a String takes every write");
    }
    write!(description, " ! video/x-raw,format=I420,width=1280,height=720,framerate=30/1 ! fakesink sync=false")
        .expect("a String takes every write");
    for i in 0..side * side {
        write!(
            description,
            " appsrc name=in{i} format=time block=true max-buffers=4 max-bytes=0 \
             caps=video/x-raw,format=I420,width={},height={},framerate=30/1 ! mix.sink_{i}",
            pictures[0].size().width,
            pictures[0].size().height,
        )
        .expect("a String takes every write");
    }
    let pipeline = gst::parse::launch(&description).expect("parses").downcast::<gst::Pipeline>().expect("a pipeline");
    let raw: Arc<Vec<gst::Buffer>> =
        Arc::new(pictures.iter().map(|picture| gst::Buffer::from_slice(raw(picture))).collect());
    pipeline.set_state(gst::State::Playing).expect("starts");
    let result = per_frame(|| {
        let feeders: Vec<_> = (0..side * side)
            .map(|i| {
                let source = pipeline.by_name(&format!("in{i}")).expect("named");
                let source = source.downcast::<gstreamer_app::AppSrc>().expect("an appsrc");
                let raw = raw.clone();
                std::thread::spawn(move || {
                    for frame in 0..FRAMES {
                        // Copies of a buffer share its memory.
                        let mut buffer = raw[(frame as usize + i as usize) % raw.len()].copy();
                        let fields = buffer.get_mut().expect("just copied");
                        fields.set_pts(gst::ClockTime::from_useconds(frame * 33_333));
                        fields.set_duration(gst::ClockTime::from_useconds(33_333));
                        source.push_buffer(buffer).expect("takes it");
                    }
                    source.end_of_stream().expect("ends");
                })
            })
            .collect();
        feeders.into_iter().for_each(|feeder| feeder.join().expect("feeds"));
        let bus = pipeline.bus().expect("has one");
        let ends = [gst::MessageType::Eos, gst::MessageType::Error];
        let end = bus.timed_pop_filtered(gst::ClockTime::from_seconds(120), &ends).expect("ends in time");
        assert_eq!(end.type_(), gst::MessageType::Eos, "{end:?}");
    });
    pipeline.set_state(gst::State::Null).expect("ends");
    result
}

fn encode(spec: EncodeSpec, pictures: &[Picture]) -> (f64, Vec<EncodedFrame>) {
    let (sender, frames) = sync_channel(4);
    let mut encoder = VideoEncoder::new(spec, move |frame| {
        let _ = sender.try_send(frame);
    })
    .expect("installed");
    let mut coded = Vec::new();
    let cost = per_frame(|| {
        for frame in 0..FRAMES {
            let picture = &pictures[frame as usize % pictures.len()];
            assert!(encoder.push(picture, Duration::from_micros(frame * 33_333), false));
            coded.push(frames.recv_timeout(Duration::from_secs(10)).expect("one in, one out"));
        }
    });
    (cost, coded)
}

fn decode(codec: Codec, frames: &[EncodedFrame]) -> f64 {
    let (sender, pictures) = sync_channel(4);
    let mut decoder = VideoDecoder::new(codec, DecodeLimits::default(), move |decoded| {
        let _ = sender.try_send(matches!(decoded, Decoded::Picture { .. }));
    })
    .expect("installed");
    per_frame(|| {
        for (i, frame) in frames.iter().enumerate() {
            decoder.push(frame.data.clone(), Timestamp::from_micros(i as u64 * 33_333)).expect("taken");
            assert!(pictures.recv_timeout(Duration::from_secs(10)).expect("one in, one out"));
        }
    })
}

fn plain(side: u32, pictures: &[Picture], views: u32) -> f64 {
    least(|| ours(Ours { side, pictures, kind: SourceKind::Camera, decorated: false, views }))
}

fn main() {
    codec::init().expect("GStreamer and its elements are installed");
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let wanted = |part: &str| part.contains(&only);
    let cameras: Vec<Picture> = (0..30).map(|frame| moving(CAMERA, frame)).collect();
    for side in (2..=7).filter(|side| wanted(&format!("{side}x{side}"))) {
        beside_others(side, &cameras);
    }
    if wanted("views") {
        views(&cameras);
    }
    if wanted("decorations") {
        decorations(&cameras);
    }
    if wanted("codecs") {
        codecs(&cameras);
    }
}

fn beside_others(side: u32, cameras: &[Picture]) {
    let tile = cells(side)[0].size();
    let exact: Vec<Picture> = (0..30).map(|frame| moving(tile, frame)).collect();
    for (pictures, what) in [(cameras, "640x360".to_owned()), (&exact, format!("exact tile sizes ({tile})"))] {
        let (own, theirs) = (plain(side, pictures, 1), least(|| gstreamers(side, pictures)));
        print!(
            "compose {side}x{side}, {what}: {own:.3} ms CPU a frame; GStreamer's compositor {theirs:.3}, ratio {:.3} \
             (1/{:.1})",
            own / theirs,
            theirs / own
        );
        match ffmpegs(side, pictures) {
            Some(ffmpeg) => println!("; ffmpeg {ffmpeg:.3}, ratio {:.3}", own / ffmpeg),
            None => println!("; ffmpeg is not installed"),
        }
    }
}

/// What personal views cost: everybody's own view shows all but that person.
fn views(cameras: &[Picture]) {
    let [one, three, nine] = [1, 3, 9].map(|views| plain(3, cameras, views));
    println!(
        "compose 3x3, views of one room: one {one:.3} ms CPU a frame, three {three:.3} (ratio {:.2}), nine {nine:.3} \
         (ratio {:.2})",
        three / one,
        nine / one
    );
}

fn decorations(cameras: &[Picture]) {
    let one = plain(3, cameras, 1);
    let decorated =
        least(|| ours(Ours { side: 3, pictures: cameras, kind: SourceKind::Camera, decorated: true, views: 1 }));
    println!("compose 3x3 with names: {decorated:.3} ms CPU a frame; ratio {:.3}", decorated / one);
    // Both are contained in their tiles; only cameras have a backdrop.
    let phones: Vec<Picture> = (0..30).map(|frame| moving(PHONE, frame)).collect();
    let [backdrop, bars] = [SourceKind::Camera, SourceKind::Screen]
        .map(|kind| least(|| ours(Ours { side: 3, pictures: &phones, kind, decorated: false, views: 1 })));
    println!(
        "compose 3x3 in portrait: {backdrop:.3} ms CPU a frame; {bars:.3} without backdrops; ratio {:.3}",
        backdrop / bars
    );
}

fn codecs(cameras: &[Picture]) {
    let canvases: Vec<Picture> = (0..60).map(|frame| moving(CANVAS, frame)).collect();
    let choices = [
        (Codec::Vp8, H264Encoder::X264, "VP8"),
        (Codec::Vp9, H264Encoder::X264, "VP9"),
        (Codec::H264, H264Encoder::X264, "H.264 x264"),
        (Codec::H264, H264Encoder::OpenH264, "H.264 OpenH264"),
    ];
    let efforts = [Effort::Fast, Effort::Good];
    for ((codec, h264, name), effort) in choices.into_iter().flat_map(|choice| efforts.map(|effort| (choice, effort))) {
        for (size, bitrate_kbps, pictures) in [(CANVAS, 1500, &canvases[..]), (CAMERA, 500, cameras)] {
            let (encoding, frames) =
                encode(EncodeSpec { codec, size, fps: 30, bitrate_kbps, h264, threads: 1, effort }, pictures);
            let bytes: usize = frames.iter().map(|frame| frame.data.len()).sum();
            let kbps = bytes as f64 * 8.0 * 30.0 / FRAMES as f64 / 1000.0;
            let decoding = decode(codec, &frames);
            println!(
                "{name} {effort:?} {size}: encode {encoding:.2} ms CPU a frame ({kbps:.0} kbit/s), decode {decoding:.2}"
            );
        }
    }
}
