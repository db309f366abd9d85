//! The connection of an encoder until its request to publish, without a process.
//!
//! Owns: what the encoder has sent, so that another [`Server`] can [take over](take_over), and its bound. Does not
//! know: sockets, which stream keys are valid. In: received bytes. Out: bytes to send, and the request.

use bytes::Bytes;

use super::{RtmpError, Server, ServerEvent};
use crate::secret::Secret;

/// Most bytes before the request to publish: 3,073 of the handshake, and a few commands.
const RECEIVED_MAX: usize = 32 << 10;

/// A connection whose encoder has not requested to publish, or is not accepted.
pub struct Reception {
    server: Server,
    received: Vec<u8>,
}

impl Reception {
    /// A new connection, before the handshake.
    ///
    /// # Errors
    /// [`RtmpError::Bug`].
    pub fn new() -> Result<Self, RtmpError> {
        Ok(Self { server: Server::new()?, received: Vec::new() })
    }

    /// Processes bytes from the encoder; returns the application and the stream key of its request to publish.
    ///
    /// # Errors
    /// The connection must be closed.
    pub fn input(&mut self, bytes: &[u8]) -> Result<Option<(String, Secret)>, RtmpError> {
        self.received.extend_from_slice(bytes);
        if self.received.len() > RECEIVED_MAX {
            return Err(RtmpError::TooLarge(self.received.len()));
        }
        let events = self.server.input(bytes)?;
        Ok(events.into_iter().find_map(|event| match event {
            ServerEvent::Publish { app, key } => Some((app, key)),
            _ => None,
        }))
    }

    /// Takes the bytes to send.
    pub fn output(&mut self) -> Bytes {
        self.server.output()
    }

    /// Refuses the request to publish, see [`Server::refuse`].
    ///
    /// # Errors
    /// [`RtmpError::NoRequest`].
    pub fn refuse(&mut self, why: &str) -> Result<(), RtmpError> {
        self.server.refuse(why)
    }

    /// All bytes from the encoder, for the server that takes over.
    pub fn into_received(self) -> Vec<u8> {
        self.received
    }
}

/// A server in the state of a [`Reception`] that has received these bytes, and the events since the beginning.
///
/// # Errors
/// The connection must be closed.
pub fn take_over(received: &[u8]) -> Result<(Server, Vec<ServerEvent>), RtmpError> {
    let (mut server, mut events) = (Server::new()?, Vec::new());
    // Byte by byte: each command is executed before the next one is read, as when they arrived.
    for byte in received.chunks(1) {
        events.extend(server.input(byte)?);
    }
    let _was_sent = server.output();
    Ok((server, events))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::{Destination, Target};
    use crate::rtmp::{Client, ClientEvent, Media, Purpose};

    fn client() -> Client {
        let url = Destination::output("rtmp://host/live/name?token=1").expect("a URL");
        let Target::Rtmp(server) = url.target() else { panic!("an RTMP URL") };
        Client::new(server, Purpose::Publish).expect("starts")
    }

    #[test]
    fn another_server_takes_over_after_the_request_to_publish() {
        for piece in [1, 700, 100_000] {
            let (mut client, mut reception) = (client(), Reception::new().expect("starts"));
            let mut request = None;
            while request.is_none() {
                let up = client.output();
                assert!(!up.is_empty(), "the encoder waits");
                for piece in up.chunks(piece) {
                    let requested = reception.input(piece).expect("well formed");
                    request = request.or(requested);
                }
                client.input(&reception.output()).expect("well formed");
            }
            assert_eq!(request, Some(("live".to_owned(), "name?token=1".to_owned().into())));
            let (mut server, events) = take_over(&reception.into_received()).expect("the same bytes");
            assert!(matches!(&events[..], [ServerEvent::Publish { .. }]), "{events:?}");
            server.accept().expect("it was requested");
            let events = client.input(&server.output()).expect("its chunks continue");
            assert_eq!(events, [ClientEvent::Ready]);
            let media = Media::Video { time_ms: 40, tag: Bytes::from(vec![0x17; 5_000]) };
            client.send(media.clone()).expect("it is ready");
            assert_eq!(server.input(&client.output()).expect("well formed"), [ServerEvent::Media(media)]);
        }
    }

    #[test]
    fn an_encoder_that_never_requests_to_publish_is_bounded() {
        let mut reception = Reception::new().expect("starts");
        let mut client = client();
        reception.input(&client.output()).expect("the handshake");
        client.input(&reception.output()).expect("well formed");
        reception.input(&client.output()).expect("connect");
        // An acknowledgement on chunk stream 2, again and again; and one message that is longer than the bound.
        let acknowledgement = [2, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0, 0, 9];
        let ends = (0..10_000).position(|_| reception.input(&acknowledgement).is_err());
        assert!(ends.is_some_and(|count| count < RECEIVED_MAX / acknowledgement.len()), "{ends:?}");
        let mut reception = Reception::new().expect("starts");
        assert!(reception.input(&vec![3; RECEIVED_MAX + 1]).is_err());
    }
}
