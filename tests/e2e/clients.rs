//! WHIP and WHEP clients of others, as they are on npm: they publish and watch with nothing changed for them.

use crate::scenario::{list, number, play};
use crate::server::Server;
use crate::turn;

/// Quietest that a tone of those who speak may be, in dB.
const HEARD_DB: f64 = -45.0;

#[test]
fn clients_of_others_publish_and_watch() {
    let _turn = turn();
    let server = Server::start();
    let measured = play(&server.url(), "third_party", &[]);
    let answered: Vec<&str> = list(&measured, "/answered").iter().filter_map(|line| line.as_str()).collect();
    assert_eq!(measured["published"], true, "both publishers should have a tile: {answered:?}");
    for (who, name) in [("player", "@eyevinn/webrtc-player"), ("viewer", "whip-whep")] {
        let watcher = &measured[who];
        assert_eq!(watcher["playing"], true, "{name} plays: {answered:?}");
        for tile in list(watcher, "/tiles") {
            let expected = if tile["name"] == "eyevinn" { 0 } else { 1 };
            assert_eq!(tile["seen"], expected, "{name} sees {tile}");
            assert!(number(tile, "/bars") >= 3.0, "{name} sees it standing still: {tile}");
        }
        assert!(number(watcher, "/sound/weakest_db") > HEARD_DB, "{name} hears {}", watcher["sound"]);
    }
    let took = |line: &str| answered.contains(&line);
    assert!(took("PATCH /v1/sessions/SECRET 204"), "whip-whep trickles with the entity tag: {answered:?}");
    assert!(took("POST /v1/sessions/SECRET/events 201"), "whip-whep asks for events: {answered:?}");
    assert_eq!(measured["events"], 1, "and listens to them");
    assert_eq!(measured["restarted"], true, "whip-whep restarts ICE: {answered:?}");
    assert!(took("PATCH /v1/sessions/SECRET 200"), "by a fragment: {answered:?}");
    assert_eq!(measured["goes_on"], true, "the picture goes on after that");
    assert_eq!(measured["empty"], true, "all are gone: {answered:?}");
    // Some hang up first, by which the session is over already.
    let gone = ["DELETE /v1/sessions/SECRET 200", "DELETE /v1/sessions/SECRET 404"];
    assert_eq!(answered.iter().filter(|line| gone.contains(line)).count(), 4, "{answered:?}");
    server.stop();
}
