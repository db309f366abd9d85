//! The words of answers, and of our side of an ICE restart.
//!
//! Owns: how an [`Agreement`] is written as SDP (RFC 8829 section 5.3.1). Does not know: offers, connections. Pure.

use std::fmt::Write as _;

use super::super::extensions::{self, MIXER_TO_CLIENT_LEVEL, TRANSPORT_CC};
use super::super::ssrcs::Ssrcs;
use super::{Accepted, AgreedSection, Agreement, DtlsRole, FLEXFEC, Format};
use crate::media::{Kind, VIDEO_CLOCK};
use crate::transport::ice::Credentials;

/// The MediaStream of what we send: audio and video are synchronized.
const STREAM_ID: &str = "commingle";
/// How far apart a packet and its FEC packet may be, in microseconds (draft-ietf-payload-flexible-fec-scheme-03 section
/// 5.1).
const REPAIR_WINDOW: u32 = 1_000_000;

/// Our side of the session.
pub(in crate::peer) struct Local<'a> {
    pub(in crate::peer) ice: &'a Credentials,
    /// As agreed in the first answer.
    pub(in crate::peer) role: DtlsRole,
    /// SHA-256 of our certificate, as SDP writes it.
    pub(in crate::peer) fingerprint: &'a str,
    /// Our candidates, without `a=`.
    pub(in crate::peer) candidates: &'a [String],
    pub(in crate::peer) ssrcs: Ssrcs,
    pub(in crate::peer) cname: &'a str,
    /// Session id and version of the `o=` line (RFC 8866 section 5.2).
    pub(in crate::peer) session: u64,
    pub(in crate::peer) version: u64,
}

/// The answer to the offer that the agreement was taken of.
pub(in crate::peer) fn answer(agreement: &Agreement, local: &Local<'_>) -> String {
    let mut text = Text(String::with_capacity(4096));
    let Local { session, version, .. } = local;
    text.line("v=0");
    text.line(format_args!("o=- {session} {version} IN IP4 127.0.0.1"));
    text.line("s=-");
    text.line("t=0 0");
    if let Some(bundle) = bundle(agreement) {
        text.line(format_args!("a=group:BUNDLE {bundle}"));
    }
    text.line("a=ice-options:trickle");
    if agreement.extmap_allow_mixed {
        text.line("a=extmap-allow-mixed");
    }
    // Only the section that the BUNDLE group begins with has candidates (RFC 9143 section 7.3.1).
    let mut candidates = Some(local.candidates);
    for section in &agreement.sections {
        match &section.accepted {
            None => refused(&mut text, section),
            Some(media) => {
                accepted(&mut text, section, media, local);
                for candidate in candidates.iter().flat_map(|candidates| candidates.iter()) {
                    text.line(format_args!("a={candidate}"));
                }
                if candidates.take().is_some() {
                    text.line("a=end-of-candidates");
                }
            }
        }
    }
    text.0
}

/// Our side of an ICE restart, as a fragment (RFC 8840 section 9).
pub(in crate::peer) fn fragment(agreement: &Agreement, ice: &Credentials, candidates: &[String]) -> String {
    let mut text = Text(String::new());
    text.line("a=ice-options:trickle");
    if let Some(bundle) = bundle(agreement) {
        text.line(format_args!("a=group:BUNDLE {bundle}"));
    }
    let first = agreement.sections.iter().find_map(|section| Some((section, section.accepted.as_ref()?)));
    if let Some((section, media)) = first {
        media_line(&mut text, section, media);
        text.line(format_args!("a=mid:{}", section.mid));
    }
    text.line(format_args!("a=ice-ufrag:{}", ice.ufrag));
    text.line(format_args!("a=ice-pwd:{}", ice.password));
    for candidate in candidates {
        text.line(format_args!("a={candidate}"));
    }
    text.line("a=end-of-candidates");
    text.0
}

/// SDP in the making; every line ends with CRLF.
struct Text(String);

impl Text {
    fn line(&mut self, line: impl std::fmt::Display) {
        write!(self.0, "{line}\r\n").expect("writing to a String cannot fail");
    }
}

fn bundle(agreement: &Agreement) -> Option<String> {
    let mids: Vec<&str> = agreement.accepted().map(|(mid, _)| mid).collect();
    agreement.has_bundle.then(|| mids.join(" "))
}

/// RFC 8829 section 5.3.1: port 0 refuses a section, which stays in its place.
fn refused(text: &mut Text, section: &AgreedSection) {
    text.line(format_args!("m={} 0 {} {}", section.media, section.protocol, section.first_format));
    text.line("c=IN IP4 0.0.0.0");
    if section.has_mid {
        text.line(format_args!("a=mid:{}", section.mid));
    }
    text.line("a=inactive");
}

fn media_line(text: &mut Text, section: &AgreedSection, media: &Accepted) {
    let numbers = media.formats.iter().flat_map(|format| [Some(format.payload_type), format.rtx]);
    let numbers = numbers.chain([media.flexfec]).flatten();
    let numbers = numbers.fold(String::new(), |all, number| format!("{all} {number}"));
    text.line(format_args!("m={} 9 {}{numbers}", section.media, section.protocol));
}

fn accepted(text: &mut Text, section: &AgreedSection, media: &Accepted, local: &Local<'_>) {
    media_line(text, section, media);
    text.line("c=IN IP4 0.0.0.0");
    text.line(format_args!("a=ice-ufrag:{}", local.ice.ufrag));
    text.line(format_args!("a=ice-pwd:{}", local.ice.password));
    text.line(format_args!("a=fingerprint:sha-256 {}", local.fingerprint));
    text.line(format_args!("a=setup:{}", if local.role == DtlsRole::Server { "passive" } else { "active" }));
    text.line(format_args!("a=mid:{}", section.mid));
    text.line(match (&media.stream, &media.sends) {
        (Some(_), Some(_)) => "a=sendrecv",
        (Some(_), None) => "a=recvonly",
        (None, Some(_)) => "a=sendonly",
        (None, None) => "a=inactive",
    });
    text.line("a=rtcp-mux");
    if media.rtcp_rsize {
        text.line("a=rtcp-rsize");
    }
    // RFC 9725 section 4.4.1 wants it of both sides.
    if media.rtcp_mux_only {
        text.line("a=rtcp-mux-only");
    }
    for format in &media.formats {
        write_format(text, format, media);
    }
    if let Some(number) = media.flexfec {
        text.line(format_args!("a=rtpmap:{number} {FLEXFEC}/{VIDEO_CLOCK}"));
        text.line(format_args!("a=fmtp:{number} repair-window={REPAIR_WINDOW}"));
    }
    write_extensions(text, media);
    if let Some(stream) = media.stream.as_ref().filter(|stream| !stream.rids.is_empty()) {
        for rid in &stream.rids {
            text.line(format_args!("a=rid:{rid} recv"));
        }
        // RFC 8853 section 5.3: encodings that are not in the answer are not sent.
        text.line(format_args!("a=simulcast:recv {}", stream.rids.join(";")));
    }
    if let Some(format) = &media.sends {
        write_streams(text, format, media, local);
    }
}

fn write_format(text: &mut Text, format: &Format, media: &Accepted) {
    let Format { codec, payload_type, channels, parameters, rtx } = format;
    let (name, rate) = (codec.encoding_name(), codec.clock_rate());
    if *channels > 1 {
        text.line(format_args!("a=rtpmap:{payload_type} {name}/{rate}/{channels}"));
    } else {
        text.line(format_args!("a=rtpmap:{payload_type} {name}/{rate}"));
    }
    if !parameters.is_empty() {
        text.line(format_args!("a=fmtp:{payload_type} {parameters}"));
    }
    for (_, feedback) in media.feedback.iter().filter(|(of, _)| of == payload_type) {
        text.line(format_args!("a=rtcp-fb:{payload_type} {feedback}"));
    }
    if let Some(rtx) = rtx {
        text.line(format_args!("a=rtpmap:{rtx} rtx/{rate}"));
        text.line(format_args!("a=fmtp:{rtx} apt={payload_type}"));
    }
}

fn write_extensions(text: &mut Text, media: &Accepted) {
    let received: &[&str] = match (&media.stream, media.kind) {
        (Some(_), Kind::Audio) => &extensions::OF_AUDIO,
        (Some(_), Kind::Video) => &extensions::OF_VIDEO,
        (None, _) => &[],
    };
    for (id, uri) in &media.extensions {
        if uri == MIXER_TO_CLIENT_LEVEL {
            // Only mixes have this extension, and only clients get mixes (RFC 8285 section 5).
            if media.kind == Kind::Audio && media.sends.is_some() {
                text.line(format_args!("a=extmap:{id}/sendonly {uri}"));
            }
        } else if received.contains(&uri.as_str()) || uri == TRANSPORT_CC && media.sends.is_some() {
            text.line(format_args!("a=extmap:{id} {uri}"));
        }
    }
}

/// The SSRCs of what we send (RFC 5576), and that audio and video belong together (RFC 8830).
fn write_streams(text: &mut Text, format: &Format, media: &Accepted, local: &Local<'_>) {
    let is_video = media.kind == Kind::Video;
    let (track, ssrc) = if is_video { ("out-video", local.ssrcs.video) } else { ("out-audio", local.ssrcs.audio) };
    text.line(format_args!("a=msid:{STREAM_ID} {track}"));
    let rtx = format.rtx.map(|_| Ssrcs::rtx(ssrc));
    if let Some(rtx) = rtx {
        text.line(format_args!("a=ssrc-group:FID {ssrc} {rtx}"));
    }
    let fec = media.flexfec.map(|_| Ssrcs::fec(ssrc));
    if let Some(fec) = fec {
        text.line(format_args!("a=ssrc-group:FEC-FR {ssrc} {fec}"));
    }
    for ssrc in [Some(ssrc), rtx, fec].into_iter().flatten() {
        text.line(format_args!("a=ssrc:{ssrc} cname:{}", local.cname));
        text.line(format_args!("a=ssrc:{ssrc} msid:{STREAM_ID} {track}"));
    }
}
