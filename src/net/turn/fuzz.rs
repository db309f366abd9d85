//! Fuzz target of the TURN server: messages of several clients, signed or not, over UDP and TCP.
//!
//! Owns: how the pieces of an input become messages. Does not know: the fuzzer. A piece is an operation and its bytes.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::credentials::{self, Credentials, REALM};
use super::message::{Frame, Message, Method, Writer, frame, kind};
use super::server::{Client, Effect, Flow, Limits, Now, Outcome, Server};
use crate::time::Timestamp;
use crate::transport::fuzz::signed;
use crate::transport::stun::{Class, HEADER};

const UNIX: u64 = 1_000_000;
const MEDIA: [([u8; 4], u16); 2] = [([203, 0, 113, 7], 8189), ([203, 0, 113, 8], 8189)];

/// Messages of clients. Requests get the user name, realm and nonce before their attributes, and a signature.
pub(crate) fn turn(pieces: &[(u8, &[u8])]) {
    let credentials = Arc::new(Credentials::new("north".to_owned().into(), 600));
    let credential = credentials.make(UNIX);
    let key = credentials::key(&credential.username, REALM, &credential.password);
    let limits = Limits { allocations: 5, per_user: 2, per_address: 3 };
    let mut server = Server::new(Arc::clone(&credentials), limits, MEDIA.map(SocketAddr::from).to_vec());
    let mut seconds = 0;
    let mut open = HashSet::new();
    for (op, bytes) in pieces {
        let flow = if op & 8 == 0 { Flow::Udp } else { Flow::Stream(1) };
        let client = Client { flow, address: SocketAddr::from(([198, 51, 100, op >> 6], 5_000)) };
        seconds += [0, 1, 100, 500][usize::from(op >> 4 & 3)];
        let now = Now { at: Timestamp::from_micros(1_000_000 * (1 + seconds)), unix: UNIX + seconds };
        let message = match op & 7 {
            0 | 1 => bytes.to_vec(),
            7 => {
                server.sweep(now.at);
                continue;
            }
            operation => {
                // The methods of requests, and the attributes of the input behind those that authenticate.
                let methods = [Method::ALLOCATE, Method::REFRESH, Method::CREATE_PERMISSION, Method::CHANNEL_BIND];
                let nonce = credentials.nonce(client.address.ip(), now.unix);
                let mut message = Writer::new(methods[usize::from(operation - 2) % 4], Class::Request, [1; 12])
                    .attribute(kind::USERNAME, credential.username.as_bytes())
                    .attribute(kind::REALM, REALM.as_bytes())
                    .attribute(kind::NONCE, nonce.as_bytes())
                    .finish();
                message.extend_from_slice(bytes);
                signed(&message, &key, credentials.crypto()).unwrap_or_default()
            }
        };
        if let Frame::Whole(size) = frame(&message, 4_096) {
            assert!(size <= 4_096);
        }
        match server.received(now, client, &message) {
            Outcome::Answer(answer) => assert!(answer.len() >= HEADER && Message::parse(&answer).is_some()),
            Outcome::Relay(path, data) => assert!(open.contains(&path) && data.len() <= message.len()),
            Outcome::Drop(_) => {}
        }
        while let Some(effect) = server.poll_effect() {
            match effect {
                Effect::Opened { path, peer, .. } => {
                    assert!(open.insert(path), "a path is opened twice");
                    assert!(MEDIA.map(SocketAddr::from).contains(&peer), "{peer} is not the media port");
                }
                Effect::Closed { path } => assert!(open.remove(&path), "a path is closed twice"),
                Effect::Channel { .. } | Effect::Over { .. } => {}
            }
        }
        assert!(server.allocations() <= 5);
    }
}
