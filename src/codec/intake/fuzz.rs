//! Fuzz targets of what an input reads before GStreamer does: MPEG-TS, the timestamps of demuxers, the headers of MP4.
//!
//! Owns: how an input becomes pieces of a stream. Does not know: the fuzzer.

use super::mp4;
use super::mpegts::Retimer;
use super::rebase::{Rebaser, Unit};

/// A transport stream in pieces. No byte is lost or added, and at most one packet waits.
pub(crate) fn ts(pieces: &[(u8, &[u8])]) {
    let mut retimer = Retimer::default();
    let (mut read, mut written) = (0, 0);
    for (op, bytes) in pieces {
        // Packets that begin and end with these bytes, so that a short input has several.
        let repeated = if op & 3 == 3 { bytes.repeat(usize::from(op >> 2)) } else { bytes.to_vec() };
        let stuffed: Vec<u8> = match op & 3 {
            1 => repeated.chunks(184).flat_map(|part| packet(op >> 2, part)).collect(),
            _ => repeated,
        };
        read += stuffed.len();
        written += retimer.take(&stuffed).len();
        if op & 0x83 == 0x82 {
            written += retimer.pending();
            retimer.interrupt();
        }
        assert_eq!(written + retimer.pending(), read);
        assert!(retimer.pending() <= 32 << 10, "{} bytes wait", retimer.pending());
        retimer.take_jumps();
    }
    assert_eq!(written + retimer.finish().len(), read);
}

/// A packet of 188 bytes with this PID and payload.
fn packet(pid: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x47, 0x40, pid, 0x30];
    packet.extend_from_slice(payload);
    packet.resize(188, 0xff);
    packet
}

/// The timestamps of tracks: each piece has the time and the duration of a unit.
pub(crate) fn timestamps(pieces: &[(u8, &[u8])]) {
    let mut rebaser = Rebaser::default();
    for (op, bytes) in pieces {
        let number = |at: usize| {
            let mut number = [0; 8];
            let bytes = bytes.get(at..).unwrap_or_default();
            number.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            i64::from_be_bytes(number)
        };
        let track = usize::from(op >> 2);
        if op & 3 == 3 {
            rebaser.end(track);
        } else {
            rebaser.offset(track, Unit { time: number(0), duration: number(8).max(0), reordered: op & 1 == 1 });
        }
    }
    rebaser.jumps();
}

/// The head of an MP4 file, whose short tracks are lengthened.
pub(crate) fn mp4_header(bytes: &[u8]) {
    let mut changed = bytes.to_vec();
    if mp4::has_short(bytes) {
        mp4::lengthen(&mut changed);
        assert_ne!(changed, bytes, "nothing is lengthened");
    }
    assert_eq!(changed.len(), bytes.len());
}
