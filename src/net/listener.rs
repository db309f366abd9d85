//! Listening sockets.
//!
//! Owns: their creation, and accepting connections in spite of errors. Does not know: protocols. Addresses enter,
//! sockets and connections leave.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// Connections that the kernel may hold until they are accepted.
const BACKLOG: i32 = 1024;
/// The pause after a failed accept: without file descriptors left the loop would spin.
const PAUSE: Duration = Duration::from_millis(100);

/// Binds a non-blocking socket of one address family only.
///
/// # Errors
/// When the address is in use or unavailable.
pub(crate) fn bind(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        // An IPv4 client then has one address only, not also ::ffff:a.b.c.d.
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // After a restart, connections of the former process are in TIME_WAIT.
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Listens on TCP; must be called within a tokio runtime.
///
/// # Errors
/// See [`bind`].
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(address, Type::STREAM)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts the next connection; errors are logged and retried. Cancellation-safe.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn address_families_are_separate_and_a_port_is_bound_once() {
        let v4 = listen("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = v4.local_addr().expect("bound");
        assert_eq!(listen(address).err().map(|error| error.kind()), Some(io::ErrorKind::AddrInUse));
        bind(address, Type::DGRAM).expect("UDP has numbers of its own");
        bind(SocketAddr::from(([0; 16], address.port())), Type::STREAM).expect("IPv6 has, too");
        let client = TcpStream::connect(address).await.expect("it listens");
        assert_eq!(accept(&v4).await.1, client.local_addr().expect("connected"));
    }
}
