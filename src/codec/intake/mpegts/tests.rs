//! Transport streams that are built here, with jumps of some or all tracks.

use proptest::prelude::*;

use super::*;

const VIDEO: u16 = 0x100;
const AUDIO: u16 = 0x101;
const HOUR: i64 = 3_600 * SECOND;

/// A stream of pictures each 40 ms with PCR, and sounds each 20 ms. A function changes the times in milliseconds.
struct Muxer {
    counters: BTreeMap<u16, u8>,
    bytes: Vec<u8>,
}

impl Muxer {
    const fn new() -> Self {
        Self { counters: BTreeMap::new(), bytes: Vec::new() }
    }

    fn packet(&mut self, pid: u16, pcr: Option<i64>, time: i64) {
        let counter = self.counters.entry(pid).or_default();
        let mut packet = vec![SYNC, 0x40 | (pid >> 8) as u8, pid as u8, 0x30 | *counter];
        *counter = (*counter + 1) & 0x0f;
        match pcr {
            Some(pcr) => {
                let base = pcr.rem_euclid(WRAP);
                packet.extend([7, 0x10]);
                packet.extend(((base >> 1) as u32).to_be_bytes());
                packet.extend([((base & 1) as u8) << 7 | 0x7e, 5]);
            }
            None => packet.extend([1, 0]),
        }
        // Presented 80 ms after it is decoded.
        packet.extend([0, 0, 1, 0xe0, 0, 0, 0x80, 0xc0, 10]);
        let mut times = [0x31, 0, 1, 0, 1, 0x11, 0, 1, 0, 1];
        write_time(&mut times[..5], time + 7_200);
        write_time(&mut times[5..], time);
        packet.extend(times);
        packet.resize(PACKET, 0xaa);
        self.bytes.extend(packet);
    }

    /// A part that begins at this time, with these offsets of video and audio.
    fn part(&mut self, from: i64, millis: i64, jump: [i64; 2]) {
        for now in (from..from + millis).step_by(20) {
            let time = now * SECOND / 1_000;
            if now % 40 == 0 {
                self.packet(VIDEO, Some(time + jump[0]), time + jump[0] + 9_000);
            }
            self.packet(AUDIO, None, time + jump[1] + 9_000);
        }
    }
}

/// Decoding times of a track, and the steps of its continuity counter.
fn times(bytes: &[u8], pid: u16) -> (Vec<i64>, Vec<u8>) {
    let of = bytes.chunks(PACKET).filter(|packet| packet[1..3] == [0x40 | (pid >> 8) as u8, pid as u8]);
    let mut counters = Vec::new();
    let times = of.map(|packet| {
        counters.push(packet[3] & 0x0f);
        let unit = &packet[5 + usize::from(packet[4])..];
        let (presented, decoded) = (read_time(&unit[9..14]), read_time(&unit[14..19]));
        assert_eq!(distance(decoded, presented), 7_200, "PTS and DTS are apart");
        decoded
    });
    let times = times.collect();
    (times, counters.windows(2).map(|two| two[1].wrapping_sub(two[0]) & 0x0f).collect())
}

fn clock(bytes: &[u8]) -> Vec<i64> {
    let has_clock = |packet: &&[u8]| packet[4] == 7;
    let base = |packet: &[u8]| {
        i64::from(u32::from_be_bytes([packet[6], packet[7], packet[8], packet[9]])) << 1 | i64::from(packet[10] >> 7)
    };
    bytes.chunks(PACKET).filter(has_clock).map(base).collect()
}

fn steps(times: &[i64]) -> Vec<i64> {
    times.windows(2).map(|two| distance(two[0], two[1])).collect()
}

/// Checks that all steps are the usual ones, up to a deviation.
fn check(bytes: &[u8], deviation: i64) {
    for (pid, usual) in [(VIDEO, 3_600), (AUDIO, 1_800)] {
        let (times, counters) = times(bytes, pid);
        assert!(steps(&times).iter().all(|step| (step - usual).abs() <= deviation), "{pid}: {:?}", steps(&times));
        assert!(counters.iter().all(|step| *step == 1), "{pid}: packets seem lost");
    }
    assert!(steps(&clock(bytes)).iter().all(|step| (0..=SECOND / 10).contains(step)), "{:?}", steps(&clock(bytes)));
}

fn retimed(bytes: &[u8]) -> Vec<u8> {
    let mut retimer = Retimer::default();
    let mut written = retimer.take(bytes);
    written.extend(retimer.finish());
    assert_eq!(written.len(), bytes.len());
    written
}

#[test]
fn a_stream_without_jumps_is_only_moved() {
    let mut muxer = Muxer::new();
    muxer.part(0, 60_000, [77 * SECOND; 2]);
    let written = retimed(&muxer.bytes);
    check(&written, 0);
    assert_eq!((clock(&written)[0], times(&written, VIDEO).0[0]), (START, START + 9_000));
    assert_eq!(times(&written, AUDIO).0[0], START + 9_000, "audio and video keep their distance");
}

#[test]
fn a_jump_of_all_tracks_is_removed_and_they_stay_synchronized() {
    for jump in [HOUR, -HOUR, 3 * SECOND, -SECOND, -SECOND / 2, WRAP - SECOND, 5_000 * SECOND] {
        // Another muxer: its continuity counters begin again.
        let (mut first, mut second) = (Muxer::new(), Muxer::new());
        first.part(0, 2_020, [HOUR * 2; 2]);
        second.part(2_020, 2_000, [HOUR * 2 + jump; 2]);
        let bytes = [first.bytes, second.bytes].concat();
        let written = retimed(&bytes);
        check(&written, 1_800);
        let mut retimer = Retimer::default();
        retimer.take(&bytes);
        assert_eq!((retimer.take_jumps(), retimer.take_jumps()), (1, 0), "{jump}");
        let last = [VIDEO, AUDIO].map(|pid| *times(&written, pid).0.last().expect("units"));
        // The last picture is 0 or 20 ms before the last sound.
        assert!((0..=1_800).contains(&(last[1] - last[0])), "{jump}: {last:?}");
    }
}

#[test]
fn a_jump_of_one_track_does_not_move_the_other() {
    for jump in [HOUR, -HOUR, 4 * SECOND, -4 * SECOND] {
        for jumps in [[0, jump], [jump, 0]] {
            let mut muxer = Muxer::new();
            muxer.part(0, 2_000, [0, 0]);
            muxer.part(2_000, 2_000, jumps);
            muxer.part(4_000, 2_000, [0, 0]);
            let written = retimed(&muxer.bytes);
            check(&written, 1_800);
        }
    }
}

#[test]
fn slow_pictures_and_pauses_of_one_track_are_kept() {
    let mut muxer = Muxer::new();
    for now in 0..600 {
        let time = now * SECOND / 50;
        if now % 250 == 0 {
            muxer.packet(VIDEO, None, time);
        }
        muxer.packet(AUDIO, Some(time), time);
    }
    let written = retimed(&muxer.bytes);
    assert_eq!(steps(&times(&written, VIDEO).0), [5 * SECOND; 2]);
    assert!(steps(&times(&written, AUDIO).0).iter().all(|step| *step == SECOND / 50));
}

#[test]
fn lost_packets_stay_visible() {
    let mut muxer = Muxer::new();
    muxer.part(0, 2_000, [0; 2]);
    muxer.bytes.drain(3 * PACKET..4 * PACKET);
    let (_, counters) = times(&retimed(&muxer.bytes), VIDEO);
    assert_eq!(counters.iter().filter(|step| **step == 2).count(), 1);
}

#[test]
fn packets_with_times_or_error_correction_and_bytes_before_the_first_packet_are_read() {
    let mut muxer = Muxer::new();
    muxer.part(0, 1_000, [HOUR; 2]);
    for (before, after) in [(4, 0), (0, 16), (0, 20), (0, 0)] {
        let whole = muxer.bytes.chunks(PACKET).flat_map(|packet| [&vec![0; before], packet, &vec![0; after]].concat());
        let bytes: Vec<u8> = [1, 2, 3].into_iter().chain(whole).collect();
        let written = retimed(&bytes);
        let packets = written[3..].chunks(before + PACKET + after).flat_map(|packet| &packet[before..before + PACKET]);
        let packets: Vec<u8> = packets.copied().collect();
        check(&packets, 0);
        assert_eq!(clock(&packets)[0], START, "{before} {after}");
    }
}

proptest! {
    /// Any cut of the stream into buffers gives the same bytes.
    #[test]
    fn buffers_may_be_cut_anywhere(cuts in prop::collection::vec(1..2_000usize, 1..50)) {
        let mut muxer = Muxer::new();
        muxer.part(0, 500, [HOUR; 2]);
        muxer.part(500, 500, [-HOUR; 2]);
        let (mut retimer, mut written, mut rest) = (Retimer::default(), Vec::new(), &muxer.bytes[..]);
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at(rest.len().min(*cut));
            written.extend(retimer.take(now));
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        written.extend(retimer.finish());
        prop_assert_eq!(written, retimed(&muxer.bytes));
    }

    /// Any jumps: each track continues within 300 ms, and the clock never goes back.
    #[test]
    fn tracks_continue_after_any_jumps(jumps in prop::collection::vec((-2 * HOUR..2 * HOUR, 0..3u8), 1..8)) {
        let (mut muxer, mut offsets) = (Muxer::new(), [0; 2]);
        for (n, (jump, tracks)) in jumps.into_iter().enumerate() {
            muxer.part(n as i64 * 1_000, 1_000, offsets);
            // Smaller steps are pauses, or jitter.
            if !(-SECOND / 2..=3 * SECOND).contains(&jump) {
                (0..2).filter(|track| tracks == 2 || tracks == *track).for_each(|track| offsets[usize::from(track)] += jump);
            }
        }
        let written = retimed(&muxer.bytes);
        for (pid, usual) in [(VIDEO, 3_600), (AUDIO, 1_800)] {
            let steps = steps(&times(&written, pid).0);
            prop_assert!(steps.iter().all(|step| (step - usual).abs() <= SECOND), "{:?}", steps);
        }
        prop_assert!(steps(&clock(&written)).iter().all(|step| (0..=SECOND / 10).contains(step)));
    }

    /// Arbitrary bytes keep their number and do not panic.
    #[test]
    fn arbitrary_bytes_are_passed_on(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), PACKET - 1), 0..20),
        rest in prop::collection::vec(any::<u8>(), 0..40_000),
    ) {
        let mut bytes: Vec<u8> = packets.into_iter().flat_map(|packet| [vec![SYNC], packet].concat()).collect();
        bytes.extend(rest);
        retimed(&bytes);
    }
}
