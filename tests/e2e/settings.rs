//! What belongs to one user on the page: languages, devices during a call, and the list of keys.

use serde_json::json;

use crate::scenario::play;
use crate::server::Server;
use crate::turn;

#[test]
fn the_lobby_fits_in_every_language_and_the_choice_is_remembered() {
    let _turn = turn();
    let server = Server::start();
    let measured = play(&server.url(), "page_languages", &[]);
    let looks = measured["looks"].as_object().expect("an object of languages");
    assert_eq!(looks.len(), 14, "seven languages in two sizes: {measured}");
    for (name, look) in looks {
        let tag = &name[..2];
        assert_eq!(look["lang"], tag, "{name}");
        assert_eq!(look["dir"], if tag == "ar" { "rtl" } else { "ltr" }, "{name}");
        assert_eq!(look["overflow"], 0, "{name}: the page is wider than the window");
        assert_eq!(look["cut"], json!([]), "{name}: texts are cut off");
    }
    assert_eq!(measured["before"], "Join", "the language of the browser");
    for step in ["changed", "camera", "remembered"] {
        assert_eq!(measured[step], true, "{step}: {measured}");
    }
    assert_eq!(measured["serious"], json!([]), "axe-core");
    assert_eq!(measured["faults"], json!([]), "the page had errors");
    server.stop();
}

#[test]
fn devices_and_language_change_during_a_call_and_the_keys_are_listed() {
    let _turn = turn();
    let server = Server::start();
    let measured = play(&server.url(), "page_settings", &[]);
    for step in
        ["mirrored", "offered", "replaced", "unmuted", "german", "left_to_right", "closed", "stays_muted", "untouched"]
    {
        assert_eq!(measured[step], true, "{step}: {measured}");
    }
    let keys = measured["keys"].as_array().expect("a list of keys");
    for key in ["M", "V", "D", "P", "Leertaste", "?"] {
        assert!(keys.contains(&json!(key)), "the key {key} is not listed: {measured}");
    }
    assert_eq!(measured["cut"], json!([]), "texts are cut off");
    assert_eq!(measured["serious"], json!([]), "axe-core");
    assert_eq!(measured["faults"], json!([]), "the page had errors");
    server.stop();
}
