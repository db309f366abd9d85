//! Client and server against each other, and untrusted bytes against either.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::destination::{Destination, Rtmp, Target};

fn server_of(text: &str) -> Rtmp {
    match Destination::output(text).expect("a URL").target() {
        Target::Rtmp(rtmp) => rtmp.clone(),
        other => panic!("{other}"),
    }
}

/// A client and a server, connected.
struct Pair {
    client: Client,
    server: Server,
    at_client: Vec<ClientEvent>,
    at_server: Vec<ServerEvent>,
}

impl Pair {
    fn new() -> Self {
        let client = Client::new(&server_of("rtmp://host/app/inst/name?auth=1"), Purpose::Publish).expect("starts");
        let server = Server::new().expect("starts");
        Self { client, server, at_client: Vec::new(), at_server: Vec::new() }
    }

    /// Exchanges output in pieces of at most `piece` bytes until both sides are idle.
    fn run(&mut self, piece: usize) {
        loop {
            let (up, down) = (self.client.output(), self.server.output());
            if up.is_empty() && down.is_empty() {
                return;
            }
            for piece in up.chunks(piece) {
                self.at_server.extend(self.server.input(piece).expect("well-formed"));
            }
            for piece in down.chunks(piece) {
                self.at_client.extend(self.client.input(piece).expect("well-formed"));
            }
        }
    }
}

fn video(time_ms: u32, length: usize) -> Media {
    Media::Video { time_ms, tag: Bytes::from(vec![0x17; length]) }
}

#[test]
fn a_stream_is_published() {
    for piece in [1, 1000, 100_000] {
        let mut pair = Pair::new();
        pair.run(piece);
        let requested = ServerEvent::Publish { app: "app/inst".into(), key: "name?auth=1".to_owned().into() };
        assert_eq!(pair.at_server, [requested]);
        assert!(!pair.client.is_ready());
        pair.server.accept().expect("it asked");
        pair.run(piece);
        assert_eq!(pair.at_client, [ClientEvent::Ready]);

        let metadata = Metadata {
            video: Some(VideoMetadata { size: Size::new(1280, 720), fps: 30, kbps: 1500 }),
            audio_kbps: Some(128),
        };
        pair.client.metadata(&metadata).expect("publishing");
        let sent = [
            video(0, 50_000),
            Media::Audio { time_ms: 21, tag: Bytes::from_static(&[0xaf, 1, 2]) },
            video(33, 100),
            // Extended timestamps, and the wrap.
            video(20_000_000, 9_000),
            video(u32::MAX, 10),
            video(32, 10),
        ];
        for media in &sent {
            pair.client.send(media.clone()).expect("publishing");
        }
        pair.at_server.clear();
        pair.run(piece);
        assert_eq!(pair.at_server, sent.map(ServerEvent::Media));
        pair.client.stop().expect("publishing");
        pair.at_server.clear();
        pair.run(piece);
        assert_eq!(pair.at_server, [ServerEvent::Finished]);
    }
}

#[test]
fn a_refusal_is_reported_without_the_stream_key() {
    let mut pair = Pair::new();
    pair.run(5000);
    pair.server.refuse("no such key: name?auth=1").expect("it asked");
    pair.at_client.clear();
    pair.run(5000);
    let refused: Vec<_> = pair.at_client.iter().filter(|event| matches!(event, ClientEvent::Refused(_))).collect();
    assert_eq!(refused.len(), 1, "{:?}", pair.at_client);
    assert!(!format!("{refused:?}").contains("name"), "{refused:?}");
    assert!(matches!(pair.client.send(video(0, 10)), Err(RtmpError::Client(_))));
    assert!(matches!(pair.server.accept(), Err(RtmpError::NoRequest)));
}

#[test]
fn a_stream_without_a_key_is_published_and_its_refusal_does_not_contain_it() {
    for (url, app, key) in [
        ("rtmp://host/s3cr3t", "s3cr3t", ""),
        ("rtmp://host/app/?key=s3cr3t", "app", "?key=s3cr3t"),
        ("rtmp://host/app?auth=s3cr3t/name", "app?auth=s3cr3t", "name"),
    ] {
        let mut pair = Pair::new();
        pair.client = Client::new(&server_of(url), Purpose::Publish).expect("starts");
        pair.run(5000);
        assert_eq!(pair.at_server, [ServerEvent::Publish { app: app.into(), key: key.to_owned().into() }]);
        pair.server.refuse("no such stream: s3cr3t").expect("it asked");
        pair.at_client.clear();
        pair.run(5000);
        let refused = format!("{:?}", pair.at_client);
        assert!(refused.contains("Refused") && !refused.contains("s3cr3t"), "{refused}");
        // Servers that refuse the connection describe why, and may repeat the URL.
        let refused = pair.client.redacted(format!("no such stream: {app}/{key}"));
        assert!(refused.starts_with("no such stream: ") && !refused.contains("s3cr3t"), "{refused}");
    }
}

#[test]
fn messages_without_contents_do_not_end_the_stream() {
    let mut pair = Pair::new();
    pair.run(5000);
    pair.server.accept().expect("it asked");
    pair.run(5000);
    let mut bytes = Vec::new();
    for (kind, time_ms, tag) in [(9, 0, &[0x17, 1][..]), (8, 5, &[]), (9, 6, &[]), (9, 7, &[0x27, 1])] {
        filter::put_message(&mut bytes, 4, kind, time_ms, 1, tag);
    }
    let media = |kind: u8, time_ms, tag: &'static [u8]| {
        let tag = Bytes::from_static(tag);
        ServerEvent::Media(if kind == 8 { Media::Audio { time_ms, tag } } else { Media::Video { time_ms, tag } })
    };
    let expected = [media(9, 0, &[0x17, 1]), media(8, 5, &[]), media(9, 6, &[]), media(9, 7, &[0x27, 1])];
    assert_eq!(pair.server.input(&bytes).expect("well-formed"), expected);
}

#[test]
fn the_number_of_commands_is_limited() {
    let mut pair = Pair::new();
    pair.run(5000);
    let create_stream = [&[2, 0, 12][..], b"createStream", &[0; 9], &[5]].concat();
    let mut message = vec![3, 0, 0, 0, 0, 0, create_stream.len() as u8, 20, 0, 0, 0, 0];
    message.extend(create_stream);
    let ended = (0..100).any(|_| pair.server.input(&message).is_err());
    assert!(ended);
}

#[test]
fn other_protocols_fail_the_handshake() {
    let mut server = Server::new().expect("starts");
    assert!(matches!(server.input(b"GET / HTTP/1.1\r\n\r\n"), Err(RtmpError::Handshake(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// After a valid handshake, arbitrary messages do not panic.
    #[test]
    fn arbitrary_messages_do_not_panic(
        messages in prop::collection::vec(
            (
                0u8..64,
                prop::sample::select(vec![1u8, 2, 3, 4, 5, 6, 8, 9, 15, 17, 18, 20, 22]),
                prop::collection::vec(any::<u8>(), 0..40),
            ),
            0..20,
        ),
        at_client in any::<bool>(),
    ) {
        let mut pair = Pair::new();
        pair.run(5000);
        for (stream, kind, payload) in messages {
            let mut bytes = vec![stream | 2, 0, 0, 0, 0, 0, payload.len() as u8, kind, 1, 0, 0, 0];
            bytes.extend(payload);
            let ended = if at_client { pair.client.input(&bytes).err() } else { pair.server.input(&bytes).err() };
            match ended {
                Some(RtmpError::Bug) => return Err(TestCaseError::fail("a panic in the crate")),
                Some(_) => break,
                None => {}
            }
        }
    }
}
