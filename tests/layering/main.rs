//! Reads the paths in `src` and prints every one that breaks the rules of ARCHITECTURE.md: a module imports only from
//! rows above its own, some modules never meet, some crates have few importers, and no import cycle passes through a
//! folder.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use cycles::{File, cycles};
use document::Rules;
use source::{Root, declared_modules, linked_libraries, module_path, paths, tokens};

mod cycles;
mod document;
mod security;
mod source;

fn rules() -> Rules {
    Rules::parse(include_str!("../../ARCHITECTURE.md")).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_import_goes_up() {
    let rules = rules();
    let broken: Vec<String> = sources().iter().flat_map(|(file, text)| violations(&rules, file, text)).collect();
    assert!(broken.is_empty(), "{} imports break the layers:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn no_import_cycle_passes_through_a_folder() {
    let found = cycles(&sources());
    assert!(found.is_empty(), "{} import cycles:\n{}", found.len(), found.join("\n"));
}

#[test]
fn the_layer_table_and_the_crate_root_name_the_same_modules() {
    let rules = rules();
    let declared: HashSet<&str> = include_str!("../../src/lib.rs")
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub mod ")?.strip_suffix(';'))
        .chain(["main"])
        .collect();
    let in_rows: HashSet<&str> = rules.rows.iter().flat_map(|row| &row.modules).map(String::as_str).collect();
    assert_eq!(declared, in_rows, "src/lib.rs with main.rs, and the layer table of ARCHITECTURE.md");
}

#[test]
fn every_importer_in_the_crate_table_names_the_crate() {
    let rules = rules();
    let sources = sources();
    for importers in &rules.importers {
        for module in &importers.modules {
            let names = |(file, text): &File| {
                module_path(file).first() == Some(module)
                    && crates(file, text).any(|name| belongs(&name, &importers.name))
            };
            assert!(sources.iter().any(names), "{module} does not name the crate {}", importers.name);
        }
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
        ("http/mod.rs", "use prometheus_client::registry::Registry;", "http names the crate prometheus_client"),
        ("mixer/draw.rs", "\n#[link(name = \"yuv\")]\nunsafe extern \"C\" {}", "draw.rs:2: mixer names the crate yuv"),
        ("nowhere.rs", "use crate::id::RoomName;", "nowhere stands in no row"),
    ];
    let rules = rules();
    for (file, text, expected) in cases {
        let found = violations(&rules, Path::new(file), text);
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
        ("main.rs", "use commingle::cli; fn main() -> std::process::ExitCode { cli::run() }"),
        ("cli/mod.rs", "fn run() -> anyhow::Result<()> { f() }"),
        ("mixer/mod.rs", "fn f(audio: &crate::audio::Mix) { audio.rtc(); x::toml::y() }"),
    ];
    let rules = rules();
    for (file, text) in cases {
        assert_eq!(violations(&rules, Path::new(file), text), Vec::<String>::new(), "{file}: `{text}`");
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

/// Every source file, its path relative to `src`, and its text.
fn sources() -> Vec<File> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).expect("sources are readable");
        (file.strip_prefix(&src).expect("found below it").to_owned(), text)
    };
    rust_files(&src).into_iter().map(read).collect()
}

/// The texts of all files in `src` and `tests`.
fn sources_of_all_tests() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["src", "tests"].iter().flat_map(|folder| rust_files(&root.join(folder)));
    files.map(|file| fs::read_to_string(file).expect("sources are readable")).collect()
}

/// Every broken rule in one file, as `src/FILE:LINE: what and why`; `file` is relative to `src`.
fn violations(rules: &Rules, file: &Path, text: &str) -> Vec<String> {
    let own = module_path(file);
    // The crate root declares the modules and owns nothing.
    let Some(module) = own.first() else { return Vec::new() };
    let Some(row) = rules.row_of(module) else {
        return vec![format!("src/{}: {module} stands in no row of ARCHITECTURE.md's layer table", file.display())];
    };
    let names = names(&own, text);
    let complaints = names.iter().filter_map(|(name, line)| {
        let complaint = match name {
            Name::Module(imported) => forbidden_module(rules, module, row, imported),
            Name::Crate(name) => forbidden_crate(rules, module, name),
        }?;
        Some(format!("src/{}:{line}: {complaint}", file.display()))
    });
    complaints.collect()
}

/// The first segment of a path, and what it names.
enum Name {
    /// A module or an item of this crate's root.
    Module(String),
    Crate(String),
}

/// What a file names, with the line: modules of this crate, and names that may be other crates.
fn names(own: &[String], text: &str) -> Vec<(Name, usize)> {
    let tokens = tokens(text);
    let paths = paths(&tokens, own);
    let local: HashSet<String> = paths
        .iter()
        .filter(|path| path.root == Root::Crate)
        .filter_map(|path| path.segments.last())
        .chain(declared_modules(&tokens))
        .cloned()
        .collect();
    let of_paths = paths.into_iter().filter_map(|path| {
        let first = path.segments.into_iter().next()?;
        match path.root {
            Root::Crate => Some((Name::Module(first), path.line)),
            Root::Relative if local.contains(&first) => None,
            Root::Relative | Root::Extern => Some((Name::Crate(first), path.line)),
        }
    });
    let linked = linked_libraries(text).map(|(name, line)| (Name::Crate(name.into()), line));
    of_paths.chain(linked).collect()
}

fn crates(file: &Path, text: &str) -> impl Iterator<Item = String> {
    names(&module_path(file), text).into_iter().filter_map(|(name, _)| match name {
        Name::Crate(name) => Some(name),
        Name::Module(_) => None,
    })
}

fn forbidden_module(rules: &Rules, module: &str, row: usize, imported: &str) -> Option<String> {
    if imported == module {
        return None;
    }
    // Not a module of the crate's root: a macro or an item of lib.rs.
    let imported_row = rules.row_of(imported)?;
    let has = |names: &[String], name| names.iter().any(|other| other == name);
    if rules.never.iter().any(|never| has(&never.from, module) && has(&never.to, imported)) {
        return Some(format!("{module} imports {imported}: these two never meet"));
    }
    if imported_row < row || (imported_row == row && rules.rows[row].among_themselves) {
        return None;
    }
    let above: Vec<_> = rules.rows[..row].iter().flat_map(|row| &row.modules).map(String::as_str).collect();
    Some(format!("{module} imports {imported}: it may import only from rows above its own ({})", above.join(", ")))
}

/// Whether a name is a crate's, or begins with it and `_`.
fn belongs(name: &str, to: &str) -> bool {
    name.strip_prefix(to).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

fn forbidden_crate(rules: &Rules, module: &str, name: &str) -> Option<String> {
    let rule = rules
        .importers
        .iter()
        .filter(|importers| belongs(name, &importers.name))
        .max_by_key(|importers| importers.name.len())?;
    (!rule.modules.iter().any(|importer| importer == module))
        .then(|| format!("{module} names the crate {name}: only {} may", rule.modules.join(" and ")))
}
