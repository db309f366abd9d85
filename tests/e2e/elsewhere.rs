//! External TURN servers: coturn with a shared secret.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use commingle::time;
use serde_json::json;

use crate::scenario::{list, number, play};
use crate::server::{Server, Settings, commingle};
use crate::turn;

const SECRET: &str = "0123456789abcdef";

/// A coturn server on loopback.
struct Coturn {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Coturn {
    fn start() -> Self {
        let port = free_port();
        let folder = tempfile::tempdir().expect("the temporary folder can be written");
        let file = |name: &str| folder.path().join(name).display().to_string();
        let child = Command::new("turnserver")
            .args(["-n", "--no-cli", "--no-tls", "--no-dtls", "--allow-loopback-peers", "--realm", "elsewhere"])
            .args(["--listening-ip", "127.0.0.1", "--relay-ip", "127.0.0.1", "--listening-port", &port.to_string()])
            .args(["--use-auth-secret", "--static-auth-secret", SECRET])
            .args(["--log-file", "stdout", "--pidfile", &file("pid"), "--userdb", &file("users")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("`make test` installs coturn");
        let from = time::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(time::now().since(from) < Duration::from_secs(10), "coturn does not listen");
            thread::park_timeout(Duration::from_millis(20));
        }
        Self { child, port, _folder: folder }
    }

    fn uris(&self) -> String {
        ["udp", "tcp"].map(|transport| format!("turn:127.0.0.1:{}?transport={transport}", self.port)).join(",")
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("it is bound").port()
}

/// A server without TURN that announces external TURN servers.
fn serve(external: &str, secret: &str) -> Server {
    let (external, secret) = (format!("turn.external={external}"), format!("turn.secret={secret}"));
    let arguments = ["--media-bind", "127.0.0.1", "--set", &secret, "--set", &external];
    Server::start_with(&Settings { arguments: &arguments, ..Settings::default() })
}

fn doctor(server: &Server) -> String {
    let output = commingle().args(["doctor", "--url", &server.url()]).output().expect("it was built");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn a_call_runs_over_an_external_turn_server() {
    let _turn = turn();
    let coturn = Coturn::start();
    let server = serve(&coturn.uris(), SECRET);
    let measured = play(&server.url(), "relayed_call", &["--transports", "udp,tcp", "--seconds", "2"]);
    assert_eq!(measured["ready"], true, "{measured}");
    for person in list(&measured, "/people") {
        assert_eq!(person["candidate"]["kind"], "relay", "{person}");
        assert_eq!(person["candidate"]["protocol"], person["transport"], "{person}");
        assert_eq!(person["tiles"], 2, "{person}");
        assert_eq!((&person["wrong_tiles"], &person["still_tiles"]), (&json!([]), &json!([])), "{person}");
        assert!(number(person, "/first_frame_ms") < 6_000.0, "{person}");
    }
    server.stop();
}

#[test]
fn the_doctor_diagnoses_external_turn_servers() {
    let _turn = turn();
    let coturn = Coturn::start();
    let server = serve(&coturn.uris(), SECRET);
    let said = doctor(&server);
    for by in ["UDP", "TCP"] {
        let line = format!("ok      TURN by {by} at 127.0.0.1:{}: answers after ", coturn.port);
        assert!(said.contains(&line), "no `{line}` in {said}");
    }
    server.stop();

    let nobody = free_port();
    let nowhere =
        format!("{},turn:127.0.0.1:{nobody}?transport=udp,turn:127.0.0.1:{nobody}?transport=tcp", coturn.uris());
    let server = serve(&nowhere, "another secret than theirs");
    let said = doctor(&server);
    for by in ["UDP", "TCP"] {
        for (port, wrong, mend) in [
            (coturn.port, "it refuses the credential (401)", "static-auth-secret"),
            (nobody, "nothing listens there", "check that it runs"),
        ] {
            let line = said.lines().find(|line| line.contains(&format!("TURN by {by} at 127.0.0.1:{port}: ")));
            let line = line.unwrap_or_else(|| panic!("nothing of {by} {port} in {said}"));
            assert!(line.starts_with("advice") && line.contains(wrong) && line.contains(mend), "{line}");
        }
    }
    server.stop();
}
