//! The tests' own bad network: clients reach a server's media port only through it.
//!
//! Owns: the sockets, one towards the server for each address of a client's, and the threads that wait for them. Does not
//! know: what is in a packet; how long one takes, and whether it arrives at all, is [`way`]'s. All clients of a relay share
//! its two directions, as people at home share theirs. It ends when it is dropped.

mod way;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use commingle::time;

use self::way::Way;
pub(crate) use self::way::{Conditions, Counts};

/// Threads look so often whether the relay is over.
const LOOK: Duration = Duration::from_millis(100);
/// Addresses of clients at most.
const CLIENTS_MAX: usize = 64;
/// The largest datagram.
const DATAGRAM: usize = 2_048;

pub(crate) struct Relay {
    /// Where clients send to, on all of this machine's addresses.
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    /// Towards the server, and from it; with each packet the socket that sends it on, and where to.
    ways: Mutex<Ways>,
    changed: Condvar,
    over: AtomicBool,
}

struct Ways {
    up: Way<Datagram>,
    down: Way<Datagram>,
}

struct Datagram {
    by: Arc<UdpSocket>,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl Relay {
    /// A relay to this server's media port.
    pub(crate) fn start(server: SocketAddr, up: Conditions, down: Conditions, seed: u64) -> Self {
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("ports are left"));
        socket.set_read_timeout(Some(LOOK)).expect("not zero");
        let port = socket.local_addr().expect("bound").port();
        let ways = Ways { up: Way::new(up, seed), down: Way::new(down, !seed) };
        let shared = Arc::new(Shared { ways: Mutex::new(ways), changed: Condvar::new(), over: AtomicBool::new(false) });
        let (listening, pumping) = (Arc::clone(&shared), Arc::clone(&shared));
        thread::spawn(move || listening.listen(&socket, server));
        thread::spawn(move || pumping.pump());
        Self { port, shared }
    }

    /// Has the link carry so much from now on, downwards, if that is what a scenario asks: `link KBPS`.
    pub(crate) fn thin(&self, what: &str) {
        if let Some(kbps) = what.strip_prefix("link ") {
            let kbps = Some(kbps.parse().expect("`link KBPS`"));
            self.set(Conditions::default(), Conditions { kbps, ..Conditions::default() });
        }
    }

    /// Has so many packets be lost from now on, both ways, if that is what a scenario asks: `loss PERCENT`.
    pub(crate) fn lose(&self, what: &str) {
        if let Some(percent) = what.strip_prefix("loss ") {
            let percent: f64 = percent.parse().expect("`loss PERCENT`");
            let lossy = Conditions { loss: percent / 100.0, ..Conditions::default() };
            self.set(lossy, lossy);
        }
    }

    /// How it is from now on, to the server and from it.
    fn set(&self, up: Conditions, down: Conditions) {
        let mut ways = self.shared.ways();
        let now = time::now();
        ways.up.set(now, up);
        ways.down.set(now, down);
        self.shared.changed.notify_all();
    }

    /// What became of the packets so far, to the server and from it.
    pub(crate) fn counts(&self) -> (Counts, Counts) {
        let ways = self.shared.ways();
        (ways.up.counts(), ways.down.counts())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn ways(&self) -> MutexGuard<'_, Ways> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what clients send.
    fn listen(self: &Arc<Self>, socket: &Arc<UdpSocket>, server: SocketAddr) {
        let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        self.receive(socket, |client, bytes| {
            if !clients.contains_key(&client) && clients.len() < CLIENTS_MAX {
                let upstream = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("ports are left");
                upstream.set_read_timeout(Some(LOOK)).expect("not zero");
                let upstream = Arc::new(upstream);
                clients.insert(client, Arc::clone(&upstream));
                let (shared, by) = (Arc::clone(self), Arc::clone(socket));
                thread::spawn(move || {
                    shared.receive(&upstream, |_, bytes| {
                        let datagram = Datagram { by: Arc::clone(&by), to: client, bytes: bytes.to_vec() };
                        shared.ways().down.push(time::now(), bytes.len(), datagram);
                        shared.changed.notify_all();
                    });
                });
            }
            if let Some(by) = clients.get(&client) {
                let datagram = Datagram { by: Arc::clone(by), to: server, bytes: bytes.to_vec() };
                self.ways().up.push(time::now(), bytes.len(), datagram);
                self.changed.notify_all();
            }
        });
    }

    /// Reads a socket until the relay is over.
    fn receive(&self, socket: &UdpSocket, mut each: impl FnMut(SocketAddr, &[u8])) {
        let mut bytes = [0; DATAGRAM];
        while !self.over.load(Ordering::Relaxed) {
            match socket.recv_from(&mut bytes) {
                Ok((length, from)) => each(from, &bytes[..length]),
                // Nothing came for a while, or somebody has closed the port that was sent to.
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused) => {}
                Err(error) => panic!("a relay's socket: {error}"),
            }
        }
    }

    /// Sends on what has arrived, when it has.
    fn pump(&self) {
        let mut ways = self.ways();
        while !self.over.load(Ordering::Relaxed) {
            let now = time::now();
            let Ways { up, down } = &mut *ways;
            for datagram in std::iter::from_fn(|| up.pop(now)).chain(std::iter::from_fn(|| down.pop(now))) {
                // Whoever has gone meanwhile gets nothing, as anywhere.
                let _ = datagram.by.send_to(&datagram.bytes, datagram.to);
            }
            let next = [ways.up.next(), ways.down.next()].into_iter().flatten().min();
            let wait = next.map_or(LOOK, |next| next.since(now).min(LOOK));
            ways = self.changed.wait_timeout(ways, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
