//! Broadcasts to third-party servers: nginx with its RTMP module, srt-tools, ffmpeg; and by WHIP to a second
//! commingle. All run at once from one call; each far end is killed once and restarted.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::http::{Reply, get, request};
use crate::scenario::{list, number};
use crate::server::{Server, Settings, commingle};
use crate::turn;

/// A secret that must never be shown.
const KEY: &str = "s3cr3t-key";
const PASSPHRASE: &str = "s3cr3t-passphrase";
/// Time limit of every wait: a lost far end is detected and retried after a delay.
const SOON: Duration = Duration::from_secs(20);
/// Interval between two checks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Waits; nothing is ever sent on the channel.
fn wait(time: Duration) {
    let (_open, never) = sync_channel::<()>(0);
    let _ = never.recv_timeout(time);
}

fn tcp_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

/// An even port followed by three free ports.
fn udp_ports() -> u16 {
    let free = |port: u16| UdpSocket::bind(("127.0.0.1", port)).is_ok();
    let first =
        || UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port() & !1;
    let ports = std::iter::repeat_with(first).take(100);
    ports.into_iter().find(|port| *port < 65_000 && (*port..*port + 4).all(free)).expect("four free ports")
}

/// A process that is killed when dropped.
struct Peer(Child);

impl Peer {
    fn start(command: &mut Command) -> Self {
        let program = command.get_program().to_owned();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| panic!("{program:?} does not start ({error}): scripts/setup.sh test")))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// nginx with two RTMP applications, one open and one that refuses everything; also with TLS.
fn nginx(folder: &Path, port: u16, tls_port: u16) -> Peer {
    let at = folder.display();
    let modules = "/usr/lib/nginx/modules";
    let configuration = format!(
        "daemon off; master_process off; pid {at}/nginx.pid; error_log {at}/error.log info;\n\
         load_module {modules}/ngx_rtmp_module.so; load_module {modules}/ngx_stream_module.so;\n\
         events {{ worker_connections 64; }}\n\
         stream {{ server {{ listen 127.0.0.1:{tls_port} ssl; proxy_pass 127.0.0.1:{port};\n\
         ssl_certificate {at}/cert.pem; ssl_certificate_key {at}/key.pem; }} }}\n\
         rtmp {{ server {{ listen 127.0.0.1:{port};\n\
         application live {{ live on; }} application closed {{ live on; deny publish all; }} }} }}\n"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, configuration).expect("writable");
    let log = folder.join("error.log");
    Peer::start(Command::new("/usr/sbin/nginx").arg("-c").arg(file).arg("-e").arg(log).arg("-p").arg(folder))
}

/// A self-signed certificate for this machine.
fn certificate(folder: &Path) -> String {
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let [cert, key] = [&cert, &key].map(|path| path.to_str().expect("a plain name"));
    let request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let names = [
        "-subj",
        "/CN=test",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ];
    let made = run("openssl", &[&request[..], &names, &["-out", cert, "-keyout", key]].concat());
    assert!(made.status.success(), "{made:?}");
    cert.to_owned()
}

/// Receives SRT and writes it to a file.
fn srt_receiver(port: u16, file: &Path) -> Peer {
    let from = format!("srt://127.0.0.1:{port}?mode=listener&passphrase={PASSPHRASE}");
    let out = fs::File::create(file).expect("writable");
    let mut command = Command::new("srt-live-transmit");
    command.args(["-q", &from, "file://con"]);
    let child = command.stdin(Stdio::null()).stdout(out).stderr(Stdio::null()).spawn();
    Peer(child.unwrap_or_else(|error| panic!("srt-live-transmit does not start ({error}): scripts/setup.sh test")))
}

fn broadcasts(server: &Server) -> String {
    format!("{}/v1/rooms/show/broadcasts", server.url())
}

fn post(server: &Server, body: &Value) -> Reply {
    let url = broadcasts(server);
    request("POST", &url, &[("content-type", "application/json")], &body.to_string())
}

/// Starts a broadcast; returns its id.
fn start(server: &Server, url: &str) -> String {
    let reply = post(server, &json!({ "url": url }));
    assert_eq!(reply.status, 201, "{url}: {reply:?}");
    reply.json()["id"].as_str().expect("an id").to_owned()
}

fn look(server: &Server, id: &str) -> Value {
    get(&format!("{}/{id}", broadcasts(server))).json()
}

/// Waits until a broadcast has the wanted state.
fn until(server: &Server, id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..SOON.as_millis() / LOOK_EVERY.as_millis() {
        let now = look(server, id);
        if wanted(&now) {
            return now;
        }
        wait(LOOK_EVERY);
    }
    panic!("not {what}: {}\n{}", look(server, id), server.log());
}

fn is_live(broadcast: &Value) -> bool {
    broadcast["state"] == "live" && number(broadcast, "/bitrate") > 0.0
}

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| panic!("{program} does not start ({error}): scripts/setup.sh test"))
}

/// Copies a few seconds of a stream to a file and decodes them without errors; returns ffprobe's list of streams.
fn take(from: &[&str], file: &Path) -> Value {
    let file = file.to_str().expect("a plain name");
    let copied = run("ffmpeg", &[&["-v", "error", "-y"], from, &["-t", "3", "-c", "copy", file]].concat());
    assert!(copied.status.success(), "{from:?}: {copied:?}");
    decoded(file)
}

fn decoded(file: &str) -> Value {
    let output = run("ffmpeg", &["-v", "error", "-i", file, "-f", "null", "-"]);
    // An RTP receiver shifts its timestamps when the first sender report arrives.
    let complaints = String::from_utf8_lossy(&output.stderr);
    let moved = ["non monotonically increasing dts", "Last message repeated"];
    let broken = complaints.lines().any(|line| !moved.iter().any(|known| line.contains(known)));
    assert!(output.status.success() && !broken, "{file}: {output:?}");
    let output = run("ffprobe", &["-v", "error", "-of", "json", "-show_streams", "-show_format", file]);
    serde_json::from_slice(&output.stdout).expect("ffprobe prints JSON")
}

/// Asserts that there are video and audio which start within 100 ms of each other.
fn assert_whole(what: &str, probed: &Value, sound: &str) {
    let stream = |codec: &str| {
        let found = list(probed, "/streams").iter().find(|stream| stream["codec_name"] == codec);
        found.unwrap_or_else(|| panic!("{what}: no {codec} in {probed}"))
    };
    assert_eq!((&stream("h264")["width"], &stream("h264")["height"]), (&json!(1280), &json!(720)), "{what}");
    assert_eq!(stream(sound)["sample_rate"], "48000", "{what}");
}

#[test]
fn all_broadcast_protocols_run_at_once_and_reconnect_after_a_kill() {
    let _turn = turn();
    let folder = tempfile::tempdir().expect("writable");
    let at = |name: &str| folder.path().join(name);
    let arguments = ["--set", "outputs.allow_private=true"];
    let certificate = certificate(folder.path());
    let environment = [("SSL_CERT_FILE", certificate.as_str())];
    let server =
        Server::start_with(&Settings { arguments: &arguments, environment: &environment, ..Settings::default() });
    let mut far = Server::start();
    let talking = commingle()
        .args(["bots", "--url", &server.url(), "--room", "show", "--participants", "2", "--seconds", "600", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let (rtmp_port, tls_port, nobody) = (tcp_port(), tcp_port(), tcp_port());
    let (srt_port, pull_port, rtp_port) = (udp_ports(), udp_ports(), udp_ports());
    let web = nginx(folder.path(), rtmp_port, tls_port);
    let receiver = srt_receiver(srt_port, &at("first.ts"));
    for _ in 0..100 {
        if get(&format!("{}/v1/rooms/show", server.url())).status == 200 {
            break;
        }
        wait(LOOK_EVERY);
    }

    let rtmp = start(&server, &format!("rtmp://127.0.0.1:{rtmp_port}/live/{KEY}"));
    let rtmps = start(&server, &format!("rtmps://127.0.0.1:{tls_port}/live/tls-{KEY}"));
    let srt = start(&server, &format!("srt://127.0.0.1:{srt_port}?passphrase={PASSPHRASE}&latency=200"));
    let waits = start(&server, &format!("srt://127.0.0.1:{pull_port}?mode=listener&passphrase={PASSPHRASE}"));
    let whip = start(&server, &format!("whip+http://{}/whip/far", far.http));
    let rtp = start(&server, &format!("rtp://127.0.0.1:{rtp_port}"));
    let refused = start(&server, &format!("rtmp://127.0.0.1:{rtmp_port}/closed/{KEY}"));
    let lonely = start(&server, &format!("rtmp://127.0.0.1:{nobody}/live/{KEY}"));
    for id in [&rtmp, &rtmps, &srt, &whip, &rtp] {
        until(&server, id, "live", is_live);
    }

    // All far ends receive playable media.
    let url = format!("rtmp://127.0.0.1:{rtmp_port}/live/{KEY}");
    assert_whole("RTMP", &take(&["-i", &url], &at("taken.flv")), "aac");
    let url = format!("rtmp://127.0.0.1:{rtmp_port}/live/tls-{KEY}");
    assert_whole("RTMPS", &take(&["-i", &url], &at("tls.flv")), "aac");
    let url = format!("srt://127.0.0.1:{pull_port}?passphrase={PASSPHRASE}");
    assert_whole("SRT from us", &take(&["-i", &url], &at("taken.ts")), "aac");
    let sdp = look(&server, &rtp)["sdp"].as_str().expect("how to play it").to_owned();
    fs::write(at("rtp.sdp"), sdp).expect("writable");
    let description = at("rtp.sdp");
    let play = ["-protocol_whitelist", "file,udp,rtp", "-i", description.to_str().expect("plain")];
    assert_whole("RTP", &take(&play, &at("taken.mkv")), "opus");
    let there = get(&format!("{}/v1/rooms/far", far.url())).json();
    assert_eq!(list(&there, "/participants").len(), 1, "the broadcast is a participant there: {there}");
    assert_eq!(list(&there, "/views/0/tiles").len(), 1, "it has a tile there: {there}");

    // Refused and missing far ends have a reason.
    let refused = until(&server, &refused, "failed", |broadcast| broadcast["state"] == "failed");
    assert!(refused["reason"].as_str().is_some_and(|why| why.contains("stream key")), "{refused}");
    let lonely = look(&server, &lonely);
    let why = lonely["reason"].as_str().unwrap_or_default();
    assert!(lonely["state"] == "reconnecting" && why.contains("nothing listens there"), "{lonely}");

    // All far ends are killed and restarted.
    drop(web);
    drop(receiver);
    far.crash_and_restart();
    let gone = |id: &str| until(&server, id, "gone", |broadcast| broadcast["state"] == "reconnecting");
    gone(&rtmp);
    let _web = nginx(folder.path(), rtmp_port, tls_port);
    gone(&srt);
    let receiver = srt_receiver(srt_port, &at("second.ts"));
    gone(&whip);
    for id in [&rtmp, &srt, &whip] {
        let back =
            until(&server, id, "back", |broadcast| is_live(broadcast) && number(broadcast, "/reconnects") >= 1.0);
        println!("{back}");
    }
    let url = format!("rtmp://127.0.0.1:{rtmp_port}/live/{KEY}");
    assert_whole("RTMP again", &take(&["-i", &url], &at("again.flv")), "aac");

    for id in [&rtmp, &rtmps, &srt, &waits, &whip, &rtp] {
        let stopped = request("DELETE", &format!("{}/{id}", broadcasts(&server)), &[], "");
        assert_eq!(stopped.status, 200, "{stopped:?}");
        until(&server, id, "finished", |broadcast| broadcast["state"] == "finished");
    }
    drop(receiver);
    let received = at("second.ts");
    assert_whole("SRT", &take(&["-i", received.to_str().expect("plain")], &at("second.mkv")), "aac");

    // The call was not disturbed, and no secret was shown.
    kill_process(Pid::from_child(&talking), Signal::INT).expect("it runs");
    let talked = talking.wait_with_output().expect("it is ours");
    assert_eq!(talked.status.code(), Some(0), "{talked:?}");
    let report: Value = serde_json::from_slice(&talked.stdout).expect("--json prints JSON");
    let [call] = list(&report, "/groups") else { panic!("one group: {report}") };
    assert!(number(call, "/loss_percent") < 0.5, "{call}");
    let room = get(&format!("{}/v1/rooms/show", server.url())).body;
    for (what, text) in [("the room", &room), ("the log", &server.log())] {
        assert!(!text.contains("s3cr3t"), "a secret in {what}: {text}");
    }
    server.stop();
    far.stop();
}

#[test]
fn forbidden_broadcast_destinations_are_refused() {
    let _turn = turn();
    let server = Server::start();
    let made = request(
        "POST",
        &format!("{}/v1/rooms", server.url()),
        &[("content-type", "application/json")],
        "{\"name\":\"show\"}",
    );
    assert_eq!(made.status, 201, "{made:?}");
    for url in [
        "rtmp://127.0.0.1/live/s3cr3t",
        "rtmp://2130706433/live/s3cr3t",
        "whip+http://[::ffff:169.254.169.254]/s3cr3t",
        "srt://10.0.0.1:9000?passphrase=s3cr3t-passphrase",
        "rtp://224.0.0.1:5004",
        "ftp://example.org/s3cr3t",
        "rtmp://example.org/s3cr3t/",
        "file:///etc/s3cr3t",
    ] {
        let reply = post(&server, &json!({ "url": url }));
        reply.assert_problem(url, &[422]);
        assert!(!reply.body.contains("s3cr3t"), "{url}: {reply:?}");
    }
    // A host name is resolved by the output process.
    let id = start(&server, "rtmp://localhost/live/s3cr3t");
    let failed = until(&server, &id, "failed", |broadcast| broadcast["state"] == "failed");
    assert!(failed["reason"].as_str().is_some_and(|why| why.contains("allow_private")), "{failed}");
    server.stop();
}
