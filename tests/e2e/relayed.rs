//! TURN and TLS: coturn's clients against our server, calls over TURN only, and the doctor's checks of all network
//! paths.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::http::{Offer, counted, post_offer};
use crate::scenario::{list, number, play};
use crate::server::{Server, Settings, commingle};
use crate::turn;

/// The TURN server in the `Link` headers of a join.
struct Relay {
    port: String,
    username: String,
    password: String,
}

/// A server with TURN on a free port, and a credential for it.
fn serve(arguments: &[&str]) -> (Server, Relay) {
    let server = Server::start_with(&Settings { arguments, turn: true, ..Settings::default() });
    let relay = join(&server);
    (server, relay)
}

/// The TURN server and credential of a new join. The credential lives as long as the session: some seconds without a
/// connection.
fn join(server: &Server) -> Relay {
    let joined = post_offer(&format!("{}/v1/rooms/relayed/participants", server.url()), &Offer::default().sdp());
    assert_eq!(joined.status, 201, "{joined:?}");
    let links = joined.headers.get_all("link").iter().map(|link| link.to_str().expect("text").to_owned());
    let link = links.into_iter().find(|link| link.starts_with("<turn:127.0.0.1:") && link.contains("transport=udp"));
    let link = link.unwrap_or_else(|| panic!("no TURN server is named: {joined:?}"));
    let part = |before: &str, after: &str| {
        let (_, rest) = link.split_once(before).unwrap_or_else(|| panic!("no {before} in {link}"));
        rest.split(after).next().expect("it ends").to_owned()
    };
    Relay {
        port: part("<turn:127.0.0.1:", "?"),
        username: part("username=\"", "\""),
        password: part("credential=\"", "\""),
    }
}

/// The media address of a server.
fn peer(server: &Server) -> SocketAddr {
    let joined = post_offer(&format!("{}/v1/rooms/relayed/participants", server.url()), &Offer::default().sdp());
    let candidate = joined.body.lines().find_map(|line| line.strip_prefix("a=candidate:")).expect("a candidate");
    let fields: Vec<&str> = candidate.split(' ').collect();
    SocketAddr::new(fields[4].parse().expect("an address"), fields[5].parse().expect("a port"))
}

impl Relay {
    fn copy(&self) -> Self {
        Self { port: self.port.clone(), username: self.username.clone(), password: self.password.clone() }
    }

    /// The output of `turnutils_uclient` until it would start to send to a peer, or gives up.
    fn uclient(&self, peer: SocketAddr, more: &[&str]) -> String {
        // Its output is not line-buffered in a pipe.
        let mut child = Command::new("stdbuf")
            .args([
                "-oL",
                "turnutils_uclient",
                "-v",
                "-c",
                "-p",
                &self.port,
                "-u",
                &self.username,
                "-w",
                &self.password,
            ])
            .args(["-e", &peer.ip().to_string(), "-r", &peer.port().to_string()])
            .args(more)
            .arg("127.0.0.1")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("`make test` installs coturn");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let mut told = String::new();
        for line in lines {
            told += &line;
            told.push('\n');
            if line.contains("Total connect time") {
                break;
            }
        }
        let _ = child.kill();
        child.wait().expect("it is ours");
        println!("uclient {more:?} {peer}:\n{told}");
        told
    }
}

#[test]
fn coturn_clients_can_allocate_and_refresh() {
    let _turn = turn();
    let (server, relay) = serve(&[]);
    let reflexive = Command::new("turnutils_stunclient").args(["-p", &relay.port, "127.0.0.1"]).output();
    let reflexive = reflexive.expect("`make test` installs coturn");
    let told = String::from_utf8_lossy(&reflexive.stdout);
    assert!(told.contains("UDP reflexive addr: 127.0.0.1:"), "{told}");

    // Send indications: two allocations, each refreshed, with a permission.
    let media = peer(&server);
    for transport in [&["-s"][..], &["-s", "-t"]] {
        let told = relay.uclient(media, transport);
        for step in
            ["Received relay addr", "refresh response received: \n0: : success", "cp response received: \n0: : success"]
        {
            assert!(told.contains(step), "no `{step}`");
        }
        assert!(told.contains("Total connect time") && !told.contains("error"));
    }
    // Channels: the client first binds one to the port above the peer's port, which is refused, then one to the peer's.
    let told = relay.uclient(SocketAddr::new(media.ip(), media.port() - 1), &[]);
    assert!(told.contains("cb response received: \n0: : success"));
    assert!(told.contains("channel bind: error 403"));
    assert!(counted(&server.url(), "turn_allocated_total") >= 6);
    server.stop();
}

#[test]
fn turn_refuses_invalid_credentials_and_enforces_the_quota() {
    let _turn = turn();
    let (server, relay) = serve(&["--set", "turn.secret=0123456789abcdef", "--set", "turn.max_per_credential=3"]);
    let media = peer(&server);
    // The client treats each 401 as a challenge and finally gives up.
    let wrong = Relay { password: "wrong".into(), ..relay.copy() };
    assert!(wrong.uclient(media, &["-s"]).contains("Cannot complete Allocation"));
    let refused = counted(&server.url(), "turn_unauthorized_total");
    assert!(refused > 0);
    // An expired user name with its valid password.
    let expired =
        Relay { username: "1700000000:ann".into(), password: "QdOgEOT2pYSZ9A8u47sWHH0ObZM=".into(), ..relay.copy() };
    assert!(expired.uclient(media, &["-s"]).contains("Cannot complete Allocation"));
    assert!(counted(&server.url(), "turn_unauthorized_total") > refused);
    assert_eq!(counted(&server.url(), "turn_allocated_total"), 0);

    assert!(join(&server).uclient(media, &["-s", "-m", "2"]).contains("error 486 (Allocation Quota Reached)"));
    assert_eq!(counted(&server.url(), "turn_allocated_total"), 3);
    server.stop();
}

#[test]
fn turn_relays_only_to_the_media_port() {
    let _turn = turn();
    let (server, relay) = serve(&[]);
    let media = peer(&server).port();
    let mapped = format!("[::ffff:127.0.0.1]:{media}");
    let others = ["127.0.0.1", "10.0.0.1", "192.168.0.1", "169.254.169.254"].map(|ip| format!("{ip}:{media}"));
    for forbidden in others.iter().chain([&mapped]) {
        let told = relay.uclient(forbidden.parse().expect("an address"), &["-s"]);
        // For an address of the other family, the client requests a relayed address of that family and gets 443.
        assert!(told.contains("error 403") || forbidden == &mapped && told.contains("error 443"), "{forbidden}");
    }
    assert!(counted(&server.url(), "turn_forbidden_total") >= 4);
    server.stop();
}

#[test]
fn a_call_of_three_runs_over_turn_only() {
    let _turn = turn();
    let server = Server::start_with(&Settings { turn: true, https: true, ..Settings::default() });
    let measured = play(&server.url(), "relayed_call", &["--transports", "udp,tcp,tls", "--seconds", "4"]);
    assert_eq!(measured["ready"], true, "{measured}");
    for person in list(&measured, "/people") {
        assert_eq!(person["candidate"]["kind"], "relay", "{person}");
        assert_eq!(person["candidate"]["protocol"], person["transport"], "{person}");
        assert_eq!(person["tiles"], 3, "{person}");
        assert_eq!((&person["wrong_tiles"], &person["still_tiles"]), (&json!([]), &json!([])), "{person}");
        assert!(number(person, "/first_frame_ms") < 6_000.0, "{person}");
    }
    server.stop();
}

#[test]
fn the_client_module_uses_turn_only_if_needed() {
    let _turn = turn();
    let server = Server::start_with(&Settings { turn: true, https: true, ..Settings::default() });
    let relayed = play(&server.url(), "relayed_module", &["--policy", "relay"]);
    assert_eq!((&relayed["moving"], &relayed["secure"]), (&json!(true), &json!(true)), "{relayed}");
    assert_eq!((&relayed["candidate"]["kind"], &relayed["connections"]), (&json!("relay"), &json!(1)), "{relayed}");
    let direct = play(&server.url(), "relayed_module", &["--policy", "all"]);
    assert_eq!(direct["moving"], true, "{direct}");
    assert_ne!(direct["candidate"]["kind"], "relay", "{direct}");
    server.stop();
}

#[test]
fn the_doctor_tests_all_network_paths() {
    let _turn = turn();
    let key = "0123456789abcdef0123456789abcdef";
    let environment = [("COMMINGLE_AUTH_KEY", key)];
    let server = Server::start_with(&Settings { turn: true, environment: &environment, ..Settings::default() });
    let doctor = |key: &str| {
        let mut command = commingle();
        let output = command.args(["doctor", "--url", &server.url()]).env("COMMINGLE_AUTH_KEY", key).output();
        let output = output.expect("it was built");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    let (code, said) = doctor(key);
    assert_eq!(code, Some(0), "{said}");
    for path in ["  UDP ", "  TCP ", "  TURN by UDP at ", "  TURN by TCP at "] {
        let lines: Vec<&str> = said.lines().filter(|line| line.contains(path)).collect();
        let all = lines.iter().all(|line| line.starts_with("ok ") && line.contains(": answers after "));
        assert!(!lines.is_empty() && all, "{path}:\n{said}");
    }
    assert!(said.contains(&format!(":{}: answers after", server.media.port())), "{said}");
    let (code, said) = doctor(&key.replace('0', "x"));
    assert!(code == Some(1) && said.contains("refuses (401)"), "{code:?}: {said}");
    server.stop();
}

#[test]
fn the_doctor_trusts_the_self_signed_certificate_of_this_machine() {
    let _turn = turn();
    let server = Server::start_with(&Settings { turn: true, https: true, ..Settings::default() });
    let doctor = |data: &std::path::Path| {
        let (bind, data) = (format!("http.bind={}", server.http), format!("data.dir={}", data.display()));
        let mut command = commingle();
        command.args(["doctor", "--set", "tls.mode=self-signed", "--set", &bind, "--set", &data]);
        let output = command.output().expect("it was built");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    let (code, said) = doctor(server.data());
    assert_eq!(code, Some(0), "{said}");
    for line in [
        "ok      certificate: ".to_owned(),
        format!("ok      join: {}/ accepts a viewer", server.url()),
        format!("ok      TURN by TLS at {}: answers after ", server.http),
    ] {
        assert!(said.contains(&line), "no `{line}` in {said}");
    }
    let elsewhere = tempfile::tempdir().expect("the temporary folder can be written");
    let (code, said) = doctor(elsewhere.path());
    assert!(code == Some(1) && said.contains("UnknownIssuer"), "{code:?}: {said}");
    server.stop();
}
