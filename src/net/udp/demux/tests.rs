//! The demultiplexing table without sockets.

use proptest::prelude::*;

use super::*;
use crate::transport::stun::tests::signed;
use crate::transport::stun::{binding_request, is_stun};

const CLIENT_HELLO: &[u8] = &[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
const SRTP: &[u8] = &[0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 9, 9, 9];

struct Pair {
    table: Table,
    keys: [Key; 2],
    inboxes: [Arc<Inbox>; 2],
}

/// Two connections, `one` and `two`, with passwords `one-password` and `two-password`. The remote password is `theirs`.
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
    /// The connection that receives a datagram by UDP.
    fn goes_to(&mut self, from: SocketAddr, datagram: &[u8]) -> Result<usize, Reason> {
        self.arrives_by(Via::Udp, from, datagram)
    }

    fn arrives_by(&mut self, via: Via, from: SocketAddr, datagram: &[u8]) -> Result<usize, Reason> {
        let verdict = if is_stun(datagram) {
            self.table.classify_stun(via, from, datagram)
        } else {
            by_address(&self.table.addresses, via, from)
        };
        match verdict {
            Verdict::Deliver(inbox, _) | Verdict::Check(inbox, ..) => {
                Ok(self.inboxes.iter().position(|known| Arc::ptr_eq(known, &inbox)).expect("one of ours"))
            }
            Verdict::Drop(reason) => Err(reason),
            Verdict::AnswerStun(_) => panic!("not a plain request"),
        }
    }

    /// A signed check for the connection arrives.
    fn is_checked(&mut self, at: usize, via: Via, from: SocketAddr) {
        let name = ["one", "two"][at];
        let check = signed(Class::Request, [7; 12], Some(&format!("{name}:x")), &format!("{name}-password"));
        assert_eq!(self.arrives_by(via, from, &check), Ok(at), "a signed check always reaches its connection");
    }

    /// The connection checks the address, and the host there answers.
    fn is_answered(&mut self, at: usize, via: Via, from: SocketAddr) {
        self.table.sent_check(self.keys[at], from, [8; 12]);
        let answer = signed(Class::Success, [8; 12], None, "theirs");
        assert_eq!(self.arrives_by(via, from, &answer), Ok(at));
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
    pair.table.sent_check(pair.keys[0], address(1), [9; 12]);
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
    pair.table.sent_check(pair.keys[0], address(1), [9; 12]);
    let error = signed(Class::Error, [9; 12], None, "theirs");
    assert_eq!(pair.goes_to(address(1), &error), Ok(0));
    assert_eq!(pair.goes_to(address(1), SRTP), Err(Reason::Unvalidated));
}

/// The fault that began this: an off-path attacker silenced a victim by a check for a session of its own.
#[test]
fn a_signed_check_takes_no_address_from_its_owner() {
    let mut pair = pair();
    pair.is_checked(0, Via::Udp, address(1));
    pair.is_checked(1, Via::Udp, address(1));
    assert_eq!(pair.goes_to(address(1), SRTP), Ok(0));
    pair.is_checked(0, Via::Udp, address(1));
    assert_eq!(pair.goes_to(address(1), CLIENT_HELLO), Ok(0));
    pair.table.remove(pair.keys[1]);
    assert_eq!(pair.goes_to(address(1), SRTP), Ok(0), "nothing of the attempt is left");
}

#[test]
fn an_address_changes_owner_when_it_answers_a_check_of_the_new_owner() {
    let mut pair = pair();
    pair.is_checked(0, Via::Udp, address(1));
    pair.goes_to(address(1), &signed(Class::Request, [2; 12], Some("two:b"), "wrong")).expect_err("forged");
    pair.is_checked(1, Via::Udp, address(1));
    pair.is_answered(1, Via::Udp, address(1));
    assert_eq!(pair.goes_to(address(1), SRTP), Ok(1));
    assert!(pair.table.connections[&pair.keys[0]].addresses.is_empty());
    pair.table.remove(pair.keys[0]);
    assert_eq!(pair.goes_to(address(1), SRTP), Ok(1), "the first owner's end takes nothing from the second");
    pair.table.remove(pair.keys[1]);
    assert_eq!(pair.goes_to(address(1), SRTP), Err(Reason::Unvalidated));
    assert!(pair.table.addresses.read().is_empty() && pair.table.by_ufrag.is_empty() && pair.table.by_check.is_empty());
}

#[test]
fn an_address_claimed_in_advance_goes_to_the_session_that_is_there() {
    let mut pair = pair();
    pair.is_checked(1, Via::Udp, address(1));
    pair.is_checked(0, Via::Udp, address(1));
    assert_eq!(pair.goes_to(address(1), SRTP), Ok(1));
    pair.is_answered(0, Via::Udp, address(1));
    assert_eq!(pair.goes_to(address(1), SRTP), Ok(0));
    pair.is_checked(1, Via::Udp, address(1));
    assert_eq!(pair.goes_to(address(1), SRTP), Ok(0));
}

#[test]
fn an_address_behind_a_tunnel_is_not_taken_by_a_check_either() {
    let mut pair = pair();
    let tunnel = Via::Tunnel(tunnel(&mut pair));
    pair.is_checked(0, tunnel, address(1));
    pair.is_checked(1, tunnel, address(1));
    assert_eq!(pair.arrives_by(tunnel, address(1), SRTP), Ok(0));
    pair.is_answered(1, tunnel, address(1));
    assert_eq!(pair.arrives_by(tunnel, address(1), SRTP), Ok(1));
}

#[test]
fn an_address_whose_owner_is_gone_is_free_for_the_next_signed_check() {
    let mut pair = pair();
    pair.is_checked(0, Via::Udp, address(1));
    pair.is_checked(1, Via::Udp, address(1));
    pair.table.remove(pair.keys[0]);
    assert_eq!(pair.goes_to(address(1), SRTP), Err(Reason::Unvalidated));
    pair.is_checked(1, Via::Udp, address(1));
    assert_eq!(pair.goes_to(address(1), SRTP), Ok(1));
}

#[test]
fn an_inbox_set_later_receives_from_the_addresses_that_are_owned_already() {
    let mut pair = pair();
    pair.is_checked(0, Via::Udp, address(1));
    let later = Arc::new(Inbox::default());
    pair.table.set_inbox(pair.keys[0], Arc::clone(&later));
    pair.inboxes[0] = later;
    assert_eq!(pair.goes_to(address(1), SRTP), Ok(0));
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
    assert_eq!(pair.table.addresses.read().len(), ADDRESSES_MAX);
    assert_eq!(pair.goes_to(address(83), SRTP), Err(Reason::Unvalidated));
    assert_eq!(pair.goes_to(address(84), SRTP), Ok(0));
    for number in 0..1000_u32 {
        let mut transaction = [0; 12];
        transaction[..4].copy_from_slice(&number.to_be_bytes());
        pair.table.sent_check(pair.keys[0], address(1), transaction);
    }
    assert_eq!(pair.table.by_check.len(), CHECKS_MAX);
}

#[test]
fn a_plain_request_is_answered() {
    let mut pair = pair();
    let verdict = pair.table.classify_stun(Via::Udp, address(1), &binding_request(&[5; 12]));
    assert!(matches!(verdict, Verdict::AnswerStun(transaction) if transaction == [5; 12]));
}

/// A tunnel that accepts everything.
fn tunnel(pair: &mut Pair) -> TunnelId {
    pair.table.open_tunnel(Arc::new(|_| true), Arc::default())
}

#[test]
fn an_address_through_a_tunnel_and_the_same_by_udp_are_two_addresses() {
    let mut pair = pair();
    let tunnel = tunnel(&mut pair);
    let check = signed(Class::Request, [1; 12], Some("one:a"), "one-password");
    assert_eq!(pair.arrives_by(Via::Tunnel(tunnel), address(1), SRTP), Err(Reason::Unvalidated));
    assert_eq!(pair.arrives_by(Via::Tunnel(tunnel), address(1), &check), Ok(0));
    assert_eq!(pair.arrives_by(Via::Tunnel(tunnel), address(1), SRTP), Ok(0));
    assert_eq!(pair.goes_to(address(1), SRTP), Err(Reason::Unvalidated));
    pair.is_checked(1, Via::Udp, address(1));
    assert_eq!(pair.arrives_by(Via::Tunnel(tunnel), address(1), SRTP), Ok(0), "each keeps its own");
    let routes = pair.keys.map(|key| Arc::clone(&pair.table.connections[&key].routes));
    assert_eq!(routes.each_ref().map(|routes| routes.via(address(1))), [Via::Tunnel(tunnel), Via::Udp]);
}

#[test]
fn a_closed_tunnel_leaves_no_state_and_validates_nothing() {
    let mut pair = pair();
    let tunnel = tunnel(&mut pair);
    let check = signed(Class::Request, [1; 12], Some("one:a"), "one-password");
    assert_eq!(pair.arrives_by(Via::Tunnel(tunnel), address(1), &check), Ok(0));
    pair.table.close_tunnel(tunnel, address(1));
    let connection = &pair.table.connections[&pair.keys[0]];
    assert_eq!((connection.routes.via(address(1)), connection.addresses.len()), (Via::Udp, 0));
    assert!(pair.table.addresses.read().is_empty() && pair.table.tunnels.is_empty());
    let late = signed(Class::Request, [2; 12], Some("one:a"), "one-password");
    pair.arrives_by(Via::Tunnel(tunnel), address(1), &late).expect("it was in flight");
    assert_eq!(pair.arrives_by(Via::Tunnel(tunnel), address(1), SRTP), Err(Reason::Unvalidated));
}

#[test]
fn a_response_counts_only_on_the_path_of_its_check() {
    let mut pair = pair();
    let tunnel = tunnel(&mut pair);
    let theirs = signed(Class::Request, [1; 12], Some("one:a"), "one-password");
    pair.arrives_by(Via::Tunnel(tunnel), address(1), &theirs).expect("genuine");
    pair.table.sent_check(pair.keys[0], address(1), [9; 12]);
    let answer = signed(Class::Success, [9; 12], None, "theirs");
    assert_eq!(pair.goes_to(address(1), &answer), Err(Reason::Unauthenticated));
    assert_eq!(pair.arrives_by(Via::Tunnel(tunnel), address(1), &answer), Ok(0));
}

#[test]
fn a_connection_that_moves_from_a_tunnel_to_udp_is_answered_by_udp() {
    let mut pair = pair();
    let tunnel = tunnel(&mut pair);
    let check = signed(Class::Request, [1; 12], Some("one:a"), "one-password");
    pair.arrives_by(Via::Tunnel(tunnel), address(1), &check).expect("genuine");
    pair.goes_to(address(1), &check).expect("genuine");
    assert_eq!(pair.table.connections[&pair.keys[0]].routes.via(address(1)), Via::Udp);
    pair.table.close_tunnel(tunnel, address(1));
    assert_eq!(pair.goes_to(address(1), SRTP), Ok(0), "what came by UDP stays valid");
}

proptest! {
    #[test]
    fn random_datagrams_reach_no_connection(bytes in proptest::collection::vec(any::<u8>(), 0..300), last: u8) {
        let mut pair = pair();
        for verdict in [
            pair.table.classify_stun(Via::Udp, address(last), &bytes),
            by_address(&pair.table.addresses, Via::Udp, address(last)),
        ] {
            prop_assert!(!matches!(verdict, Verdict::Deliver(..) | Verdict::Check(..)));
        }
    }
}
