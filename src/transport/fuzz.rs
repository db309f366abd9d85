//! Fuzz targets of ICE, DTLS, SRTP and the framing of datagrams in TCP streams.
//!
//! Owns: how the pieces of an input become datagrams, signatures and time. Does not know: the fuzzer. A piece is an
//! operation and its bytes.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::BytesMut;
use rtc::crypto::{HmacAlgorithm, RTCCryptoProvider};
use rtc::srtp::protection_profile::ProtectionProfile;

use super::ice::{Agent, Credentials, Role};
use super::secure::{Identity, Progress, Secure};
use super::srtp::{Keys, Master};
use super::{framing, srtp, stun};
use crate::time::{Moment, Timestamp};

const START: Timestamp = Timestamp::from_micros(1_000_000_000);

/// Two certificates, made once: making one takes longer than a handshake.
pub(crate) fn identities() -> &'static [Identity; 2] {
    static IDENTITIES: OnceLock<[Identity; 2]> = OnceLock::new();
    IDENTITIES.get_or_init(|| {
        let crypto = rtc::crypto::default_provider().expect("ring is built in");
        [(); 2].map(|()| Identity::new(crypto.clone()).expect("a certificate"))
    })
}

/// A STUN message with a length field that fits and MESSAGE-INTEGRITY of this key; None without a whole header.
pub(crate) fn signed(bytes: &[u8], key: &[u8], crypto: &dyn RTCCryptoProvider) -> Option<Vec<u8>> {
    let mut message = bytes.to_vec();
    message.resize(message.len().next_multiple_of(4), 0);
    let length = message.len().checked_sub(stun::HEADER)? + 4 + stun::INTEGRITY_SIZE;
    message[2..4].copy_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
    message[4..8].copy_from_slice(&stun::COOKIE);
    let mut tag = [0; stun::INTEGRITY_SIZE];
    let mut mac = crypto.crypto().new_hmac(HmacAlgorithm::Sha1, key).ok()?;
    mac.sign(&[&message], &mut tag).ok()?;
    message.extend(stun::MESSAGE_INTEGRITY.to_be_bytes());
    message.extend((stun::INTEGRITY_SIZE as u16).to_be_bytes());
    message.extend(tag);
    Some(message)
}

/// An ICE agent that receives datagrams from several addresses, some of them signed, and answers to its checks.
pub(crate) fn stun(pieces: &[(u8, &[u8])]) {
    let crypto = identities()[0].crypto();
    let credentials = |name: &str| Credentials { ufrag: name.to_owned(), password: name.repeat(6) };
    let (local, remote) = (credentials("ours"), credentials("them"));
    let address = |host: u8| SocketAddr::from(([192, 0, 2, host], 5_000));
    let role = if pieces.len().is_multiple_of(2) { Role::Controlled } else { Role::Controlling };
    let mut agent = Agent::new(crypto.clone(), role, local.clone(), remote.clone(), vec![address(1)], START);
    let (mut now, mut checks) = (START, Vec::new());
    for (op, bytes) in pieces {
        let from = address(op >> 5);
        now = now + Duration::from_millis(u64::from(op >> 3 & 3) * 200);
        let sent = agent.poll(now);
        assert!(sent.len() <= 64, "{} checks at once", sent.len());
        checks.extend(sent);
        let datagram = match op & 7 {
            0 => bytes.to_vec(),
            1 | 2 => signed(bytes, local.password.as_bytes(), &*crypto).unwrap_or_default(),
            // The answer to a check, from the address it was sent to.
            3 | 4 => {
                let Some((to, check)) = checks.pop() else { continue };
                let mut answer = bytes.to_vec();
                answer.resize(answer.len().max(stun::HEADER), 0);
                answer[8..20].copy_from_slice(&check[8..20]);
                let answer = signed(&answer, remote.password.as_bytes(), &*crypto).unwrap_or_default();
                agent.handle(now, to, &answer);
                continue;
            }
            5 => {
                agent.arrived(now, from);
                continue;
            }
            6 => {
                agent.add_candidate(from, now);
                continue;
            }
            _ => {
                agent.restart(local.clone(), remote.clone(), now);
                continue;
            }
        };
        if let Some(answer) = agent.handle(now, from, &datagram) {
            assert!(stun::is_stun(&answer));
            assert!(op & 7 != 0, "answered without a signature");
        }
        if let Some(message) = stun::Message::parse(&datagram) {
            message.addressee();
            stun::mapped_in(&datagram, &message.transaction);
        }
        assert!(agent.deadline() <= now + Duration::from_secs(60), "the agent stops its checks");
    }
}

/// A handshake between two ends whose datagrams are delivered, dropped, repeated, changed, or made up. Media is
/// decrypted with the keys, if there are any.
pub(crate) fn dtls(pieces: &[(u8, &[u8])]) {
    let [ours, theirs] = identities();
    let mut moment = Moment { now: START, ..Moment::present() };
    let mut server = Secure::accept(ours, vec![theirs.fingerprint.clone()]).expect("begins");
    let mut client = Secure::connect(theirs, vec![ours.fingerprint.clone()], moment.instant).expect("begins");
    let mut wires: [Vec<BytesMut>; 2] = Default::default();
    let mut connected = false;
    for (op, bytes) in pieces {
        for (end, wire) in [&mut client, &mut server].into_iter().zip(&mut wires) {
            wire.extend(std::iter::from_fn(|| end.poll()));
            wire.truncate(256);
        }
        let to_server = op & 1 == 0;
        let wire = &mut wires[usize::from(!to_server)];
        let first = (!wire.is_empty()).then(|| wire.remove(0));
        let datagram = match (op >> 1 & 7, first) {
            (0 | 1, Some(first)) => first,
            (2, Some(mut first)) => {
                if let [at_high, at_low, bytes @ ..] = bytes {
                    let at = usize::from(u16::from_be_bytes([*at_high, *at_low])) % first.len().max(1);
                    first.iter_mut().skip(at).zip(bytes).for_each(|(byte, new)| *byte = *new);
                }
                first
            }
            (3, Some(mut first)) => {
                first.truncate(first.len() * bytes.len() / 64);
                first
            }
            (4, Some(first)) => {
                wire.push(first.clone());
                first
            }
            (5, _) => continue,
            (6, first) => {
                first.into_iter().for_each(|first| wire.insert(0, first));
                moment.now = moment.now + Duration::from_millis(400);
                moment.instant += Duration::from_millis(400);
                client.tick(moment.now);
                server.tick(moment.now);
                continue;
            }
            (_, first) => {
                first.into_iter().for_each(|first| wire.insert(0, first));
                BytesMut::from(*bytes)
            }
        };
        let end = if to_server { &mut server } else { &mut client };
        if let Ok(Progress::Connected) = end.handshake(moment, &datagram) {
            connected = true;
        }
        if connected && let Some(keys) = end.keys() {
            assert!(keys.decrypt_rtp(&mut srtp::copied(bytes)).is_err(), "an unprotected packet is accepted");
            assert!(keys.decrypt_rtcp(&mut srtp::copied(bytes)).is_err(), "an unprotected packet is accepted");
        }
    }
}

/// SRTP and SRTCP: what one end protects the other accepts once, and what was changed never.
pub(crate) fn srtp(pieces: &[(u8, &[u8])]) {
    let crypto = identities()[0].crypto();
    let (profile, key_size, salt_size) = [
        (ProtectionProfile::AeadAes128Gcm, 16, 12),
        (ProtectionProfile::AeadAes256Gcm, 32, 12),
        (ProtectionProfile::Aes128CmHmacSha1_80, 16, 14),
    ][pieces.len() % 3];
    let (key, salt) = (vec![7; key_size], vec![9; salt_size]);
    let master = || Master { key: &key, salt: &salt };
    let keys = || Keys::new(profile, master(), master(), crypto.crypto()).expect("lengths of the profile");
    let (mut sender, mut receiver) = (keys(), keys());
    for (op, bytes) in pieces {
        let mut packet = srtp::copied(bytes);
        let is_rtcp = op & 1 == 1;
        let protected = match op >> 1 & 3 {
            0 => false,
            _ if is_rtcp => sender.encrypt_rtcp(&mut packet).is_ok(),
            _ => sender.encrypt_rtp(&mut packet).is_ok(),
        };
        let changed = op >> 3;
        if changed > 0 {
            let at = usize::from(changed) * packet.len() / 32;
            packet.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1);
        }
        let mut again = srtp::copied(&packet);
        let accepted =
            if is_rtcp { receiver.decrypt_rtcp(&mut packet) } else { receiver.decrypt_rtp(&mut packet) }.is_ok();
        assert!(!accepted || (protected && changed == 0), "a packet that is not authentic is accepted");
        if accepted {
            assert_eq!(&packet[..], *bytes);
            let replay = if is_rtcp { receiver.decrypt_rtcp(&mut again) } else { receiver.decrypt_rtp(&mut again) };
            assert!(replay.is_err(), "a repeated packet is accepted");
        }
    }
    let mut stream = BytesMut::new();
    for (_, bytes) in pieces {
        stream.extend_from_slice(bytes);
        while let Ok(Some(datagram)) = framing::take(&mut stream, 2_048) {
            assert!((1..=2_048).contains(&datagram.len()));
        }
    }
}
