//! The demultiplexing table: from ICE user fragments and addresses to connections. No I/O.
//!
//! Owns: the rule that only STUN names a connection, and that all other datagrams (DTLS, SRTP, SRTCP) reach a
//! connection only from an address that the connection owns. An address counts together with its path ([`Via`]). Does
//! not know: sockets. STUN enters by [`Table::classify_stun`], other datagrams by [`by_address`]; verdicts leave.
//!
//! Ownership of an address:
//! - An address without an owner belongs to the first connection for which a correctly signed check arrives from there.
//! - An address with an owner changes owner only when it answers a check of the new owner: the sender of a request can
//!   forge its address, but only the host at the address receives our check and can sign its answer.
//! - Until then a request is delivered, so that the new connection can answer it and send its own check.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::RwLock;
use rtc::crypto::RTCCryptoProvider;
use tokio::sync::Notify;

use super::Key;
use super::inbox::Inbox;
use super::tunnels::{Exit, Outbound, Routes, TunnelId, Via};
use crate::transport::stun::{Class, Message, Transaction};

/// Addresses that one connection may own; a browser has few interfaces. The one validated longest ago is removed first.
const ADDRESSES_MAX: usize = 16;
/// Checks per connection whose answers are awaited: 32 candidates, retransmitted for some seconds.
const CHECKS_MAX: usize = 256;

/// What to do with a datagram.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Deliver it to this connection.
    Deliver(Arc<Inbox>, Key),
    /// Deliver this check, which arrived by UDP; the response leaves from the address that received it.
    Check(Arc<Inbox>, Key, Arc<Routes>),
    /// Answer this plain STUN request with the address it came from.
    AnswerStun(Transaction),
    /// Drop it.
    Drop(Reason),
}

/// Why a datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Malformed STUN, or STUN of another method than Binding.
    Malformed,
    /// A check for an unknown user fragment.
    UnknownUfrag,
    /// A check or response whose MESSAGE-INTEGRITY is missing or wrong, or a response to no check of ours.
    Unauthenticated,
    /// Not STUN, from an address that no connection owns.
    Unvalidated,
    /// The connection has no inbox yet.
    NoInbox,
}

/// The connection that owns an address, and its inbox.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub(super) key: Key,
    pub(super) inbox: Option<Arc<Inbox>>,
    /// It has answered a check of the connection. A request proves less: its source address may be forged.
    pub(super) answered: bool,
}

/// The owners of all addresses. Apart from the [`Table`], so that media does not wait while a STUN message is verified.
pub(super) type Addresses = RwLock<HashMap<(Via, SocketAddr), Owner>>;

/// Decides about one received datagram that is not STUN.
pub(super) fn by_address(addresses: &Addresses, via: Via, from: SocketAddr) -> Verdict {
    match addresses.read().get(&(via, from)) {
        Some(Owner { key, inbox: Some(inbox), .. }) => Verdict::Deliver(Arc::clone(inbox), *key),
        Some(Owner { inbox: None, .. }) => Verdict::Drop(Reason::NoInbox),
        None => Verdict::Drop(Reason::Unvalidated),
    }
}

#[derive(Debug, Default)]
struct Connection {
    /// Our ICE user fragment and password.
    local: Option<(String, String)>,
    /// The remote ICE password, which signs the responses to our checks.
    remote_password: Option<String>,
    /// Addresses that this connection owns; the last was validated last.
    addresses: VecDeque<(Via, SocketAddr)>,
    checks: VecDeque<(Transaction, Via, SocketAddr)>,
    inbox: Option<Arc<Inbox>>,
    routes: Arc<Routes>,
}

impl Connection {
    /// Removes an address that the connection no longer owns.
    fn forget(&mut self, via: Via, address: SocketAddr) {
        self.addresses.retain(|known| *known != (via, address));
        self.routes.clear(address, via);
    }
}

/// All connections on one port.
pub(super) struct Table {
    crypto: Arc<dyn RTCCryptoProvider>,
    next: Key,
    connections: HashMap<Key, Connection>,
    by_ufrag: HashMap<String, Key>,
    addresses: Arc<Addresses>,
    by_check: HashMap<Transaction, Key>,
    next_tunnel: TunnelId,
    tunnels: HashMap<TunnelId, Carrier>,
}

/// A tunnel as its carrier opened it.
struct Carrier {
    outbound: Outbound,
    /// Notified when a connection is removed that received through the tunnel.
    left: Arc<Notify>,
}

impl Table {
    pub(super) fn new(crypto: Arc<dyn RTCCryptoProvider>) -> Self {
        Self {
            crypto,
            next: 0,
            connections: HashMap::new(),
            by_ufrag: HashMap::new(),
            addresses: Arc::default(),
            by_check: HashMap::new(),
            next_tunnel: 0,
            tunnels: HashMap::new(),
        }
    }

    /// The owners of addresses, kept up to date by this table.
    pub(super) fn addresses(&self) -> Arc<Addresses> {
        Arc::clone(&self.addresses)
    }

    /// Adds a connection that owns no address yet, and returns its routes.
    pub(super) fn add(&mut self) -> (Key, Arc<Routes>) {
        self.next += 1;
        let connection = Connection::default();
        let routes = Arc::clone(&connection.routes);
        self.connections.insert(self.next, connection);
        (self.next, routes)
    }

    /// Adds a tunnel. `left` is notified when a connection is removed that received through it.
    pub(super) fn open_tunnel(&mut self, outbound: Outbound, left: Arc<Notify>) -> TunnelId {
        self.next_tunnel += 1;
        self.tunnels.insert(self.next_tunnel, Carrier { outbound, left });
        self.next_tunnel
    }

    /// Whether a connection receives through the tunnel.
    pub(super) fn leads(&self, tunnel: TunnelId, remote: SocketAddr) -> bool {
        self.addresses.read().contains_key(&(Via::Tunnel(tunnel), remote))
    }

    /// Removes a tunnel, and its remote address from the connection that owns it.
    pub(super) fn close_tunnel(&mut self, tunnel: TunnelId, remote: SocketAddr) {
        self.tunnels.remove(&tunnel);
        let via = Via::Tunnel(tunnel);
        let owner = self.addresses.write().remove(&(via, remote));
        if let Some(connection) = owner.and_then(|owner| self.connections.get_mut(&owner.key)) {
            connection.forget(via, remote);
        }
    }

    /// Removes a connection and everything that leads to it.
    pub(super) fn remove(&mut self, key: Key) {
        let Some(connection) = self.connections.remove(&key) else { return };
        if let Some((ufrag, _)) = &connection.local {
            self.by_ufrag.remove(ufrag);
        }
        let mut addresses = self.addresses.write();
        for address in &connection.addresses {
            addresses.remove(address);
            if let (Via::Tunnel(tunnel), _) = address
                && let Some(carrier) = self.tunnels.get(tunnel)
            {
                carrier.left.notify_one();
            }
        }
        for (transaction, ..) in &connection.checks {
            self.by_check.remove(transaction);
        }
    }

    /// Sets our credentials of the connection and replaces former ones (ICE restart). The connection keeps its
    /// addresses.
    pub(super) fn set_local(&mut self, key: Key, ufrag: &str, password: &str) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if let Some((old, _)) = connection.local.replace((ufrag.to_owned(), password.to_owned())) {
            self.by_ufrag.remove(&old);
        }
        self.by_ufrag.insert(ufrag.to_owned(), key);
    }

    /// Sets the password that signs responses to our checks.
    pub(super) fn set_remote(&mut self, key: Key, password: &str) {
        if let Some(connection) = self.connections.get_mut(&key) {
            connection.remote_password = Some(password.to_owned());
        }
    }

    /// Sets the inbox that receives the connection's datagrams.
    pub(super) fn set_inbox(&mut self, key: Key, inbox: Arc<Inbox>) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let mut addresses = self.addresses.write();
        for address in &connection.addresses {
            if let Some(owner) = addresses.get_mut(address) {
                owner.inbox = Some(Arc::clone(&inbox));
            }
        }
        connection.inbox = Some(inbox);
    }

    /// Remembers a check that the connection sends, so that its response can validate the address.
    pub(super) fn sent_check(&mut self, key: Key, to: SocketAddr, transaction: Transaction) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if connection.checks.len() == CHECKS_MAX
            && let Some((oldest, ..)) = connection.checks.pop_front()
        {
            self.by_check.remove(&oldest);
        }
        connection.checks.push_back((transaction, connection.routes.via(to), to));
        self.by_check.insert(transaction, key);
    }

    /// Decides about one received STUN message.
    pub(super) fn classify_stun(&mut self, via: Via, from: SocketAddr, datagram: &[u8]) -> Verdict {
        let Some(message) = Message::parse(datagram) else { return Verdict::Drop(Reason::Malformed) };
        let addressee = match message.class {
            Class::Request if message.username.is_none() && via == Via::Udp => {
                return Verdict::AnswerStun(message.transaction);
            }
            Class::Request => self.addressee_of_check(&message),
            Class::Success | Class::Error => self.addressee_of_response(&message, via, from),
            // An indication is a keepalive: it is not signed and changes nothing.
            Class::Indication => Err(Reason::Unauthenticated),
        };
        let key = match addressee {
            Ok(key) => key,
            Err(reason) => return Verdict::Drop(reason),
        };
        // An error response may be unsigned (RFC 8489 section 9.1.4): it is delivered but validates nothing.
        if message.class != Class::Error {
            self.validate(key, via, from, message.class == Class::Success);
        }
        let Some(connection) = self.connections.get(&key) else { return Verdict::Drop(Reason::NoInbox) };
        match &connection.inbox {
            None => Verdict::Drop(Reason::NoInbox),
            Some(inbox) if via == Via::Udp && message.class == Class::Request => {
                Verdict::Check(Arc::clone(inbox), key, Arc::clone(&connection.routes))
            }
            Some(inbox) => Verdict::Deliver(Arc::clone(inbox), key),
        }
    }

    fn addressee_of_check(&self, message: &Message<'_>) -> Result<Key, Reason> {
        let ufrag = message.addressee().and_then(|ufrag| std::str::from_utf8(ufrag).ok());
        let key = ufrag.and_then(|ufrag| self.by_ufrag.get(ufrag)).ok_or(Reason::UnknownUfrag)?;
        let local = self.connections.get(key).and_then(|connection| connection.local.as_ref());
        let (_, password) = local.ok_or(Reason::UnknownUfrag)?;
        if message.is_signed_with(password, &*self.crypto) { Ok(*key) } else { Err(Reason::Unauthenticated) }
    }

    /// The connection whose check this answers. It must come from the address that was checked (RFC 8445 section
    /// 7.2.5.2.1).
    fn addressee_of_response(&mut self, message: &Message<'_>, via: Via, from: SocketAddr) -> Result<Key, Reason> {
        let key = *self.by_check.get(&message.transaction).ok_or(Reason::Unauthenticated)?;
        let connection = self.connections.get_mut(&key).ok_or(Reason::Unauthenticated)?;
        let at = connection.checks.iter().position(|check| *check == (message.transaction, via, from));
        let at = at.ok_or(Reason::Unauthenticated)?;
        let signed = |password: &String| message.is_signed_with(password, &*self.crypto);
        if message.class == Class::Success && !connection.remote_password.as_ref().is_some_and(signed) {
            return Err(Reason::Unauthenticated);
        }
        connection.checks.remove(at);
        self.by_check.remove(&message.transaction);
        Ok(key)
    }

    /// Signed STUN of the connection came from this address: it is answered on the same path. The connection becomes
    /// the owner if there is none, or if this `answers` a check of ours.
    fn validate(&mut self, key: Key, via: Via, address: SocketAddr, answers: bool) {
        let exit = match via {
            Via::Udp => None,
            // A tunnel that was closed meanwhile validates nothing.
            Via::Tunnel(id) => match self.tunnels.get(&id) {
                Some(carrier) => Some(Exit { via, outbound: Arc::clone(&carrier.outbound) }),
                None => return,
            },
        };
        let Some(connection) = self.connections.get_mut(&key) else { return };
        match exit {
            Some(exit) => connection.routes.set(address, exit),
            None => connection.routes.leave_tunnel(address),
        }
        let mut addresses = self.addresses.write();
        let former = addresses.get(&(via, address)).map(|owner| owner.key);
        if former.is_some_and(|former| former != key) && !answers {
            return;
        }
        connection.addresses.retain(|known| *known != (via, address));
        connection.addresses.push_back((via, address));
        let owner = addresses.get_mut(&(via, address)).filter(|_| former == Some(key));
        match owner {
            Some(owner) => owner.answered |= answers,
            None => {
                let owner = Owner { key, inbox: connection.inbox.clone(), answered: answers };
                addresses.insert((via, address), owner);
            }
        }
        if connection.addresses.len() > ADDRESSES_MAX
            && let Some((via, oldest)) = connection.addresses.front().copied()
        {
            connection.forget(via, oldest);
            addresses.remove(&(via, oldest));
        }
        drop(addresses);
        if let Some(former) = former.filter(|former| *former != key)
            && let Some(former) = self.connections.get_mut(&former)
        {
            former.forget(via, address);
        }
    }
}

#[cfg(test)]
mod tests;
