//! The path through a TURN server (RFC 8656): allocate, create a permission, send a check, and wait for its response.
//!
//! Owns: reading an ICE server's `Link` header, the connection to the server. Does not know: the TURN messages, which
//! are the crate `rtc-turn`'s.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf, BytesMut};
use rtc::sansio::Protocol;
use rtc::shared::{TransportContext, TransportMessage, TransportProtocol};
use rtc::turn::client::{Client, ClientConfig, Event};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::{MESSAGE_MAX, PathError, Probe, RETRANSMIT, socket_to};
use crate::destination::{Endpoint, Guard, Host};
use crate::dial::{self, Stream};
use crate::secret::Secret;
use crate::time::Moment;

/// Ports of URIs without one (RFC 7065).
const PORT: u16 = 3478;
/// See [`PORT`].
const TLS_PORT: u16 = 5349;
/// Bytes before the value of a STUN message, and before the data of a channel.
const STUN_HEADER: usize = 20;
/// See [`STUN_HEADER`].
const CHANNEL_HEADER: usize = 4;

/// A TURN server that a `Link` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TurnServer {
    endpoint: Endpoint,
    tls: bool,
    /// Over TCP, with or without TLS; otherwise over UDP.
    tcp: bool,
    username: String,
    credential: Secret,
}

impl fmt::Display for TurnServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = if self.tls {
            "TLS"
        } else if self.tcp {
            "TCP"
        } else {
            "UDP"
        };
        write!(f, "TURN by {by} at {}", self.endpoint)
    }
}

impl TurnServer {
    /// Reads the value of a `Link` header (RFC 9725 section 4.6); None unless it is a TURN server with a credential.
    pub(super) fn parse(link: &str) -> Option<Self> {
        let (uri, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let parameter = |name: &str| {
            let all = parameters.split(';').filter_map(|parameter| parameter.trim().split_once('='));
            all.filter(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('"').to_owned()).next()
        };
        let (scheme, rest) = uri.split_once(':')?;
        let tls = match scheme {
            "turn" => false,
            "turns" => true,
            _ => return None,
        };
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (authority, if tls { TLS_PORT } else { PORT }),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = host.parse().map_or_else(|_| Host::Name(host.to_owned()), Host::Address);
        Some(Self {
            endpoint: Endpoint { host, port },
            tls,
            tcp: tls || query == "transport=tcp",
            username: parameter("username")?,
            credential: parameter("credential")?.into(),
        })
    }

    /// Sends a check through it to a server's media address.
    ///
    /// # Errors
    /// Which step failed; without an answer it goes on until it is dropped.
    pub(super) async fn reaches(&self, media: SocketAddr, probe: &Probe, guard: &Guard) -> Result<(), PathError> {
        let at = dial::resolve(&self.endpoint, guard).await?;
        let mut pipe = if self.tcp {
            Pipe::Stream(dial::connect_to(&self.endpoint, at, self.tls).await?, BytesMut::new())
        } else {
            Pipe::Datagrams(socket_to(at).await?)
        };
        let local: SocketAddr =
            if at.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        let protocol = if self.tcp { TransportProtocol::TCP } else { TransportProtocol::UDP };
        let context = TransportContext { local_addr: local, peer_addr: at, transport_protocol: protocol, ecn: None };
        let config = ClientConfig {
            turn_serv_addr: at.to_string(),
            local_addr: local,
            transport_protocol: protocol,
            username: self.username.clone(),
            password: self.credential.expose().to_owned(),
            ..ClientConfig::default()
        };
        let failed = |error: rtc::shared::error::Error| PathError::Unreachable(error.to_string());
        let mut client = Client::new(config, probe.crypto.clone()).map_err(failed)?;
        client.allocate(Moment::present().instant).map_err(failed)?;
        let (mut relay, mut permitted) = (None, false);
        loop {
            let now = Moment::present().instant;
            while let Some(event) = client.poll_event() {
                match event {
                    Event::AllocateResponse(_, address) => {
                        relay = Some(address);
                        client.relay(address).map_err(failed)?.create_permission(now, media).map_err(failed)?;
                    }
                    Event::CreatePermissionResponse(..) => permitted = true,
                    Event::DataIndicationOrChannelData(_, _, data) if probe.is_answered_by(&data) => {
                        return self.leave(client, relay, &mut pipe).await;
                    }
                    Event::AllocateError(_, error) => return Err(refused(&error.to_string())),
                    Event::CreatePermissionError(_, error) => {
                        return Err(PathError::Forbidden { to: media, why: error.to_string() });
                    }
                    Event::TransactionTimeout(_) => return Err(PathError::Unreachable("no answer in time".to_owned())),
                    _ => {}
                }
            }
            if let (Some(address), true) = (relay, permitted) {
                // Sent in each round until it is answered: any datagram may be lost.
                client.relay(address).map_err(failed)?.send_to(now, &probe.bytes, media).map_err(failed)?;
            }
            while let Some(out) = client.poll_write() {
                pipe.send(&out.message).await?;
            }
            let now = Moment::present().instant;
            match timeout(RETRANSMIT, pipe.receive()).await {
                Ok(received) => {
                    let message = received?;
                    client.handle_read(TransportMessage { now, transport: context, message }).map_err(failed)?;
                }
                Err(_) => client.handle_timeout(Moment::present().instant).map_err(failed)?,
            }
        }
    }

    /// Releases the relayed address.
    async fn leave(&self, mut client: Client, relay: Option<SocketAddr>, pipe: &mut Pipe) -> Result<(), PathError> {
        if let Some(address) = relay
            && let Ok(mut relay) = client.relay(address)
            && let Err(error) = relay.close(Moment::present().instant)
        {
            tracing::debug!(%error, "TURN allocation not released: it expires by itself");
        }
        while let Some(out) = client.poll_write() {
            pipe.send(&out.message).await?;
        }
        Ok(())
    }
}

/// Why an allocation is refused; the crate gives the error code only in its text.
fn refused(why: &str) -> PathError {
    if why.contains("401") { PathError::Credential } else { PathError::Refused(why.to_owned()) }
}

/// The transport to the TURN server.
enum Pipe {
    Datagrams(UdpSocket),
    /// With the bytes of an incomplete message.
    Stream(Box<dyn Stream>, BytesMut),
}

impl Pipe {
    async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Datagrams(socket) => socket.send(message).await.map(drop),
            Self::Stream(stream, _) => {
                stream.write_all(message).await?;
                stream.flush().await
            }
        }
    }

    /// The next message. Cancel safe.
    async fn receive(&mut self) -> io::Result<BytesMut> {
        match self {
            Self::Datagrams(socket) => {
                let mut datagram = BytesMut::zeroed(MESSAGE_MAX);
                let length = socket.recv(&mut datagram).await?;
                datagram.truncate(length);
                Ok(datagram)
            }
            Self::Stream(stream, bytes) => loop {
                if let Some(message) = take(bytes) {
                    return Ok(message);
                }
                if bytes.len() > MESSAGE_MAX {
                    return Err(io::Error::other("it does not speak TURN"));
                }
                if stream.read_buf(bytes).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            },
        }
    }
}

/// The first whole message of a stream: STUN, or data of a channel with its padding (RFC 8656 section 12.5).
fn take(bytes: &mut BytesMut) -> Option<BytesMut> {
    let (first, length) = (*bytes.first()?, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])));
    let (whole, padded) = if first & 0xc0 == 0 {
        (STUN_HEADER + length, STUN_HEADER + length)
    } else {
        (CHANNEL_HEADER + length, (CHANNEL_HEADER + length).next_multiple_of(4))
    };
    if bytes.len() < padded {
        return None;
    }
    let message = bytes.split_to(whole);
    bytes.advance(padded - whole);
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_headers_are_parsed_for_udp_tcp_and_tls() {
        let parse = |uri: &str| {
            let link = format!(
                "<{uri}>; rel=\"ice-server\"; username=\"9:x\"; credential=\"a+/=\"; credential-type=\"password\""
            );
            TurnServer::parse(&link)
        };
        for (uri, name) in [
            ("turn:203.0.113.7:3479?transport=udp", "TURN by UDP at 203.0.113.7:3479"),
            ("turn:call.example.org", "TURN by UDP at call.example.org:3478"),
            ("turn:[2001:db8::1]:9?transport=tcp", "TURN by TCP at [2001:db8::1]:9"),
            ("turns:[2001:db8::1]?transport=tcp", "TURN by TLS at [2001:db8::1]:5349"),
        ] {
            let server = parse(uri).unwrap_or_else(|| panic!("{uri}"));
            assert_eq!(server.to_string(), name);
            assert_eq!((server.username.as_str(), server.credential.expose()), ("9:x", "a+/="));
        }
        assert_eq!(parse("stun:203.0.113.7:3478"), None);
        assert_eq!(TurnServer::parse("<turn:a>; rel=\"ice-server\""), None, "without a credential");
        assert_eq!(TurnServer::parse("turn:a"), None);
    }

    #[test]
    fn a_stream_is_split_into_messages() {
        let stun = [&[0, 1, 0, 4][..], &[7; 20]].concat();
        let channel = [0x40, 0, 0, 3, 1, 2, 3];
        let whole = [&stun[..], &channel, &[0], &stun].concat();
        let mut bytes = BytesMut::new();
        let mut taken = Vec::new();
        for byte in whole {
            bytes.extend([byte]);
            taken.extend(take(&mut bytes).map(|message| message.to_vec()));
        }
        assert_eq!(taken, [stun.clone(), channel.to_vec(), stun]);
        assert!(bytes.is_empty());
    }
}
