//! Names and ends of sources in RTCP: SDES CNAME and BYE (RFC 3550 sections 6.5, 6.6 and 7.1).
//!
//! Owns: [`SourceDescriptions`], which contributing sources one client has received and which have left since. Does not
//! know: rooms, keys. Contributing sources come from the packets that are sent; the packets behind a report leave.

use std::collections::VecDeque;

use rtc::rtcp;
use rtc::rtcp::goodbye::Goodbye;
use rtc::rtcp::source_description::{SdesType, SourceDescription, SourceDescriptionChunk, SourceDescriptionItem};

use crate::fanout::{Contributors, Names};

/// Contributing sources remembered, the latest of a larger number. A report with all their names fits into a datagram.
const KNOWN_MAX: usize = 20;
/// Sources remembered that have left: the mixer may still send audio of them.
const LEFT_MAX: usize = 32;
/// Contributing sources named behind one report, and reports until one is named again: SDES takes bits of a thin link.
const NAMED_AT_ONCE: usize = 4;
/// See [`NAMED_AT_ONCE`].
const NAMED_EVERY: u32 = 10;

/// The sources of what one client is sent.
#[derive(Debug)]
pub(super) struct SourceDescriptions {
    cname: String,
    names: Names,
    /// CSRCs in the order of their first packet, each with the number of the report that names it next.
    known: VecDeque<(u32, u32)>,
    /// Reports so far.
    reports: u32,
    /// CSRCs that have left, and whether the BYE is still to be sent.
    left: VecDeque<(u32, bool)>,
}

impl SourceDescriptions {
    /// Of a session in which we have this CNAME.
    pub(super) fn new(cname: String) -> Self {
        Self { cname, names: Names::default(), known: VecDeque::new(), reports: 0, left: VecDeque::new() }
    }

    /// A packet with these contributing sources is sent.
    pub(super) fn sent(&mut self, heard: &Contributors) {
        for csrc in heard.csrcs() {
            if self.known.iter().any(|(known, _)| *known == csrc) || self.left.iter().any(|(left, _)| *left == csrc) {
                continue;
            }
            if self.known.len() == KNOWN_MAX {
                self.known.pop_front();
            }
            self.known.push_back((csrc, self.reports));
            self.names = heard.names().clone();
        }
    }

    /// A contributing source has left; whether a BYE is due, because the client has received it.
    pub(super) fn left(&mut self, csrc: u32) -> bool {
        let at = self.known.iter().position(|(known, _)| *known == csrc);
        at.map(|at| self.known.remove(at));
        if self.left.len() == LEFT_MAX {
            self.left.pop_front();
        }
        self.left.push_back((csrc, at.is_some()));
        at.is_some()
    }

    /// What follows a report on these streams of ours: our CNAME, and with `mixed` audio among them, by turns the
    /// CNAMEs of its contributing sources, and BYE of those that have left since the report before.
    pub(super) fn behind(&mut self, streams: &[u32], mixed: bool) -> Vec<Box<dyn rtcp::Packet>> {
        let chunk = |source: u32, name: String| SourceDescriptionChunk {
            source,
            items: vec![SourceDescriptionItem { sdes_type: SdesType::SdesCname, text: name.into() }],
        };
        let ours = streams.iter().map(|ssrc| chunk(*ssrc, self.cname.clone()));
        let (mut gone, mut named) = (Vec::new(), Vec::new());
        if mixed {
            let now = self.reports;
            let due = self.known.iter_mut().filter(|(_, next)| *next <= now).take(NAMED_AT_ONCE);
            named.extend(due.map(|(csrc, next)| {
                *next = now + NAMED_EVERY;
                *csrc
            }));
            self.reports += 1;
            gone.extend(self.left.iter().filter(|(_, unsent)| *unsent).map(|(csrc, _)| *csrc));
            self.left.iter_mut().for_each(|(_, unsent)| *unsent = false);
        }
        let theirs = gone.iter().chain(&named).map(|csrc| chunk(*csrc, self.names.of(*csrc)));
        let chunks = ours.chain(theirs).collect();
        let mut packets: Vec<Box<dyn rtcp::Packet>> = vec![Box::new(SourceDescription { chunks })];
        if !gone.is_empty() {
            packets.push(Box::new(Goodbye { sources: gone, ..Goodbye::default() }));
        }
        packets
    }

    /// BYE of these streams of ours, and so of their contributing sources (RFC 3550 section 7.1).
    pub(super) fn bye(&self, streams: &[u32]) -> Goodbye {
        Goodbye {
            sources: streams.iter().copied().chain(self.known.iter().map(|(csrc, _)| *csrc)).collect(),
            ..Goodbye::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rtc::rtcp::sender_report::SenderReport;

    use super::*;
    use crate::id::ParticipantId;

    const OURS: [u32; 2] = [1_000, 2_000];

    fn heard(csrcs: &[u32], names: &Names) -> Contributors {
        let heard: Vec<_> = csrcs.iter().map(|csrc| (ParticipantId(*csrc), 30)).collect();
        Contributors::of(&heard, None, names)
    }

    /// CNAMEs by source, and the sources of BYE.
    fn contents(packets: &[Box<dyn rtcp::Packet>]) -> (BTreeMap<u32, String>, Vec<u32>) {
        let (mut names, mut gone) = (BTreeMap::new(), Vec::new());
        for packet in packets {
            if let Some(description) = packet.as_any().downcast_ref::<SourceDescription>() {
                for chunk in &description.chunks {
                    assert_eq!((chunk.items.len(), chunk.items[0].sdes_type), (1, SdesType::SdesCname));
                    names.insert(chunk.source, String::from_utf8_lossy(&chunk.items[0].text).into_owned());
                }
            }
            let goodbyes = packet.as_any().downcast_ref::<Goodbye>();
            gone.extend(goodbyes.into_iter().flat_map(|goodbye| goodbye.sources.clone()));
        }
        (names, gone)
    }

    #[test]
    fn contributing_sources_have_one_cname_for_all_receivers() {
        let room = Names::random();
        let (mut one, mut other) =
            (SourceDescriptions::new("we".into()), SourceDescriptions::new("we to another".into()));
        one.sent(&heard(&[3, 7], &room));
        other.sent(&heard(&[7], &room));
        let (names, gone) = contents(&one.behind(&OURS, true));
        assert_eq!(names.keys().copied().collect::<Vec<_>>(), [3, 7, OURS[0], OURS[1]]);
        assert_eq!((&*names[&OURS[0]], &*names[&OURS[1]], gone), ("we", "we", Vec::new()));
        assert_ne!(names[&3], names[&7]);
        assert_eq!(contents(&other.behind(&OURS, true)).0[&7], names[&7]);
        assert_ne!(Names::random().of(7), names[&7], "another room's p7 is somebody else");
        assert_eq!(contents(&one.behind(&OURS[1..], false)).0.len(), 1, "nobody contributes to that one");
    }

    #[test]
    fn bye_of_a_source_is_sent_once_and_the_source_is_not_named_again() {
        let room = Names::random();
        let mut descriptions = SourceDescriptions::new("we".into());
        descriptions.sent(&heard(&[3, 7], &room));
        assert!(descriptions.left(3) && !descriptions.left(9), "9 was never heard");
        let (names, gone) = contents(&descriptions.behind(&OURS, true));
        assert_eq!((gone, names.contains_key(&3)), (vec![3], true), "a goodbye comes with its name");
        // What the mixer had of it already.
        descriptions.sent(&heard(&[3, 7], &room));
        let (names, gone) = contents(&descriptions.behind(&OURS, true));
        assert_eq!((gone, names.contains_key(&3)), (Vec::new(), false));
        assert_eq!(descriptions.bye(&OURS).sources, [OURS[0], OURS[1], 7], "all end with us");
    }

    #[test]
    fn reports_with_many_sources_fit_into_a_datagram() {
        let room = Names::random();
        let mut descriptions = SourceDescriptions::new(crate::transport::cname());
        for csrc in 0..100 {
            descriptions.sent(&heard(&[4_294_967_000 + csrc], &room));
        }
        for csrc in 80..90 {
            descriptions.left(4_294_967_000 + csrc);
        }
        let mut packets: Vec<Box<dyn rtcp::Packet>> =
            OURS.iter().map(|ssrc| Box::new(SenderReport { ssrc: *ssrc, ..SenderReport::default() }) as _).collect();
        packets.extend(descriptions.behind(&OURS, true));
        packets.push(Box::new(descriptions.bye(&OURS)));
        let bytes = rtcp::packet::marshal(&packets).expect("RTCP");
        assert!(bytes.len() <= 1_200, "{} bytes", bytes.len());
        let read = rtcp::packet::unmarshal(&mut bytes.freeze()).expect("RTCP");
        let (names, gone) = contents(&read);
        assert_eq!((names.len(), gone.len()), (2 + 10 + NAMED_AT_ONCE, 10 + 2 + 10));
    }

    #[test]
    fn cnames_are_sent_a_few_at_a_time_and_repeated() {
        let room = Names::random();
        let mut descriptions = SourceDescriptions::new("we".into());
        descriptions.sent(&heard(&[1, 2, 3, 4, 5, 6], &room));
        let mut named =
            || contents(&descriptions.behind(&OURS, true)).0.into_keys().filter(|n| *n < 10).collect::<Vec<_>>();
        assert_eq!((named(), named(), named()), (vec![1, 2, 3, 4], vec![5, 6], vec![]));
        let later: Vec<_> = (0..9).map(|_| named()).collect();
        assert_eq!(later.concat(), [1, 2, 3, 4, 5, 6], "{later:?}");
    }
}
