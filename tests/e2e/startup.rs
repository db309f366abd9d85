//! Start, refused starts, and idle cost.

use std::net::TcpListener;
use std::process::Output;
use std::time::Duration;

use commingle::time;

use crate::http::{get, request};
use crate::server::{Server, Settings, commingle};
use crate::turn;

fn serve(arguments: &[&str]) -> Output {
    let data = tempfile::tempdir().expect("the temporary folder can be written");
    commingle()
        .args(["serve", "--media-port", "0", "--no-turn", "--data-dir"])
        .arg(data.path())
        .args(arguments)
        .current_dir(data.path())
        .output()
        .expect("the binary was built with this test")
}

#[track_caller]
fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
    assert!(output.stdout.is_empty(), "not ready: {}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_public_bind_without_a_key_is_refused() {
    let _turn = turn();
    assert_refused(&serve(&["--http", "0.0.0.0:0"]), 2, &["key", "--insecure"]);
    assert_refused(&serve(&["--http", "[::]:0"]), 2, &["key"]);
}

#[test]
fn an_invalid_configuration_is_reported_with_its_line() {
    let _turn = turn();
    let file = tempfile::NamedTempFile::new().expect("the temporary folder can be written");
    std::fs::write(file.path(), "[video]\nfps = 30\nfpz = 3\n").expect("just made");
    let path = file.path().display().to_string();
    assert_refused(&serve(&["--http", "127.0.0.1:0", "--config", &path]), 2, &[&path, "3", "fpz"]);
    assert_refused(&serve(&["--no-such-flag"]), 2, &["--no-such-flag"]);
    assert_refused(&serve(&["--http", "127.0.0.1:0", "--config", "/nowhere.toml"]), 2, &["/nowhere.toml"]);
}

#[test]
fn config_check_reports_all_errors_with_their_values_and_missing_files() {
    let _turn = turn();
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let text = "[video]\nfps = 0\n[tls]\nmode = \"files\"\ncert = \"cert.pem\"\nkey = \"key.pem\"\n[rooms]\nmax = 1\n";
    std::fs::write(folder.path().join("commingle.toml"), text).expect("just made");
    let check = || commingle().args(["config", "check"]).current_dir(folder.path()).output().expect("it was built");
    let words = ["4 errors", "toml:2: video.fps", "it is 0", "toml:5: tls.cert: cert.pem", "tls.key: key.pem", "`max`"];
    assert_refused(&check(), 2, &words);
    std::fs::write(folder.path().join("commingle.toml"), "[video]\nfps = 25\n").expect("just made");
    assert!(check().status.success());
}

#[test]
fn sighup_reloads_the_configuration_and_ends_no_call() {
    let _turn = turn();
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let (config, key) = (folder.path().join("c.toml"), folder.path().join("key"));
    let write = |max_rooms: &str, port: u16| {
        let key = key.display();
        let text =
            format!("[auth]\nkey_file = \"{key}\"\n[rooms]\nmax_rooms = {max_rooms}\n[inputs]\nrtmp_port = {port}\n");
        std::fs::write(&config, text).expect("just made");
    };
    let old = "0123456789abcdef0123456789abcdef";
    std::fs::write(&key, old).expect("just made");
    write("1", 0);
    let path = config.display().to_string();
    let server = Server::start_with(&Settings { arguments: &["--config", &path], ..Settings::default() });
    let token = |key: &str| {
        let made = commingle().args(["token", "--role", "operator", "--key", key]).output().expect("it was built");
        format!("Bearer {}", String::from_utf8(made.stdout).expect("text").trim())
    };
    let create = |key: &str, room: &str| {
        let headers = [("authorization", token(key)), ("content-type", "application/json".to_owned())];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let body = format!("{{\"name\":\"{room}\"}}");
        request("POST", &format!("{}/v1/rooms", server.url()), &headers, &body).status
    };
    assert_eq!((create(old, "a"), create(old, "b")), (201, 503));

    let logged = |words: &[&str]| {
        for _ in 0..100 {
            let log = server.log();
            if words.iter().all(|word| log.contains(word)) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        panic!("{words:?} are not in the log:\n{}", server.log());
    };
    let new = "fedcba9876543210fedcba9876543210";
    std::fs::write(&key, new).expect("just made");
    write("2", 1935);
    server.hang_up();
    logged(&[
        "rooms.max_rooms (from 1 to 2) applies from now on",
        "auth.key applies from now on",
        "inputs.rtmp_port (from 0 to 1935) applies only after a restart",
    ]);
    assert_eq!((create(old, "b"), create(new, "b"), create(new, "a")), (401, 201, 409), "room `a` goes on");

    write("\"many\"", 0);
    server.hang_up();
    logged(&["not reloaded", "rooms.max_rooms: invalid type: string", "c.toml:4"]);
    assert_eq!(create(new, "b"), 409, "the configuration before is still in use");
    server.stop();
}

#[test]
fn a_port_in_use_is_reported() {
    let _turn = turn();
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let address = taken.local_addr().expect("it is bound").to_string();
    assert_refused(&serve(&["--http", &address]), 1, &[&address]);
}

#[test]
fn the_server_is_ready_quickly_and_idles_cheaply() {
    let _turn = turn();
    let from = time::now();
    let server = Server::start();
    let ready = time::now().since(from);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(&format!("{}{path}", server.url())).status, 200, "{path}");
    }
    assert_eq!(server.mixers(), [], "no mixer before the first join");
    let share = server.cpu_share(Duration::from_secs(10));
    println!("ready after {ready:?}; idle: {:.2} % of a core", share * 100.0);
    assert!(share < 0.005, "an empty server takes {:.2} % of a core", share * 100.0);
    server.stop();
}
