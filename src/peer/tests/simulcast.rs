//! A client that sends three encodings of its camera.

use std::time::Duration;

use bytes::Bytes;
use rtc::rtcp::goodbye::Goodbye;
use rtc::rtp;

use super::world::{MID, PARTICIPANT, Scenario, World};
use crate::media::{Size, SourceKind};
use crate::peer::connection::Out;

/// Header extension id of the RID in the offer.
const RID: u8 = 10;
const RIDS: [&str; 3] = ["q", "h", "f"];
const WIDTHS: [u16; 3] = [320, 640, 1_280];
/// SSRC of the first encoding.
const FIRST: u32 = 7_000;
const FRAME: Duration = Duration::from_millis(35);

/// The encodings: sequence number and timestamp of each, and whether it is sent.
struct Camera {
    world: World,
    sequences: [u16; 3],
    timestamp: u32,
    sends: [bool; 3],
    /// Keyframe requests that were answered.
    answered: usize,
    begun: [bool; 3],
}

impl Camera {
    fn new() -> Self {
        let mut world = World::new(Scenario { simulcast: true, ..PARTICIPANT });
        // It sends nothing but these encodings.
        let mut upstream = world.client.upstream.take().expect("it sends");
        world.run(Duration::from_millis(1_500));
        (upstream.ticks, upstream.frames) = (u32::MAX, u32::MAX);
        world.client.upstream = Some(upstream);
        Self { world, sequences: [100, 60_000, 9], timestamp: 0, sends: [true; 3], answered: 0, begun: [false; 3] }
    }

    /// Sends frames of two packets for so long.
    fn run(&mut self, duration: Duration) {
        let end = self.world.now + duration;
        while self.world.now < end {
            self.timestamp = self.timestamp.wrapping_add(3_150);
            let requests = &self.world.client.upstream.as_ref().expect("it sends").keyframe_requests;
            let requested: Vec<u32> = requests[self.answered..].to_vec();
            self.answered = requests.len();
            let mut packets = Vec::new();
            for at in 0..3 {
                let keyframe = requested.contains(&(FIRST + at as u32)) || !self.begun[at];
                if self.sends[at] {
                    self.begun[at] = true;
                    packets.extend([true, false].map(|first| self.packet(at, first, keyframe)));
                }
            }
            let mut out = Out::new();
            self.world.client.send(packets, &mut out);
            let address = self.world.client.address;
            self.world.post(true, address, out);
            self.world.run(FRAME);
        }
    }

    fn packet(&mut self, at: usize, first: bool, keyframe: bool) -> rtp::Packet {
        let mut header = rtp::Header {
            version: 2,
            marker: !first,
            ssrc: FIRST + at as u32,
            payload_type: 96,
            sequence_number: self.sequences[at],
            timestamp: self.timestamp + at as u32 * 1_000_000,
            ..rtp::Header::default()
        };
        self.sequences[at] = self.sequences[at].wrapping_add(1);
        header.set_extension(MID, Bytes::from_static(b"1")).expect("fits");
        header.set_extension(RID, Bytes::from_static(RIDS[at].as_bytes())).expect("fits");
        let [low, high] = WIDTHS[at].to_le_bytes();
        let frame = if keyframe { 0x10 } else { 0x11 };
        let payload = if first {
            vec![0x10, frame, 0, 0, 0x9d, 0x01, 0x2a, low, high, low, high, at as u8]
        } else {
            vec![0x00, 0, at as u8]
        };
        rtp::Packet { header, payload: Bytes::from(payload) }
    }

    fn want(&mut self, width: u32) {
        // The pictures of this test are square.
        self.world.server.want(SourceKind::Camera, Size::new(width, width), self.world.now);
    }

    /// The encodings of the packets that were passed on, each run once, and the gaps between them in ms.
    fn passed(&self) -> (Vec<u8>, u64) {
        let packets = self.world.sink.packets.lock();
        let camera: Vec<_> = packets.iter().filter(|(kind, ..)| *kind == SourceKind::Camera).collect();
        let numbers = camera.windows(2).map(|two| two[1].2.sequence.wrapping_sub(two[0].2.sequence));
        assert!(numbers.into_iter().all(|step| step == 1), "the one stream has no gap");
        let mut encodings: Vec<u8> =
            camera.iter().map(|(.., packet)| *packet.payload.last().expect("not empty")).collect();
        encodings.dedup();
        let gaps = camera.windows(2).map(|two| two[1].2.arrival.since(two[0].2.arrival).as_millis() as u64);
        (encodings, gaps.max().unwrap_or_default())
    }

    fn requests(&self) -> Vec<u32> {
        self.world.client.upstream.as_ref().expect("it sends").keyframe_requests.clone()
    }
}

#[test]
fn the_encoding_nearest_to_the_tile_is_passed_on_and_others_are_counted() {
    let mut camera = Camera::new();
    camera.want(427);
    camera.run(Duration::from_secs(2));
    let (encodings, _) = camera.passed();
    assert_eq!(encodings, [0], "the smallest came first and is the nearest");
    assert_eq!(*camera.world.sink.encodings.lock(), ["q"]);
    assert!(*camera.world.sink.unselected.lock() > 150, "{}", camera.world.sink.unselected.lock());
    assert_eq!(camera.requests(), [0_u32; 0]);
    camera.want(700);
    camera.run(Duration::from_secs(2));
    assert_eq!(camera.requests(), [FIRST + 1], "a keyframe of the next encoding is requested");
    let (encodings, gap) = camera.passed();
    assert_eq!((&encodings[..], gap <= 75), (&[0, 1][..], true), "longest gap: {gap} ms");
    assert_eq!(*camera.world.sink.encodings.lock(), ["q", "h"]);
    // The mixer's own requests go to the encoding that is received.
    let moment = camera.world.moment();
    let mut out = Out::new();
    camera.world.server.request_keyframe("1", moment, &mut out);
    camera.world.post(false, super::world::at(super::world::SERVER), out);
    camera.run(Duration::from_millis(500));
    assert_eq!(camera.requests(), [FIRST + 1, FIRST + 1]);
}

#[test]
fn an_encoding_that_is_sent_no_more_is_replaced_soon() {
    let mut camera = Camera::new();
    camera.want(320);
    camera.run(Duration::from_secs(1));
    camera.sends[0] = false;
    camera.run(Duration::from_secs(1));
    let (encodings, gap) = camera.passed();
    assert_eq!((&encodings[..], gap <= 600), (&[0, 1][..], true), "longest gap: {gap} ms");
}

#[test]
fn only_the_encoding_that_is_received_is_repaired() {
    let mut camera = Camera::new();
    camera.want(1_280);
    camera.run(Duration::from_secs(1));
    assert_eq!(*camera.world.sink.encodings.lock(), ["q", "h", "f"], "as they arrive");
    // NACKs of an encoding that is not received would fail this test: the client knows only its own camera.
    camera.sequences[0] = camera.sequences[0].wrapping_add(3);
    camera.sequences[1] = camera.sequences[1].wrapping_add(3);
    camera.run(Duration::from_secs(1));
    assert_eq!(camera.passed().0, [0, 1, 2]);
}

#[test]
fn a_lower_limit_waits_until_a_smaller_encoding_can_be_selected() {
    let mut camera = Camera::new();
    let limits = |camera: &Camera| camera.world.client.upstream.as_ref().expect("it sends").limits.clone();
    camera.want(1_280);
    camera.world.server.limit_uplink(Some(1_500_000), camera.world.now);
    camera.run(Duration::from_secs(4));
    camera.want(320);
    camera.world.server.limit_uplink(Some(120_000), camera.world.now);
    camera.run(Duration::from_secs(3));
    assert!(limits(&camera).iter().all(|limit| *limit > 1_400_000.0), "{:?}", limits(&camera));
    assert_eq!(*camera.world.sink.encodings.lock(), ["q", "h", "f", "q"]);
    camera.run(Duration::from_millis(1_500));
    assert!(limits(&camera).last().is_some_and(|limit| *limit < 130_000.0), "{:?}", limits(&camera));
    // A higher limit does not wait.
    camera.world.server.limit_uplink(Some(1_500_000), camera.world.now);
    camera.run(Duration::from_millis(200));
    assert!(limits(&camera).last().is_some_and(|limit| *limit > 1_400_000.0), "{:?}", limits(&camera));
}

#[test]
fn an_encoding_that_says_goodbye_is_replaced_at_once_and_the_last_one_ends_the_source() {
    let mut camera = Camera::new();
    camera.want(320);
    camera.run(Duration::from_secs(1));
    let goodbye = |camera: &mut Camera, at: usize| {
        camera.sends[at] = false;
        let sources = vec![FIRST + at as u32];
        camera.world.say(&[Box::new(Goodbye { sources, reason: Bytes::new() })]);
        camera.run(Duration::from_millis(500));
    };
    goodbye(&mut camera, 2);
    assert_eq!(*camera.world.sink.encodings.lock(), ["q"]);
    goodbye(&mut camera, 0);
    assert_eq!(*camera.world.sink.encodings.lock(), ["q", "h"]);
    let (_, gap) = camera.passed();
    assert!(gap < 150, "longest gap: {gap} ms");
    assert!(camera.world.sink.ended.lock().is_empty(), "the source goes on");
    goodbye(&mut camera, 1);
    assert_eq!(*camera.world.sink.ended.lock(), [SourceKind::Camera]);
}
