//! People in a call on the page: the lobby, chat, hands, reactions, moderation and pins.

use serde_json::json;

use crate::scenario::{number, play_with};
use crate::server::{Server, Settings, commingle};
use crate::turn;

#[test]
fn a_moderator_and_two_guests_use_the_page() {
    const KEY: &str = "an end-to-end test's key of 32 bytes or more";
    const ROOM: &str = "people";
    let _turn = turn();
    let environment =
        [("COMMINGLE_AUTH_KEY", KEY), ("COMMINGLE_VIDEO_CANVAS", "640x360"), ("COMMINGLE_VIDEO_FPS", "15")];
    let server = Server::start_with(&Settings { environment: &environment, ..Settings::default() });
    let measured = play_with(&server.url(), "page_people", &["--room", ROOM], |what| {
        let words: Vec<&str> = what.split(' ').collect();
        let &["token", role, name] = words.as_slice() else { panic!("an unexpected request: {what}") };
        let arguments = ["token", "--room", ROOM, "--role", role, "--name", name, "--ttl", "10m"];
        let output =
            commingle().args(arguments).envs(environment).output().expect("the binary was built with this test");
        String::from_utf8(output.stdout).expect("a token is ASCII").trim().to_owned()
    });
    for step in [
        "lobby_on",
        "waits",
        "sees_nobody",
        "told_moderator",
        "admitted",
        "refused",
        "admitted_again",
        "unread",
        "private_seen",
        "private_hidden",
        "hand",
        "lowered",
        "reaction",
        "muted",
        "stays_muted",
        "asked",
        "unmuted",
        "pinned",
        "own_pin",
        "promoted",
        "removed",
        "kept_out",
    ] {
        assert_eq!(measured[step], true, "{step}: {measured}");
    }
    let said = &measured["said"];
    assert_eq!(said["text"], "Hello <b>all</b>, see https://example.org/a.", "a text is never HTML: {measured}");
    assert_eq!((&said["html"], &said["href"]), (&json!(null), &json!("https://example.org/a")), "{measured}");
    assert_eq!(said["rel"], "noopener noreferrer nofollow", "{measured}");
    assert_eq!(number(&measured, "/overflow_px"), 0.0, "the page is wider than a phone");
    assert_eq!(measured["serious"], json!([]), "axe-core");
    assert_eq!(measured["faults"], json!([]), "the page had errors");
    server.stop();
}
