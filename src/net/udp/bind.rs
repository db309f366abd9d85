//! The sockets of the media port.
//!
//! Owns: their creation: both address families on one port number, with large buffers. Does not know: datagrams.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};

use socket2::Type;

use crate::net::listener;

/// Requested size of socket buffers, in bytes; the kernel may give less (`net.core.rmem_max`).
const SOCKET_BUFFER: usize = 8 << 20;
/// Attempts to find a free port number for both address families.
const PORT_TRIES: usize = 16;

/// A socket for the address, and for an unspecified address a second one of the other family on the same port.
pub(super) fn bind_families(address: SocketAddr) -> io::Result<(UdpSocket, Option<UdpSocket>)> {
    if !address.ip().is_unspecified() {
        return Ok((bind_socket(address)?, None));
    }
    let mut first = bind_socket(SocketAddr::from(([0, 0, 0, 0], address.port())))?;
    for _ in 0..PORT_TRIES {
        let port = first.local_addr()?.port();
        match bind_socket(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
            Ok(second) => return Ok((first, Some(second))),
            // The number is in use on IPv6: if any number will do, another is tried.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && address.port() == 0 => {
                first = bind_socket(SocketAddr::from(([0, 0, 0, 0], 0)))?;
            }
            Err(error) => {
                tracing::info!(%error, port, "no IPv6 on the media port");
                break;
            }
        }
    }
    Ok((first, None))
}

fn bind_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = listener::bind(address, Type::DGRAM)?;
    // The kernel caps these silently; a smaller buffer works, it only drops sooner.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    Ok(socket.into())
}
