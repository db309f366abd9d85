//! The cost of rooms of one participant with the camera off, and of nine cameras that film a still picture, as a ratio
//! to nine moving cameras in the same run. Aims: 3 ms of CPU time per second and 25 MB for an idle room; a quarter of
//! the cost of nine moving cameras.
//!
//! Bots in this process send silence, and receive the mix. The number of idle rooms may be given as an argument.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "../tests/e2e/server.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod server;

use std::time::Duration;

use commingle::bots::{BotPool, Camera, Plan, Scene};
use commingle::media::Codec;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use server::{Server, cpu_seconds};

const ROOMS: usize = 50;
/// From the last join to the measurement: pictures are refined for 4 s, encoders are kept for 20 s more.
const SETTLE: Duration = Duration::from_secs(30);
const MEASURED: Duration = Duration::from_secs(10);

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
