//! A hostile network: a relay that loses, repeats and reorders packets and floods the server, and senders of junk.
//!
//! Owns: their sockets and threads, which end when their owners are dropped. Does not know: what is asserted.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::dice::Dice;
use crate::server::{deadline, is_over, wait};

/// Interval at which threads check whether they are to end.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// The largest datagram, in bytes.
const DATAGRAM: usize = 2_048;
/// Percent of packets that are lost, sent twice, or held back until the next one.
const LOST: u64 = 30;
const REPEATED: u64 = 5;
const REORDERED: u64 = 10;
/// Junk datagrams per second.
const JUNK_PER_SECOND: u64 = 10_000;

/// A relay of UDP, and of HTTP with the relay's port in the answers.
pub(crate) struct Storm {
    /// Where clients join.
    pub(crate) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    server: SocketAddr,
    /// The last protected media packet to the server, and the socket that sends it.
    latest: Mutex<Option<(Arc<UdpSocket>, Vec<u8>)>>,
    over: AtomicBool,
}

fn udp() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("ports are left");
    socket.set_read_timeout(Some(CHECK_INTERVAL)).expect("not zero");
    socket
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

impl Storm {
    pub(crate) fn start(http: SocketAddr, media: SocketAddr, dice: &mut Dice) -> Self {
        // With as many digits as the server's port has, since lengths in HTTP are not changed.
        let digits = |port: u16| port.to_string().len();
        let socket = std::iter::repeat_with(udp)
            .find(|socket| digits(socket.local_addr().expect("bound").port()) == digits(media.port()))
            .expect("ports are left");
        let port = socket.local_addr().expect("bound").port();
        let shared =
            Arc::new(Shared { server: local(media.port()), latest: Mutex::default(), over: AtomicBool::new(false) });
        let (relay, dice) = (Arc::clone(&shared), Dice::new(dice.roll()));
        thread::spawn(move || relay.listen(&Arc::new(socket), dice));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("ports are left");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let ports = (format!(" {} typ", media.port()), format!(" {port} typ"));
        let proxy = Arc::clone(&shared);
        thread::spawn(move || proxy.serve(&listener, http, &ports));
        Self { url, shared }
    }

    /// Sends the last media packet of a client again, from its address, as fast as possible; returns how often.
    pub(crate) fn flood(&self, duration: Duration) -> u64 {
        let latest = self.shared.latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((socket, packet)) = latest else { return 0 };
        let (end, mut sent) = (deadline(duration), 0);
        while !is_over(end) {
            // An error is a full buffer: the server does not keep up.
            sent += (0..100).filter(|_| socket.send_to(&packet, self.shared.server).is_ok()).count() as u64;
        }
        sent
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn receive(&self, socket: &UdpSocket, mut each: impl FnMut(SocketAddr, &[u8])) {
        let mut bytes = [0; DATAGRAM];
        while !self.is_over() {
            // An error is a timeout, or a destination that is gone.
            if let Ok((length, from)) = socket.recv_from(&mut bytes) {
                each(from, &bytes[..length]);
            }
        }
    }

    fn listen(self: &Arc<Self>, socket: &Arc<UdpSocket>, mut dice: Dice) {
        let mut clients: HashMap<SocketAddr, (Arc<UdpSocket>, Weather)> = HashMap::new();
        self.receive(socket, |client, bytes| {
            let (upstream, weather) = clients.entry(client).or_insert_with(|| {
                let upstream = Arc::new(udp());
                let (shared, from_server, to_client) = (Arc::clone(self), Arc::clone(&upstream), Arc::clone(socket));
                let mut weather = Weather::new(dice.roll());
                thread::spawn(move || {
                    shared.receive(&from_server, |_, bytes| {
                        weather.pass(bytes, |bytes| drop(to_client.send_to(bytes, client)));
                    });
                });
                (upstream, Weather::new(dice.roll()))
            });
            if bytes.first().is_some_and(|first| first >> 6 == 2) {
                let latest = Some((Arc::clone(upstream), bytes.to_vec()));
                *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = latest;
            }
            weather.pass(bytes, |bytes| drop(upstream.send_to(bytes, self.server)));
        });
    }

    fn serve(self: &Arc<Self>, listener: &TcpListener, http: SocketAddr, ports: &(String, String)) {
        listener.set_nonblocking(true).expect("a socket");
        while !self.is_over() {
            let Ok((client, _)) = listener.accept() else {
                wait(CHECK_INTERVAL / 10);
                continue;
            };
            let Ok(server) = TcpStream::connect(http) else { continue };
            client.set_nonblocking(false).expect("a socket");
            let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else { continue };
            let ports = ports.clone();
            // Without candidates of the client, the server cannot check the path past the relay.
            thread::spawn(move || copy(from_client, to_server, ("a=candidate:", "a=ignored__:")));
            thread::spawn(move || copy(server, client, (&ports.0, &ports.1)));
        }
    }
}

/// Copies a stream, with one text in place of another one of the same length.
fn copy(mut from: TcpStream, mut to: TcpStream, (before, after): (&str, &str)) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        let changed = match std::str::from_utf8(&bytes[..length]) {
            Ok(text) => text.replace(before, after).into_bytes(),
            Err(_) => bytes[..length].to_vec(),
        };
        if to.write_all(&changed).is_err() {
            break;
        }
    }
    // An error means that the other side is gone.
    let _ = to.shutdown(Shutdown::Write);
}

/// What happens to the packets of one direction.
struct Weather {
    dice: Dice,
    held: Option<Vec<u8>>,
}

impl Weather {
    fn new(seed: u64) -> Self {
        Self { dice: Dice::new(seed), held: None }
    }

    fn pass(&mut self, bytes: &[u8], mut send: impl FnMut(&[u8])) {
        if self.dice.percent(LOST) {
            return;
        }
        if self.held.is_none() && self.dice.percent(REORDERED) {
            self.held = Some(bytes.to_vec());
            return;
        }
        send(bytes);
        if self.dice.percent(REPEATED) {
            send(bytes);
        }
        if let Some(held) = self.held.take() {
            send(&held);
        }
    }
}

/// Sends STUN, ClientHellos, SRTP and noise to the media port from addresses that are of no session.
pub(crate) struct Junk {
    sent: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Junk {
    pub(crate) fn start(media: SocketAddr, dice: &mut Dice) -> Self {
        let (sent, over) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let mut dice = Dice::new(dice.roll());
        let (counter, ends) = (Arc::clone(&sent), Arc::clone(&over));
        thread::spawn(move || {
            let sockets: Vec<UdpSocket> = (0..16).map(|_| udp()).collect();
            while !ends.load(Ordering::Relaxed) {
                let due = deadline(CHECK_INTERVAL / 10);
                for _ in 0..JUNK_PER_SECOND / 100 {
                    let datagram = datagram(&mut dice);
                    let socket = &sockets[dice.below(sockets.len())];
                    counter.fetch_add(socket.send_to(&datagram, local(media.port())).is_ok().into(), Ordering::Relaxed);
                }
                wait(due.saturating_duration_since(deadline(Duration::ZERO)));
            }
        });
        Self { sent, over }
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Junk {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Half of them STUN.
fn datagram(dice: &mut Dice) -> Vec<u8> {
    let length = dice.below(200);
    let mut datagram = dice.bytes(length);
    let head: &[u8] = match dice.below(8) {
        // A Binding request and response with the magic cookie (RFC 8489), USERNAME behind it.
        0..=2 => &[0, 1, 0, 16, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 6, 0, 9],
        3 => &[1, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42],
        // A handshake record of DTLS 1.2 with a ClientHello.
        4 | 5 => &[22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 1, 0, 64, 1],
        // RTP with payload type 96, RTCP with a receiver report.
        6 => &[0x80, 96],
        _ => &[0x81, 201, 0, 7],
    };
    let length = head.len().min(datagram.len());
    datagram.splice(..length, head.iter().copied());
    datagram
}
