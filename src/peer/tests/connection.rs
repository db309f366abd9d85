//! Tests of a connection with a client in virtual time.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use rtc::rtcp::goodbye::Goodbye;
use rtc::rtcp::payload_feedbacks::full_intra_request::{FirEntry, FullIntraRequest};
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtcp::source_description::SourceDescription;

use super::world::{CAMERA, CLIENT, MICROPHONE, PARTICIPANT, SERVER, Scenario, VIEWER, World, at, identity};
use crate::id::ParticipantId;
use crate::media::{Codec, SourceKind};
use crate::peer::PeerEvent;
use crate::peer::connection::Out;
use crate::sdp::Fragment;
use crate::tier::Limit;
use crate::transport::ice::Credentials;
use crate::transport::secure::Secure;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_viewer_joins_in_either_dtls_role_and_receives_everything() {
    for setup in ["actpass", "active", "passive"] {
        let mut world = World::new(Scenario { setup, ..VIEWER });
        world.run(4 * SECOND);
        assert!(world.client.connected && !world.client.failed, "a=setup:{setup}");
        assert_eq!(world.count(PeerEvent::Connected), 1);
        let client = &world.client;
        assert!(client.video.len() > 100 && client.audio.len() > 130, "{} {}", client.video.len(), client.audio.len());
        assert_eq!((client.missing(), client.repaired), (Vec::new(), 0));
        assert!(client.video.iter().all(|packet| packet.payload.len() == 500));
        let [audio, video, ..] = client.reports.as_slice() else { panic!("{:?}", client.reports) };
        assert_eq!((audio.ssrc, video.ssrc), (client.audio[0].header.ssrc, client.video[0].header.ssrc));
        assert_eq!(audio.ntp_time, video.ntp_time);
        assert!(client.audio.iter().all(|packet| packet.header.csrc == [3]), "who is heard is named");
        assert!(client.described, "a report without the name that ties sound and pictures together");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Lost packets, those of the handshake included, are sent again, and no others.
    #[test]
    fn lost_packets_are_retransmitted(seed in any::<u64>(), loss in 0.005..0.08_f64) {
        let mut world = World::new(Scenario { seed, ..VIEWER });
        world.loss = loss;
        world.run(12 * SECOND);
        prop_assert!(world.client.connected);
        world.loss = 0.0;
        world.run(SECOND);
        prop_assert_eq!(world.client.missing(), Vec::<u16>::new());
        let packets = world.client.video.len();
        let bound = (packets as f64 * (3.0 * loss + 0.02)) as usize + 5;
        prop_assert!(world.client.repaired <= bound, "{} of {packets} were repeated at {loss}", world.client.repaired);
        prop_assert_eq!(world.count(PeerEvent::Connected), 1);
    }
}

#[test]
fn an_ice_restart_moves_the_media() {
    let mut world = World::new(VIEWER);
    world.run(2 * SECOND);
    let local = Credentials::random();
    let text = format!(
        "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n",
        local.ufrag, local.password
    );
    let fragment = Fragment::parse(&text).expect("a fragment");
    let (answer, _) = world.negotiation.restart(&fragment).expect("new credentials");
    let (local_ice, remote_ice) = (world.negotiation.local().clone(), world.negotiation.remote().clone());
    world.server.restart_ice(local_ice, remote_ice, world.now);
    world.run(SECOND);
    let before = world.client.video.len();
    assert!(before > 150, "media goes on while ICE begins anew: {before}");
    assert_eq!(world.count(PeerEvent::Connected), 1);
    let said = |prefix: &str| answer.lines().find_map(|line| line.strip_prefix(prefix)).expect("it says").to_owned();
    let remote = Credentials { ufrag: said("a=ice-ufrag:"), password: said("a=ice-pwd:") };
    world.client.agent.restart(local.clone(), remote, world.now);
    world.client.agent.add_candidate(at(SERVER), world.now);
    (world.client.local, world.client.address) = (local, at("203.0.113.9:7000"));
    world.run(SECOND);
    assert_eq!(world.count(PeerEvent::Connected), 2);
    assert!(world.client.video.len() > before + 40, "{} then {}", before, world.client.video.len());
    assert!(matches!(world.negotiation.restart(&fragment), Err(crate::peer::PeerError::Fragment(_))));
}

#[test]
fn closing_works_in_both_directions() {
    let mut world = World::new(VIEWER);
    world.run(SECOND);
    let moment = world.moment();
    world.client.secure.as_mut().expect("connected").close(moment.instant);
    world.run(SECOND / 5);
    assert_eq!((world.events.last(), world.server.is_over()), (Some(&PeerEvent::Goodbye), true));

    let mut world = World::new(VIEWER);
    world.run(SECOND);
    let (moment, mut out) = (world.moment(), Out::new());
    world.server.close(moment, &mut out);
    world.post(false, at(SERVER), out);
    world.run(SECOND / 5);
    assert!(world.client.closed && world.server.is_over());
    let client = &world.client;
    assert_eq!(client.over, [client.audio[0].header.ssrc, client.video[0].header.ssrc, 3], "RTCP says so too");
    assert_eq!(world.count(PeerEvent::Goodbye) + world.count(PeerEvent::Lost), 0, "it was us");
}

#[test]
fn a_silent_client_is_sent_nothing_after_consent_expires() {
    let mut world = World::new(VIEWER);
    world.run(5 * SECOND);
    world.client_runs = false;
    world.run(8 * SECOND);
    assert_eq!(world.count(PeerEvent::Disconnected), 1, "soon enough to ask for an ICE restart");
    world.run(5 * SECOND);
    assert_eq!(world.count(PeerEvent::Disconnected), 1);
    world.client_runs = true;
    world.run(5 * SECOND);
    assert_eq!(world.count(PeerEvent::Connected), 2, "it has come back");
    world.client_runs = false;
    world.run(30 * SECOND);
    assert_eq!((world.events.last(), world.server.is_over()), (Some(&PeerEvent::Lost), true));
    let sent = world.sent;
    world.run(5 * SECOND);
    assert_eq!(world.sent, sent);
}

#[test]
fn a_client_that_never_connects_is_given_up() {
    for scenario in [VIEWER, PARTICIPANT] {
        let mut world = World::new(scenario);
        world.client_runs = false;
        world.run(14 * SECOND);
        assert_eq!((world.events.len(), world.sent), (0, 0), "no address is known");
        world.run(2 * SECOND);
        assert_eq!(world.events, [PeerEvent::Lost]);
    }
}

#[test]
fn a_wrong_certificate_is_refused_in_either_role() {
    for setup in ["actpass", "passive"] {
        let mut world = World::new(Scenario { setup, client_shows_another: true, ..VIEWER });
        world.run(3 * SECOND);
        assert_eq!(world.events, [PeerEvent::Lost], "a=setup:{setup}");
        assert!(world.client.video.is_empty());
        let mut world = World::new(Scenario { setup, server_shows_another: true, ..VIEWER });
        world.run(16 * SECOND);
        assert!(world.client.failed && world.client.video.is_empty(), "a=setup:{setup}");
    }
}

#[test]
fn datagrams_from_other_addresses_change_nothing() {
    let mut world = World::new(VIEWER);
    let stranger = at("203.0.113.66:666");
    let mut hello = Secure::connect(&identity(), Vec::new(), world.base).expect("begins");
    let hello = hello.poll().expect("it opens");
    for _ in 0..40 {
        let (moment, mut out) = (world.moment(), Out::new());
        let srtp = BytesMut::from(&[0x80, 111, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 9][..]);
        let alert = BytesMut::from(&[21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 1, 0][..]);
        world.server.handle(moment, stranger, hello.clone(), &mut out);
        world.server.handle(moment, stranger, srtp, &mut out);
        // An alert that closes, as nobody has encrypted it.
        world.server.handle(moment, stranger, alert, &mut out);
        assert!(out.is_empty(), "it got an answer");
        world.run(SECOND / 20);
    }
    assert_eq!(world.events, [PeerEvent::Connected]);
    assert!(world.client.connected && world.client.missing().is_empty() && world.client.video.len() > 60);
}

#[test]
fn feedback_of_a_viewer_reaches_the_room() {
    let mut world = World::new(VIEWER);
    world.run(SECOND);
    let media_ssrc = world.client.video[0].header.ssrc;
    world.demand.take();
    let mut asked = 0;
    for n in 0..10 {
        // Each alone, without a report before it: reduced-size RTCP (RFC 5506).
        if n % 2 == 0 {
            world.say(&[Box::new(PictureLossIndication { sender_ssrc: 1, media_ssrc })]);
        } else {
            let entry = FirEntry { ssrc: media_ssrc, sequence_number: n };
            world.say(&[Box::new(FullIntraRequest { sender_ssrc: 1, media_ssrc: 0, fir: vec![entry] })]);
        }
        world.run(SECOND / 10);
        asked += world.demand.take().keyframes.len();
    }
    assert!((3..=6).contains(&asked), "ten requests in a second are {asked}");
    world.run(SECOND);
    let report = ReceptionReport { ssrc: media_ssrc, fraction_lost: 64, ..ReceptionReport::default() };
    world.say(&[Box::new(ReceiverReport { ssrc: 1, reports: vec![report], ..ReceiverReport::default() })]);
    world.run(SECOND / 10);
    let selection = world.subscriber.selection().expect("it is attached");
    assert_eq!(selection.limit, Some(Limit::Loss), "{selection:?}");
    assert_eq!(world.demand.take().selections, BTreeSet::from([ParticipantId(1)]));
    let lost = f32::from_bits(world.counters.fraction_lost.load(Ordering::Relaxed));
    assert!((lost - 0.25).abs() < 0.01);
}

#[test]
fn a_participant_sends_and_receives() {
    for setup in ["actpass", "passive"] {
        let mut world = World::new(Scenario { setup, ..PARTICIPANT });
        world.run(4 * SECOND);
        assert!(world.client.connected && world.client.missing().is_empty(), "a=setup:{setup}");
        let upstream = world.client.upstream.as_ref().expect("it sends");
        // What is on its way is not there yet.
        let camera = world.sink.sequences(SourceKind::Camera);
        let missing: Vec<u16> = (0..upstream.camera.saturating_sub(4)).filter(|n| !camera.contains(n)).collect();
        assert!(missing.is_empty(), "a=setup:{setup}: {missing:?} of {}", upstream.camera);
        assert!(world.sink.sequences(SourceKind::Microphone).len() + 4 >= usize::from(upstream.microphone));
        let packets = world.sink.packets.lock();
        let codec = |wanted: SourceKind| packets.iter().find(|(kind, ..)| *kind == wanted).map(|(_, codec, _)| *codec);
        assert_eq!((codec(SourceKind::Camera), codec(SourceKind::Microphone)), (Some(Codec::Vp8), Some(Codec::Opus)));
        assert_eq!(upstream.repeated, 0);
        assert!((30..=45).contains(&upstream.feedback), "ten a second: {}", upstream.feedback);
        for ssrc in [CAMERA, MICROPHONE] {
            let last = upstream.reports.iter().rfind(|report| report.ssrc == ssrc).expect("it is reported on");
            assert_eq!((last.total_lost, last.fraction_lost), (0, 0));
        }
        assert!(world.demand.take().selections.len() <= 1, "no report changes the tier");
        assert_eq!(world.subscriber.selection().and_then(|selection| selection.limit), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Lost packets of a participant are requested and recovered, and only those.
    #[test]
    fn lost_packets_of_a_camera_are_recovered(seed in any::<u64>(), loss in 0.005..0.08_f64) {
        let mut world = World::new(Scenario { seed, ..PARTICIPANT });
        world.run(SECOND);
        world.loss = loss;
        world.run(10 * SECOND);
        world.loss = 0.0;
        world.run(SECOND);
        let camera = world.sink.sequences(SourceKind::Camera);
        let (first, last) = (*camera.first().expect("some"), *camera.last().expect("some"));
        let missing = usize::from(last - first) + 1 - camera.len();
        // A gap of which every request or response is lost for 400 ms is given up.
        prop_assert!(missing <= 3, "{missing} of {} are missing at {loss}", camera.len());
        let upstream = world.client.upstream.as_ref().expect("it sends");
        let bound = (camera.len() as f64 * (3.0 * loss + 0.02)) as usize + 5;
        prop_assert!(upstream.repeated <= bound, "{} of {} were repeated at {loss}", upstream.repeated, camera.len());
        let reported = upstream.reports.iter().rfind(|report| report.ssrc == CAMERA).expect("it is reported on");
        let expected = camera.len() as f64 * loss;
        let counted = f64::from(reported.total_lost);
        prop_assert!(counted > expected * 0.4 - 3.0 && counted < expected * 1.8 + 6.0, "{counted} of {expected} are reported");
    }
}

#[test]
fn audio_and_video_continue_when_their_ssrcs_change() {
    let mut world = World::new(PARTICIPANT);
    world.run(2 * SECOND);
    for generation in [10, 20] {
        world.client.upstream.as_mut().expect("it sends").generation = generation;
        world.sink.packets.lock().clear();
        world.run(SECOND);
        assert!(world.sink.sequences(SourceKind::Camera).len() > 50, "generation {generation}");
        assert!(world.sink.sequences(SourceKind::Microphone).len() > 40, "generation {generation}");
    }
    let upstream = world.client.upstream.as_ref().expect("it sends");
    assert!(upstream.reports.iter().any(|report| report.ssrc == CAMERA + 20 && report.total_lost == 0));
}

#[test]
fn a_source_is_asked_for_keyframes_and_limited_and_may_end() {
    let mut world = World::new(PARTICIPANT);
    let ask = |world: &mut World| {
        let (moment, mut out) = (world.moment(), Out::new());
        world.server.request_keyframe("1", moment, &mut out);
        world.post(false, at(SERVER), out);
    };
    ask(&mut world);
    world.run(SECOND);
    for _ in 0..10 {
        ask(&mut world);
        world.run(SECOND / 10);
    }
    let upstream = world.client.upstream.as_mut().expect("it sends");
    assert_eq!(upstream.keyframe_requests, [CAMERA; 2], "ten requests in a second are two");
    world.server.limit_uplink(Some(500_000), world.now);
    world.run(3 * SECOND);
    world.server.limit_uplink(None, world.now);
    world.run(2 * SECOND);
    let limits = &world.client.upstream.as_ref().expect("it sends").limits;
    assert!(limits.len() == 3 && limits.iter().all(|limit| (limit - 500_000.0).abs() < 1_000.0), "{limits:?}");
    let empty = Box::new(ReceiverReport { ssrc: CAMERA, ..ReceiverReport::default() });
    world.say(&[empty, Box::new(Goodbye { sources: vec![CAMERA, 77], ..Goodbye::default() })]);
    world.run(SECOND / 10);
    assert_eq!(*world.sink.ended.lock(), [SourceKind::Camera]);
}

#[test]
fn packets_that_are_not_authentic_are_counted_and_change_nothing() {
    let mut world = World::new(PARTICIPANT);
    world.run(SECOND);
    let before = world.sink.packets.lock().len();
    for n in 0..1_000_u32 {
        let junk = [&[0x80, 96, 0, 1, 0, 0, 0, 0][..], &n.to_be_bytes(), &[7; 40]].concat();
        let (moment, mut out) = (world.moment(), Out::new());
        world.server.handle(moment, at(CLIENT), BytesMut::from(&junk[..]), &mut out);
        assert!(out.is_empty());
    }
    assert_eq!(world.sink.packets.lock().len(), before);
    assert!(world.counters.unrouted_in.load(Ordering::Relaxed) >= 1_000);
    world.run(SECOND);
    assert!(world.sink.packets.lock().len() > before + 90);
}

#[test]
fn packets_with_our_ssrcs_are_not_received() {
    let mut world = World::new(PARTICIPANT);
    world.run(SECOND);
    let ours = [world.client.audio[0].header.ssrc, world.client.video[0].header.ssrc];
    let before = world.counters.unrouted_in.load(Ordering::Relaxed);
    for (ssrc, payload_type) in [(ours[0], 111), (ours[1], 96), (ours[1] + 1, 97)] {
        let (mut out, upstream) = (Out::new(), world.client.upstream.as_mut().expect("it sends"));
        let mirrored = upstream.packet(ssrc, payload_type, 60_000, Bytes::from_static(b"mirrored"));
        world.client.send(vec![mirrored], &mut out);
        world.post(true, at(CLIENT), out);
    }
    world.run(SECOND / 10);
    assert_eq!(world.counters.unrouted_in.load(Ordering::Relaxed), before + 3);
    assert!(!world.sink.packets.lock().iter().any(|(.., packet)| packet.payload[..] == *b"mirrored"));
}

#[test]
fn reports_carry_cname_and_come_from_the_ssrcs_we_send_by() {
    let mut world = World::new(PARTICIPANT);
    world.loss = 0.02;
    world.run(4 * SECOND);
    let ours = [world.client.audio[0].header.ssrc, world.client.video[0].header.ssrc];
    let compounds = &world.client.upstream.as_ref().expect("it sends").compounds;
    let (mut reports, mut feedback) = (0, 0);
    for compound in compounds {
        let first = compound[0].as_any();
        let sender = first.downcast_ref::<SenderReport>().map(|report| report.ssrc);
        let sender = sender.or_else(|| first.downcast_ref::<ReceiverReport>().map(|report| report.ssrc));
        let Some(sender) = sender else {
            feedback += 1;
            continue;
        };
        assert!(ours.contains(&sender));
        let description = compound.iter().find_map(|packet| packet.as_any().downcast_ref::<SourceDescription>());
        let named = description.expect("a report comes with SDES").chunks.iter().any(|chunk| chunk.source == sender);
        assert!(named, "the CNAME of the sender of the report");
        reports += 1;
    }
    assert!(reports >= 3 && feedback > 20, "{reports} {feedback}");
}
