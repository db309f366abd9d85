//! `commingle token`: signs a token with the configured key and prints it.
//!
//! Owns: the flags. Does not know: the format of tokens ([`auth`]). In: arguments and configuration; out: a token.

use std::io::{self, Write};

use clap::{Args, ValueEnum};

use super::{ConfigArgs, Failure};
use crate::http::auth::{self, Claims};
use crate::id::RoomName;
use crate::room::document::Role;
use crate::time;

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// The room it is valid for; an operator's token is valid for all rooms
    #[arg(long, required_if_eq_any([("role", "viewer"), ("role", "participant"), ("role", "moderator")]))]
    room: Option<RoomName>,
    /// Its role; each role includes the ones before it
    #[arg(long)]
    role: RoleArg,
    /// The name shown in the room
    #[arg(long)]
    name: Option<String>,
    /// How long it is valid: 90s, 15m, 8h, 30d
    #[arg(long, default_value = "1h", value_parser = seconds)]
    ttl: u64,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleArg {
    /// Receive
    Viewer,
    /// Send and receive
    Participant,
    /// Change the room and its participants
    Moderator,
    /// All rooms and the server
    Operator,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Viewer => Self::Viewer,
            RoleArg::Participant => Self::Participant,
            RoleArg::Moderator => Self::Moderator,
            RoleArg::Operator => Self::Operator,
        }
    }
}

pub(super) fn run(args: &TokenArgs) -> Result<(), Failure> {
    let config = args.config.load(Vec::new())?;
    let Some(key) = &config.auth.key else {
        return Err(Failure::Usage(anyhow::anyhow!(
            "there is no key to sign with: set the server's key by COMMINGLE_AUTH_KEY, --key-file or auth.key_file; \
             `openssl rand -base64 32` makes one"
        )));
    };
    let exp = time::unix_seconds().saturating_add(args.ttl) as f64;
    let claims = Claims { room: args.room.clone(), role: args.role.into(), name: args.name.clone(), exp, nbf: None };
    Ok(writeln!(io::stdout(), "{}", auth::sign(&claims, key.expose()))?)
}

fn seconds(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        other => return Err(format!("`{other}` is not a unit: use s, m, h or d")),
    };
    match digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)) {
        None | Some(0) => Err("a time is a number and a unit, like 90s, 15m, 8h or 30d".to_owned()),
        Some(seconds) => Ok(seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("15m"), Ok(900));
        assert_eq!(seconds("1h"), Ok(3_600));
        assert_eq!(seconds("30d"), Ok(2_592_000));
        assert_eq!(seconds("5"), Ok(5));
        for bad in ["", "h", "1w", "0s", "-1h", "1.5h", "99999999999999999999d"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
