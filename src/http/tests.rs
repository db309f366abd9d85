//! Limits of encoders that are not authorized.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::api::tests::Api;
use super::api::tests::limits::token_of;
use super::rtmp_ingest;
use crate::destination::{Destination, Target};
use crate::peer::tests::client::PATIENCE;
use crate::room::document::Role;
use crate::rtmp::{Client as RtmpClient, ClientEvent, Purpose};

/// An encoder that requests to publish; returns what the server answers, or None if it closes the connection.
async fn publish(address: SocketAddr, token: &str) -> Option<ClientEvent> {
    let url = Destination::output(&format!("rtmp://127.0.0.1/live/r?token={token}")).expect("a URL");
    let Target::Rtmp(server) = url.target() else { panic!("an RTMP URL") };
    let mut client = RtmpClient::new(server, Purpose::Publish).expect("starts");
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let mut bytes = [0; 4096];
    loop {
        stream.write_all(&client.output()).await.ok()?;
        let length = stream.read(&mut bytes).await.ok().filter(|length| *length > 0)?;
        if let Some(event) = client.input(&bytes[..length]).expect("well formed").pop() {
            return Some(event);
        }
    }
}

#[tokio::test]
async fn an_rtmp_connection_has_no_process_before_its_encoder_may_publish() {
    let api = Api::keyed();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has free ports");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(rtmp_ingest::serve(listener, api.app.clone()));
    for stranger in ["nonsense".to_owned(), token_of("Ann", Role::Viewer, 60.0)] {
        let answer = publish(address, &stranger).await;
        assert!(matches!(answer, Some(ClientEvent::Refused(_))), "{answer:?}");
    }
    let mut garbage = TcpStream::connect(address).await.expect("it listens");
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("it is open");
    assert_eq!(garbage.read(&mut [0; 16]).await.unwrap_or(0), 0, "it is closed");
    // Silent connections: those above the limit of their address are closed at once.
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(TcpStream::connect(address).await.expect("it listens"));
    }
    for above in &mut silent[8..] {
        let read = tokio::time::timeout(PATIENCE, above.read(&mut [0; 16])).await.expect("at once");
        assert_eq!(read.unwrap_or(0), 0);
    }
    assert_eq!(api.mixers(), 0, "no process was started");
    // The others are closed because they send nothing.
    for one in &mut silent[..8] {
        let read = tokio::time::timeout(PATIENCE, one.read(&mut [0; 16])).await.expect("in time");
        assert_eq!(read.unwrap_or(0), 0);
    }
    let counted = async {
        while !api.app.metrics().text().contains("commingle_rtmp_refused_total 15\n") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.expect("each is counted");
    let accepted = tokio::spawn(async move { publish(address, &token_of("Ben", Role::Participant, 60.0)).await });
    let started = async {
        while api.mixers() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, started).await.expect("an encoder that may publish has a process");
    accepted.abort();
}
