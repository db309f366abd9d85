//! The sockets of one TURN port.
//!
//! Owns: which they are: UDP and TCP, IPv4 and IPv6, all on one number. Does not know: what goes through them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::Type;
use tokio::net::{TcpListener, UdpSocket};

use crate::net::listener;

/// How often a free number is looked for that all sockets can have.
const PORT_TRIES: usize = 16;
/// Socket buffers asked of the kernel, in bytes; it may give less.
const SOCKET_BUFFER: usize = 4 << 20;

/// Everything that listens on one number.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) port: u16,
    pub(super) udp: Vec<UdpSocket>,
    pub(super) tcp: Vec<TcpListener>,
}

/// Listens on `port` by TCP and, if `udp`, by UDP; 0 takes a free one. An unspecified address means both families, where the
/// machine has both.
///
/// # Errors
/// When one of them is taken, or cannot be had.
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
