//! `commingle bots`: loads a room with bots and prints what they measured.
//!
//! Owns: the flags, and the end by a signal. Does not know: what bots do. In: arguments; out: a table or JSON.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, start_logs};
use crate::bots::{BotPool, BotsError, Camera, Plan, Report};
use crate::id::RoomName;
use crate::media::Codec;

#[derive(Debug, Args)]
pub(super) struct BotsArgs {
    /// The URL of the server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The room; created if it does not exist
    #[arg(long, value_name = "ROOM")]
    room: RoomName,
    /// Bots that send a camera and a microphone, and receive the mix
    #[arg(long, value_name = "N", default_value_t = 0)]
    participants: usize,
    /// Bots that only receive
    #[arg(long, value_name = "N", default_value_t = 0)]
    viewers: usize,
    /// Bots that only send
    #[arg(long, value_name = "N", default_value_t = 0)]
    publishers: usize,
    /// Whether the first sender shows the time, from which bots that decode compute the delay
    #[arg(long, value_name = "0|1", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    clock: u8,
    /// Bots that decode what they receive, the sender of the clock last; each costs about a twentieth of a core
    #[arg(long, value_name = "N", default_value_t = 0)]
    decode: usize,
    /// Senders that talk: a tone, or speech with --speech; the others send silence
    #[arg(long, value_name = "N", default_value_t = 2)]
    talkers: usize,
    /// The requested tier
    #[arg(long, default_value = "auto")]
    tier: TierArg,
    /// The video codec that bots receive, and send unless --clip has another one
    #[arg(long, default_value = "vp8")]
    codec: CodecArg,
    /// The synthetic video of senders: width, height and frames per second; `:still` behind it for a picture without
    /// movement; `off` for no video
    #[arg(long, value_name = "WxH@FPS", default_value = "640x360@30")]
    camera: Camera,
    /// Send this IVF file (VP8, VP9 or AV1) in a loop with its own timestamps, instead of the synthetic video
    #[arg(long, value_name = "FILE.ivf")]
    clip: Option<PathBuf>,
    /// Send generated speech instead of a tone: talkers take turns, with pauses in which no audio is sent (DTX)
    #[arg(long)]
    speech: bool,
    /// Received packets that bots discard, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=50))]
    loss: u8,
    /// Connect by ICE over TCP instead of UDP
    #[arg(long)]
    tcp: bool,
    /// Time in the room after all bots have joined
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = positive)]
    seconds: f64,
    /// Joins per second; bots also wait as long as the server's Retry-After says
    #[arg(long, value_name = "JOINS", default_value_t = 10.0, value_parser = positive)]
    rate: f64,
    /// A token for the room, if the server has a key (see `commingle token`)
    #[arg(long, env = "COMMINGLE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Network threads; decoders and encoders have threads of their own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    threads: u8,
    /// Print the figures of every bot as JSON instead of the table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum TierArg {
    Auto,
    High,
    Medium,
    Low,
    Audio,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum CodecArg {
    Vp8,
    H264,
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| format!("`{text}` is not a positive number"))
}

impl BotsArgs {
    fn plan(&self) -> Plan {
        let tier = match self.tier {
            TierArg::Auto => "auto",
            TierArg::High => "high",
            TierArg::Medium => "medium",
            TierArg::Low => "low",
            TierArg::Audio => "audio",
        };
        Plan {
            url: self.url.clone(),
            room: self.room.clone(),
            participants: self.participants,
            publishers: self.publishers,
            viewers: self.viewers,
            clock: self.clock > 0,
            talkers: self.talkers,
            decode: self.decode,
            tier: tier.to_owned(),
            codec: match self.codec {
                CodecArg::Vp8 => Codec::Vp8,
                CodecArg::H264 => Codec::H264,
            },
            camera: self.camera,
            clip: self.clip.clone(),
            speech: self.speech,
            loss: f64::from(self.loss) / 100.0,
            tcp: self.tcp,
            rate: self.rate,
            token: self.token.clone(),
        }
    }
}

pub(super) fn run(args: &BotsArgs) -> Result<(), Failure> {
    if args.participants + args.viewers + args.publishers == 0 {
        return Err(Failure::Usage(anyhow::anyhow!("no bots: use --participants, --viewers or --publishers")));
    }
    start_logs()?;
    let runtime = runtime(args.threads)?;
    let report = runtime.block_on(stay(args.plan(), Duration::from_secs_f64(args.seconds)))?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    if report.passed {
        return Ok(());
    }
    let failed: usize = report.failures.values().sum();
    Err(Failure::Running(anyhow::anyhow!("{failed} bots could not join or lost their session")))
}

async fn stay(plan: Plan, duration: Duration) -> Result<Report, Failure> {
    let leave = leave_on_signal()?;
    let bots = BotPool::start(plan, leave).await?;
    bots.run_for(duration).await;
    Ok(bots.stop().await)
}

/// A runtime for bots.
pub(super) fn runtime(threads: u8) -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads.into()).enable_all().build()
}

/// A token that SIGINT or SIGTERM cancels; bots then end their sessions first.
pub(super) fn leave_on_signal() -> io::Result<CancellationToken> {
    let leave = CancellationToken::new();
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let leaving = leave.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        leaving.cancel();
    });
    Ok(leave)
}

impl From<BotsError> for Failure {
    fn from(error: BotsError) -> Self {
        match error {
            BotsError::Api(crate::bots::ApiError::Url(_)) | BotsError::Clip(_) => Self::Usage(error.into()),
            _ => Self::Running(error.into()),
        }
    }
}
