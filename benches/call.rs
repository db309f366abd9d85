//! A complete call, measured from outside with the participants of the end-to-end tests: time to the first composed
//! picture, delay added by mixing, CPU of rooms of four and nine, and CPU of an idle server.
//!
//! Cameras differ from the tests: 640x360 at 30 frames per second.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "../tests/e2e/scenario.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod scenario;
#[path = "../tests/e2e/server.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod server;

use std::time::Duration;

use serde_json::{Value, json};

use scenario::{number, play, play_with};
use server::{Server, cpu_seconds};

fn main() {
    let server = Server::start();
    let empty = server.cpu_share(Duration::from_secs(10));
    println!("an empty server: {:.2} % of a core (aim: under 0.5)", empty * 100.0);

    let delay = play(&server.url(), "delay", &["--seconds", "10", "--room", "delay"]);
    println!("POST to the first mixed picture: {} ms (aim: 300)", delay["first_frame_ms"]);
    println!(
        "glass to glass, median: {} ms through the mix, {} ms directly; added {} ms (aim: 100)",
        number(&delay, "/mixed/median_ms"),
        number(&delay, "/direct/median_ms"),
        number(&delay, "/added_median_ms"),
    );
    server.stop();

    for people in ["4", "9"] {
        let server = Server::start();
        let cost =
            play_with(&server.url(), "cost", &["--seconds", "10", "--people", people], |_| cpu(&server).to_string());
        println!(
            "a room of {people}, cameras of 640x360 at 30: {} cores in the mixer, {} in the server",
            number(&cost, "/mixer_cores"),
            number(&cost, "/server_cores"),
        );
        server.stop();
    }
}

fn cpu(server: &Server) -> Value {
    let mixer: f64 =
        server.mixers().into_iter().map(|pid| cpu_seconds(pid.as_raw_nonzero().get().cast_unsigned())).sum();
    json!({"mixer": mixer, "server": server.cpu_seconds() - mixer})
}
