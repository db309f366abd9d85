//! The socket of a bot: UDP, or a TCP connection with framed datagrams (RFC 6544, RFC 4571).
//!
//! Owns: the socket, the framing, the bounded buffer of a TCP connection. Does not know: what datagrams contain. A
//! datagram that cannot be sent at once is lost, as on any network.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::transport::framing;

/// Longest datagram received, in bytes.
pub(super) const DATAGRAM_MAX: usize = 2048;
/// Requested receive buffer in bytes: a bot that waits for CPU must not look like a network with loss.
const SOCKET_BUFFER: usize = 1 << 20;
/// Time limit of a TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes that wait for a TCP connection; later datagrams are dropped.
const QUEUE: usize = 256 * 1024;

pub(super) enum Socket {
    Udp(UdpSocket),
    Tcp(Stream),
}

/// A TCP connection.
pub(super) struct Stream {
    stream: TcpStream,
    remote: SocketAddr,
    inward: BytesMut,
    outward: BytesMut,
    /// Closed or broken; ICE consent expires then.
    over: bool,
}

impl Socket {
    /// A UDP socket on all addresses, with IPv6 if wanted; and its port.
    pub(super) async fn bind(ipv6: bool) -> io::Result<(Self, u16)> {
        let any: IpAddr = if ipv6 { [0_u16; 8].into() } else { [0_u8; 4].into() };
        let socket = UdpSocket::bind((any, 0)).await?;
        // The kernel may cap it; a smaller buffer only drops sooner.
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER);
        let port = socket.local_addr()?.port();
        Ok((Self::Udp(socket), port))
    }

    /// A TCP connection to the first of these addresses that accepts one.
    ///
    /// # Errors
    /// In words: none accepts one.
    pub(super) async fn connect(to: &[SocketAddr]) -> Result<Self, String> {
        let mut last = "the answer has no candidate for TCP".to_owned();
        for remote in to {
            match timeout(CONNECT_TIMEOUT, TcpStream::connect(remote)).await.map_err(io::Error::from).flatten() {
                Ok(stream) => {
                    // Without TCP_NODELAY datagrams are late, not lost.
                    let _ = stream.set_nodelay(true);
                    let (inward, outward) = (BytesMut::new(), BytesMut::new());
                    return Ok(Self::Tcp(Stream { stream, remote: *remote, inward, outward, over: false }));
                }
                Err(error) => last = format!("no TCP connection to {remote}: {error}"),
            }
        }
        Err(last)
    }

    /// Waits until a datagram may be there. Cancel safe.
    pub(super) async fn readable(&self) {
        // An error shows in the next read.
        let _ = match self {
            Self::Udp(socket) => socket.readable().await,
            Self::Tcp(tcp) if tcp.over => std::future::pending().await,
            Self::Tcp(tcp) => tcp.stream.readable().await,
        };
    }

    /// The next datagram and its source; `WouldBlock` where there is none.
    pub(super) fn try_recv(&mut self, datagram: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match self {
            Self::Udp(socket) => socket.try_recv_from(datagram),
            Self::Tcp(tcp) => tcp.try_recv(datagram),
        }
    }

    /// Sends a datagram, or drops it.
    pub(super) fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        match self {
            Self::Udp(socket) => drop(socket.try_send_to(datagram, to)),
            Self::Tcp(tcp) => tcp.send(datagram),
        }
    }

    /// Connects a UDP socket: the kernel looks up the route once, and drops datagrams from elsewhere.
    pub(super) async fn connect_to(&self, server: SocketAddr) {
        if let Self::Udp(socket) = self {
            let _ = socket.connect(server).await;
        }
    }
}

impl Stream {
    fn try_recv(&mut self, datagram: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.flush();
        while !self.over {
            match framing::take(&mut self.inward, datagram.len()) {
                Ok(Some(frame)) => {
                    datagram[..frame.len()].copy_from_slice(&frame);
                    return Ok((frame.len(), self.remote));
                }
                Ok(None) => {}
                Err(framing::TooLong) => {
                    self.over = true;
                    break;
                }
            }
            self.inward.reserve(DATAGRAM_MAX);
            self.over = match self.stream.try_read_buf(&mut self.inward) {
                Ok(length) => length == 0,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                Err(_) => true,
            };
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn send(&mut self, datagram: &[u8]) {
        if self.outward.len() < QUEUE {
            framing::put(datagram, &mut self.outward);
        }
        self.flush();
    }

    fn flush(&mut self) {
        while !self.outward.is_empty() {
            match self.stream.try_write(&self.outward) {
                Ok(written) => drop(self.outward.split_to(written)),
                Err(_) => return,
            }
        }
    }
}
