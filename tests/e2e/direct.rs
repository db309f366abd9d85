//! Two participants in two pages whose media goes directly between them until a third joins.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::scenario::{number, play};
use crate::server::{Server, Settings};
use crate::{turn, with_retries};

/// Limit from the third participant's answer to moving mixed video.
const BACK_WITHIN_MS: f64 = 1_000.0;
/// Limit from the last direct packet to moving mixed video; the loss is detected after a second.
const MIXED_WITHIN_MS: f64 = 2_000.0;

/// Asserts that after one second the recording shows the two participants' colours side by side.
fn shows_both(file: &Path) {
    let mut command = Command::new("ffmpeg");
    let read = command.args(["-nostdin", "-v", "error", "-ss", "1", "-i"]).arg(file);
    let read = read.args([
        "-frames:v",
        "1",
        "-vf",
        "format=rgb24,scale=2:1:flags=area",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-",
    ]);
    let output = read.output().expect("installed");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let pixels: Vec<[u8; 3]> = output.stdout.as_chunks().0.to_vec();
    let strongest = |pixel: &[u8; 3]| (0..3).max_by_key(|channel| pixel[*channel]);
    let mut colours: Vec<_> = pixels.iter().filter_map(strongest).collect();
    colours.sort_unstable();
    assert_eq!(colours, [0, 1], "red and green: {pixels:?}");
}

#[test]
fn two_participants_send_directly_until_a_third_joins() {
    let _turn = turn();
    let server =
        Server::start_with(&Settings { arguments: &["--set", "rooms.direct_for_two=true"], ..Settings::default() });
    let measured = play(&server.url(), "direct_for_two", &[]);
    assert_eq!(measured["went"], json!([true, true]), "{measured}");
    assert_eq!(measured["at_server"], json!({"out": 0, "in": 0}), "no media goes through the server");
    assert!(number(&measured, "/between/out") > 40.0 && number(&measured, "/between/in") > 40.0, "{measured}");
    assert_eq!(measured["alone"], json!([[1], [0]]), "each sees the other");
    for back in 0..2 {
        let took = number(&measured, &format!("/back_ms/{back}"));
        assert!(took < BACK_WITHIN_MS, "back in the mix after {took} ms");
    }
    assert_eq!(measured["together"], json!([[0, 1, 2], [0, 1, 2]]), "all three are in the mix");
    assert_eq!(measured["stays"], "connected", "the session stays connected");
    assert_eq!(measured["again"], true, "after the third has left, media is direct again");
    let recorded = &measured["recorded"];
    for back in 0..2 {
        let took = number(recorded, &format!("/back_ms/{back}"));
        assert!(took < BACK_WITHIN_MS, "back in the mix {took} ms after the start of a recording");
    }
    assert_eq!((&recorded["lasts"], &recorded["over"]), (&json!(true), &json!(true)), "{recorded}");
    assert_eq!(recorded["seen"], json!([[0, 1], [0, 1]]), "both are in the mix during the recording");
    let file = server.data().join("recordings").join(recorded["file"].as_str().expect("a file"));
    shows_both(&file);
    assert_eq!(measured["afterwards"], true, "after the recording, media is direct again");
    for one in 0..2 {
        let took = number(&measured, &format!("/mixed_ms/{one}"));
        assert!(took < MIXED_WITHIN_MS, "back in the mix {took} ms after the direct path broke");
    }
    assert_eq!(measured["after"], json!([[0, 1], [0, 1]]), "both are in the mix");
    println!(
        "back in the mix: a third came {}, the direct path ended {} (ms)",
        measured["back_ms"], measured["mixed_ms"]
    );
    server.stop();
}

#[test]
fn the_page_shows_that_a_call_is_direct() {
    // A second without packets ends a direct call, which may happen to browsers that start on a busy machine.
    with_retries(page_shows);
}

fn page_shows() {
    let server =
        Server::start_with(&Settings { arguments: &["--set", "rooms.direct_for_two=true"], ..Settings::default() });
    let measured = play(&server.url(), "page_direct", &[]);
    assert_eq!(measured["went"], true, "{measured}");
    let shows = |other: &str| json!({"direct": true, "other": other, "self": true});
    assert_eq!(
        measured["shown"],
        json!([shows("Bob"), shows("Ann")]),
        "the page shows the other participant's name and the own preview"
    );
    let stats = measured["stats"].as_str().unwrap_or_default();
    assert!(
        !stats.contains(" 0 fps") && stats.contains("fps"),
        "the statistics are those of the direct connection: {stats}"
    );
    assert_eq!(
        (&measured["dark"], &measured["lit"]),
        (&json!(true), &json!(true)),
        "an avatar replaces the video of a camera that is off"
    );
    assert_eq!(measured["overflow_px"], 0);
    assert_eq!(measured["mixed"], true);
    let mixed = json!({"direct": false, "other": false, "self": true});
    assert_eq!(measured["then"], json!([mixed, mixed]), "in the mix, the mixer draws all tiles");
    assert_eq!(measured["faults"], json!([]));
    server.stop();
}
