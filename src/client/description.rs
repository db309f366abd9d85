//! The SDP of a client: the offer it sends, the answer it reads, and the fragments of an ICE restart. Text in, text
//! out.
//!
//! Owns: payload types and header extensions, which the offerer assigns, and the credentials and SSRCs of one
//! connection. Does not know: HTTP, ICE itself. The offer is a browser's without what no client here uses.

use std::net::SocketAddr;

use crate::media::{Codec, Kind};
use crate::sdp::{Direction, Fragment};
use crate::transport;
use crate::transport::ice::Credentials;
use crate::transport::secure::Identity;

/// Payload type of Opus.
pub(crate) const OPUS: u8 = 111;
/// Payload type of the video codec that is received, and sent too unless another one is.
pub(crate) const VIDEO: u8 = 96;
/// Payload type of retransmissions of [`VIDEO`] (RFC 4588).
pub(crate) const RTX: u8 = 97;
/// Payload type of the video codec that is only sent.
pub(crate) const SENT_VIDEO: u8 = 98;
/// Payload type of retransmissions of [`SENT_VIDEO`].
const SENT_RTX: u8 = 99;
/// Header extension: audio level (RFC 6464).
pub(crate) const AUDIO_LEVEL: u8 = 1;
/// Header extension: transport-wide sequence number, for transport-cc feedback.
pub(crate) const TRANSPORT_SEQUENCE: u8 = 2;

const AUDIO_LEVEL_URI: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
const TRANSPORT_SEQUENCE_URI: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// Our side of one connection: what the offer says and the connection is built from.
#[derive(Debug, Clone)]
pub(crate) struct LocalDescription {
    pub(crate) ice: Credentials,
    pub(crate) direction: Direction,
    /// The video codec that is received.
    pub(crate) codec: Codec,
    /// The video codec that is sent.
    sent_codec: Codec,
    fingerprint: String,
    pub(crate) cname: String,
    pub(crate) audio_ssrc: u32,
    pub(crate) video_ssrc: u32,
}

impl LocalDescription {
    /// A description with new credentials, SSRCs and CNAME; `codec` is the video codec of both directions.
    pub(crate) fn new(identity: &Identity, direction: Direction, codec: Codec) -> Self {
        Self {
            ice: Credentials::random(),
            direction,
            codec,
            sent_codec: codec,
            fingerprint: identity.fingerprint.clone(),
            cname: transport::cname(),
            audio_ssrc: rand::random(),
            video_ssrc: rand::random(),
        }
    }

    /// The same, with another video codec in what is sent.
    pub(crate) fn sending(self, sent_codec: Codec) -> Self {
        Self { sent_codec, ..self }
    }

    /// Payload type of the video that is sent.
    pub(crate) fn sent_payload_type(&self) -> u8 {
        if self.sent_codec == self.codec { VIDEO } else { SENT_VIDEO }
    }

    /// Whether the server takes what is sent.
    ///
    /// # Errors
    /// In words: it rejects the video section or its codec.
    pub(crate) fn accept(&self, answer: &Answer) -> Result<(), String> {
        let taken = !self.direction.sends() || answer.video_formats.contains(&self.sent_payload_type());
        if taken {
            Ok(())
        } else {
            Err(format!("the server does not take {} video: send another codec", self.sent_codec))
        }
    }

    /// The offer. `addresses` are our host candidates, which may be none: the server learns the address from our
    /// checks.
    pub(crate) fn offer(&self, addresses: &[SocketAddr]) -> String {
        let mut sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n".to_owned();
        self.section(&mut sdp, Kind::Audio, addresses);
        self.section(&mut sdp, Kind::Video, addresses);
        sdp
    }

    fn section(&self, sdp: &mut String, kind: Kind, addresses: &[SocketAddr]) {
        let mut videos = vec![(self.codec, VIDEO, RTX)];
        if self.sent_codec != self.codec {
            videos.push((self.sent_codec, SENT_VIDEO, SENT_RTX));
        }
        let (mid, name, formats, ssrc) = match kind {
            Kind::Audio => (0, "audio", vec![OPUS], self.audio_ssrc),
            Kind::Video => (1, "video", videos.iter().flat_map(|(_, pt, rtx)| [*pt, *rtx]).collect(), self.video_ssrc),
        };
        let formats = formats.iter().map(u8::to_string).collect::<Vec<_>>().join(" ");
        let direction = match self.direction {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        };
        let Credentials { ufrag, password } = &self.ice;
        let mut line = |text: String| {
            sdp.push_str(&text);
            sdp.push_str("\r\n");
        };
        line(format!("m={name} 9 UDP/TLS/RTP/SAVPF {formats}"));
        line("c=IN IP4 0.0.0.0".to_owned());
        line(format!("a=ice-ufrag:{ufrag}"));
        line(format!("a=ice-pwd:{password}"));
        line(format!("a=fingerprint:sha-256 {}", self.fingerprint));
        line("a=setup:actpass".to_owned());
        line(format!("a=mid:{mid}"));
        line(format!("a={direction}"));
        line("a=rtcp-mux".to_owned());
        line("a=rtcp-rsize".to_owned());
        if mid == 0 {
            candidates(addresses).for_each(&mut line);
        }
        let sends = self.direction.sends();
        match kind {
            Kind::Audio => {
                line(format!("a=rtpmap:{OPUS} opus/48000/2"));
                line(format!("a=fmtp:{OPUS} minptime=10;useinbandfec=1"));
                if sends {
                    line(format!("a=rtcp-fb:{OPUS} transport-cc"));
                    line(format!("a=extmap:{AUDIO_LEVEL} {AUDIO_LEVEL_URI}"));
                }
            }
            Kind::Video => videos.iter().for_each(|(codec, pt, rtx)| video(*codec, *pt, *rtx, sends, &mut line)),
        }
        if sends {
            line(format!("a=extmap:{TRANSPORT_SEQUENCE} {TRANSPORT_SEQUENCE_URI}"));
            line(format!("a=msid:commingle {name}"));
            line(format!("a=ssrc:{ssrc} cname:{}", self.cname));
        }
    }
}

/// The lines of one video codec and its retransmissions.
fn video(codec: Codec, pt: u8, rtx: u8, sends: bool, line: &mut impl FnMut(String)) {
    line(format!("a=rtpmap:{pt} {}/90000", codec.encoding_name()));
    if codec == Codec::H264 {
        line(format!("a=fmtp:{pt} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"));
    }
    line(format!("a=rtcp-fb:{pt} ccm fir"));
    line(format!("a=rtcp-fb:{pt} nack"));
    line(format!("a=rtcp-fb:{pt} nack pli"));
    if sends {
        line(format!("a=rtcp-fb:{pt} transport-cc"));
    }
    line(format!("a=rtpmap:{rtx} rtx/90000"));
    line(format!("a=fmtp:{rtx} apt={pt}"));
}

/// `a=candidate` lines of our addresses, and `a=end-of-candidates`.
fn candidates(addresses: &[SocketAddr]) -> impl Iterator<Item = String> {
    let candidates = addresses.iter().enumerate().map(|(at, address)| {
        // RFC 8445 section 5.1.2.1: type preference 126 for host candidates, then ours in order, then component 1.
        let priority = (126 << 24) + ((65_535 - at as u32) << 8) + 255;
        format!("a=candidate:{} 1 udp {priority} {} {} typ host", at + 1, address.ip(), address.port())
    });
    candidates.chain(["a=end-of-candidates".to_owned()])
}

/// The fragment (RFC 8840 section 9) that requests an ICE restart (RFC 9725 section 4.3.3).
pub(crate) fn restart(ice: &Credentials, addresses: &[SocketAddr]) -> String {
    let Credentials { ufrag, password } = ice;
    let mut fragment =
        format!("a=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\nm=audio 9 UDP/TLS/RTP/SAVPF {OPUS}\r\na=mid:0\r\n");
    candidates(addresses).for_each(|line| fragment += &format!("{line}\r\n"));
    fragment
}

/// The server's fragment in reply: its new credentials and its UDP candidates.
///
/// # Errors
/// In words: what the fragment lacks.
pub(crate) fn restarted(fragment: &str) -> Result<(Credentials, Vec<SocketAddr>), String> {
    let Fragment { ufrag, pwd, candidates, .. } = Fragment::parse(fragment).map_err(|error| error.to_string())?;
    let addresses = candidates.iter().filter_map(|line| candidate(&format!("a={}", line.candidate), "udp")).collect();
    Ok((Credentials { ufrag, password: pwd }, addresses))
}

/// A server's answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) ice: Credentials,
    /// SHA-256 of the server's certificate.
    pub(crate) fingerprint: String,
    /// UDP candidates with numeric addresses.
    pub(crate) candidates: Vec<SocketAddr>,
    /// Passive TCP candidates (RFC 6544).
    pub(crate) tcp: Vec<SocketAddr>,
    /// Payload types of its video section; none where that is rejected.
    pub(crate) video_formats: Vec<u8>,
    /// It takes the audio level extension.
    pub(crate) audio_level: bool,
    /// It takes transport-wide sequence numbers.
    pub(crate) transport_sequence: bool,
}

impl Answer {
    /// Reads an answer.
    ///
    /// # Errors
    /// In words: which line is missing or wrong.
    pub(crate) fn parse(sdp: &str) -> Result<Self, String> {
        let value = |prefix: &str| {
            let found = sdp.lines().find_map(|line| line.trim_end().strip_prefix(prefix));
            found.map(str::to_owned).ok_or_else(|| format!("the answer has no {}", prefix.trim_end_matches([':', ' '])))
        };
        let setup = value("a=setup:")?;
        if setup != "passive" {
            return Err(format!(
                "the answer has a=setup:{setup}, but must have a=setup:passive: we are the DTLS client"
            ));
        }
        let candidates: Vec<SocketAddr> = sdp.lines().filter_map(|line| candidate(line, "udp")).collect();
        if candidates.is_empty() {
            return Err("the answer has no candidate for UDP".to_owned());
        }
        Ok(Self {
            ice: Credentials { ufrag: value("a=ice-ufrag:")?, password: value("a=ice-pwd:")? },
            fingerprint: value("a=fingerprint:sha-256 ")?,
            candidates,
            tcp: sdp
                .lines()
                .filter(|line| line.contains(" tcptype passive"))
                .filter_map(|line| candidate(line, "tcp"))
                .collect(),
            video_formats: video_formats(sdp),
            audio_level: sdp.contains(AUDIO_LEVEL_URI),
            transport_sequence: sdp.contains(TRANSPORT_SEQUENCE_URI),
        })
    }
}

/// The payload types of the first video section that is not rejected (port 0, RFC 3264 section 6).
fn video_formats(sdp: &str) -> Vec<u8> {
    let accepted = sdp.lines().filter_map(|line| line.trim_end().strip_prefix("m=video ")).find_map(|rest| {
        let mut fields = rest.split(' ');
        fields.next().filter(|port| *port != "0")?;
        Some(fields.skip(1).filter_map(|format| format.parse().ok()).collect())
    });
    accepted.unwrap_or_default()
}

/// `a=candidate:1 1 udp 2130706431 192.0.2.1 8189 typ host`, of this transport.
fn candidate(line: &str, wanted: &str) -> Option<SocketAddr> {
    let fields: Vec<&str> = line.trim_end().strip_prefix("a=candidate:")?.split(' ').collect();
    let [_, "1", transport, _, ip, port, ..] = fields.as_slice() else { return None };
    let fits = transport.eq_ignore_ascii_case(wanted);
    fits.then(|| Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Sounds;
    use crate::sdp;

    fn local(direction: Direction, codec: Codec) -> LocalDescription {
        LocalDescription::new(&crate::client::identity().expect("a certificate"), direction, codec)
    }

    fn offer(local: &LocalDescription) -> String {
        local.offer(&["127.0.0.1:40000", "192.0.2.1:40000"].map(|text| text.parse().expect("an address")))
    }

    #[test]
    fn offers_are_accepted_by_the_server() {
        for direction in [Direction::SendRecv, Direction::SendOnly, Direction::RecvOnly] {
            for codec in [Codec::Vp8, Codec::H264] {
                let parsed = sdp::Offer::parse(&offer(&local(direction, codec))).expect("an offer");
                let facts = parsed.facts(&[Codec::Vp8, Codec::H264], &Sounds::default()).expect("one that can join");
                assert_eq!(facts.direction, direction);
                assert_eq!(facts.sends.len(), if direction.sends() { 2 } else { 0 });
                assert_eq!(facts.receives_video, direction.receives().then_some(codec));
            }
        }
    }

    #[test]
    fn an_offer_with_two_codecs_is_received_in_the_first_and_sent_in_the_second() {
        let local = local(Direction::SendRecv, Codec::Vp8).sending(Codec::Av1);
        let parsed = sdp::Offer::parse(&offer(&local)).expect("an offer");
        let facts = parsed.facts(&[Codec::Vp9, Codec::Vp8], &Sounds::default()).expect("one that can join");
        assert_eq!(facts.receives_video, Some(Codec::Vp8));
        let codecs: Vec<_> = parsed.sections[1].codecs.iter().filter_map(|offered| offered.codec).collect();
        assert_eq!(codecs, [Codec::Vp8, Codec::Av1]);
        assert_eq!(local.sent_payload_type(), SENT_VIDEO);
    }

    #[test]
    fn an_answer_without_the_sent_codec_is_an_error_that_names_it() {
        let with = |video: &str| Answer::parse(&format!("{ANSWER}{video}\r\n")).expect("an answer");
        let sending = local(Direction::SendRecv, Codec::Vp8).sending(Codec::Av1);
        assert_eq!(sending.accept(&with("m=video 9 UDP/TLS/RTP/SAVPF 96 97 98")), Ok(()));
        for rejected in ["m=video 9 UDP/TLS/RTP/SAVPF 96 97", "m=video 0 UDP/TLS/RTP/SAVPF 98", "a=x"] {
            let error = sending.accept(&with(rejected)).expect_err("not taken");
            assert!(error.contains("AV1"), "{error}");
        }
        assert_eq!(local(Direction::RecvOnly, Codec::Vp8).accept(&with("a=x")), Ok(()));
    }

    const ANSWER: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=ice-ufrag:abcd\r\na=ice-pwd:efgh\r\n\
        a=fingerprint:sha-256 AB:CD\r\na=setup:passive\r\na=candidate:1 1 udp 2130706431 192.0.2.1 8189 typ host\r\n\
        a=candidate:2 1 tcp 2130706431 192.0.2.1 9 typ host tcptype active\r\n\
        a=candidate:4 1 tcp 1520435199 192.0.2.1 8189 typ host tcptype passive\r\n\
        a=candidate:3 1 UDP 1 2001:db8::1 8189 typ host\r\n\
        a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n";

    #[test]
    fn answers_are_parsed() {
        let answer = Answer::parse(ANSWER).expect("an answer");
        assert_eq!(answer.ice, Credentials { ufrag: "abcd".to_owned(), password: "efgh".to_owned() });
        assert_eq!(answer.fingerprint, "AB:CD");
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        assert_eq!(answer.candidates, [at("192.0.2.1:8189"), at("[2001:db8::1]:8189")]);
        assert_eq!(answer.tcp, [at("192.0.2.1:8189")]);
        assert!(answer.audio_level && !answer.transport_sequence);
    }

    #[test]
    fn restart_fragments_are_parsed_back() {
        let (ours, address) = (Credentials::random(), "192.0.2.7:40000".parse().expect("an address"));
        let fragment = restart(&ours, &[address]);
        assert_eq!(restarted(&fragment), Ok((ours, vec![address])), "it is a fragment like the server's");
        assert!(restarted("a=ice-ufrag:abcd\r\n").is_err_and(|error| error.contains("a=ice-pwd")));
    }

    #[test]
    fn a_missing_line_of_an_answer_is_named() {
        for (without, named) in
            [("a=ice-pwd:efgh", "a=ice-pwd"), ("a=fingerprint:sha-256 AB:CD", "a=fingerprint:sha-256")]
        {
            let error = Answer::parse(&ANSWER.replace(without, "a=x")).expect_err("incomplete");
            assert!(error.contains(named), "{error}");
        }
        assert!(Answer::parse(&ANSWER.replace("passive", "active")).is_err());
        assert!(Answer::parse(&ANSWER.replace(" udp ", " tcp ").replace(" UDP ", " tcp ")).is_err());
    }
}
