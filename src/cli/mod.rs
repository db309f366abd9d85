//! The command line: arguments, exit codes, and which part each command calls.
//!
//! Owns: flags and their help, logs, what goes to standard output. Does not know: how anything is done.
//! Exit codes: 0 done, 1 failed while running, 2 wrong usage or configuration.

mod bench;
mod bots;
mod doctor;
mod serve;
mod token;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::{self, Config, ConfigError, Override};
use crate::link::child;
use crate::{input, mixer, output};

/// What is logged when nobody says otherwise. The WebRTC stack reports every bad packet as an error; what matters of
/// that is counted by our own parts.
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
    /// When it is ready it prints a line that begins with `ready` and names the addresses really bound. Without a key it
    /// serves this machine only. SIGTERM or Ctrl-C ends it in order, a second one at once.
    Serve(serve::ServeArgs),
    /// Make a token that lets somebody into a room
    Token(token::TokenArgs),
    /// Check a configuration, or print the default one
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Check this machine and the reach of a server: one line for each thing, with what to do
    Doctor(doctor::DoctorArgs),
    /// Send bots into a room, as people would join it, and measure what they get
    ///
    /// Each bot is a WebRTC client of its own: ICE, DTLS, SRTP, lost packets asked for again, reports. Participants send
    /// a film and a tone. The table at the end says how fast everyone was in, what was lost, where pictures froze and
    /// sound was missing, and, with --clock 1 --decode 1, how old pictures were. Ctrl-C ends all sessions first. The exit
    /// code is 1 when a bot could not join or was dropped.
    Bots(bots::BotsArgs),
    /// Measure a server in six rooms of bots, and write a page with plots
    ///
    /// Two, four and nine participants, then two with 1, 10 and 100 viewers: how fast one joins, how old pictures are,
    /// what is lost, where it freezes, and what it costs the server. The bots take CPU as well: on the machine of the
    /// server they take it from it. Takes about a minute and a half.
    Bench(bench::BenchArgs),
    /// Mix one room; `serve` starts it with the link to itself as standard input
    #[command(hide = true)]
    Mixer,
    /// Record or broadcast one room; `serve` starts it with the link to itself as standard input
    #[command(hide = true)]
    Output,
    /// Take one source in; `serve` starts it with the link to itself as standard input
    #[command(hide = true)]
    Input,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Read all layers and say what is wrong, with file, line and key
    Check(ConfigArgs),
    /// Print every key with its default and its meaning: a file to start from
    PrintDefault,
}

/// Where the configuration comes from: for every command that needs it.
#[derive(Debug, Default, Args)]
struct ConfigArgs {
    /// The configuration file [default: ./commingle.toml, where there is one]
    #[arg(long, value_name = "FILE", env = "COMMINGLE_CONFIG")]
    config: Option<PathBuf>,
    /// Set any key of the configuration; may be given several times
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// The key that tokens are signed with, at least 32 bytes. Others can see it in the list of processes: better put it
    /// into COMMINGLE_AUTH_KEY or a file
    #[arg(long, value_name = "KEY", conflicts_with = "key_file")]
    key: Option<String>,
    /// A file that holds the key
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// Why a command failed: decides the exit code.
#[derive(Debug)]
enum Failure {
    /// Wrong usage or configuration.
    Usage(anyhow::Error),
    /// Something failed while running.
    Running(anyhow::Error),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.into())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Running(error.into())
    }
}

/// Runs the command that the arguments name; the first is the program itself.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // With nowhere to print to, the exit code still tells.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let (code, error) = match perform(cli.command) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Running(error)) => (1, error),
        Err(Failure::Usage(error)) => (2, error),
    };
    let _ = writeln!(io::stderr(), "commingle: {error:#}");
    ExitCode::from(code)
}

fn perform(command: Command) -> Result<(), Failure> {
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
        Command::Mixer => mix(),
        Command::Output => put_out(),
        Command::Input => take_in(),
    }
}

fn mix() -> Result<(), Failure> {
    start_logs()?;
    let link = child::link_on_stdin().map_err(|error| Failure::Usage(error.into()))?;
    mixer::run_process(link).map_err(|error| Failure::Running(error.into()))
}

fn put_out() -> Result<(), Failure> {
    start_logs()?;
    let link = child::link_on_stdin().map_err(|error| Failure::Usage(error.into()))?;
    output::run_process(link).map_err(|error| Failure::Running(error.into()))
}

fn take_in() -> Result<(), Failure> {
    start_logs()?;
    let link = child::link_on_stdin().map_err(|error| Failure::Usage(error.into()))?;
    input::run_process(link).map_err(|error| Failure::Running(error.into()))
}

fn check(args: &ConfigArgs) -> Result<(), Failure> {
    args.load(Vec::new())?;
    for name in config::unknown_variables(environment()) {
        writeln!(io::stderr(), "commingle: environment {name} sets nothing; is it meant to?")?;
    }
    Ok(writeln!(io::stdout(), "the configuration is valid")?)
}

impl ConfigArgs {
    /// Reads all layers; `flags` are those of the command itself, which win.
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

/// One flag's value, for the last layer of the configuration.
fn flag(key: &str, name: &str, value: impl ToString) -> Override {
    let value = value.to_string();
    Override { key: key.to_owned(), flag: format!("{name} {value}"), value }
}

/// The environment, as far as it is text: no setting of ours is anything else.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Sends logs to standard error, by the filter `COMMINGLE_LOG`.
fn start_logs() -> Result<(), Failure> {
    let filter = std::env::var("COMMINGLE_LOG").unwrap_or_else(|_| LOG_DEFAULT.to_owned());
    let filter = EnvFilter::try_new(&filter).map_err(|error| {
        Failure::Usage(anyhow::anyhow!(
            "environment COMMINGLE_LOG: `{filter}`: {error}; write it like `info,commingle::peer=debug`"
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
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_usage_is_2_and_help_is_0() {
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
