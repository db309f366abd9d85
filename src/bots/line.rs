//! A bot's line to the server: a UDP socket, or a connection of ICE over TCP.
//!
//! Owns: the socket, frames on a TCP connection. Does not know: what datagrams hold. What cannot leave at once is lost, as on
//! any network.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::transport::framing;

/// Longest datagram taken, in bytes.
pub(super) const DATAGRAM_MAX: usize = 2048;
/// Receive buffer asked of the kernel, in bytes: a bot that waits for its turn is not to look like a network that loses.
const SOCKET_BUFFER: usize = 1 << 20;
/// How long a TCP connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Bytes that may wait for a TCP connection.
const WAITING: usize = 256 * 1024;

pub(super) enum Line {
    Udp(UdpSocket),
    Tcp(Stream),
}

/// A TCP connection.
pub(super) struct Stream {
    stream: TcpStream,
    remote: SocketAddr,
    inward: BytesMut,
    outward: BytesMut,
    /// Nothing comes any more; ICE will notice.
    over: bool,
}

impl Line {
    /// A UDP socket on all addresses, of IPv6 too where that is wanted; with its port.
    pub(super) async fn bind(ipv6: bool) -> io::Result<(Self, u16)> {
        let any: IpAddr = if ipv6 { [0_u16; 8].into() } else { [0_u8; 4].into() };
        let socket = UdpSocket::bind((any, 0)).await?;
        // The kernel caps it silently; a smaller one works, it only drops sooner.
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER);
        let port = socket.local_addr()?.port();
        Ok((Self::Udp(socket), port))
    }

    /// A TCP connection to the first of these that takes it.
    ///
    /// # Errors
    /// In words, when none does.
    pub(super) async fn connect(to: &[SocketAddr]) -> Result<Self, String> {
        let mut last = "the answer has no candidate for TCP".to_owned();
        for remote in to {
            match timeout(CONNECT, TcpStream::connect(remote)).await.map_err(io::Error::from).flatten() {
                Ok(stream) => {
                    // Without it datagrams are late, not lost.
                    let _ = stream.set_nodelay(true);
                    let (inward, outward) = (BytesMut::new(), BytesMut::new());
                    return Ok(Self::Tcp(Stream { stream, remote: *remote, inward, outward, over: false }));
                }
                Err(error) => last = format!("no TCP connection to {remote}: {error}"),
            }
        }
        Err(last)
    }

    /// Waits until something may have come.
    pub(super) async fn readable(&self) {
        // Whatever is wrong shows in the next read.
        let _ = match self {
            Self::Udp(socket) => socket.readable().await,
            Self::Tcp(tcp) if tcp.over => std::future::pending().await,
            Self::Tcp(tcp) => tcp.stream.readable().await,
        };
    }

    /// The next datagram, and where it came from.
    pub(super) fn try_recv(&mut self, datagram: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match self {
            Self::Udp(socket) => socket.try_recv_from(datagram),
            Self::Tcp(tcp) => tcp.try_recv(datagram),
        }
    }

    /// Sends a datagram, now or never.
    pub(super) fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        match self {
            Self::Udp(socket) => drop(socket.try_send_to(datagram, to)),
            Self::Tcp(tcp) => tcp.send(datagram),
        }
    }

    /// From here on the kernel drops what comes from elsewhere, and finds the way once.
    pub(super) async fn stay_with(&self, server: SocketAddr) {
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
        if self.outward.len() < WAITING {
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
