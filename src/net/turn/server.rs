//! The TURN protocol (RFC 8656) of a relay whose only peer is our own media port. Sans-IO.
//!
//! Owns: allocations, their permissions, channels and [paths](Path), the quotas, and the responses. Does not know:
//! sockets, the transfer of data. Messages and time enter by [`Server::received`], an [`Outcome`] leaves; effects on
//! paths are fetched by [`Server::poll_effect`]. Memory is bounded by [`Limits`]; unsigned requests take none.
//!
//! A peer that is not one of our media addresses is refused, so that this is no open relay. The relayed address is
//! therefore only an identifier: our address with a port number that no socket has.

mod answers;
mod terms;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use self::answers::{
    BAD_REQUEST, FORBIDDEN, FULL, MISMATCH, Refusal, WRONG_FAMILY, allocated, lifetime, refuse_unknown,
};
pub(super) use self::terms::{Client, Counts, Effect, Flow, Limits, Now, Outcome, Path, Reason};
use super::credentials::{Credentials, Key, REALM, Standing};
use super::message::{Message, Method, Writer, channel_data, kind};
use crate::net::rate_limit::{RateLimiter, source_network};
use crate::time::Timestamp;
use crate::transport::stun::{Class, Transaction};

/// Lifetime of a permission (RFC 8656 section 9).
const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);
/// Lifetime of a channel binding (RFC 8656 section 12).
const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);
/// Peers (media addresses) of one allocation at most.
const PEERS_MAX: usize = 16;
/// First port number of relayed addresses: the dynamic ports.
const FIRST_PORT: u16 = 49_152;
/// Channel numbers: those of RFC 8656 and of RFC 5766 before it. Nothing but TURN comes to this port.
const CHANNELS: std::ops::RangeInclusive<u16> = 0x4000..=0x7ffe;
/// Protocol number of UDP, the only transport that is relayed.
const UDP: u8 = 17;
/// Unsigned requests answered per second and source network, and as a burst.
const UNSIGNED_PER_SECOND: u32 = 20;
const UNSIGNED_BURST: u32 = 100;

struct Allocation {
    user: String,
    key: Key,
    /// The transaction that made it: when it is received again, the response was lost.
    transaction: Transaction,
    relayed: SocketAddr,
    expires: Timestamp,
    permissions: HashMap<IpAddr, Timestamp>,
    peers: HashMap<SocketAddr, Peer>,
}

/// A media address that the client sends to.
#[derive(Debug)]
struct Peer {
    path: Path,
    channel: Option<(u16, Timestamp)>,
}

/// All allocations.
pub(super) struct Server {
    credentials: Arc<Credentials>,
    limits: Limits,
    media: Vec<SocketAddr>,
    allocations: HashMap<Client, Allocation>,
    /// Port numbers in use, of relayed addresses and of paths.
    ports: HashSet<u16>,
    next_port: u16,
    users: HashMap<String, usize>,
    addresses: HashMap<IpAddr, usize>,
    unsigned: RateLimiter,
    effects: VecDeque<Effect>,
    counts: Counts,
}

impl Server {
    /// A server for the users of `credentials`, relaying to these media addresses.
    pub(super) fn new(credentials: Arc<Credentials>, limits: Limits, media: Vec<SocketAddr>) -> Self {
        Self {
            credentials,
            limits,
            media: canonical(media),
            allocations: HashMap::new(),
            ports: HashSet::new(),
            next_port: FIRST_PORT,
            users: HashMap::new(),
            addresses: HashMap::new(),
            unsigned: RateLimiter::new(UNSIGNED_PER_SECOND, UNSIGNED_BURST),
            effects: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// Sets the media addresses; paths to removed addresses end with their permissions.
    pub(super) fn set_media(&mut self, media: Vec<SocketAddr>) {
        self.media = canonical(media);
    }

    /// Counters since the start.
    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    /// The number of allocations.
    pub(super) fn allocations(&self) -> usize {
        self.allocations.len()
    }

    /// Whether this client has an allocation.
    pub(super) fn has_allocation(&self, client: &Client) -> bool {
        self.allocations.contains_key(client)
    }

    /// Handles one message of a client.
    pub(super) fn received<'a>(&mut self, now: Now, client: Client, bytes: &'a [u8]) -> Outcome<'a> {
        match bytes.first() {
            Some(0x00..=0x3f) => match Message::parse(bytes) {
                Some(message) => self.message(now, client, &message),
                None => Outcome::Drop(Reason::Malformed),
            },
            Some(0x40..=0x7f) => self.channel_data(now, &client, bytes),
            _ => Outcome::Drop(Reason::Malformed),
        }
    }

    /// The next effect, oldest first.
    pub(super) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The client's connection has ended; its allocation is removed.
    pub(super) fn closed(&mut self, client: &Client) {
        let Some(allocation) = self.allocations.remove(client) else { return };
        self.ports.remove(&allocation.relayed.port());
        for peer in allocation.peers.into_values() {
            self.ports.remove(&peer.path);
            self.effects.push_back(Effect::Closed { path: peer.path });
        }
        uncount(&mut self.users, &allocation.user);
        uncount(&mut self.addresses, &source_network(client.address.ip()));
    }

    /// Removes expired allocations, permissions and channels, and the allocations of ended sessions.
    pub(super) fn sweep(&mut self, at: Timestamp) {
        let users: HashSet<String> = self.credentials.sweep(at).into_iter().collect();
        let over = self.allocations.iter().filter(|(_, allocation)| users.contains(&allocation.user));
        for client in over.map(|(client, _)| *client).collect::<Vec<_>>() {
            self.closed(&client);
            self.effects.push_back(Effect::Over { client });
        }
        let over = self.allocations.iter().filter(|(_, allocation)| allocation.expires <= at);
        for client in over.map(|(client, _)| *client).collect::<Vec<_>>() {
            self.closed(&client);
        }
        for allocation in self.allocations.values_mut() {
            allocation.permissions.retain(|_, expires| *expires > at);
            let permissions = &allocation.permissions;
            for path in
                allocation.peers.extract_if(|peer, _| !permissions.contains_key(&peer.ip())).map(|(_, peer)| peer.path)
            {
                if path != allocation.relayed.port() {
                    self.ports.remove(&path);
                }
                self.effects.push_back(Effect::Closed { path });
            }
            for peer in allocation.peers.values_mut() {
                if peer.channel.is_some_and(|(_, expires)| expires <= at) {
                    peer.channel = None;
                    self.effects.push_back(Effect::Channel { path: peer.path, number: None });
                }
            }
        }
    }

    fn message<'a>(&mut self, now: Now, client: Client, message: &Message<'a>) -> Outcome<'a> {
        match (message.class, message.method) {
            (Class::Request, Method::BINDING) => self.binding(now, client, message),
            (Class::Request, Method::ALLOCATE | Method::REFRESH | Method::CREATE_PERMISSION | Method::CHANNEL_BIND) => {
                self.request(now, client, message)
            }
            (Class::Indication, Method::SEND) => self.send(now, client, message),
            _ => Outcome::Drop(Reason::Malformed),
        }
    }

    /// The response of a plain STUN server.
    fn binding<'a>(&mut self, now: Now, client: Client, message: &Message<'_>) -> Outcome<'a> {
        if self.unsigned.take(client.address.ip(), now.at).is_err() {
            return Outcome::Drop(Reason::Limited);
        }
        let unknown = message.unknown();
        if !unknown.is_empty() {
            return Outcome::Answer(refuse_unknown(message, &unknown).finish());
        }
        let answer = Writer::new(message.method, Class::Success, message.transaction);
        Outcome::Answer(answer.address(kind::XOR_MAPPED_ADDRESS, client.address).finish())
    }

    fn request<'a>(&mut self, now: Now, client: Client, message: &Message<'_>) -> Outcome<'a> {
        let (user, key) = match self.authenticate(now, client, message) {
            Ok(known) => known,
            Err(Refusal(code, reason)) => return self.challenge(now, client, message, code, reason),
        };
        let unknown = message.unknown();
        let answer = if !unknown.is_empty() {
            refuse_unknown(message, &unknown)
        } else {
            let done = match message.method {
                Method::ALLOCATE => self.allocate(now, client, message, user, key),
                Method::REFRESH => self.refresh(now, client, message),
                Method::CREATE_PERMISSION => self.permit(now, client, message),
                _ => self.bind_channel(now, client, message),
            };
            done.unwrap_or_else(|refusal| {
                match refusal.0 {
                    403 => self.counts.forbidden += 1,
                    486 | 508 => self.counts.over_quota += 1,
                    _ => {}
                }
                Writer::new(message.method, Class::Error, message.transaction).error(refusal.0, refusal.1)
            })
        };
        Outcome::Answer(answer.sign(&key, self.credentials.crypto()))
    }

    /// Authenticates a request (RFC 8489 section 9.2.4).
    fn authenticate(&self, now: Now, client: Client, message: &Message<'_>) -> Result<(String, Key), Refusal> {
        const UNAUTHORIZED: Refusal = Refusal(401, "Unauthorized");
        if !message.has_integrity() {
            return Err(UNAUTHORIZED);
        }
        let text = |kind| message.text(kind).ok_or(BAD_REQUEST);
        let (user, realm, nonce) = (text(kind::USERNAME)?, text(kind::REALM)?, text(kind::NONCE)?);
        if !self.credentials.is_fresh(nonce, client.address.ip(), now.unix) {
            return Err(Refusal(438, "Stale Nonce"));
        }
        let standing = self.credentials.standing(user, now.unix);
        if realm != REALM || standing == Standing::Gone {
            return Err(UNAUTHORIZED);
        }
        let allocation = self.allocations.get(&client);
        let known = allocation.filter(|allocation| allocation.user == user);
        let key = known.map_or_else(|| self.credentials.key(user), |allocation| allocation.key);
        if !message.is_signed_with(&key, self.credentials.crypto()) {
            return Err(UNAUTHORIZED);
        }
        if message.method != Method::ALLOCATE && allocation.is_some() && known.is_none() {
            return Err(Refusal(441, "Wrong Credentials"));
        }
        let ends = message.method == Method::REFRESH && lifetime(message).is_zero();
        if standing == Standing::Leaving && !(ends && known.is_some()) {
            return Err(UNAUTHORIZED);
        }
        Ok((user.to_owned(), key))
    }

    /// The response to an unauthenticated request; unsigned, because there is no common key.
    fn challenge<'a>(
        &mut self,
        now: Now,
        client: Client,
        message: &Message<'_>,
        code: u16,
        reason: &str,
    ) -> Outcome<'a> {
        if message.has_integrity() && code == 401 {
            self.counts.unauthorized += 1;
        }
        if self.unsigned.take(client.address.ip(), now.at).is_err() {
            return Outcome::Drop(Reason::Limited);
        }
        let mut answer = Writer::new(message.method, Class::Error, message.transaction).error(code, reason);
        if matches!(code, 401 | 438) {
            let nonce = self.credentials.nonce(client.address.ip(), now.unix);
            answer = answer.attribute(kind::REALM, REALM.as_bytes()).attribute(kind::NONCE, nonce.as_bytes());
        }
        Outcome::Answer(answer.finish())
    }

    fn allocate(
        &mut self,
        now: Now,
        client: Client,
        message: &Message<'_>,
        user: String,
        key: Key,
    ) -> Result<Writer, Refusal> {
        if let Some(allocation) = self.allocations.get(&client) {
            let again = allocation.transaction == message.transaction && allocation.user == user;
            return if again { Ok(allocated(message, client, allocation, now.at)) } else { Err(MISMATCH) };
        }
        match message.get(kind::REQUESTED_TRANSPORT) {
            Some([UDP, ..]) => {}
            Some([_, ..]) => return Err(Refusal(442, "Unsupported Transport Protocol")),
            _ => return Err(BAD_REQUEST),
        }
        let (token, even) = (message.get(kind::RESERVATION_TOKEN), message.get(kind::EVEN_PORT));
        let family = message.get(kind::REQUESTED_ADDRESS_FAMILY);
        if token.is_some() && (even.is_some() || family.is_some()) || even.is_some_and(|even| even.len() != 1) {
            return Err(BAD_REQUEST);
        }
        // Port pairs are not reserved: RTP and RTCP share one port.
        if token.is_some() || even.is_some_and(|even| even[0] & 0x80 != 0) {
            return Err(FULL);
        }
        let ip = self.relayed_ip(family)?;
        let count = |counted: Option<&usize>| counted.copied().unwrap_or(0);
        if count(self.users.get(&user)) >= self.limits.per_user
            || count(self.addresses.get(&source_network(client.address.ip()))) >= self.limits.per_address
        {
            return Err(Refusal(486, "Allocation Quota Reached"));
        }
        if self.allocations.len() >= self.limits.allocations {
            return Err(FULL);
        }
        let port = self.take_port(even.is_some()).ok_or(FULL)?;
        let allocation = Allocation {
            user: user.clone(),
            key,
            transaction: message.transaction,
            relayed: SocketAddr::new(ip, port),
            expires: now.at + lifetime(message),
            permissions: HashMap::new(),
            peers: HashMap::new(),
        };
        let answer = allocated(message, client, &allocation, now.at);
        self.allocations.insert(client, allocation);
        *self.users.entry(user).or_default() += 1;
        *self.addresses.entry(source_network(client.address.ip())).or_default() += 1;
        self.counts.allocated += 1;
        Ok(answer)
    }

    /// Our address of the requested family; without a request IPv4, or IPv6 if that is all there is.
    fn relayed_ip(&self, family: Option<&[u8]>) -> Result<IpAddr, Refusal> {
        let ours = |ipv4: bool| self.media.iter().map(SocketAddr::ip).find(|ip| ip.is_ipv4() == ipv4);
        let ip = match family {
            None => ours(true).or_else(|| ours(false)),
            Some([1, ..]) => ours(true),
            Some([2, ..]) => ours(false),
            Some(_) => None,
        };
        ip.ok_or(Refusal(440, "Address Family not Supported"))
    }

    fn take_port(&mut self, even: bool) -> Option<u16> {
        let count = usize::from(u16::MAX - FIRST_PORT) + 1;
        for _ in 0..count {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            if !(even && port % 2 == 1) && self.ports.insert(port) {
                return Some(port);
            }
        }
        None
    }

    fn refresh(&mut self, now: Now, client: Client, message: &Message<'_>) -> Result<Writer, Refusal> {
        let allocation = self.allocations.get_mut(&client).ok_or(MISMATCH)?;
        if let Some(family) = message.get(kind::REQUESTED_ADDRESS_FAMILY)
            && family.first() != Some(if allocation.relayed.is_ipv4() { &1 } else { &2 })
        {
            return Err(WRONG_FAMILY);
        }
        let lifetime = lifetime(message);
        allocation.expires = now.at + lifetime;
        if lifetime.is_zero() {
            self.closed(&client);
        }
        let answer = Writer::new(message.method, Class::Success, message.transaction);
        Ok(answer.attribute(kind::LIFETIME, &(lifetime.as_secs() as u32).to_be_bytes()))
    }

    fn permit(&mut self, now: Now, client: Client, message: &Message<'_>) -> Result<Writer, Refusal> {
        let allocation = self.allocations.get_mut(&client).ok_or(MISMATCH)?;
        let peers: Option<Vec<SocketAddr>> = message.addresses(kind::XOR_PEER_ADDRESS).collect();
        let peers = peers.filter(|peers| !peers.is_empty()).ok_or(BAD_REQUEST)?;
        // All or none (RFC 8656 section 10.2).
        for peer in &peers {
            if peer.is_ipv4() != allocation.relayed.is_ipv4() {
                return Err(WRONG_FAMILY);
            }
            if !self.media.iter().any(|media| media.ip() == peer.ip()) {
                return Err(FORBIDDEN);
            }
        }
        for peer in peers {
            allocation.permissions.insert(peer.ip(), now.at + PERMISSION_LIFETIME);
        }
        Ok(Writer::new(message.method, Class::Success, message.transaction))
    }

    fn bind_channel(&mut self, now: Now, client: Client, message: &Message<'_>) -> Result<Writer, Refusal> {
        let allocation = self.allocations.get(&client).ok_or(MISMATCH)?;
        let number = message.number(kind::CHANNEL_NUMBER).map(|value| (value >> 16) as u16);
        let number = number.filter(|number| CHANNELS.contains(number)).ok_or(BAD_REQUEST)?;
        let peer = message.addresses(kind::XOR_PEER_ADDRESS).next().flatten().ok_or(BAD_REQUEST)?;
        if peer.is_ipv4() != allocation.relayed.is_ipv4() {
            return Err(WRONG_FAMILY);
        }
        if !self.media.contains(&peer) {
            return Err(FORBIDDEN);
        }
        let taken = |(known, state): (&SocketAddr, &Peer)| {
            state.channel.is_some_and(|(bound, _)| (bound == number) != (*known == peer))
        };
        if allocation.peers.iter().any(taken) {
            return Err(Refusal(400, "The channel or the peer is bound otherwise"));
        }
        let path = self.path(client, peer).ok_or(FULL)?;
        let allocation = self.allocations.get_mut(&client).expect("it was found above");
        allocation.permissions.insert(peer.ip(), now.at + PERMISSION_LIFETIME);
        let state = allocation.peers.get_mut(&peer).expect("it has a path");
        if state.channel.replace((number, now.at + CHANNEL_LIFETIME)).is_none() {
            self.effects.push_back(Effect::Channel { path, number: Some(number) });
        }
        Ok(Writer::new(message.method, Class::Success, message.transaction))
    }

    fn send<'a>(&mut self, now: Now, client: Client, message: &Message<'a>) -> Outcome<'a> {
        let peer = message.addresses(kind::XOR_PEER_ADDRESS).next().flatten();
        let (Some(peer), Some(data)) = (peer, message.get(kind::DATA)) else { return Outcome::Drop(Reason::Malformed) };
        let allowed = self
            .allocations
            .get(&client)
            .is_some_and(|allocation| allocation.permissions.get(&peer.ip()).is_some_and(|expires| *expires > now.at));
        if !allowed || !message.unknown().is_empty() || !self.media.contains(&peer) {
            return Outcome::Drop(Reason::NotAllowed);
        }
        match self.path(client, peer) {
            Some(path) => Outcome::Relay(path, data),
            None => Outcome::Drop(Reason::NotAllowed),
        }
    }

    fn channel_data<'a>(&self, now: Now, client: &Client, bytes: &'a [u8]) -> Outcome<'a> {
        let Some((number, data)) = channel_data(bytes) else { return Outcome::Drop(Reason::Malformed) };
        let peer = self.allocations.get(client).and_then(|allocation| {
            let live = |peer: &&Peer| peer.channel.is_some_and(|(bound, expires)| bound == number && expires > now.at);
            allocation.peers.values().find(live)
        });
        peer.map_or(Outcome::Drop(Reason::NotAllowed), |peer| Outcome::Relay(peer.path, data))
    }

    /// The path between client and peer, opened if necessary. Each media address sees the client at a port of its own,
    /// as behind a symmetric NAT, so that the path back is unambiguous.
    fn path(&mut self, client: Client, peer: SocketAddr) -> Option<Path> {
        let allocation = self.allocations.get(&client)?;
        if let Some(known) = allocation.peers.get(&peer) {
            return Some(known.path);
        }
        if allocation.peers.len() >= PEERS_MAX {
            return None;
        }
        let relayed = allocation.relayed;
        let first = allocation.peers.values().all(|known| known.path != relayed.port());
        let path = if first { relayed.port() } else { self.take_port(false)? };
        let relayed = SocketAddr::new(relayed.ip(), path);
        self.allocations.get_mut(&client)?.peers.insert(peer, Peer { path, channel: None });
        self.effects.push_back(Effect::Opened { path, client, relayed, peer });
        Some(path)
    }
}

fn canonical(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    addresses.into_iter().map(|address| SocketAddr::new(address.ip().to_canonical(), address.port())).collect()
}

fn uncount<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
