//! CPU time of sending a packet to a viewer, as a multiple of the floor: encrypting it and passing it to the kernel in
//! a batch, measured in the same run. Aim: at most three times the floor.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::time::Duration;

use commingle::bots::bench::{self, PacketCost, Series, Settings};
use tokio_util::sync::CancellationToken;

fn main() {
    let settings = Settings {
        url: None,
        program: env!("CARGO_BIN_EXE_commingle").into(),
        rooms: vec![(Series::Viewers, 2, 1), (Series::Viewers, 2, 100), (Series::Viewers, 2, 300)],
        watched: Duration::from_secs(10),
        token: None,
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let found = runtime.block_on(bench::run(settings, &CancellationToken::new(), |trial| {
        let edge = trial.cpu.map_or(0.0, |cpu| cpu.edge);
        println!("{:>4} viewers: the edge takes {edge:.3} of a core", trial.viewers);
    }));
    let found = found.expect("bots and a server on loopback");
    assert!(found.rooms.iter().all(|trial| trial.report.passed), "a bot could not join, or was disconnected");
    let packet = found.packet.expect("three rooms give a line");
    let PacketCost { micros, floor_micros, .. } = packet;
    println!(
        "a packet to a viewer: {micros:.2} µs of the edge's CPU, {:.2} times encrypting and sending alone \
         ({floor_micros:.2} µs; aim: 3 times)",
        packet.ratio()
    );
}
