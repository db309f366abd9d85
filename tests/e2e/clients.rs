//! Third-party WHIP and WHEP clients, from npm and GStreamer, publish and watch.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::get;
use crate::scenario::{converse, list, number, play, require};
use crate::server::{Server, Settings};
use crate::turn;

/// Lowest level of an audible tone, in dB.
const HEARD_DB: f64 = -45.0;

#[test]
fn third_party_clients_publish_and_watch() {
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
            assert!(number(tile, "/bars") >= 3.0, "the tile does not move at {name}: {tile}");
        }
        assert!(number(watcher, "/sound/weakest_db") > HEARD_DB, "{name} hears {}", watcher["sound"]);
    }
    let took = |line: &str| answered.contains(&line);
    assert!(took("PATCH /v1/sessions/SECRET 204"), "whip-whep trickles with the entity tag: {answered:?}");
    assert!(took("POST /v1/sessions/SECRET/events 201"), "whip-whep subscribes to events: {answered:?}");
    assert_eq!(measured["events"], 1, "whip-whep reads the events");
    assert_eq!(measured["restarted"], true, "whip-whep restarts ICE: {answered:?}");
    assert!(took("PATCH /v1/sessions/SECRET 200"), "by a fragment: {answered:?}");
    assert_eq!(measured["goes_on"], true, "the video continues after the ICE restart");
    assert_eq!(measured["empty"], true, "all clients have left: {answered:?}");
    // Some clients close the connection first, which already ends the session.
    let gone = ["DELETE /v1/sessions/SECRET 200", "DELETE /v1/sessions/SECRET 404"];
    assert_eq!(answered.iter().filter(|line| gone.contains(line)).count(), 4, "{answered:?}");
    server.stop();
}

#[test]
fn a_call_is_shown_in_a_page_of_another_origin_that_the_configuration_allows() {
    let _turn = turn();
    let refusing = Server::start();
    let refused = play(&refusing.url(), "embedded", &[]);
    assert_eq!(refused["framed"], false, "no page of another origin is allowed: {refused}");
    assert!(!list(&refused, "/refusals").is_empty(), "the browser names the policy: {refused}");
    refusing.stop();
    let environment = [("COMMINGLE_HTTP_FRAME_ANCESTORS", "*")];
    let server = Server::start_with(&Settings { environment: &environment, ..Settings::default() });
    let measured = play(&server.url(), "embedded", &[]);
    assert_eq!(measured["framed"], true, "{measured}");
    let participant = &measured["participant"];
    assert_eq!(measured["inRoom"], json!([{"id": participant, "name": "Ann"}]), "{measured}");
    assert_eq!(measured["left"], json!(["left"]), "the button of the other page ends the call: {measured}");
    server.stop();
}

/// The document of the room once it satisfies `so`, within ten seconds.
fn room_when(server: &Server, room: &str, so: impl Fn(&Value) -> bool) -> Value {
    let mut seen = Value::Null;
    for _ in 0..100 {
        let reply = get(&format!("{}/v1/rooms/{room}", server.url()));
        seen = if reply.status == 200 { reply.json() } else { Value::Null };
        if so(&seen) {
            break;
        }
        thread::park_timeout(Duration::from_millis(100));
    }
    seen
}

/// GStreamer uses libnice and webrtcbin: whipsink sends H.264 in a section with port 0 in the bundle.
#[test]
fn gstreamers_whipsink_publishes_and_whepsrc_watches() {
    let _turn = turn();
    let program = Path::new(env!("CARGO_BIN_EXE_commingle")).with_file_name("webrtchttp");
    require(&program);
    // Both clients read the TURN servers from `Link`.
    let server = Server::start_with(&Settings { turn: true, ..Settings::default() });
    let url = |door: &str, name: &str| format!("{}/{door}/gstreamer?name={name}", server.url());
    let (colour, tone) = ([30, 160, 50], "591");
    let mut command = Command::new(program);
    command.args([&url("whip", "whipsink"), &url("whep", "whepsrc")]).args(["1ea032", tone, "3"]);
    let mut met = Value::Null;
    let seconds = converse(command, "webrtchttp", |what| {
        let so = |room: &Value| match what {
            "published" => {
                room.pointer("/views/0/tiles").is_some_and(|tiles| tiles.as_array().is_some_and(|t| t.len() == 1))
            }
            _ => room["participants"].as_array().is_some_and(|people| people.len() == 2),
        };
        met = room_when(&server, "gstreamer", so);
        assert!(so(&met), "{what}: {met}\n{}", server.log());
        String::new()
    });
    println!("webrtchttp: {seconds}");
    let roles: Vec<_> = list(&met, "/participants").iter().map(|one| (&one["name"], &one["role"])).collect();
    assert_eq!(roles, [(&json!("whipsink"), &json!("participant")), (&json!("whepsrc"), &json!("viewer"))], "{met}");
    for second in list(&seconds, "") {
        assert!(
            number(second, "/frames") >= 10.0 && number(second, "/places") >= 4.0,
            "the video does not move at whepsrc: {second}"
        );
        assert_eq!((&second["width"], &second["height"]), (&json!(1280), &json!(720)), "{second}");
        for (channel, expected) in colour.iter().enumerate() {
            let away = number(second, &format!("/colour/{channel}")) - f64::from(*expected);
            assert!(away.abs() < 14.0, "whepsrc receives another colour than whipsink's {colour:?}: {second}");
        }
        assert!(number(second, "/tone_db") > HEARD_DB, "whepsrc does not receive the tone of whipsink: {second}");
        let beside = number(second, "/tone_db") - number(second, "/beside_db");
        assert!(beside > 30.0, "whepsrc receives noise: {second}");
    }
    let left = room_when(&server, "gstreamer", |room| room["participants"].as_array().is_none_or(Vec::is_empty));
    assert!(left["participants"].as_array().is_none_or(Vec::is_empty), "both have left: {left}");
    server.stop();
}
