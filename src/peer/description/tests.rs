//! What is taken of real offers, and what the client gets back.

use proptest::prelude::*;

use super::*;

const CHROMIUM: &str = include_str!("chromium.sdp");
const FIREFOX: &str = include_str!("firefox.sdp");
const BOTH: Receives = Receives { audio: true, video: Some(Codec::Vp8) };
const NOTHING: Receives = Receives { audio: false, video: None };
const CANDIDATE: &str = "candidate:1 1 udp 9 203.0.113.1 8189 typ host";

fn taken(text: &str, receives: Receives) -> Agreement {
    take(&Offer::parse(text).expect("an offer"), receives).expect("can be answered")
}

fn answer_to(agreement: &Agreement) -> String {
    let ice = Credentials { ufrag: "ours".to_owned(), password: "p".repeat(24) };
    let local = Local {
        ice: &ice,
        role: agreement.dtls_role,
        fingerprint: "AB:CD",
        candidates: &[CANDIDATE.to_owned()],
        ssrcs: super::super::ssrcs::Ssrcs { audio: 100, video: 200 },
        cname: "unique",
        session: 5,
        version: 1,
    };
    answer(agreement, &local)
}

fn answered(text: &str, receives: Receives) -> String {
    answer_to(&taken(text, receives))
}

fn media_lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.starts_with("m=")).collect()
}

/// The lines of the section with this index.
fn section(text: &str, index: usize) -> &str {
    let starts: Vec<usize> =
        text.match_indices("m=").map(|(at, _)| at).filter(|at| text[..*at].ends_with('\n')).collect();
    &text[starts[index]..starts.get(index + 1).copied().unwrap_or(text.len())]
}

fn sends(agreement: &Agreement, kind: Kind) -> Format {
    agreement.sends(kind).expect("it is sent").0.clone()
}

#[test]
fn codecs_we_cannot_decode_are_not_answered_and_the_one_we_send_stands_first() {
    let text = answered(CHROMIUM, BOTH);
    assert_eq!(
        media_lines(&text),
        [
            "m=audio 9 UDP/TLS/RTP/SAVPF 111 0 8",
            "m=video 9 UDP/TLS/RTP/SAVPF 96 97 102 103 104 107 108 109 45 46 98 99",
        ]
    );
    let h264 = taken(CHROMIUM, Receives { video: Some(Codec::H264), ..BOTH });
    let sent = sends(&h264, Kind::Video);
    assert_eq!((sent.payload_type, sent.rtx), (108, Some(109)), "constrained baseline, which has fragmentation units");
    let text = answer_to(&h264);
    assert!(media_lines(&text)[1].starts_with("m=video 9 UDP/TLS/RTP/SAVPF 108 109 96 97"));
    assert!(!text.contains("profile-id=2") && !text.contains("ulpfec") && !text.contains("telephone"));
}

#[test]
fn a_codec_is_known_by_each_payload_type_the_offer_gives_it() {
    let agreement = taken(FIREFOX, BOTH);
    let formats: Vec<&Format> = agreement.accepted().flat_map(|(_, section)| &section.formats).collect();
    let known = |payload_type| formats.iter().find(|f| f.payload_type == payload_type).map(|f| (f.codec, f.rtx));
    assert_eq!(known(120), Some((Codec::Vp8, Some(124))));
    assert_eq!(known(99), Some((Codec::Av1, Some(100))));
    assert_eq!(known(109), Some((Codec::Opus, None)));
    assert_eq!(known(122), None, "redundancy is no codec");
}

#[test]
fn the_offers_order_stays_where_the_client_only_sends() {
    let text = CHROMIUM
        .replace("a=sendrecv", "a=sendonly")
        .replace("m=video 9 UDP/TLS/RTP/SAVPF 96 97 102 103", "m=video 9 UDP/TLS/RTP/SAVPF 102 103 96 97");
    let agreement = taken(&text, NOTHING);
    let answer = answer_to(&agreement);
    assert!(media_lines(&answer)[1].starts_with("m=video 9 UDP/TLS/RTP/SAVPF 102 103 96 97"));
    assert_eq!(answer.matches("a=recvonly").count(), 2);
    assert!(agreement.sends(Kind::Audio).is_none() && agreement.sends(Kind::Video).is_none());
}

#[test]
fn static_payload_types_need_no_rtpmap_and_retransmissions_are_agreed_upon() {
    let text = answered(&CHROMIUM.replace("a=rtpmap:0 PCMU/8000\n", ""), BOTH);
    assert!(text.contains("a=rtpmap:0 PCMU/8000\r\n"), "{text}");
    assert!(text.contains("a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n"), "{text}");
    assert!(!text.contains("f1254514"), "nothing of the client's tracks: {text}");
    let agreement = taken(CHROMIUM, BOTH);
    let streams: Vec<_> = agreement.accepted().filter_map(|(_, section)| section.stream.clone()).collect();
    assert_eq!(streams[0], OfferedStream { ssrc: Some(2_481_545_474), ..OfferedStream::default() });
    assert_eq!((streams[1].ssrc, streams[1].rtx_ssrc), (Some(1_935_713_919), Some(4_147_299_643)));
}

#[test]
fn extension_ids_are_the_offers() {
    let agreement = taken(CHROMIUM, BOTH);
    let ids = agreement.extensions;
    assert_eq!((ids.audio_level, ids.orientation, ids.transport_cc), (Some(1), Some(13), Some(3)));
    assert_eq!((ids.mid, ids.rid, ids.repaired_rid), (Some(4), Some(10), Some(11)));
    let text = answer_to(&agreement);
    assert!(!text.contains("toffset"));
    assert!(section(&text, 0).contains("a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n"), "{text}");
}

#[test]
fn the_dtls_role_follows_the_offer() {
    for (setup, role, answered_as) in [
        ("actpass", DtlsRole::Server, "passive"),
        ("active", DtlsRole::Server, "passive"),
        ("passive", DtlsRole::Client, "active"),
    ] {
        let agreement = taken(&CHROMIUM.replace("actpass", setup), BOTH);
        assert_eq!(agreement.dtls_role, role);
        assert!(answer_to(&agreement).contains(&format!("a=setup:{answered_as}\r\n")));
    }
}

#[test]
fn only_sha_256_and_candidates_that_can_be_sent_to_are_taken() {
    let more = "a=mid:0\na=fingerprint:sha-1 AA:BB\na=candidate:1 1 udp 1 10.0.0.1 5 typ host\n\
        a=candidate:1 2 udp 1 10.0.0.1 6 typ host\na=candidate:2 1 tcp 1 10.0.0.1 9 typ host tcptype active\n\
        a=candidate:3 1 udp 1 0b1c.local 7 typ host\na=candidate:4 1 udp 1 10.0.0.1 0 typ host\n\
        a=candidate:5 1 udp 1 0.0.0.0 7 typ host\na=candidate:6 1 udp 1 224.0.0.1 7 typ host";
    let agreement = taken(&CHROMIUM.replace("a=mid:0", more), BOTH);
    assert_eq!(agreement.addresses, [SocketAddr::from(([10, 0, 0, 1], 5))]);
    assert_eq!(agreement.fingerprints.len(), 1);
    assert!(!agreement.fingerprints[0].starts_with("AA:BB"));
}

/// The offer without its `a=ssrc` lines, as ffmpeg and GStreamer may send it.
fn without_ssrcs(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with("a=ssrc")).map(|line| format!("{line}\r\n")).collect()
}

#[test]
fn streams_that_could_never_be_told_apart_are_refused_with_the_way_out() {
    let camera = &CHROMIUM[CHROMIUM.find("m=video").expect("has one")..];
    let screen = camera.replace("a=mid:1", "a=mid:2").replace("a=sendrecv", "a=sendonly");
    let two = without_ssrcs(&format!("{CHROMIUM}{screen}").replace("BUNDLE 0 1", "BUNDLE 0 1 2"));
    let named = |text: &str| {
        let streams = taken(text, BOTH).accepted().filter_map(|(_, s)| s.stream.clone()).collect::<Vec<_>>();
        streams.iter().filter(|stream| stream.ssrc.is_some()).count()
    };
    assert_eq!(named(&two), 0, "their packets carry the MID of their section");
    let mute = two.replace("a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n", "");
    let error = take(&Offer::parse(&mute).expect("an offer"), BOTH).expect_err("cannot be received").to_string();
    assert!(error.contains("`1` and `2`") && error.contains("a=ssrc"), "{error}");
    // A section whose SSRC is announced leaves only one for other SSRCs.
    let one = mute.replacen("a=mid:1\r\n", "a=mid:1\r\na=ssrc:5 cname:x\r\n", 1);
    assert_eq!(named(&one), 1);
}

fn simulcast(layers: &str) -> String {
    format!("{}a=rid:q send\r\na=rid:h send\r\na=rid:f send\r\na=simulcast:{layers}\r\n", without_ssrcs(CHROMIUM))
}

fn rids_of(agreement: &Agreement) -> Vec<String> {
    agreement.accepted().nth(1).and_then(|(_, section)| section.stream.clone()).expect("it sends").rids
}

#[test]
fn all_encodings_of_a_simulcast_offer_are_accepted() {
    for (layers, expected) in [
        ("send q;h;f", &["q", "h", "f"][..]),
        ("recv x send q;h", &["q", "h"]),
        ("send q;f,h;~h", &["q", "f", "h"]),
        ("send ~q", &["q"]),
        ("send q;q;unknown", &["q"]),
    ] {
        let agreement = taken(&simulcast(layers), BOTH);
        assert_eq!(rids_of(&agreement), expected, "{layers}");
        let answer = answer_to(&agreement);
        let rids = expected.iter().fold(String::new(), |text, rid| text + &format!("a=rid:{rid} recv\r\n"));
        let accepted = format!("{rids}a=simulcast:recv {}\r\n", expected.join(";"));
        assert!(section(&answer, 1).contains(&accepted), "{answer}");
        let counts = (answer.matches("a=simulcast").count(), answer.matches("a=rid").count());
        assert_eq!(counts, (1, expected.len()), "{answer}");
    }
}

#[test]
fn encodings_whose_packets_carry_no_rid_are_no_simulcast() {
    let text = simulcast("send q;h;f").replace("urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id", "urn:x");
    for text in [text, simulcast("send a;b"), simulcast("recv q")] {
        let agreement = taken(&text, BOTH);
        assert!(rids_of(&agreement).is_empty());
        assert!(!answer_to(&agreement).contains("a=simulcast"));
    }
}

#[test]
fn sections_of_other_media_are_refused_in_their_place() {
    let data = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:iCU9\r\n\
        a=ice-pwd:EvUh2F7SvUEr/QAp3QdYl/+t\r\na=mid:data\r\na=sctp-port:5000\r\na=rtcp-mux\r\n";
    let text = CHROMIUM.replace("m=video", &format!("{data}m=video")).replace("BUNDLE 0 1", "BUNDLE 0 data 1");
    let answer = answered(&text, BOTH);
    assert!(
        answer.starts_with("v=0\r\no=- 5 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n"),
        "{answer}"
    );
    assert_eq!(media_lines(&answer).len(), 3);
    let refused =
        "m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:data\r\na=inactive\r\n";
    assert_eq!(section(&answer, 1), refused);
    // Candidates stand in the section that the BUNDLE group begins with, and only there.
    assert!(section(&answer, 0).ends_with(&format!("a={CANDIDATE}\r\na=end-of-candidates\r\n")), "{answer}");
    assert_eq!(answer.matches("a=candidate").count(), 1);
    assert!(section(&answer, 2).contains("a=ssrc:200 cname:unique\r\n"), "{answer}");
}

#[test]
fn sections_inherit_from_the_session_and_are_named() {
    let offered = CHROMIUM
        .replace("a=sendrecv\n", "")
        .replace("t=0 0\n", "t=0 0\na=sendonly\na=extmap:9 urn:3gpp:video-orientation\n")
        .replace("a=extmap:13 urn:3gpp:video-orientation\n", "");
    let offered = offered.replace("m=video 9", "m=video  9").replace("a=mid:1", "a=mid: 1");
    let agreement = taken(&offered, NOTHING);
    let answer = answer_to(&agreement);
    assert_eq!(answer.matches("a=recvonly\r\n").count(), 2, "{answer}");
    assert!(answer.contains("m=video 9 ") && answer.contains("a=mid:1\r\n"), "{answer}");
    assert_eq!(agreement.extensions.orientation, Some(9));
    let nameless = CHROMIUM[..CHROMIUM.find("m=video").expect("has one")]
        .replace("a=mid:0\n", "")
        .replace("a=group:BUNDLE 0 1\n", "");
    let alone = answered(&nameless, Receives { audio: true, video: None });
    assert!(alone.contains("a=mid:0\r\n") && !alone.contains("BUNDLE"), "{alone}");
}

#[test]
fn levels_of_contributing_sources_go_to_clients_that_get_a_mix() {
    let uri = extensions::MIXER_TO_CLIENT_LEVEL;
    let offered = CHROMIUM.replace("a=mid:0\n", &format!("a=mid:0\na=extmap:12/recvonly {uri}\n"));
    let both = taken(&offered, BOTH);
    assert_eq!(both.extensions.mixer_to_client_level, Some(12));
    let mixed = answer_to(&both);
    assert!(mixed.contains(&format!("a=extmap:12/sendonly {uri}\r\n")), "{mixed}");
    let sends = answered(&offered.replace("a=sendrecv", "a=sendonly"), NOTHING);
    assert!(!sends.contains(uri), "{sends}");
}

#[test]
fn a_codec_that_cannot_be_sent_is_refused_with_the_way_out() {
    let text = CHROMIUM.replace("packetization-mode=1", "packetization-mode=0");
    let offer = Offer::parse(&text).expect("an offer");
    let error = take(&offer, Receives { video: Some(Codec::H264), ..BOTH }).expect_err("cannot be sent");
    assert!(error.to_string().contains("packetization-mode=1"), "{error}");
}

#[test]
fn an_ice_restart_is_answered_by_a_fragment() {
    let agreement = taken(CHROMIUM, BOTH);
    let ice = Credentials { ufrag: "u".to_owned(), password: "p".to_owned() };
    let fragment = fragment(&agreement, &ice, &[CANDIDATE.to_owned()]);
    let expected = format!(
        "a=ice-options:trickle\r\na=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 0 8\r\na=mid:0\r\n\
         a=ice-ufrag:u\r\na=ice-pwd:p\r\na={CANDIDATE}\r\na=end-of-candidates\r\n"
    );
    assert_eq!(fragment, expected);
}

/// The same offer of a client that only receives.
fn receiving(offer: &str) -> String {
    let kept =
        offer.lines().map(str::trim_end).filter(|line| !line.starts_with("a=ssrc") && !line.starts_with("a=msid"));
    kept.map(|line| if line == "a=sendrecv" { "a=recvonly" } else { line }).flat_map(|line| [line, "\r\n"]).collect()
}

#[test]
fn a_client_that_only_receives_is_answered_with_what_it_is_sent_and_nothing_else() {
    let text = answered(&receiving(CHROMIUM), BOTH);
    assert!(text.contains("a=group:BUNDLE 0 1\r\n") && text.contains("a=ice-options:trickle\r\n"), "{text}");
    assert_eq!(media_lines(&text), ["m=audio 9 UDP/TLS/RTP/SAVPF 111", "m=video 9 UDP/TLS/RTP/SAVPF 96 97"]);
    for index in 0..2 {
        let section = section(&text, index);
        assert!(
            ["a=sendonly\r\n", "a=setup:passive\r\n", "a=rtcp-mux\r\n"].iter().all(|line| section.contains(line)),
            "{text}"
        );
        // Transport-wide numbers are on what it is sent; no other extension is.
        assert_eq!(section.matches("a=extmap").count(), 1, "{text}");
        assert!(section.contains(&format!("a=extmap:3 {}\r\n", extensions::TRANSPORT_CC)), "{text}");
    }
    let video = section(&text, 1);
    assert!(video.contains("a=ssrc-group:FID 200 201\r\n") && video.contains("a=ssrc:201 cname:unique\r\n"), "{text}");
    assert!(video.contains("a=rtcp-fb:96 nack\r\n") && video.contains("a=rtcp-fb:96 nack pli\r\n"), "{text}");
}

#[test]
fn sections_of_a_receiving_client_stay_in_their_places() {
    let mut offer = receiving(FIREFOX);
    offer += "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:7\r\n";
    offer += "m=video 0 UDP/TLS/RTP/SAVPF 120\r\na=mid:8\r\na=inactive\r\na=rtpmap:120 VP8/90000\r\n";
    let text = answered(&offer.replace("a=group:BUNDLE 0 1", "a=group:BUNDLE 0 1 7"), BOTH);
    let lines = media_lines(&text);
    assert_eq!(lines[2..], ["m=application 0 UDP/DTLS/SCTP webrtc-datachannel", "m=video 0 UDP/TLS/RTP/SAVPF 120"]);
    assert!(lines[1].starts_with("m=video 9 UDP/TLS/RTP/SAVPF 120"), "{text}");
    assert!(text.contains("a=group:BUNDLE 0 1\r\n"), "{text}");
}

#[test]
fn flexfec_is_agreed_upon_where_the_client_takes_it() {
    let offer = receiving(CHROMIUM).replace(" 118 119 120\r\n", " 118 119 120 49\r\n")
        + "a=rtpmap:49 flexfec-03/90000\r\na=fmtp:49 repair-window=10000000\r\n";
    let agreement = taken(&offer, BOTH);
    assert_eq!(agreement.sends(Kind::Video).map(|(_, fec)| fec), Some(Some(49)));
    let text = answer_to(&agreement);
    assert!(
        text.contains("a=rtpmap:49 flexfec-03/90000\r\n") && text.contains("a=ssrc-group:FEC-FR 200 202\r\n"),
        "{text}"
    );
    assert!(!answered(&offer, Receives { video: None, ..BOTH }).contains("flexfec"));
}

proptest! {
    /// Lines of a real offer, dropped, doubled and cut at will.
    #[test]
    fn mangled_offers_never_panic(edits in prop::collection::vec((0..160_usize, 0..4_u8, 0..60_usize), 0..40)) {
        let mut lines: Vec<String> = CHROMIUM.lines().map(str::to_owned).collect();
        for (at, edit, cut) in edits {
            let at = at % lines.len();
            match edit {
                0 => { lines.remove(at); }
                1 => lines.insert(at, lines[at].clone()),
                2 => { let end = cut.min(lines[at].len()); lines[at].truncate(end); }
                _ => lines[at] = lines[at].replace(' ', "  "),
            }
            if lines.is_empty() { return Ok(()); }
        }
        let Ok(offer) = Offer::parse(&lines.join("\r\n")) else { return Ok(()) };
        for video in [None, Some(Codec::H264)] {
            if let Ok(agreement) = take(&offer, Receives { audio: video.is_some(), video }) {
                let text = answer_to(&agreement);
                prop_assert_eq!(media_lines(&text).len(), offer.sections.len());
            }
        }
    }
}
