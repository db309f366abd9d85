//! A shared screen in Chromium.

use crate::scenario::{list, number, play};
use crate::server::Server;
use crate::with_retries;

/// tesseract reads all words on a machine without load.
const READABLE: f64 = 0.95;
/// Longest time without a picture while others join, in ms. Chromium counts longer ones as freezes.
const FREEZE_MS: f64 = 200.0;

#[test]
fn small_text_on_a_shared_screen_is_readable_and_keyframes_of_it_cause_no_freeze() {
    with_retries(readable);
}

fn readable() {
    let server = Server::start();
    let measured = play(&server.url(), "readable_screen", &[]);
    for received in ["program", "screen_only", "medium", "low"] {
        let read = number(&measured, &format!("/read/{received}"));
        assert!(read > READABLE, "{received}: {read} of the words are read: {measured}");
    }
    // A view of only the static screen has fewer frames, because it does not change.
    assert!(number(&list(&measured, "/freezes")[0], "/max_gap_ms") < FREEZE_MS, "{measured}");
    for joined in list(&measured, "/joined") {
        assert!(number(joined, "/first_ms") < 2_000.0, "the static screen is shown to those who join: {measured}");
        assert!(number(joined, "/read") > READABLE, "{measured}");
    }
    server.stop();
}
