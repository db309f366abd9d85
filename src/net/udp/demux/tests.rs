//! Whose datagram is it, without sockets.

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
    pair.table.open_way(Arc::new(|_| true), Arc::default())
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
