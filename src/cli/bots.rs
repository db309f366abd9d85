//! `commingle bots`: sends a crowd into a room and prints what it met with.

use std::io::{self, Write};
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, start_logs};
use crate::bots::{BotsError, Camera, Crowd, Plan, Report};
use crate::id::RoomName;
use crate::media::Codec;

#[derive(Debug, Args)]
pub(super) struct BotsArgs {
    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The room; it is made if need be
    #[arg(long, value_name = "ROOM")]
    room: RoomName,
    /// How many send a camera and a microphone, and get the mix back
    #[arg(long, value_name = "N", default_value_t = 0)]
    participants: usize,
    /// How many only watch
    #[arg(long, value_name = "N", default_value_t = 0)]
    viewers: usize,
    /// How many only send
    #[arg(long, value_name = "N", default_value_t = 0)]
    publishers: usize,
    /// Whether the first who sends shows the time: what decodes then knows how old its picture is
    #[arg(long, value_name = "0|1", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    clock: u8,
    /// How many decode what they get, the clock's sender last; each costs about a twentieth of a core
    #[arg(long, value_name = "N", default_value_t = 0)]
    decode: usize,
    /// How many of those who send make a sound; who makes the only one hears nothing
    #[arg(long, value_name = "N", default_value_t = 2)]
    talkers: usize,
    /// Quality asked for
    #[arg(long, default_value = "auto")]
    tier: TierArg,
    /// Video codec, both ways
    #[arg(long, default_value = "vp8")]
    codec: CodecArg,
    /// What senders film: width, height and frames a second
    #[arg(long, value_name = "WxH@FPS", default_value = "640x360@30")]
    camera: Camera,
    /// How much of what comes in bots throw away, in percent, as a bad network would
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=50))]
    loss: u8,
    /// Come by ICE over TCP instead of UDP
    #[arg(long)]
    tcp: bool,
    /// How long to stay once everyone is in
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = positive)]
    seconds: f64,
    /// Joins a second; a server that says it is too fast is obeyed
    #[arg(long, value_name = "JOINS", default_value_t = 10.0, value_parser = positive)]
    rate: f64,
    /// A token for the room, if the server has a key: `commingle token` makes one
    #[arg(long, env = "COMMINGLE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Threads; decoders and encoders have their own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    threads: u8,
    /// Print everything about every bot as JSON instead of the table
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
    number.ok_or_else(|| format!("`{text}` is not a number above zero"))
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
            loss: f64::from(self.loss) / 100.0,
            tcp: self.tcp,
            rate: self.rate,
            token: self.token.clone(),
        }
    }
}

pub(super) fn run(args: &BotsArgs) -> Result<(), Failure> {
    if args.participants + args.viewers + args.publishers == 0 {
        return Err(Failure::Usage(anyhow::anyhow!(
            "nobody is to join: give --participants, --viewers or --publishers"
        )));
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
    Err(Failure::Running(anyhow::anyhow!("{failed} of the bots could not join or were dropped")))
}

async fn stay(plan: Plan, duration: Duration) -> Result<Report, Failure> {
    let leave = leave_on_signal()?;
    let crowd = Crowd::gather(plan, leave).await?;
    crowd.stay(duration).await;
    Ok(crowd.leave().await)
}

/// A runtime for a crowd.
pub(super) fn runtime(threads: u8) -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads.into()).enable_all().build()
}

/// Cancelled by SIGINT or SIGTERM: bots then end their sessions before they go.
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
            BotsError::Api(crate::bots::ApiError::Url(_)) => Self::Usage(error.into()),
            _ => Self::Running(error.into()),
        }
    }
}
