//! The address that others see us at, by asking a STUN server.
//!
//! Owns: the question, asked again while nothing is answered. Does not know: what is done with the answer. A socket of its own
//! asks: a NAT that maps one address to one leaves ports alone.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{UdpSocket, lookup_host};
use tokio::time::timeout;

use crate::transport::stun::{self, Transaction};

/// How long each try waits for its answer (RFC 8489 section 6.2.1, with less patience).
const TRIES: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];
/// How long the server's name may take to be looked up.
const LOOKUP: Duration = Duration::from_secs(5);

/// The addresses of this machine, one for each family that it and `server` have, as that sees them. `bind` is where media is
/// to be bound.
///
/// # Errors
/// When the server cannot be found, or answers by no family.
pub async fn public_addresses(server: &str, bind: IpAddr) -> io::Result<Vec<IpAddr>> {
    let advice = "check media.stun_server, or name the address by --public-ip";
    let found = timeout(LOOKUP, lookup_host(server)).await.map_err(io::Error::from).flatten();
    let found = found.map_err(|error| {
        io::Error::new(error.kind(), format!("the STUN server {server} cannot be found: {error}; {advice}"))
    })?;
    let found: Vec<SocketAddr> = found.collect();
    let mut addresses = Vec::new();
    for is_ipv4 in [true, false] {
        let from = match bind {
            IpAddr::V4(ip) if ip.is_unspecified() && !is_ipv4 => Ipv6Addr::UNSPECIFIED.into(),
            IpAddr::V6(ip) if ip.is_unspecified() && is_ipv4 => Ipv4Addr::UNSPECIFIED.into(),
            bind => bind,
        };
        let Some(to) = found.iter().find(|to| to.is_ipv4() == is_ipv4 && from.is_ipv4() == is_ipv4) else { continue };
        match ask(*to, from).await {
            Ok(seen) => addresses.push(seen.ip()),
            Err(error) => tracing::warn!(%to, %error, "the STUN server does not answer by this address family"),
        }
    }
    if addresses.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the STUN server {server} does not answer; {advice}"),
        ));
    }
    Ok(addresses)
}

/// Where the server sees us.
async fn ask(server: SocketAddr, from: IpAddr) -> io::Result<SocketAddr> {
    let socket = UdpSocket::bind((from, 0)).await?;
    socket.connect(server).await?;
    let transaction: Transaction = rand::random();
    let mut buffer = [0; 512];
    for patience in TRIES {
        socket.send(&stun::binding_request(&transaction)).await?;
        let answered = async {
            loop {
                let length = socket.recv(&mut buffer).await?;
                if let Some(seen) = stun::mapped_in(&buffer[..length], &transaction) {
                    return Ok(seen);
                }
            }
        };
        if let Ok(answered) = timeout(patience, answered).await {
            return answered;
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::Mux;
    use super::*;

    #[tokio::test]
    async fn our_own_port_tells_where_one_is_seen_and_silence_is_an_error() {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let mux = Mux::bind(SocketAddr::new(loopback, 0), Vec::new()).expect("binds");
        let seen = public_addresses(&mux.local_addr().to_string(), Ipv4Addr::UNSPECIFIED.into()).await;
        assert_eq!(seen.expect("answered"), [loopback]);
        let deaf = UdpSocket::bind((loopback, 0)).await.expect("binds");
        let server = deaf.local_addr().expect("bound").to_string();
        let error = public_addresses(&server, Ipv4Addr::UNSPECIFIED.into()).await.expect_err("nobody answers");
        assert!(error.to_string().contains("--public-ip"), "{error}");
    }
}
