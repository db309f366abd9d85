//! What senders are asked to send.

use crate::scenario::{list, number, play};
use crate::server::Server;
use crate::turn;

#[test]
fn a_camera_costs_what_its_tile_shows() {
    let _turn = turn();
    let server = Server::start();
    let measured = play(&server.url(), "uplink", &[]);
    assert_eq!((&measured["ready"], &measured["full"]), (&true.into(), &true.into()), "the room was not complete");
    // 640x360 and 427x240 deserve 494 and 258 kbit/s; noise takes all it gets, and a busy machine's encoder less.
    for (phase, most) in list(&measured, "/phases").iter().zip([620.0, 330.0, 620.0]) {
        assert_eq!(phase["settled"], true, "the camera's target is not what its tile deserves: {phase}");
        let sent = number(phase, "/sent_kbps");
        assert!((most * 0.3..most).contains(&sent), "the camera sent {sent} kbit/s: {phase}");
        assert!(number(phase, "/audio_packets") > 45.0, "the sound suffered: {phase}");
    }
    server.stop();
}
