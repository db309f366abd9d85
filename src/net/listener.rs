//! Sockets that wait for strangers.
//!
//! Owns: how they are made, and accepting for as long as there is somebody to accept for. Does not know: what is spoken.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// Connections that the kernel may hold until they are accepted.
const BACKLOG: i32 = 1024;
/// The pause after an error to accept: out of file descriptors it would otherwise spin.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket that is bound and does not block, of one address family only.
///
/// # Errors
/// The address is taken, or cannot be had.
pub(crate) fn bind(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        // So that an IPv4 client has one address only, not also ::ffff:a.b.c.d.
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // A server that starts again finds connections of the former one in TIME_WAIT.
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Listens by TCP; must be called within a tokio runtime.
///
/// # Errors
/// See [`bind`].
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(address, Type::STREAM)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The next connection, whatever becomes of others before it. May be given up at any time.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn families_are_apart_and_a_number_is_had_once() {
        let v4 = listen("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = v4.local_addr().expect("bound");
        assert_eq!(listen(address).err().map(|error| error.kind()), Some(io::ErrorKind::AddrInUse));
        bind(address, Type::DGRAM).expect("UDP has numbers of its own");
        bind(SocketAddr::from(([0; 16], address.port())), Type::STREAM).expect("IPv6 has, too");
        let client = TcpStream::connect(address).await.expect("it listens");
        assert_eq!(accept(&v4).await.1, client.local_addr().expect("connected"));
    }
}
