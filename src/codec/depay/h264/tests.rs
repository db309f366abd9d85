//! A receiver of H.264 payloads in every order and packetization that senders use.

use proptest::prelude::*;

use super::*;
use crate::time::Timestamp;

const SPS_UNIT: &[u8] = &[0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0];
const PPS_UNIT: &[u8] = &[0x68, 0xce, 0x3c, 0x80];
const IDR_UNIT: &[u8] = &[0x65, 0x88, 0x84, 1, 2, 3];
/// A P slice: `first_mb_in_slice` 0, `slice_type` 5.
const P_UNIT: &[u8] = &[0x41, 0x9a, 4, 5, 6];
/// An I slice of a picture with I slices only: `slice_type` 7.
const I_UNIT: &[u8] = &[0x41, 0x88, 4, 5, 6];
const USER_DATA: &[u8] = &[0x06, 5, 2, 0x11, 0x22, 0x80];

/// A receiver of contiguous packets.
#[derive(Default)]
struct Receiver {
    access_units: AccessUnits,
    sequence: u16,
}

impl Receiver {
    fn frame(&mut self, payloads: &[&[u8]]) -> Option<Vec<Vec<u8>>> {
        let packets: Vec<SourcePacket> = payloads.iter().map(|payload| self.packet(payload)).collect();
        let whole = self.access_units.join(&packets)?;
        Some(crate::container::avc::nal_units(&whole).map(<[u8]>::to_vec).collect())
    }

    fn packet(&mut self, payload: &[u8]) -> SourcePacket {
        self.sequence = self.sequence.wrapping_add(1);
        SourcePacket {
            sequence: self.sequence,
            timestamp: 0,
            marker: false,
            arrival: Timestamp::default(),
            captured: None,
            audio_level: None,
            rotation: None,
            colours: None,
            payload: Bytes::copy_from_slice(payload),
        }
    }
}

fn fragments(unit: &[u8], size: usize) -> Vec<Vec<u8>> {
    let count = (unit.len() - 1).div_ceil(size);
    let fragment = |(i, part): (usize, &[u8])| {
        let ends = u8::from(i == 0) << 7 | u8::from(i + 1 == count) << 6;
        [&[unit[0] & 0x60 | FU_A, ends | unit[0] & 0x1f], part].concat()
    };
    unit[1..].chunks(size).enumerate().map(fragment).collect()
}

fn slices(payloads: &[Vec<u8>]) -> Vec<&[u8]> {
    payloads.iter().map(Vec::as_slice).collect()
}

#[test]
fn parameter_sets_sent_ahead_of_their_picture_are_joined_with_it() {
    let whole = [SPS_UNIT, PPS_UNIT, IDR_UNIT];
    let aggregate = [&[0x78, 0, 7][..], SPS_UNIT, &[0, 4], PPS_UNIT].concat();
    // Frames of one RTP timestamp each: a timestamp of their own for both sets, for each, and that of the picture
    // before.
    let sent: [&[&[&[u8]]]; 5] = [
        &[&[SPS_UNIT, PPS_UNIT], &[IDR_UNIT]],
        &[&[SPS_UNIT], &[PPS_UNIT], &[IDR_UNIT]],
        &[&[&aggregate], &[IDR_UNIT]],
        &[&[P_UNIT, SPS_UNIT, PPS_UNIT], &[IDR_UNIT]],
        &[&[P_UNIT, SPS_UNIT], &[PPS_UNIT, IDR_UNIT]],
    ];
    for frames in sent {
        let mut receiver = Receiver::default();
        let (last, before) = frames.split_last().expect("several frames");
        for frame in before {
            let wanted = frame.contains(&P_UNIT).then(|| vec![P_UNIT.to_vec()]);
            assert_eq!(receiver.frame(frame), wanted, "{frames:x?}");
        }
        assert_eq!(receiver.frame(last).expect("a picture"), whole, "{frames:x?}");
        assert_eq!(receiver.access_units.skipped, 0);
    }
}

#[test]
fn an_idr_picture_without_parameter_sets_gets_the_newest_ones() {
    let mut receiver = Receiver::default();
    assert_eq!(receiver.frame(&[IDR_UNIT]).expect("a picture"), [IDR_UNIT], "there are none yet");
    receiver.frame(&[SPS_UNIT, PPS_UNIT, IDR_UNIT]);
    assert_eq!(receiver.frame(&[P_UNIT]).expect("a picture"), [P_UNIT], "only where decoding begins");
    assert_eq!(receiver.frame(&[IDR_UNIT]).expect("a picture"), [SPS_UNIT, PPS_UNIT, IDR_UNIT]);
    // Another PPS with the same identifier, and one with another.
    let (changed, second) = ([0x68, 0xce, 0x01, 0x80], [0x68, 0x4e, 0x3c, 0x80]);
    receiver.frame(&[&changed, &second]);
    receiver.sequence += 10;
    let got = receiver.frame(&[SPS_UNIT, IDR_UNIT]).expect("a picture");
    assert_eq!(got, [SPS_UNIT, &changed, &second, IDR_UNIT], "also after a loss");
    // A packet of a time at which nothing was decoded.
    receiver.access_units.observe(&Bytes::from_static(PPS_UNIT));
    let got = receiver.frame(&[IDR_UNIT]).expect("a picture");
    assert_eq!(got, [SPS_UNIT, PPS_UNIT, &second, IDR_UNIT]);
}

#[test]
fn sei_in_packets_of_its_own_belongs_to_the_next_picture() {
    let mut receiver = Receiver::default();
    assert_eq!(receiver.frame(&[USER_DATA]), None);
    let whole = [USER_DATA, SPS_UNIT, PPS_UNIT, IDR_UNIT];
    assert_eq!(receiver.frame(&[SPS_UNIT, PPS_UNIT, IDR_UNIT]).expect("a picture"), whole);
    receiver.frame(&[USER_DATA]);
    receiver.sequence += 1;
    assert_eq!(receiver.frame(&[P_UNIT]).expect("a picture"), [P_UNIT], "its picture was lost");
}

#[test]
fn units_that_wait_for_a_picture_are_bounded() {
    let mut receiver = Receiver::default();
    for _ in 0..1_000 {
        assert_eq!(receiver.frame(&[&[&[0x06, 5, 255][..], &[1; 1_200]].concat()]), None);
    }
    let early = &receiver.access_units.early;
    assert!(early.len() <= EARLY_MAX && early.iter().map(Bytes::len).sum::<usize>() <= EARLY_BYTES);
}

#[test]
fn reserved_and_malformed_units_are_skipped_and_counted() {
    let whole = [SPS_UNIT, PPS_UNIT, IDR_UNIT];
    // Reserved types, single-time aggregation and fragmentation of other modes, bit errors that the sender knows
    // of, a slice without contents, an aggregate that is cut, an empty unit in an aggregate, a fragment without its
    // header.
    let bad: [&[u8]; 16] = [
        &[0x00, 1],
        &[0x10, 1],
        &[0x12, 1],
        &[0x16, 1],
        &[0x17, 1],
        &[0x19, 0, 0, 0, 1, 9],
        &[0x1a, 1, 2, 3],
        &[0x1b, 1, 2, 3],
        &[0x1d, 0x85, 0, 0, 1],
        &[0x1e, 0, 0],
        &[0x1f, 1],
        &[0xe5, 0x88, 1],
        &[0x65],
        &[0x78, 0, 9, 1],
        &[0x78, 0, 0],
        &[0x7c],
    ];
    for bad in bad {
        for at in 0..=3 {
            let mut payloads = whole.to_vec();
            payloads.insert(at, bad);
            let mut receiver = Receiver::default();
            assert_eq!(receiver.frame(&payloads).expect("a picture"), whole, "{bad:x?} at {at}");
            assert_eq!(receiver.access_units.skipped, 1, "{bad:x?}");
        }
    }
}

#[test]
fn units_with_other_units_inside_are_skipped() {
    let whole = [SPS_UNIT, PPS_UNIT, IDR_UNIT];
    // A subset SPS inside of SEI, of a slice, and of an aggregate; and one that begins with the unit before.
    let inside = [&[0x06, 5, 1, 0, 0, 1][..], &[0x6f, 0x53, 0xc0, 0x1e]].concat();
    let slice = [&[0x41, 0x9a][..], &[0, 0, 0, 1, 0x6f, 0x53, 0xc0, 0x1e]].concat();
    let aggregate = [&[0x78, 0, inside.len() as u8][..], &inside].concat();
    for hidden in [vec![inside.clone()], vec![slice.clone()], vec![aggregate], fragments(&slice, 3)] {
        let mut receiver = Receiver::default();
        let payloads = [&slices(&hidden)[..], &whole].concat();
        assert_eq!(receiver.frame(&payloads).expect("a picture"), whole, "{hidden:x?}");
        assert_eq!(receiver.access_units.skipped, 1, "{hidden:x?}");
    }
    // Zeros behind a unit are no start code.
    let mut receiver = Receiver::default();
    assert_eq!(receiver.frame(&[&[P_UNIT, &[0, 0, 0]].concat()]).expect("a picture"), [P_UNIT]);
    assert_eq!(receiver.access_units.skipped, 0);
}

#[test]
fn fragments_continue_after_a_unit_that_is_skipped() {
    let unit = [&[0x41, 0x9a][..], &[7; 20]].concat();
    let whole = fragments(&unit, 8);
    let mut receiver = Receiver::default();
    for other in [&[0x1e, 0, 0][..], &[0x0c, 0xff], &[0x1d, 0x85, 0, 0, 1], &[]] {
        let payloads = [&whole[0], other, &whole[1], other, &whole[2]];
        assert_eq!(receiver.frame(&payloads).expect("a picture"), [&unit[..]], "{other:x?}");
    }
    assert_eq!(receiver.access_units.skipped, 4);
}

#[test]
fn valid_units_that_a_decoder_does_not_need_are_left_out_and_not_counted() {
    let whole = [SPS_UNIT, PPS_UNIT, IDR_UNIT];
    // Delimiter, filler, end of sequence, prefix, subset SPS, further layer, padding.
    let unused: [&[u8]; 7] =
        [&[0x09, 0xf0], &[0x0c, 0xff, 0xff, 0x80], &[0x0a], &[0x6e, 1, 2], &[0x6f, 1, 2], &[0x74, 1, 2], &[]];
    for unused in unused {
        let mut receiver = Receiver::default();
        let got = receiver.frame(&[unused, SPS_UNIT, unused, PPS_UNIT, IDR_UNIT, unused]);
        assert_eq!(got.expect("a picture"), whole, "{unused:x?}");
        assert_eq!(receiver.access_units.skipped, 0);
        assert_eq!(receiver.frame(&[unused]), None, "{unused:x?} alone");
    }
}

#[test]
fn a_fragmented_unit_without_an_end_bit_is_whole_at_the_next_unit_or_frame() {
    let unit = [&[0x65, 0x88][..], &[7; 20]].concat();
    let mut unmarked = fragments(&unit, 8);
    unmarked[2][1] &= !0x40;
    let mut receiver = Receiver::default();
    receiver.frame(&[SPS_UNIT, PPS_UNIT, IDR_UNIT]);
    let payloads = slices(&unmarked);
    assert_eq!(receiver.frame(&payloads).expect("a picture"), [SPS_UNIT, PPS_UNIT, &unit]);
    assert_eq!(receiver.frame(&[&payloads[..], &[P_UNIT]].concat()).expect("a picture")[2..], [&unit[..], P_UNIT]);
    let twice = receiver.frame(&[&payloads[..], &payloads].concat()).expect("a picture");
    assert_eq!(twice[2..], [&unit[..], &unit], "the next fragmented unit");
    assert_eq!(receiver.access_units.skipped, 4, "each is counted");
}

#[test]
fn fragments_without_a_beginning_are_skipped_and_a_beginning_alone_too() {
    let unit = [&[0x41, 0x9a][..], &[7; 20]].concat();
    let whole = fragments(&unit, 8);
    let payloads = slices(&whole);
    let mut receiver = Receiver::default();
    assert_eq!(receiver.frame(&[&payloads[1..], &[P_UNIT]].concat()).expect("a picture"), [P_UNIT]);
    assert_eq!(receiver.access_units.skipped, 1, "one unit");
    assert_eq!(receiver.frame(&[payloads[0], P_UNIT]).expect("a picture"), [P_UNIT]);
    assert_eq!(receiver.access_units.skipped, 2);
    // Fragments of a unit of another type.
    let other = fragments(&[&[0x65, 0x88][..], &[7; 20]].concat(), 8);
    let mixed = [payloads[0], &other[1], &other[2], P_UNIT];
    assert_eq!(receiver.frame(&mixed).expect("a picture"), [P_UNIT]);
    assert_eq!(receiver.frame(&payloads[1..]), None, "no picture is left");
}

#[test]
fn pictures_of_i_slices_are_marked_as_recovery_points() {
    let mut receiver = Receiver::default();
    receiver.frame(&[SPS_UNIT, PPS_UNIT, IDR_UNIT]);
    let got = receiver.frame(&[USER_DATA, I_UNIT, I_UNIT]).expect("a picture");
    assert_eq!(got, [SPS_UNIT, PPS_UNIT, USER_DATA, &RECOVERY_POINT, I_UNIT, I_UNIT]);
    assert_eq!(receiver.frame(&[I_UNIT, P_UNIT]).expect("a picture"), [I_UNIT, P_UNIT], "one slice is not enough");
    let got = receiver.frame(&[&RECOVERY_POINT, P_UNIT]).expect("a picture");
    assert_eq!(got, [SPS_UNIT, PPS_UNIT, &RECOVERY_POINT, P_UNIT], "a gradual refresh begins");
}

#[test]
fn the_beginning_of_a_keyframe_is_seen_in_every_packetization() {
    let starts = |payload: &[u8]| starts_keyframe(&Bytes::copy_from_slice(payload));
    let begins = |payload: &[u8]| starts_picture(&Bytes::copy_from_slice(payload));
    let aggregate = |unit: &[u8]| [&[0x78, 0, unit.len() as u8][..], unit].concat();
    for unit in [IDR_UNIT, I_UNIT, &RECOVERY_POINT] {
        for payload in [unit.to_vec(), aggregate(unit), fragments(unit, 3)[0].clone()] {
            assert!(starts(&payload) && begins(&payload), "{payload:x?}");
        }
        assert!(!starts(&fragments(unit, 2)[1]), "not the first fragment");
    }
    for payload in [SPS_UNIT.to_vec(), aggregate(SPS_UNIT), fragments(SPS_UNIT, 3)[0].clone()] {
        assert!(starts(&payload) && !begins(&payload), "{payload:x?}");
    }
    for unit in [P_UNIT, USER_DATA, PPS_UNIT, &[0x7c], &[]] {
        assert!(!starts(unit) && !begins(unit), "{unit:x?}");
    }
}

proptest! {
    /// The units of a stream arrive whatever their packets and timestamps are, as long as the order is kept.
    #[test]
    fn any_distribution_to_packets_and_frames_has_the_same_units(
        sizes in proptest::collection::vec(1_usize..9, 6),
        cuts in proptest::collection::vec(any::<bool>(), 5),
    ) {
        let units = [SPS_UNIT, PPS_UNIT, USER_DATA, IDR_UNIT, USER_DATA, P_UNIT];
        let (mut receiver, mut got, mut frame) = (Receiver::default(), Vec::new(), Vec::new());
        for (i, (unit, size)) in units.iter().zip(sizes).enumerate() {
            let parts = if unit.len() - 1 > size { fragments(unit, size) } else { vec![unit.to_vec()] };
            frame.extend(parts);
            // A picture ends its access unit, any other unit may end the timestamp.
            if i == 3 || i == 5 || cuts[i] {
                got.extend(receiver.frame(&slices(&frame)).into_iter().flatten());
                frame.clear();
            }
        }
        prop_assert_eq!(got, units);
        prop_assert_eq!(receiver.access_units.skipped, 0);
    }

    #[test]
    fn memory_stays_bounded_for_any_payloads(
        frames in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..5), 0..40,
        ),
    ) {
        let mut receiver = Receiver::default();
        for frame in frames {
            receiver.frame(&slices(&frame));
            let units = &receiver.access_units;
            prop_assert!(units.early.len() <= EARLY_MAX && units.sps.len() <= 32 && units.pps.len() <= 256);
        }
    }
}
