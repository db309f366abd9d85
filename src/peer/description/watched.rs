//! The answer to one who only receives, written by us.
//!
//! Owns: its words. Does not know: connections. Text and choices come in, text leaves. It says no more than what is so: the
//! one format that is sent of each section, and what repairs it.

use std::fmt::Write as _;

use super::super::engine::HEARD_LEVELS;
use super::answer::{levels_towards_the_client, refusal};
use super::{DtlsRole, FLEXFEC, Format, MUX_ONLY, STREAM_ID, Section, Taken, parse, write};
use crate::media::{Kind, VIDEO_CLOCK};
use crate::peer::outgoing::Ssrcs;
use crate::sdp::replace_candidates;
use crate::transport::ice::Credentials;

/// How far apart a packet and what repairs it may be, in microseconds (draft-ietf-payload-flexible-fec-scheme-03 section 5.1).
const REPAIR_WINDOW: u32 = 1_000_000;

/// Our side of the connection.
pub(in crate::peer) struct Own<'a> {
    pub(in crate::peer) ice: &'a Credentials,
    /// Who opens DTLS: what was agreed first stays.
    pub(in crate::peer) role: DtlsRole,
    /// SHA-256 of our certificate, as SDP writes it.
    pub(in crate::peer) fingerprint: &'a str,
    pub(in crate::peer) candidates: &'a [String],
    pub(in crate::peer) ssrcs: Ssrcs,
    pub(in crate::peer) cname: &'a str,
    /// Numbers the session, and its descriptions from 1 on (RFC 8866 section 5.2).
    pub(in crate::peer) session: u64,
    pub(in crate::peer) version: u64,
}

/// The answer to the offer that this was taken of.
pub(in crate::peer) fn watched(taken: &Taken, own: &Own<'_>) -> String {
    let (offered, kept) = parse(&taken.text);
    let mut kept = kept.into_iter();
    let (mut audio, mut video) = (taken.audio_out.as_ref(), taken.video_out.as_ref());
    let (mut sections, mut bundle) = (Vec::new(), String::new());
    loop {
        let section = match taken.refused.get(&sections.len()) {
            Some(refused) => refusal(refused),
            None => match kept.next() {
                Some(stopped) if stopped.port() == "0" => refusal(&stopped),
                Some(section) => {
                    let out = if section.kind() == Some(Kind::Video) { &mut video } else { &mut audio };
                    let out = if section.receives() { out.take() } else { None };
                    let _ = write!(bundle, " {}", section.mid());
                    accepted(&section, out, taken, own)
                }
                None => break,
            },
        };
        sections.push(section);
    }
    let Own { session, version, .. } = own;
    let mut lines = vec!["v=0".to_owned(), format!("o=- {session} {version} IN IP4 127.0.0.1")];
    lines.extend(["s=-".to_owned(), "t=0 0".to_owned()]);
    if !taken.alone {
        lines.push(format!("a=group:BUNDLE{bundle}"));
    }
    lines.push("a=ice-options:trickle".to_owned());
    if offered.has("a=extmap-allow-mixed") {
        lines.push("a=extmap-allow-mixed".to_owned());
    }
    replace_candidates(&write(&Section { lines }, &sections), own.candidates)
}

/// A section that stays; `out` is what is sent in it.
fn accepted(offered: &Section, out: Option<&Format>, taken: &Taken, own: &Own<'_>) -> Section {
    let flexfec = taken.flexfec.filter(|_| out.is_some_and(|format| format.codec.kind() == Kind::Video));
    let media_line = offered.lines.first().map(String::as_str).unwrap_or_default();
    let fields: Vec<&str> = media_line.split(' ').collect();
    let (media, protocol) = (fields.first().copied().unwrap_or_default(), fields.get(2).copied().unwrap_or_default());
    let numbers = match out {
        Some(format) => {
            let numbers = [Some(format.payload_type), format.rtx, flexfec];
            numbers.into_iter().flatten().map(|number| number.to_string()).collect()
        }
        None => fields.get(3..4).unwrap_or_default().iter().map(|number| (*number).to_owned()).collect::<Vec<_>>(),
    };
    let mut lines = vec![
        format!("{media} 9 {protocol} {}", numbers.join(" ")),
        "c=IN IP4 0.0.0.0".to_owned(),
        format!("a=ice-ufrag:{}", own.ice.ufrag),
        format!("a=ice-pwd:{}", own.ice.password),
        format!("a=fingerprint:sha-256 {}", own.fingerprint),
        format!("a=setup:{}", if own.role == DtlsRole::Server { "passive" } else { "active" }),
        format!("a=mid:{}", offered.mid()),
        format!("a={}", if out.is_some() { "sendonly" } else { "inactive" }),
        "a=rtcp-mux".to_owned(),
    ];
    if offered.has("a=rtcp-rsize") {
        lines.push("a=rtcp-rsize".to_owned());
    }
    // RFC 9725 section 4.4.1 wants it of both sides.
    if offered.has(MUX_ONLY) {
        lines.push(MUX_ONLY.to_owned());
    }
    for number in &numbers {
        let own = |name: &str| format!("a={name}:{number} ");
        let described = [own("rtpmap"), own("fmtp"), own("rtcp-fb")];
        let known = offered.lines.iter().filter(|line| described.iter().any(|prefix| line.starts_with(prefix)));
        // Nobody measures how they arrive: no numbers on packets, no estimates asked for.
        lines.extend(known.filter(|line| !line.ends_with(" transport-cc") && !line.ends_with(" goog-remb")).cloned());
    }
    if let Some(number) = flexfec {
        lines.push(format!("a=rtpmap:{number} {FLEXFEC}/{VIDEO_CLOCK}"));
        lines.push(format!("a=fmtp:{number} repair-window={REPAIR_WINDOW}"));
    }
    let Some(format) = out else { return Section { lines } };
    let is_video = format.codec.kind() == Kind::Video;
    let levels = taken.extension(HEARD_LEVELS).filter(|_| !is_video);
    lines.extend(levels.map(levels_towards_the_client));
    let (track, ssrc) = if is_video { ("out-video", own.ssrcs.video) } else { ("out-audio", own.ssrcs.audio) };
    lines.push(format!("a=msid:{STREAM_ID} {track}"));
    let repair = format.rtx.map(|_| Ssrcs::repair(ssrc));
    lines.extend(repair.map(|repair| format!("a=ssrc-group:FID {ssrc} {repair}")));
    let protection = flexfec.map(|_| Ssrcs::protection(ssrc));
    lines.extend(protection.map(|protection| format!("a=ssrc-group:FEC-FR {ssrc} {protection}")));
    for ssrc in [Some(ssrc), repair, protection].into_iter().flatten() {
        lines.push(format!("a=ssrc:{ssrc} cname:{}", own.cname));
        lines.push(format!("a=ssrc:{ssrc} msid:{STREAM_ID} {track}"));
    }
    Section { lines }
}

#[cfg(test)]
mod tests {
    use super::super::{Receives, take};
    use super::*;
    use crate::media::Codec;
    use crate::sdp::Offer;

    /// The same offer of somebody who only watches.
    fn watching(offer: &str) -> String {
        let kept =
            offer.lines().map(str::trim_end).filter(|line| !line.starts_with("a=ssrc") && !line.starts_with("a=msid"));
        kept.map(|line| if line == "a=sendrecv" { "a=recvonly" } else { line })
            .flat_map(|line| [line, "\r\n"])
            .collect()
    }

    fn answer(offer: &str, codec: Codec) -> String {
        let parsed = Offer::parse(offer).expect("an offer");
        let taken = take(&parsed, offer, Receives { audio: true, video: Some(codec) }, &[]).expect("can be taken");
        let ice = Credentials { ufrag: "ours".to_owned(), password: "p".repeat(24) };
        let candidates = ["candidate:1 1 udp 1 192.0.2.1 8189 typ host".to_owned()];
        let own = Own {
            ice: &ice,
            role: taken.dtls_role,
            fingerprint: "AB:CD",
            candidates: &candidates,
            ssrcs: Ssrcs { audio: 100, video: 200 },
            cname: "we",
            session: 5,
            version: 1,
        };
        watched(&taken, &own)
    }

    #[test]
    fn it_says_what_is_sent_and_nothing_else() {
        let text = answer(&watching(include_str!("chromium.sdp")), Codec::Vp8);
        let (session, sections) = parse(&text);
        assert!(session.has("a=group:BUNDLE 0 1") && session.has("a=ice-options:trickle"), "{text}");
        let [audio, video] = sections.as_slice() else { panic!("{text}") };
        assert_eq!(audio.lines[0], "m=audio 9 UDP/TLS/RTP/SAVPF 111");
        assert_eq!(video.lines[0], "m=video 9 UDP/TLS/RTP/SAVPF 96 97");
        for section in [audio, video] {
            assert!(section.has("a=sendonly") && section.has("a=setup:passive") && section.has("a=rtcp-mux"), "{text}");
        }
        assert!(video.has("a=ssrc-group:FID 200 201") && video.has("a=ssrc:201 cname:we"), "{text}");
        assert!(video.has("a=rtcp-fb:96 nack") && video.has("a=rtcp-fb:96 nack pli"), "{text}");
        assert!(!text.contains("transport-cc") && !text.contains("goog-remb") && !text.contains("extmap:"), "{text}");
        assert!(
            audio.has("a=candidate:1 1 udp 1 192.0.2.1 8189 typ host") && audio.has("a=end-of-candidates"),
            "{text}"
        );
    }

    #[test]
    fn sections_stay_in_their_places() {
        let mut offer = watching(include_str!("firefox.sdp"));
        offer += "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:7\r\n";
        offer += "m=video 0 UDP/TLS/RTP/SAVPF 120\r\na=mid:8\r\na=inactive\r\na=rtpmap:120 VP8/90000\r\n";
        let offer = offer.replace("a=group:BUNDLE 0 1", "a=group:BUNDLE 0 1 7");
        let text = answer(&offer, Codec::Vp8);
        let (_, sections) = parse(&text);
        let lines: Vec<&str> = sections.iter().map(|section| section.lines[0].as_str()).collect();
        assert_eq!(lines[2..], ["m=application 0 UDP/DTLS/SCTP webrtc-datachannel", "m=video 0 UDP/TLS/RTP/SAVPF 120"]);
        assert!(lines[1].starts_with("m=video 9 UDP/TLS/RTP/SAVPF 120"), "{text}");
        assert!(text.contains("a=group:BUNDLE 0 1\r\n"), "{text}");
    }

    #[test]
    fn a_client_that_waits_for_dtls_is_opened_to() {
        let text = answer(&watching(include_str!("chromium.sdp")).replace("actpass", "passive"), Codec::H264);
        assert!(text.contains("a=setup:active") && text.contains("packetization-mode=1"), "{text}");
    }
}
