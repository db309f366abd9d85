//! Connectivity test: which paths to a server's media work from this machine: candidates over UDP and TCP, and TURN
//! servers.
//!
//! Owns: a session that joins for the test and leaves at its end, and one ICE connectivity check per path (RFC 8445,
//! RFC 6544; TURN in [`relayed`]). Does not know: the advice for each failure (`cli::doctor`). In: the URL of a
//! server's WHEP endpoint. Out: the tested [`Path`]s.

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
use super::description::{Answer, LocalDescription};
use super::identity;
use super::signalling::{self, SignallingError};
use crate::destination::{Guard, GuardError, Web};
use crate::dial::DialError;
use crate::media::Codec;
use crate::sdp::Direction;
use crate::secret::Secret;
use crate::time;
use crate::transport::framing;
use crate::transport::ice::check::{self, Check};
use crate::transport::ice::{Credentials, Role};
use crate::transport::stun::{Class, Message, Transaction};

/// Longest time for the test of one path.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Interval at which a check or request over UDP is repeated until the response arrives.
const RETRANSMIT: Duration = Duration::from_millis(300);
/// Longest STUN message that is received, in bytes.
const MESSAGE_MAX: usize = 2048;
/// PRIORITY of the checks: that of a peer-reflexive candidate with local preference 0, component 1 (RFC 8445 section
/// 5.1.2).
const PRIORITY: u32 = (110 << 24) + 255;

/// A path to a server's media, and the result of its test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    /// Protocol and address.
    pub(crate) name: String,
    /// Time until the check was answered, or why it failed.
    pub(crate) result: Result<Duration, PathError>,
}

/// Why a path does not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    /// The address does not answer, or not with the expected protocol.
    #[error("{0}")]
    Unreachable(String),
    /// A TURN server rejects the credential of the `Link` header.
    #[error("it refuses the credential (401)")]
    Credential,
    /// A TURN server refuses a permission for the media address.
    #[error("it does not relay to {to}: {why}")]
    Forbidden {
        /// The media address.
        to: SocketAddr,
        /// The error of the TURN server.
        why: String,
    },
    /// A TURN server refuses an allocation, for another reason than the credential.
    #[error("it allocates no relayed address: {0}")]
    Refused(String),
}

impl From<io::Error> for PathError {
    fn from(error: io::Error) -> Self {
        Self::Unreachable(match error.kind() {
            io::ErrorKind::ConnectionRefused => "nothing listens there".to_owned(),
            _ => error.to_string(),
        })
    }
}

impl From<DialError> for PathError {
    fn from(error: DialError) -> Self {
        Self::Unreachable(error.to_string())
    }
}

/// Joins as a viewer, tests all paths at once, and leaves.
///
/// # Errors
/// The join failed.
pub(crate) async fn test_paths(
    server: &Web,
    token: Option<&Secret>,
    guard: &Guard,
) -> Result<Vec<Path>, SignallingError> {
    let failed = |what: &str, why: String| SignallingError::Failed(format!("{what}: {why}"));
    let crypto = rtc::crypto::default_provider().map_err(|error| failed("no cryptography", error.to_string()))?;
    let identity = identity().map_err(|error| failed("no certificate", error))?;
    let local = LocalDescription::new(&identity, Direction::RecvOnly, Codec::Vp8);
    let resource = signalling::begin(server, token, guard, &local.offer(&[])).await?;
    let paths = match Answer::parse(&resource.answer) {
        Ok(answer) => Ok(test_all(&answer, &resource.links, &local.ice, guard, &crypto).await),
        Err(why) => Err(failed("the server's SDP answer", why)),
    };
    resource.end().await;
    paths
}

async fn test_all(
    answer: &Answer,
    links: &[String],
    ours: &Credentials,
    guard: &Guard,
    crypto: &Arc<dyn RTCCryptoProvider>,
) -> Vec<Path> {
    // `answer.candidates` is not empty: `Answer::parse` requires a candidate.
    let unsigned = || PathError::Unreachable("a check cannot be signed".to_owned());
    let probe = || Probe::new(ours, &answer.ice, crypto.clone()).ok_or_else(unsigned);
    let udp = answer.candidates.iter().map(|to| {
        let probe = probe();
        timed(format!("UDP {to}"), async move { over_udp(allowed(*to, guard)?, &probe?).await })
    });
    let tcp = answer.tcp.iter().map(|to| {
        let probe = probe();
        timed(format!("TCP {to}"), async move { over_tcp(allowed(*to, guard)?, &probe?).await })
    });
    let servers: Vec<TurnServer> = links.iter().filter_map(|link| TurnServer::parse(link)).collect();
    let turn = servers.iter().map(|server| {
        // A TURN server that relays to one candidate relays to all.
        let (probe, media) = (probe(), answer.candidates[0]);
        timed(server.to_string(), async move { server.reaches(media, &probe?, guard).await })
    });
    let (udp, tcp, turn) = tokio::join!(join_all(udp), join_all(tcp), join_all(turn));
    [udp, tcp, turn].concat()
}

/// The address of a candidate, if the guard allows it.
fn allowed(to: SocketAddr, guard: &Guard) -> Result<SocketAddr, PathError> {
    match guard.check(to.ip()) {
        Err(GuardError::Address { kind, .. }) => {
            Err(PathError::Unreachable(format!("the guard refuses it: it is {kind}")))
        }
        _ => Ok(to),
    }
}

/// Runs the test of a path, and measures its time.
async fn timed(name: String, test: impl Future<Output = Result<(), PathError>>) -> Path {
    let began = time::now();
    let result = match timeout(TIMEOUT, test).await {
        Ok(result) => result.map(|()| time::now().since(began)),
        Err(_) => Err(PathError::Unreachable("no answer in time".to_owned())),
    };
    Path { name, result }
}

/// A connectivity check, and the values that its response must have.
struct Probe {
    /// Transaction id of the request, and of its response.
    transaction: Transaction,
    /// The request.
    bytes: Vec<u8>,
    /// The server's ICE password: the key of MESSAGE-INTEGRITY in the response.
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

/// A UDP socket that is connected to this address.
async fn socket_to(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr =
        if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    Ok(socket)
}

async fn over_udp(to: SocketAddr, probe: &Probe) -> Result<(), PathError> {
    let socket = socket_to(to).await?;
    let (mut transmission, mut datagram) = (interval(RETRANSMIT), [0; MESSAGE_MAX]);
    loop {
        tokio::select! {
            _ = transmission.tick() => socket.send(&probe.bytes).await.map(drop)?,
            received = socket.recv(&mut datagram) => {
                let length = received?;
                // Other datagrams are the server's own checks.
                if probe.is_answered_by(&datagram[..length]) {
                    return Ok(());
                }
            }
        }
    }
}

async fn over_tcp(to: SocketAddr, probe: &Probe) -> Result<(), PathError> {
    let failed = |why: &str| PathError::Unreachable(why.to_owned());
    let mut stream = TcpStream::connect(to).await?;
    let mut bytes = BytesMut::new();
    framing::put(&probe.bytes, &mut bytes);
    stream.write_all(&bytes).await?;
    bytes.clear();
    while stream.read_buf(&mut bytes).await? > 0 {
        while let Some(message) =
            framing::take(&mut bytes, MESSAGE_MAX).map_err(|_| failed("it does not speak ICE over TCP"))?
        {
            if probe.is_answered_by(&message) {
                return Ok(());
            }
        }
    }
    Err(failed("it closes the connection"))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn crypto() -> Arc<dyn RTCCryptoProvider> {
        rtc::crypto::default_provider().expect("ring is built in")
    }

    /// The response to a check, which must be signed with the password of `theirs`.
    fn answer(theirs: &Credentials, from: SocketAddr, datagram: &[u8]) -> Vec<u8> {
        let request = Message::parse(datagram).expect("a check");
        assert!(request.is_signed_with(&theirs.password, &*crypto()));
        check::success(request.transaction, from, &theirs.password, &*crypto()).expect("can be signed")
    }

    #[tokio::test]
    async fn a_path_works_when_a_signed_response_arrives() {
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
        assert_eq!(over_udp(udp, &probe()).await, Ok(()));
        assert_eq!(over_tcp(tcp, &probe()).await, Ok(()));
        // The listener is closed by now.
        assert!(over_tcp(tcp, &probe()).await.is_err());
        let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let to = silent.local_addr().expect("bound");
        let path = timed("silent".to_owned(), async { over_udp(to, &probe()).await }).await;
        assert_eq!(
            path,
            Path { name: "silent".to_owned(), result: Err(PathError::Unreachable("no answer in time".to_owned())) }
        );
    }

    #[tokio::test]
    async fn a_candidate_that_the_guard_refuses_gets_no_check() {
        let (ours, theirs) = (Credentials::random(), Credentials::random());
        let udp = std::net::UdpSocket::bind("127.0.0.2:0").expect("a port");
        let tcp = std::net::TcpListener::bind("127.0.0.2:0").expect("a port");
        udp.set_nonblocking(true).and_then(|()| tcp.set_nonblocking(true)).expect("can be set");
        let answer = Answer {
            ice: theirs,
            fingerprint: String::new(),
            candidates: vec![udp.local_addr().expect("bound")],
            tcp: vec![tcp.local_addr().expect("bound")],
            video_formats: vec![],
            audio_level: false,
            transport_sequence: false,
        };
        let guard = Guard { allow: vec!["127.0.0.1/32".parse().expect("a network")], ..Guard::default() };
        for path in test_all(&answer, &[], &ours, &guard, &crypto()).await {
            let Err(PathError::Unreachable(why)) = path.result else { panic!("{}", path.name) };
            assert!(why.contains("a loopback address"), "{why}");
        }
        let blocked = io::ErrorKind::WouldBlock;
        assert_eq!(udp.recv(&mut [0; 16]).map_err(|error| error.kind()), Err(blocked), "nothing was sent");
        assert_eq!(tcp.accept().map(drop).map_err(|error| error.kind()), Err(blocked), "nothing was connected");
    }
}
