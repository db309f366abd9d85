//! CPU time of the serving process per packet: to a viewer, and to or from a participant, as multiples of the floor:
//! encrypting a packet and passing it to the kernel in a batch, measured in the same run. Aims: at most 5 µs for
//! viewers and 9 µs for participants; at most 0.05 core in a room of 9 and 0.12 core in a room of 25.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::time::Duration;

use commingle::bots::bench::{self, PacketCost, Series, Settings};
use tokio_util::sync::CancellationToken;

fn main() {
    let settings = Settings {
        url: None,
        program: env!("CARGO_BIN_EXE_commingle").into(),
        rooms: vec![
            (Series::Viewers, 2, 1),
            (Series::Viewers, 2, 100),
            (Series::Viewers, 2, 300),
            (Series::Participants, 2, 0),
            (Series::Participants, 9, 0),
            (Series::Participants, 25, 0),
        ],
        watched: Duration::from_secs(10),
        token: None,
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let found = runtime.block_on(bench::run(settings, &CancellationToken::new(), |trial| {
        let edge = trial.cpu.map_or(0.0, |cpu| cpu.edge);
        println!(
            "{:>4} participants, {:>4} viewers: the edge takes {edge:.3} of a core",
            trial.participants, trial.viewers
        );
    }));
    let found = found.expect("bots and a server on loopback");
    assert!(found.rooms.iter().all(|trial| trial.report.passed), "a bot could not join, or was disconnected");
    for (whose, cost) in [("to a viewer", found.packet), ("of a participant", found.participant_packet)] {
        let PacketCost { micros, floor_micros, .. } = cost.expect("three rooms give a line");
        let ratio = micros / floor_micros;
        println!(
            "a packet {whose}: {micros:.2} µs of the edge's CPU, {ratio:.2} times the floor of {floor_micros:.2} µs"
        );
    }
}
