//! Audio in both qualities in one room: thin for participants at a low tier, full for others.

use crate::rooms::assert_hears;
use crate::scenario::{list, number, play};
use crate::server::Server;
use crate::turn;

/// Longest silence in ms; the first tick of a thin packet is 40 ms late.
const SILENCE_MS: f64 = 100.0;

#[test]
fn thin_and_full_audio_coexist_in_a_room() {
    let _turn = turn();
    let server = Server::start();
    let measured = play(&server.url(), "qualities", &[]);
    assert_eq!(measured["ready"], true, "the room was not complete within 15 s");
    for (person, thin) in list(&measured, "/people").iter().zip([true, true, false]) {
        let who = format!("person {}", person["k"]);
        assert_hears(&person["sound"], &who, 40.0);
        let (kbps, packets) = (number(person, "/kbps"), number(person, "/packets"));
        let (rates, counts) = if thin { (14.0..26.0, 15.5..18.0) } else { (30.0..60.0, 47.0..53.0) };
        assert!(
            rates.contains(&kbps) && counts.contains(&packets),
            "{who} receives {kbps} kbit/s in {packets} packets/s"
        );
    }
    for change in list(&measured, "/changes") {
        assert_eq!(change["status"], 200, "{change}");
        let counts = if change["tier"] == "low" { 14.0..22.0 } else { 42.0..53.0 };
        assert!(counts.contains(&number(change, "/packets")), "the audio did not follow the tier: {change}");
        assert_eq!(number(change, "/lost"), 0.0, "sequence numbers have a gap: {change}");
        for silence in list(change, "/silence_ms") {
            let silence = silence.as_f64().expect("a number");
            assert!(silence < SILENCE_MS, "{silence} ms of silence: {change}");
        }
    }
    server.stop();
}
