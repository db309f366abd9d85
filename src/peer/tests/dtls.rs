//! DTLS versions, certificates and SRTP profiles.

use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;

use super::*;
use crate::transport::ice::{Agent, Credentials, Role};
use crate::transport::{secure, stun};

/// Versions of DTLS as they stand on the wire: 1.0, one that never was, and 1.2.
const DTLS_1_0: [u8; 2] = [254, 255];
const DTLS_1_1: [u8; 2] = [254, 254];
const DTLS_1_2: [u8; 2] = [254, 253];
/// Content types of records (RFC 5246 section 6.2.1).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
/// Types of messages (RFC 5246 section 7.4, RFC 6347 section 4.3.2).
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const HELLO_VERIFY_REQUEST: u8 = 3;
const SERVER_KEY_EXCHANGE: u8 = 12;
const SERVER_HELLO_DONE: u8 = 14;
/// A fatal alert: protocol_version (RFC 5246 section 7.2).
const WRONG_VERSION: [u8; 2] = [2, 70];
/// TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, and with CBC and SHA as DTLS 1.0 has it.
const CIPHERS: [u8; 4] = [0xc0, 0x2b, 0xc0, 0x09];

/// A client that has ICE, and sends the DTLS messages that a test asks for.
struct ByHand {
    socket: UdpSocket,
    agent: Agent,
    server: SocketAddr,
    heard: Vec<Vec<u8>>,
}

impl ByHand {
    /// Joins with this direction and `a=setup`, up to the end of ICE.
    async fn join(direction: &str, setup: &str) -> (Self, Server) {
        let local = Credentials::random();
        let offer: String = include_str!("../description/chromium.sdp")
            .lines()
            .map(|line| match line.split(':').next().unwrap_or_default() {
                "a=sendrecv" => format!("a={direction}\r\n"),
                "a=ice-ufrag" => format!("a=ice-ufrag:{}\r\n", local.ufrag),
                "a=ice-pwd" => format!("a=ice-pwd:{}\r\n", local.password),
                "a=setup" => format!("a=setup:{setup}\r\n"),
                _ => format!("{line}\r\n"),
            })
            .filter(|line| direction == "sendrecv" || !line.starts_with("a=ssrc"))
            .collect();
        let (server, answer) = Server::answer(&offer).await;
        let said =
            |prefix: &str| answer.lines().find_map(|line| line.strip_prefix(prefix)).expect("it says").to_owned();
        let remote = Credentials { ufrag: said("a=ice-ufrag:"), password: said("a=ice-pwd:") };
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        let to = server.config.mux.local_addr();
        let crypto = rtc::crypto::default_provider().expect("ring is built in");
        let agent = Agent::new(crypto, Role::Controlling, local, remote, vec![to], now());
        let mut client = Self { socket, agent, server: to, heard: Vec::new() };
        client.until(|client| client.agent.is_established()).await;
        (client, server)
    }

    /// Goes on with ICE, and hears what comes of DTLS, until something is so.
    async fn until(&mut self, is_so: impl Fn(&Self) -> bool) {
        let hears = async {
            let mut buffer = [0; 2_048];
            while !is_so(self) {
                for (to, check) in self.agent.poll(now()) {
                    self.socket.send_to(&check, to).await.expect("sends");
                }
                let received = timeout(Duration::from_millis(10), self.socket.recv_from(&mut buffer)).await;
                let Ok((length, from)) = received.map(|received| received.expect("open")) else { continue };
                let datagram = &buffer[..length];
                if stun::is_stun(datagram) {
                    if let Some(answer) = self.agent.handle(now(), from, datagram) {
                        self.socket.send_to(&answer, from).await.expect("sends");
                    }
                } else if secure::is_dtls(datagram) {
                    self.heard.push(datagram.to_vec());
                }
            }
        };
        let became = timeout(PATIENCE, hears).await;
        assert!(became.is_ok(), "it never became so: {:?}", self.heard);
    }

    /// Whether a handshake message of this type has come.
    fn has(&self, kind: u8) -> bool {
        self.heard.iter().any(|datagram| datagram[0] == HANDSHAKE && datagram[13] == kind)
    }

    /// Whether the server has refused the version.
    fn is_refused(&self) -> bool {
        self.heard.iter().any(|datagram| datagram[0] == ALERT && datagram[13..] == WRONG_VERSION)
    }

    /// Sends a message in a record of its own.
    async fn say(&self, version: [u8; 2], number: u8, kind: u8, body: &[u8]) {
        let length = body.len() as u8;
        let message = [&[kind, 0, 0, length, 0, number, 0, 0, 0, 0, 0, length][..], body].concat();
        let record = [&[HANDSHAKE][..], &version, &[0, 0, 0, 0, 0, 0, 0, number, 0, message.len() as u8], &message];
        self.socket.send_to(&record.concat(), self.server).await.expect("sends");
    }

    /// A hello that lacks nothing (RFC 6347 section 4.3.2), which wants this version at most.
    async fn hello(&self, version: [u8; 2]) {
        // supported_groups: P-256; ec_point_formats; signature_algorithms: ecdsa with SHA-256; extended_master_secret;
        // use_srtp: AES128_CM_HMAC_SHA1_80.
        let extensions = [
            &[0, 10, 0, 4, 0, 2, 0, 23][..],
            &[0, 11, 0, 2, 1, 0],
            &[0, 13, 0, 4, 0, 2, 4, 3],
            &[0, 23, 0, 0],
            &[0, 14, 0, 5, 0, 2, 0, 1, 0],
        ]
        .concat();
        let body = [
            &version[..],
            &[7; 32],
            // No session, no cookie.
            &[0, 0],
            &[0, CIPHERS.len() as u8],
            &CIPHERS,
            // No compression.
            &[1, 0],
            &[0, extensions.len() as u8],
            &extensions,
        ];
        self.say(version, 0, CLIENT_HELLO, &body.concat()).await;
    }
}

/// No media, and no keys.
async fn never_connects(mut server: Server) {
    let ended = async {
        while let Some(event) = server.events.recv().await {
            assert_ne!(event, PeerEvent::Connected);
        }
    };
    timeout(PATIENCE, ended).await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_below_dtls_1_2_is_refused() {
    for direction in ["sendrecv", "recvonly"] {
        let (mut client, _server) = ByHand::join(direction, "actpass").await;
        client.hello(DTLS_1_2).await;
        client.until(|client| client.has(HELLO_VERIFY_REQUEST)).await;
        for version in [DTLS_1_0, DTLS_1_1] {
            let (mut client, server) = ByHand::join(direction, "actpass").await;
            client.hello(version).await;
            if version == DTLS_1_0 {
                client.until(ByHand::is_refused).await;
                never_connects(server).await;
            } else {
                // Records of a version that never was are no records: nobody answers.
                tokio::time::sleep(Duration::from_millis(300)).await;
                client.until(|_| true).await;
                assert!(!client.has(HELLO_VERIFY_REQUEST) && !client.has(SERVER_HELLO), "{direction}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dtls_server_below_1_2_is_refused() {
    for direction in ["sendrecv", "recvonly"] {
        let (mut client, server) = ByHand::join(direction, "passive").await;
        client.until(|client| client.has(CLIENT_HELLO)).await;
        let hello = client.heard.iter().find(|datagram| datagram[13] == CLIENT_HELLO).expect("it has come");
        assert_eq!(hello[25..27], DTLS_1_2, "what we offer");
        // No session, no compression, no extensions.
        let answer = [&DTLS_1_0[..], &[7; 32], &[0], &CIPHERS[2..], &[0, 0, 0]].concat();
        client.say(DTLS_1_0, 0, SERVER_HELLO, &answer).await;
        // A point on P-256, and a signature, of the right form.
        let key = [&[3, 0, 23, 65, 4][..], &[9; 64], &[4, 3, 0, 8], &[5; 8]].concat();
        client.say(DTLS_1_0, 1, SERVER_KEY_EXCHANGE, &key).await;
        client.say(DTLS_1_0, 2, SERVER_HELLO_DONE, &[]).await;
        client.until(ByHand::is_refused).await;
        never_connects(server).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_srtp_profile_works_alone() {
    for profile in secure::PROFILES {
        let mut client = Client::with_profiles(RTCRtpTransceiverDirection::Sendrecv, &[profile]).await;
        let offer = client.offer(None).await;
        let (mut server, answer) = Server::answer(&offer).await;
        client.answered(&answer).await;
        client.connected().await;
        server.packet_of(&mut client, SourceKind::Camera).await;
        server.reaches(&mut client).await;

        let mut viewer = Client::with_profiles(RTCRtpTransceiverDirection::Recvonly, &[profile]).await;
        let offer = viewer.offer(None).await;
        let (mut server, answer) = Server::answer(&offer).await;
        viewer.answered(&answer).await;
        viewer.connected().await;
        server.wait(|event| *event == PeerEvent::Connected).await;
        server.reaches(&mut viewer).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_a_common_srtp_profile_is_refused() {
    let short = SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_32;
    for direction in [RTCRtpTransceiverDirection::Sendrecv, RTCRtpTransceiverDirection::Recvonly] {
        let mut client = Client::with_profiles(direction, &[short]).await;
        let offer = client.offer(None).await;
        let (server, answer) = Server::answer(&offer).await;
        client.answered(&answer).await;
        never_connects(server).await;
    }
}

/// The DTLS certificate must be the one the offer names, whoever opens the connection.
async fn wrong_fingerprint(setup: &str) {
    let mut client = Client::new(RTCRtpTransceiverDirection::Sendrecv).await;
    let offer = client.offer(None).await.replace("a=setup:actpass", &format!("a=setup:{setup}"));
    let at = offer.find("a=fingerprint:sha-256 ").expect("has one") + "a=fingerprint:sha-256 ".len();
    let other = if offer[at..].starts_with("00") { "11" } else { "00" };
    let forged = offer.replace(&offer[at..at + 95], &format!("{other}{}", &offer[at + 2..at + 95]));
    let (mut server, answer) = Server::answer(&forged).await;
    let role = if setup == "passive" { "a=setup:active" } else { "a=setup:passive" };
    assert!(answer.contains(role), "{answer}");
    client.answered(&answer).await;
    let mut connected = false;
    let closed = async {
        while let Some(event) = server.events.recv().await {
            connected |= event == PeerEvent::Connected;
            if matches!(event, PeerEvent::Goodbye | PeerEvent::Lost) {
                return;
            }
        }
    };
    timeout(PATIENCE, closed).await.expect("it is closed");
    assert!(!connected, "nobody may join with another's certificate");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_fingerprint_never_connects_to_the_dtls_server() {
    wrong_fingerprint("actpass").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_fingerprint_never_connects_to_the_dtls_client() {
    wrong_fingerprint("passive").await;
}
