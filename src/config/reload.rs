//! Reloading the configuration of a running server.
//!
//! Owns: which keys a running server can change, and the differences between two configurations. Does not know: how a
//! change is applied. In: the running and the new configuration; out: the configuration that runs from now on, with the
//! changes that apply and those that need a restart.

use std::fmt;

use toml::{Table, Value};

use super::layers::NOT_SHOWN;
use super::{Config, Inputs, Limits, Secret};

/// The difference of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key, `section.key`.
    pub key: String,
    /// The values before and after; None for those that are not shown.
    values: Option<(String, String)>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.values {
            Some((before, after)) => write!(f, "{} (from {before} to {after})", self.key),
            None => f.write_str(&self.key),
        }
    }
}

/// A new configuration of a running server.
#[derive(Debug)]
pub struct Reload {
    /// The configuration from now on: the new one, except for what needs a restart.
    pub config: Config,
    /// Changes that apply now.
    pub applied: Vec<Change>,
    /// Changes that need a restart.
    pub kept: Vec<Change>,
}

impl Reload {
    /// Compares the running configuration with a new one.
    ///
    /// # Errors
    /// The reason why the combination of both is invalid: for example, the new one has no key because it serves this
    /// machine only, but the address cannot change without a restart.
    pub fn new(running: &Config, new: &Config) -> Result<Self, String> {
        let config = merged(running, new);
        if let Some(invalid) = config.check().first() {
            return Err(format!("{}: {}; restart the server instead", invalid.key, invalid.reason));
        }
        Ok(Self { applied: changes(running, &config), kept: changes(&config, new), config })
    }
}

/// The new configuration with the values of the running one that cannot change: sockets, TLS, the data folder, the
/// store of uploads, and the video that running mixers encode.
fn merged(running: &Config, new: &Config) -> Config {
    let Config { auth, recordings, rooms, filters, outputs, inputs, limits, processes, .. } = new.clone();
    Config {
        auth,
        recordings,
        rooms,
        filters,
        outputs,
        inputs: Inputs { rtmp_port: running.inputs.rtmp_port, rtmp_bind: running.inputs.rtmp_bind, ..inputs },
        // The limiters of connections are built once, because they count the connections that are open.
        limits: Limits {
            connections: running.limits.connections,
            connections_per_address: running.limits.connections_per_address,
            event_streams_per_address: running.limits.event_streams_per_address,
            ..limits
        },
        processes,
        ..running.clone()
    }
}

fn changes(before: &Config, after: &Config) -> Vec<Change> {
    let (old, new) = (table(before), table(after));
    let mut changes = Vec::new();
    let sections = old.iter().filter_map(|(section, values)| Some((section, values.as_table()?)));
    for (section, old) in sections {
        let new = new.get(section).and_then(Value::as_table).expect("all configurations have the same sections");
        let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let shown = |table: &Table| table.get(key).map_or_else(|| "unset".to_owned(), Value::to_string);
            if old.get(key) != new.get(key) {
                let key = format!("{section}.{key}");
                let values = (!NOT_SHOWN.contains(&key.as_str())).then(|| (shown(old), shown(new)));
                changes.push(Change { key, values });
            }
        }
    }
    for (key, secret) in SECRETS {
        if secret(before) != secret(after) {
            changes.push(Change { key: key.to_owned(), values: None });
        }
    }
    changes
}

/// The secrets, which are never serialized.
const SECRETS: [(&str, SecretOf); 4] = [
    ("auth.key", |config| config.auth.key.as_ref()),
    ("auth.jwks", |config| config.auth.jwks.as_ref()),
    ("turn.secret", |config| config.turn.secret.as_ref()),
    ("upload.secret_access_key", |config| config.upload.secret_access_key.as_ref()),
];

/// Finds a secret in a configuration.
type SecretOf = fn(&Config) -> Option<&Secret>;

fn table(config: &Config) -> Table {
    Table::try_from(config).expect("a configuration is plain data")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(changes: &[Change]) -> Vec<String> {
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn changes_apply_or_need_a_restart() {
        let running = Config::default();
        let mut new = Config::default();
        new.rooms.max_rooms = 40;
        new.limits.joins_burst = 7;
        new.limits.connections = 9;
        new.limits.connections_per_address = 8;
        new.limits.event_streams_per_address = 7;
        new.media.port = 8190;
        new.inputs.rtmp_port = 1935;
        new.auth.key = Some("0123456789abcdef0123456789abcdef".to_owned().into());
        new.upload.endpoint = Some("https://s3.example.org".to_owned());
        new.turn.secret = Some("0123456789abcdef".to_owned().into());
        let reload = Reload::new(&running, &new).expect("valid");
        let applied = ["limits.joins_burst (from 50 to 7)", "rooms.max_rooms (from 32 to 40)", "auth.key"];
        let kept = [
            "inputs.rtmp_port (from 0 to 1935)",
            "limits.connections (from 4096 to 9)",
            "limits.connections_per_address (from 1024 to 8)",
            "limits.event_streams_per_address (from 512 to 7)",
            "media.port (from 8189 to 8190)",
            "turn.secret",
            "upload.endpoint",
        ];
        let sorted = |mut all: Vec<String>| {
            all.sort();
            all
        };
        assert_eq!(sorted(texts(&reload.applied)), sorted(applied.map(str::to_owned).into()));
        assert_eq!(sorted(texts(&reload.kept)), sorted(kept.map(str::to_owned).into()));
        assert_eq!((reload.config.media.port, reload.config.rooms.max_rooms), (8189, 40));

        // A second reload of the same file applies nothing and still names what needs a restart.
        let again = Reload::new(&reload.config, &new).expect("valid");
        assert!(again.applied.is_empty());
        assert_eq!(again.kept, reload.kept);
    }

    #[test]
    fn a_server_for_others_never_loses_its_key() {
        let mut running = Config::default();
        running.http.bind = "0.0.0.0:8080".parse().expect("an address");
        running.auth.key = Some("0123456789abcdef0123456789abcdef".to_owned().into());
        let why = Reload::new(&running, &Config::default()).expect_err("everyone would be a moderator");
        assert!(why.contains("http.bind") && why.contains("restart"), "{why}");
    }
}
