//! The server's web page in real use. Screenshots are stored in `e2e` of Cargo's target folder.

use std::process::Command;

use serde_json::{Value, json};

use crate::http::{get, request};
use crate::scenario::{list, number, play, play_with, repository};
use crate::server::{Server, Settings, commingle};
use crate::{turn, with_retries};

#[test]
fn two_participants_use_the_page() {
    let _turn = turn();
    let server = Server::start();
    let measured = play(&server.url(), "page_call", &[]);
    for step in ["both", "listed", "muted", "unmuted", "camera_off", "camera_on", "left", "lobby", "told", "stays_away"]
    {
        assert_eq!(measured[step], true, "{step}");
    }
    let shared = json!({"shown": true, "camera_too": true, "gone": true});
    assert_eq!(measured["screens"], json!([shared, shared]), "a screen is shared and stopped twice");
    assert_eq!(measured["faults"], json!([]), "the page had errors");
    assert_eq!(number(&measured, "/overflow_px"), 0.0, "the page is wider than a phone");
    for error in list(&measured, "/self_tile_error_px") {
        let pixels = error.as_f64().unwrap_or_else(|| panic!("the own preview is hidden: {measured}"));
        assert!(pixels < 2.0, "the own preview is {pixels} pixels off its tile");
    }
    assert_ne!(measured["stats"], Value::from(""), "the page shows no statistics");
    server.stop();
}

#[test]
fn a_viewer_watches_on_the_page() {
    let _turn = turn();
    let server = Server::start();
    let measured = play(&server.url(), "page_watch", &[]);
    assert_eq!((&measured["role"], &measured["left"]), (&json!("viewer"), &json!(true)), "{measured}");
    assert_eq!(measured["faults"], json!([]), "the page had errors");
    assert!(number(&measured, "/joined_ms") < 5_000.0, "{measured}");
    server.stop();
}

#[test]
fn the_page_works_by_keyboard_and_axe_finds_nothing_serious() {
    let _turn = turn();
    let server = Server::start();
    let measured = play(&server.url(), "page_keyboard", &[]);
    for step in
        ["stays", "muted", "talks", "muted_again", "room_layout", "own_layout", "layouts_closed", "dismissed", "left"]
    {
        assert_eq!(measured[step], true, "{step}: {measured}");
    }
    assert_eq!(measured["first_focus"], "stage", "after a join no button has the focus");
    assert_eq!(measured["warned"], "Press again to leave");
    let names = json!(["Microphone", "Microphone", "Microphone", "Microphone"]);
    assert_eq!(measured["spoken"], names, "the accessible name changes while speaking");
    let walked = json!(["cam", "screen", "cam", "leave", "mic", "mic", "leave"]);
    assert_eq!((&measured["walked"], &measured["tab_stops"]), (&walked, &json!(1)), "arrow keys in the toolbar");
    assert_eq!(measured["pressed"], json!(["Speaker only", "Filled grid"]), "the layouts in use are marked");
    assert_eq!(measured["serious"], json!([]), "axe-core");
    assert_eq!(measured["faults"], json!([]), "the page had errors");
    server.stop();
}

#[test]
fn refusals_address_people_and_a_moderator_invites_them() {
    const KEY: &str = "an end-to-end test's key of 32 bytes or more";
    const ROOM: &str = "Küche";
    let _turn = turn();
    let key = [("COMMINGLE_AUTH_KEY", KEY)];
    let server = Server::start_with(&Settings { environment: &key, ..Settings::default() });
    let measured = play_with(&server.url(), "page_invitation", &["--room", ROOM], |what| {
        assert_eq!(what, "token");
        let arguments = ["token", "--room", ROOM, "--role", "moderator", "--ttl", "5m"];
        let output = commingle().args(arguments).envs(key).output().expect("the binary was built with this test");
        String::from_utf8(output.stdout).expect("a token is ASCII").trim().to_owned()
    });
    assert_eq!(measured["room_of_path"], ROOM, "the page of a room");
    assert!(measured["refused"].as_str().is_some_and(|text| text.contains("invited people only")), "{measured}");
    assert_eq!((&measured["button"], &measured["field"]), (&json!("Ask for a new link"), &json!("invitation")));
    assert_eq!(measured["offered"], "Watch instead", "a viewer's invitation: {measured}");
    for step in ["link", "watches", "may_not_invite"] {
        assert_eq!(measured[step], true, "{step}: {measured}");
    }
    assert_eq!(measured["serious"], json!([]), "axe-core");
    assert_eq!(measured["faults"], json!([]), "the page had errors");
    server.stop();
}

#[test]
fn without_a_key_a_page_of_another_origin_reads_and_changes_nothing() {
    let _turn = turn();
    let server = Server::start();
    let rooms = format!("{}/v1/rooms", server.url());
    let kept = request("POST", &rooms, &[("content-type", "application/json")], r#"{"name":"kept"}"#);
    assert_eq!(kept.status, 201, "{kept:?}");
    let measured = play(&server.url(), "foreign_page", &[]);
    for request in ["list", "create", "remove", "join"] {
        assert_eq!(measured[request], json!({"error": "TypeError"}), "{request}: {measured}");
    }
    for request in ["metrics", "simple"] {
        assert_eq!(measured[request], json!({"status": 0, "type": "opaque", "body": ""}), "{request}: {measured}");
    }
    assert_eq!((&measured["socket"], &measured["image"]), (&json!("closed"), &json!("refused")), "{measured}");
    let left = get(&rooms).json();
    let names: Vec<&Value> = list(&left, "").iter().map(|room| &room["name"]).collect();
    assert_eq!(names, ["kept"], "the rooms have changed");
    server.stop();
}

#[test]
fn the_page_fits_phones_and_thin_tiers() {
    let _turn = turn();
    let server = Server::start();
    let measured = play(&server.url(), "page_phone", &[]);
    for step in ["join_in_view", "enlarged", "heard", "names", "speaks", "watch_link"] {
        assert_eq!(measured[step], true, "{step}: {measured}");
    }
    assert_eq!(measured["layout"]["panel"], "", "the list of people takes the space of the picture");
    assert_eq!(number(&measured, "/layout/picture_width"), 1.0, "{measured}");
    assert!(number(&measured, "/layout/unused") < 40.0, "a part of the screen is not used: {measured}");
    assert!(measured["layout"]["signal"].as_str().is_some_and(|text| text.starts_with("Connection: ")), "{measured}");
    assert_eq!(measured["covers"], json!([]), "messages cover the picture");
    assert_eq!(measured["unplugged"], "Your microphone was unplugged. Others cannot hear you.");
    assert!(measured["why"].as_str().is_some_and(|text| text.starts_with("Audio only")), "{measured}");
    assert!(measured["refused_name"].as_str().is_some_and(|text| text.contains("spaces")), "{measured}");
    assert_eq!(measured["suggested"], "Use “two-words”");
    assert_eq!(measured["serious"], json!([]), "axe-core");
    assert_eq!(measured["faults"], json!([]), "the page had errors");
    server.stop();
}

#[test]
fn a_phone_in_portrait_receives_an_upright_picture() {
    with_retries(portrait);
}

fn portrait() {
    let environment = [("COMMINGLE_VIDEO_CANVAS", "640x360"), ("COMMINGLE_VIDEO_FPS", "15")];
    let server = Server::start_with(&Settings { environment: &environment, ..Settings::default() });
    let measured = play(&server.url(), "page_portrait", &[]);
    for (phase, canvas, named, used) in [
        ("portrait", json!({"width": 360, "height": 640}), false, 0.7),
        ("landscape", json!({"width": 640, "height": 360}), true, 0.6),
        ("again", json!({"width": 360, "height": 640}), false, 0.7),
    ] {
        let seen = &measured[phase];
        assert_eq!((&seen["shaped"], &seen["settled"]), (&json!(true), &json!(true)), "{phase}: {measured}");
        assert_eq!((&seen["canvas"], &seen["named"]), (&canvas, &json!(named)), "{phase}: {measured}");
        assert!(number(seen, "/used") > used, "a part of the screen is not used: {phase}: {measured}");
        assert_eq!((&seen["enlarged"], number(seen, "/overflow")), (&json!(false), 0.0), "{phase}: {measured}");
    }
    assert_eq!(measured["faults"], json!([]), "the page had errors");
    server.stop();
}

#[test]
fn the_javascript_unit_tests_pass() {
    let tests = ["modules", "air", "live", "texts", "people"]
        .map(|name| repository().join(format!("tests/web/{name}.test.mjs")));
    let output = Command::new("node").arg("--test").args(tests).output().expect("`make test` installs Node.js");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!told.contains("# pass 0"), "no test was found: {told}");
}

#[test]
fn the_page_rejoins_after_a_server_restart() {
    let _turn = turn();
    let mut server = Server::start();
    let url = server.url();
    let measured = play_with(&url, "page_reconnects", &[], |what| {
        assert_eq!(what, "restart-server");
        server.crash_and_restart();
        "done".to_owned()
    });
    assert_eq!(measured["again"], true, "the page did not join again");
    assert_eq!(measured["moves"], true, "the page joined again, but its video does not move");
    assert_eq!(measured["blank"], 0, "the last picture was not kept: {measured}");
    assert_eq!(measured["calm"], true, "the last picture still covers the video: {measured}");
    assert!(!list(&measured, "/banners").is_empty(), "the page did not say that the connection was lost");
    server.stop();
}

#[test]
fn a_moderator_records_the_call_and_all_participants_see_it() {
    let _turn = turn();
    let server = Server::start();
    let measured = play(&server.url(), "page_records", &[]);
    for step in [
        "badge",
        "aloud",
        "badge_later",
        "long",
        "unbadged",
        "over_aloud",
        "listed",
        "plays",
        "seeks",
        "closed",
        "deleted",
        "watched",
    ] {
        assert_eq!(measured[step], true, "{step}: {measured}");
    }
    assert!(
        measured["told"].as_str().is_some_and(|text| text.starts_with("This call is being recorded, ")),
        "{measured}"
    );
    assert_eq!(measured["faults"], json!([]), "the page had errors");
    assert_eq!(number(&measured, "/overflow_px"), 0.0, "the page is wider than a phone");
    let length = number(&measured, "/length_s");
    assert!((5.0..30.0).contains(&length), "{length} s were recorded");
    // The downloaded file, as ffprobe reads it.
    let probed = &measured["probed"];
    assert_eq!(probed["errors"], "", "{probed}");
    assert!((number(probed, "/duration_s") - length).abs() < 0.3, "{probed} and {length} s in the page");
    assert_eq!(probed["kinds"], json!(["audio", "video"]), "{probed}");
    assert!(measured["advised"].as_str().is_some_and(|text| text.contains("rtmp://")), "{measured}");
    let refused = measured["refused"].as_str().unwrap_or_default();
    assert!(!refused.is_empty() && !refused.contains("secret-key"), "{refused}");
    server.stop();
}
