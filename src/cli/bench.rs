//! `commingle bench`: measures a server with several rooms of bots and writes a page about them.
//!
//! Owns: the flags, and progress on standard error. Does not know: how rooms are measured. In: arguments; out: a page.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::bots::{leave_on_signal, runtime};
use super::{Failure, start_logs};
use crate::bots::bench::page::{self, Circumstances};
use crate::bots::bench::{self, BenchError, PacketCost, Settings, Trial};
use crate::time;

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// The server; by default this program starts one on free ports of loopback and measures its CPU use
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The page to write
    #[arg(long, value_name = "FILE", default_value = "commingle-bench.html")]
    out: PathBuf,
    /// Measuring time for each of the seven rooms
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// An operator's token for the server at --url
    #[arg(long, env = "COMMINGLE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Print all figures as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &BenchArgs) -> Result<(), Failure> {
    start_logs()?;
    // Fails before the measurement if the page cannot be written.
    fs::write(&args.out, "")
        .with_context(|| format!("{} cannot be written", args.out.display()))
        .map_err(Failure::Usage)?;
    let settings = Settings {
        url: args.url.clone(),
        program: std::env::current_exe()?,
        rooms: bench::ROOMS.to_vec(),
        watched: Duration::from_secs(args.seconds),
        token: args.token.clone(),
    };
    let found = runtime(1)?.block_on(async {
        let leave = leave_on_signal()?;
        Ok::<_, Failure>(bench::run(settings, &leave, report_progress).await?)
    })?;
    let circumstances = Circumstances {
        server: args.url.clone().unwrap_or_else(|| format!("commingle {}", env!("CARGO_PKG_VERSION"))),
        machine: machine(),
        unix_seconds: time::unix_seconds(),
        watched: args.seconds,
    };
    fs::write(&args.out, page::write(&found, &circumstances))?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &found).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        if let Some(packet) = found.packet {
            let PacketCost { micros, floor_micros, .. } = packet;
            let ratio = packet.ratio();
            writeln!(
                out,
                "CPU per packet to a viewer: {micros:.1} µs; encryption and sending: {floor_micros:.1} µs ({ratio:.1}x)"
            )?;
        }
        writeln!(out, "{}", args.out.display())?;
    }
    match found.rooms.iter().filter(|trial| !trial.report.passed).count() {
        0 => Ok(()),
        failed => Err(Failure::Running(anyhow::anyhow!(
            "in {failed} of the rooms, bots could not join or lost their session"
        ))),
    }
}

/// Prints one line per finished room.
fn report_progress(trial: &Trial) {
    let delay = trial.report.delay.map_or_else(String::new, |delay| format!(", delay {:.0} ms", delay.median_ms));
    let cpu =
        trial.cpu.map_or_else(String::new, |cpu| format!(", server {:.0} % of a core", (cpu.edge + cpu.mixer) * 100.0));
    let freezes: u64 = trial.report.groups.iter().map(|group| group.freezes).sum();
    // If nothing can be printed, the page still has the figures.
    let _ = writeln!(
        io::stderr(),
        "{:>3} participants, {:>4} viewers: {freezes} freezes{delay}{cpu}",
        trial.participants,
        trial.viewers
    );
}

/// The processor, its cores and the kernel, as far as known.
fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown processor", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Bots(error) => error.into(),
            BenchError::Server(_) | BenchError::Floor(_) => Self::Running(error.into()),
        }
    }
}
