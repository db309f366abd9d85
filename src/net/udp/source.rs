//! From which of this machine's addresses an answer leaves.
//!
//! Owns: the sockets, and sending from an address of choice. Does not know: connections. A socket that is bound to all addresses
//! sends from the one the kernel likes best; on a machine with several that need not be the one a check was sent to, and ICE
//! takes an answer only from there (RFC 8445 section 7.2.5.2.1).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// The port on one address family.
#[derive(Debug, Clone)]
pub(super) struct PortSocket {
    pub(super) socket: Arc<UdpSocket>,
    pub(super) state: Arc<UdpSocketState>,
    pub(super) local: SocketAddr,
}

impl PortSocket {
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let (local, socket) = (socket.local_addr()?, UdpSocket::from_std(socket)?);
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self { socket: Arc::new(socket), state: Arc::new(state), local })
    }

    /// Sends a datagram, now or never; false when the kernel did not take it.
    pub(super) fn send(&self, to: SocketAddr, datagram: &[u8]) -> bool {
        self.socket.try_send_to(datagram, to).is_ok()
    }

    /// The same from this address.
    pub(super) fn send_from(&self, source: IpAddr, to: SocketAddr, datagram: &[u8]) -> bool {
        let transmit =
            Transmit { destination: to, ecn: None, contents: datagram, segment_size: None, src_ip: Some(source) };
        let send = || self.state.try_send(UdpSockRef::from(&*self.socket), &transmit);
        self.socket.try_io(Interest::WRITABLE, send).is_ok()
    }

    /// The address that must be named so that what goes `to` leaves from where something came to; None where the kernel
    /// takes that one by itself.
    pub(super) fn source(&self, came_to: Option<IpAddr>, to: SocketAddr) -> Option<IpAddr> {
        let came_to = came_to.filter(|_| self.local.ip().is_unspecified())?;
        (kernels_choice(to) != Some(came_to)).then_some(came_to)
    }
}

/// The address the kernel would send from. Nothing is sent.
fn kernels_choice(to: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = std::net::UdpSocket::bind((any, 0)).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
