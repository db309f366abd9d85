//! The offer a client makes, and what it reads in the answer. Text in, text out.
//!
//! Owns: payload types and header extensions, which are the offerer's to choose. Does not know: HTTP, ICE itself. The
//! offer is what a browser would send, without what no client here uses.

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::media::{Codec, Kind};
use crate::sdp::{Direction, Fragment};
use crate::transport::ice::Credentials;

/// Payload type of Opus.
pub(crate) const OPUS: u8 = 111;
/// Payload type of the video codec.
pub(crate) const VIDEO: u8 = 96;
/// Payload type of repaired video (RFC 4588).
pub(crate) const REPAIR: u8 = 97;
/// Header extension: how loud a packet is (RFC 6464).
pub(crate) const AUDIO_LEVEL: u8 = 1;
/// Header extension: the packet's number on the transport, for feedback about arrival.
pub(crate) const TRANSPORT_NUMBER: u8 = 2;

const AUDIO_LEVEL_URI: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
const TRANSPORT_NUMBER_URI: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// What an offer says.
#[derive(Debug, Clone)]
pub(crate) struct Offer<'a> {
    pub(crate) direction: Direction,
    pub(crate) codec: Codec,
    pub(crate) ice: &'a Credentials,
    pub(crate) fingerprint: &'a str,
    /// What we are called in RTCP.
    pub(crate) cname: &'a str,
    /// Where the bot receives; the server finds out by itself if it is somewhere else.
    pub(crate) addresses: &'a [SocketAddr],
    pub(crate) audio_ssrc: u32,
    pub(crate) video_ssrc: u32,
}

impl Offer<'_> {
    pub(crate) fn sdp(&self) -> String {
        let mut sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n".to_owned();
        self.section(&mut sdp, Kind::Audio);
        self.section(&mut sdp, Kind::Video);
        sdp
    }

    fn section(&self, sdp: &mut String, kind: Kind) {
        let (mid, name, formats, ssrc) = match kind {
            Kind::Audio => (0, "audio", format!("{OPUS}"), self.audio_ssrc),
            Kind::Video => (1, "video", format!("{VIDEO} {REPAIR}"), self.video_ssrc),
        };
        let direction = match self.direction {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        };
        let Credentials { ufrag, password } = self.ice;
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
            candidates(self.addresses).for_each(&mut line);
        }
        match kind {
            Kind::Audio => {
                line(format!("a=rtpmap:{OPUS} opus/48000/2"));
                line(format!("a=fmtp:{OPUS} minptime=10;useinbandfec=1"));
            }
            Kind::Video => {
                line(format!("a=rtpmap:{VIDEO} {}/90000", self.codec.encoding_name()));
                if self.codec == Codec::H264 {
                    let parameters = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
                    line(format!("a=fmtp:{VIDEO} {parameters}"));
                }
                line(format!("a=rtcp-fb:{VIDEO} ccm fir"));
                line(format!("a=rtcp-fb:{VIDEO} nack"));
                line(format!("a=rtcp-fb:{VIDEO} nack pli"));
                line(format!("a=rtpmap:{REPAIR} rtx/90000"));
                line(format!("a=fmtp:{REPAIR} apt={VIDEO}"));
            }
        }
        if self.direction.sends() {
            if kind == Kind::Audio {
                line(format!("a=extmap:{AUDIO_LEVEL} {AUDIO_LEVEL_URI}"));
                line(format!("a=rtcp-fb:{OPUS} transport-cc"));
            } else {
                line(format!("a=rtcp-fb:{VIDEO} transport-cc"));
            }
            line(format!("a=extmap:{TRANSPORT_NUMBER} {TRANSPORT_NUMBER_URI}"));
            line(format!("a=msid:commingle {name}"));
            line(format!("a=ssrc:{ssrc} cname:{}", self.cname));
        }
    }
}

/// Our addresses, and that they are all.
fn candidates(addresses: &[SocketAddr]) -> impl Iterator<Item = String> {
    let candidates = addresses.iter().enumerate().map(|(at, address)| {
        // RFC 8445 section 5.1.2.1: type preference 126 for host candidates, then ours in order, then component 1.
        let priority = (126 << 24) + ((65_535 - at as u32) << 8) + 255;
        format!("a=candidate:{} 1 udp {priority} {} {} typ host", at + 1, address.ip(), address.port())
    });
    candidates.chain(["a=end-of-candidates".to_owned()])
}

/// What begins ICE anew (RFC 9725 section 4.3.3), as a fragment (RFC 8840 section 9).
pub(crate) fn restart(ice: &Credentials, addresses: &[SocketAddr]) -> String {
    let Credentials { ufrag, password } = ice;
    let mut fragment =
        format!("a=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\nm=audio 9 UDP/TLS/RTP/SAVPF {OPUS}\r\na=mid:0\r\n");
    candidates(addresses).for_each(|line| fragment += &format!("{line}\r\n"));
    fragment
}

/// The server's side of that: its new credentials, and where it receives.
pub(crate) fn restarted(fragment: &str) -> Result<(Credentials, Vec<SocketAddr>), String> {
    let Fragment { ufrag, pwd, candidates, .. } = Fragment::parse(fragment).map_err(|error| error.to_string())?;
    let addresses = candidates.iter().filter_map(|line| candidate(&format!("a={}", line.candidate), "udp")).collect();
    Ok((Credentials { ufrag, password: pwd }, addresses))
}

/// What the server answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) ice: Credentials,
    /// SHA-256 of the server's certificate.
    pub(crate) fingerprint: String,
    /// Where the server receives, as far as UDP and numbers go.
    pub(crate) candidates: Vec<SocketAddr>,
    /// Where it waits for TCP connections (RFC 6544).
    pub(crate) tcp: Vec<SocketAddr>,
    /// It wants to be told how loud packets are.
    pub(crate) takes_levels: bool,
    /// It tells how packets arrive.
    pub(crate) takes_numbers: bool,
}

impl Answer {
    /// Reads an answer; what is missing is an error that says so.
    pub(crate) fn parse(sdp: &str) -> Result<Self, String> {
        let value = |prefix: &str| {
            let found = sdp.lines().find_map(|line| line.trim_end().strip_prefix(prefix));
            found.map(str::to_owned).ok_or_else(|| format!("the answer has no {}", prefix.trim_end_matches([':', ' '])))
        };
        let setup = value("a=setup:")?;
        if setup != "passive" {
            let mut text = "the answer has a=setup:".to_owned();
            let _ = write!(text, "{setup}, but we begin the DTLS handshake ourselves");
            return Err(text);
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
            takes_levels: sdp.contains(AUDIO_LEVEL_URI),
            takes_numbers: sdp.contains(TRANSPORT_NUMBER_URI),
        })
    }
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

    fn offer(direction: Direction, codec: Codec) -> String {
        let ice = Credentials::random();
        let addresses = ["127.0.0.1:40000", "192.0.2.1:40000"].map(|text| text.parse().expect("an address"));
        let fingerprint = "AB:".repeat(31) + "AB";
        Offer {
            direction,
            codec,
            ice: &ice,
            fingerprint: &fingerprint,
            cname: "we",
            addresses: &addresses,
            audio_ssrc: 1,
            video_ssrc: 2,
        }
        .sdp()
    }

    #[test]
    fn offers_are_what_the_server_takes() {
        for direction in [Direction::SendRecv, Direction::SendOnly, Direction::RecvOnly] {
            for codec in [Codec::Vp8, Codec::H264] {
                let parsed = sdp::Offer::parse(&offer(direction, codec)).expect("an offer");
                let facts = parsed.facts(&[Codec::Vp8, Codec::H264], &Sounds::default()).expect("one that can join");
                assert_eq!(facts.direction, direction);
                assert_eq!(facts.sends.len(), if direction.sends() { 2 } else { 0 });
                assert_eq!(facts.receives_video, direction.receives().then_some(codec));
            }
        }
    }

    const ANSWER: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=ice-ufrag:abcd\r\na=ice-pwd:efgh\r\n\
        a=fingerprint:sha-256 AB:CD\r\na=setup:passive\r\na=candidate:1 1 udp 2130706431 192.0.2.1 8189 typ host\r\n\
        a=candidate:2 1 tcp 2130706431 192.0.2.1 9 typ host tcptype active\r\n\
        a=candidate:4 1 tcp 1520435199 192.0.2.1 8189 typ host tcptype passive\r\na=candidate:3 1 UDP 1 2001:db8::1 8189 typ host\r\n\
        a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n";

    #[test]
    fn answers_are_read() {
        let answer = Answer::parse(ANSWER).expect("an answer");
        assert_eq!(answer.ice, Credentials { ufrag: "abcd".to_owned(), password: "efgh".to_owned() });
        assert_eq!(answer.fingerprint, "AB:CD");
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        assert_eq!(answer.candidates, [at("192.0.2.1:8189"), at("[2001:db8::1]:8189")]);
        assert_eq!(answer.tcp, [at("192.0.2.1:8189")]);
        assert!(answer.takes_levels && !answer.takes_numbers);
    }

    #[test]
    fn ice_begins_anew_by_fragments_that_are_understood() {
        let (ours, address) = (Credentials::random(), "192.0.2.7:40000".parse().expect("an address"));
        let fragment = restart(&ours, &[address]);
        assert_eq!(restarted(&fragment), Ok((ours, vec![address])), "it is a fragment like the server's");
        assert!(restarted("a=ice-ufrag:abcd\r\n").is_err_and(|error| error.contains("a=ice-pwd")));
    }

    #[test]
    fn what_an_answer_lacks_is_named() {
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
