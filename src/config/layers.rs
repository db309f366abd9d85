//! The layers of the configuration: defaults, file, environment, command line. Later layers override earlier ones.
//!
//! Owns: the notation of keys in each layer, and the origin of each value, so that an error names file, line and key.
//! Does not know: valid ranges, which [`Config::check`] owns. In: a path, the environment, the values of flags. Out: a
//! [`Config`].

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use toml::de::DeTable;
use toml::{Table, Value};

use super::error::{ConfigError, ConfigErrors, Origin};
use super::{Config, KEY_MIN_BYTES, Secret, TlsMode};

/// The file that is read if none is named.
const FILE: &str = "commingle.toml";
/// Prefix of our environment variables.
const ENV_PREFIX: &str = "COMMINGLE_";
/// Keys without a default value, which are not in [`defaults`].
const OPTIONAL: [(&str, Kind); 20] = [
    ("auth.key", Kind::Text),
    ("auth.key_file", Kind::Text),
    ("auth.jwks", Kind::Text),
    ("auth.jwks_file", Kind::Text),
    ("media.stun_server", Kind::Text),
    ("inputs.media_dir", Kind::Text),
    ("filters.dir", Kind::Text),
    ("tls.cert", Kind::Text),
    ("tls.key", Kind::Text),
    ("tls.acme_root", Kind::Text),
    ("tls.acme_email", Kind::Text),
    ("turn.port", Kind::Integer),
    ("turn.tls_port", Kind::Integer),
    ("turn.secret", Kind::Text),
    ("turn.secret_file", Kind::Text),
    ("upload.bucket", Kind::Text),
    ("upload.endpoint", Kind::Text),
    ("upload.access_key_id", Kind::Text),
    ("upload.secret_access_key", Kind::Text),
    ("upload.secret_access_key_file", Kind::Text),
];
/// Keys whose values are in no error and no log; an endpoint may contain a password by mistake.
pub(super) const NOT_SHOWN: [&str; 6] =
    ["auth.key", "auth.jwks", "turn.secret", "upload.access_key_id", "upload.secret_access_key", "upload.endpoint"];
/// Environment variables named like the corresponding flag, without the prefix.
const SHORT_NAMES: [(&str, &str); 7] = [
    ("HTTP", "http.bind"),
    ("TLS", "tls.mode"),
    ("PUBLIC_IP", "media.public_ips"),
    ("DATA_DIR", "data.dir"),
    ("KEY", "auth.key"),
    ("KEY_FILE", "auth.key_file"),
    ("INSECURE", "auth.insecure"),
];
/// Variables that the command line reads itself.
const NOT_KEYS: [&str; 2] = ["COMMINGLE_CONFIG", "COMMINGLE_LOG"];

/// One value from the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The key, `section.key`.
    pub key: String,
    /// The value as text; lists are separated by commas.
    pub value: String,
    /// The flag as written, for errors.
    pub flag: String,
}

/// Notation of a value as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Integer,
    Boolean,
    List,
}

/// Loads the configuration. `file` None means `./commingle.toml` if it exists. Variables of `env` are ignored unless
/// they begin with `COMMINGLE_` and a known section; Kubernetes sets others, for example `COMMINGLE_SERVICE_HOST`.
///
/// # Errors
/// All errors, each with its file and line, variable or flag.
pub fn load(
    file: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
    flags: &[Override],
) -> Result<Config, ConfigErrors> {
    let mut layers = Layers::default();
    match file {
        Some(path) => layers.read(path),
        None if Path::new(FILE).exists() => layers.read(Path::new(FILE)),
        None => {}
    }
    let mut env: Vec<_> = env.into_iter().collect();
    env.sort();
    for (name, text) in env {
        if let Some(key) = env_key(&name) {
            layers.set(&key, &text, Origin::Env(name));
        }
    }
    for Override { key, value, flag } in flags {
        layers.set(key, value, Origin::Flag(flag.clone()));
    }
    layers.finish()
}

/// Loads a configuration from the text of a file and from the variables and flags in its lines that begin with `$`.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(text: &str) {
    let mut layers = Layers::default();
    layers.read_text(Path::new("fuzz.toml"), text);
    for (name, value) in text.lines().filter_map(|line| line.strip_prefix('$')?.split_once('=')) {
        if let Some(key) = env_key(name) {
            layers.set(&key, value, Origin::Env(name.to_owned()));
        }
        layers.set(name, value, Origin::Flag(name.to_owned()));
    }
    if let Err(errors) = layers.finish() {
        assert!(!errors.to_string().is_empty(), "an error has a text");
    }
}

/// The key that a variable sets; None for a variable that is not ours.
fn env_key(name: &str) -> Option<String> {
    let name = name.strip_prefix(ENV_PREFIX)?;
    if let Some((_, key)) = SHORT_NAMES.iter().find(|(short, _)| *short == name) {
        return Some((*key).to_owned());
    }
    let (section, key) = name.split_once('_')?;
    let section = section.to_ascii_lowercase();
    defaults().contains_key(&section).then(|| format!("{section}.{}", key.to_ascii_lowercase()))
}

/// Variables with our prefix that set no key. The caller warns of them, because one may be a typing error.
pub fn unknown_variables(env: impl IntoIterator<Item = (String, String)>) -> Vec<String> {
    let ours = env.into_iter().map(|(name, _)| name).filter(|name| name.starts_with(ENV_PREFIX));
    ours.filter(|name| env_key(name).is_none() && !NOT_KEYS.contains(&name.as_str())).collect()
}

fn defaults() -> Table {
    Table::try_from(Config::default()).expect("the default configuration is plain data")
}

/// The notation of the value of `key`; None for an unknown key.
fn kind_of(key: &str) -> Option<Kind> {
    if let Some((_, kind)) = OPTIONAL.iter().find(|(name, _)| *name == key) {
        return Some(*kind);
    }
    let (section, name) = key.split_once('.')?;
    match defaults().get(section)?.get(name)? {
        Value::Integer(_) => Some(Kind::Integer),
        Value::Boolean(_) => Some(Kind::Boolean),
        Value::Array(_) => Some(Kind::List),
        _ => Some(Kind::Text),
    }
}

/// The valid values set so far with their origins, and the errors found.
#[derive(Default)]
struct Layers {
    values: Table,
    origins: BTreeMap<String, Origin>,
    errors: Vec<ConfigError>,
}

impl Layers {
    fn error(&mut self, origin: Origin, key: &str, reason: impl Into<String>) {
        self.errors.push(ConfigError::Value { origin, key: key.to_owned(), value: None, reason: reason.into() });
    }

    /// Reads a file. Each value is deserialized alone, so that one error does not hide the others.
    fn read(&mut self, path: &Path) {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let hint = "name a readable file with --config, or start from `commingle config print-default`";
                return self.errors.push(ConfigError::Read { path: path.into(), error, hint });
            }
        };
        self.read_text(path, &text);
    }

    /// Reads the text of the file `path`.
    fn read_text(&mut self, path: &Path, text: &str) {
        let at = |line| Origin::File(path.into(), line);
        let keys = keys_by_line(text);
        let (_, syntax) = DeTable::parse_recoverable(text);
        for error in &syntax {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            let above = keys.iter().filter(|(_, at)| **at <= line);
            let key = above.max_by_key(|(key, at)| (**at, key.len())).map_or("?", |(key, _)| key.as_str());
            self.error(at(line), key, error.message());
        }
        // Without syntax errors the text is a table.
        let values: Table = toml::from_str(text).unwrap_or_default();
        let line = |key: &str| keys.get(key).copied().unwrap_or(1);
        for (section, value) in values {
            let Value::Table(section_values) = value else {
                let reason = "is not in a section: write it below a line like `[http]`";
                self.error(at(line(&section)), &section, reason);
                continue;
            };
            if !defaults().contains_key(&section) {
                let known = defaults().keys().map(|name| format!("[{name}]")).collect::<Vec<_>>().join(", ");
                let reason = format!("there is no such section; the sections are {known}");
                self.error(at(line(&section)), &section, reason);
                continue;
            }
            for (name, value) in section_values {
                let key = format!("{section}.{name}");
                match self.insert(&section, &name, value) {
                    Ok(()) => drop(self.origins.insert(key.clone(), at(line(&key)))),
                    Err(reason) => self.error(at(line(&key)), &key, reason),
                }
            }
        }
    }

    /// Sets a value that deserializes.
    ///
    /// # Errors
    /// What is wrong with it; the value before it remains.
    fn insert(&mut self, section: &str, name: &str, value: Value) -> Result<(), String> {
        let only = Table::from_iter([(name.to_owned(), value.clone())]);
        let alone = Table::from_iter([(section.to_owned(), Value::Table(only))]);
        Config::deserialize_from(&alone).map_err(|error| error.message().to_owned())?;
        let values = self.values.entry(section).or_insert_with(|| Value::Table(Table::new()));
        values.as_table_mut().expect("sections are tables").insert(name.to_owned(), value);
        Ok(())
    }

    fn set(&mut self, key: &str, text: &str, origin: Origin) {
        match self.try_set(key, text) {
            Ok(()) => drop(self.origins.insert(key.to_owned(), origin)),
            Err(reason) => self.error(origin, key, reason),
        }
    }

    /// Sets a value written as text.
    ///
    /// # Errors
    /// What is wrong with it.
    fn try_set(&mut self, key: &str, text: &str) -> Result<(), String> {
        let unknown = "there is no such key; `commingle config print-default` shows all of them";
        let value = match kind_of(key).ok_or(unknown)? {
            Kind::Text => Value::String(text.to_owned()),
            Kind::Integer => {
                text.trim().parse().map(Value::Integer).map_err(|_| format!("`{text}` is not a number"))?
            }
            Kind::Boolean => {
                boolean(text).map(Value::Boolean).ok_or_else(|| format!("`{text}` is neither true nor false"))?
            }
            Kind::List => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
            }
        };
        let (section, name) = key.split_once('.').expect("kind_of knows only section.key");
        self.insert(section, name, value)
    }

    fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    fn finish(mut self) -> Result<Config, ConfigErrors> {
        // Each value is valid alone, and no section requires a key.
        let mut config = Config::deserialize_from(&self.values).expect("every value was deserialized before");
        let auth = &mut config.auth;
        let key_from = self.secret("auth.key", "auth.key_file", &mut auth.key, auth.key_file.as_deref());
        let jwks_from = self.secret("auth.jwks", "auth.jwks_file", &mut auth.jwks, auth.jwks_file.as_deref());
        let turn = &mut config.turn;
        self.secret("turn.secret", "turn.secret_file", &mut turn.secret, turn.secret_file.as_deref());
        let upload = &mut config.upload;
        let (value, file) = (&mut upload.secret_access_key, upload.secret_access_key_file.as_deref());
        self.secret("upload.secret_access_key", "upload.secret_access_key_file", value, file);
        for invalid in config.check() {
            let key = match invalid.key {
                "auth.key" => key_from,
                "auth.jwks" => jwks_from,
                key => key,
            };
            if self.is_reported(key) {
                continue;
            }
            let value = self.value(key);
            let origin = self.origin(key);
            self.errors.push(ConfigError::Value { origin, key: key.to_owned(), value, reason: invalid.reason });
        }
        self.check_files(&config);
        if self.errors.is_empty() { Ok(config) } else { Err(ConfigErrors(self.errors)) }
    }

    /// Whether a key has an error: its file cannot be read, and what stands in for its contents is no second error.
    fn is_reported(&self, key: &str) -> bool {
        self.errors.iter().any(|error| matches!(error, ConfigError::Value { key: reported, .. } if reported == key))
    }

    /// The value of a key as written in a file; None for secrets and for defaults.
    fn value(&self, key: &str) -> Option<String> {
        let (section, name) = key.split_once('.')?;
        let value = self.values.get(section)?.get(name)?;
        (!NOT_SHOWN.contains(&key)).then(|| value.to_string())
    }

    /// Checks that the files and folders that the configuration names can be read.
    fn check_files(&mut self, config: &Config) {
        let tls = &config.tls;
        let certificate = tls.mode == TlsMode::Files;
        let named = [
            ("tls.cert", tls.cert.as_deref().filter(|_| certificate)),
            ("tls.key", tls.key.as_deref().filter(|_| certificate)),
            ("tls.acme_root", tls.acme_root.as_deref().filter(|_| tls.mode == TlsMode::Acme)),
            ("inputs.media_dir", config.inputs.media_dir.as_deref()),
        ];
        for (key, path) in named {
            if let Some(path) = path
                && let Err(error) = fs::File::open(path)
            {
                let reason = format!("{}: {error}: name a file that this user can read", path.display());
                self.error(self.origin(key), key, reason);
            }
        }
    }

    /// Reads a secret from its file if one is named; returns the key that set the secret.
    fn secret(
        &mut self,
        key: &'static str,
        file_key: &'static str,
        value: &mut Option<Secret>,
        file: Option<&Path>,
    ) -> &'static str {
        let Some(path) = file else { return key };
        if value.is_some() {
            let reason = format!("{key} is set too ({}): keep one of the two", self.origin(key));
            self.error(self.origin(file_key), file_key, reason);
            return key;
        }
        match fs::read_to_string(path) {
            Ok(text) => *value = Some(Secret::from(text.trim().to_owned())),
            Err(error) => {
                let reason = format!("{}: {error}: name a file that this user can read", path.display());
                self.error(self.origin(file_key), file_key, reason);
                // Other checks see a secret, so that they do not report its absence.
                *value = Some(Secret::from("x".repeat(KEY_MIN_BYTES)));
            }
        }
        file_key
    }
}

impl Config {
    fn deserialize_from(values: &Table) -> Result<Self, toml::de::Error> {
        values.clone().try_into()
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text.trim() {
        "true" | "1" | "yes" => Some(true),
        "false" | "0" | "no" => Some(false),
        _ => None,
    }
}

/// The line of a byte offset, from 1.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}

/// The line of each key in the text; empty if the text is not TOML.
fn keys_by_line(text: &str) -> KeyLines {
    let mut lines = KeyLines::default();
    let (table, _) = DeTable::parse_recoverable(text);
    collect(table.get_ref(), "", text, &mut lines);
    lines
}

type KeyLines = BTreeMap<String, usize>;

fn collect(table: &DeTable<'_>, prefix: &str, text: &str, lines: &mut KeyLines) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        lines.insert(path.clone(), line_of(text, key.span().start));
        if let Some(inner) = value.get_ref().as_table() {
            collect(inner, &path, text, lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tempfile::NamedTempFile;

    use super::*;
    use crate::media::{Codec, Size};

    fn file(text: &str) -> NamedTempFile {
        let mut file = NamedTempFile::new().expect("a temporary file");
        file.write_all(text.as_bytes()).expect("a temporary file is writable");
        file
    }

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn flag(key: &str, value: &str) -> Override {
        Override { key: key.to_owned(), value: value.to_owned(), flag: format!("--set {key}={value}") }
    }

    fn error(text: &str, pairs: &[(&str, &str)], flags: &[Override]) -> String {
        load(Some(file(text).path()), env(pairs), flags).expect_err("must be refused").to_string()
    }

    #[test]
    fn later_layers_override_earlier_ones() {
        let text = "[rooms]\nmax_rooms = 3\nmax_participants = 4\nlinger_seconds = 5\n[video]\nfps = 20";
        let pairs =
            [("COMMINGLE_ROOMS_MAX_PARTICIPANTS", "40"), ("COMMINGLE_ROOMS_LINGER_SECONDS", "50"), ("HOME", "/")];
        let config = load(Some(file(text).path()), env(&pairs), &[flag("rooms.linger_seconds", "500")]).expect("valid");
        assert_eq!(config.rooms.max_rooms, 3, "from the file");
        assert_eq!(config.rooms.max_participants, 40, "the environment over the file");
        assert_eq!(config.rooms.linger_seconds, 500, "the flag over the environment");
        assert!(config.rooms.auto_create, "the default");
    }

    #[test]
    fn every_kind_of_value_is_read_from_text() {
        let pairs = [
            ("COMMINGLE_PUBLIC_IP", "203.0.113.7, 2001:db8::1"),
            ("COMMINGLE_VIDEO_CODECS", "h264"),
            ("COMMINGLE_VIDEO_CANVAS", "640x360"),
            ("COMMINGLE_ROOMS_AUTO_CREATE", "false"),
            ("COMMINGLE_HTTP", "[::1]:0"),
            ("COMMINGLE_TURN_PORT", "3478"),
        ];
        let config = load(Some(file("").path()), env(&pairs), &[]).expect("valid");
        assert_eq!(config.media.public_ips.len(), 2);
        assert_eq!(config.video.codecs, [Codec::H264]);
        assert_eq!(config.video.canvas, Size::new(640, 360));
        assert!(!config.rooms.auto_create);
        assert!(config.http.bind.is_ipv6());
        assert_eq!(config.turn.port, Some(3478));
    }

    #[test]
    fn an_error_in_a_file_names_line_and_key() {
        for (text, line, parts) in [
            ("\n[rooms]\nmax_rooms = \"many\"\n", 3, &["rooms.max_rooms", "expected u32"][..]),
            ("[rooms]\nmax_romms = 3\n", 2, &["rooms.max_romms", "unknown field", "max_rooms"]),
            ("[http]\nbind = \"here\"\n", 2, &["http.bind"]),
            ("[video]\nfps = 30\n\ncodecs = [\"vp8\", \"theora\"]\n", 4, &["video.codecs", "theora"]),
            ("[video]\ncanvas = \"1281x720\"\n", 2, &["video.canvas", "even"]),
            ("[video]\n# c\nfps = 0\n", 3, &["video.fps", "1 to 60"]),
            ("[limits]\njoins_burst = 0\n", 2, &["limits.joins_burst", "at least 1"]),
            ("[auth]\nkey = \"short\"\n", 2, &["auth.key", "32", "openssl"]),
            ("[http]\nbind = \"0.0.0.0:80\"\n", 2, &["http.bind", "--insecure", "key"]),
            ("[upload]\nendpoint = \"http://s3.example.org\"\n", 2, &["upload.endpoint", "allow_http"]),
            ("[upload]\nendpoint = \"https://me:secret@s3.example.org\"\n", 2, &["upload.endpoint", "without user"]),
            ("[tls]\nmode = \"files\"\n", 2, &["tls.mode", "tls.cert"]),
            ("[tls]\ncert = \"x\"\n", 2, &["tls.cert", "tls.key"]),
            ("[tls]\ncert = \"x\"\nkey = \"y\"\n", 2, &["tls.cert", "files"]),
            ("[tls]\nmode = \"acme\"\n", 2, &["tls.mode", "tls.names", "call.example.org"]),
            ("[tls]\nmode = \"acme\"\nnames = [\"*.example.org\"]\n", 3, &["tls.names", "TLS-ALPN-01"]),
            ("[tls]\nmode = \"on\"\n", 2, &["tls.mode", "self-signed"]),
            ("[turn]\nexternal = [\"http://x\"]\n", 2, &["turn.external", "turn:"]),
            ("[turn]\nexternal = [\"turn:x\"]\n", 2, &["turn.external", "turn.secret"]),
            ("[turn]\nsecret = \"short\"\n", 2, &["turn.secret", "openssl"]),
            ("[upload]\nprefix = \"/calls\"\n", 2, &["upload.prefix", "calls/"]),
            ("[upload]\naccess_key_id = \"AKIA\"\n", 2, &["upload.access_key_id", "secret_access_key"]),
            ("[upload]\npart_mib = 4\n", 2, &["upload.part_mib", "5 to 512"]),
            ("[http\n", 1, &[]),
        ] {
            let file = file(text);
            let message = load(Some(file.path()), env(&[]), &[]).expect_err(text).to_string();
            assert!(message.starts_with(&format!("{}:{line}: ", file.path().display())), "{text:?}: {message}");
            for part in parts {
                assert!(message.contains(part), "{text:?}: {message} lacks {part}");
            }
        }
    }

    #[test]
    fn an_error_names_the_variable_or_flag() {
        let message = error("", &[("COMMINGLE_VIDEO_FPS", "fast")], &[]);
        assert_eq!(message, "environment COMMINGLE_VIDEO_FPS: video.fps: `fast` is not a number");
        let message = error("", &[("COMMINGLE_VIDEO_FSP", "30")], &[]);
        assert!(message.starts_with("environment COMMINGLE_VIDEO_FSP: video.fsp: there is no such key"), "{message}");
        let message = error("", &[], &[flag("media.port", "70000")]);
        assert!(message.starts_with("--set media.port=70000: media.port: "), "{message}");
        let message = error("[http]\nbind=\"127.0.0.1:1\"", &[], &[flag("http.bind", "0.0.0.0:1")]);
        assert!(message.starts_with("--set http.bind=0.0.0.0:1: http.bind: without a key"), "{message}");
    }

    #[test]
    fn a_set_of_keys_is_read_from_its_file_and_serves_without_another_key() {
        let set = |text: &str| {
            let set = file(text);
            let config = format!("[http]\nbind = \"0.0.0.0:80\"\n[auth]\njwks_file = \"{}\"\n", set.path().display());
            (set, config)
        };
        let (_set, text) = set(r#"{"keys":[{"kty":"oct","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}]}"#);
        let config = load(Some(file(&text).path()), env(&[]), &[]).expect("valid");
        assert!(config.auth.has_key() && config.auth.key.is_none());
        let (_set, text) = set(r#"{"keys":[{"kty":"oct","k":"c2hvcnQ"}]}"#);
        let message = error(&text, &[], &[]);
        assert!(message.contains("auth.jwks_file: key 1 has 5 bytes") && !message.contains("c2hv"), "{message}");
        let message = error("[auth]\njwks_file = \"/nowhere/set\"", &[], &[]);
        assert!(message.contains("auth.jwks_file: /nowhere/set: No such file"), "{message}");
        assert!(!message.contains("errors:"), "one fault is one error: {message}");
    }

    #[test]
    fn all_errors_are_reported_with_their_values() {
        let text = "[video]\nfps = 0\ncanvas = 7\n[rooms]\nmax_romms = 3\n[rom]\nx = 1\n\
            [tls]\nmode = \"files\"\ncert = \"/nowhere/cert\"\nkey = \"/nowhere/key\"\n\
            [auth]\nkey_file = \"/nowhere/secret\"\n[http]\nbind = \"0.0.0.0:80\"\n[turn]\nsecret = \"tiny\"\n";
        let file = file(text);
        let pairs = [("COMMINGLE_ROOMS_AUTO_CREATE", "perhaps"), ("COMMINGLE_INPUTS_MEDIA_DIR", "/nowhere/media")];
        let errors = load(Some(file.path()), env(&pairs), &[flag("media.port", "70000")]).expect_err("invalid");
        let text = errors.to_string();
        for expected in [
            "the configuration has 11 errors:",
            ":2: video.fps: must be 1 to 60 (it is 0)",
            ":3: video.canvas: invalid type: integer `7`",
            ":5: rooms.max_romms: unknown field `max_romms`",
            ":6: rom: there is no such section; the sections are [",
            ":10: tls.cert: /nowhere/cert: No such file",
            ":11: tls.key: /nowhere/key: No such file",
            ":13: auth.key_file: /nowhere/secret: No such file",
            ":17: turn.secret: is too short",
            "environment COMMINGLE_ROOMS_AUTO_CREATE: rooms.auto_create: `perhaps` is neither true nor false",
            "environment COMMINGLE_INPUTS_MEDIA_DIR: inputs.media_dir: /nowhere/media: No such file",
            "--set media.port=70000: media.port: ",
        ] {
            assert!(text.contains(expected), "{text}\nlacks {expected}");
        }
        assert!(!text.contains("tiny"), "{text}");
        assert_eq!((errors.all().len(), text.lines().count()), (11, 12));
    }

    #[test]
    fn variables_of_unknown_sections_are_ignored() {
        let pairs = env(&[
            ("COMMINGLE_SERVICE_HOST", "10.0.0.1"),
            ("COMMINGLE_PORT", "tcp://10.0.0.1:80"),
            ("COMMINGLE_LOG", "x"),
        ]);
        assert_eq!(load(Some(file("").path()), pairs.clone(), &[]).expect("ignored"), Config::default());
        assert_eq!(unknown_variables(pairs), ["COMMINGLE_SERVICE_HOST", "COMMINGLE_PORT"]);
    }

    #[test]
    fn a_key_is_read_from_its_file_and_permits_other_addresses() {
        let key = file("0123456789abcdef0123456789abcdef\n");
        let text = format!("[http]\nbind = \"0.0.0.0:80\"\n[auth]\nkey_file = \"{}\"\n", key.path().display());
        let config = load(Some(file(&text).path()), env(&[]), &[]).expect("valid");
        assert_eq!(config.auth.key.expect("read").expose(), "0123456789abcdef0123456789abcdef");

        let message = error(&text, &[("COMMINGLE_AUTH_KEY", "x")], &[]);
        assert!(message.contains("auth.key_file") && message.contains("COMMINGLE_AUTH_KEY"), "{message}");
        let message = error("[auth]\nkey_file = \"/nowhere/key\"", &[], &[]);
        assert!(message.contains("/nowhere/key"), "{message}");
        let short = file("short");
        let message = error("", &[("COMMINGLE_KEY_FILE", &short.path().display().to_string())], &[]);
        assert!(message.starts_with("environment COMMINGLE_KEY_FILE: auth.key_file: the key has 5 bytes"), "{message}");
    }

    #[test]
    fn the_secret_of_the_store_is_read_from_a_file_or_the_environment() {
        let secret = file("shhh\n");
        let path = secret.path().display().to_string();
        let text = "[upload]\nbucket = \"b\"\naccess_key_id = \"AKIA\"\n";
        for pairs in
            [("COMMINGLE_UPLOAD_SECRET_ACCESS_KEY_FILE", path.as_str()), ("COMMINGLE_UPLOAD_SECRET_ACCESS_KEY", "shhh")]
        {
            let config = load(Some(file(text).path()), env(&[pairs]), &[]).expect("valid");
            assert_eq!(config.upload.secret_access_key.expect("read").expose(), "shhh");
        }
        let both = [flag("upload.secret_access_key", "x"), flag("upload.secret_access_key_file", &path)];
        let message = error(text, &[], &both);
        assert!(message.contains("keep one of the two"), "{message}");
        let message = error(text, &[], &[flag("upload.secret_access_key_file", "/nowhere/secret")]);
        assert!(message.contains("/nowhere/secret"), "{message}");
    }

    #[test]
    fn insecure_permits_other_addresses() {
        let config =
            load(Some(file("").path()), env(&[("COMMINGLE_INSECURE", "1")]), &[flag("http.bind", "0.0.0.0:1")]);
        assert!(config.expect("valid").auth.insecure);
    }

    #[test]
    fn a_named_file_must_exist() {
        let message = load(Some(Path::new("/nowhere.toml")), env(&[]), &[]).expect_err("missing").to_string();
        assert!(message.contains("/nowhere.toml") && message.contains("print-default"), "{message}");
    }
}
