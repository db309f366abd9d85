//! Reads the paths in `src` and prints every one that breaks the layers of ARCHITECTURE.md: a module imports only from
//! rows above its own, and some crates have a sole importer.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// One row of the table; a module may import from every row above its own.
struct Row {
    modules: &'static [&'static str],
    /// Whether the row's modules may import each other.
    peers: bool,
}

const ROWS: &[Row] = &[
    Row { modules: &["id", "time", "media", "plan", "secret"], peers: true },
    Row {
        modules: &["layout", "audio", "speaker", "tier", "jitter", "hls", "sdp", "destination", "container"],
        peers: false,
    },
    Row { modules: &["transport"], peers: false },
    Row { modules: &["room"], peers: false },
    Row { modules: &["link", "config", "metrics"], peers: false },
    Row { modules: &["pipeline", "codec"], peers: true },
    Row { modules: &["rtmp", "dial", "client"], peers: true },
    Row { modules: &["mixer"], peers: false },
    Row { modules: &["output", "input"], peers: false },
    Row { modules: &["net", "fanout", "process", "recordings"], peers: false },
    Row { modules: &["peer"], peers: false },
    Row { modules: &["rooms"], peers: false },
    Row { modules: &["http"], peers: false },
    Row { modules: &["bots"], peers: false },
    Row { modules: &["cli", "main"], peers: true },
];

/// Modules that load GStreamer: the serving process must not.
const MEDIA: &[&str] = &["mixer", "output", "input", "pipeline", "codec"];

/// Modules that never meet, whatever their rows: they are parts of different processes, or load what the other must not.
const NEVER: &[(&str, &[&str])] = &[
    ("net", MEDIA),
    ("fanout", MEDIA),
    ("process", MEDIA),
    ("recordings", MEDIA),
    ("peer", MEDIA),
    ("rooms", MEDIA),
    ("http", MEDIA),
    ("output", &["mixer"]),
    ("input", &["mixer"]),
    ("bots", &["net", "fanout", "process", "recordings", "peer", "rooms", "http"]),
    ("bots", &["mixer", "output", "input", "room", "link"]),
];

/// Crates that only some modules may name, with everything that begins with the same word and `_`.
const SOLE_IMPORTERS: &[(&str, &[&str])] = &[
    ("gstreamer", &["pipeline", "codec"]),
    ("opus", &["codec"]),
    ("rayon", &["mixer"]),
    ("webrtc", &["net", "peer"]),
    ("rtc", &["transport", "client", "net", "fanout", "peer", "http", "bots"]),
    ("ureq", &["bots", "client", "input"]),
    ("retina", &["input"]),
    ("axum", &["http"]),
    ("object_store", &["recordings"]),
    ("rml_rtmp", &["rtmp"]),
    ("rustls", &["dial", "net", "recordings"]),
    ("tokio_rustls", &["dial", "net"]),
    ("rcgen", &["net"]),
    ("url", &["destination"]),
    ("ipnet", &["destination"]),
    ("toml", &["config"]),
    ("anyhow", &["cli", "main"]),
    ("clap", &["cli", "main"]),
];

#[test]
fn every_import_goes_up() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut broken = Vec::new();
    for file in rust_files(&src) {
        let text = fs::read_to_string(&file).expect("sources are readable");
        let relative = file.strip_prefix(&src).expect("found below it");
        broken.extend(violations(relative, &text));
    }
    assert!(broken.is_empty(), "{} imports break the layers:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn every_module_has_a_row() {
    let lib = include_str!("../src/lib.rs");
    let declared = lib.lines().filter_map(|line| line.trim().strip_prefix("pub mod ")?.strip_suffix(';'));
    for module in declared {
        assert!(row_of(module).is_some(), "module `{module}` of src/lib.rs stands in no row of tests/layering.rs");
    }
}

#[test]
fn each_rule_is_caught() {
    let cases = [
        ("room/mod.rs", "use crate::link::Command;", "room imports link"),
        ("layout/grid.rs", "use crate::{id::RoomName, mixer::{run, compose}};", "layout imports mixer"),
        ("layout/mod.rs", "use crate::audio;", "layout imports audio"),
        ("id.rs", "fn f() -> crate::room::Room { todo() }", "id imports room"),
        ("peer/mod.rs", "use crate::mixer::Mixer;", "peer imports mixer"),
        ("rooms/mod.rs", "use crate::codec::opus::Decoder;", "rooms imports codec"),
        ("mixer/run.rs", "use crate::peer::Peer;", "mixer imports peer"),
        ("net/udp/mod.rs", "use crate::peer::Peer;", "net imports peer"),
        ("net/udp/mod.rs", "use crate::fanout::Subscriber;", "net imports fanout"),
        ("peer/mod.rs", "use crate::rooms::Rooms;", "peer imports rooms"),
        ("rooms/mod.rs", "use crate::http::problem::Problem;", "rooms imports http"),
        ("output/mod.rs", "use crate::mixer::run;", "output imports mixer"),
        ("bots/bot.rs", "use crate::net::udp::Mux;", "bots imports net"),
        ("bots/bot.rs", "use webrtc::runtime::Runtime;", "bots names the crate webrtc"),
        ("http/mod.rs", "use crate::bots::Plan;", "http imports bots"),
        ("http/mod.rs", "fn f() { ureq::get(url) }", "http names the crate ureq"),
        ("transport/ice.rs", "use crate::sdp::Offer; use crate::bots::Plan;", "transport imports bots"),
        ("time.rs", "use super::cli;", "time imports cli"),
        ("http/api/mod.rs", "use super::super::mixer::run;", "http imports mixer"),
        ("http/mod.rs", "mod tests { use super::super::mixer; }", "http imports mixer"),
        ("mixer/encode.rs", "let p = gstreamer::parse::launch(text)?;", "mixer names the crate gstreamer"),
        ("mixer/encode.rs", "use gstreamer_app as app;", "mixer names the crate gstreamer_app"),
        ("room/mod.rs", "use ::webrtc::peer_connection;", "room names the crate webrtc"),
        ("codec/vp8.rs", "use {rayon::prelude::*, std::fmt};", "codec names the crate rayon"),
        ("link/mod.rs", "fn f(r: rtc::Event) {}", "link names the crate rtc"),
        ("peer/mod.rs", "use opus::Encoder;", "peer names the crate opus"),
        ("mixer/mod.rs", "use axum::Router;", "mixer names the crate axum"),
        ("http/api.rs", "#[derive(clap::Args)] struct A;", "http names the crate clap"),
        ("config.rs", "fn f() -> anyhow::Result<()> { g() }", "config names the crate anyhow"),
        ("link/mod.rs", "use toml::Value;", "link names the crate toml"),
        ("nowhere.rs", "use crate::id::RoomName;", "nowhere stands in no row"),
    ];
    for (file, text, expected) in cases {
        let found = violations(Path::new(file), text);
        assert!(found.iter().any(|line| line.contains(expected)), "{file}: `{text}` gave {found:?}");
    }
}

#[test]
fn what_is_allowed_passes() {
    let cases = [
        ("link/mod.rs", "use crate::{id::RoomName, layout::Scene, media::{Codec, Size}, room::Input};"),
        ("room/mod.rs", "// use crate::link::Command;\n/* crate::edge */ const S: &str = \"crate::mixer::x\";"),
        ("room/state.rs", "use super::Input; mod tests { use super::*; use super::super::Input; }"),
        ("mixer/encode.rs", "use crate::codec::opus; fn f() { opus::encode() }"),
        ("codec/mod.rs", "mod opus; use crate::pipeline::Pipeline; fn f() { opus::Encoder::new(); gstreamer::init() }"),
        ("bots/secure.rs", "use crate::codec::Picture; use rtc::dtls::endpoint::Endpoint;"),
        ("peer/mod.rs", "use webrtc::x; use rtc::y; fn lifetimes<'a>(c: char) -> bool { c == '\"' }"),
        ("main.rs", "use commingle::cli; fn main() -> anyhow::Result<()> { cli::run() }"),
        ("mixer/mod.rs", "fn f(audio: &crate::audio::Mix) { audio.rtc(); x::toml::y() }"),
    ];
    for (file, text) in cases {
        assert_eq!(violations(Path::new(file), text), Vec::<String>::new(), "{file}: `{text}`");
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn row_of(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.modules.contains(&module))
}

/// Every broken rule in one file, as `src/FILE:LINE: what and why`; `file` is relative to `src`.
fn violations(file: &Path, text: &str) -> Vec<String> {
    let own = module_path(file);
    // The crate root declares the modules and owns nothing.
    let Some(module) = own.first() else { return Vec::new() };
    let Some(row) = row_of(module) else {
        return vec![format!("src/{}: {module} stands in no row of tests/layering.rs", file.display())];
    };
    let tokens = tokens(text);
    let paths = paths(&tokens, &own);
    let local: HashSet<&str> = paths
        .iter()
        .filter(|path| path.root == Root::Crate)
        .filter_map(|path| path.segments.last())
        .chain(declared_modules(&tokens))
        .map(String::as_str)
        .collect();

    let mut found = Vec::new();
    for path in &paths {
        let Some(first) = path.segments.first() else { continue };
        let complaint = match path.root {
            Root::Crate => forbidden_module(module, row, first),
            Root::Relative if local.contains(first.as_str()) => None,
            Root::Relative | Root::Extern => forbidden_crate(module, first),
        };
        if let Some(complaint) = complaint {
            found.push(format!("src/{}:{}: {complaint}", file.display(), path.line));
        }
    }
    found
}

fn forbidden_module(module: &str, row: usize, imported: &str) -> Option<String> {
    if imported == module {
        return None;
    }
    // Not a module of the crate's root: a macro or an item of lib.rs.
    let imported_row = row_of(imported)?;
    if NEVER.iter().any(|(from, to)| *from == module && to.contains(&imported)) {
        return Some(format!("{module} imports {imported}: these two never meet, other than in `link`"));
    }
    if imported_row < row || (imported_row == row && ROWS[row].peers) {
        return None;
    }
    let above: Vec<_> = ROWS[..row].iter().flat_map(|row| row.modules).copied().collect();
    Some(format!("{module} imports {imported}: it may import only from rows above its own ({})", above.join(", ")))
}

fn forbidden_crate(module: &str, name: &str) -> Option<String> {
    let (_, importers) = SOLE_IMPORTERS
        .iter()
        .filter(|(prefix, _)| name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('_')))
        .max_by_key(|(prefix, _)| prefix.len())?;
    (!importers.contains(&module))
        .then(|| format!("{module} names the crate {name}: only {} may", importers.join(" and ")))
}

/// `edge/api/mod.rs` → edge, api; `id.rs` → id; `lib.rs` → nothing.
fn module_path(file: &Path) -> Vec<String> {
    let mut segments: Vec<String> =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if segments.last().is_some_and(|last| last == "mod" || last == "lib") {
        segments.pop();
    }
    segments
}

#[derive(Debug, PartialEq, Eq)]
enum Root {
    /// Begins at this crate's root: `crate::`, `commingle::`, or enough `super::`.
    Crate,
    /// Begins with a name that is a crate or something in scope.
    Relative,
    /// `::name`, always a crate.
    Extern,
}

#[derive(Debug)]
struct Found {
    root: Root,
    segments: Vec<String>,
    line: usize,
}

/// Every path of two or more segments and every `use`, with groups written out.
fn paths(tokens: &[Token], own: &[String]) -> Vec<Found> {
    let mut found = Vec::new();
    // Names of the inline modules open at this point, and the brace depth at which each opened.
    let mut inline: Vec<usize> = Vec::new();
    let mut depth = 0usize;
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                if inline.last() == Some(&depth) {
                    inline.pop();
                }
            }
            "mod" if text_at(tokens, at + 2) == "{" => inline.push(depth),
            "use" => {
                let mut trees = Vec::new();
                at = use_tree(tokens, at + 1, &[], &mut trees);
                found.extend(trees.into_iter().filter_map(|path| resolve(path, own, inline.len())));
                continue;
            }
            _ => {
                if let Some((segments, next)) = path_at(tokens, at) {
                    found.extend(resolve(Raw { segments, line: tokens[at].line }, own, inline.len()));
                    at = next;
                    continue;
                }
            }
        }
        at += 1;
    }
    found
}

struct Raw {
    segments: Vec<String>,
    line: usize,
}

fn text_at(tokens: &[Token], at: usize) -> &str {
    tokens.get(at).map_or("", |token| &token.text)
}

/// The path of at least two segments that begins at this token, and where to go on.
fn path_at(tokens: &[Token], at: usize) -> Option<(Vec<String>, usize)> {
    let before = at.checked_sub(1).map_or("", |before| &tokens[before].text);
    // The middle of a path, a method, or the end of `<T as Trait>::name`.
    if matches!(before, "::" | "." | ">") && (before != ">" || tokens[at].text == "::") {
        return None;
    }
    let mut segments = Vec::new();
    let mut next = at;
    if tokens[at].text == "::" {
        segments.push("::".into());
        next += 1;
    }
    while let Some(token) = tokens.get(next).filter(|token| token.word) {
        segments.push(token.text.clone());
        next += 1;
        if text_at(tokens, next) != "::" || !tokens.get(next + 1).is_some_and(|after| after.word) {
            break;
        }
        next += 1;
    }
    (segments.len() > 1).then_some((segments, next))
}

/// Reads one tree of a `use` item into `out`; returns where to go on.
fn use_tree(tokens: &[Token], mut at: usize, prefix: &[String], out: &mut Vec<Raw>) -> usize {
    let mut segments = prefix.to_vec();
    let line = tokens.get(at).map_or(0, |token| token.line);
    while at < tokens.len() {
        let token = &tokens[at];
        match token.text.as_str() {
            "{" => {
                at += 1;
                while at < tokens.len() && tokens[at].text != "}" {
                    at = use_tree(tokens, at, &segments, out);
                    if text_at(tokens, at) == "," {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "as" => at += 2,
            "::" if segments.is_empty() => {
                segments.push("::".into());
                at += 1;
            }
            "," | "}" | ";" => break,
            _ => {
                if token.word {
                    segments.push(token.text.clone());
                }
                at += 1;
            }
        }
    }
    if segments.len() > prefix.len() {
        out.push(Raw { segments, line });
    }
    // Stay on `,` and `}` for the group around, step over the `;` that ends the item.
    if text_at(tokens, at) == ";" { at + 1 } else { at }
}

/// Turns `crate`, `self`, `super` and a leading `::` into where the path really begins.
fn resolve(raw: Raw, own: &[String], inline_modules: usize) -> Option<Found> {
    let Raw { segments, line } = raw;
    let first = segments.first()?.as_str();
    let found = |root, segments: &[String]| Some(Found { root, segments: segments.to_vec(), line });
    match first {
        "crate" | "commingle" => found(Root::Crate, &segments[1..]),
        "::" => found(Root::Extern, &segments[1..]),
        "self" | "super" => {
            let ups = segments.iter().take_while(|segment| *segment == "super").count();
            let rest = segments.iter().skip_while(|segment| *segment == "super" || *segment == "self");
            let kept = (own.len() + inline_modules).saturating_sub(ups).min(own.len());
            let absolute: Vec<String> = own[..kept].iter().chain(rest).cloned().collect();
            found(Root::Crate, &absolute)
        }
        _ => found(Root::Relative, &segments),
    }
}

fn declared_modules(tokens: &[Token]) -> impl Iterator<Item = &String> {
    tokens.windows(2).filter(|pair| pair[0].text == "mod" && pair[1].word).map(|pair| &pair[1].text)
}

#[derive(Debug)]
struct Token {
    text: String,
    /// An identifier or keyword, not punctuation.
    word: bool,
    line: usize,
}

/// Words, `::` and single punctuation marks; comments, strings, characters and lifetimes are left out.
fn tokens(text: &str) -> Vec<Token> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let rest = &text[at..];
        let next = match bytes[at] {
            b'/' if rest.starts_with("//") => at + rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => at + rest.find("*/").map_or(rest.len(), |end| end + 2),
            b'"' => at + string_length(rest),
            b'r' | b'b' if raw_string_length(rest).is_some() => at + raw_string_length(rest).expect("just asked"),
            b'\'' => at + quote_length(rest),
            byte if byte.is_ascii_alphabetic() || byte == b'_' => {
                let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
                out.push(Token { text: rest[..length].into(), word: true, line });
                at + length
            }
            b':' if rest.starts_with("::") => {
                out.push(Token { text: "::".into(), word: false, line });
                at + 2
            }
            byte => {
                if byte.is_ascii_punctuation() {
                    out.push(Token { text: (byte as char).into(), word: false, line });
                }
                at + rest.chars().next().expect("not at the end").len_utf8()
            }
        };
        line += text[at..next].matches('\n').count();
        at = next;
    }
    out
}

/// Length of the string literal at the beginning of `rest`, quotes included.
fn string_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Length of `r"…"`, `br#"…"#` and the like at the beginning of `rest`.
fn raw_string_length(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let prefix = rest.len() - body.len();
    Some(prefix + body.find(&end).map_or(body.len(), |at| at + end.len()))
}

/// Length of a character literal or a lifetime at the beginning of `rest`.
fn quote_length(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => rest[3..].find('\'').map_or(rest.len(), |end| end + 4),
        (_, Some((at, '\''))) => at + 1,
        _ => 1,
    }
}
