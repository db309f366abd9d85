//! Whose datagram is it? The table from ICE user fragments and addresses to connections. No I/O.
//!
//! Owns: the rule that only STUN names a connection, and that everything else (DTLS, SRTP, RTCP) reaches one only from
//! an address that connection has validated: by a check signed with its own ICE password, or by a signed answer to a
//! check it sent there. An address counts only together with how it is reached ([`Via`]). Does not know: sockets, wakers.
//! Datagrams come in by [`Table::classify`], verdicts leave.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use rtc::crypto::RTCCryptoProvider;

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
    ways: HashMap<WayId, Outbound>,
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

    /// Adds a way that leads to nobody yet.
    pub(super) fn open_way(&mut self, outbound: Outbound) -> WayId {
        self.next_way += 1;
        self.ways.insert(self.next_way, outbound);
        self.next_way
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
                Some(outbound) => Some(Exit { via, outbound: Arc::clone(outbound) }),
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::transport::stun::binding_request;
    use crate::transport::stun::tests::signed;

    const CLIENT_HELLO: &[u8] = &[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
    const SRTP: &[u8] = &[0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 9, 9, 9];

    struct Pair {
        table: Table,
        keys: [Key; 2],
        inboxes: [Arc<Inbox>; 2],
    }

    /// Two connections, `one` and `two`, with passwords `one-password` and `two-password`; theirs sign with `theirs`.
    fn pair() -> Pair {
        let mut table = Table::new(rtc::crypto::default_provider().expect("ring is built in"));
        let keys = [table.add().0, table.add().0];
        let inboxes = [Arc::new(Inbox::default()), Arc::new(Inbox::default())];
        for (at, name) in ["one", "two"].iter().enumerate() {
            table.set_local(keys[at], name, &format!("{name}-password"));
            table.set_remote(keys[at], "theirs");
            table.set_inbox(keys[at], Arc::clone(&inboxes[at]));
        }
        Pair { table, keys, inboxes }
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 5000))
    }

    impl Pair {
        /// Which connection gets the datagram.
        fn goes_to(&mut self, from: SocketAddr, datagram: &[u8]) -> Result<usize, Reason> {
            self.comes_by(Via::Udp, from, datagram)
        }

        fn comes_by(&mut self, via: Via, from: SocketAddr, datagram: &[u8]) -> Result<usize, Reason> {
            match self.table.classify(via, from, datagram) {
                Verdict::Deliver(inbox, _) | Verdict::Check(inbox, ..) => {
                    Ok(self.inboxes.iter().position(|known| Arc::ptr_eq(known, &inbox)).expect("one of ours"))
                }
                Verdict::Drop(reason) => Err(reason),
                Verdict::AnswerStun(_) => panic!("not a plain request"),
            }
        }
    }

    #[test]
    fn media_reaches_a_connection_only_from_an_address_it_validated() {
        let mut pair = pair();
        for datagram in [CLIENT_HELLO, SRTP] {
            assert_eq!(pair.goes_to(address(1), datagram), Err(Reason::Unvalidated));
        }
        let check = signed(Class::Request, [1; 12], Some("one:a"), "one-password");
        assert_eq!(pair.goes_to(address(1), &check), Ok(0));
        for datagram in [CLIENT_HELLO, SRTP] {
            assert_eq!(pair.goes_to(address(1), datagram), Ok(0));
            assert_eq!(pair.goes_to(address(2), datagram), Err(Reason::Unvalidated));
            assert_eq!(pair.goes_to(SocketAddr::from(([10, 0, 0, 1], 5001)), datagram), Err(Reason::Unvalidated));
        }
    }

    #[test]
    fn a_check_with_the_wrong_password_or_none_validates_nothing() {
        let mut pair = pair();
        let wrong = signed(Class::Request, [1; 12], Some("one:a"), "two-password");
        assert_eq!(pair.goes_to(address(1), &wrong), Err(Reason::Unauthenticated));
        let unsigned = {
            let signed = signed(Class::Request, [1; 12], Some("one:a"), "one-password");
            let mut bytes = signed[..signed.len() - 24].to_vec();
            let length = (bytes.len() - 20) as u16;
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            bytes
        };
        assert_eq!(pair.goes_to(address(1), &unsigned), Err(Reason::Unauthenticated));
        let unknown = signed(Class::Request, [1; 12], Some("three:a"), "one-password");
        assert_eq!(pair.goes_to(address(1), &unknown), Err(Reason::UnknownUfrag));
        assert_eq!(pair.goes_to(address(1), SRTP), Err(Reason::Unvalidated));
    }

    #[test]
    fn an_answer_validates_only_the_address_its_check_was_sent_to() {
        let mut pair = pair();
        let check = signed(Class::Request, [9; 12], Some("a:one"), "theirs");
        pair.table.sent_check(pair.keys[0], address(1), &check);
        let answer = signed(Class::Success, [9; 12], None, "theirs");
        let forged = signed(Class::Success, [9; 12], None, "guess");
        let other = signed(Class::Success, [8; 12], None, "theirs");
        assert_eq!(pair.goes_to(address(2), &answer), Err(Reason::Unauthenticated));
        assert_eq!(pair.goes_to(address(1), &forged), Err(Reason::Unauthenticated));
        assert_eq!(pair.goes_to(address(1), &other), Err(Reason::Unauthenticated));
        assert_eq!(pair.goes_to(address(1), SRTP), Err(Reason::Unvalidated));
        assert_eq!(pair.goes_to(address(1), &answer), Ok(0));
        assert_eq!(pair.goes_to(address(1), SRTP), Ok(0));
        assert_eq!(pair.goes_to(address(1), &answer), Err(Reason::Unauthenticated), "an answer counts once");
    }

    #[test]
    fn an_error_answer_arrives_but_validates_nothing() {
        let mut pair = pair();
        let check = signed(Class::Request, [9; 12], Some("a:one"), "theirs");
        pair.table.sent_check(pair.keys[0], address(1), &check);
        let error = signed(Class::Error, [9; 12], None, "theirs");
        assert_eq!(pair.goes_to(address(1), &error), Ok(0));
        assert_eq!(pair.goes_to(address(1), SRTP), Err(Reason::Unvalidated));
    }

    #[test]
    fn an_address_moves_to_another_connection_only_by_a_signed_check() {
        let mut pair = pair();
        pair.goes_to(address(1), &signed(Class::Request, [1; 12], Some("one:a"), "one-password")).expect("genuine");
        pair.goes_to(address(1), &signed(Class::Request, [2; 12], Some("two:b"), "wrong")).expect_err("forged");
        assert_eq!(pair.goes_to(address(1), SRTP), Ok(0));
        pair.goes_to(address(1), &signed(Class::Request, [3; 12], Some("two:b"), "two-password")).expect("genuine");
        assert_eq!(pair.goes_to(address(1), SRTP), Ok(1));
        pair.table.remove(pair.keys[0]);
        assert_eq!(pair.goes_to(address(1), SRTP), Ok(1), "the first owner's end takes nothing from the second");
        pair.table.remove(pair.keys[1]);
        assert_eq!(pair.goes_to(address(1), SRTP), Err(Reason::Unvalidated));
        assert!(pair.table.by_address.is_empty() && pair.table.by_ufrag.is_empty() && pair.table.by_check.is_empty());
    }

    #[test]
    fn an_ice_restart_ends_the_old_user_fragment_and_keeps_the_media_path() {
        let mut pair = pair();
        pair.goes_to(address(1), &signed(Class::Request, [1; 12], Some("one:a"), "one-password")).expect("genuine");
        pair.table.set_local(pair.keys[0], "again", "again-password");
        let old = signed(Class::Request, [2; 12], Some("one:a"), "one-password");
        assert_eq!(pair.goes_to(address(1), &old), Err(Reason::UnknownUfrag));
        assert_eq!(pair.goes_to(address(1), SRTP), Ok(0));
        let new = signed(Class::Request, [3; 12], Some("again:a"), "again-password");
        assert_eq!(pair.goes_to(address(2), &new), Ok(0));
    }

    #[test]
    fn addresses_and_checks_are_capped() {
        let mut pair = pair();
        for last in 0..100 {
            let check = signed(Class::Request, [last; 12], Some("one:a"), "one-password");
            pair.goes_to(address(last), &check).expect("genuine");
        }
        assert_eq!(pair.table.by_address.len(), ADDRESSES_MAX);
        assert_eq!(pair.goes_to(address(83), SRTP), Err(Reason::Unvalidated));
        assert_eq!(pair.goes_to(address(84), SRTP), Ok(0));
        for number in 0..1000_u32 {
            let mut transaction = [0; 12];
            transaction[..4].copy_from_slice(&number.to_be_bytes());
            let check = signed(Class::Request, transaction, Some("a:one"), "theirs");
            pair.table.sent_check(pair.keys[0], address(1), &check);
        }
        assert_eq!(pair.table.by_check.len(), CHECKS_MAX);
    }

    #[test]
    fn a_plain_request_is_answered() {
        let mut pair = pair();
        let verdict = pair.table.classify(Via::Udp, address(1), &binding_request(&[5; 12]));
        assert!(matches!(verdict, Verdict::AnswerStun(transaction) if transaction == [5; 12]));
    }

    /// A way that takes everything.
    fn way(pair: &mut Pair) -> WayId {
        pair.table.open_way(Arc::new(|_| true))
    }

    #[test]
    fn an_address_by_a_way_and_the_same_by_udp_are_two() {
        let mut pair = pair();
        let way = way(&mut pair);
        let check = signed(Class::Request, [1; 12], Some("one:a"), "one-password");
        assert_eq!(pair.comes_by(Via::Way(way), address(1), SRTP), Err(Reason::Unvalidated));
        assert_eq!(pair.comes_by(Via::Way(way), address(1), &check), Ok(0));
        assert_eq!(pair.comes_by(Via::Way(way), address(1), SRTP), Ok(0));
        assert_eq!(pair.goes_to(address(1), SRTP), Err(Reason::Unvalidated));
        let other = signed(Class::Request, [2; 12], Some("two:b"), "two-password");
        assert_eq!(pair.goes_to(address(1), &other), Ok(1));
        assert_eq!(pair.comes_by(Via::Way(way), address(1), SRTP), Ok(0), "each keeps its own");
        let routes = pair.keys.map(|key| Arc::clone(&pair.table.connections[&key].routes));
        assert_eq!(routes.each_ref().map(|routes| routes.via(address(1))), [Via::Way(way), Via::Udp]);
    }

    #[test]
    fn a_closed_way_leaves_nothing_behind_and_validates_nothing() {
        let mut pair = pair();
        let way = way(&mut pair);
        let check = signed(Class::Request, [1; 12], Some("one:a"), "one-password");
        assert_eq!(pair.comes_by(Via::Way(way), address(1), &check), Ok(0));
        pair.table.close_way(way, address(1));
        let connection = &pair.table.connections[&pair.keys[0]];
        assert_eq!((connection.routes.via(address(1)), connection.addresses.len()), (Via::Udp, 0));
        assert!(pair.table.by_address.is_empty() && pair.table.ways.is_empty());
        let late = signed(Class::Request, [2; 12], Some("one:a"), "one-password");
        pair.comes_by(Via::Way(way), address(1), &late).expect("it was on its way");
        assert_eq!(pair.comes_by(Via::Way(way), address(1), SRTP), Err(Reason::Unvalidated));
    }

    #[test]
    fn an_answer_counts_only_by_the_way_its_check_took() {
        let mut pair = pair();
        let way = way(&mut pair);
        let theirs = signed(Class::Request, [1; 12], Some("one:a"), "one-password");
        pair.comes_by(Via::Way(way), address(1), &theirs).expect("genuine");
        pair.table.sent_check(pair.keys[0], address(1), &signed(Class::Request, [9; 12], Some("a:one"), "theirs"));
        let answer = signed(Class::Success, [9; 12], None, "theirs");
        assert_eq!(pair.goes_to(address(1), &answer), Err(Reason::Unauthenticated));
        assert_eq!(pair.comes_by(Via::Way(way), address(1), &answer), Ok(0));
    }

    #[test]
    fn whoever_moves_from_a_way_to_udp_is_answered_there() {
        let mut pair = pair();
        let way = way(&mut pair);
        let check = signed(Class::Request, [1; 12], Some("one:a"), "one-password");
        pair.comes_by(Via::Way(way), address(1), &check).expect("genuine");
        pair.goes_to(address(1), &check).expect("genuine");
        assert_eq!(pair.table.connections[&pair.keys[0]].routes.via(address(1)), Via::Udp);
        pair.table.close_way(way, address(1));
        assert_eq!(pair.goes_to(address(1), SRTP), Ok(0), "what came by UDP stays valid");
    }

    proptest! {
        #[test]
        fn random_datagrams_reach_nobody(bytes in proptest::collection::vec(any::<u8>(), 0..300), last: u8) {
            let mut pair = pair();
            let verdict = pair.table.classify(Via::Udp, address(last), &bytes);
            prop_assert!(!matches!(verdict, Verdict::Deliver(..) | Verdict::Check(..)));
        }
    }
}
