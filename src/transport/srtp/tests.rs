//! Packets through both directions, beside `rtc-srtp`, which must agree on every packet that is in order.

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rtc::srtp::context::Context;

use super::sources::{RETIRED_MAX, SOURCES_MAX};
use super::*;

const PROFILES: [ProtectionProfile; 3] =
    [ProtectionProfile::AeadAes128Gcm, ProtectionProfile::AeadAes256Gcm, ProtectionProfile::Aes128CmHmacSha1_80];

fn master(profile: ProtectionProfile, seed: u8) -> (Vec<u8>, Vec<u8>) {
    let bytes = |count: usize| (0..count).map(|at| seed.wrapping_add(at as u8)).collect();
    (bytes(profile.key_len()), bytes(profile.salt_len()))
}

/// The keys of two sides that have shaken hands.
fn pair(profile: ProtectionProfile) -> [Keys; 2] {
    let provider = rtc::crypto::default_provider().expect("ring is built in");
    let masters = [master(profile, 1), master(profile, 100)];
    let keys = |ours: usize| {
        let of = |at: usize| Master { key: &masters[at].0, salt: &masters[at].1 };
        Keys::new(profile, of(ours), of(1 - ours), provider.crypto()).expect("derives")
    };
    [keys(0), keys(1)]
}

/// The crate's context for what the first side sends.
fn context(profile: ProtectionProfile) -> Context {
    let provider = rtc::crypto::default_provider().expect("ring is built in");
    let (key, salt) = master(profile, 1);
    Context::new(&key, &salt, profile, None, None, provider.crypto()).expect("a context")
}

fn rtp(ssrc: u32, sequence: u16, payload: &[u8]) -> BytesMut {
    let mut packet = BytesMut::from(&[0x80, 96][..]);
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 1, 0]);
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// An empty receiver report with some bytes behind it.
fn rtcp(ssrc: u32, behind: &[u8]) -> BytesMut {
    let mut packet = BytesMut::from(&[0x80, 201, 0, 1][..]);
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(behind);
    packet
}

fn sealed(keys: &mut Keys, mut packet: BytesMut) -> BytesMut {
    keys.encrypt_rtp(&mut packet).expect("protects");
    packet
}

fn sealed_rtcp(keys: &mut Keys, mut packet: BytesMut) -> BytesMut {
    keys.encrypt_rtcp(&mut packet).expect("protects");
    packet
}

#[test]
fn packets_cross_and_nothing_is_accepted_twice() {
    for profile in PROFILES {
        let [mut one, mut two] = pair(profile);
        let (clear, report) = (rtp(7, 65_535, b"payload"), rtcp(7, &[0; 12]));
        let (packet, control) = (sealed(&mut one, clear.clone()), sealed_rtcp(&mut one, report.clone()));
        for _ in 0..2 {
            assert!(one.decrypt_rtp(&mut packet.clone()).is_err(), "of the other direction");
        }
        let (mut opened, mut opened_control) = (packet.clone(), control.clone());
        assert_eq!((two.decrypt_rtp(&mut opened), two.decrypt_rtcp(&mut opened_control)), (Ok(()), Ok(())));
        assert_eq!((opened, opened_control), (clear, report));
        assert_eq!(two.decrypt_rtp(&mut packet.clone()), Err(Error::Replayed));
        assert_eq!(two.decrypt_rtcp(&mut control.clone()), Err(Error::Replayed));
    }
}

/// The fault that began this: 290 bytes for each junk packet.
#[test]
fn a_million_junk_packets_of_random_ssrcs_leave_no_state() {
    let [mut one, mut two] = pair(ProtectionProfile::AeadAes128Gcm);
    let mut random = StdRng::seed_from_u64(12);
    let mut junk = BytesMut::zeroed(40);
    for number in 0..1_000_000_u32 {
        junk.resize(40, 0);
        random.fill(&mut junk[2..]);
        (junk[0], junk[1]) = (0x80, if number % 4 == 0 { 201 } else { 96 });
        junk[36] |= 0x80;
        let refused = if number % 4 == 0 { two.decrypt_rtcp(&mut junk) } else { two.decrypt_rtp(&mut junk) };
        assert_eq!(refused, Err(Error::Unauthenticated));
    }
    assert_eq!((two.received_rtp.counts(), two.received_rtcp.counts()), ((0, 0), (0, 0)));
    two.decrypt_rtp(&mut sealed(&mut one, rtp(7, 1, b"genuine"))).expect("the session goes on");
}

#[test]
fn junk_leaves_the_state_of_an_ssrc_as_it_was() {
    for profile in PROFILES {
        let [mut one, mut two] = pair(profile);
        two.decrypt_rtp(&mut sealed(&mut one, rtp(7, 40_000, b"first"))).expect("genuine");
        for sequence in (0..65_535).step_by(97) {
            let mut junk = rtp(7, sequence, &[3; 40]);
            assert_ne!(two.decrypt_rtp(&mut junk), Ok(()));
        }
        for sequence in [40_001, 39_999, 40_300] {
            two.decrypt_rtp(&mut sealed(&mut one, rtp(7, sequence, b"next"))).expect("genuine");
        }
        assert_eq!(two.received_rtp.counts(), (1, 0));
    }
}

#[test]
fn ssrcs_of_an_authenticated_peer_are_bounded_in_rtp_and_rtcp() {
    let [mut one, mut two] = pair(ProtectionProfile::AeadAes128Gcm);
    let last = (SOURCES_MAX + RETIRED_MAX + 500) as u32;
    for ssrc in 0..last {
        // The sender's own bound is not what is tested.
        (one.sent_rtp, one.sent_rtcp) = (Outbound::default(), Outbound::default());
        two.decrypt_rtp(&mut sealed(&mut one, rtp(ssrc, 1, b"x"))).expect("genuine");
        two.decrypt_rtcp(&mut sealed_rtcp(&mut one, rtcp(ssrc, &[]))).expect("genuine");
    }
    let bound = (SOURCES_MAX, RETIRED_MAX);
    assert_eq!((two.received_rtp.counts(), two.received_rtcp.counts()), (bound, bound));
}

#[test]
fn an_evicted_ssrc_that_comes_back_keeps_its_roll_over_counter_and_cannot_be_replayed() {
    for profile in PROFILES {
        let [mut one, mut two] = pair(profile);
        let mut old = BytesMut::new();
        for sequence in [65_000, 20, 30_000, 60_000, 100] {
            old = sealed(&mut one, rtp(7, sequence, b"before"));
            two.decrypt_rtp(&mut old.clone()).expect("genuine");
        }
        let control = sealed_rtcp(&mut one, rtcp(7, &[]));
        two.decrypt_rtcp(&mut control.clone()).expect("genuine");
        for ssrc in 100..100 + SOURCES_MAX as u32 {
            two.decrypt_rtp(&mut sealed(&mut one, rtp(ssrc, 1, b"x"))).expect("genuine");
            two.decrypt_rtcp(&mut sealed_rtcp(&mut one, rtcp(ssrc, &[]))).expect("genuine");
        }
        assert_eq!((two.received_rtp.counts().1, two.received_rtcp.counts().1), (1, 1), "it has left");
        assert_eq!(two.decrypt_rtp(&mut old.clone()), Err(Error::Replayed));
        assert_eq!(two.decrypt_rtcp(&mut control.clone()), Err(Error::Replayed));
        two.decrypt_rtp(&mut sealed(&mut one, rtp(7, 101, b"after"))).expect("the counter is still 2");
        two.decrypt_rtcp(&mut sealed_rtcp(&mut one, rtcp(7, &[]))).expect("genuine");
        assert_eq!(two.decrypt_rtp(&mut old), Err(Error::Replayed));
    }
}

/// `rtc-srtp` takes this one from anybody.
#[test]
fn srtcp_without_encryption_is_refused_in_every_profile() {
    for profile in PROFILES {
        let [_, mut two] = pair(profile);
        let mut forged = rtcp(7, &[]);
        forged.extend_from_slice(&[0; 16]);
        forged.extend_from_slice(&[0, 0, 0, 1]);
        forged.extend_from_slice(&[0; 10]);
        assert_eq!(two.decrypt_rtcp(&mut forged), Err(Error::Unauthenticated));
        assert_eq!(two.received_rtcp.counts(), (0, 0));
    }
}

#[test]
fn any_changed_byte_is_noticed() {
    for profile in PROFILES {
        let [mut one, mut two] = pair(profile);
        let (packet, control) = (sealed(&mut one, rtp(7, 9, b"payload")), sealed_rtcp(&mut one, rtcp(7, b"12345678")));
        for at in 0..packet.len() {
            let mut changed = packet.clone();
            changed[at] ^= 0x20;
            assert!(two.decrypt_rtp(&mut changed).is_err(), "RTP byte {at}");
        }
        for at in 0..control.len() {
            let mut changed = control.clone();
            changed[at] ^= 0x20;
            assert!(two.decrypt_rtcp(&mut changed).is_err(), "RTCP byte {at}");
        }
        assert_eq!((two.decrypt_rtp(&mut packet.clone()), two.decrypt_rtcp(&mut control.clone())), (Ok(()), Ok(())));
    }
}

#[test]
fn what_is_cut_off_is_refused() {
    for profile in PROFILES {
        let [mut one, mut two] = pair(profile);
        let mut extended = rtp(7, 9, &[0xbe, 0xde, 0, 1, 0x10, 1, 0, 0, 5, 5, 5]);
        extended[0] |= 0x10;
        let (packet, control) = (sealed(&mut one, extended), sealed_rtcp(&mut one, rtcp(7, &[])));
        for length in 0..packet.len() {
            assert!(two.decrypt_rtp(&mut BytesMut::from(&packet[..length])).is_err(), "{length} bytes of RTP");
        }
        for length in 0..control.len() {
            assert!(two.decrypt_rtcp(&mut BytesMut::from(&control[..length])).is_err(), "{length} bytes of RTCP");
        }
        let mut lies = rtp(7, 9, &[0xbe, 0xde, 0xff, 0xff]);
        lies[0] |= 0x1f;
        assert_eq!(one.encrypt_rtp(&mut lies), Err(Error::Malformed));
    }
}

proptest! {
    #[test]
    fn what_is_sent_is_what_the_crate_would_send(
        profile in prop::sample::select(PROFILES.to_vec()),
        steps in proptest::collection::vec((1_u16..20_000, proptest::collection::vec(any::<u8>(), 0..64)), 1..40),
        ssrc: u32,
        csrcs in 0_u8..4,
    ) {
        let ([mut one, mut two], mut context) = (pair(profile), context(profile));
        let mut sequence = 3_u16;
        for (step, payload) in steps {
            sequence = sequence.wrapping_add(step);
            let mut clear = rtp(ssrc, sequence, &vec![9; 4 * usize::from(csrcs)]);
            clear[0] |= csrcs;
            clear.extend_from_slice(&payload);
            let packet = sealed(&mut one, clear.clone());
            prop_assert_eq!(&packet, &context.encrypt_rtp(&clear).expect("the crate protects it"));
            let mut opened = packet;
            two.decrypt_rtp(&mut opened).expect("opens");
            prop_assert_eq!(opened, clear);
            let report = rtcp(ssrc, &payload);
            let control = sealed_rtcp(&mut one, report.clone());
            prop_assert_eq!(&control, &context.encrypt_rtcp(&report).expect("the crate protects it"));
        }
    }

    #[test]
    fn random_bytes_are_refused_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), rtp: bool) {
        for profile in PROFILES {
            let [mut keys, _] = pair(profile);
            if rtp && !bytes.is_empty() {
                bytes[0] = 0x80 | bytes[0] & 0x3f;
            }
            prop_assert!(keys.decrypt_rtp(&mut BytesMut::from(&bytes[..])).is_err());
            prop_assert!(keys.decrypt_rtcp(&mut BytesMut::from(&bytes[..])).is_err());
        }
    }
}
