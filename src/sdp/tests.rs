//! Offers as real programs send them, offers nobody should send, and noise.

use proptest::prelude::*;

use super::*;

const HEAD: &str = "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n";
const TRANSPORT: &str = "c=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:Zx4k\r\na=ice-pwd:Wt0Jx3o6XkFXGxO3CgJzSB0J\r\n\
    a=ice-options:trickle\r\na=fingerprint:sha-256 19:E2:1C:3B:4B:9F:81:E6:B8:5C:F4:A5:A8:D8:73:04:BB:05:2F:70:9F:04:A9:0E:05:E9:26:33:E8:70:88:A2\r\n\
    a=setup:actpass\r\na=rtcp-mux\r\na=rtcp-rsize\r\n";
const AUDIO_CODECS: &str = "a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=rtpmap:9 G722/8000\r\n\
    a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:13 CN/8000\r\n";
const VIDEO_CODECS: &str = "a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
    a=rtpmap:103 H264/90000\r\na=fmtp:103 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f\r\n\
    a=rtpmap:45 AV1/90000\r\na=rtpmap:98 VP9/90000\r\na=fmtp:98 profile-id=0\r\n";

fn audio(mid: &str, direction: &str) -> String {
    format!(
        "m=audio 9 UDP/TLS/RTP/SAVPF 111 9 0 8 13\r\n{TRANSPORT}a=mid:{mid}\r\na={direction}\r\na=msid:- {mid}\r\n{AUDIO_CODECS}"
    )
}

fn video(mid: &str, direction: &str, formats: &str) -> String {
    format!(
        "m=video 9 UDP/TLS/RTP/SAVPF {formats}\r\n{TRANSPORT}a=mid:{mid}\r\na={direction}\r\na=msid:stream cam{mid}\r\n{VIDEO_CODECS}\
         a=rid:q send\r\na=rid:h send\r\na=simulcast:send q;h\r\n"
    )
}

fn offer(sections: &[String]) -> String {
    let mids: Vec<String> = (0..sections.len()).map(|i| i.to_string()).collect();
    format!("{HEAD}a=group:BUNDLE {}\r\na=extmap-allow-mixed\r\n{}", mids.join(" "), sections.concat())
}

fn call() -> String {
    offer(&[audio("0", "sendrecv"), video("1", "sendrecv", "96 97 103 45 98")])
}

fn judge(text: &str) -> Result<Facts, OfferError> {
    Offer::parse(text)?.facts(&[Codec::Vp8, Codec::H264])
}

#[test]
fn a_browsers_call() {
    let facts = judge(&call()).expect("a browser's offer");
    assert_eq!(facts.direction, Direction::SendRecv);
    assert_eq!(facts.sends, [("0".into(), SourceKind::Microphone), ("1".into(), SourceKind::Camera)]);
    assert_eq!((facts.receives_audio, facts.receives_video), (true, Some(Codec::Vp8)));
    let lf = call().replace("\r\n", "\n");
    assert_eq!(judge(&lf).expect("line ends do not matter"), facts);
}

#[test]
fn the_offers_order_of_codecs_decides() {
    let text = offer(&[audio("0", "sendrecv"), video("1", "sendrecv", "45 98 103 96 97")]);
    assert_eq!(judge(&text).expect("fine").receives_video, Some(Codec::H264));
    let only_vp9 = offer(&[video("0", "recvonly", "98")]);
    let error = judge(&only_vp9).expect_err("we encode no VP9").to_string();
    assert!(error.contains("it has VP9") && error.contains("VP8, H264"), "{error}");
}

#[test]
fn ffmpegs_whip_offer() {
    // Passive, no mid extension, session-level credentials, LF line ends.
    let text = "v=0\no=FFmpeg 4489045141692799359 2 IN IP4 127.0.0.1\ns=FFmpegPublishSession\nt=0 0\na=group:BUNDLE 0 1\n\
        a=extmap-allow-mixed\na=msid-semantic: WMS\nm=audio 9 UDP/TLS/RTP/SAVPF 111\nc=IN IP4 0.0.0.0\na=ice-ufrag:ab12cd34\n\
        a=ice-pwd:8f1d2c3b4a59687700112233445566ff\na=fingerprint:sha-256 AA:BB\na=setup:passive\na=mid:0\na=sendonly\n\
        a=msid:FFmpeg audio\na=rtcp-mux\na=rtpmap:111 opus/48000/2\nm=video 9 UDP/TLS/RTP/SAVPF 106\nc=IN IP4 0.0.0.0\n\
        a=ice-ufrag:ab12cd34\na=ice-pwd:8f1d2c3b4a59687700112233445566ff\na=fingerprint:sha-256 AA:BB\na=setup:passive\n\
        a=mid:1\na=sendonly\na=msid:FFmpeg video\na=rtcp-mux\na=rtcp-rsize\na=rtpmap:106 H264/90000\n\
        a=fmtp:106 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\n";
    let facts = judge(text).expect("ffmpeg's offer");
    assert_eq!(facts.direction, Direction::SendOnly);
    assert_eq!(facts.sends.len(), 2);
    assert_eq!((facts.receives_audio, facts.receives_video), (false, None));
}

#[test]
fn viewers_audio_only_and_screens() {
    let viewer = offer(&[audio("0", "recvonly"), video("1", "recvonly", "96")]);
    assert_eq!(judge(&viewer).expect("a viewer").direction, Direction::RecvOnly);
    let voice = judge(&offer(&[audio("0", "sendrecv")])).expect("audio only");
    assert_eq!((voice.sends.len(), voice.receives_video), (1, None));
    let screen = offer(&[audio("0", "sendrecv"), video("1", "sendrecv", "96"), video("2", "sendonly", "96")]);
    let kinds: Vec<_> = judge(&screen).expect("camera and screen").sends.into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, [SourceKind::Microphone, SourceKind::Camera, SourceKind::Screen]);
    let marked = offer(&[video("0", "sendonly", "96") + "a=content:slides\r\n", video("1", "sendrecv", "96")]);
    let kinds: Vec<_> = judge(&marked).expect("screen first").sends.into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, [SourceKind::Screen, SourceKind::Camera]);
}

#[test]
fn stopped_and_inactive_sections_are_passed_over() {
    let stopped = video("1", "sendrecv", "96").replace("m=video 9", "m=video 0");
    let facts = judge(&offer(&[audio("0", "sendrecv"), stopped.clone()])).expect("audio goes on");
    assert_eq!(facts.sends.len(), 1);
    let bundled = stopped + "a=bundle-only\r\n";
    assert_eq!(judge(&offer(&[audio("0", "sendrecv"), bundled])).expect("bundle-only is live").sends.len(), 2);
    assert_eq!(judge(&offer(&[audio("0", "inactive")])), Err(OfferError::Inactive));
}

#[test]
fn each_bad_offer_is_told_what_is_wrong() {
    let good = call();
    let three = offer(&[video("0", "sendonly", "96"), video("1", "sendonly", "96"), video("2", "sendonly", "96")]);
    let two_in = offer(&[video("0", "recvonly", "96"), video("1", "recvonly", "96")]);
    let two_mics = offer(&[audio("0", "sendonly"), audio("1", "sendonly")]);
    let without =
        |needle: &str| good.split_inclusive("\r\n").filter(|line| !line.starts_with(needle)).collect::<String>();
    let cases: Vec<(String, &str)> = vec![
        (String::new(), "empty"),
        ("hello".into(), "not SDP"),
        ("v=0\r\n{\"type\":\"offer\"}\r\n".into(), "line 2"),
        (format!("v=0\r\n{}", "a=x\r\n".repeat(LINES_MAX)), "lines"),
        (format!("v=0\r\na={}\r\n", "x".repeat(OFFER_MAX)), "bytes"),
        (HEAD.into(), "no audio or video"),
        (without("a=ice-"), "ICE credentials"),
        (good.replace("a=ice-pwd:Wt0Jx3o6XkFXGxO3CgJzSB0J", "a=ice-pwd:short"), "22 to 256"),
        (good.replace("a=ice-ufrag:Zx4k", "a=ice-ufrag:Z_x-k"), "4 to 256"),
        (without("a=fingerprint"), "fingerprint"),
        (good.replace("sha-256", "sha-1"), "sha-256"),
        (without("a=group"), "max-bundle"),
        (without("a=rtcp-mux"), "rtcp-mux"),
        (three, "sends video in 3"),
        (two_mics, "sends audio in 2"),
        (two_in, "receives video in 2"),
        (offer(&[video("0", "sendonly", "127")]), "no video codec"),
        (offer(&[audio("0", "sendonly").replace("111 9 0 8 13", "9 13")]), "it has G722"),
    ];
    for (text, needle) in cases {
        let error = judge(&text).expect_err(needle).to_string();
        assert!(error.contains(needle), "{needle:?} is not in {error:?}");
    }
}

#[test]
fn fragments() {
    let text = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n\
        a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw network-id 1\r\n\
        a=candidate:2 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active\r\n\
        a=candidate:3 1 udp 2122260223 0b3f0b8a-5a4e.local 61764 typ host\r\na=end-of-candidates\r\n";
    let fragment = Fragment::parse(text).expect("RFC 8840's own shape");
    assert_eq!(fragment.credentials, Some(("EsAw".into(), "P2uYro0UCOQ4zxjKXaWCBui1".into())));
    assert_eq!((fragment.candidates.len(), fragment.skipped, fragment.end_of_candidates), (1, 2, true));
    assert_eq!(fragment.candidates[0].mid.as_deref(), Some("0"));
    for (bad, needle) in [
        ("", "empty"),
        ("m=audio 9 RTP/AVP 0\r\n", "nothing to do"),
        ("hello\r\n", "line 1"),
        ("a=ice-ufrag:EsAw\r\n", "only one"),
        ("a=candidate:1 1 udp x 192.0.2.1 1 typ host\r\n", "not a candidate"),
        ("a=candidate:garbage\r\n", "not a candidate"),
    ] {
        let error = Fragment::parse(bad).expect_err(needle).to_string();
        assert!(error.contains(needle), "{needle:?} is not in {error:?}");
    }
}

proptest! {
    #[test]
    fn noise_never_panics(text in "\\PC{0,400}") {
        let _ = judge(&text);
        let _ = Fragment::parse(&text);
    }

    #[test]
    fn damaged_offers_never_panic(cuts in proptest::collection::vec((any::<prop::sample::Index>(), "\\PC{0,6}"), 1..8)) {
        let mut text = call();
        for (at, noise) in cuts {
            let mut at = at.index(text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            text.replace_range(at..at, &noise);
        }
        let _ = judge(&text);
        let _ = Fragment::parse(&text);
    }
}
