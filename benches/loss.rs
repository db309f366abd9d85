//! A call of two over a network that loses packets in both directions, with the participants and the relay of the
//! end-to-end tests: duration of video freezes, and speech quality (PESQ and STOI relative to the same call without
//! loss).

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "../tests/e2e/relay/mod.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod relay;
#[path = "../tests/e2e/scenario.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod scenario;
#[path = "../tests/e2e/server.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod server;

use relay::{Conditions, Relay};
use scenario::{list, number, play_with};
use server::Server;

fn main() {
    let server = Server::start();
    let relay = Relay::start(server.media, Conditions::default(), Conditions::default(), 7);
    let port = relay.port.to_string();
    let arguments = ["--room", "loss", "--relay", &port, "--seconds", "16", "--losses", "0,2,5,10,20"];
    let measured = play_with(&server.url(), "loss", &arguments, |what| {
        relay.lose(what);
        "{}".to_owned()
    });
    println!(
        "round trip 40 ms; longest freeze of the video received over the lossy link, and of its tile for the other \
         participant:"
    );
    for round in list(&measured, "/rounds") {
        let hears = |who: &str| {
            let score = |what: &str| number(round, &format!("/{who}_hears/{what}"));
            format!("PESQ {:.2} STOI {:.3}", score("pesq"), score("stoi"))
        };
        println!(
            "{:>4} % lost: {} ms ({} freezes, {} ms in all), tile {} ms; the lossy one hears {}, the other {}",
            round["loss_percent"],
            round["lossy"]["max_gap_ms"],
            round["lossy"]["freezes"],
            round["lossy"]["frozen_ms"],
            round["clean"]["tile_still_ms"],
            hears("lossy"),
            hears("clean"),
        );
    }
    server.stop();
}
