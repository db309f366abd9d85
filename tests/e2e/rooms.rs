//! Calls without faults: each participant receives the grid of all, and the audio of all others.

use serde_json::Value;

use crate::http::counted;
use crate::scenario::{list, number, play};
use crate::server::Server;
use crate::{turn, with_retries};

/// How far below the softest other tone the own tone must be, in dB.
const OWN_BELOW_OTHERS_DB: f64 = 40.0;
/// Lowest level of an audible tone, in dB of the spectrum; participants send theirs at about -38.
const HEARD_DB: f64 = -60.0;

#[test]
fn two() {
    grid(2, "20", "");
}

#[test]
fn three() {
    grid(3, "20", "");
}

#[test]
fn five() {
    grid(5, "20", "");
}

#[test]
fn nine() {
    grid(9, "20", "");
}

#[test]
fn vp8_and_h264_in_one_room() {
    let measured = grid(4, "8", "VP8,H264");
    let streams: Vec<_> = list(&measured, "/streams").iter().filter_map(|stream| stream["key"].as_str()).collect();
    for codec in ["VP8", "H264"] {
        assert!(streams.iter().any(|key| key.contains(codec)), "no stream in {codec} among {streams:?}");
    }
}

#[test]
fn every_camera_codec_is_received() {
    let codecs = ["AV1", "VP9", "VP8", "H264"];
    let measured = grid(4, "5", &codecs.join(","));
    for (person, codec) in list(&measured, "/people").iter().zip(codecs) {
        assert_eq!(person["stats"]["sent_codec"], format!("video/{codec}"), "person {}", person["k"]);
    }
}

fn grid(people: usize, seconds: &str, codecs: &str) -> Value {
    with_retries(|| call(people, seconds, codecs))
}

fn call(people: usize, seconds: &str, codecs: &str) -> Value {
    let server = Server::start();
    let count = people.to_string();
    let mut arguments = vec!["--people", &count, "--seconds", seconds];
    if !codecs.is_empty() {
        arguments.extend(["--codecs", codecs]);
    }
    let measured = play(&server.url(), "grid", &arguments);
    assert_eq!(measured["ready"], true, "not all received the whole grid within 15 s");
    assert_eq!(number(&measured, "/participants"), people as f64);
    for person in list(&measured, "/people") {
        assert_call(person, people);
        assert_sound(person);
        let freezes = &person["freezes"];
        assert_eq!(number(freezes, "/gaps_over_200_ms"), 0.0, "person {} saw a freeze: {freezes}", person["k"]);
        assert!(number(freezes, "/frames") > 0.0, "person {} received no video", person["k"]);
    }
    assert_eq!(list(&measured, "/left"), vec![200; people], "leaving by DELETE");
    server.stop();
    measured
}

/// Asserts one video and one audio, with every colour moving in its tile.
fn assert_call(person: &Value, tiles: usize) {
    let k = &person["k"];
    assert_eq!(person["tracks"], serde_json::json!({"video": 1, "audio": 1}), "person {k}");
    assert_eq!(number(person, "/lines"), 2.0, "person {k} received more than one video and one audio");
    assert_eq!(number(person, "/tiles"), tiles as f64, "person {k}");
    assert_eq!(list(person, "/wrong_tiles"), [] as [Value; 0], "person {k} receives wrong colours");
    assert_eq!(list(person, "/still_tiles"), [] as [Value; 0], "person {k} receives tiles that do not move");
    let states = list(person, "/states");
    assert!(!states.iter().any(|state| state == "failed" || state == "disconnected"), "person {k}: {states:?}");
}

/// Asserts all tones except the own one.
fn assert_sound(person: &Value) {
    assert_hears(&person["sound"], &format!("person {}", person["k"]), OWN_BELOW_OTHERS_DB);
}

/// Asserts that all wanted tones are audible and unwanted ones at least `below_db` below the softest.
pub(crate) fn assert_hears(sound: &Value, who: &str, below_db: f64) {
    let weakest = number(sound, "/weakest_db");
    let stranger = number(sound, "/loudest_stranger_db");
    assert!(weakest > HEARD_DB, "{who} does not receive all tones: {sound}");
    let margin = weakest - stranger;
    assert!(margin >= below_db, "{who} receives an unwanted tone, only {margin:.1} dB below: {sound}");
}

#[test]
fn participants_publishers_and_viewers_share_a_room() {
    let _turn = turn();
    let server = Server::start();
    let measured = play(&server.url(), "kinds", &[]);
    assert_eq!(measured["ready"], true, "the room was not complete within 15 s");

    for (name, video, audio) in [
        ("full", 1, 1),
        ("audioOnly", 1, 1),
        ("videoOnly", 1, 1),
        ("silent", 1, 1),
        ("viewer", 1, 1),
        ("publisher", 0, 0),
        ("soundless", 1, 0),
    ] {
        let expected = serde_json::json!({"video": video, "audio": audio});
        assert_eq!(measured["tracks"][name], expected, "tracks of {name}");
    }
    for watcher in ["full", "viewer"] {
        let seen = &measured["seen"][watcher];
        assert_eq!(seen["viewer"], Value::Null, "a viewer has no tile: {seen}");
        for (name, k) in [("full", 0), ("videoOnly", 2), ("silent", 3), ("publisher", 5), ("soundless", 6)] {
            let tile = &seen[name];
            assert_eq!(tile["seen"], k, "{watcher} sees in the tile of {name}: {tile}");
            assert!(number(tile, "/bars") >= 4.0, "{watcher} sees {name} standing still: {tile}");
        }
        let avatar = &seen["audioOnly"];
        // The letters of an avatar may look like a bar, but they do not move.
        assert!(number(avatar, "/bars") <= 1.0, "a participant without a camera has an avatar: {avatar}");
    }
    for name in ["full", "audioOnly", "videoOnly", "silent", "viewer"] {
        assert_hears(&measured["sound"][name], name, OWN_BELOW_OTHERS_DB);
    }

    let camera_off = number(&measured, "/camera_off_ms");
    assert!(camera_off < 5_000.0, "the last frame of a camera that was turned off stayed for {camera_off} ms");
    let camera_on = number(&measured, "/camera_on_ms");
    assert!(camera_on < 2_000.0, "a camera that was turned on again was not visible for {camera_on} ms");
    assert_eq!(measured["video_muted"]["status"], 200);
    for change in ["/video_muted/hidden_ms", "/video_muted/shown_ms"] {
        let took = number(&measured, change);
        assert!(took < 2_000.0, "{change}: {took}");
    }
    assert_eq!(measured["audio_muted"]["status"], 200);
    assert_hears(&measured["audio_muted"]["sound"], "the viewer, after one was muted,", OWN_BELOW_OTHERS_DB);
    server.stop();
}

#[test]
fn of_simulcast_encodings_and_spatial_layers_those_nearest_to_the_tile_are_decoded_and_levels_are_sent() {
    let _turn = turn();
    let server = Server::start();
    let measured = play(&server.url(), "simulcast", &[]);
    let expected = ["a=rid:q recv", "a=rid:h recv", "a=rid:f recv", "a=simulcast:recv q;h;f"];
    assert!(list(&measured, "/offered").contains(&"a=simulcast:send q;h;f".into()), "{measured}");
    assert_eq!(measured["answered"], serde_json::json!(expected));
    let (alone, nine) = (&measured["alone"], &measured["nine"]);
    assert_eq!((&alone["ready"], &alone["source"]["encoding"]), (&true.into(), &"f".into()), "{alone}");
    assert_eq!((&nine["ready"], &nine["source"]["encoding"]), (&true.into(), &"q".into()), "{nine}");
    for (phase, tiles) in [(alone, 1), (nine, 9)] {
        assert_eq!(list(phase, "/seen").len(), tiles, "{phase}");
        let mine = |tile: &&Value| tile["participant"] == measured["ids"]["sender"];
        let tile = list(phase, "/seen").iter().find(mine).unwrap_or_else(|| panic!("it has a tile: {phase}"));
        assert_eq!((&tile["seen"], number(tile, "/away") < 60.0), (&0.into(), true), "{tile}");
        assert!(number(tile, "/bars") >= 4.0, "the tile does not move: {tile}");
    }
    let kbps = |rid: &str| {
        let layer = list(nine, "/layers").iter().find(|layer| layer["rid"] == rid);
        layer.map_or(0.0, |layer| number(layer, "/kbps"))
    };
    assert!(kbps("q") > 5.0 && kbps("f") < 5.0, "REMB turns the largest encoding off: {nine}");
    let last = list(&measured, "/wanted").last().expect("a size is wanted");
    assert!(number(last, "/width") < 430.0 && last["participant"] == measured["ids"]["sender"], "{last}");

    let layered = &measured["layered"];
    assert_eq!((&layered["mode"], &layered["whole"]), (&"L3T3_KEY".into(), &true.into()), "{layered}");
    assert_eq!((&layered["small"], &layered["source"]["codec"]), (&true.into(), &"vp9".into()), "{layered}");
    let mine = |tile: &&Value| tile["participant"] == layered["id"];
    let tile = list(nine, "/seen").iter().find(mine).unwrap_or_else(|| panic!("it has a tile: {nine}"));
    assert!(tile["seen"] == 2 && number(tile, "/bars") >= 4.0, "{tile}");

    let levels = &measured["levels"];
    let told = number(levels, "/events");
    assert!((10.0..=34.0).contains(&told), "about five per second for six seconds: {levels}");
    assert_eq!(levels["versions"], 0, "levels have no version: {levels}");
    assert_eq!(levels["last"]["levels"][0]["participant"], measured["ids"]["sender"], "{levels}");
    assert!((-60.0..0.0).contains(&number(levels, "/last/levels/0/dbov")), "{levels}");

    let unselected = counted(&server.url(), "source_packets_unselected_total");
    assert!(unselected > 100, "encodings that are not shown are not passed on: {unselected}");
    let changes = counted(&server.url(), "source_encoding_changes_total");
    assert!((2..=6).contains(&changes), "the encodings flap: {changes}");
    server.stop();
}

#[test]
fn rooms_are_isolated_from_each_other() {
    let _turn = turn();
    let server = Server::start();
    let measured = play(&server.url(), "apart", &[]);
    assert_eq!(measured["ready"], true, "the rooms were not complete within 15 s");
    for person in list(&measured, "/people") {
        let mut seen = list(person, "/seen").to_vec();
        seen.sort_by_key(Value::as_u64);
        assert_eq!(seen, list(person, "/roommates"), "person {} receives tiles of another room", person["k"]);
        assert_eq!(number(person, "/participants"), 2.0);
        assert_sound(person);
    }
    server.stop();
}

#[test]
fn participants_join_and_leave_in_any_order() {
    let _turn = turn();
    let server = Server::start();
    let measured = play(&server.url(), "churn", &["--seconds", "60", "--seed", "7"]);
    assert_eq!(measured["settled"], true, "the room did not settle on the remaining participants");
    assert_eq!(list(&measured, "/wrong_tracks"), [] as [Value; 0]);
    assert!(number(&measured, "/counts/joined") >= 10.0, "the test had too few joins: {}", measured["counts"]);
    for person in list(&measured, "/people") {
        assert_eq!(person["tracks"], serde_json::json!({"video": 1, "audio": 1}));
        assert_eq!(list(person, "/wrong_tiles"), [] as [Value; 0], "person {}", person["k"]);
        if !list(person, "/sound/heard").is_empty() {
            assert_sound(person);
        }
    }
    server.stop();
}
