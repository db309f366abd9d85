//! What is taken of real offers, and what the client gets back.

use proptest::prelude::*;

use super::super::engine;
use super::*;

const CHROMIUM: &str = include_str!("chromium.sdp");
const FIREFOX: &str = include_str!("firefox.sdp");
const BOTH: Receives = Receives { audio: true, video: Some(Codec::Vp8) };

fn taken(text: &str, receives: Receives) -> Taken {
    take(&Offer::parse(text).expect("an offer"), text, receives, &[]).expect("can be answered")
}

fn media_lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.starts_with("m=")).collect()
}

#[test]
fn codecs_we_do_not_take_are_not_in_it_and_what_we_send_stands_first() {
    let vp8 = taken(CHROMIUM, BOTH);
    assert_eq!(
        media_lines(&vp8.text),
        [
            "m=audio 9 UDP/TLS/RTP/SAVPF 111 0 8",
            "m=video 9 UDP/TLS/RTP/SAVPF 96 97 102 103 104 107 108 109 45 46 98 99",
        ]
    );
    let h264 = taken(CHROMIUM, Receives { video: Some(Codec::H264), ..BOTH });
    let sent = h264.video_out.expect("H.264 is sent");
    assert_eq!((sent.payload_type, sent.rtx), (108, Some(109)), "constrained baseline, which has fragmentation units");
    assert!(media_lines(&h264.text)[1].starts_with("m=video 9 UDP/TLS/RTP/SAVPF 108 109 96 97"));
    assert!(!h264.text.contains("profile-id=2") && !h264.text.contains("ulpfec") && !h264.text.contains("telephone"));
}

#[test]
fn a_codec_is_known_by_each_payload_type_the_offer_gives_it() {
    let formats = taken(FIREFOX, BOTH).formats;
    let known = |payload_type| formats.iter().find(|f| f.payload_type == payload_type).map(|f| (f.codec, f.rtx));
    assert_eq!(known(120), Some((Codec::Vp8, Some(124))));
    assert_eq!(known(99), Some((Codec::Av1, Some(100))));
    assert_eq!(known(109), Some((Codec::Opus, None)));
    assert_eq!(known(122), None, "redundancy is no codec");
}

#[test]
fn the_order_stays_where_the_client_only_sends() {
    let text = CHROMIUM
        .replace("a=sendrecv", "a=sendonly")
        .replace("m=video 9 UDP/TLS/RTP/SAVPF 96 97 102 103", "m=video 9 UDP/TLS/RTP/SAVPF 102 103 96 97");
    let taken = taken(&text, Receives { audio: false, video: None });
    assert!(media_lines(&taken.text)[1].starts_with("m=video 9 UDP/TLS/RTP/SAVPF 102 103 96 97"));
    assert_eq!((taken.audio_out, taken.video_out), (None, None));
}

#[test]
fn static_audio_types_need_no_map_and_their_tracks_are_named_by_section() {
    let text = CHROMIUM.replace("a=rtpmap:0 PCMU/8000\n", "");
    let taken = taken(&text, BOTH);
    assert!(taken.text.contains("a=rtpmap:0 PCMU/8000\r\n"));
    assert!(taken.text.contains("a=msid:in in-0\r\n") && taken.text.contains("a=msid:in in-1\r\n"));
    assert!(!taken.text.contains("f1254514"));
    assert!(taken.text.contains("a=ssrc-group:FID 1935713919 4147299643\r\n"));
}

#[test]
fn extension_ids_are_the_offers() {
    let taken = taken(CHROMIUM, BOTH);
    assert_eq!(taken.extension(engine::AUDIO_LEVEL), Some(1));
    assert_eq!(taken.extension(engine::ORIENTATION), Some(13));
    assert!(!taken.text.contains("toffset"));
}

#[test]
fn the_dtls_role_follows_the_offer() {
    assert_eq!(taken(CHROMIUM, BOTH).dtls_role, DtlsRole::Server);
    assert_eq!(taken(&CHROMIUM.replace("actpass", "active"), BOTH).dtls_role, DtlsRole::Server);
    assert_eq!(taken(&CHROMIUM.replace("actpass", "passive"), BOTH).dtls_role, DtlsRole::Client);
}

#[test]
fn only_sha_256_and_reachable_candidates_are_taken() {
    let more = "a=mid:0\na=fingerprint:sha-1 AA:BB\na=candidate:1 1 udp 1 10.0.0.1 5 typ host\n\
        a=candidate:1 2 udp 1 10.0.0.1 6 typ host\na=candidate:2 1 tcp 1 10.0.0.1 9 typ host tcptype active\n\
        a=candidate:3 1 udp 1 0b1c.local 7 typ host\na=candidate:4 1 udp 1 10.0.0.1 0 typ host";
    let taken = taken(&CHROMIUM.replace("a=mid:0", more), BOTH);
    assert!(!taken.text.contains("sha-1 "));
    let candidates: Vec<&str> = taken.text.lines().filter(|line| line.starts_with("a=candidate")).collect();
    assert_eq!(candidates, ["a=candidate:1 1 udp 1 10.0.0.1 5 typ host"]);
}

/// The offer without its `a=ssrc` lines, as ffmpeg and GStreamer may send it.
fn without_ssrcs(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with("a=ssrc")).map(|line| format!("{line}\r\n")).collect()
}

fn ssrcs(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("a=ssrc:")?.split(' ').next()).collect()
}

#[test]
fn streams_that_are_not_announced_are_waited_for_and_then_announced() {
    let text = without_ssrcs(CHROMIUM);
    let waiting = taken(&text, BOTH);
    let streams: Vec<_> = waiting.unannounced.iter().map(|s| (&*s.mid, &s.rid, s.payload_types[0])).collect();
    assert_eq!(streams, [("0", &None, 111), ("1", &None, 96)]);
    let placeholders = ssrcs(&waiting.text);
    assert!(placeholders.len() == 2 && placeholders[0] != placeholders[1], "{placeholders:?}");
    assert!(!waiting.text.contains("rtx/90000"), "retransmissions in a stream of their own could not be told apart");

    let learned = [Learned { mid: "1".into(), rid: None, ssrc: 77 }];
    let offer = Offer::parse(&text).expect("an offer");
    let then = take(&offer, &text, BOTH, &learned).expect("can be answered");
    assert_eq!(ssrcs(&then.text), [placeholders[0], "77"]);
    assert_eq!(then.unannounced, [waiting.unannounced[0].clone()]);
    // What the offer names itself needs nothing of this.
    let named = take(&Offer::parse(CHROMIUM).expect("an offer"), CHROMIUM, BOTH, &learned).expect("can be answered");
    assert_eq!(ssrcs(&named.text), ["2481545474", "1935713919", "4147299643"]);
    assert_eq!(named.unannounced, []);
}

#[test]
fn streams_that_could_never_be_told_apart_are_refused_with_the_way_out() {
    let camera = &CHROMIUM[CHROMIUM.find("m=video").expect("has one")..];
    let screen = camera.replace("a=mid:1", "a=mid:2").replace("a=sendrecv", "a=sendonly");
    let two = without_ssrcs(&format!("{CHROMIUM}{screen}").replace("BUNDLE 0 1", "BUNDLE 0 1 2"));
    assert_eq!(taken(&two, BOTH).unannounced.len(), 3, "their packets say which section they are of");
    let mute = two.replace("a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n", "");
    let offer = Offer::parse(&mute).expect("an offer");
    let error = take(&offer, &mute, BOTH, &[]).expect_err("cannot be received").to_string();
    assert!(error.contains("`1` and `2`") && error.contains("a=ssrc"), "{error}");
    // One that is announced leaves only one for whatever else comes.
    let one = mute.replacen("a=mid:1\r\n", "a=mid:1\r\na=ssrc:5 cname:x\r\n", 1);
    assert_eq!(taken(&one, BOTH).unannounced.len(), 2);
}

fn simulcast(layers: &str) -> String {
    format!("{}a=rid:q send\r\na=rid:h send\r\na=rid:f send\r\na=simulcast:{layers}\r\n", without_ssrcs(CHROMIUM))
}

#[test]
fn of_a_simulcast_offer_one_layer_is_taken_and_the_others_are_turned_off() {
    for (layers, expected) in [("send q;h;f", "f"), ("recv x send q;h", "h"), ("send q;f,h;~h", "f"), ("send ~q", "q")]
    {
        let taken = taken(&simulcast(layers), BOTH);
        assert!(!taken.text.contains("a=rid") && !taken.text.contains("a=simulcast"), "webrtc sees a plain stream");
        assert_eq!(taken.unannounced[1].rid.as_deref(), Some(expected), "{layers}");
        let made = "v=0\r\na=group:BUNDLE 0 1\r\nm=audio 9 X 111\r\na=mid:0\r\nm=video 9 X 96\r\na=mid:1\r\n";
        let answer = answer(made, &taken, &[], "unique");
        assert!(
            answer.ends_with(&format!("a=mid:1\r\na=rid:{expected} recv\r\na=simulcast:recv {expected}\r\n")),
            "{answer}"
        );
        assert_eq!(answer.matches("a=simulcast").count(), 1, "{answer}");
    }
}

#[test]
fn layers_that_packets_do_not_name_are_no_simulcast() {
    let text = simulcast("send q;h;f").replace("urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id", "urn:x");
    for text in [text, simulcast("send a;b"), simulcast("recv q")] {
        let taken = taken(&text, BOTH);
        assert_eq!((taken.unannounced[1].rid.as_ref(), taken.layers.len()), (None, 0));
    }
}

#[test]
fn sections_that_are_no_media_of_ours_are_refused_in_their_place() {
    let data = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:iCU9\r\n\
        a=ice-pwd:EvUh2F7SvUEr/QAp3QdYl/+t\r\na=mid:data\r\na=sctp-port:5000\r\na=rtcp-mux\r\n";
    let text = CHROMIUM.replace("m=video", &format!("{data}m=video")).replace("BUNDLE 0 1", "BUNDLE 0 data 1");
    let taken = taken(&text, BOTH);
    assert!(taken.text.contains("a=group:BUNDLE 0 1\r\n"));
    assert_eq!(media_lines(&taken.text).len(), 2);
    let made = "v=0\r\ns=-\r\na=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
        a=candidate:1 1 udp 1 127.0.0.1 1 typ host\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n\
        a=ssrc:5 cname:commingle\r\n";
    let candidates = ["candidate:1 1 udp 9 203.0.113.1 8189 typ host".to_owned()];
    let answer = answer(made, &taken, &candidates, "unique");
    let expected = "v=0\r\ns=-\r\na=ice-options:trickle\r\na=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n\
        a=mid:0\r\na=candidate:1 1 udp 9 203.0.113.1 8189 typ host\r\na=end-of-candidates\r\n\
        m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:data\r\na=inactive\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=ssrc:5 cname:unique\r\n";
    assert_eq!(answer, expected);
}

#[test]
fn sections_have_what_the_session_part_says_and_are_named() {
    let offered = CHROMIUM
        .replace("a=sendrecv\n", "")
        .replace("t=0 0\n", "t=0 0\na=sendonly\na=extmap:9 urn:3gpp:video-orientation\n");
    let offered = offered.replace("m=video 9", "m=video  9").replace("a=mid:1", "a=mid: 1");
    let sends = taken(&offered, Receives { audio: false, video: None });
    assert_eq!(sends.text.matches("a=sendonly\r\n").count(), 2, "{}", sends.text);
    assert!(sends.text.contains("m=video 9 ") && sends.text.contains("a=mid:1\r\n"), "{}", sends.text);
    assert_eq!(sends.extension(engine::ORIENTATION), Some(9));
    let nameless = CHROMIUM[..CHROMIUM.find("m=video").expect("has one")]
        .replace("a=mid:0\n", "")
        .replace("a=group:BUNDLE 0 1\n", "");
    let alone = taken(&nameless, Receives { audio: true, video: None });
    assert!(alone.text.contains("a=mid:0\r\n"), "{}", alone.text);
}

#[test]
fn levels_of_who_is_heard_go_to_those_who_get_a_mix() {
    let offered = CHROMIUM.replace("a=mid:0\n", &format!("a=mid:0\na=extmap:12/recvonly {}\n", engine::HEARD_LEVELS));
    let both = taken(&offered, BOTH);
    assert_eq!(both.extension(engine::HEARD_LEVELS), Some(12));
    let made = |direction: &str| {
        format!(
            "v=0\r\na=group:BUNDLE 0\r\nm=audio 9 X 111\r\na=mid:0\r\na={direction}\r\na=extmap:12 {}\r\n",
            engine::HEARD_LEVELS
        )
    };
    let mixed = answer(&made("sendrecv"), &both, &[], "cname");
    assert!(mixed.contains(&format!("a=extmap:12/sendonly {}\r\n", engine::HEARD_LEVELS)), "{mixed}");
    assert!(!answer(&made("recvonly"), &both, &[], "cname").contains("extmap"));
}

#[test]
fn what_cannot_be_sent_is_said_with_the_way_out() {
    let text = CHROMIUM.replace("packetization-mode=1", "packetization-mode=0");
    let offer = Offer::parse(&text).expect("an offer");
    let error = take(&offer, &text, Receives { video: Some(Codec::H264), ..BOTH }, &[]).expect_err("cannot be sent");
    assert!(error.to_string().contains("packetization-mode=1"), "{error}");
}

#[test]
fn a_restart_is_the_same_offer_with_other_credentials() {
    let first = CHROMIUM.replace("a=mid:0", "a=mid:0\na=candidate:1 1 udp 1 10.0.0.1 5 typ host");
    assert_eq!(taken(&first, BOTH).addresses().len(), 1);
    let text = with_credentials(&first, "new1", "newpasswordnewpassword");
    assert!(taken(&text, BOTH).addresses().is_empty(), "old candidates belong to the old session");
    let offer = Offer::parse(&text).expect("an offer");
    assert_eq!((&*offer.ufrag, &*offer.pwd), ("new1", "newpasswordnewpassword"));
    assert_eq!(media_lines(&text), media_lines(CHROMIUM));
    let made =
        "v=0\r\na=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\n";
    let ice = local_ice(made).expect("has credentials");
    let fragment = fragment(made, &ice, &["candidate:1 1 udp 9 203.0.113.1 8189 typ host".to_owned()]);
    let expected = "a=ice-options:trickle\r\na=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
        a=ice-ufrag:u\r\na=ice-pwd:p\r\na=candidate:1 1 udp 9 203.0.113.1 8189 typ host\r\na=end-of-candidates\r\n";
    assert_eq!(fragment, expected);
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
        let text = lines.join("\r\n");
        let offer = Offer::parse(CHROMIUM).expect("an offer");
        for video in [None, Some(Codec::H264)] {
            if let Ok(taken) = take(&offer, &text, Receives { audio: video.is_some(), video }, &[]) {
                answer(&taken.text, &taken, &[], "cname");
            }
        }
    }
}
