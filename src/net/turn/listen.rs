//! The sockets of one TURN port.
//!
//! Owns: their creation: UDP and TCP, IPv4 and IPv6, all on one port number. Does not know: TURN.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::Type;
use tokio::net::{TcpListener, UdpSocket};

use crate::net::listener;

/// Attempts to find a free port number for all sockets.
const PORT_TRIES: usize = 16;
/// Requested size of socket buffers, in bytes; the kernel may give less.
const SOCKET_BUFFER: usize = 4 << 20;

/// The sockets of one port number.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) port: u16,
    pub(super) udp: Vec<UdpSocket>,
    pub(super) tcp: Vec<TcpListener>,
}

/// Listens on `port` for TCP and, if `udp`, for UDP; 0 chooses a free port. An unspecified address means both address
/// families, if the machine has both.
///
/// # Errors
/// When a socket cannot be bound.
pub(super) fn bind(ip: IpAddr, port: u16, udp: bool) -> io::Result<Sockets> {
    let mut tries = if port == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        match bind_once(ip, port, udp) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            done => return done,
        }
    }
}

fn bind_once(ip: IpAddr, port: u16, udp: bool) -> io::Result<Sockets> {
    let any = ip.is_unspecified();
    let first = if any { Ipv4Addr::UNSPECIFIED.into() } else { ip };
    let mut sockets = Sockets { port, udp: Vec::new(), tcp: Vec::new() };
    sockets.add(SocketAddr::new(first, port), udp)?;
    sockets.port = sockets.tcp[0].local_addr()?.port();
    if any {
        match sockets.add(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), sockets.port), udp) {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => tracing::info!(%error, "no IPv6 for TURN"),
            added => added?,
        }
    }
    Ok(sockets)
}

impl Sockets {
    fn add(&mut self, address: SocketAddr, udp: bool) -> io::Result<()> {
        let listener = listener::listen(address)?;
        if udp {
            let datagrams = listener::bind(SocketAddr::new(address.ip(), listener.local_addr()?.port()), Type::DGRAM)?;
            // The kernel caps these silently; a smaller buffer works, it only drops sooner.
            let _ = datagrams.set_recv_buffer_size(SOCKET_BUFFER);
            let _ = datagrams.set_send_buffer_size(SOCKET_BUFFER);
            self.udp.push(UdpSocket::from_std(datagrams.into())?);
        }
        self.tcp.push(listener);
        Ok(())
    }
}
