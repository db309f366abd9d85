//! SDES and BYE in both directions.

use std::collections::BTreeSet;

use rtc::rtcp::Packet;
use rtc::rtcp::goodbye::Goodbye;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtcp::source_description::SourceDescription;

use super::client::{AUDIO, VIDEO};
use super::*;

/// The SSRCs and CSRCs for which a client has received SDES, and those for which it has received BYE (RFC 3550).
fn names_and_byes(client: &Client) -> (BTreeSet<u32>, Vec<u32>) {
    let (mut named, mut gone) = (BTreeSet::new(), Vec::new());
    for packet in client.rtcp.lock().iter() {
        let description = packet.as_any().downcast_ref::<SourceDescription>();
        named.extend(description.into_iter().flat_map(|description| &description.chunks).map(|chunk| chunk.source));
        let goodbye = packet.as_any().downcast_ref::<Goodbye>();
        gone.extend(goodbye.into_iter().flat_map(|goodbye| &goodbye.sources));
    }
    (named, gone)
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let becomes = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, becomes).await.unwrap_or_else(|_| panic!("{what}"));
}

/// A participant or a viewer who gets sound and pictures.
async fn connected(direction: RTCRtpTransceiverDirection) -> (Client, Server, [u32; 2]) {
    let mut client = Client::new(direction).await;
    let offer = client.offer(None).await;
    let (mut server, answer) = Server::answer(&offer).await;
    client.answered(&answer).await;
    client.connected().await;
    server.wait(|event| *event == PeerEvent::Connected).await;
    let (video, audio) = server.reaches(&mut client).await;
    (client, server, [audio.header.ssrc, video.header.ssrc])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contributing_sources_have_cname_and_bye() {
    for direction in [RTCRtpTransceiverDirection::Sendrecv, RTCRtpTransceiverDirection::Recvonly] {
        let (client, server, [audio, video]) = connected(direction).await;
        until("SDES of the server and of p7", || {
            names_and_byes(&client).0.is_superset(&BTreeSet::from([7, audio, video]))
        })
        .await;
        assert!(names_and_byes(&client).1.is_empty(), "all are here");
        // Reports are whole: none comes without a name behind it.
        let first = client.rtcp.lock().iter().position(|packet| packet.as_any().is::<SenderReport>());
        let named = client.rtcp.lock().iter().position(|packet| packet.as_any().is::<SourceDescription>());
        assert!(first < named, "{direction:?}");
        server.peer.subscriber().left(9);
        server.peer.subscriber().left(7);
        until("a BYE", || !names_and_byes(&client).1.is_empty()).await;
        assert_eq!(names_and_byes(&client).1, [7], "9 was never audible");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bye_of_our_streams_precedes_the_end_of_the_connection() {
    for direction in [RTCRtpTransceiverDirection::Sendrecv, RTCRtpTransceiverDirection::Recvonly] {
        let (client, server, [audio, video]) = connected(direction).await;
        server.peer.close().await;
        until("goodbyes", || {
            let gone = names_and_byes(&client).1;
            [audio, video, 7].iter().all(|ssrc| gone.contains(ssrc))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_receives_bye() {
    let mut client = Client::new(RTCRtpTransceiverDirection::Sendrecv).await;
    let offer = client.offer(None).await.replace("a=sendrecv", "a=sendonly");
    let (mut server, answer) = Server::answer(&offer).await;
    client.answered(&answer).await;
    server.packet_of(&mut client, SourceKind::Camera).await;
    server.peer.close().await;
    until("a BYE", || !names_and_byes(&client).1.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bye_of_a_source_ends_it_at_once() {
    let (mut client, mut server) = call().await;
    server.packet_of(&mut client, SourceKind::Camera).await;
    server.packet_of(&mut client, SourceKind::Microphone).await;
    server.reaches(&mut client).await;
    let goodbye = |sources: &[u32]| -> Vec<Box<dyn Packet>> {
        let goodbye = Goodbye { sources: sources.to_vec(), ..Goodbye::default() };
        vec![Box::new(ReceiverReport { ssrc: VIDEO, ..ReceiverReport::default() }), Box::new(goodbye)]
    };
    let tracks = client.remote.lock().clone();
    let track = tracks.first().expect("it is sent something");
    track.write_rtcp(goodbye(&[9_999])).await.expect("says it");
    track.write_rtcp(goodbye(&[VIDEO])).await.expect("says it");
    until("the camera is over", || !server.ended.lock().is_empty()).await;
    assert_eq!(*server.ended.lock(), [SourceKind::Camera]);
    track.write_rtcp(goodbye(&[AUDIO])).await.expect("says it");
    until("the microphone too", || server.ended.lock().len() == 2).await;
    server.packet_of(&mut client, SourceKind::Camera).await;
}
