//! What a client sends: which source and encoding an RTP packet belongs to, and how each arrives.
//!
//! Owns: [`Sources`], the binding of SSRCs to sections and encodings (RFC 9143 section 9.2): by the MID and RID that
//! packets carry, by the SSRCs of the offer, else by payload type; and per encoding the statistics and NACK. Does not
//! know: keys, RTCP packets, sinks. All packets are authentic here. Pure: time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

use rtc::rtp;

use super::capture::CaptureClock;
use super::description::{Agreement, OfferedStream};
use super::extensions::ExtensionIds;
use super::nack::NackGenerator;
use super::statistics::ReceptionStatistics;
use crate::media::{Codec, Kind, Size, SourceKind};
use crate::simulcast::Simulcast;
use crate::time::Timestamp;

/// SSRCs bound at a time; the oldest binding leaves first. A client has six with simulcast and retransmissions.
const BINDINGS_MAX: usize = 32;
/// A replaced SSRC is not bound again for so long: packets of it may have been reordered.
const REPLACED: Duration = Duration::from_secs(1);

/// What a payload type stands for in one section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Payload {
    Media(Codec),
    /// Retransmissions of packets of another payload type, which has this codec (RFC 4588).
    Rtx(Codec),
}

/// One RTP stream of a source, with its retransmissions.
#[derive(Debug)]
pub(super) struct Encoding {
    /// Its RID, where the source is simulcast.
    rid: Option<String>,
    /// The SSRC of the media packets, once known.
    pub(super) ssrc: Option<u32>,
    pub(super) statistics: ReceptionStatistics,
    pub(super) capture: CaptureClock,
    /// None where the client takes no NACK.
    pub(super) nack: Option<NackGenerator>,
    replaced: Option<(u32, Timestamp)>,
}

/// What a client sends in one section.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) mid: String,
    pub(super) kind: SourceKind,
    payloads: Vec<(u8, Payload)>,
    takes_nack: bool,
    /// When a keyframe was last requested.
    pub(super) keyframe_requested: Option<Timestamp>,
    /// What the offer says of it.
    offered: OfferedStream,
    /// One for each RID of simulcast, else one.
    pub(super) encodings: Vec<Encoding>,
    /// Which encoding is received; None without simulcast.
    pub(super) simulcast: Option<Simulcast>,
}

/// Where a packet belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    /// Index of the source, and of its encoding.
    pub(super) source: usize,
    pub(super) encoding: usize,
    pub(super) codec: Codec,
    /// It carries a retransmission.
    pub(super) is_rtx: bool,
}

#[derive(Debug, Clone, Copy)]
struct Binding {
    ssrc: u32,
    source: usize,
    encoding: usize,
    is_rtx: bool,
}

#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) sources: Vec<Source>,
    extensions: ExtensionIds,
    bindings: VecDeque<Binding>,
    /// The sizes at which sources are shown at most.
    wanted: Vec<(SourceKind, Size)>,
}

impl Encoding {
    fn new(rid: Option<String>, takes_nack: bool) -> Self {
        Self {
            rid,
            ssrc: None,
            statistics: ReceptionStatistics::default(),
            capture: CaptureClock::default(),
            nack: takes_nack.then(NackGenerator::default),
            replaced: None,
        }
    }

    /// Its RID; empty without simulcast.
    pub(super) fn rid(&self) -> &str {
        self.rid.as_deref().unwrap_or_default()
    }
}

impl Source {
    fn payload(&self, payload_type: u8) -> Option<Payload> {
        self.payloads.iter().find(|(known, _)| *known == payload_type).map(|(_, payload)| *payload)
    }

    /// Whether lost packets of an encoding are requested.
    fn repairs(&self, encoding: usize) -> bool {
        self.simulcast.as_ref().is_none_or(|simulcast| simulcast.repairs(encoding))
    }

    fn feedback_deadline(&self) -> Option<Timestamp> {
        let repaired = self.encodings.iter().enumerate().filter(|(at, _)| self.repairs(*at));
        let nack = repaired.filter_map(|(_, encoding)| encoding.nack.as_ref()?.deadline()).min();
        let keyframe = self.simulcast.as_ref().and_then(Simulcast::request_due);
        nack.into_iter().chain(keyframe).min()
    }

    /// The lost packets to request now, with their SSRC.
    pub(super) fn nacks(&mut self, now: Timestamp) -> Vec<(u32, Vec<u16>)> {
        let mut nacks = Vec::new();
        for at in 0..self.encodings.len() {
            if !self.repairs(at) {
                continue;
            }
            let encoding = &mut self.encodings[at];
            let (Some(ssrc), Some(nack)) = (encoding.ssrc, &mut encoding.nack) else { continue };
            if nack.deadline().is_none_or(|due| due > now) {
                continue;
            }
            let due = nack.due(now);
            let unrepaired = nack.take_unrepaired();
            if let Some(simulcast) = &mut self.simulcast {
                (0..unrepaired).for_each(|_| simulcast.unrepaired(at, now));
            }
            if !due.is_empty() {
                nacks.push((ssrc, due));
            }
        }
        nacks
    }

    /// SSRCs of encodings from which simulcast needs a keyframe now.
    pub(super) fn keyframe_requests(&mut self, now: Timestamp) -> Vec<u32> {
        let Some(simulcast) = &mut self.simulcast else { return Vec::new() };
        let requests = simulcast.requests(now);
        requests.into_iter().filter_map(|at| self.encodings[at].ssrc).collect()
    }

    /// Whether the source ends with these SSRCs. Simulcast goes on with the encodings that are still sent: browsers say
    /// goodbye for an encoding that they turn off.
    pub(super) fn ends(&mut self, ssrcs: &[u32], now: Timestamp) -> bool {
        let stopped = |encoding: &Encoding| encoding.ssrc.is_some_and(|ssrc| ssrcs.contains(&ssrc));
        let stopped: Vec<usize> = (0..self.encodings.len()).filter(|at| stopped(&self.encodings[*at])).collect();
        let Some(simulcast) = &mut self.simulcast else { return !stopped.is_empty() };
        let mut goes_on = true;
        for at in stopped {
            goes_on = simulcast.stopped(at, now);
        }
        !goes_on
    }

    /// SSRCs of the encodings that are received: of simulcast one, unless it has not begun.
    pub(super) fn received(&self) -> impl Iterator<Item = u32> {
        let current = self.simulcast.as_ref().and_then(Simulcast::current);
        let encodings = self.encodings.iter().enumerate();
        let received = encodings.filter(move |(at, encoding)| {
            encoding.statistics.has_received() && current.is_none_or(|current| current == *at)
        });
        received.filter_map(|(_, encoding)| encoding.ssrc)
    }
}

/// The encodings of a source.
fn encodings(offered: &OfferedStream, takes_nack: bool) -> Vec<Encoding> {
    if offered.rids.is_empty() {
        return vec![Encoding::new(None, takes_nack)];
    }
    offered.rids.iter().map(|rid| Encoding::new(Some(rid.clone()), takes_nack)).collect()
}

impl Sources {
    /// The sections of a new agreement, and which kind of source each carries. Streams of sections that stay go on.
    pub(super) fn agree(&mut self, agreement: &Agreement, kinds: &[(String, SourceKind)]) {
        let mut before = std::mem::take(&mut self.sources);
        let old_mids: Vec<String> = before.iter().map(|source| source.mid.clone()).collect();
        let wanted = |kind| self.wanted.iter().find(|(known, _)| *known == kind).map(|(_, size)| *size);
        for (mid, section) in agreement.accepted() {
            let Some(offered) = &section.stream else { continue };
            let Some((_, kind)) = kinds.iter().find(|(known, _)| known == mid) else { continue };
            let payloads = section.formats.iter().flat_map(|format| {
                let rtx = format.rtx.map(|rtx| (rtx, Payload::Rtx(format.codec)));
                [Some((format.payload_type, Payload::Media(format.codec))), rtx].into_iter().flatten()
            });
            let takes_nack = section.kind == Kind::Video && section.takes("nack");
            let same = |source: &Source| source.mid == mid && source.kind == *kind && source.offered == *offered;
            let source = match before.iter().position(same) {
                Some(at) => Source { payloads: payloads.collect(), takes_nack, ..before.swap_remove(at) },
                None => Source {
                    mid: mid.to_owned(),
                    kind: *kind,
                    payloads: payloads.collect(),
                    takes_nack,
                    keyframe_requested: None,
                    offered: offered.clone(),
                    encodings: encodings(offered, takes_nack),
                    simulcast: (offered.rids.len() > 1).then(|| Simulcast::new(offered.rids.len(), wanted(*kind))),
                },
            };
            self.sources.push(source);
        }
        self.extensions = agreement.extensions;
        let now_at = |mid: &str| self.sources.iter().position(|source| source.mid == mid);
        let kept = self.bindings.iter().filter_map(|binding| {
            let source = now_at(&old_mids[binding.source])?;
            let encoding = self.sources[source].encodings.get(binding.encoding)?;
            let is_current = binding.is_rtx || encoding.ssrc == Some(binding.ssrc);
            is_current.then_some(Binding { source, ..*binding })
        });
        self.bindings = kept.collect();
        for source in 0..self.sources.len() {
            let OfferedStream { ssrc, rtx_ssrc, .. } = self.sources[source].offered;
            if let Some(ssrc) = rtx_ssrc.filter(|ssrc| self.binding(*ssrc).is_none()) {
                self.push(Binding { ssrc, source, encoding: 0, is_rtx: true });
            }
            let is_new = self.sources[source].encodings[0].ssrc.is_none();
            if let Some(ssrc) = ssrc.filter(|ssrc| is_new && self.binding(*ssrc).is_none()) {
                self.sources[source].encodings[0].ssrc = Some(ssrc);
                self.push(Binding { ssrc, source, encoding: 0, is_rtx: false });
            }
        }
    }

    /// Where a packet with this header belongs; None where no section takes it.
    pub(super) fn route(&mut self, header: &rtp::Header, now: Timestamp) -> Option<Route> {
        let text = |id: Option<u8>| header.get_extension(id?);
        let bound = self.binding(header.ssrc);
        let named = match text(self.extensions.mid) {
            Some(mid) => Some(self.sources.iter().position(|source| source.mid.as_bytes() == &mid[..])?),
            None => None,
        };
        let moved = |binding: &Binding| named.is_some_and(|source| source != binding.source);
        if let Some(binding) = bound.filter(|binding| !moved(binding)) {
            let payload = self.sources[binding.source].payload(header.payload_type)?;
            let is_rtx = matches!(payload, Payload::Rtx(_));
            let (Payload::Media(codec) | Payload::Rtx(codec)) = payload;
            return (is_rtx == binding.is_rtx).then_some(Route {
                source: binding.source,
                encoding: binding.encoding,
                codec,
                is_rtx,
            });
        }
        let source = match named {
            Some(source) => source,
            None => self.only_source(header.payload_type)?,
        };
        let payload = self.sources[source].payload(header.payload_type)?;
        let is_rtx = matches!(payload, Payload::Rtx(_));
        let (Payload::Media(codec) | Payload::Rtx(codec)) = payload;
        let rid = text(if is_rtx { self.extensions.repaired_rid } else { self.extensions.rid });
        let rid = rid.as_deref();
        let mut encodings = self.sources[source].encodings.iter();
        let encoding =
            encodings.position(|encoding| encoding.rid.as_ref().is_none_or(|wanted| Some(wanted.as_bytes()) == rid))?;
        self.bind(Binding { ssrc: header.ssrc, source, encoding, is_rtx }, now)?;
        Some(Route { source, encoding, codec, is_rtx })
    }

    /// The ids of the header extensions of the packets.
    pub(super) fn extensions(&self) -> &ExtensionIds {
        &self.extensions
    }

    /// When the next NACK or keyframe request of a simulcast source is due.
    pub(super) fn feedback_deadline(&self) -> Option<Timestamp> {
        self.sources.iter().filter_map(|source| source.feedback_deadline()).min()
    }

    /// The source of this kind is shown at most at this size; zero while it is not shown.
    pub(super) fn want(&mut self, kind: SourceKind, size: Size, now: Timestamp) {
        self.wanted.retain(|(known, _)| *known != kind);
        self.wanted.push((kind, size));
        for source in self.sources.iter_mut().filter(|source| source.kind == kind) {
            if let Some(simulcast) = &mut source.simulcast {
                simulcast.want(size, now);
            }
        }
    }

    /// All encodings of all sources.
    pub(super) fn encodings(&mut self) -> impl Iterator<Item = &mut Encoding> {
        self.sources.iter_mut().flat_map(|source| &mut source.encodings)
    }

    /// The one source whose payload type this is: RFC 9143 section 9.2, where packets carry no MID. Streams of
    /// simulcast are known by their RID only.
    fn only_source(&self, payload_type: u8) -> Option<usize> {
        let carries = |source: &Source| {
            source.payload(payload_type).is_some() && source.encodings.iter().all(|encoding| encoding.rid.is_none())
        };
        // A section whose SSRC the offer names takes another one only where packets carry its MID.
        let is_open = |source: &Source| source.offered.ssrc.is_none();
        let mut open = (0..self.sources.len()).filter(|at| carries(&self.sources[*at]) && is_open(&self.sources[*at]));
        if let Some(first) = open.next() {
            return open.next().is_none().then_some(first);
        }
        let mut all = (0..self.sources.len()).filter(|at| carries(&self.sources[*at]));
        let first = all.next()?;
        all.next().is_none().then_some(first)
    }

    fn binding(&self, ssrc: u32) -> Option<Binding> {
        self.bindings.iter().find(|binding| binding.ssrc == ssrc).copied()
    }

    fn push(&mut self, binding: Binding) {
        self.bindings.retain(|known| known.ssrc != binding.ssrc);
        if self.bindings.len() == BINDINGS_MAX {
            self.bindings.pop_front();
        }
        self.bindings.push_back(binding);
    }

    /// Binds an SSRC; a media SSRC that an encoding had before is replaced, and its stream begins anew. None for an
    /// SSRC that was itself replaced just now.
    fn bind(&mut self, binding: Binding, now: Timestamp) -> Option<()> {
        let Binding { ssrc, source, encoding, is_rtx } = binding;
        if !is_rtx {
            // An SSRC that comes with another section's MID leaves the section it had.
            for other in self.encodings().filter(|other| other.ssrc == Some(ssrc)) {
                other.ssrc = None;
            }
            let takes_nack = self.sources[source].takes_nack;
            let current = &mut self.sources[source].encodings[encoding];
            if current.replaced.is_some_and(|(known, at)| known == ssrc && now.since(at) < REPLACED) {
                return None;
            }
            if let Some(before) = current.ssrc {
                let rid = current.rid.take();
                *current = Encoding { replaced: Some((before, now)), ..Encoding::new(rid, takes_nack) };
                self.bindings.retain(|known| known.ssrc != before);
                if let Some(simulcast) = &mut self.sources[source].simulcast {
                    simulcast.restarted(encoding);
                }
            }
            self.sources[source].encodings[encoding].ssrc = Some(ssrc);
        }
        self.push(binding);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::description::{Receives, take};
    use super::*;
    use crate::sdp::Offer;

    const CHROMIUM: &str = include_str!("description/chromium.sdp");
    const NOBODY: Receives = Receives { audio: false, video: None };
    const MID: u8 = 4;
    const RID: u8 = 10;
    const REPAIRED: u8 = 11;

    fn sources(text: &str) -> Sources {
        let mut sources = Sources::default();
        agree(&mut sources, text);
        sources
    }

    fn agree(sources: &mut Sources, text: &str) {
        let offer = Offer::parse(text).expect("an offer");
        let agreement = take(&offer, NOBODY).expect("can be answered");
        let kinds = [("0", SourceKind::Microphone), ("1", SourceKind::Camera), ("2", SourceKind::Screen)];
        sources.agree(&agreement, &kinds.map(|(mid, kind)| (mid.to_owned(), kind)));
    }

    fn without_ssrcs(text: &str) -> String {
        text.lines().filter(|line| !line.starts_with("a=ssrc")).map(|line| format!("{line}\n")).collect()
    }

    fn two_videos(text: &str) -> String {
        let camera = &text[text.find("m=video").expect("has one")..];
        format!("{text}{}", camera.replace("a=mid:1", "a=mid:2")).replace("BUNDLE 0 1", "BUNDLE 0 1 2")
    }

    fn header(ssrc: u32, payload_type: u8, carries: &[(u8, &'static str)]) -> rtp::Header {
        let mut header = rtp::Header { version: 2, ssrc, payload_type, ..rtp::Header::default() };
        for (id, text) in carries {
            header.set_extension(*id, Bytes::from_static(text.as_bytes())).expect("fits");
        }
        header
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000 + ms * 1_000)
    }

    /// The mid of the source that has this media SSRC.
    fn mid_of(sources: &Sources, ssrc: u32) -> Option<&str> {
        let has = |source: &&Source| source.encodings.iter().any(|encoding| encoding.ssrc == Some(ssrc));
        sources.sources.iter().find(has).map(|source| &*source.mid)
    }

    type Routed = Option<(String, bool)>;
    type Extensions<'a> = &'a [(u8, &'static str)];

    /// The mid of the section that takes a packet, and whether as a retransmission.
    fn routed(
        sources: &mut Sources,
        ssrc: u32,
        payload_type: u8,
        carries: &[(u8, &'static str)],
    ) -> Option<(String, bool)> {
        let route = sources.route(&header(ssrc, payload_type, carries), at(0))?;
        Some((sources.sources[route.source].mid.clone(), route.is_rtx))
    }

    fn to(mid: &str, is_rtx: bool) -> Option<(String, bool)> {
        Some((mid.to_owned(), is_rtx))
    }

    #[test]
    fn ssrcs_of_the_offer_need_nothing_else() {
        let mut sources = sources(CHROMIUM);
        assert_eq!(routed(&mut sources, 2_481_545_474, 111, &[]), to("0", false));
        assert_eq!(routed(&mut sources, 1_935_713_919, 96, &[]), to("1", false));
        assert_eq!(routed(&mut sources, 4_147_299_643, 97, &[]), to("1", true));
        assert_eq!(routed(&mut sources, 1_935_713_919, 97, &[]), None, "a retransmission has its own SSRC");
        assert_eq!(routed(&mut sources, 2_481_545_474, 96, &[]), None, "a payload type of another section");
    }

    #[test]
    fn the_mid_goes_before_the_payload_type_and_the_rid_names_the_encoding() {
        let text = two_videos(&without_ssrcs(CHROMIUM)) + "a=rid:q send\na=rid:f send\na=simulcast:send q;f\n";
        let mut sources = sources(&text);
        let cases: [(Extensions<'_>, Routed); 7] = [
            (&[(MID, "2"), (RID, "x")], None),
            (&[(MID, "2")], None),
            (&[(MID, "3")], None),
            (&[(MID, "2"), (RID, "f")], to("2", false)),
            (&[(MID, "1")], to("1", false)),
            (&[(MID, "0")], None),
            (&[], to("1", false)),
        ];
        for (ssrc, (carries, expected)) in (1..).zip(cases) {
            assert_eq!(routed(&mut sources, ssrc, 96, carries), expected, "{carries:?}");
        }
        assert_eq!(routed(&mut sources, 4, 96, &[]), to("2", false), "bound by its first packet");
        assert_eq!(routed(&mut sources, 8, 97, &[(MID, "2"), (REPAIRED, "f")]), to("2", true));
        assert_eq!(routed(&mut sources, 9, 97, &[(MID, "2"), (REPAIRED, "x")]), None);
        for (ssrc, payload_type, id, is_rtx) in [(10, 96, RID, false), (11, 97, REPAIRED, true)] {
            let route = sources.route(&header(ssrc, payload_type, &[(MID, "2"), (id, "q")]), at(0)).expect("known");
            assert_eq!((route.source, route.encoding, route.is_rtx), (2, 0, is_rtx));
        }
        assert_eq!(sources.sources[2].encodings.iter().map(|one| one.ssrc).collect::<Vec<_>>(), [Some(10), Some(4)]);
    }

    #[test]
    fn a_payload_type_of_two_sections_names_neither() {
        let mut sources = sources(&two_videos(&without_ssrcs(CHROMIUM)));
        assert_eq!(routed(&mut sources, 7, 96, &[]), None);
        assert_eq!(routed(&mut sources, 7, 111, &[]), to("0", false));
    }

    #[test]
    fn retransmissions_without_an_announced_ssrc_are_known_by_payload_type() {
        let mut sources = sources(&without_ssrcs(CHROMIUM));
        assert_eq!(routed(&mut sources, 7, 96, &[]), to("1", false));
        assert_eq!(routed(&mut sources, 8, 97, &[]), to("1", true));
        assert_eq!(routed(&mut sources, 7, 96, &[]), to("1", false));
    }

    #[test]
    fn a_known_mid_rebinds_its_section_when_the_ssrc_changes() {
        let mut sources = sources(CHROMIUM);
        for (mid, payload_type, old) in [("0", 111, 2_481_545_474), ("1", 96, 1_935_713_919)] {
            assert_eq!(routed(&mut sources, old, payload_type, &[]), to(mid, false));
            for new in [50, 60, 70_u32].map(|ssrc| ssrc + u32::from(payload_type)) {
                assert_eq!(routed(&mut sources, new, payload_type, &[(MID, mid)]), to(mid, false));
                assert_eq!(routed(&mut sources, new, payload_type, &[]), to(mid, false));
                assert_eq!(mid_of(&sources, new), Some(mid));
            }
            assert_eq!(mid_of(&sources, old), None);
        }
        // A packet of the SSRC before, which was reordered, does not take the section back.
        let late = header(60 + 96, 96, &[(MID, "1")]);
        assert_eq!(sources.route(&late, at(500)), None);
        assert!(sources.route(&late, at(1_500)).is_some(), "but a client may return to it later");
    }

    #[test]
    fn an_ssrc_moves_with_the_mid_it_carries() {
        let mut sources = sources(&two_videos(&without_ssrcs(CHROMIUM)));
        assert_eq!(routed(&mut sources, 7, 96, &[(MID, "1")]), to("1", false));
        assert_eq!(routed(&mut sources, 7, 96, &[(MID, "2")]), to("2", false));
        assert_eq!(routed(&mut sources, 7, 96, &[]), to("2", false));
        assert_eq!(sources.sources[1].encodings[0].ssrc, None);
    }

    #[test]
    fn streams_go_on_over_a_new_offer_that_keeps_their_section() {
        let first = without_ssrcs(CHROMIUM);
        let mut sources = sources(&first);
        routed(&mut sources, 7, 96, &[]);
        routed(&mut sources, 8, 97, &[]);
        sources.sources[1].encodings[0].statistics.received(1, 0, 90_000, at(0));
        agree(&mut sources, &two_videos(&first));
        assert_eq!(routed(&mut sources, 7, 96, &[]), to("1", false));
        assert_eq!(routed(&mut sources, 8, 97, &[]), to("1", true));
        assert!(sources.sources[1].encodings[0].statistics.report(7, at(1)).is_some(), "statistics go on");
        agree(&mut sources, &first.replace("m=audio 9", "m=audio 0"));
        assert_eq!((sources.sources.len(), routed(&mut sources, 7, 96, &[])), (1, to("1", false)));
    }

    proptest! {
        /// For any packets, bindings are bounded, and each names a source that exists.
        #[test]
        fn bindings_are_bounded(
            packets in prop::collection::vec((0..200_u32, 0..3_usize, prop::bool::ANY), 0..400),
        ) {
            let mut sources = sources(&two_videos(CHROMIUM));
            for (n, (ssrc, section, is_rtx)) in packets.into_iter().enumerate() {
                let mid = ["0", "1", "2"][section];
                let payload_type = if section == 0 { 111 } else { 96 + u8::from(is_rtx) };
                let route = sources.route(&header(ssrc, payload_type, &[(MID, mid)]), at(n as u64));
                prop_assert!(route.is_none_or(|route| sources.sources[route.source].mid == mid));
                prop_assert!(sources.bindings.len() <= BINDINGS_MAX);
                for binding in &sources.bindings {
                    prop_assert!(sources.sources[binding.source].encodings.len() > binding.encoding);
                }
            }
        }
    }
}
