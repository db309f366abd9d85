//! The command line: arguments, exit codes, and the entry point of each command.
//!
//! Owns: flags and their help, log setup, standard output. Does not know: how commands do their work. In: arguments and
//! environment; out: text and an exit code: 0 success, 1 failure while running, 2 invalid usage or configuration.

mod bench;
mod bots;
mod doctor;
mod filters;
mod serve;
mod token;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::{self, Config, ConfigErrors, Override};
use crate::link::child::{self, ChildError};
use crate::{input, mixer, output};

/// The default log filter. The WebRTC crates log every malformed packet as an error; this crate counts them in metrics.
const LOG_DEFAULT: &str = "info,rtc=error,webrtc=error";

#[derive(Debug, Parser)]
#[command(
    name = "commingle",
    version,
    about,
    after_help = "The HTTP interface is described in docs/api.md and at /openapi.json."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    ///
    /// When it is ready, it prints a line that begins with `ready` and names the bound addresses. Without a key it
    /// serves this machine only. SIGTERM or Ctrl-C stops it gracefully, a second one at once.
    Serve(serve::ServeArgs),
    /// Make a token for a room
    Token(token::TokenArgs),
    /// Check a configuration, or print the default one
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Check this machine and the network paths to a server: one line of advice per problem
    Doctor(doctor::DoctorArgs),
    /// Load a server with bots in one room, and measure what they receive
    ///
    /// Each bot is a WebRTC client with ICE, DTLS, SRTP, NACK and reports. Participants send a test video and a tone.
    /// The table at the end shows the time to join, losses, freezes, audio gaps and, with --clock 1 --decode 1, the
    /// delay of the video. Ctrl-C ends all sessions first. The exit code is 1 if a bot could not join or lost its
    /// session.
    Bots(bots::BotsArgs),
    /// Measure a server with seven rooms of bots, and write a page with plots
    ///
    /// Rooms of two, four and nine participants, then two participants with 1, 10, 100 and 1,000 viewers. Measures
    /// the time to join, the delay of the video, losses, freezes and the server's CPU use. Bots on the same machine
    /// compete with the server for the CPU. Takes about two minutes.
    Bench(bench::BenchArgs),
    /// Mix one room; started by `serve` with the link as standard input
    #[command(hide = true)]
    Mixer,
    /// Record or broadcast one room; started by `serve` with the link as standard input
    #[command(hide = true)]
    Output,
    /// Run one input; started by `serve` with the link as standard input
    #[command(hide = true)]
    Input,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Read all layers and report errors with file, line and key
    Check(ConfigArgs),
    /// Print every key with its default and meaning, as a file to start from
    PrintDefault,
}

/// The sources of the configuration, for every command that needs it.
#[derive(Debug, Default, Args)]
struct ConfigArgs {
    /// The configuration file [default: ./commingle.toml, if it exists]
    #[arg(long, value_name = "FILE", env = "COMMINGLE_CONFIG")]
    config: Option<PathBuf>,
    /// Set any key of the configuration; may be given several times
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// The key that signs tokens, at least 32 bytes. Other users can see it in the list of processes: prefer
    /// COMMINGLE_AUTH_KEY or --key-file
    #[arg(long, value_name = "KEY", conflicts_with = "key_file")]
    key: Option<String>,
    /// A file that contains the key
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// Why a command failed; determines the exit code.
#[derive(Debug)]
enum Failure {
    /// Invalid usage or configuration.
    Usage(anyhow::Error),
    /// Something failed while running.
    Running(anyhow::Error),
}

impl From<ConfigErrors> for Failure {
    fn from(error: ConfigErrors) -> Self {
        Self::Usage(error.into())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Running(error.into())
    }
}

/// Runs the command that the arguments name; the first argument is the program.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // If nothing can be printed, the exit code still reports the error.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let (code, error) = match execute(cli.command) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Running(error)) => (1, error),
        Err(Failure::Usage(error)) => (2, error),
    };
    let _ = writeln!(io::stderr(), "commingle: {error:#}");
    ExitCode::from(code)
}

fn execute(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => serve::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Config { command: ConfigCommand::Check(args) } => check(&args),
        Command::Config { command: ConfigCommand::PrintDefault } => {
            Ok(io::stdout().write_all(config::SAMPLE.as_bytes())?)
        }
        Command::Doctor(args) => doctor::run(&args),
        Command::Bots(args) => bots::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Mixer => run_child(mixer::run_process),
        Command::Output => run_child(output::run_process),
        Command::Input => run_child(input::run_process),
    }
}

/// Runs the child process at the other end of the link on standard input.
fn run_child(run: impl FnOnce(UnixStream) -> Result<(), ChildError>) -> Result<(), Failure> {
    child::close_inherited()?;
    start_logs()?;
    let link = child::link_on_stdin().map_err(|error| Failure::Usage(error.into()))?;
    run(link).map_err(|error| Failure::Running(error.into()))
}

fn check(args: &ConfigArgs) -> Result<(), Failure> {
    let config = args.load(Vec::new())?;
    let filters::Findings { errors, missing } = filters::check(&config.filters()?);
    for missing in missing {
        writeln!(io::stderr(), "commingle: {missing}")?;
    }
    if !errors.is_empty() {
        return Err(Failure::Usage(anyhow::anyhow!("{}", errors.join("; "))));
    }
    for name in config::unknown_variables(environment()) {
        writeln!(io::stderr(), "commingle: the environment variable {name} is not a setting; check its spelling")?;
    }
    Ok(writeln!(io::stdout(), "the configuration is valid")?)
}

impl ConfigArgs {
    /// Reads all layers; `flags` are those of the command, which take precedence.
    fn load(&self, flags: Vec<Override>) -> Result<Config, Failure> {
        let mut all = Vec::new();
        for text in &self.set {
            let Some((key, value)) = text.split_once('=') else {
                return Err(Failure::Usage(anyhow::anyhow!("--set {text}: write it as section.key=value")));
            };
            let flag = format!("--set {text}");
            all.push(Override { key: key.trim().to_owned(), value: value.to_owned(), flag });
        }
        if let Some(key) = &self.key {
            all.push(Override { key: "auth.key".into(), value: key.clone(), flag: "--key".into() });
        }
        if let Some(file) = &self.key_file {
            all.push(flag("auth.key_file", "--key-file", file.display()));
        }
        all.extend(flags);
        Ok(config::load(self.config.as_deref(), environment(), &all)?)
    }
}

/// The value of a flag, for the last layer of the configuration.
fn flag(key: &str, name: &str, value: impl ToString) -> Override {
    let value = value.to_string();
    Override { key: key.to_owned(), flag: format!("{name} {value}"), value }
}

/// The environment variables that are text, as all settings are.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Logs to standard error with the filter in `COMMINGLE_LOG`.
fn start_logs() -> Result<(), Failure> {
    let filter = std::env::var("COMMINGLE_LOG").unwrap_or_else(|_| LOG_DEFAULT.to_owned());
    let filter = EnvFilter::try_new(&filter).map_err(|error| {
        Failure::Usage(anyhow::anyhow!(
            "the environment variable COMMINGLE_LOG: `{filter}`: {error}; use for example `info,commingle::peer=debug`"
        ))
    })?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    logs.with_ansi(io::stderr().is_terminal()).init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_exit_code_is_2_for_invalid_usage_and_0_for_help() {
        let run = |arguments: &[&str]| {
            format!("{:?}", run(["commingle"].iter().chain(arguments).map(|argument| OsString::from(*argument))))
        };
        let code = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(run(&["--help"]), code(0));
        assert_eq!(run(&["--version"]), code(0));
        assert_eq!(run(&[]), code(2));
        assert_eq!(run(&["sevre"]), code(2));
        assert_eq!(run(&["serve", "--http"]), code(2));
        assert_eq!(run(&["serve", "--http", "0.0.0.0:0", "--config", "/nowhere.toml"]), code(2));
        assert_eq!(run(&["config", "check", "--set", "video.fps=0"]), code(2));
        assert_eq!(run(&["config", "check", "--set", "video.fps"]), code(2));
        assert_eq!(run(&["config", "check", "--set", "video.fps=25"]), code(0));
    }
}
