//! Two people in two pages, whose media goes from one to the other: the server sees none of it until somebody comes.

use serde_json::json;

use crate::scenario::{number, play};
use crate::server::{Server, Settings};
use crate::turn;

/// From the third one's answer to a mixed picture that moves again.
const BACK_WITHIN_MS: f64 = 1_000.0;

#[test]
fn two_talk_directly_until_a_third_comes() {
    let _turn = turn();
    let server =
        Server::start_with(&Settings { arguments: &["--set", "rooms.direct_for_two=true"], ..Settings::default() });
    let measured = play(&server.url(), "direct_for_two", &[]);
    assert_eq!(measured["went"], json!([true, true]), "{measured}");
    assert_eq!(measured["at_server"], json!({"out": 0, "in": 0}), "no media goes over the server");
    assert!(number(&measured, "/between/out") > 100.0 && number(&measured, "/between/in") > 100.0, "{measured}");
    assert_eq!(measured["alone"], json!([[1], [0]]), "each sees the other");
    for back in 0..2 {
        let took = number(&measured, &format!("/back_ms/{back}"));
        assert!(took < BACK_WITHIN_MS, "back in the mix after {took} ms");
    }
    assert_eq!(measured["together"], json!([[0, 1, 2], [0, 1, 2]]), "all three are in the mix");
    assert_eq!(measured["stays"], "connected", "nobody had to leave for it");
    assert_eq!(measured["again"], true, "alone again, they are direct again");
    assert_eq!(measured["mixed"], true, "a way that breaks is the mixer's again");
    assert!(number(&measured, "/after/in") > 20.0, "{measured}");
    server.stop();
}
