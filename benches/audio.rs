//! A room in which everybody talks: packets per second that each listener gets (50 are due), and CPU per participant,
//! beside Janus' AudioBridge in the same run. Aim: 49.9 packets per second with 10, 50, 100 and 200 talkers.
//!
//! commingle serves WebRTC clients, and its mixer and its edge (SRTP, fan-out) are listed apart; the participants of
//! AudioBridge are plain RTP without encryption. All send a tone. When the cores are busy, commingle reduces quality:
//! the last line of each room says how far. The first argument, a number, selects one size of the room.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod audio_bridge;
#[path = "../tests/e2e/server.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod server;

use std::time::Duration;

use bytes::Bytes;
use commingle::bots::{BotPool, Camera, Plan};
use commingle::codec::sound::{OpusEncoder, OpusSettings};
use commingle::media::{AUDIO_RATE, AUDIO_TICK_SAMPLES, Codec, Size};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use server::{Server, Settings, cpu_seconds};

/// Duration of a packet.
const TICK: Duration = Duration::from_millis(20);
/// Time before the measurement.
const WARM_UP: Duration = Duration::from_secs(5);
/// Length of the measurement.
const WATCHED: Duration = Duration::from_secs(10);
/// Talkers in the rooms.
const SIZES: [usize; 4] = [10, 50, 100, 200];

/// The figures of one room.
struct Measured {
    /// Packets per second that each listener got.
    rates: Vec<f64>,
    /// Names of processes with the cores that they used.
    cpu: Vec<(&'static str, f64)>,
}

impl Measured {
    /// Prints the figures; returns milliseconds of CPU per participant and second.
    fn print(&self, people: usize, whose: &str) -> f64 {
        let mean = self.rates.iter().sum::<f64>() / self.rates.len() as f64;
        let least = self.rates.iter().copied().fold(f64::INFINITY, f64::min);
        println!("audio-{people}-{whose}-packets: {mean:.1} per second and listener, at least {least:.1}");
        let per_person = |cores: f64| cores * 1_000.0 / people as f64;
        for (process, cores) in &self.cpu {
            println!("audio-{people}-{whose}-cpu: {process} {:.1} ms per participant-second", per_person(*cores));
        }
        per_person(self.cpu.iter().map(|(_, cores)| cores).sum())
    }
}

fn main() {
    let only: Option<usize> = std::env::args().find_map(|argument| argument.parse().ok());
    let tone = tone();
    for people in SIZES.into_iter().filter(|size| only.is_none_or(|only| only == *size)) {
        let ours = commingle(people).print(people, "commingle");
        match audio_bridge::measure(people, &tone) {
            Some(theirs) => {
                println!("audio-{people}-commingle/janus: {:.2}", ours / theirs.print(people, "janus"));
            }
            None => println!("audio-{people}-janus: not installed (scripts/setup.sh bench)"),
        }
    }
}

/// A room of bots. Their cameras cost nothing: a small picture per second, which no receiver watches.
fn commingle(people: usize) -> Measured {
    let limits = [
        "limits.joins_per_second=1000",
        "limits.joins_burst=2000",
        "limits.pending_per_address=2000",
        "rooms.max_participants=2000",
        // Without video the audio would be thin.
        "tiers.thin_sound_kbps=48",
        "tiers.thin_sound_ms=20",
    ];
    let arguments: Vec<&str> = limits.iter().flat_map(|limit| ["--set", limit]).collect();
    let server = Server::start_with(&Settings { arguments: &arguments, ..Settings::default() });
    let plan = Plan {
        url: server.url(),
        room: "audio".parse().expect("a name"),
        participants: people,
        publishers: 0,
        viewers: 0,
        clock: false,
        talkers: people,
        decode: 0,
        tier: "audio".to_owned(),
        codec: Codec::Vp8,
        camera: Camera { size: Size::new(64, 36), fps: 1, ..Camera::default() },
        clip: None,
        speech: false,
        loss: 0.0,
        tcp: false,
        rate: 50.0,
        token: None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (report, cpu) = runtime.block_on(async {
        let bots = BotPool::start(plan, CancellationToken::new()).await.expect("bots on loopback");
        bots.run_for(WARM_UP).await;
        let before = cpu(&server);
        bots.run_for(WATCHED).await;
        let after = cpu(&server);
        let used = |process: fn(&(f64, f64)) -> f64| (process(&after) - process(&before)) / WATCHED.as_secs_f64();
        let used = vec![("mixer", used(|(mixer, _)| *mixer)), ("edge", used(|(_, edge)| *edge))];
        quality(people, &server);
        (bots.stop().await, used)
    });
    assert!(report.passed, "a bot could not join, or was disconnected:\n{report}");
    server.stop();
    let rates = report.bots.iter().map(|bot| bot.audio.packets as f64 / bot.seconds).collect();
    Measured { rates, cpu }
}

/// CPU seconds of the mixer and of the server without it.
fn cpu(server: &Server) -> (f64, f64) {
    let mixers = server.mixers().into_iter();
    let mixer: f64 = mixers.map(|pid| cpu_seconds(pid.as_raw_nonzero().get().cast_unsigned())).sum();
    (mixer, server.cpu_seconds() - mixer)
}

/// Prints what the server says about the quality of the audio.
fn quality(people: usize, server: &Server) {
    let get = |path: &str| {
        let mut response = ureq::get(format!("{}{path}", server.url())).call().expect("the server answers");
        response.body_mut().read_to_string().expect("text")
    };
    let metrics = get("/metrics");
    let count = |name: &str| {
        let name = format!("commingle_mixer_sound_{name}_total ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)).expect("it is exported").to_owned()
    };
    let room: Value = serde_json::from_str(&get("/v1/rooms/audio")).expect("JSON");
    println!(
        "audio-{people}-commingle-quality: {} (ticks: {}, late: {}, left out: {}, reduced: {})",
        room.get("audio_reduced").map_or_else(|| "full".to_owned(), Value::to_string),
        count("ticks"),
        count("late"),
        count("left_out"),
        count("reduced"),
    );
}

/// A second of the tone that bots send.
fn tone() -> Vec<Bytes> {
    let mut encoder =
        OpusEncoder::new(OpusSettings { bitrate: 32_000, complexity: 5, expected_loss: 0, ..OpusSettings::default() });
    let sample = |i: usize| 0.15 * (i as f32 / AUDIO_RATE as f32 * 440.0 * std::f32::consts::TAU).sin();
    (0..AUDIO_RATE as usize / AUDIO_TICK_SAMPLES)
        .map(|n| std::array::from_fn(|i| sample(n * AUDIO_TICK_SAMPLES + i)))
        .map(|tick| encoder.encode(&tick).expect("samples are fine"))
        .collect()
}
