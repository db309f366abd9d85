//! `commingle doctor`: checks the machine and a running server, and prints one line per finding with what to do.
//!
//! Owns: the findings and their order. Does not know: how paths to a server are tested ([`crate::client::reach`]).

mod reach;

use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use clap::Args;
use rustix::fs::Access;
use rustix::process::{Resource, getrlimit};

use self::reach::ReachTest;
use super::{ConfigArgs, Failure, serve};
use crate::codec::{self, Feature, H264Encoder};
use crate::config::{self, Config, TlsMode};
use crate::dial;
use crate::id::RoomName;
use crate::link::sandbox;
use crate::media::Codec;
use crate::net::tls;

/// Size that the kernel should allow for UDP socket buffers, in bytes: half a second of a full server.
const SOCKET_BUFFER: u64 = 4 << 20;
/// Open files that a full server needs: connections, mixers, WebSockets.
const OPEN_FILES: u64 = 4096;

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Check a server that runs elsewhere, from here, as a client that joins it
    ///
    /// Tests HTTP and each path to the media: UDP, TCP, TURN. Without it the machine itself is checked, and the server
    /// on it, where one runs. If the server has a key, give the key as for `serve`.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The room that is joined and left
    #[arg(long, value_name = "ROOM", default_value = "doctor")]
    room: RoomName,
}

/// The result of one check.
enum Finding {
    /// As it should be.
    Good(String),
    /// It works, but could be better.
    Advice(String),
    /// It will not work.
    Bad(String),
}

pub(super) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let config = args.config.load(Vec::new())?;
    let key = config.auth.key.as_ref();
    let mut found: Vec<_> = own_certificate(&config).into_iter().collect();
    match &args.url {
        Some(url) => found.extend(reach::findings(&ReachTest { url, room: &args.room, key })),
        None => found.extend(findings(&config, &args.room)),
    }
    let mut out = io::stdout().lock();
    let mut bad = 0;
    for (what, finding) in found {
        let (mark, text) = match finding {
            Finding::Good(text) => ("ok    ", text),
            Finding::Advice(text) => ("advice", text),
            Finding::Bad(text) => {
                bad += 1;
                ("WRONG ", text)
            }
        };
        writeln!(out, "{mark}  {what}: {text}")?;
    }
    if bad > 0 {
        return Err(Failure::Running(anyhow::anyhow!("{bad} of these must be fixed before commingle can serve")));
    }
    Ok(())
}

/// The self-signed certificate of the server on this machine, or the root of a private authority; it is trusted from
/// now on, as its file is the operator's.
fn own_certificate(config: &Config) -> Option<(String, Finding)> {
    let file = match (config.tls.mode, &config.tls.acme_root) {
        (TlsMode::SelfSigned, _) => tls::self_signed_certificate(&config.data.dir),
        (TlsMode::Acme, Some(root)) => root.clone(),
        _ => return None,
    };
    let finding = match dial::certificates_of(&file) {
        Ok(certificates) => {
            dial::trust(certificates);
            let whose = if config.tls.mode == TlsMode::Acme { "the authority's" } else { "self-signed" };
            Finding::Good(format!("{} is {whose}: trusted here, but browsers show a warning", file.display()))
        }
        Err(_) if config.tls.mode == TlsMode::SelfSigned && !file.exists() => {
            Finding::Good(format!("{} is created at the first start with this data.dir", file.display()))
        }
        Err(why) => Finding::Advice(format!("{why}; a server with this certificate is not trusted here")),
    };
    Some(("certificate".to_owned(), finding))
}

/// Findings about the machine, and about the server on it where one runs.
fn findings(config: &Config, room: &RoomName) -> Vec<(String, Finding)> {
    let mut found = vec![
        ("GStreamer", gstreamer(&config.video)),
        ("receive buffer", socket_buffer("net.core.rmem_max")),
        ("send buffer", socket_buffer("net.core.wmem_max")),
        ("open files", open_files()),
        ("recordings", folder(&config.data.dir)),
        ("tokens", key(config)),
    ];
    found.extend(sandbox(&sandbox::support()));
    let http = port(config.http.bind, "--http", |address| TcpListener::bind(address).map(drop));
    let mut reached = Vec::new();
    if matches!(http, Finding::Bad(_)) {
        let url = serve::page(config.http.bind, config);
        reached = reach::findings(&ReachTest { url: &url, room, key: config.auth.key.as_ref() });
    }
    if matches!(reached[..], [] | [(_, Finding::Bad(_))]) {
        // No server of ours runs: its ports must be free.
        let media = SocketAddr::new(config.media.bind, config.media.port);
        found.push(("HTTP", http));
        found.push(("media", port(media, "--media-port", |address| UdpSocket::bind(address).map(drop))));
        if config.media.tcp {
            let bind = |address| TcpListener::bind(address).map(drop);
            found.push(("media by TCP", port(media, "--media-port", bind)));
        }
    }
    found.into_iter().map(|(what, finding)| (what.to_owned(), finding)).chain(reached).collect()
}

/// Missing elements are wrong where the configuration uses them, and advice otherwise.
fn gstreamer(video: &config::Video) -> Finding {
    if let Err(error) = codec::init() {
        return Finding::Bad(error.to_string());
    }
    let h264 = match video.h264_encoder {
        config::H264Encoder::X264 => H264Encoder::X264,
        config::H264Encoder::OpenH264 => H264Encoder::OpenH264,
    };
    let configured = |feature: &Feature| match feature {
        Feature::Decode(codec) => video.codecs.contains(codec),
        Feature::Encode(codec, encoder) => video.codecs.contains(codec) && (*codec != Codec::H264 || *encoder == h264),
        Feature::Aac | Feature::SendSrt => false,
    };
    let (needed, optional): (Vec<_>, Vec<_>) = Feature::ALL.into_iter().partition(configured);
    let (needed, optional) = (codec::missing(needed), codec::missing(optional));
    if !needed.is_empty() {
        Finding::Bad(needed.join("; "))
    } else if !optional.is_empty() {
        Finding::Advice(optional.join("; "))
    } else {
        Finding::Good(format!("every element that is needed is installed: {}", codec::versions()))
    }
}

fn port(address: SocketAddr, flag: &str, bind: impl FnOnce(SocketAddr) -> io::Result<()>) -> Finding {
    match bind(address) {
        Ok(()) => Finding::Good(format!("{address} is free")),
        Err(error) => Finding::Bad(format!(
            "cannot bind {address}: {error}; stop the process that uses it, or choose another by {flag}"
        )),
    }
}

fn socket_buffer(key: &str) -> Finding {
    let path = format!("/proc/sys/{}", key.replace('.', "/"));
    match fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u64>().ok()) {
        Some(bytes) if bytes >= SOCKET_BUFFER => Finding::Good(format!("{key} is {bytes}")),
        Some(bytes) => Finding::Advice(format!(
            "{key} is {bytes}: packets may be lost in large rooms; sudo sysctl -w {key}={SOCKET_BUFFER}"
        )),
        None => Finding::Advice(format!("{path} cannot be read; {key} should be at least {SOCKET_BUFFER}")),
    }
}

fn open_files() -> Finding {
    match getrlimit(Resource::Nofile).current {
        Some(files) if files < OPEN_FILES => Finding::Advice(format!(
            "only {files} allowed: `ulimit -n {OPEN_FILES}`, or LimitNOFILE={OPEN_FILES} in the systemd unit"
        )),
        Some(files) => Finding::Good(format!("{files} allowed")),
        None => Finding::Good("unlimited".to_owned()),
    }
}

/// Whether the folder can be written, or the nearest existing one above it, in which it is created.
fn folder(dir: &Path) -> Finding {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let existing = absolute.ancestors().find(|path| path.exists()).unwrap_or(&absolute);
    match rustix::fs::access(existing, Access::WRITE_OK) {
        Ok(()) => Finding::Good(format!("{} can be written", absolute.display())),
        Err(error) => Finding::Advice(format!(
            "{} cannot be written ({error}): recordings need it; choose another by --data-dir, or change its owner",
            existing.display()
        )),
    }
}

/// What limits code execution in a mixer, output or input on this machine.
fn sandbox(support: &sandbox::Support) -> [(&'static str, Finding); 3] {
    let part = |result: &Result<(), String>, good: &str, without: &str| match result {
        Ok(()) => Finding::Good(good.to_owned()),
        Err(why) => Finding::Advice(format!("{why}: mixers, outputs and inputs run without it; {without}")),
    };
    let user = if support.own_user {
        Finding::Good("mixers, broadcasts and streams run as the user nobody".to_owned())
    } else {
        Finding::Good("mixers, outputs and inputs run as the user of the server, without capabilities".to_owned())
    };
    [
        (
            "files of processes",
            part(
                &support.files,
                "limited by Landlock",
                "use Linux 5.13 or newer with `landlock` in the kernel parameter `lsm`",
            ),
        ),
        ("calls of processes", part(&support.calls, "limited by seccomp", "use a kernel with CONFIG_SECCOMP_FILTER")),
        ("user of processes", user),
    ]
}

fn key(config: &Config) -> Finding {
    let secure = config.auth.has_key();
    match (secure, config.http.bind.ip().is_loopback()) {
        (true, _) => Finding::Good("there is a key".to_owned()),
        (false, true) => {
            Finding::Good("no key: only this machine is served, and every user of it is an operator".to_owned())
        }
        (false, false) => Finding::Advice(
            "no key, and other machines are served (auth.insecure): everyone may join and moderate; create a key with \
             `openssl rand -base64 32`"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_wrong_and_names_the_flag() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let address = taken.local_addr().expect("it is bound");
        let bind = |address: SocketAddr| TcpListener::bind(address).map(drop);
        assert!(matches!(port(address, "--http", bind), Finding::Bad(text) if text.contains("--http")));
        drop(taken);
        assert!(matches!(port(address, "--http", bind), Finding::Good(_)));
    }

    #[test]
    fn gstreamer_and_its_plugins_are_named_with_their_versions() {
        let Finding::Good(text) = gstreamer(&config::Video::default()) else {
            panic!("these tests need GStreamer: scripts/setup.sh")
        };
        for name in ["GStreamer", "app", "vpx", "x264", "openh264"] {
            let (_, version) = text.split_once(&format!(" {name} ")).unwrap_or_else(|| panic!("no {name} in {text}"));
            assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{name} has no version in {text}");
        }
    }

    #[test]
    fn parts_of_the_sandbox_that_the_machine_lacks_are_named_with_the_fix() {
        let lacking = || Err("not supported".to_owned());
        let lines = |support| {
            sandbox(&support).map(|(_, finding)| match finding {
                Finding::Good(text) => text,
                Finding::Advice(text) => format!("advice: {text}"),
                Finding::Bad(text) => panic!("{text}"),
            })
        };
        let [files, calls, user] = lines(sandbox::Support { files: lacking(), calls: lacking(), own_user: false });
        assert!(files.starts_with("advice: not supported") && files.contains("lsm"), "{files}");
        assert!(calls.starts_with("advice: not supported") && calls.contains("CONFIG_SECCOMP_FILTER"), "{calls}");
        assert!(user.contains("the user of the server"), "{user}");
        let [files, calls, user] = lines(sandbox::Support { files: Ok(()), calls: Ok(()), own_user: true });
        assert!(files.contains("Landlock") && calls.contains("seccomp") && user.contains("nobody"));
    }

    #[test]
    fn a_missing_folder_is_judged_by_its_parent() {
        let dir = tempfile::tempdir().expect("the temporary folder can be written");
        assert!(matches!(folder(&dir.path().join("a/b")), Finding::Good(_)));
    }
}
