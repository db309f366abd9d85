//! The source address of datagrams on a machine with several addresses.
//!
//! Owns: the sockets, and sending from a given address. Does not know: connections. A socket that is bound to all
//! addresses sends from the address that the kernel chooses by route. That may differ from the address that a check was
//! sent to, and ICE accepts a response only from there (RFC 8445 section 7.2.5.2.1).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};

use crate::time::{self, Timestamp};

/// How long the kernel's choice is remembered: routes rarely change, and a wrong source costs one check.
const CHOICE_EXPIRES: Duration = Duration::from_secs(10);
/// Destinations remembered at a time.
const CHOICES_MAX: usize = 4_096;

/// The media port in one address family.
#[derive(Debug, Clone)]
pub(super) struct PortSocket {
    pub(super) socket: Arc<UdpSocket>,
    pub(super) state: Arc<UdpSocketState>,
    pub(super) local: SocketAddr,
    choices: Arc<Mutex<Choices>>,
}

impl PortSocket {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        let local = socket.local_addr()?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self { socket: Arc::new(socket), state: Arc::new(state), local, choices: Arc::default() })
    }

    /// Sends a datagram without waiting; false when the kernel did not accept it.
    pub(super) fn send(&self, to: SocketAddr, datagram: &[u8]) -> bool {
        self.socket.send_to(datagram, to).is_ok()
    }

    /// Sends a datagram from this source address without waiting; false when the kernel did not accept it.
    pub(super) fn send_from(&self, source: IpAddr, to: SocketAddr, datagram: &[u8]) -> bool {
        let transmit =
            Transmit { destination: to, ecn: None, contents: datagram, segment_size: None, src_ip: Some(source) };
        self.state.try_send(UdpSockRef::from(&*self.socket), &transmit).is_ok()
    }

    /// The source address to set so that datagrams to `to` leave from the address `came_to` that received its check;
    /// None if the kernel chooses that address anyway.
    pub(super) fn source(&self, came_to: Option<IpAddr>, to: SocketAddr) -> Option<IpAddr> {
        let came_to = came_to.filter(|_| self.local.ip().is_unspecified())?;
        let choice = self.choices.lock().of(to.ip(), time::now(), kernels_choice);
        (choice != Some(came_to)).then_some(came_to)
    }
}

/// The source addresses that the kernel chose lately, by destination. Each look-up takes a socket and two system calls,
/// and every authenticated check needs one.
#[derive(Debug, Default)]
struct Choices(HashMap<IpAddr, (Option<IpAddr>, Timestamp)>);

impl Choices {
    /// The kernel's choice for a destination, which `ask` looks up if it is not known.
    fn of(&mut self, to: IpAddr, now: Timestamp, ask: impl FnOnce(IpAddr) -> Option<IpAddr>) -> Option<IpAddr> {
        if let Some((choice, at)) = self.0.get(&to)
            && now.since(*at) < CHOICE_EXPIRES
        {
            return *choice;
        }
        if self.0.len() >= CHOICES_MAX && !self.0.contains_key(&to) {
            self.0.clear();
        }
        let choice = ask(to);
        self.0.insert(to, (choice, now));
        choice
    }
}

/// The address that the kernel would send from. Nothing is sent.
fn kernels_choice(to: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // The route does not depend on the port.
    socket.connect((to, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn host(number: u32) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    #[test]
    fn the_kernel_is_asked_once_per_destination_and_interval() {
        let (mut choices, mut asked) = (Choices::default(), 0);
        for millis in (0..20_000).step_by(10) {
            let choice = choices.of(host(1), Timestamp::from_micros(millis * 1_000), |_| {
                asked += 1;
                Some(OURS)
            });
            assert_eq!(choice, Some(OURS));
        }
        assert_eq!(asked, 2);
    }

    #[test]
    fn a_destination_without_a_route_is_remembered_too() {
        let (mut choices, mut asked) = (Choices::default(), 0);
        for _ in 0..100 {
            let choice = choices.of(host(1), Timestamp::default(), |_| {
                asked += 1;
                None
            });
            assert_eq!(choice, None);
        }
        assert_eq!(asked, 1);
    }

    #[test]
    fn remembered_destinations_are_bounded() {
        let mut choices = Choices::default();
        for number in 0..100_000 {
            choices.of(host(number), Timestamp::default(), |_| Some(OURS));
        }
        assert!(choices.0.len() <= CHOICES_MAX);
    }

    #[test]
    fn the_kernel_sends_to_loopback_from_loopback() {
        assert_eq!(kernels_choice(OURS), Some(OURS));
    }
}
