//! The TURN server by messages alone, as RFC 8656 wants it.

mod properties;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::net::turn::credentials::{self, Credential};

const MEDIA: &str = "203.0.113.7:8189";
const LIMITS: Limits = Limits { allocations: 5, per_user: 2, per_address: 3 };
const UNIX: u64 = 1_000_000;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn at(seconds: u64) -> Now {
    Now { at: Timestamp::from_micros(seconds * 1_000_000), unix: UNIX + seconds }
}

fn client(host: u8, port: u16) -> Client {
    Client { flow: Flow::Udp, address: SocketAddr::from(([198, 51, 100, host], port)) }
}

/// A server and one who has credentials for it.
struct World {
    server: Server,
    credential: Credential,
    /// Ends the session that the credential is for.
    over: CancellationToken,
    transaction: u8,
}

/// A credential of a session, and what ends that.
fn session(credentials: &Credentials) -> (Credential, CancellationToken) {
    let (credential, over) = (credentials.make(UNIX), CancellationToken::new());
    credentials.belongs_to(credential.username.clone(), over.clone());
    (credential, over)
}

/// What a request was answered with.
struct Answer {
    bytes: Vec<u8>,
}

impl Answer {
    fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).expect("answers are well formed")
    }

    /// 0 for success.
    fn code(&self) -> u16 {
        let message = self.message();
        match message.class {
            Class::Success => 0,
            _ => message.get(kind::ERROR_CODE).map_or(1, |value| u16::from(value[2]) * 100 + u16::from(value[3])),
        }
    }

    fn address(&self, kind: u16) -> SocketAddr {
        self.message().addresses(kind).next().flatten().expect("it is in the answer")
    }
}

impl World {
    fn new() -> Self {
        Self::at(&[MEDIA, "[2001:db8::7]:8189"])
    }

    fn at(media: &[&str]) -> Self {
        let credentials = Arc::new(Credentials::new("north".to_owned().into(), 600));
        let media = media.iter().map(|text| address(text)).collect();
        let (credential, over) = session(&credentials);
        Self { server: Server::new(credentials, LIMITS, media), credential, over, transaction: 0 }
    }

    fn another_user(&mut self) {
        (self.credential, self.over) = session(&self.server.credentials);
    }

    fn key(&self) -> Key {
        credentials::key(&self.credential.username, REALM, &self.credential.password)
    }

    /// A request with these attributes, signed as a client that has a nonce signs it.
    fn request(
        &mut self,
        now: Now,
        client: Client,
        method: Method,
        attributes: &[(u16, &[u8])],
        peers: &[&str],
    ) -> Answer {
        self.transaction = self.transaction.wrapping_add(1);
        let nonce = self.server.credentials.nonce(client.address.ip(), now.unix);
        let mut writer = Writer::new(method, Class::Request, [self.transaction; 12])
            .attribute(kind::USERNAME, self.credential.username.as_bytes())
            .attribute(kind::REALM, REALM.as_bytes())
            .attribute(kind::NONCE, nonce.as_bytes());
        for (kind, value) in attributes {
            writer = writer.attribute(*kind, value);
        }
        for peer in peers {
            writer = writer.address(kind::XOR_PEER_ADDRESS, address(peer));
        }
        let bytes = writer.sign(&self.key(), self.server.credentials.crypto());
        self.answer(now, client, &bytes)
    }

    fn answer(&mut self, now: Now, client: Client, bytes: &[u8]) -> Answer {
        match self.server.received(now, client, bytes) {
            Outcome::Answer(bytes) => Answer { bytes },
            other => panic!("{other:?}"),
        }
    }

    fn allocate(&mut self, now: Now, client: Client) -> Answer {
        self.request(now, client, Method::ALLOCATE, &[(kind::REQUESTED_TRANSPORT, &[UDP, 0, 0, 0])], &[])
    }

    fn permit(&mut self, now: Now, client: Client, peers: &[&str]) -> u16 {
        self.request(now, client, Method::CREATE_PERMISSION, &[], peers).code()
    }

    fn bind(&mut self, now: Now, client: Client, number: u16, peer: &str) -> u16 {
        let number = [number.to_be_bytes(), [0, 0]].concat();
        self.request(now, client, Method::CHANNEL_BIND, &[(kind::CHANNEL_NUMBER, &number)], &[peer]).code()
    }

    fn send(&mut self, now: Now, client: Client, peer: &str) -> Result<Path, Reason> {
        let bytes =
            Writer::new(Method::SEND, Class::Indication, [9; 12]).address(kind::XOR_PEER_ADDRESS, address(peer));
        match self.server.received(now, client, &bytes.attribute(kind::DATA, b"hello").finish()) {
            Outcome::Relay(path, data) => {
                assert_eq!(data, b"hello");
                Ok(path)
            }
            Outcome::Drop(reason) => Err(reason),
            Outcome::Answer(_) => panic!("an indication is not answered"),
        }
    }

    fn by_channel(&mut self, now: Now, client: Client, number: u16) -> Result<Path, Reason> {
        match self.server.received(now, client, &super::super::message::write_channel_data(number, b"hello", true)) {
            Outcome::Relay(path, b"hello") => Ok(path),
            Outcome::Drop(reason) => Err(reason),
            other => panic!("{other:?}"),
        }
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::iter::from_fn(|| self.server.poll_effect()).collect()
    }
}

#[test]
fn a_client_learns_how_to_ask_and_gets_an_allocation() {
    let mut world = World::new();
    let ann = client(1, 1000);
    let bare = Writer::new(Method::ALLOCATE, Class::Request, [1; 12]);
    let bare = bare.attribute(kind::REQUESTED_TRANSPORT, &[UDP, 0, 0, 0]).finish();
    let challenge = world.answer(at(0), ann, &bare);
    assert_eq!(challenge.code(), 401);
    assert!(challenge.bytes.len() < 4 * bare.len(), "it is no good for amplification: {}", challenge.bytes.len());
    let message = challenge.message();
    assert_eq!(message.text(kind::REALM), Some(REALM));
    let nonce = message.text(kind::NONCE).expect("a nonce");
    assert!(world.server.credentials.is_fresh(nonce, ann.address.ip(), UNIX));

    let answer = world.allocate(at(0), ann);
    assert_eq!(answer.code(), 0);
    assert!(answer.message().is_signed_with(&world.key(), world.server.credentials.crypto()));
    assert_eq!(answer.address(kind::XOR_MAPPED_ADDRESS), ann.address);
    let relayed = answer.address(kind::XOR_RELAYED_ADDRESS);
    assert_eq!(relayed.ip(), address(MEDIA).ip());
    assert!(relayed.port() >= FIRST_PORT);
    assert_eq!(answer.message().number(kind::LIFETIME), Some(600));
    assert_eq!(world.effects(), [], "nothing is opened before something is sent");
}

#[test]
fn who_does_not_know_the_password_gets_nothing() {
    let mut world = World::new();
    let ann = client(1, 1000);
    let genuine = world.credential.clone();
    world.credential.password.push('x');
    assert_eq!(world.allocate(at(0), ann).code(), 401);
    let password = world.server.credentials.password("1000600:ann");
    world.credential = Credential { username: "9000600:ann".to_owned(), password };
    assert_eq!(world.allocate(at(0), ann).code(), 401, "the expiry is signed");
    world.credential = world.server.credentials.make(UNIX);
    assert_eq!(world.allocate(at(0), ann).code(), 401, "of a session that is nobody's");
    assert_eq!(world.server.counts().unauthorized, 3);
    world.credential = genuine;

    let stale = {
        let nonce = world.server.credentials.nonce([198, 51, 100, 2].into(), UNIX);
        Writer::new(Method::ALLOCATE, Class::Request, [1; 12])
            .attribute(kind::USERNAME, world.credential.username.as_bytes())
            .attribute(kind::REALM, REALM.as_bytes())
            .attribute(kind::NONCE, nonce.as_bytes())
            .sign(&world.key(), world.server.credentials.crypto())
    };
    let answer = world.answer(at(0), ann, &stale);
    assert_eq!(answer.code(), 438, "another address' nonce");
    assert!(answer.message().text(kind::NONCE).is_some());
    let unnamed =
        Writer::new(Method::ALLOCATE, Class::Request, [1; 12]).sign(&[0; 16], world.server.credentials.crypto());
    assert_eq!(world.answer(at(0), ann, &unnamed).code(), 400);
    assert_eq!(world.server.allocations(), 0);
}

#[test]
fn nothing_but_our_media_port_is_reached() {
    let mut world = World::new();
    let (ann, ben) = (client(1, 1000), client(2, 1000));
    world.allocate(at(0), ann);
    let others = world.allocate(at(0), ben).address(kind::XOR_RELAYED_ADDRESS).to_string();
    for peer in [
        "127.0.0.1:8189",
        "[::ffff:127.0.0.1]:8189",
        "0.0.0.0:8189",
        "10.0.0.1:8189",
        "192.168.1.1:80",
        "169.254.169.254:80",
        "198.51.100.1:1000",
        "255.255.255.255:8189",
    ] {
        assert_eq!(world.permit(at(0), ann, &[peer]), 403, "{peer}");
        assert_eq!(world.permit(at(0), ann, &[MEDIA, peer]), 403, "{peer}: all or none");
        assert_eq!(world.bind(at(0), ann, 0x4000, peer), 403, "{peer}");
        assert_eq!(world.send(at(0), ann, peer), Err(Reason::NotAllowed), "{peer}");
    }
    assert_eq!(world.send(at(0), ann, MEDIA), Err(Reason::NotAllowed), "no permission came of these");
    assert_eq!(world.permit(at(0), ann, &["[::1]:8189"]), 443);
    assert_eq!(world.bind(at(0), ann, 0x4000, "[2001:db8::7]:8189"), 443);

    // A permission is for an address; the port is ours to choose.
    assert_eq!(world.permit(at(0), ann, &["203.0.113.7:22"]), 0);
    for peer in ["203.0.113.7:22", "203.0.113.7:8190", &others] {
        assert_eq!(world.send(at(0), ann, peer), Err(Reason::NotAllowed), "{peer}");
        assert_eq!(world.bind(at(0), ann, 0x4000, peer), 403, "{peer}");
    }
    assert_eq!(world.effects(), []);
    assert!(world.send(at(0), ann, MEDIA).is_ok());
}

#[test]
fn data_goes_by_indications_and_channels_until_the_permission_ends() {
    let mut world = World::new();
    let ann = client(1, 1000);
    let relayed = world.allocate(at(0), ann).address(kind::XOR_RELAYED_ADDRESS);
    assert_eq!(world.send(at(0), ann, MEDIA), Err(Reason::NotAllowed));
    assert_eq!(world.permit(at(0), ann, &[MEDIA]), 0);
    let path = world.send(at(1), ann, MEDIA).expect("permitted");
    assert_eq!(world.effects(), [Effect::Opened { path, client: ann, relayed, peer: address(MEDIA) }]);
    assert_eq!(world.by_channel(at(1), ann, 0x4001), Err(Reason::NotAllowed));
    assert_eq!(world.bind(at(1), ann, 0x4001, MEDIA), 0);
    assert_eq!(world.effects(), [Effect::Channel { path, number: Some(0x4001) }]);
    assert_eq!(world.by_channel(at(2), ann, 0x4001), Ok(path));
    assert_eq!(world.by_channel(at(2), client(1, 1001), 0x4001), Err(Reason::NotAllowed), "another client's channel");

    assert_eq!(world.bind(at(2), ann, 0x4002, MEDIA), 400, "the peer has a channel");
    assert_eq!(world.bind(at(2), ann, 0x3fff, MEDIA), 400);
    assert_eq!(world.bind(at(2), ann, 0x7fff, MEDIA), 400);
    assert_eq!(world.bind(at(2), ann, 0x4001, MEDIA), 0, "again, to keep it");

    world.server.sweep(at(301).at);
    assert_eq!(world.effects(), [], "the binding renewed the permission");
    world.server.sweep(at(302).at);
    assert_eq!(world.effects(), [Effect::Closed { path }]);
    assert_eq!(world.by_channel(at(302), ann, 0x4001), Err(Reason::NotAllowed));
    assert_eq!(world.send(at(302), ann, MEDIA), Err(Reason::NotAllowed));
    assert_eq!(world.permit(at(302), ann, &[MEDIA]), 0);
    assert_eq!(world.send(at(302), ann, MEDIA), Ok(relayed.port()), "the same address is opened anew");
}

#[test]
fn a_channel_ends_after_its_time_and_the_path_goes_on() {
    let mut world = World::new();
    let ann = client(1, 1000);
    world.request(
        at(0),
        ann,
        Method::ALLOCATE,
        &[(kind::REQUESTED_TRANSPORT, &[UDP, 0, 0, 0]), (kind::LIFETIME, &3000_u32.to_be_bytes())],
        &[],
    );
    assert_eq!(world.bind(at(0), ann, 0x4001, MEDIA), 0);
    let path = world.by_channel(at(0), ann, 0x4001).expect("bound");
    world.effects();
    for second in [200, 400, 599] {
        world.permit(at(second), ann, &[MEDIA]);
        world.server.sweep(at(second).at);
    }
    assert!(world.by_channel(at(599), ann, 0x4001).is_ok());
    world.server.sweep(at(600).at);
    assert_eq!(world.effects(), [Effect::Channel { path, number: None }]);
    assert_eq!(world.send(at(600), ann, MEDIA), Ok(path));
}

#[test]
fn each_media_address_sees_the_client_at_a_port_of_its_own() {
    let mut world = World::at(&[MEDIA, "203.0.113.8:8189"]);
    let ann = client(1, 1000);
    let relayed = world.allocate(at(0), ann).address(kind::XOR_RELAYED_ADDRESS);
    assert_eq!(world.permit(at(0), ann, &[MEDIA, "203.0.113.8:1"]), 0);
    let one = world.send(at(0), ann, MEDIA).expect("permitted");
    let two = world.send(at(0), ann, "203.0.113.8:8189").expect("permitted");
    assert_eq!((one, one == two), (relayed.port(), false));
    world.server.closed(&ann);
    assert_eq!(world.effects().len(), 4, "two opened, two closed");
    assert!(world.server.ports.is_empty());
}

#[test]
fn what_is_asked_for_wrongly_is_refused_by_its_code() {
    let mut world = World::at(&[MEDIA]);
    let ann = client(1, 1000);
    let udp: (u16, &[u8]) = (kind::REQUESTED_TRANSPORT, &[UDP, 0, 0, 0]);
    let mut code = |method, attributes: &[(u16, &[u8])]| world.request(at(0), ann, method, attributes, &[]).code();
    for method in [Method::REFRESH, Method::CREATE_PERMISSION, Method::CHANNEL_BIND] {
        assert_eq!(code(method, &[]), 437, "{method:?} without an allocation");
    }
    assert_eq!(code(Method::ALLOCATE, &[]), 400);
    assert_eq!(code(Method::ALLOCATE, &[(kind::REQUESTED_TRANSPORT, &[6, 0, 0, 0])]), 442);
    assert_eq!(code(Method::ALLOCATE, &[udp, (kind::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0])]), 440);
    assert_eq!(code(Method::ALLOCATE, &[udp, (kind::REQUESTED_ADDRESS_FAMILY, &[9, 0, 0, 0])]), 440);
    assert_eq!(code(Method::ALLOCATE, &[udp, (kind::RESERVATION_TOKEN, &[1; 8])]), 508);
    assert_eq!(code(Method::ALLOCATE, &[udp, (kind::RESERVATION_TOKEN, &[1; 8]), (kind::EVEN_PORT, &[0])]), 400);
    assert_eq!(code(Method::ALLOCATE, &[udp, (kind::EVEN_PORT, &[0x80])]), 508);
    let unknown = world.request(at(0), ann, Method::ALLOCATE, &[udp, (0x7abc, &[])], &[]);
    assert_eq!((unknown.code(), unknown.message().get(kind::UNKNOWN_ATTRIBUTES)), (420, Some(&[0x7a, 0xbc][..])));
    // No datagram of ours is fragmented: there are none.
    let even =
        world.request(at(0), ann, Method::ALLOCATE, &[udp, (kind::EVEN_PORT, &[0]), (kind::DONT_FRAGMENT, &[])], &[]);
    assert_eq!((even.code(), even.address(kind::XOR_RELAYED_ADDRESS).port() % 2), (0, 0));
    assert_eq!(world.allocate(at(0), ann).code(), 437, "it has one");
    let again = {
        world.transaction = world.transaction.wrapping_sub(2);
        world.allocate(at(0), ann)
    };
    assert_eq!(again.code(), 0, "the same request again: its answer was lost");
    assert_eq!(again.address(kind::XOR_RELAYED_ADDRESS), even.address(kind::XOR_RELAYED_ADDRESS));
    assert_eq!(world.permit(at(0), ann, &[]), 400);
    let six = [(kind::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0][..])];
    assert_eq!(world.request(at(0), ann, Method::REFRESH, &six, &[]).code(), 443);
    world.another_user();
    for method in [Method::REFRESH, Method::CREATE_PERMISSION, Method::CHANNEL_BIND] {
        assert_eq!(world.request(at(0), ann, method, &[], &[MEDIA]).code(), 441);
    }
}

#[test]
fn ipv6_is_relayed_where_it_is_asked_for_or_all_there_is() {
    let mut world = World::new();
    let family = [(kind::REQUESTED_TRANSPORT, &[UDP, 0, 0, 0][..]), (kind::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0])];
    let answer = world.request(at(0), client(1, 1), Method::ALLOCATE, &family, &[]);
    assert_eq!(answer.address(kind::XOR_RELAYED_ADDRESS).ip(), address("[2001:db8::7]:1").ip());
    assert_eq!(world.permit(at(0), client(1, 1), &["[2001:db8::7]:8189"]), 0);
    let mut world = World::at(&["[2001:db8::7]:8189"]);
    assert!(world.allocate(at(0), client(1, 1)).address(kind::XOR_RELAYED_ADDRESS).is_ipv6());
}

#[test]
fn nobody_takes_more_than_a_share() {
    let mut world = World::new();
    assert_eq!(world.allocate(at(0), client(1, 1)).code(), 0);
    assert_eq!(world.allocate(at(0), client(1, 2)).code(), 0);
    assert_eq!(world.allocate(at(0), client(2, 1)).code(), 486, "one user");
    world.another_user();
    assert_eq!(world.allocate(at(0), client(1, 3)).code(), 0);
    assert_eq!(world.allocate(at(0), client(1, 4)).code(), 486, "one address");
    assert_eq!(world.allocate(at(0), client(2, 1)).code(), 0);
    world.another_user();
    assert_eq!(world.allocate(at(0), client(3, 1)).code(), 0);
    assert_eq!(world.allocate(at(0), client(4, 1)).code(), 508, "all together");
    let zero = [(kind::LIFETIME, &[0; 4][..])];
    assert_eq!(world.request(at(0), client(3, 1), Method::REFRESH, &zero, &[]).code(), 0);
    assert_eq!(world.allocate(at(0), client(4, 1)).code(), 0, "there is a place again");
    assert_eq!(world.server.counts().over_quota, 3);
}

#[test]
fn an_allocation_lives_as_long_as_it_is_refreshed() {
    let mut world = World::new();
    let ann = client(1, 1);
    world.allocate(at(0), ann);
    let long = [(kind::LIFETIME, &100_000_u32.to_be_bytes()[..])];
    let refreshed = world.request(at(500), ann, Method::REFRESH, &long, &[]);
    assert_eq!((refreshed.code(), refreshed.message().number(kind::LIFETIME)), (0, Some(3600)));
    world.server.sweep(at(4099).at);
    assert!(world.server.has_allocation(&ann));
    world.server.sweep(at(4100).at);
    assert!(!world.server.has_allocation(&ann));
    assert!(world.server.ports.is_empty() && world.server.users.is_empty() && world.server.addresses.is_empty());
}

#[test]
fn a_relay_lives_no_shorter_and_no_longer_than_its_session() {
    let mut world = World::new();
    let (ann, elsewhere, ben) = (client(1, 1), client(2, 1), client(1, 2));
    world.allocate(at(0), ann);
    let two_hours = 7200;
    for second in (500..two_hours).step_by(500) {
        assert_eq!(world.request(at(second), ann, Method::REFRESH, &[], &[]).code(), 0, "after {second} s");
        world.server.sweep(at(second).at);
    }
    assert_eq!(world.bind(at(two_hours), ann, 0x4001, MEDIA), 0);
    let path = world.by_channel(at(two_hours), ann, 0x4001).expect("bound");
    assert_eq!(world.allocate(at(two_hours), elsewhere).code(), 0, "its client has another network now");
    let (of_ann, over) = (world.credential.clone(), world.over.clone());
    world.another_user();
    assert_eq!(world.allocate(at(two_hours), ben).code(), 0);
    let of_ben = std::mem::replace(&mut world.credential, of_ann);
    world.effects();

    over.cancel();
    assert_eq!(world.allocate(at(two_hours), client(3, 1)).code(), 401, "too late to come in");
    let methods = [Method::REFRESH, Method::CREATE_PERMISSION, Method::CHANNEL_BIND];
    for method in methods {
        assert_eq!(world.request(at(two_hours), ann, method, &[], &[]).code(), 401, "{method:?} of an ended session");
    }
    world.server.sweep(at(two_hours).at);
    world.server.sweep(at(two_hours + 2).at);
    assert_eq!((world.by_channel(at(two_hours + 2), ann, 0x4001), world.effects()), (Ok(path), Vec::new()));
    world.server.sweep(at(two_hours + 3).at);
    let effects = world.effects();
    for effect in [Effect::Closed { path }, Effect::Over { client: ann }, Effect::Over { client: elsewhere }] {
        assert!(effects.contains(&effect), "no {effect:?} in {effects:?}");
    }
    assert_eq!(effects.len(), 3);
    assert_eq!(world.request(at(two_hours + 3), ann, Method::REFRESH, &[], &[]).code(), 401);
    assert_eq!(world.allocate(at(two_hours + 3), ann).code(), 401);

    world.credential = of_ben;
    assert_eq!(world.request(at(two_hours + 3), ben, Method::REFRESH, &[], &[]).code(), 0, "another's session");
    assert_eq!(world.server.allocations(), 1);
}

#[test]
fn a_client_may_end_its_relay_after_its_session() {
    let mut world = World::new();
    let (ann, elsewhere) = (client(1, 1), client(2, 1));
    world.allocate(at(0), ann);
    world.over.cancel();
    let end = [(kind::LIFETIME, &[0; 4][..])];
    assert_eq!(world.request(at(1), elsewhere, Method::REFRESH, &end, &[]).code(), 401, "it has no allocation");
    assert_eq!(world.request(at(1), ann, Method::REFRESH, &end, &[]).code(), 0);
    assert_eq!(world.server.allocations(), 0);
}

#[test]
fn a_credential_that_is_no_sessions_is_good_until_it_expires() {
    let mut world = World::new();
    let username = format!("{}:ann", UNIX + 600);
    let password = world.server.credentials.password(&username);
    world.credential = Credential { username, password };
    let ann = client(1, 1);
    assert_eq!(world.allocate(at(600), ann).code(), 0);
    assert_eq!(world.request(at(601), ann, Method::REFRESH, &[], &[]).code(), 401);
    assert_eq!(world.allocate(at(601), client(1, 2)).code(), 401);
}

#[test]
fn unsigned_requests_are_answered_seldom() {
    let mut world = World::new();
    let ask = |method| Writer::new(method, Class::Request, [1; 12]).finish();
    let mut answered = |method, client| {
        let bytes = ask(method);
        (0..300).filter(|_| matches!(world.server.received(at(0), client, &bytes), Outcome::Answer(_))).count()
    };
    assert_eq!(answered(Method::ALLOCATE, client(1, 1)), UNSIGNED_BURST as usize);
    assert_eq!(answered(Method::BINDING, client(1, 2)), 0, "its address has asked enough");
    assert_eq!(answered(Method::BINDING, client(2, 2)), UNSIGNED_BURST as usize);
    assert_eq!(world.allocate(at(0), client(1, 1)).code(), 0, "who signs is not concerned");
}
