//! CPU of a whole room: the mixer process, compared with a handmade pipeline and with the floor.
//!
//! Rooms of 2, 4, 9, 16, 25 and 49 cameras (or of the one of these given as an argument): VP8, 640x360, 30 frames per
//! second, 500 kbit/s; composed to 1280x720 and encoded as VP8 with 1500 kbit/s; all send Opus, two of them speak. A
//! room of 16 is measured once more with cameras of 320x180, the size of its tiles, as the page sends them. Each
//! contender is a process of its own (this program with a role):
//! - `mixer`: the mixer process in real time, fed over its link; decodes, composes, encodes once, mixes audio;
//! - `by-hand`: GStreamer: n decoders, `compositor`, one encoder per participant; no audio;
//! - `by-hand-shared`: the same with one encoder for all;
//! - `floor`: n decoders, one encoder fed with finished canvases, n Opus decoders, one Opus encoder.
//!
//! All but the mixer run without clocks as fast as they can, and count CPU time per frame: two cores are too few for
//! nine encoders in real time.
#![allow(clippy::print_stdout)]

mod picture;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bytes::Bytes;
use commingle::codec::sound::{OpusEncoder, OpusSettings, SoundDecoder};
use commingle::codec::{
    self, DecodeLimits, Effort, EncodeSpec, EncodedFrame, H264Encoder, Payloader, Picture, PictureMut, VideoDecoder,
    VideoEncoder,
};
use commingle::id::{ParticipantId, SourceId, ViewName};
use commingle::layout::{Arranger, Attendance, LayoutKind, ObjectFit, Scene, Style, Tile};
use commingle::link::frame::{Decoder, encode_into};
use commingle::link::{FromMixer, MixerReport, MixerSettings, ToMixer, child};
use commingle::media::{
    AUDIO_TICK_SAMPLES, Codec, EncodedPacket, Rect, Size, SoundQuality, Sounds, SourceKind, SourcePacket, StreamKey,
    Tier,
};
use commingle::mixer;
use commingle::plan::{Listener, MixInput, MixPlan, SourceSpec, StreamSet, StreamSpec};
use commingle::time::{self, Timestamp, now};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSrc;

use picture::moving;

const CANVAS: Size = Size::new(1280, 720);
const CAMERA: Size = Size::new(640, 360);
const SMALL_CAMERA: Size = Size::new(320, 180);
const FPS: u32 = 30;
/// Frames of a camera before it repeats from its keyframe.
const LOOP: u64 = 90;
const WARM_UP: u64 = 60;
const MEASURED: u64 = 300;
const ROLE: &str = "COMMINGLE_BENCH_ROLE";
/// Microphones with speech; the others send silence.
const TALKERS: u32 = 2;

/// A room: its cameras, and their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    count: u32,
    camera: Size,
}

impl std::fmt::Display for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.count, if self.camera == CAMERA { "" } else { "-at-tile-size" })
    }
}

const ROOMS: [Room; 7] = [
    Room { count: 2, camera: CAMERA },
    Room { count: 4, camera: CAMERA },
    Room { count: 9, camera: CAMERA },
    Room { count: 16, camera: CAMERA },
    Room { count: 16, camera: SMALL_CAMERA },
    Room { count: 25, camera: CAMERA },
    Room { count: 49, camera: CAMERA },
];

fn main() {
    let role = std::env::var(ROLE).unwrap_or_default();
    let (role, room) = role.split_once(' ').unwrap_or_default();
    let Some(room) = ROOMS.into_iter().find(|known| known.to_string() == room) else { return compare() };
    match role {
        "mixer" => mixer::run_process(child::link_on_stdin().expect("a socket")).expect("the link ends well"),
        "by-hand" => by_hand(room, room.count),
        "by-hand-shared" => by_hand(room, 1),
        "floor" => floor(room),
        _ => panic!("no role is named {role}"),
    }
}

fn compare() {
    codec::init().expect("installed");
    let only: Option<u32> = std::env::args().find_map(|argument| argument.parse().ok());
    for room in ROOMS.into_iter().filter(|room| only.is_none_or(|only| only == room.count)) {
        let ours = of_mixer(room);
        println!("room-{room}-mixer: {ours:.3} cores");
        for role in ["by-hand", "by-hand-shared", "floor"] {
            let theirs = of_child(role, room);
            println!("room-{room}-{role}: {theirs:.3} cores");
            println!("room-{room}-mixer/{role}: {:.2}", ours / theirs);
        }
    }
}

fn child(role: &str, room: Room) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("our path"));
    command.env(ROLE, format!("{role} {room}"));
    command
}

/// Runs a role in a child process, which prints its CPU time.
fn of_child(role: &str, room: Room) -> f64 {
    let output = child(role, room).stderr(Stdio::inherit()).output().expect("it runs");
    String::from_utf8(output.stdout).expect("text").trim().parse().expect("a number")
}

/// Runs `work`, which processes [`MEASURED`] frames as fast as possible, and prints the cores needed for 30 per second.
fn measured(work: impl FnOnce()) {
    let before = time::process_cpu();
    work();
    let cpu = (time::process_cpu() - before).as_secs_f64();
    println!("{}", cpu / MEASURED as f64 * f64::from(FPS));
}

/// Waits for frame `n`.
fn pace(begun: Timestamp, n: u64) {
    let due = begun + Duration::from_micros(n * 1_000_000 / u64::from(FPS));
    loop {
        let left = due.since(now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}

fn encoder_spec(size: Size, bitrate_kbps: u32) -> EncodeSpec {
    EncodeSpec {
        codec: Codec::Vp8,
        size,
        fps: FPS,
        bitrate_kbps,
        h264: H264Encoder::X264,
        threads: 1,
        effort: Effort::Good,
    }
}

/// The frames of one camera.
fn camera(size: Size) -> Vec<EncodedFrame> {
    let (to, from) = sync_channel(4);
    let sink = move |frame| to.send(frame).expect("it waits");
    let bitrate_kbps = if size == CAMERA { 500 } else { 150 };
    let mut encoder = VideoEncoder::new(encoder_spec(size, bitrate_kbps), sink).expect("installed");
    (0..LOOP)
        .map(|n| {
            assert!(encoder.push(&moving(size, n), Duration::from_micros(n * 33_333), n == 0));
            from.recv().expect("one in, one out")
        })
        .collect()
}

/// One second of audio in packets of 20 ms.
fn microphone(talks: bool) -> Vec<Bytes> {
    let mut encoder = OpusEncoder::new(OpusSettings::default());
    let loud = if talks { 0.2 } else { 0.0 };
    let sample = |i: usize| {
        let t = i as f32 / 48_000.0;
        let syllable = 0.5 + 0.5 * (t * std::f32::consts::TAU * 3.0).sin();
        (1..9).map(|k| (t * std::f32::consts::TAU * 150.0 * k as f32).sin() / k as f32).sum::<f32>() * syllable * loud
    };
    (0..50)
        .map(|n| std::array::from_fn(|i| sample(n * AUDIO_TICK_SAMPLES + i)))
        .map(|tick| encoder.encode(&tick).expect("samples are fine"))
        .collect()
}

fn tiles(count: u32) -> Vec<Rect> {
    let keys: Vec<_> = (0..count).map(|i| (ParticipantId(i), SourceKind::Camera)).collect();
    let attendance = Attendance { cells: &keys, speaker: None };
    let arrangement = Arranger::default().arrange(&LayoutKind::Grid.into(), CANVAS, &attendance);
    arrangement.placed.into_iter().map(|placed| placed.rect).collect()
}

/// Feeds a mixer process over its link and reads the CPU time it reports.
fn of_mixer(room: Room) -> f64 {
    let Room { count, camera: size } = room;
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let mut process = child("mixer", room).stdin(Stdio::from(OwnedFd::from(theirs))).spawn().expect("it starts");
    let mut link = ours.try_clone().expect("a socket");
    let mut bytes = Vec::new();
    for message in orders(count) {
        encode_into(&message, &mut bytes).expect("short enough");
    }
    link.write_all(&bytes).expect("it reads");
    let (to, reports) = sync_channel(1000);
    let listener = std::thread::spawn(move || listen(ours, |report| to.try_send((now(), report)).expect("room")));

    let frames = camera(size);
    let mut payloader = Payloader::new(Codec::Vp8);
    let video: Vec<Vec<EncodedPacket>> = frames.iter().map(|frame| payloader.packets(frame, 0)).collect();
    let sounds = [microphone(true), microphone(false)];
    let mut sequences: BTreeMap<u32, u16> = BTreeMap::new();
    let begun = now();
    let mut sound = 0;
    let mut measured_from = begun;
    for n in 0..WARM_UP + MEASURED {
        pace(begun, n);
        if n == WARM_UP {
            measured_from = now();
        }
        bytes.clear();
        let mut send = |source: u32, timestamp: u64, marker: bool, payload: &Bytes| {
            let sequence = sequences.entry(source).or_default();
            *sequence = sequence.wrapping_add(1);
            let packet = SourcePacket {
                sequence: *sequence,
                timestamp: timestamp as u32,
                marker,
                arrival: now(),
                captured: None,
                audio_level: None,
                rotation: None,
                colours: None,
                payload: payload.clone(),
            };
            encode_into(&ToMixer::Packet(SourceId(source), packet), &mut bytes).expect("short enough");
        };
        for i in 0..count {
            for packet in &video[(n % LOOP) as usize] {
                send(i, n * 3000, packet.marker, &packet.payload);
            }
        }
        while sound * 20 <= n * 1000 / u64::from(FPS) {
            for i in 0..count {
                let packets = &sounds[usize::from(i >= TALKERS)];
                send(100 + i, sound * 960, false, &packets[(sound % 50) as usize]);
            }
            sound += 1;
        }
        link.write_all(&bytes).expect("it reads");
    }
    link.shutdown(std::net::Shutdown::Both).expect("open until now");
    assert!(process.wait().expect("it ran").success());
    listener.join().expect("it listens");
    let reports: Vec<(Timestamp, MixerReport)> = reports.try_iter().filter(|(at, _)| *at > measured_from).collect();
    let ((from, first), (until, last)) = (reports[0], reports[reports.len() - 1]);
    let wall = until.since(from).as_secs_f64();
    let frames = (last.encoded - first.encoded) as f64 / wall / f64::from(FPS);
    let verdict = if frames < 0.95 { " (the machine was too busy: measure again)" } else { "" };
    println!("room-{room}-mixer-frames: {:.0} % of those due{verdict}", 100.0 * frames);
    println!("room-{room}-mixer-late: {} of {} ticks", last.video_late, last.video_ticks);
    println!(
        "room-{room}-mixer-opus: {:.0} encodes a second",
        (last.audio_encoded - first.audio_encoded) as f64 / wall
    );
    println!("room-{room}-mixer-rss: {} MiB", last.rss_kib / 1024);
    (last.cpu_ms - first.cpu_ms) as f64 / 1000.0 / wall
}

fn listen(mut link: UnixStream, mut reported: impl FnMut(MixerReport)) {
    let (mut decoder, mut bytes) = (Decoder::default(), vec![0; 1 << 16]);
    while let Ok(length) = link.read(&mut bytes)
        && length > 0
    {
        decoder.extend(&bytes[..length]);
        while let Some(message) = decoder.next_message().expect("well formed") {
            if let FromMixer::Report(report) = message {
                reported(report);
            }
        }
    }
}

fn orders(count: u32) -> Vec<ToMixer> {
    let spec = |source, participant, kind, codec| {
        let (source, participant) = (SourceId(source), ParticipantId(participant));
        ToMixer::Source(SourceSpec { source, participant, kind, codec })
    };
    let tiles = tiles(count).into_iter().zip(0..).map(|(rect, i)| Tile {
        participant: ParticipantId(i),
        kind: SourceKind::Camera,
        source: Some(SourceId(i)),
        rect,
        fit: ObjectFit::Auto,
        label: format!("Participant {i}"),
        initials: "P".into(),
        avatar: None,
        speaking: i == 0,
        muted: false,
        poor_connection: false,
        hand_raised: false,
        reaction: None,
    });
    let (view, style) = (ViewName::program(), Style::default());
    let scene = Scene { view, canvas: CANVAS, fps: FPS, tiles: tiles.collect(), more: None, style };
    let key = StreamKey { view: ViewName::program(), codec: Codec::Vp8, tier: Tier::High };
    let stream = StreamSpec { serial: 1, key, size: CANVAS, fps: FPS, bitrate_kbps: 1500, steady: false };
    let mut orders = vec![ToMixer::Configure(MixerSettings {
        room: "bench".parse().expect("a name"),
        epoch: now(),
        max_source: Size::new(1920, 1080),
        openh264: false,
        transition_ms: 0,
        filter_budget: Duration::from_millis(20),
        threads: 2,
        sounds: Sounds::default(),
    })];
    orders.extend((0..count).map(|i| spec(i, i, SourceKind::Camera, Codec::Vp8)));
    orders.extend((0..count).map(|i| spec(100 + i, i, SourceKind::Microphone, Codec::Opus)));
    orders.push(ToMixer::Mix(MixPlan {
        sources: (0..count).map(|i| MixInput { source: SourceId(100 + i), gain_db: 0.0 }).collect(),
        listeners: (0..count)
            .map(|i| Listener { participant: ParticipantId(i), quality: SoundQuality::Full })
            .collect(),
        outputs: false,
    }));
    orders.push(ToMixer::Scene(scene));
    orders.push(ToMixer::Streams(StreamSet { streams: vec![stream] }));
    orders
}

/// The straightforward pipeline.
fn by_hand(Room { count, camera: size }: Room, encoders: u32) {
    codec::init().expect("installed");
    let mut text = String::from("compositor name=mix background=black");
    for (i, Rect { x, y, width, height }) in tiles(count).into_iter().enumerate() {
        write!(text, " sink_{i}::xpos={x} sink_{i}::ypos={y} sink_{i}::width={width} sink_{i}::height={height}")
            .expect("a String takes every write");
    }
    text += " ! video/x-raw,format=I420,width=1280,height=720,framerate=30/1 ! tee name=canvas";
    for i in 0..count {
        write!(
            text,
            " appsrc name=in{i} format=time block=true max-buffers=4 max-bytes=0 \
             caps=video/x-vp8,width={},height={},framerate=30/1 ! vp8dec threads=1 ! queue ! mix.sink_{i}",
            size.width, size.height
        )
        .expect("a String takes every write");
    }
    for i in 0..encoders {
        write!(
            text,
            " canvas. ! queue ! vp8enc deadline=1 cpu-used=-12 threads=1 end-usage=cbr target-bitrate=1500000 \
             min-quantizer=2 max-quantizer=56 undershoot=100 overshoot=15 buffer-size=1000 buffer-initial-size=500 \
             buffer-optimal-size=600 max-intra-bitrate=900 keyframe-max-dist=300 lag-in-frames=0 static-threshold=1 \
             ! fakesink name=out{i} sync=false async=false"
        )
        .expect("a String takes every write");
    }
    let pipeline = gst::parse::launch(&text).expect("parses").downcast::<gst::Pipeline>().expect("a pipeline");
    let frames = Arc::new(AtomicU64::new(0));
    let counted = frames.clone();
    let sink = pipeline.by_name("out0").expect("named").static_pad("sink").expect("a sink has one");
    sink.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
    let sources: Vec<AppSrc> = (0..count)
        .map(|i| pipeline.by_name(&format!("in{i}")).expect("named").downcast().expect("an appsrc"))
        .collect();
    let coded = camera(size);
    pipeline.set_state(gst::State::Playing).expect("starts");
    measured(|| {
        for n in 0..MEASURED {
            for source in &sources {
                let frame = &coded[(n % LOOP) as usize];
                let mut buffer = gst::Buffer::from_slice(frame.data.clone());
                let fields = buffer.get_mut().expect("just made");
                fields.set_pts(gst::ClockTime::from_useconds(n * 33_333));
                fields.set_duration(gst::ClockTime::from_useconds(33_333));
                if !frame.keyframe {
                    fields.set_flags(gst::BufferFlags::DELTA_UNIT);
                }
                source.push_buffer(buffer).expect("takes it");
            }
        }
        for source in &sources {
            source.end_of_stream().expect("ends");
        }
        let bus = pipeline.bus().expect("has one");
        let ends = [gst::MessageType::Eos, gst::MessageType::Error];
        let end = bus.timed_pop_filtered(gst::ClockTime::from_seconds(300), &ends).expect("ends in time");
        assert_eq!(end.type_(), gst::MessageType::Eos, "{end:?}");
    });
    let came = frames.load(Ordering::Relaxed);
    assert!(came.abs_diff(MEASURED) < 10, "{came} of {MEASURED} canvases were encoded");
    pipeline.set_state(gst::State::Null).expect("ends");
}

/// The minimum: each camera decoded once, one canvas encoded once; and the same for audio.
fn floor(Room { count, camera: size }: Room) {
    codec::init().expect("installed");
    let coded = camera(size);
    let canvases: Vec<Picture> = canvases(count, size);
    let (to, encoded) = sync_channel(4);
    let sink = move |_| to.send(()).expect("it waits");
    let mut encoder = VideoEncoder::new(encoder_spec(CANVAS, 1500), sink).expect("installed");
    let (to, decoded) = sync_channel(2 * count as usize);
    let decoder = |_| {
        let to = to.clone();
        let sink = move |_| to.send(()).expect("it waits");
        VideoDecoder::new(Codec::Vp8, DecodeLimits::default(), sink).expect("installed")
    };
    let mut decoders: Vec<VideoDecoder> = (0..count).map(decoder).collect();
    let sounds = [microphone(true), microphone(false)];
    let mut ears: Vec<SoundDecoder> = (0..count).map(|_| SoundDecoder::new(Codec::Opus).expect("sound")).collect();
    let mut mouth = OpusEncoder::new(OpusSettings::default());
    let mut sound = 0;
    measured(|| {
        for n in 0..MEASURED {
            for decoder in &mut decoders {
                let data = coded[(n % LOOP) as usize].data.clone();
                decoder.push(data, Timestamp::from_micros(n * 33_333)).expect("one at a time");
            }
            assert!(encoder.push(&canvases[(n % LOOP) as usize], Duration::from_micros(n * 33_333), false));
            while sound * 20 <= n * 1000 / u64::from(FPS) {
                let mut mix = [0.0; AUDIO_TICK_SAMPLES];
                for (i, ear) in ears.iter_mut().enumerate() {
                    let packets = &sounds[usize::from(i >= TALKERS as usize)];
                    let heard = ear.decode(&packets[(sound % 50) as usize]).expect("opus");
                    mix.iter_mut().zip(heard).for_each(|(mix, heard)| *mix += heard);
                }
                mouth.encode(&mix);
                sound += 1;
            }
            (0..count).for_each(|_| decoded.recv().expect("one in, one out"));
            encoded.recv().expect("one in, one out");
        }
    });
}

/// Canvases of such a room.
fn canvases(count: u32, size: Size) -> Vec<Picture> {
    let rects = tiles(count);
    (0..LOOP)
        .map(|n| {
            let camera = moving(size, n);
            let mut canvas = PictureMut::new(CANVAS);
            for rect in &rects {
                let mut tile = PictureMut::new(rect.size());
                codec::scale::scale(&camera, &mut tile);
                let tile = tile.freeze();
                let (planes, strides) = canvas.planes();
                for i in 0..3 {
                    let by = if i == 0 { 1 } else { 2 };
                    let (from, stride) = tile.plane(i);
                    let (x, y, width) = ((rect.x / by) as usize, (rect.y / by) as usize, (rect.width / by) as usize);
                    for row in 0..(rect.height / by) as usize {
                        let at = (y + row) * strides[i] + x;
                        planes[i][at..at + width].copy_from_slice(&from[row * stride..row * stride + width]);
                    }
                }
            }
            canvas.freeze()
        })
        .collect()
}
