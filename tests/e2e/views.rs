//! Views of participants in Chromium.

use serde_json::json;

use crate::scenario::{list, number, play};
use crate::server::Server;
use crate::with_retries;

#[test]
fn a_participant_sees_only_the_other_and_changes_its_view_without_a_freeze() {
    with_retries(changes_its_view);
}

fn changes_its_view() {
    let server = Server::start();
    let measured = play(&server.url(), "personal_views", &[]);
    assert_eq!(measured["ready"], true, "{measured}");
    assert!(measured["names"][0].as_str().is_some_and(|name| name.starts_with("own-")), "{measured}");
    assert_eq!(measured["names"][1], "program");
    assert_eq!(measured["ann"], json!([1]), "Ann sees only Bob: {measured}");
    assert_eq!(measured["bob"], json!([0, 1]), "`program` shows both: {measured}");
    // Both; then Bob large and Ann in the corner, in portrait; then Bob alone.
    for (change, tiles) in list(&measured, "/changes").iter().zip([json!([0, 1]), json!([1, 0]), json!([1])]) {
        assert_eq!((&change["status"], &change["resized"]), (&json!(200), &json!(true)), "{measured}");
        assert_eq!(change["tiles"], tiles, "{measured}");
        assert_eq!(number(&change["freezes"], "/gaps_over_200_ms"), 0.0, "the picture stopped: {measured}");
    }
    assert_eq!(measured["streams"], json!(["own/VP8/high", "program/VP8/high"]), "{measured}");
    assert_eq!(measured["views"], 2, "{measured}");
    server.stop();
}
