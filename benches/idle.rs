//! The cost of rooms of one participant with the camera off, and of nine cameras that film a still picture, as a ratio
//! to nine moving cameras in the same run. Aims: 3 ms of CPU time per second and 25 MB for an idle room; a quarter of
//! the cost of nine moving cameras. Beside them stands the floor of nine still cameras: GStreamer decodes as many
//! frames of a still picture at the same bitrate, and does nothing else.
//!
//! Bots in this process send silence, and receive the mix. The number of idle rooms may be given as an argument.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod picture;
#[path = "../tests/e2e/server.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod server;

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use commingle::bots::{BotPool, Camera, Plan, Scene};
use commingle::codec::{self, Effort, EncodeSpec, EncodedFrame, H264Encoder, VideoEncoder};
use commingle::media::Codec;
use commingle::time::{now, process_cpu};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSrc;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use server::{Server, cpu_seconds};

const ROOMS: usize = 50;
/// From the last join to the measurement: pictures are refined for 4 s, encoders are kept for 20 s more.
const SETTLE: Duration = Duration::from_secs(30);
const MEASURED: Duration = Duration::from_secs(10);
/// What a bot's camera sends, in kbit/s.
const CAMERA_KBPS: u32 = 622;

/// What a server costs: cores of the mixers and of the edge, and memory of a mixer in MB.
#[derive(Debug, Clone, Copy)]
struct Cost {
    mixers: f64,
    edge: f64,
    mixer_memory: f64,
}

fn main() {
    let rooms = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(ROOMS);
    let runtime = Runtime::new().expect("a runtime");
    let off = Camera { scene: Scene::Off, ..Camera::default() };
    let idle = measure(&runtime, rooms, 1, off);
    let one = measure(&runtime, 1, 1, Camera::default());
    let each = |cores: f64| cores / rooms as f64 * 1_000.0;
    println!(
        "{rooms} idle rooms: {:.2} ms/s each, {:.2} in the mixer and {:.2} in the edge (aim: 3 together); {:.1} MB \
         each (aim: 25)",
        each(idle.mixers + idle.edge),
        each(idle.mixers),
        each(idle.edge),
        idle.mixer_memory,
    );
    let ratio = (idle.mixers + idle.edge) / rooms as f64 / (one.mixers + one.edge);
    println!("an idle room costs {ratio:.3} times as much as a room of one moving camera");

    let moving = measure(&runtime, 1, 9, Camera::default());
    let film = |scene| measure(&runtime, 1, 9, Camera { scene, ..Camera::default() });
    let (still, picture) = (film(Scene::Still), film(Scene::Picture));
    for (cameras, cost) in [("moving", moving), ("still", still), ("noiseless still", picture)] {
        println!(
            "nine {cameras} cameras: {:.3} cores in the mixer, {:.3} in the edge, {:.0} MB",
            cost.mixers, cost.edge, cost.mixer_memory
        );
    }
    for (noise, cost) in [("with the noise of a sensor", still), ("without noise", picture)] {
        let ratio = cost.mixers / moving.mixers;
        println!("nine still cameras {noise} cost the mixer {ratio:.2} times as much as moving ones");
    }
    let floor = decode_alone();
    println!(
        "decoding nine still cameras without noise costs {floor:.3} cores, {:.2} of nine moving cameras; the mixer \
         takes {:.2} times as much",
        floor / moving.mixers,
        picture.mixers / floor
    );
}

/// Cores for decoding nine cameras that show a still picture, each frame when it is due.
fn decode_alone() -> f64 {
    codec::init().expect("GStreamer and its elements are installed");
    let Camera { size, fps, .. } = Camera::default();
    let (to, encoded) = sync_channel::<EncodedFrame>(4);
    let spec = EncodeSpec {
        codec: Codec::Vp8,
        size,
        fps,
        bitrate_kbps: CAMERA_KBPS,
        h264: H264Encoder::default(),
        threads: 1,
        effort: Effort::Fast,
    };
    let mut encoder = VideoEncoder::new(spec, move |frame| to.send(frame).expect("taken")).expect("installed");
    let (still, interval) = (picture::moving(size, 0), Duration::from_secs(1) / fps);
    let encode = |n: u32| {
        assert!(encoder.push(&still, interval * n, n == 0), "it is not busy");
        encoded.recv_timeout(Duration::from_secs(5)).expect("one in, one out").data
    };
    let frames: Vec<_> = (0..fps * MEASURED.as_secs() as u32).map(encode).collect();
    let decoders: Vec<gst::Pipeline> = (0..9)
        .map(|_| {
            let text = "appsrc name=in is-live=true format=time caps=video/x-vp8 \
                        ! vp8dec threads=1 qos=false ! fakesink sync=false async=false";
            let pipeline = gst::parse::launch(text).expect("parses").downcast::<gst::Pipeline>().expect("a pipeline");
            pipeline.set_state(gst::State::Playing).expect("starts");
            pipeline
        })
        .collect();
    let inputs: Vec<AppSrc> =
        decoders.iter().map(|pipeline| pipeline.by_name("in").expect("named").downcast().expect("an appsrc")).collect();
    let (begun, before) = (now(), process_cpu());
    for (frame, n) in frames.iter().zip(0..) {
        // As cameras do, the nine send one after the other.
        for (input, camera) in inputs.iter().zip(0..) {
            std::thread::park_timeout((interval * n + interval / 9 * camera).saturating_sub(now().since(begun)));
            let mut buffer = gst::Buffer::from_slice(frame.clone());
            let pts = gst::ClockTime::from_useconds((interval * n).as_micros() as u64);
            buffer.get_mut().expect("just made").set_pts(pts);
            input.push_buffer(buffer).expect("it decodes");
        }
    }
    let cores = (process_cpu() - before).as_secs_f64() / now().since(begun).as_secs_f64();
    for pipeline in decoders {
        pipeline.set_state(gst::State::Null).expect("ends");
    }
    cores
}

fn measure(runtime: &Runtime, rooms: usize, participants: usize, camera: Camera) -> Cost {
    let server = Server::start_with(&server::Settings {
        environment: &[
            ("COMMINGLE_LIMITS_JOINS_PER_SECOND", "1000"),
            ("COMMINGLE_LIMITS_JOINS_BURST", "1000"),
            ("COMMINGLE_ROOMS_MAX_ROOMS", "1000"),
        ],
        ..server::Settings::default()
    });
    let cancel = CancellationToken::new();
    let pools: Vec<BotPool> = (0..rooms)
        .map(|room| {
            let plan = Plan {
                url: server.url(),
                room: format!("room-{room}").parse().expect("a name"),
                participants,
                publishers: 0,
                viewers: 0,
                clock: false,
                talkers: 0,
                decode: 0,
                tier: "auto".to_owned(),
                codec: Codec::Vp8,
                camera,
                clip: None,
                speech: false,
                loss: 0.0,
                tcp: false,
                rate: 20.0,
                token: None,
            };
            runtime.block_on(BotPool::start(plan, cancel.clone())).expect("bots on loopback")
        })
        .collect();
    let wait = |duration| runtime.block_on(async { tokio::time::sleep(duration).await });
    wait(SETTLE);
    let mixers: Vec<u32> = server.mixers().iter().map(|pid| pid.as_raw_nonzero().get().cast_unsigned()).collect();
    assert_eq!(mixers.len(), rooms, "one mixer for each room");
    let used = || {
        let mixers: f64 = mixers.iter().copied().map(cpu_seconds).sum();
        (mixers, server.cpu_seconds() - mixers)
    };
    let before = used();
    wait(MEASURED);
    let after = used();
    let seconds = MEASURED.as_secs_f64();
    let cost = Cost {
        mixers: (after.0 - before.0) / seconds,
        edge: (after.1 - before.1) / seconds,
        mixer_memory: mixers.iter().copied().map(proportional_memory).sum::<f64>() / rooms as f64,
    };
    for pool in pools {
        let report = runtime.block_on(pool.stop());
        assert!(report.passed, "a bot could not join, or was disconnected");
    }
    server.stop();
    cost
}

/// Memory of a process in MB, with its share of what it shares (`Pss`).
fn proportional_memory(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).expect("proc(5) has it");
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
    kib / 1_000.0 * 1.024
}
