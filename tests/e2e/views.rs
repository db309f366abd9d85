//! Views of participants in Chromium.

use serde_json::json;

use crate::scenario::{list, number, play};
use crate::server::{Server, Settings};
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

#[test]
fn every_layout_is_switched_in_a_call_without_a_freeze() {
    with_retries(switches_layouts);
}

fn switches_layouts() {
    let server = Server::start();
    let measured = play(&server.url(), "switched_layouts", &[]);
    assert_eq!(measured["ready"], true, "{measured}");
    for switch in list(&measured, "/switches") {
        let drawn = if switch["kind"] == "auto" { "grid" } else { switch["kind"].as_str().expect("a kind") };
        assert_eq!((&switch["status"], &switch["drawn"]), (&json!(200), &json!(drawn)), "{switch}");
        assert!(number(switch, "/max_received_gap_ms") < 150.0, "the picture stopped: {switch}");
    }
    assert_eq!(measured["freezes"], 0, "the browser counts a freeze: {measured}");
    server.stop();
}

#[test]
fn nine_people_receive_nine_views() {
    with_retries(receive_nine_views);
}

fn receive_nine_views() {
    let environment = [("COMMINGLE_VIDEO_CANVAS", "480x270"), ("COMMINGLE_VIDEO_FPS", "10")];
    let server = Server::start_with(&Settings { environment: &environment, ..Settings::default() });
    let measured = play(&server.url(), "nine_views", &[]);
    assert_eq!(measured["ready"], true, "{measured}");
    let mut names = Vec::new();
    for (seen, frames) in list(&measured, "/seen").iter().zip(list(&measured, "/frames")) {
        assert_eq!(seen["fallback"], false, "{measured}");
        assert_eq!(seen["right"], seen["tiles"], "a tile shows somebody else: {seen}");
        assert!(frames.as_u64().is_some_and(|frames| frames >= 7), "the picture stopped: {measured}");
        names.push(seen["name"].as_str().expect("a name"));
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!((names.len(), &measured["streams"]), (9, &json!(9)), "{measured}");
    server.stop();
}
