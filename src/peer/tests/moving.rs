//! A client whose address changes during a call, as behind a NAT whose binding expires, or between Wi-Fi and cellular.

use tokio::sync::watch;

use super::*;
use crate::sdp::replace_candidates;

/// A NAT between client and server; each change of `moves` gives it another address towards the server.
async fn nat(inner: UdpSocket, server: SocketAddr, mut moves: watch::Receiver<u32>) {
    let bind = async || UdpSocket::bind("127.0.0.1:0").await.expect("ports are left");
    let mut outer = bind().await;
    let mut client = None;
    let (mut up, mut down) = ([0; 2048], [0; 2048]);
    loop {
        tokio::select! {
            Ok((length, from)) = inner.recv_from(&mut up) => {
                client = Some(from);
                let _ = outer.send_to(&up[..length], server).await;
            }
            Ok((length, _)) = outer.recv_from(&mut down) => {
                if let Some(client) = client {
                    let _ = inner.send_to(&down[..length], client).await;
                }
            }
            Ok(()) = moves.changed() => outer = bind().await,
        }
    }
}

/// Client and server know each other only by the NAT.
async fn behind_nat() -> (Client, Server, watch::Sender<u32>) {
    let mut client = Client::new(RTCRtpTransceiverDirection::Sendrecv).await;
    let offer = replace_candidates(&client.offer(None).await, &[]);
    let (server, answer) = Server::answer(&offer).await;
    let inner = UdpSocket::bind("127.0.0.1:0").await.expect("ports are left");
    let port = inner.local_addr().expect("bound").port();
    let (moves, moved) = watch::channel(0);
    tokio::spawn(nat(inner, server.config.mux.local_addr(), moved));
    let candidate = format!("candidate:1 1 udp 2130706431 127.0.0.1 {port} typ host");
    client.answered(&replace_candidates(&answer, &[candidate])).await;
    client.connected().await;
    (client, server, moves)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_participant_keeps_its_session_when_its_address_changes() {
    let (mut client, mut server, moves) = behind_nat().await;
    server.wait(|event| *event == PeerEvent::Connected).await;
    server.reaches(&mut client).await;
    moves.send_replace(1);
    while server.packets.try_recv().is_ok() {}
    server.packet_of(&mut client, SourceKind::Camera).await;
    server.reaches(&mut client).await;
    while let Ok(event) = server.events.try_recv() {
        assert!(!matches!(event, PeerEvent::Lost | PeerEvent::Goodbye), "{event:?}");
    }
}
