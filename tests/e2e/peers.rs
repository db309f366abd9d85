//! Third-party peers in one room: Chromium, Firefox, aiortc, ffmpeg's WHIP muxer, a WHEP viewer, and peers for Node.js:
//! @roamhq/wrtc (libwebrtc without a browser) and werift (a stack in TypeScript without codecs).

use serde_json::{Value, json};

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
        assert_receives(&measured, who, &names);
    }
    assert_eq!(measured["still_sending"], true, "ffmpeg stopped by itself");
    assert_eq!(measured["exits"], json!([0, 0, 0]), "a peer exited with an error");
    server.stop();
}

#[test]
fn peers_for_node_js_share_a_room_with_chromium() {
    let _turn = turn();
    let server = Server::start();
    let measured = play(&server.url(), "node_peers", &[]);
    assert_eq!(measured["ready"], true, "three senders should have three tiles");
    let names = ["chromium", "wrtc", "werift"];
    for who in ["chromium", "wrtc"] {
        assert_receives(&measured, who, &names);
    }
    assert!(number(&measured, "/peers/wrtc/frames") > 30.0, "@roamhq/wrtc decoded too few frames");
    assert_eq!(measured["peers"]["wrtc"]["state"], "connected");

    let werift = &measured["werift"]["after"];
    assert_eq!(werift["tracks"], json!({"video": 1, "audio": 1}));
    assert_eq!(werift["sending"], true, "ffmpeg, which encodes for werift, stopped by itself");
    for kind in ["audio", "video"] {
        let rtp = &werift["rtp"][kind];
        let types = list(rtp, "/payload_types");
        assert_eq!(types.len(), 1, "{kind} changes its payload type: {rtp}");
        assert!(
            list(&werift["negotiated"], &format!("/{kind}")).contains(&types[0]),
            "{kind} was not negotiated: {werift}"
        );
        assert_eq!(list(rtp, "/ssrcs").len(), 1, "{kind} changes its SSRC: {rtp}");
        assert_eq!(number(rtp, "/missing"), 0.0, "{kind} has gaps: {rtp}");
        let earlier = number(&measured, &format!("/werift/before/rtp/{kind}/packets"));
        assert!(number(rtp, "/packets") - earlier > 100.0, "{kind} does not go on: {measured}");
    }
    let size = |part: &str| number(&measured, &format!("/canvas/{part}"));
    assert_eq!(werift["rtp"]["video"]["sizes"], json!([format!("{}x{}", size("width"), size("height"))]));
    assert!(number(werift, "/rtp/video/keyframes") >= 1.0, "no keyframe: {werift}");
    let frames = number(werift, "/rtp/video/frames") - number(&measured, "/werift/before/rtp/video/frames");
    assert!(frames > 30.0, "werift received {frames} frames while Chromium listened");

    assert_eq!(measured["exits"], json!([0, 0]), "a peer exited with an error");
    assert_eq!(measured["left"], true, "only Chromium should be left");
    server.stop();
}

/// Asserts that a peer receives the moving colours of all of `names`, whose numbers are their places, and the tones
/// of the others.
fn assert_receives(measured: &Value, who: &str, names: &[&str]) {
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
