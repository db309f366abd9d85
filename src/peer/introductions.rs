//! What RTCP tells a peer of whose sound and pictures it gets: names, and goodbyes (RFC 3550 sections 6.5, 6.6 and 7.1).
//!
//! Owns: [`Introductions`], who is heard in what one peer gets and who has left since, and [`Introducer`], an interceptor that
//! puts it into our reports to a peer of `webrtc`. Does not know: rooms, keys. Who is heard comes from the writer, packets for
//! behind a report leave.
//!
//! The crate's reports come without names, and those of receivers from a number of their own for each stream: ours have names,
//! and all come from the number that we send by.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rtc::interceptor::{Interceptor, Packet, StreamInfo, TaggedPacket};
use rtc::rtcp;
use rtc::rtcp::goodbye::Goodbye;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtcp::source_description::{SdesType, SourceDescription, SourceDescriptionChunk, SourceDescriptionItem};
use rtc::sansio::Protocol;
use rtc::shared::error::Error;

use super::outgoing::Ssrcs;
use crate::fanout::{Contributors, Names};

/// Contributors of whom a peer is told at a time; of a crowd those who were heard last. A report with all their names fits
/// into a datagram.
const KNOWN_MAX: usize = 20;
/// Those remembered who have left: the mixer may still send some sound of them.
const LEFT_MAX: usize = 32;
/// Contributors named behind one report, and reports until one is named again: a thin link has few bits for names.
const NAMED_AT_ONCE: usize = 4;
/// See [`NAMED_AT_ONCE`].
const NAMED_EVERY: u32 = 10;

/// Those who are heard in what one peer gets.
#[derive(Debug)]
pub(super) struct Introductions {
    /// What we are called.
    cname: String,
    names: Names,
    /// In the order they were first heard, each with the number of the report that names it next.
    known: VecDeque<(u32, u32)>,
    /// Reports so far.
    reports: u32,
    /// Those who have left, and whether the peer is still to be told.
    left: VecDeque<(u32, bool)>,
}

impl Introductions {
    /// Of a peer to which we have this name.
    pub(super) fn new(cname: String) -> Self {
        Self { cname, names: Names::default(), known: VecDeque::new(), reports: 0, left: VecDeque::new() }
    }

    /// They are in a packet that is sent.
    pub(super) fn heard(&mut self, heard: &Contributors) {
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

    /// A contributor has left; whether the peer is to be told, for it has heard it.
    pub(super) fn left(&mut self, csrc: u32) -> bool {
        let at = self.known.iter().position(|(known, _)| *known == csrc);
        at.map(|at| self.known.remove(at));
        if self.left.len() == LEFT_MAX {
            self.left.pop_front();
        }
        self.left.push_back((csrc, at.is_some()));
        at.is_some()
    }

    /// What follows a report on these streams of ours: our name, and where they are `mixed`, in turn the names of those who are
    /// heard in them, and goodbyes of those who have left since the report before.
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
            gone.extend(self.left.iter().filter(|(_, untold)| *untold).map(|(csrc, _)| *csrc));
            self.left.iter_mut().for_each(|(_, untold)| *untold = false);
        }
        let theirs = gone.iter().chain(&named).map(|csrc| chunk(*csrc, self.names.of(*csrc)));
        let chunks = ours.chain(theirs).collect();
        let mut packets: Vec<Box<dyn rtcp::Packet>> = vec![Box::new(SourceDescription { chunks })];
        if !gone.is_empty() {
            packets.push(Box::new(Goodbye { sources: gone, ..Goodbye::default() }));
        }
        packets
    }

    /// The end of these streams of ours, and so of all who are heard in them (RFC 3550 section 7.1).
    pub(super) fn goodbye(&self, streams: &[u32]) -> Goodbye {
        Goodbye {
            sources: streams.iter().copied().chain(self.known.iter().map(|(csrc, _)| *csrc)).collect(),
            ..Goodbye::default()
        }
    }
}

/// The interceptor; it stands between those that report and the tap.
pub(super) struct Introducer {
    introductions: Arc<Mutex<Introductions>>,
    ssrcs: Ssrcs,
    inward: VecDeque<TaggedPacket>,
    outward: VecDeque<TaggedPacket>,
}

impl Introducer {
    /// `ssrcs` are those of what the peer is sent.
    pub(super) fn new(introductions: Arc<Mutex<Introductions>>, ssrcs: Ssrcs) -> Self {
        Self { introductions, ssrcs, inward: VecDeque::new(), outward: VecDeque::new() }
    }

    /// Puts names behind the report that a compound packet begins with; what is none goes on as it is (RFC 5506).
    fn introduce(&self, packets: &mut Vec<Box<dyn rtcp::Packet>>) {
        let Some(first) = packets.first_mut() else { return };
        let any = first.as_any();
        let (stream, mixed) = if let Some(report) = any.downcast_ref::<SenderReport>() {
            (report.ssrc, report.ssrc == self.ssrcs.audio)
        } else if let Some(report) = any.downcast_ref::<ReceiverReport>() {
            *first = Box::new(ReceiverReport { ssrc: self.ssrcs.audio, ..report.clone() });
            (self.ssrcs.audio, false)
        } else {
            return;
        };
        // A goodbye of ours comes last.
        let behind = self.introductions.lock().behind(&[stream], mixed);
        packets.splice(1..1, behind);
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Introducer {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, message: TaggedPacket) -> Result<(), Error> {
        self.inward.push_back(message);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.inward.pop_front()
    }

    fn handle_write(&mut self, mut message: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtcp(packets) = &mut message.message.packet {
            self.introduce(packets);
        }
        self.outward.push_back(message);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.outward.pop_front()
    }
}

impl Interceptor for Introducer {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}

    fn unbind_local_stream(&mut self, _: &StreamInfo) {}

    fn bind_remote_stream(&mut self, _: &StreamInfo) {}

    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::id::ParticipantId;

    const OURS: [u32; 2] = [1_000, 2_000];

    fn heard(csrcs: &[u32], names: &Names) -> Contributors {
        let heard: Vec<_> = csrcs.iter().map(|csrc| (ParticipantId(*csrc), 30)).collect();
        Contributors::of(&heard, None, names)
    }

    /// Names by number, and who says goodbye.
    fn told(packets: &[Box<dyn rtcp::Packet>]) -> (BTreeMap<u32, String>, Vec<u32>) {
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
    fn all_who_are_heard_have_a_name_of_their_own_that_is_the_same_to_everybody() {
        let room = Names::random();
        let (mut one, mut other) = (Introductions::new("we".into()), Introductions::new("we to another".into()));
        one.heard(&heard(&[3, 7], &room));
        other.heard(&heard(&[7], &room));
        let (names, gone) = told(&one.behind(&OURS, true));
        assert_eq!(names.keys().copied().collect::<Vec<_>>(), [3, 7, OURS[0], OURS[1]]);
        assert_eq!((&*names[&OURS[0]], &*names[&OURS[1]], gone), ("we", "we", Vec::new()));
        assert_ne!(names[&3], names[&7]);
        assert_eq!(told(&other.behind(&OURS, true)).0[&7], names[&7]);
        assert_ne!(Names::random().of(7), names[&7], "another room's p7 is somebody else");
        assert_eq!(told(&one.behind(&OURS[1..], false)).0.len(), 1, "nobody contributes to that one");
    }

    #[test]
    fn who_leaves_says_goodbye_once_and_is_not_heard_again() {
        let room = Names::random();
        let mut introductions = Introductions::new("we".into());
        introductions.heard(&heard(&[3, 7], &room));
        assert!(introductions.left(3) && !introductions.left(9), "9 was never heard");
        let (names, gone) = told(&introductions.behind(&OURS, true));
        assert_eq!((gone, names.contains_key(&3)), (vec![3], true), "a goodbye comes with its name");
        // What the mixer had of it already.
        introductions.heard(&heard(&[3, 7], &room));
        let (names, gone) = told(&introductions.behind(&OURS, true));
        assert_eq!((gone, names.contains_key(&3)), (Vec::new(), false));
        assert_eq!(introductions.goodbye(&OURS).sources, [OURS[0], OURS[1], 7], "all end with us");
    }

    #[test]
    fn a_crowd_fits_into_a_datagram() {
        let room = Names::random();
        let mut introductions = Introductions::new(crate::transport::cname());
        for csrc in 0..100 {
            introductions.heard(&heard(&[4_294_967_000 + csrc], &room));
        }
        for csrc in 80..90 {
            introductions.left(4_294_967_000 + csrc);
        }
        let mut packets: Vec<Box<dyn rtcp::Packet>> =
            OURS.iter().map(|ssrc| Box::new(SenderReport { ssrc: *ssrc, ..SenderReport::default() }) as _).collect();
        packets.extend(introductions.behind(&OURS, true));
        packets.push(Box::new(introductions.goodbye(&OURS)));
        let bytes = rtcp::packet::marshal(&packets).expect("RTCP");
        assert!(bytes.len() <= 1_200, "{} bytes", bytes.len());
        let read = rtcp::packet::unmarshal(&mut bytes.freeze()).expect("RTCP");
        let (names, gone) = told(&read);
        assert_eq!((names.len(), gone.len()), (2 + 10 + NAMED_AT_ONCE, 10 + 2 + 10));
    }

    #[test]
    fn names_come_a_few_at_a_time_and_again_after_a_while() {
        let room = Names::random();
        let mut introductions = Introductions::new("we".into());
        introductions.heard(&heard(&[1, 2, 3, 4, 5, 6], &room));
        let mut named =
            || told(&introductions.behind(&OURS, true)).0.into_keys().filter(|n| *n < 10).collect::<Vec<_>>();
        assert_eq!((named(), named(), named()), (vec![1, 2, 3, 4], vec![5, 6], vec![]));
        let later: Vec<_> = (0..9).map(|_| named()).collect();
        assert_eq!(later.concat(), [1, 2, 3, 4, 5, 6], "{later:?}");
    }

    #[test]
    fn reports_are_introduced_and_come_from_the_number_we_send_by() {
        let ssrcs = Ssrcs { audio: OURS[0], video: OURS[1] };
        let introductions = Arc::new(Mutex::new(Introductions::new("we".into())));
        introductions.lock().heard(&heard(&[3], &Names::random()));
        let introducer = Introducer::new(introductions, ssrcs);
        let introduced = |report: Box<dyn rtcp::Packet>| {
            let mut packets = vec![report];
            introducer.introduce(&mut packets);
            let ssrc = packets[0].as_any().downcast_ref::<ReceiverReport>().map(|report| report.ssrc);
            (packets.len(), told(&packets).0.into_keys().collect::<Vec<_>>(), ssrc)
        };
        let sender = |ssrc| Box::new(SenderReport { ssrc, ..SenderReport::default() });
        assert_eq!(introduced(sender(OURS[0])), (2, vec![3, OURS[0]], None));
        assert_eq!(introduced(sender(OURS[1])), (2, vec![OURS[1]], None));
        let receiver = Box::new(ReceiverReport { ssrc: 77, ..ReceiverReport::default() });
        assert_eq!(introduced(receiver), (2, vec![OURS[0]], Some(OURS[0])));
        let alone = rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication::default();
        assert_eq!(introduced(Box::new(alone)), (1, Vec::new(), None));
    }
}
