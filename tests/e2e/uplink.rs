//! The uplink bitrate of senders.

use crate::relay::{Conditions, Relay};
use crate::scenario::{list, number, play};
use crate::server::Server;
use crate::turn;

#[test]
fn a_camera_sends_the_bitrate_that_its_tile_needs() {
    let _turn = turn();
    let server = Server::start();
    let measured = play(&server.url(), "uplink", &[]);
    assert_eq!((&measured["ready"], &measured["full"]), (&true.into(), &true.into()), "the room was not complete");
    // A tile of half the canvas shows the middle of 1280x720, which needs 1,500 kbit/s; one of 418x234 needs 249
    // kbit/s. Noise uses all of it; an encoder on a busy machine uses less.
    for (phase, most) in list(&measured, "/phases").iter().zip([1_620.0, 330.0, 1_620.0]) {
        // The available bitrate of the sender is the REMB limit of video and audio.
        let may = number(phase, "/available_kbps");
        assert!((most * 0.8..most * 1.05).contains(&may), "the sender ignores the limit: {phase}");
        assert_eq!(phase["settled"], true, "the camera's target bitrate is not that of its tile: {phase}");
        let sent = number(phase, "/sent_kbps");
        assert!((most * 0.3..most).contains(&sent), "the camera sent {sent} kbit/s: {phase}");
        assert!(number(phase, "/audio_packets") > 45.0, "audio packets are missing: {phase}");
    }
    server.stop();
}

#[test]
fn in_a_room_of_25_the_client_module_sends_one_small_encoding_in_less_than_120_kbit_s() {
    let _turn = turn();
    let server = Server::start();
    let measured = play(&server.url(), "large_room", &[]);
    assert_eq!(measured["full"], true, "the room was not complete: {measured}");
    for (name, encoding) in [("alone", "f"), ("crowd", "q"), ("again", "f")] {
        let phase = &measured[name];
        assert_eq!((&phase["decoded"], &phase["encoding"]), (&true.into(), &encoding.into()), "{name}: {phase}");
        assert_eq!(phase["active"], serde_json::json!([encoding]), "one encoding is sent: {name}: {phase}");
    }
    let crowd = &measured["crowd"];
    // Noise that changes in every frame uses all of the limit.
    assert!((50.0..120.0).contains(&number(crowd, "/kbps")), "{crowd}");
    assert!(number(crowd, "/frame/0/0") <= number(crowd, "/wanted/width") + 16.0, "{crowd}");
    server.stop();
}

/// Bandwidth of the thin uplink, in kbit/s.
const THIN_KBPS: u32 = 300;

#[test]
fn on_a_thin_uplink_the_video_shrinks_and_the_audio_arrives() {
    let _turn = turn();
    let server = Server::start();
    let thin = Conditions { kbps: Some(THIN_KBPS), ..Conditions::default() };
    let relay = Relay::start(server.media, thin, Conditions::default(), 7);
    let port = relay.port.to_string();
    let measured = play(&server.url(), "thin_uplink", &["--relay", &port, "--seconds", "12"]);
    assert_eq!(measured["ready"], true, "not all had joined within 20 s");
    assert!(number(&measured, "/video_kbps") < f64::from(THIN_KBPS), "{measured}");
    assert!(number(&measured, "/fps") >= 4.0, "the video keeps moving: {measured}");
    assert!(number(&measured, "/audio_packets") > 45.0, "{measured}");
    assert!(number(&measured, "/audio_lost") <= 12.0, "of 600: {measured}");
    assert!(number(&measured, "/hears_db") > -60.0 && number(&measured, "/gap_ms") < 100.0, "{measured}");
    server.stop();
}
