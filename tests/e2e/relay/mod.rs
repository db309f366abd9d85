//! An emulated bad network: clients reach the media port of a server only through this relay.
//!
//! Owns: the sockets, one towards the server per client address, and the threads that read them. Does not know: the
//! content of packets; [`link`] decides their delay and loss. All clients of a relay share its two directions, like a
//! home connection. The relay ends when it is dropped.

mod link;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use commingle::time;

use self::link::Link;
pub(crate) use self::link::{Conditions, Counts};

/// Interval at which threads check whether the relay has ended.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Most client addresses.
const CLIENTS_MAX: usize = 64;
/// The largest datagram, in bytes.
const DATAGRAM: usize = 2_048;

pub(crate) struct Relay {
    /// The port that clients send to, on all addresses of this machine.
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    /// The directions to the server and from it; each packet has its socket and destination.
    links: Mutex<Links>,
    changed: Condvar,
    over: AtomicBool,
}

struct Links {
    up: Link<Datagram>,
    down: Link<Datagram>,
}

struct Datagram {
    by: Arc<UdpSocket>,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl Relay {
    /// A relay to the media port of a server.
    pub(crate) fn start(server: SocketAddr, up: Conditions, down: Conditions, seed: u64) -> Self {
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("ports are left"));
        socket.set_read_timeout(Some(CHECK_INTERVAL)).expect("not zero");
        let port = socket.local_addr().expect("bound").port();
        let links = Links { up: Link::new(up, seed), down: Link::new(down, !seed) };
        let shared =
            Arc::new(Shared { links: Mutex::new(links), changed: Condvar::new(), over: AtomicBool::new(false) });
        let (listening, pumping) = (Arc::clone(&shared), Arc::clone(&shared));
        thread::spawn(move || listening.listen(&socket, server));
        thread::spawn(move || pumping.pump());
        Self { port, shared }
    }

    /// Sets the downlink bandwidth if a scenario requests `link KBPS`.
    pub(crate) fn thin(&self, what: &str) {
        if let Some(kbps) = what.strip_prefix("link ") {
            let kbps = Some(kbps.parse().expect("`link KBPS`"));
            self.set(Conditions::default(), Conditions { kbps, ..Conditions::default() });
        }
    }

    /// Sets the loss in both directions if a scenario requests `loss PERCENT`.
    pub(crate) fn lose(&self, what: &str) {
        if let Some(percent) = what.strip_prefix("loss ") {
            let percent: f64 = percent.parse().expect("`loss PERCENT`");
            let lossy = Conditions { loss: percent / 100.0, ..Conditions::default() };
            self.set(lossy, lossy);
        }
    }

    /// Sets the conditions to the server and from it.
    fn set(&self, up: Conditions, down: Conditions) {
        let mut links = self.shared.links();
        let now = time::now();
        links.up.set(now, up);
        links.down.set(now, down);
        self.shared.changed.notify_all();
    }

    /// The counters of both directions, to the server and from it.
    pub(crate) fn counts(&self) -> (Counts, Counts) {
        let links = self.shared.links();
        (links.up.counts(), links.down.counts())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Receives from clients.
    fn listen(self: &Arc<Self>, socket: &Arc<UdpSocket>, server: SocketAddr) {
        let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        self.receive(socket, |client, bytes| {
            if !clients.contains_key(&client) && clients.len() < CLIENTS_MAX {
                let upstream = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("ports are left");
                upstream.set_read_timeout(Some(CHECK_INTERVAL)).expect("not zero");
                let upstream = Arc::new(upstream);
                clients.insert(client, Arc::clone(&upstream));
                let (shared, by) = (Arc::clone(self), Arc::clone(socket));
                thread::spawn(move || {
                    shared.receive(&upstream, |_, bytes| {
                        let datagram = Datagram { by: Arc::clone(&by), to: client, bytes: bytes.to_vec() };
                        shared.links().down.push(time::now(), bytes.len(), datagram);
                        shared.changed.notify_all();
                    });
                });
            }
            if let Some(by) = clients.get(&client) {
                let datagram = Datagram { by: Arc::clone(by), to: server, bytes: bytes.to_vec() };
                self.links().up.push(time::now(), bytes.len(), datagram);
                self.changed.notify_all();
            }
        });
    }

    /// Reads a socket until the relay ends.
    fn receive(&self, socket: &UdpSocket, mut each: impl FnMut(SocketAddr, &[u8])) {
        let mut bytes = [0; DATAGRAM];
        while !self.over.load(Ordering::Relaxed) {
            match socket.recv_from(&mut bytes) {
                Ok((length, from)) => each(from, &bytes[..length]),
                // The read timed out, or the destination port is closed.
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused) => {}
                Err(error) => panic!("a relay's socket: {error}"),
            }
        }
    }

    /// Forwards packets when they are due.
    fn pump(&self) {
        let mut links = self.links();
        while !self.over.load(Ordering::Relaxed) {
            let now = time::now();
            let Links { up, down } = &mut *links;
            for datagram in std::iter::from_fn(|| up.pop(now)).chain(std::iter::from_fn(|| down.pop(now))) {
                // An error means that the destination is gone.
                let _ = datagram.by.send_to(&datagram.bytes, datagram.to);
            }
            let next = [links.up.next(), links.down.next()].into_iter().flatten().min();
            let wait = next.map_or(CHECK_INTERVAL, |next| next.since(now).min(CHECK_INTERVAL));
            links = self.changed.wait_timeout(links, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
