//! Offers of known clients, and malformed ones.

use proptest::prelude::*;

use super::*;
use crate::media::{Codec, SoundQuality, SoundTaken, Sounds, SourceKind};

const CHROMIUM: &str = include_str!("fixtures/chromium.sdp");
const FIREFOX: &str = include_str!("fixtures/firefox.sdp");
const FFMPEG: &str = include_str!("fixtures/ffmpeg.sdp");
const AIORTC: &str = include_str!("fixtures/aiortc.sdp");
const GSTREAMER: &str = include_str!("fixtures/gstreamer.sdp");
const ALL: [&str; 5] = [CHROMIUM, FIREFOX, FFMPEG, AIORTC, GSTREAMER];

const ENCODABLE: [Codec; 2] = [Codec::Vp8, Codec::H264];

fn sends(list: &[(&str, SourceKind)]) -> Vec<(String, SourceKind)> {
    list.iter().map(|(mid, kind)| ((*mid).to_owned(), *kind)).collect()
}

fn parsed(text: &str) -> Offer {
    Offer::parse(text).expect("the fixture is good")
}

fn facts(text: &str) -> Result<Facts, OfferError> {
    parsed(text).facts(&ENCODABLE, &Sounds::default())
}

/// The Chromium offer with another video section, modified by `change`.
fn with_video(mid: &str, change: impl Fn(String) -> String) -> String {
    let (_, video) = CHROMIUM.split_once("m=video").expect("there is one");
    let video = change(format!("m=video{video}").replace("a=mid:1", &format!("a=mid:{mid}")));
    CHROMIUM.replace("BUNDLE 0 1", &format!("BUNDLE 0 1 {mid}")) + &video
}

#[test]
fn chromium_joins_with_simulcast() {
    let offer = parsed(CHROMIUM);
    assert_eq!((offer.setup, offer.ufrag.as_str()), (Setup::Actpass, "7CAd"));
    assert_eq!(offer.pwd, "q2eDNDX9s+OvMFJv/g0WQh7k");
    assert_eq!(offer.fingerprints.len(), 1);
    let [audio, video] = &offer.sections[..] else { panic!("two sections") };
    assert_eq!((audio.kind, audio.mid.as_str(), audio.port), (SectionKind::Audio, "0", 9));
    let opus = &audio.codecs[0];
    assert_eq!((opus.payload_type, opus.codec, opus.channels), (111, Some(Codec::Opus), 2));
    assert_eq!(opus.parameter("UseInbandFEC"), Some("1"));
    assert_eq!(audio.codecs.len(), 8);
    assert_eq!(audio.extensions[0], Extension { id: 1, uri: "urn:ietf:params:rtp-hdrext:ssrc-audio-level".into() });
    assert_eq!(audio.ssrcs, [2_231_627_014]);
    assert_eq!(audio.msid, Some(Msid { stream: "3c28b1f6".into(), track: "8b7e2a10".into() }));
    assert_eq!(video.rids, ["h", "m", "l"]);
    assert_eq!(video.codecs[1].codec, None, "rtx is no codec");
    let facts = offer.facts(&ENCODABLE, &Sounds::default()).expect("it can join");
    assert_eq!(facts.direction, Direction::SendRecv);
    assert_eq!(facts.sends, sends(&[("0", SourceKind::Microphone), ("1", SourceKind::Camera)]));
    assert_eq!((facts.receives_audio, facts.receives_video), (Some(SoundTaken::Any), Some(Codec::Vp8)));
    assert_eq!(
        offer.facts(&[Codec::Vp9, Codec::Av1], &Sounds::default()).expect("both").receives_video,
        Some(Codec::Av1)
    );
}

#[test]
fn firefox_joins_with_bundle_only_sections_and_a_data_channel() {
    let offer = parsed(FIREFOX);
    assert_eq!(offer.sections.len(), 3);
    assert!(offer.sections[1].bundle_only && !offer.sections[1].is_rejected());
    assert_eq!(offer.sections[2].kind, SectionKind::Application);
    assert_eq!(offer.sections[0].extensions[1].id, 2);
    assert_eq!(offer.sections[1].ssrcs, [3_098_171_022, 1_189_245_531]);
    let facts = offer.facts(&[Codec::H264], &Sounds::default()).expect("it can join");
    assert_eq!((facts.sends.len(), facts.receives_video), (2, Some(Codec::H264)));
}

#[test]
fn ffmpeg_publishes_as_the_dtls_server_and_high_profile_can_be_decoded() {
    assert_eq!(parsed(FFMPEG).setup, Setup::Passive);
    let facts = facts(FFMPEG).expect("it can join");
    assert_eq!(facts.direction, Direction::SendOnly);
    assert_eq!((facts.sends.len(), facts.receives_audio, facts.receives_video), (2, None, None));
}

#[test]
fn aiortc_watches() {
    let facts = facts(AIORTC).expect("it can join");
    assert_eq!((facts.direction, facts.sends.len()), (Direction::RecvOnly, 0));
    assert_eq!((facts.receives_audio, facts.receives_video), (Some(SoundTaken::Any), Some(Codec::Vp8)));
}

#[test]
fn gstreamer_publishes_with_mids_of_its_own_and_an_assigned_payload_type() {
    let facts = facts(GSTREAMER).expect("it can join");
    assert_eq!(facts.sends, sends(&[("video0", SourceKind::Camera), ("audio1", SourceKind::Microphone)]));
    assert_eq!(parsed(GSTREAMER).sections[1].codecs[0].codec, Some(Codec::Pcma));
}

#[test]
fn lf_and_crlf_are_accepted() {
    for text in ALL {
        assert!(!text.contains('\r'), "the fixtures have LF");
        assert_eq!(Offer::parse(text), Offer::parse(&text.replace('\n', "\r\n")));
    }
}

#[test]
fn the_direction_of_the_session_is_inherited() {
    let text = AIORTC.replace("a=recvonly\n", "").replace("t=0 0\n", "t=0 0\na=recvonly\n");
    assert_eq!(facts(&text).expect("it can join").direction, Direction::RecvOnly);
    let text = AIORTC.replace("a=recvonly\n", "");
    assert_eq!(facts(&text).expect("sendrecv is the default").direction, Direction::SendRecv);
}

#[test]
fn a_screen_is_the_marked_video_or_the_second_one() {
    let sendonly = |video: String| video.replace("a=sendrecv", "a=sendonly");
    let camera_first = [("0", SourceKind::Microphone), ("1", SourceKind::Camera), ("2", SourceKind::Screen)];
    assert_eq!(facts(&with_video("2", sendonly)).expect("two videos").sends, sends(&camera_first));
    let marked = CHROMIUM.replace("a=mid:1\n", "a=mid:1\na=content:slides\n");
    assert_eq!(facts(&marked).expect("a screen alone").sends[1].1, SourceKind::Screen);
    let first_marked = with_video("2", sendonly).replacen("a=mid:1\n", "a=mid:1\na=label:Screen\n", 1);
    let screen_first = [("0", SourceKind::Microphone), ("1", SourceKind::Screen), ("2", SourceKind::Camera)];
    assert_eq!(facts(&first_marked).expect("two videos").sends, sends(&screen_first));
    let msid = with_video("2", |v| sendonly(v).replace("3c28b1f6 f1d0c3aa", "screen f1d0c3aa"));
    assert_eq!(facts(&msid).expect("two videos").sends, sends(&camera_first));
    let both =
        with_video("2", |v| sendonly(v) + "a=content:slides\n").replacen("a=mid:1\n", "a=mid:1\na=label:screen\n", 1);
    assert_eq!(facts(&both), Err(OfferError::TwoScreens));
}

#[test]
fn audio_qualities_follow_the_limits_of_the_offer() {
    let taken = |lines: &str, parameters: &str| {
        let text = CHROMIUM.replacen("a=mid:0\n", &format!("a=mid:0\n{lines}"), 1);
        facts(&text.replace("minptime=10;", &format!("minptime=10;{parameters}"))).map(|facts| facts.receives_audio)
    };
    assert_eq!(taken("a=maxptime:60\n", "maxaveragebitrate=510000;"), Ok(Some(SoundTaken::Any)));
    assert_eq!(taken("a=maxptime:40\n", ""), Ok(Some(SoundTaken::Only(SoundQuality::Full))));
    assert_eq!(taken("a=ptime:20\n", "maxaveragebitrate=24000;"), Ok(Some(SoundTaken::Only(SoundQuality::Thin))));
    assert_eq!(taken("", "maxaveragebitrate=1;"), Ok(Some(SoundTaken::Any)), "out of range: ignored");
    let error = taken("a=maxptime:20\n", "maxaveragebitrate=24000;").expect_err("neither quality");
    assert_eq!(
        error.to_string(),
        "m-section `0` accepts audio of at most 24000 bit/s in packets of at most 20 ms, but the server sends 48 kbit/s in \
         packets of 20 ms, or 20 kbit/s in packets of 60 ms: raise maxaveragebitrate or a=maxptime"
    );
}

#[test]
fn rejected_and_inactive_sections_do_not_count() {
    let rejected = with_video("2", |v| v.replace("m=video 9", "m=video 0"));
    assert_eq!(parsed(&rejected).sections.len(), 3);
    assert_eq!(facts(&rejected), facts(CHROMIUM));
    let inactive = with_video("2", |v| v.replace("a=sendrecv", "a=inactive"));
    assert_eq!(facts(&inactive), facts(CHROMIUM));
}

#[test]
fn h264_is_sent_only_in_a_profile_we_encode() {
    let only = |fmtp: &str| {
        let text = AIORTC.replace("a=rtpmap:97 VP8/90000", "a=rtpmap:97 X/90000");
        facts(&text.replace("packetization-mode=1;level-asymmetry-allowed=1;profile-level-id=42001f", fmtp))
    };
    for good in ["profile-level-id=42e01f", "profile-level-id=4d0032", "level-asymmetry-allowed=1"] {
        let good = format!("packetization-mode=1;{good}");
        assert_eq!(only(&good).expect(&good).receives_video, Some(Codec::H264));
    }
    for bad in ["profile-level-id=64001f", "profile-level-id=f4001f", "profile-level-id=é"] {
        let bad = format!("packetization-mode=1;{bad}");
        let message = only(&bad).expect_err(&bad).to_string();
        assert!(message.contains(&bad) && message.contains("VP8 or H264"), "{message}");
    }
}

#[test]
fn h264_in_single_nal_unit_mode_is_received_and_not_sent() {
    let mode_0 = AIORTC.replace("packetization-mode=1", "packetization-mode=0");
    assert_eq!(facts(&mode_0).expect("it can join").receives_video, Some(Codec::Vp8));
    for bad in ["packetization-mode=0", "packetization-mode=2", "profile-level-id=42e01f"] {
        let text = mode_0.replace("VP8/90000", "X/90000");
        let text = text.replace("packetization-mode=0;level-asymmetry-allowed=1;profile-level-id=42001f", bad);
        let message = facts(&text).expect_err(bad).to_string();
        assert!(message.contains("H264 (baseline or main profile, packetization-mode=1)"), "{message}");
        let publisher = text.replace("a=recvonly", "a=sendonly").replace("a=sendrecv", "a=sendonly");
        assert_eq!(facts(&publisher).expect("it can publish").receives_video, None);
    }
}

#[test]
fn errors_of_offers_name_the_fix() {
    let without = |needle: &str| -> String {
        CHROMIUM.lines().filter(|line| !line.starts_with(needle)).flat_map(|line| [line, "\n"]).collect()
    };
    let three = with_video("2", |v| format!("{v}{}", v.replace("a=mid:2", "a=mid:3"))).replace("0 1 2", "0 1 2 3");
    let two_audio = CHROMIUM.replace("m=video", "m=audio").replace("VP8/90000", "opus/48000/2");
    let cases: Vec<(String, &str)> = vec![
        (String::new(), "is empty"),
        (" \r\n\r\n".into(), "is empty"),
        ("a=x\n".repeat(20_000), "more than 65536 bytes"),
        (format!("v=0\n{}", "a=x\n".repeat(2_000)), "more than 2000 lines"),
        (format!("v=0\n{}", "m=audio 9 UDP/TLS/RTP/SAVPF 0\n".repeat(17)), "more than 16 m-lines"),
        (format!("v=0\n{}", "a=candidate:1\n".repeat(65)), "more than 64 candidates"),
        ("{\"sdp\":\"v=0\"}".into(), "not JSON"),
        ("v=0\nm=audio\n".into(), "line 2 is not an m-line"),
        ("v=0\ns=-\n".into(), "has no media"),
        (without("a=ice-"), "gather ICE before posting"),
        (CHROMIUM.replace("7CAd", "7C_d"), "a=ice-ufrag is not"),
        (CHROMIUM.replace("7CAd", "7CA"), "a=ice-ufrag is not"),
        (CHROMIUM.replace("/g0WQh7k", ""), "a=ice-pwd is not"),
        (without("a=fingerprint"), "no a=fingerprint"),
        (CHROMIUM.replace("sha-256", "sha-1"), "no sha-256 fingerprint"),
        (CHROMIUM.replace("actpass", "holdconn"), "a=setup:holdconn"),
        (without("a=group"), "max-bundle"),
        (CHROMIUM.replace("BUNDLE 0 1", "BUNDLE 0"), "max-bundle"),
        (CHROMIUM.replace("UDP/TLS/RTP/SAVPF", "RTP/AVPF"), "`0` is not encrypted"),
        (without("a=rtcp-mux"), "`0` has no a=rtcp-mux"),
        (CHROMIUM.replace("a=mid:1", "a=mid:0"), "two m-sections have the mid `0`"),
        (CHROMIUM.replace("a=sendrecv", "a=inactive"), "neither sends nor receives"),
        (two_audio, "2 audio sections to send; at most one (the microphone) is taken: remove 1"),
        (three.clone(), "3 video sections to send; at most two (camera and screen) are taken: remove 1"),
        (three.replace("a=sendrecv", "a=recvonly"), "3 video sections to receive"),
        (CHROMIUM.replace("opus", "speex").replace("PCM", "ADPCM").replace(" 0 8 ", " "), "offers speex"),
        (AIORTC.replace("opus", "ilbc"), "can be sent: it offers ilbc, PCMU, PCMA; use opus"),
    ];
    for (text, expected) in cases {
        let result = Offer::parse(&text).and_then(|offer| offer.facts(&ENCODABLE, &Sounds::default()).map(|_| ()));
        let message = result.expect_err(expected).to_string();
        assert!(message.contains(expected), "`{message}` does not say `{expected}`");
        assert!(message.len() < 1_000);
    }
}

const UFRAG: &str = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n";

#[test]
fn a_fragment_gives_its_candidates() {
    let text = format!(
        "{UFRAG}m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n\
         a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw network-id 1\r\n\
         a=candidate:2 1 UDP 2122262783 2001:db8::1 61765 typ srflx raddr :: rport 0\r\n\
         a=candidate:3 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active\r\n\
         a=candidate:4 1 udp 2122260223 8a7f5c1e-1234.local 5000 typ host\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96\r\n\
         a=candidate:5 1 udp 1 192.0.2.1 7 typ relay\r\na=end-of-candidates\r\n"
    );
    let fragment = Fragment::parse(&text).expect("it is good");
    assert_eq!((fragment.ufrag.as_str(), fragment.pwd.len()), ("EsAw", 24));
    assert_eq!((fragment.candidates.len(), fragment.skipped, fragment.end_of_candidates), (3, 2, true));
    let first = &fragment.candidates[0];
    assert_eq!((first.mid.as_deref(), first.m_line), (Some("0"), Some(0)));
    assert!(first.candidate.starts_with("candidate:1387637174 1 udp "));
    assert_eq!((fragment.candidates[2].mid.as_deref(), fragment.candidates[2].m_line), (None, Some(1)));
    assert!(Fragment::parse(UFRAG).expect("an ICE restart").candidates.is_empty());
    assert!(Fragment::parse(&format!("{UFRAG}a=candidate:\n")).expect("the end").end_of_candidates);
}

#[test]
fn errors_of_fragments_name_the_fix() {
    let candidate = |c: &str| format!("{UFRAG}a=candidate:{c}\n");
    let cases = [
        (String::new(), "is empty"),
        ("x".repeat(9_000), "more than 8192 bytes"),
        ("{\"candidate\":1}".into(), "line 1 is not SDP"),
        ("a=mid:0\n".into(), "no a=ice-ufrag"),
        (UFRAG.replace("EsAw", "E?Aw"), "a=ice-ufrag is not"),
        (UFRAG.replace("P2uYro", ""), "a=ice-pwd is not"),
        (candidate("1 1 udp 1 192.0.2.1 typ host"), "line 3 is not a candidate"),
        (candidate("1 1 udp 1 192.0.2.1 70000 typ host"), "line 3 is not a candidate"),
        (candidate("1 0 udp 1 192.0.2.1 7 typ host"), "line 3 is not a candidate"),
        (candidate("1 1 udp 1 192.0.2.1 7 typ"), "line 3 is not a candidate"),
        (UFRAG.to_owned() + &"a=candidate:1 1 udp 1 192.0.2.1 7 typ host\n".repeat(65), "more than 64"),
    ];
    for (text, expected) in cases {
        let message = Fragment::parse(&text).expect_err(expected).to_string();
        assert!(message.contains(expected), "`{message}` does not say `{expected}`");
    }
}

#[test]
fn only_the_bundle_tagged_section_gets_our_candidates() {
    let answer = "v=0\r\na=group:BUNDLE 1 2\r\nm=audio 0 x 0\r\na=mid:0\r\nm=video 9 x 96\r\na=mid:1\r\n\
                  a=candidate:9 1 udp 1 127.0.0.1 1 typ host\r\na=sendrecv\r\nm=audio 9 x 0\r\na=mid:2\r\n\
                  a=candidate:8 1 udp 1 127.0.0.1 1 typ host\r\na=end-of-candidates\r\n";
    let ours = ["candidate:1 1 udp 2 192.0.2.1 8189 typ host".to_owned(), "candidate:2 x".to_owned()];
    let expected = "v=0\r\na=group:BUNDLE 1 2\r\nm=audio 0 x 0\r\na=mid:0\r\nm=video 9 x 96\r\na=mid:1\r\n\
                    a=sendrecv\r\na=candidate:1 1 udp 2 192.0.2.1 8189 typ host\r\na=candidate:2 x\r\na=end-of-candidates\r\n\
                    m=audio 9 x 0\r\na=mid:2\r\n";
    assert_eq!(replace_candidates(answer, &ours), expected);
    assert_eq!(replace_candidates(expected, &ours), expected, "twice is once");
    let last = "v=0\nm=audio 9 x 0\na=mid:0\n";
    assert!(replace_candidates(last, &ours).ends_with("a=candidate:2 x\r\na=end-of-candidates\r\n"));
    assert_eq!(replace_candidates("v=0\n", &ours), "v=0\r\n");
}

#[test]
fn only_sha_256_is_kept() {
    let kept = keep_sha256(AIORTC);
    assert!(AIORTC.contains("sha-384") && !kept.contains("sha-384"));
    assert_eq!(kept.matches("sha-256").count(), 2);
    assert_eq!(Offer::parse(&kept).expect("still good").fingerprints.len(), 1);
    let written = keep_sha256("v=0\na=fingerprint: SHA-256  ab:CD \na=fingerprint:sha-2567 00\na=fingerprint:\n");
    assert_eq!(written, "v=0\r\na=fingerprint:sha-256 AB:CD\r\n");
}

fn parse_everything(text: &str) {
    if let Ok(offer) = Offer::parse(text) {
        // A valid offer must give valid facts or an error.
        if let Ok(facts) = offer.facts(&ENCODABLE, &Sounds::default()) {
            assert!(facts.sends.len() <= 3 && facts.direction != Direction::Inactive);
        }
    }
    let _ = Fragment::parse(text).map(|fragment| assert!(fragment.candidates.len() <= 64));
    keep_sha256(text);
    replace_candidates(text, &["candidate:1".to_owned()]);
}

/// An answer repeats them, and a receiver may take them for the end of a line.
#[test]
fn carriage_returns_and_nul_inside_lines_are_refused() {
    for (before, after) in [
        ("a=fmtp:", "a=fmtp\r:"),
        ("a=mid:0", "a=mid:\r0"),
        ("a=msid:", "a=msid:\ra=setup:active "),
        ("a=extmap:1 ", "a=extmap:1 \0"),
        ("m=audio 9", "m=audio\r 9"),
        ("s=-", "s=\r-"),
    ] {
        let changed = CHROMIUM.replacen(before, after, 1);
        let line = changed.split('\n').position(|line| line.trim().contains(['\0', '\r'])).expect("changed") + 1;
        assert_eq!(Offer::parse(&changed), Err(OfferError::Character { line }), "{after:?}");
    }
    let fragment = "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\na=mid:\r0\r\n";
    assert_eq!(Fragment::parse(fragment), Err(FragmentError::Character { line: 3 }));
    assert!(Fragment::parse(&fragment.replace(":\r0", ":0")).is_ok(), "line ends are CR LF");
}

proptest! {
    #[test]
    fn arbitrary_text_does_not_panic(text in "(?s).{0,400}") {
        parse_everything(&text);
    }

    #[test]
    fn arbitrary_lines_do_not_panic(lines in prop::collection::vec("[avmcost]=[ -~é]{0,60}", 0..60)) {
        parse_everything(&format!("v=0\n{}", lines.join("\r\n")));
    }

    #[test]
    fn mutated_offers_do_not_panic(
        which in 0_usize..ALL.len(),
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0_u8..5, any::<char>()),
            1..12,
        ),
    ) {
        let mut lines: Vec<String> = ALL[which].lines().map(str::to_owned).collect();
        for (line, position, kind, c) in edits {
            let line = line.index(lines.len());
            let mut chars: Vec<char> = lines[line].chars().collect();
            let position = position.index(chars.len() + 1);
            match kind {
                0 => lines.insert(line, lines[line].clone()),
                1 => chars.truncate(position),
                2 => chars.insert(position, c),
                3 => chars.retain(|c| !c.is_ascii_digit()),
                _ => chars.extend("9".repeat(30).chars()),
            }
            if kind != 0 {
                lines[line] = chars.into_iter().collect();
            }
        }
        parse_everything(&lines.join("\n"));
    }
}

const OTHER: &str = "a=ice-ufrag:othr\r\na=ice-pwd:otherotherotherotherother\r\na=setup:active\r\n\
    a=fingerprint:sha-256 00:11:22\r\n";

/// The Chromium offer without any transport attributes.
fn without_transport() -> String {
    let names = ["a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:", "a=setup:"];
    let kept = CHROMIUM.lines().filter(|line| !names.iter().any(|name| line.starts_with(name)));
    kept.map(|line| format!("{line}\r\n")).collect()
}

/// Ufrag, setup and fingerprint of an offer.
fn transport(text: &str) -> (String, Setup, String) {
    let offer = Offer::parse(text).expect("it can be answered");
    assert_eq!(offer.fingerprints.len(), 1, "only those of the tagged section");
    (offer.ufrag, offer.setup, offer.fingerprints[0].value.clone())
}

fn other() -> (String, Setup, String) {
    ("othr".to_owned(), Setup::Active, "00:11:22".to_owned())
}

#[test]
fn of_bundled_sections_with_their_own_credentials_the_tagged_one_counts() {
    let (audio, video) = CHROMIUM.split_once("m=video").expect("there is one");
    let kept = |part: &str| {
        let names = ["a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:", "a=setup:"];
        let kept = part.lines().filter(|line| !names.iter().any(|name| line.starts_with(name)));
        kept.map(|line| format!("{line}\r\n")).collect::<String>()
    };
    let offer = format!("{audio}m=video{}{OTHER}", kept(video));
    assert_eq!(transport(&offer).0, "7CAd", "the tag is on the first section");
    assert_eq!(transport(&offer.replace("BUNDLE 0 1", "BUNDLE 1 0")), other(), "the tag is on the second");
}

#[test]
fn the_transport_of_a_rejected_section_outside_the_group_does_not_count() {
    let rejected = format!("m=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:9\r\n{OTHER}");
    let (session, media) = CHROMIUM.split_once("m=audio").expect("there is one");
    let offer = format!("{session}{rejected}m=audio{media}");
    let (ufrag, setup, fingerprint) = transport(&offer);
    assert_eq!((ufrag.as_str(), setup), ("7CAd", Setup::Actpass));
    assert_ne!(fingerprint, "00:11:22");
}

#[test]
fn transport_attributes_only_in_a_rejected_section_of_the_group_are_taken() {
    let (session, media) =
        without_transport().split_once("m=audio").map(|(a, b)| (a.to_owned(), b.to_owned())).expect("one");
    let rejected = format!("m=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:9\r\n{OTHER}");
    let offer = format!("{session}{rejected}m=audio{media}").replace("BUNDLE 0 1", "BUNDLE 9 0 1");
    assert_eq!(transport(&offer), other());
    assert_eq!(parsed(&offer).sections.len(), 3);
}

#[test]
fn transport_attributes_only_in_a_rejected_section_without_a_group_are_taken() {
    let offer = without_transport().replace("a=group:BUNDLE 0 1\r\n", "");
    let (offer, _) = offer.split_once("m=video").expect("there is one");
    let offer = format!("{offer}m=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n{OTHER}");
    assert_eq!(transport(&offer), other());
}

#[test]
fn an_offer_without_transport_attributes_is_refused() {
    assert_eq!(Offer::parse(&without_transport()), Err(OfferError::NoIce));
}
