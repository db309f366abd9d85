//! Our public addresses, discovered by a STUN server.
//!
//! Owns: the requests, retransmitted without an answer and repeated at an interval, because some networks change their
//! address every night. Does not know: candidates. Answers leave as addresses. The requests use a socket of their own:
//! a 1:1 NAT keeps port numbers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::{UdpSocket, lookup_host};
use tokio::time::{sleep, timeout};

use super::Mux;
use crate::transport::stun::{self, Transaction};

/// Timeouts of the requests (RFC 8489 section 6.2.1, with shorter timeouts).
const TRIES: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];
/// Interval of the discovery. After an address change clients restart ICE until the new address is known.
const AGAIN: Duration = Duration::from_secs(60);
/// Timeout of the name look-up.
const LOOKUP: Duration = Duration::from_secs(5);

/// The public addresses of this machine as `server` sees them, one per common address family. `bind` is the bind
/// address of media.
///
/// # Errors
/// When the server's name cannot be resolved, or it answers by no address family.
pub async fn public_addresses(server: &str, bind: IpAddr) -> io::Result<Vec<IpAddr>> {
    let (addresses, unanswered) = seen(server, bind).await?;
    for (to, error) in unanswered {
        tracing::warn!(%to, %error, "no answer from the STUN server by this address family");
    }
    Ok(addresses)
}

/// The same, and which of the server's addresses did not answer.
async fn seen(server: &str, bind: IpAddr) -> io::Result<(Vec<IpAddr>, Vec<(SocketAddr, io::Error)>)> {
    let advice = "check media.stun_server, or set the address by --public-ip";
    let found = timeout(LOOKUP, lookup_host(server)).await.map_err(io::Error::from).flatten();
    let found = found.map_err(|error| {
        io::Error::new(error.kind(), format!("STUN server {server}: name look-up failed: {error}; {advice}"))
    })?;
    let found: Vec<SocketAddr> = found.collect();
    let (mut addresses, mut unanswered) = (Vec::new(), Vec::new());
    for is_ipv4 in [true, false] {
        let from = match bind {
            IpAddr::V4(ip) if ip.is_unspecified() && !is_ipv4 => Ipv6Addr::UNSPECIFIED.into(),
            IpAddr::V6(ip) if ip.is_unspecified() && is_ipv4 => Ipv4Addr::UNSPECIFIED.into(),
            bind => bind,
        };
        let Some(to) = found.iter().find(|to| to.is_ipv4() == is_ipv4 && from.is_ipv4() == is_ipv4) else { continue };
        match ask(*to, from).await {
            Ok(seen) => addresses.push(seen.ip()),
            Err(error) => unanswered.push((*to, error)),
        }
    }
    if addresses.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the STUN server {server} does not answer; {advice}"),
        ));
    }
    Ok((addresses, unanswered))
}

/// Asks every minute, until the port is closed, and advertises another address when there is one.
pub async fn watch_public_addresses(mux: Weak<Mux>, server: String, bind: IpAddr) {
    loop {
        sleep(AGAIN).await;
        // After a failure the addresses stay as they are until the next request.
        let seen = seen(&server, bind).await;
        let Some(mux) = mux.upgrade() else { return };
        match seen {
            Ok((seen, _)) => renew(&mux, &server, &seen),
            Err(error) => tracing::debug!(%error, "the public address could not be checked"),
        }
    }
}

/// Advertises the seen addresses; an address of a family without a seen address stays.
fn renew(mux: &Arc<Mux>, server: &str, seen: &[IpAddr]) {
    let before = mux.public.load_full();
    let mut now = seen.to_vec();
    now.extend(before.iter().filter(|known| !seen.iter().any(|seen| seen.is_ipv4() == known.is_ipv4())));
    if now != *before {
        tracing::warn!(?before, ?now, server, "the public address has changed: the new one is advertised to clients");
        mux.set_public(now);
    }
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

    use super::*;

    #[tokio::test]
    async fn our_own_port_tells_where_one_is_seen_and_silence_is_an_error() {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let mux = Mux::bind(SocketAddr::new(loopback, 0), Vec::new()).expect("binds");
        let _receiving = mux.receive_in_background();
        let seen = public_addresses(&mux.local_addr().to_string(), Ipv4Addr::UNSPECIFIED.into()).await;
        assert_eq!(seen.expect("answered"), [loopback]);
        let deaf = UdpSocket::bind((loopback, 0)).await.expect("binds");
        let server = deaf.local_addr().expect("bound").to_string();
        let error = public_addresses(&server, Ipv4Addr::UNSPECIFIED.into()).await.expect_err("nobody answers");
        assert!(error.to_string().contains("--public-ip"), "{error}");
    }

    #[tokio::test]
    async fn who_is_seen_elsewhere_tells_that_and_keeps_what_is_not_seen() {
        let [old, other, new] =
            ["198.51.100.1", "2001:db8::1", "198.51.100.2"].map(|ip| ip.parse().expect("an address"));
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let mux = Mux::bind(SocketAddr::new(loopback, 0), vec![old, other]).expect("binds");
        let advertised = || mux.advertised_addresses().iter().map(SocketAddr::ip).collect::<Vec<_>>();
        renew(&mux, "stun", &[old]);
        assert_eq!(advertised(), [old, other]);
        renew(&mux, "stun", &[new]);
        assert_eq!(advertised(), [new, other]);
        assert!(mux.candidates().iter().any(|line| line.contains("198.51.100.2")));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_asked_again_until_the_port_is_gone() {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let server = Mux::bind(SocketAddr::new(loopback, 0), Vec::new()).expect("binds");
        let _receiving = server.receive_in_background();
        let mux = Mux::bind(SocketAddr::new(loopback, 0), vec![IpAddr::from([198, 51, 100, 1])]).expect("binds");
        let watched =
            tokio::spawn(watch_public_addresses(Arc::downgrade(&mux), server.local_addr().to_string(), loopback));
        // Time stands still while this yields, so the answer is in time.
        tokio::task::yield_now().await;
        tokio::time::advance(AGAIN).await;
        while mux.advertised_addresses() != [mux.local_addr()] {
            tokio::task::yield_now().await;
        }
        drop(mux);
        watched.await.expect("it ends by itself");
    }
}
