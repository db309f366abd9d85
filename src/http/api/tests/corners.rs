//! Unusual and invalid SDP offers, from the request to the answer.

use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestRunner};

use super::*;

const CHROMIUM: &str = include_str!("../../../peer/description/chromium.sdp");
const FIREFOX: &str = include_str!("../../../peer/description/firefox.sdp");
const KNOWN: [(&str, &str); 7] = [
    ("Chromium", CHROMIUM),
    ("Firefox", FIREFOX),
    ("Chromium with simulcast", include_str!("../../../sdp/fixtures/chromium.sdp")),
    ("Firefox with a data channel", include_str!("../../../sdp/fixtures/firefox.sdp")),
    ("FFmpeg", include_str!("../../../sdp/fixtures/ffmpeg.sdp")),
    ("aiortc", include_str!("../../../sdp/fixtures/aiortc.sdp")),
    ("GStreamer", include_str!("../../../sdp/fixtures/gstreamer.sdp")),
];

/// An API whose limits allow the many joins of these tests.
fn without_limits() -> Api {
    Api::with(|config| {
        let limits = &mut config.limits;
        (limits.joins_burst, limits.pending_per_address, limits.pending_total) = (100_000, 100_000, 100_000);
        limits.session_requests_burst = 100_000;
    })
}

/// The session section and the media sections of an SDP.
fn sections(sdp: &str) -> Vec<Vec<&str>> {
    let mut sections = vec![Vec::new()];
    for line in sdp.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.starts_with("m=") {
            sections.push(Vec::new());
        }
        sections.last_mut().expect("has one").push(line);
    }
    sections
}

fn value<'a>(section: &[&'a str], prefix: &str) -> Option<&'a str> {
    section.iter().find_map(|line| line.strip_prefix(prefix))
}

fn words<'a>(section: &[&'a str]) -> Vec<&'a str> {
    section[0].split_whitespace().collect()
}

/// The violations in an answer (RFC 3264, 8829, 8839, 8842, 9143) to any offer; `refused` are the indexes of the
/// sections that must be rejected.
fn faults(offer: &str, answer: &str, refused: &[usize]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut check = |good: bool, what: String| {
        if !good {
            faults.push(what);
        }
    };
    check(
        answer.ends_with("\r\n") && answer.matches('\n').count() == answer.matches("\r\n").count(),
        "line ends".into(),
    );
    check(answer.starts_with("v=0\r\no="), "it does not start with v=0 and o=".into());
    let (offered, answered) = (sections(offer), sections(answer));
    check(offered.len() == answered.len(), format!("{} sections for {}", answered.len() - 1, offered.len() - 1));
    let session = &answered[0];
    check(session.contains(&"a=ice-options:trickle"), "no ice-options:trickle".into());
    check(!answer.contains("a=ice-lite"), "the server is not an ICE lite agent".into());
    let bundle = value(session, "a=group:BUNDLE ").map(|mids| mids.split(' ').collect::<Vec<_>>());
    let mut accepted = Vec::new();
    for (at, (offered, answered)) in offered.iter().zip(&answered).skip(1).enumerate() {
        let (answer_line, offer_line) = (words(answered), words(offered));
        check(
            (answer_line[0], answer_line[2]) == (offer_line[0], offer_line[2]),
            format!("{answer_line:?} for {offer_line:?}"),
        );
        let mid = value(answered, "a=mid:").unwrap_or_default();
        if let Some(known) = value(offered, "a=mid:") {
            check(mid == known.trim(), format!("mid {mid} for {known}"));
        }
        if refused.contains(&at) {
            check(answer_line[1] == "0", format!("section {at} is not rejected: {answer_line:?}"));
            continue;
        }
        accepted.push(mid);
        check(answer_line[1] == "9", format!("section {at} has another port than 9: {answer_line:?}"));
        check(
            answer_line[3..].iter().all(|format| offer_line[3..].contains(format)),
            format!("{answer_line:?} of {offer_line:?}"),
        );
        for needed in ["a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:sha-256 "] {
            check(
                value(answered, needed).is_some() || value(session, needed).is_some(),
                format!("section {at} has no {needed}"),
            );
        }
        let setups: Vec<_> = answered.iter().filter_map(|line| line.strip_prefix("a=setup:")).collect();
        check(matches!(setups[..], ["passive" | "active"]), format!("section {at} has setup {setups:?}"));
        check(answered.contains(&"a=rtcp-mux"), format!("section {at} is not muxed"));
        let has = |section: &[&str], names: &[&str]| names.iter().any(|name| section.contains(name));
        let sends = has(answered, &["a=sendrecv", "a=sendonly"]);
        let receives = has(answered, &["a=sendrecv", "a=recvonly"]);
        check(
            !(sends && has(offered, &["a=sendonly", "a=inactive"])),
            format!("section {at} sends to one that only sends"),
        );
        check(
            !(receives && has(offered, &["a=recvonly", "a=inactive"])),
            format!("section {at} receives from a section that does not send"),
        );
    }
    match &bundle {
        Some(bundle) => check(*bundle == accepted, format!("bundled {bundle:?} of {accepted:?}")),
        None => check(accepted.len() < 2, "no bundle".into()),
    }
    let tagged = bundle.as_ref().unwrap_or(&accepted).first();
    for section in &answered[1..] {
        let is_tagged = tagged == value(section, "a=mid:").as_ref();
        let ends = section.contains(&"a=end-of-candidates");
        check(
            value(section, "a=candidate:").is_some() == is_tagged && ends == is_tagged,
            format!("candidates of {}", section[0]),
        );
    }
    faults
}

async fn answers(api: &Api, what: &str, offer: &str, refused: &[usize]) -> String {
    let reply = api.post_offer("/v1/rooms/r/participants", offer).await;
    assert_eq!(reply.status, 201, "{what}: {reply:?}");
    let faults = faults(offer, &reply.body, refused);
    assert!(faults.is_empty(), "{what}: {faults:#?}\n{offer}\n{}", reply.body);
    assert_eq!(api.send("DELETE", reply.header("location"), &[], "").await.status, 200);
    reply.body
}

/// Moves attributes of an offer to the session section.
fn at_session_level(offer: &str, prefixes: &[&str]) -> String {
    let moved = |line: &&str| prefixes.iter().any(|prefix| line.starts_with(prefix));
    let first = |prefix: &&str| offer.lines().find(|line| line.starts_with(*prefix));
    let head: String = prefixes.iter().filter_map(first).flat_map(|line| [line, "\r\n"]).collect();
    let rest: String = offer.lines().filter(|line| !moved(line)).flat_map(|line| [line, "\r\n"]).collect();
    rest.replacen("m=audio", &format!("{head}m=audio"), 1)
}

#[tokio::test]
async fn the_offers_of_known_clients_are_answered_section_by_section() {
    let api = without_limits();
    for (name, offer) in KNOWN {
        let refused: &[usize] = if offer.contains("m=application") { &[2] } else { &[] };
        for offer in [offer.to_owned(), offer.replace('\n', "\r\n"), offer.trim_end().to_owned()] {
            answers(&api, name, &offer, refused).await;
        }
    }
}

#[tokio::test]
async fn all_valid_spellings_of_an_offer_are_understood() {
    let api = without_limits();
    let base = offer("sendrecv");
    let fingerprint = base.lines().find(|line| line.starts_with("a=fingerprint")).expect("has one");
    let other_hashes = format!(
        "a=fingerprint:sha-512 {0}:{0}\r\na=fingerprint:sha-384 {0}\r\n{fingerprint}\r\na=fingerprint:sha-1 AA:BB\r\n",
        ["AB"; 32].join(":")
    );
    let transport = ["a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:", "a=setup:", "a=ice-options:"];
    let video = base.find("m=video").expect("has one");
    let unknown = "i=a title\r\nb=AS:500\r\nb=TIAS:500000\r\nk=clear:x\r\na=x-google-flag:conference\r\n\
        a=rtcp:9 IN IP4 0.0.0.0\r\n\
        a=ptime:20\r\na=rtcp-fb:* ccm tmmbr\r\na=framerate:30\r\n\
        a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\r\na=\r\na=:\r\n";
    for (what, offer) in [
        ("LF alone", base.replace("\r\n", "\n")),
        ("mixed line ends", base.replacen("\r\n", "\n", 5)),
        ("no last line end", base.trim_end().to_owned()),
        ("empty lines at the end", format!("{base}\r\n\r\n")),
        ("a bundle-only section", {
            let (head, tail) = base.split_at(video);
            format!("{head}{}", tail.replace("m=video 9", "m=video 0").replace("a=mid:1", "a=bundle-only\r\na=mid:1"))
        }),
        ("bundle-only on both sections", base.replace("a=mid:", "a=bundle-only\r\na=mid:")),
        ("real ports", base.replace("m=audio 9", "m=audio 54321").replace("m=video 9", "m=video 54321")),
        ("the client opens DTLS", base.replace("actpass", "active")),
        ("the client waits for DTLS", base.replace("actpass", "passive")),
        ("no setup", base.replace("a=setup:actpass\r\n", "")),
        ("transport attributes at session level", at_session_level(&base, &transport)),
        ("fingerprints of several hashes", base.replace(&format!("{fingerprint}\r\n"), &other_hashes)),
        ("upper and lower case", {
            base.replace("opus/48000", "OPUS/48000").replace("VP8", "vp8").replace("sha-256", "SHA-256")
        }),
        ("a lower-case fingerprint", base.replace(fingerprint, &fingerprint.to_lowercase())),
        ("an ICE lite client", base.replace("t=0 0\r\n", "t=0 0\r\na=ice-lite\r\n")),
        ("unknown attributes", base.replace("a=rtcp-mux\r\n", &format!("a=rtcp-mux\r\n{unknown}"))),
        ("other groups", base.replace("a=group:BUNDLE", "a=group:LS 0 1\r\na=group:BUNDLE")),
        ("extensions in one direction, with large numbers", {
            base.replace("a=rtcp-mux\r\n", "a=rtcp-mux\r\na=extmap:14/sendonly urn:x\r\na=extmap:300 urn:y a=b\r\n")
        }),
        ("unusable candidates", {
            base.replace(
                "a=rtcp-mux\r\n",
                "a=rtcp-mux\r\na=candidate:1 1 tcp 1 192.0.2.1 9 typ host tcptype active\r\n\
                a=candidate:2 1 udp 1 0b1c.local 5000 typ host\r\n\
                a=candidate:3 1 udp 1 :: 0 typ host\r\na=candidate:\r\n",
            )
        }),
        (
            "mids that are not numbers",
            base.replace("a=mid:0", "a=mid:mic").replace("a=mid:1", "a=mid:cam").replace("0 1\r\n", "mic cam\r\n"),
        ),
        ("no direction", base.replace("a=sendrecv\r\n", "")),
        ("the direction at session level", at_session_level(&offer("sendonly"), &["a=sendonly"])),
    ] {
        answers(&api, what, &offer, &[]).await;
    }
}

#[tokio::test]
async fn unsupported_sections_are_rejected_in_place() {
    let api = without_limits();
    let base = offer("sendrecv");
    let data =
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:data\r\na=sctp-port:5000\r\n";
    let words =
        "m=text 9 UDP/TLS/RTP/SAVPF 98\r\nc=IN IP4 0.0.0.0\r\na=mid:words\r\na=rtpmap:98 t140/1000\r\na=rtcp-mux\r\n";
    let stopped =
        "m=video 0 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:old\r\na=inactive\r\na=rtpmap:96 VP8/90000\r\n";
    let first = |section: &str| base.replacen("m=audio", &format!("{section}m=audio"), 1);
    let middle = |section: &str| base.replacen("m=video", &format!("{section}m=video"), 1);
    let bundled = |offer: String, mid: &str| offer.replace("BUNDLE 0 1", &format!("BUNDLE 0 {mid} 1"));
    for (what, offer, refused) in [
        ("a data channel last", bundled(format!("{base}{data}"), "data"), 2),
        ("a data channel first", bundled(first(data), "data"), 0),
        ("text in the middle", bundled(middle(words), "words"), 1),
        ("a stopped section last", format!("{base}{stopped}"), 2),
        ("a stopped section in the middle", middle(stopped), 1),
        ("a stopped section first", first(stopped), 0),
    ] {
        for direction in ["a=sendrecv", "a=recvonly"] {
            answers(&api, what, &offer.replace("a=sendrecv", direction), &[refused]).await;
        }
    }
}

#[tokio::test]
async fn a_single_section_needs_no_bundle_group_and_no_mid() {
    let api = without_limits();
    for direction in ["sendrecv", "sendonly", "recvonly"] {
        let both = offer(direction);
        let alone = both[..both.find("m=video").expect("has one")].replace("a=group:BUNDLE 0 1\r\n", "");
        answers(&api, "with a mid", &alone, &[]).await;
        answers(&api, "without a mid", &alone.replace("a=mid:0\r\n", ""), &[]).await;
    }
}

#[tokio::test]
async fn the_error_names_what_an_offer_lacks() {
    let api = without_limits();
    let base = offer("sendrecv");
    let without = |prefix: &str| -> String {
        base.lines().filter(|line| !line.starts_with(prefix)).flat_map(|line| [line, "\r\n"]).collect()
    };
    for (offer, status, names) in [
        (without("a=fingerprint"), 422, "a=fingerprint"),
        (base.replace("sha-256", "sha-512"), 422, "sha-256"),
        (without("a=ice-"), 422, "a=ice-ufrag"),
        (base.replace("m=audio 9", "m=audio"), 400, "line 6"),
        (base.replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"), 422, "UDP/TLS/RTP/SAVPF"),
        (format!("v=0\r\n{}", "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n".repeat(20)), 422, "16 m-lines"),
        (format!("{base}{}", "a=x\r\n".repeat(3000)), 413, "2000 lines"),
        (format!("{base}{}", "a=candidate:1\r\n".repeat(70)), 422, "64 candidates"),
        (format!("{base}a={}", "x".repeat(64 * 1024)), 413, "65536 bytes"),
        ("\u{feff}v=0\r\n".to_owned(), 400, "v=0"),
    ] {
        let detail = api.post_offer("/v1/rooms/r/participants", &offer).await.problem(status);
        assert!(detail.contains(names), "`{detail}` does not name `{names}`");
    }
}

/// Offers of real clients with lines removed, repeated, truncated, swapped and changed are answered, or refused with
/// 4xx.
#[test]
fn mangled_offers_are_answered_or_refused_as_client_errors() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("starts");
    let api = runtime.block_on(async { without_limits() });
    let edit = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..7_u8, any::<char>());
    let offers = (0..KNOWN.len(), prop::collection::vec(edit, 1..10));
    let mut runner = TestRunner::new(Runs { cases: 150, failure_persistence: None, ..Runs::default() });
    let ran = runner.run(&offers, |(which, edits)| {
        let mut lines: Vec<String> = KNOWN[which].1.lines().map(str::to_owned).collect();
        for (line, other, kind, c) in edits {
            let (line, other) = (line.index(lines.len()), other.index(lines.len()));
            match kind {
                0 => drop(lines.remove(line)),
                1 => lines.insert(line, lines[other].clone()),
                2 => lines[line] = lines[line].chars().take(other % 12).collect(),
                3 => lines.swap(line, other),
                4 => lines[line].push(c),
                5 => lines[line] = lines[line].replace(|c: char| c.is_ascii_digit(), "9"),
                _ => lines[line] = lines[line].replace(' ', "  "),
            }
        }
        let offer = lines.join("\r\n");
        runtime.block_on(async {
            let reply = api.post_offer("/v1/rooms/r/participants", &offer).await;
            prop_assert!([201, 400, 413, 422].contains(&reply.status), "{reply:?}\n{offer}");
            if reply.status == 201 {
                let count = |text: &str| text.lines().filter(|line| line.trim().starts_with("m=")).count();
                prop_assert_eq!(count(&offer), count(&reply.body), "{}\n{}", offer, reply.body);
                prop_assert_eq!(api.send("DELETE", reply.header("location"), &[], "").await.status, 200);
            }
            Ok(())
        })
    });
    ran.unwrap_or_else(|error| panic!("{error}"));
}
