//! Third-party peers in one room: Chromium, Firefox, aiortc, ffmpeg's WHIP muxer, and a WHEP viewer.

use serde_json::json;

use crate::rooms::assert_hears;
use crate::scenario::{list, number, play};
use crate::server::Server;
use crate::turn;

/// How far below the other tones a peer's own tone must be, in dB.
const OWN_BELOW_OTHERS_DB: f64 = 40.0;

#[test]
fn browsers_aiortc_and_ffmpeg_share_a_room() {
    let _turn = turn();
    let server = Server::start();
    let measured = play(&server.url(), "together", &[]);
    assert_eq!(measured["ready"], true, "four senders should have four tiles");
    assert_eq!(measured["roles"]["viewer"], "viewer", "{}", measured["roles"]);
    let names = ["chromium", "firefox", "aiortc", "ffmpeg"];
    for who in ["chromium", "firefox", "aiortc", "viewer"] {
        let peer = &measured["peers"][who];
        assert_eq!(peer["tracks"], json!({"video": 1, "audio": 1}), "{who}");
        let tiles = list(peer, "/tiles");
        assert_eq!(tiles.len(), names.len(), "{who} sees {tiles:?}");
        for (k, name) in names.iter().enumerate() {
            let id = &measured["ids"][name];
            let tile = tiles.iter().find(|tile| tile["participant"] == *id);
            let tile = tile.unwrap_or_else(|| panic!("{who} has no tile of {name}, which is {id}: {tiles:?}"));
            assert_eq!(tile["seen"], k, "{who} sees in the tile of {name}: {tile}");
            assert!(number(tile, "/away") < 14.0, "{who} sees in the tile of {name}: {tile}");
            assert_eq!(tile["moves"], true, "the tile of {name} does not move at {who}: {tile}");
        }
        assert_hears(&peer["sound"], who, OWN_BELOW_OTHERS_DB);
    }
    assert_eq!(measured["still_sending"], true, "ffmpeg stopped by itself");
    assert_eq!(measured["exits"], json!([0, 0, 0]), "a peer exited with an error");
    server.stop();
}
