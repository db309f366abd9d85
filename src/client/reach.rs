//! Reach: which of the ways that a server names lead to its media from here.
//!
//! Owns: a session that is joined to ask and left at once, and one try of each way: ICE checks by UDP and by TCP (RFC 8445,
//! RFC 6544), and through each TURN server ([`relayed`]). Does not know: what is to be done about it. In: a server's WHEP
//! resource. Out: its [`Way`]s.

mod relayed;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::future::join_all;
use rtc::crypto::RTCCryptoProvider;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{interval, timeout};

use self::relayed::TurnServer;
use super::description::{Answer, Offer};
use super::identity;
use super::signalling::{self, SignallingError};
use crate::destination::{Guard, Web};
use crate::dial::DialError;
use crate::media::Codec;
use crate::sdp::Direction;
use crate::secret::Secret;
use crate::time;
use crate::transport;
use crate::transport::framing;
use crate::transport::ice::check::{self, Check};
use crate::transport::ice::{Credentials, Role};
use crate::transport::stun::{Class, Message, Transaction};

/// How long one way may take.
const PATIENCE: Duration = Duration::from_secs(4);
/// What may have been lost is sent again after so long.
const AGAIN: Duration = Duration::from_millis(300);
/// Longest message read, in bytes.
const MESSAGE_MAX: usize = 2048;
/// Type preference of a peer-reflexive candidate (RFC 8445 section 5.1.2.2), component 1.
const PRIORITY: u32 = (110 << 24) + 255;

/// A way to a server's media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Way {
    /// By which protocol and where to.
    pub(crate) name: String,
    /// How long an answer took, or why there is none.
    pub(crate) led: Result<Duration, Obstacle>,
}

/// Why a way does not lead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Obstacle {
    /// Nobody is reached, or nobody who speaks what is spoken here.
    #[error("{0}")]
    Unreachable(String),
    /// A TURN server does not take the credential that we were given for it.
    #[error("it refuses the credential (401)")]
    Credential,
    /// A TURN server relays nothing to the media port.
    #[error("it does not relay to {to}: {why}")]
    Forbidden {
        /// The media port.
        to: SocketAddr,
        /// What it says.
        why: String,
    },
    /// A TURN server gives no relay, for another reason.
    #[error("it gives no relay: {0}")]
    Refused(String),
}

impl From<io::Error> for Obstacle {
    fn from(error: io::Error) -> Self {
        Self::Unreachable(match error.kind() {
            io::ErrorKind::ConnectionRefused => "nothing listens there".to_owned(),
            _ => error.to_string(),
        })
    }
}

impl From<DialError> for Obstacle {
    fn from(error: DialError) -> Self {
        Self::Unreachable(error.to_string())
    }
}

/// Joins as somebody who only watches, tries all ways at once, and leaves.
///
/// # Errors
/// Nobody could join.
pub(crate) async fn look(server: &Web, token: Option<&Secret>, guard: &Guard) -> Result<Vec<Way>, SignallingError> {
    let failed = |what: &str, why: String| SignallingError::Failed(format!("{what}: {why}"));
    let crypto = rtc::crypto::default_provider().map_err(|error| failed("no cryptography", error.to_string()))?;
    let identity = identity().map_err(|error| failed("no certificate", error))?;
    let ice = Credentials::random();
    let offer = Offer {
        direction: Direction::RecvOnly,
        codec: Codec::Vp8,
        ice: &ice,
        fingerprint: &identity.fingerprint,
        cname: &transport::cname(),
        addresses: &[],
        audio_ssrc: rand::random(),
        video_ssrc: rand::random(),
    };
    let session = signalling::begin(server, token, guard, &offer.sdp()).await?;
    let ways = match Answer::parse(&session.answer) {
        Ok(answer) => Ok(try_all(&answer, &session.links, &ice, guard, &crypto).await),
        Err(why) => Err(failed("its answer", why)),
    };
    session.end().await;
    ways
}

async fn try_all(
    answer: &Answer,
    links: &[String],
    ours: &Credentials,
    guard: &Guard,
    crypto: &Arc<dyn RTCCryptoProvider>,
) -> Vec<Way> {
    let unsigned = || Obstacle::Unreachable("a check cannot be signed".to_owned());
    let probe = || Probe::new(ours, &answer.ice, crypto.clone()).ok_or_else(unsigned);
    let udp = answer.candidates.iter().map(|to| {
        let probe = probe();
        timed(format!("UDP {to}"), async move { by_udp(*to, &probe?).await })
    });
    let tcp = answer.tcp.iter().map(|to| {
        let probe = probe();
        timed(format!("TCP {to}"), async move { by_tcp(*to, &probe?).await })
    });
    let servers: Vec<TurnServer> = links.iter().filter_map(|link| TurnServer::parse(link)).collect();
    let turn = servers.iter().map(|server| {
        // A relay reaches all of its addresses, or none.
        let (probe, media) = (probe(), answer.candidates[0]);
        timed(server.to_string(), async move { server.reaches(media, &probe?, guard).await })
    });
    let (udp, tcp, turn) = tokio::join!(join_all(udp), join_all(tcp), join_all(turn));
    [udp, tcp, turn].concat()
}

async fn timed(name: String, tried: impl Future<Output = Result<(), Obstacle>>) -> Way {
    let began = time::now();
    let led = match timeout(PATIENCE, tried).await {
        Ok(led) => led.map(|()| time::now().since(began)),
        Err(_) => Err(Obstacle::Unreachable("nobody answers".to_owned())),
    };
    Way { name, led }
}

/// A check, and what its answer is known by.
struct Probe {
    transaction: Transaction,
    bytes: Vec<u8>,
    /// What the answer is signed with.
    password: String,
    crypto: Arc<dyn RTCCryptoProvider>,
}

impl Probe {
    fn new(ours: &Credentials, theirs: &Credentials, crypto: Arc<dyn RTCCryptoProvider>) -> Option<Self> {
        let check = Check {
            role: Role::Controlling,
            tie_breaker: rand::random(),
            priority: PRIORITY,
            nominates: false,
            from: ours,
            to: theirs,
        };
        let (transaction, bytes) = check::request(&check, &*crypto)?;
        Some(Self { transaction, bytes, password: theirs.password.clone(), crypto })
    }

    fn is_answered_by(&self, datagram: &[u8]) -> bool {
        Message::parse(datagram).is_some_and(|message| {
            message.class == Class::Success
                && message.transaction == self.transaction
                && message.is_signed_with(&self.password, &*self.crypto)
        })
    }
}

/// A socket of ours that only this address reaches.
async fn socket_to(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr =
        if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    Ok(socket)
}

async fn by_udp(to: SocketAddr, probe: &Probe) -> Result<(), Obstacle> {
    let socket = socket_to(to).await?;
    let (mut again, mut datagram) = (interval(AGAIN), [0; MESSAGE_MAX]);
    loop {
        tokio::select! {
            _ = again.tick() => socket.send(&probe.bytes).await.map(drop)?,
            received = socket.recv(&mut datagram) => {
                let length = received?;
                // The server checks us as well: those are none of the answer.
                if probe.is_answered_by(&datagram[..length]) {
                    return Ok(());
                }
            }
        }
    }
}

async fn by_tcp(to: SocketAddr, probe: &Probe) -> Result<(), Obstacle> {
    let failed = |why: &str| Obstacle::Unreachable(why.to_owned());
    let mut stream = TcpStream::connect(to).await?;
    let mut bytes = BytesMut::new();
    framing::put(&probe.bytes, &mut bytes);
    stream.write_all(&bytes).await?;
    bytes.clear();
    while stream.read_buf(&mut bytes).await? > 0 {
        while let Some(message) = framing::take(&mut bytes, MESSAGE_MAX).map_err(|_| failed("it sends no ICE"))? {
            if probe.is_answered_by(&message) {
                return Ok(());
            }
        }
    }
    Err(failed("it hangs up"))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn crypto() -> Arc<dyn RTCCryptoProvider> {
        rtc::crypto::default_provider().expect("ring is built in")
    }

    /// Answers every check that is signed with the password of `theirs`.
    fn answer(theirs: &Credentials, from: SocketAddr, datagram: &[u8]) -> Vec<u8> {
        let request = Message::parse(datagram).expect("a check");
        assert!(request.is_signed_with(&theirs.password, &*crypto()));
        check::success(request.transaction, from, &theirs.password, &*crypto()).expect("can be signed")
    }

    #[tokio::test]
    async fn what_answers_is_a_way_and_what_answers_wrongly_is_none() {
        let (ours, theirs) = (Credentials::random(), Credentials::random());
        let probe = || Probe::new(&ours, &theirs, crypto()).expect("can be signed");
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (udp, tcp) = (socket.local_addr().expect("bound"), listener.local_addr().expect("bound"));
        let signs = theirs.clone();
        tokio::spawn(async move {
            let mut datagram = [0; MESSAGE_MAX];
            let (length, from) = socket.recv_from(&mut datagram).await.expect("a check");
            let mut wrong = answer(&signs, from, &datagram[..length]);
            *wrong.last_mut().expect("not empty") ^= 1;
            let middle = wrong.len() / 2;
            wrong[middle] ^= 1;
            socket.send_to(&wrong, from).await.expect("sent");
            let (length, from) = socket.recv_from(&mut datagram).await.expect("the check again");
            socket.send_to(&answer(&signs, from, &datagram[..length]), from).await.expect("sent");
        });
        let signs = theirs.clone();
        tokio::spawn(async move {
            let (mut stream, from) = listener.accept().await.expect("a connection");
            let mut bytes = BytesMut::new();
            let check = loop {
                stream.read_buf(&mut bytes).await.expect("open");
                if let Some(check) = framing::take(&mut bytes, MESSAGE_MAX).expect("short") {
                    break check;
                }
            };
            let mut out = BytesMut::new();
            framing::put(&answer(&signs, from, &check), &mut out);
            stream.write_all(&out).await.expect("open");
        });
        assert_eq!(by_udp(udp, &probe()).await, Ok(()));
        assert_eq!(by_tcp(tcp, &probe()).await, Ok(()));
        // Both are gone by now.
        assert!(by_tcp(tcp, &probe()).await.is_err());
        let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let to = silent.local_addr().expect("bound");
        let way = timed("nobody".to_owned(), async { by_udp(to, &probe()).await }).await;
        assert_eq!(
            way,
            Way { name: "nobody".to_owned(), led: Err(Obstacle::Unreachable("nobody answers".to_owned())) }
        );
    }
}
