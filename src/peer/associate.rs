//! Which section a stream belongs to whose SSRC no offer named (RFC 9143 section 9.2).
//!
//! Owns: [`Associator`], an interceptor next to the wire. It knows such a stream by the MID its packets say, and, of a
//! simulcast offer, by their RID; else by their payload type. It tells the peer's task, and keeps the stream's packets
//! until the connection knows the SSRC too: the first ones are a keyframe. Does not know: descriptions.
//!
//! Packets of any other SSRC go on unchanged, but for our own that come back: whoever mirrors us would fill the mix with itself
//! (RFC 3550 section 8.2). They are authentic here: only the peer itself can make us learn.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use arc_swap::ArcSwap;
use rtc::interceptor::{Interceptor, Packet, StreamInfo, TaggedPacket};
use rtc::rtp;
use rtc::sansio::Protocol;
use rtc::shared::error::Error;
use tokio::sync::mpsc;

use super::description::{Learned, Taken, Unannounced};
use super::outgoing::Ssrcs;
use super::{Counters, engine};

/// Packets kept until their stream is known: as many as a track's queue holds.
const HELD_MAX: usize = 256;

/// The streams that the offer did not name, and how packets say which they are of; replaced whole.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    streams: Vec<Unannounced>,
    mid: Option<u8>,
    rid: Option<u8>,
}

impl Wanted {
    pub(super) fn new(taken: &Taken) -> Self {
        Self {
            streams: taken.unannounced.clone(),
            mid: taken.extension(engine::MID),
            rid: taken.extension(engine::RID),
        }
    }

    /// The stream a packet belongs to.
    fn stream(&self, header: &rtp::Header) -> Option<&Unannounced> {
        let said = |id: Option<u8>| header.get_extension(id?);
        let fits = |stream: &&Unannounced| stream.payload_types.contains(&header.payload_type);
        if let Some(mid) = said(self.mid) {
            let rid = said(self.rid);
            let named = |stream: &&Unannounced| {
                let layer = stream.rid.as_ref().is_none_or(|wanted| rid.as_deref() == Some(wanted.as_bytes()));
                stream.mid.as_bytes() == mid && layer
            };
            return self.streams.iter().find(|stream| named(stream) && fits(stream));
        }
        let mut possible = self.streams.iter().filter(|stream| stream.rid.is_none() && fits(stream));
        let first = possible.next()?;
        possible.next().is_none().then_some(first)
    }
}

/// The interceptor.
pub(super) struct Associator {
    wanted: Arc<ArcSwap<Wanted>>,
    learned: mpsc::Sender<Learned>,
    counters: Arc<Counters>,
    /// Of what we send.
    ours: Ssrcs,
    /// What was told and not taken up yet.
    told: Vec<u32>,
    /// SSRCs the connection knows.
    known: Vec<u32>,
    held: VecDeque<TaggedPacket>,
    inward: VecDeque<TaggedPacket>,
    outward: VecDeque<TaggedPacket>,
}

impl Associator {
    /// Looks for the `wanted` streams; `learned` gets each one once. A full queue is tried again with the next packet.
    pub(super) fn new(
        wanted: Arc<ArcSwap<Wanted>>,
        learned: mpsc::Sender<Learned>,
        counters: Arc<Counters>,
        ours: Ssrcs,
    ) -> Self {
        Self {
            wanted,
            learned,
            counters,
            ours,
            told: Vec::new(),
            known: Vec::new(),
            held: VecDeque::new(),
            inward: VecDeque::new(),
            outward: VecDeque::new(),
        }
    }

    /// Whether the packet is one to keep until its stream is known.
    fn is_early(&mut self, header: &rtp::Header) -> bool {
        if self.known.contains(&header.ssrc) {
            return false;
        }
        let wanted = self.wanted.load();
        let Some(Unannounced { mid, rid, .. }) = wanted.stream(header) else { return false };
        if !self.told.contains(&header.ssrc) {
            let learned = Learned { mid: mid.clone(), rid: rid.clone(), ssrc: header.ssrc };
            if self.learned.try_send(learned).is_ok() {
                self.told.push(header.ssrc);
            }
        }
        true
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Associator {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, message: TaggedPacket) -> Result<(), Error> {
        match &message.message.packet {
            Packet::Rtp(packet) if self.ours.has(packet.header.ssrc) => {
                self.counters.strange_in.fetch_add(1, Ordering::Relaxed);
            }
            Packet::Rtp(packet) if self.is_early(&packet.header) => {
                if self.held.len() < HELD_MAX {
                    self.held.push_back(message);
                } else {
                    self.counters.strange_in.fetch_add(1, Ordering::Relaxed);
                }
            }
            _ => self.inward.push_back(message),
        }
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.inward.pop_front()
    }

    fn handle_write(&mut self, message: TaggedPacket) -> Result<(), Error> {
        self.outward.push_back(message);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.outward.pop_front()
    }
}

impl Interceptor for Associator {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}

    fn unbind_local_stream(&mut self, _: &StreamInfo) {}

    /// Called just before the packet that made the connection know the stream: what was kept comes ahead of it.
    fn bind_remote_stream(&mut self, info: &StreamInfo) {
        if !self.known.contains(&info.ssrc) {
            self.known.push(info.ssrc);
        }
        self.told.retain(|ssrc| *ssrc != info.ssrc);
        let (now_known, held) = std::mem::take(&mut self.held).into_iter().partition(
            |message| matches!(&message.message.packet, Packet::Rtp(packet) if packet.header.ssrc == info.ssrc),
        );
        self.held = held;
        let now_known: VecDeque<_> = now_known;
        self.inward.extend(now_known);
    }

    fn unbind_remote_stream(&mut self, info: &StreamInfo) {
        self.known.retain(|ssrc| *ssrc != info.ssrc);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rtc::shared::TransportContext;

    use super::*;

    const MID: u8 = 4;
    const RID: u8 = 10;

    fn stream(mid: &str, rid: Option<&str>, payload_types: &[u8]) -> Unannounced {
        Unannounced { mid: mid.into(), rid: rid.map(str::to_owned), payload_types: payload_types.to_vec() }
    }

    fn associator(streams: Vec<Unannounced>) -> (Associator, mpsc::Receiver<Learned>) {
        let wanted = Wanted { streams, mid: Some(MID), rid: Some(RID) };
        let (sender, learned) = mpsc::channel(4);
        let ours = Ssrcs { audio: 1_000, video: 2_000 };
        (Associator::new(Arc::new(ArcSwap::from_pointee(wanted)), sender, Arc::default(), ours), learned)
    }

    fn packet(ssrc: u32, payload_type: u8, sequence_number: u16, says: &[(u8, &'static str)]) -> TaggedPacket {
        let mut header = rtp::Header { version: 2, ssrc, payload_type, sequence_number, ..rtp::Header::default() };
        for (id, text) in says {
            header.set_extension(*id, Bytes::from_static(text.as_bytes())).expect("fits");
        }
        let packet = Packet::Rtp(rtp::Packet { header, payload: Bytes::new() });
        TaggedPacket {
            now: tokio::time::Instant::now().into_std(),
            transport: TransportContext::default(),
            message: packet.into(),
        }
    }

    fn passed(associator: &mut Associator) -> Vec<(u32, u16)> {
        std::iter::from_fn(|| associator.poll_read())
            .filter_map(|message| match message.message.packet {
                Packet::Rtp(packet) => Some((packet.header.ssrc, packet.header.sequence_number)),
                _ => None,
            })
            .collect()
    }

    fn bound(associator: &mut Associator, ssrc: u32) {
        associator.bind_remote_stream(&StreamInfo { ssrc, ..StreamInfo::default() });
    }

    #[test]
    fn packets_of_a_stream_are_kept_until_it_is_known_and_come_in_order() {
        let (mut associator, mut learned) = associator(vec![stream("0", None, &[111]), stream("1", None, &[96])]);
        for sequence in 1..=3 {
            associator.handle_read(packet(7, 96, sequence, &[])).expect("takes it");
            associator.handle_read(packet(9, 100, sequence, &[])).expect("takes it");
        }
        assert_eq!(passed(&mut associator), [(9, 1), (9, 2), (9, 3)], "nobody waits for the other");
        let found = Learned { mid: "1".into(), rid: None, ssrc: 7 };
        assert_eq!((learned.try_recv().ok(), learned.try_recv().ok()), (Some(found), None), "told once");
        bound(&mut associator, 7);
        associator.handle_read(packet(7, 96, 4, &[])).expect("takes it");
        assert_eq!(passed(&mut associator), [(7, 1), (7, 2), (7, 3), (7, 4)]);
    }

    #[test]
    fn the_mid_goes_before_the_payload_type_and_names_the_layer_with_the_rid() {
        let streams = vec![stream("1", None, &[96]), stream("2", Some("f"), &[96])];
        let (mut associator, mut learned) = associator(streams);
        let says: [&[(u8, &str)]; 6] =
            [&[(MID, "2"), (RID, "q")], &[(MID, "2")], &[(MID, "3")], &[(MID, "2"), (RID, "f")], &[(MID, "1")], &[]];
        for (ssrc, says) in (1..).zip(says) {
            associator.handle_read(packet(ssrc, 96, 1, says)).expect("takes it");
        }
        associator.handle_read(packet(9, 97, 1, &[(MID, "1")])).expect("takes it");
        let found: Vec<_> = std::iter::from_fn(|| learned.try_recv().ok()).map(|l| (l.mid, l.ssrc)).collect();
        assert_eq!(found, [("2".to_owned(), 4), ("1".to_owned(), 5), ("1".to_owned(), 6)]);
        assert_eq!(passed(&mut associator), [(1, 1), (2, 1), (3, 1), (9, 1)]);
    }

    #[test]
    fn a_payload_type_of_two_sections_says_nothing() {
        let (mut associator, mut learned) = associator(vec![stream("1", None, &[96]), stream("2", None, &[96])]);
        associator.handle_read(packet(7, 96, 1, &[])).expect("takes it");
        assert_eq!((learned.try_recv().ok(), passed(&mut associator).len()), (None, 1));
    }

    #[test]
    fn what_we_sent_does_not_come_in_again() {
        let (mut associator, mut learned) = associator(vec![stream("0", None, &[111]), stream("1", None, &[96])]);
        for ssrc in [1_000, 2_000, 2_001] {
            associator.handle_read(packet(ssrc, 96, 1, &[(MID, "1")])).expect("takes it");
        }
        assert_eq!((learned.try_recv().ok(), passed(&mut associator)), (None, Vec::new()));
        assert_eq!(associator.counters.strange_in.load(Ordering::Relaxed), 3);
        for _ in 0..100 {
            assert!(!Ssrcs::apart_from("a=ssrc:7 cname:x\r\na=ssrc:9 cname:x\r\n").has(7));
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_first_stay() {
        let (mut associator, _learned) = associator(vec![stream("1", None, &[96])]);
        for sequence in 0..1000 {
            associator.handle_read(packet(7, 96, sequence, &[])).expect("takes it");
        }
        assert_eq!(associator.counters.strange_in.load(Ordering::Relaxed), 1000 - HELD_MAX as u64);
        bound(&mut associator, 7);
        let passed = passed(&mut associator);
        assert_eq!((passed.len(), passed[0], passed[255]), (HELD_MAX, (7, 0), (7, 255)));
    }
}
