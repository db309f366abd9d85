//! Random requests of clients, in random order.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

/// One thing that a client may do.
#[derive(Debug, Clone)]
enum Act {
    Allocate,
    Refresh(u32),
    Permit(usize),
    Bind(u16, usize),
    Send(usize),
    Channel(u16),
    Close,
    End,
    Wait(u64),
    Junk(Vec<u8>),
}

const PEERS: [&str; 4] = [MEDIA, "203.0.113.8:8189", "203.0.113.7:53", "127.0.0.1:8189"];

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        Just(Act::Allocate),
        prop_oneof![Just(0), Just(600), any::<u32>()].prop_map(Act::Refresh),
        (0..PEERS.len()).prop_map(Act::Permit),
        (0x3ffe_u16..0x4003, 0..PEERS.len()).prop_map(|(number, peer)| Act::Bind(number, peer)),
        (0..PEERS.len()).prop_map(Act::Send),
        (0x3ffe_u16..0x4003).prop_map(Act::Channel),
        Just(Act::Close),
        Just(Act::End),
        (0..400_u64).prop_map(Act::Wait),
        proptest::collection::vec(any::<u8>(), 0..64).prop_map(Act::Junk),
    ]
}

proptest! {
    #[test]
    fn whatever_clients_do_the_books_are_right(acts in proptest::collection::vec((0..6_u8, act()), 0..120)) {
        let mut world = World::at(&[MEDIA, "203.0.113.8:8189"]);
        let (mut second, mut open) = (0, HashSet::new());
        for (who, act) in acts {
            let (now, client) = (at(second), client(who / 2, u16::from(who)));
            match act {
                Act::Allocate => { world.allocate(now, client); }
                Act::Refresh(lifetime) => { world.request(now, client, Method::REFRESH, &[(kind::LIFETIME, &lifetime.to_be_bytes())], &[]); }
                Act::Permit(peer) => { world.permit(now, client, &[PEERS[peer]]); }
                Act::Bind(number, peer) => { world.bind(now, client, number, PEERS[peer]); }
                Act::Send(peer) => { let _ = world.send(now, client, PEERS[peer]); }
                Act::Channel(number) => { let _ = world.by_channel(now, client, number); }
                Act::Close => world.server.closed(&client),
                Act::End => {
                    world.over.cancel();
                    world.another_user();
                }
                Act::Wait(seconds) => {
                    second += seconds;
                    world.server.sweep(at(second).at);
                }
                Act::Junk(bytes) => { let _ = world.server.received(now, client, &bytes); }
            }
            for effect in world.effects() {
                match effect {
                    Effect::Opened { path, peer, .. } => {
                        prop_assert!(open.insert(path), "opened twice");
                        prop_assert!(PEERS[..2].contains(&peer.to_string().as_str()), "{peer}");
                    }
                    Effect::Channel { path, .. } => prop_assert!(open.contains(&path)),
                    Effect::Closed { path } => prop_assert!(open.remove(&path), "closed twice"),
                    Effect::Over { .. } => {}
                }
            }
            let server = &world.server;
            let paths: HashSet<Path> = server.allocations.values().flat_map(|a| a.peers.values().map(|p| p.path)).collect();
            prop_assert_eq!(&paths, &open);
            let relayed = server.allocations.values().map(|allocation| allocation.relayed.port());
            prop_assert_eq!(&paths.iter().copied().chain(relayed).collect::<HashSet<_>>(), &server.ports);
            prop_assert_eq!(server.users.values().sum::<usize>(), server.allocations.len());
            prop_assert_eq!(server.addresses.values().sum::<usize>(), server.allocations.len());
            prop_assert!(server.users.values().all(|count| (1..=LIMITS.per_user).contains(count)));
            prop_assert!(server.addresses.values().all(|count| (1..=LIMITS.per_address).contains(count)));
        }
    }

    #[test]
    fn junk_is_never_relayed(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut world = World::new();
        prop_assert!(!matches!(world.server.received(at(0), client(1, 1), &bytes), Outcome::Relay(..)));
    }
}
