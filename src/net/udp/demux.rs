//! Whose datagram is it? The table from ICE user fragments and addresses to connections. No I/O.
//!
//! Owns: the rule that only STUN names a connection, and that everything else (DTLS, SRTP, RTCP) reaches one only from
//! an address that connection has validated: by a check signed with its own ICE password, or by a signed answer to a
//! check it sent there. An address counts only together with how it is reached ([`Via`]). Does not know: sockets.
//! Datagrams come in by [`Table::classify`], verdicts leave.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use rtc::crypto::RTCCryptoProvider;
use tokio::sync::Notify;

use super::Key;
use super::inbox::Inbox;
use super::ways::{Exit, Outbound, Routes, Via, WayId};
use crate::transport::stun::{Class, Message, Transaction, is_stun};

/// Validated addresses kept per connection; the one not seen for longest leaves first. A browser has few interfaces.
const ADDRESSES_MAX: usize = 16;
/// Checks of ours waiting for an answer, per connection: 32 candidates, resent for some seconds.
const CHECKS_MAX: usize = 256;

/// What to do with a datagram.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It belongs to this connection.
    Deliver(Arc<Inbox>, Key),
    /// It is a check that came by UDP, of this connection; its answer goes back the same way.
    Check(Arc<Inbox>, Key, Arc<Routes>),
    /// A plain STUN request: answer where it came from.
    AnswerStun(Transaction),
    /// Nobody's.
    Drop(Reason),
}

/// Why a datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// STUN that cannot be read, or of a method we do not speak.
    Malformed,
    /// A check for a user fragment nobody has.
    UnknownUfrag,
    /// A check or an answer whose MESSAGE-INTEGRITY is missing or wrong, or an answer to no check of ours.
    Unauthenticated,
    /// Not STUN, from an address no connection has validated.
    Unvalidated,
    /// The connection has nowhere to receive.
    NoInbox,
}

#[derive(Debug, Default)]
struct Connection {
    /// Our ICE user fragment and password.
    local: Option<(String, String)>,
    /// The other side's ICE password: it signs the answers to our checks.
    remote_password: Option<String>,
    /// Validated addresses, the latest last.
    addresses: VecDeque<(Via, SocketAddr)>,
    checks: VecDeque<(Transaction, Via, SocketAddr)>,
    inbox: Option<Arc<Inbox>>,
    routes: Arc<Routes>,
}

impl Connection {
    /// An address is none of this connection's any more.
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
    by_address: HashMap<(Via, SocketAddr), Key>,
    by_check: HashMap<Transaction, Key>,
    next_way: WayId,
    ways: HashMap<WayId, Carrier>,
}

/// A way as its carrier opened it.
struct Carrier {
    outbound: Outbound,
    /// Told when a connection goes that the way led to.
    left: Arc<Notify>,
}

impl Table {
    pub(super) fn new(crypto: Arc<dyn RTCCryptoProvider>) -> Self {
        Self {
            crypto,
            next: 0,
            connections: HashMap::new(),
            by_ufrag: HashMap::new(),
            by_address: HashMap::new(),
            by_check: HashMap::new(),
            next_way: 0,
            ways: HashMap::new(),
        }
    }

    /// Adds a connection that nothing reaches yet; gives the ways it will be reached by.
    pub(super) fn add(&mut self) -> (Key, Arc<Routes>) {
        self.next += 1;
        let connection = Connection::default();
        let routes = Arc::clone(&connection.routes);
        self.connections.insert(self.next, connection);
        (self.next, routes)
    }

    /// Adds a way that leads to nobody yet; `left` is told whenever a connection goes that it led to.
    pub(super) fn open_way(&mut self, outbound: Outbound, left: Arc<Notify>) -> WayId {
        self.next_way += 1;
        self.ways.insert(self.next_way, Carrier { outbound, left });
        self.next_way
    }

    /// Whether a way leads to a connection.
    pub(super) fn leads(&self, way: WayId, remote: SocketAddr) -> bool {
        self.by_address.contains_key(&(Via::Way(way), remote))
    }

    /// Forgets a way, and that its far end was validated by it.
    pub(super) fn close_way(&mut self, way: WayId, remote: SocketAddr) {
        self.ways.remove(&way);
        let via = Via::Way(way);
        if let Some(key) = self.by_address.remove(&(via, remote))
            && let Some(connection) = self.connections.get_mut(&key)
        {
            connection.forget(via, remote);
        }
    }

    /// Forgets a connection and everything that led to it.
    pub(super) fn remove(&mut self, key: Key) {
        let Some(connection) = self.connections.remove(&key) else { return };
        if let Some((ufrag, _)) = &connection.local {
            self.by_ufrag.remove(ufrag);
        }
        for address in &connection.addresses {
            self.by_address.remove(address);
            if let (Via::Way(way), _) = address
                && let Some(carrier) = self.ways.get(way)
            {
                carrier.left.notify_one();
            }
        }
        for (transaction, ..) in &connection.checks {
            self.by_check.remove(transaction);
        }
    }

    /// Sets our credentials of the connection, in place of those it had (an ICE restart); validated addresses stay.
    pub(super) fn set_local(&mut self, key: Key, ufrag: &str, password: &str) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if let Some((old, _)) = connection.local.replace((ufrag.to_owned(), password.to_owned())) {
            self.by_ufrag.remove(&old);
        }
        self.by_ufrag.insert(ufrag.to_owned(), key);
    }

    /// Sets the password that signs answers to our checks.
    pub(super) fn set_remote(&mut self, key: Key, password: &str) {
        if let Some(connection) = self.connections.get_mut(&key) {
            connection.remote_password = Some(password.to_owned());
        }
    }

    /// Gives the connection somewhere to receive.
    pub(super) fn set_inbox(&mut self, key: Key, inbox: Arc<Inbox>) {
        if let Some(connection) = self.connections.get_mut(&key) {
            connection.inbox = Some(inbox);
        }
    }

    /// Remembers a STUN check the connection sends, so that its answer may validate the address.
    pub(super) fn sent_check(&mut self, key: Key, to: SocketAddr, datagram: &[u8]) {
        let Some(message) = Message::parse(datagram).filter(|message| message.class == Class::Request) else { return };
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if connection.checks.len() == CHECKS_MAX
            && let Some((oldest, ..)) = connection.checks.pop_front()
        {
            self.by_check.remove(&oldest);
        }
        connection.checks.push_back((message.transaction, connection.routes.via(to), to));
        self.by_check.insert(message.transaction, key);
    }

    /// Decides about one received datagram.
    pub(super) fn classify(&mut self, via: Via, from: SocketAddr, datagram: &[u8]) -> Verdict {
        if !is_stun(datagram) {
            return match self.by_address.get(&(via, from)) {
                Some(key) => self.deliver(*key),
                None => Verdict::Drop(Reason::Unvalidated),
            };
        }
        let Some(message) = Message::parse(datagram) else { return Verdict::Drop(Reason::Malformed) };
        let owner = match message.class {
            Class::Request if message.username.is_none() && via == Via::Udp => {
                return Verdict::AnswerStun(message.transaction);
            }
            Class::Request => self.owner_of_check(&message),
            Class::Success | Class::Error => self.owner_of_answer(&message, via, from),
            // An indication is a keepalive: it says nothing and proves nothing.
            Class::Indication => Err(Reason::Unauthenticated),
        };
        match owner {
            Err(reason) => Verdict::Drop(reason),
            Ok(key) => {
                // An error answer may be unsigned (RFC 8489 section 9.1.4), so it reaches its connection but proves nothing.
                if message.class != Class::Error {
                    self.validate(key, via, from);
                }
                let is_check = via == Via::Udp && message.class == Class::Request;
                match (self.deliver(key), self.connections.get(&key)) {
                    (Verdict::Deliver(inbox, key), Some(connection)) if is_check => {
                        Verdict::Check(inbox, key, Arc::clone(&connection.routes))
                    }
                    (verdict, _) => verdict,
                }
            }
        }
    }

    fn owner_of_check(&self, message: &Message<'_>) -> Result<Key, Reason> {
        let ufrag = message.addressee().and_then(|ufrag| std::str::from_utf8(ufrag).ok());
        let key = ufrag.and_then(|ufrag| self.by_ufrag.get(ufrag)).ok_or(Reason::UnknownUfrag)?;
        let local = self.connections.get(key).and_then(|connection| connection.local.as_ref());
        let (_, password) = local.ok_or(Reason::UnknownUfrag)?;
        if message.is_signed_with(password, &*self.crypto) { Ok(*key) } else { Err(Reason::Unauthenticated) }
    }

    /// The connection whose check this answers. It must come from where the check went (RFC 8445 section 7.2.5.2.1).
    fn owner_of_answer(&mut self, message: &Message<'_>, via: Via, from: SocketAddr) -> Result<Key, Reason> {
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

    /// The address belongs to this connection from now on, whoever had it before, and is answered the way it came.
    fn validate(&mut self, key: Key, via: Via, address: SocketAddr) {
        let exit = match via {
            Via::Udp => None,
            // One that was closed meanwhile validates nothing any more.
            Via::Way(id) => match self.ways.get(&id) {
                Some(carrier) => Some(Exit { via, outbound: Arc::clone(&carrier.outbound) }),
                None => return,
            },
        };
        if let Some(before) = self.by_address.insert((via, address), key)
            && let Some(connection) = self.connections.get_mut(&before)
        {
            if before == key {
                connection.addresses.retain(|known| *known != (via, address));
            } else {
                connection.forget(via, address);
            }
        }
        let Some(connection) = self.connections.get_mut(&key) else { return };
        connection.addresses.push_back((via, address));
        match exit {
            Some(exit) => connection.routes.set(address, exit),
            None => connection.routes.leave_way(address),
        }
        if connection.addresses.len() > ADDRESSES_MAX
            && let Some((via, oldest)) = connection.addresses.front().copied()
        {
            connection.forget(via, oldest);
            self.by_address.remove(&(via, oldest));
        }
    }

    fn deliver(&self, key: Key) -> Verdict {
        let inbox = self.connections.get(&key).and_then(|connection| connection.inbox.as_ref());
        inbox.map_or(Verdict::Drop(Reason::NoInbox), |inbox| Verdict::Deliver(Arc::clone(inbox), key))
    }
}

#[cfg(test)]
mod tests;
