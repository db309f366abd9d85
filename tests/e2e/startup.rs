//! Start, refused starts, and idle cost.

use std::net::TcpListener;
use std::process::Output;
use std::time::Duration;

use commingle::time;

use crate::http::get;
use crate::server::{Server, commingle};
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
