//! Sound in both its qualities: thin for those with a low tier, full for others, all at once in one room.

use crate::rooms::assert_hears;
use crate::scenario::{list, number, play};
use crate::server::Server;
use crate::turn;

/// A thin packet comes with its first tick 40 ms late; what is heard must not stop for longer than this.
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
        assert!(rates.contains(&kbps) && counts.contains(&packets), "{who} gets {kbps} kbit/s in {packets} packets/s");
    }
    for change in list(&measured, "/changes") {
        assert_eq!(change["status"], 200, "{change}");
        let counts = if change["tier"] == "low" { 14.0..22.0 } else { 42.0..53.0 };
        assert!(counts.contains(&number(change, "/packets")), "the sound did not follow the tier: {change}");
        assert_eq!(number(change, "/lost"), 0.0, "sequence numbers have a gap: {change}");
        for silence in list(change, "/silence_ms") {
            let silence = silence.as_f64().expect("a number");
            assert!(silence < SILENCE_MS, "nothing was heard for {silence} ms: {change}");
        }
    }
    server.stop();
}
