//! Matroska and WebM (RFC 9559): what the tracks are first, then clusters.
//!
//! A growing file is an ordinary live one: its Segment has no known size, and room is reserved for a SeekHead and for the
//! Duration. To finish it, Cues and Chapters are appended, the reserved room is filled, and the Segment gets its size.

mod ebml;
mod finish;

use bytes::Bytes;

use self::ebml::{binary, element, float, put_id, put_wide_size, uint, void};
pub(super) use self::finish::finish;
use super::{Sample, TrackCodec, TrackSpec, UNITS};
use crate::media::FileFormat;

const EBML: u32 = 0x1a45_dfa3;
const VOID: u32 = 0xec;
const SEGMENT: u32 = 0x1853_8067;
const SEEK_HEAD: u32 = 0x114d_9b74;
const INFO: u32 = 0x1549_a966;
const DURATION: u32 = 0x4489;
const TRACKS: u32 = 0x1654_ae6b;
const TRACK_ENTRY: u32 = 0xae;
const TRACK_NUMBER: u32 = 0xd7;
const TRACK_TYPE: u32 = 0x83;
const CODEC_DELAY: u32 = 0x56aa;
const CLUSTER: u32 = 0x1f43_b675;
const TIMESTAMP: u32 = 0xe7;
const SIMPLE_BLOCK: u32 = 0xa3;
const CUES: u32 = 0x1c53_bb6b;
const CHAPTERS: u32 = 0x1043_a770;

/// Who writes these files.
const APP: &[u8] = b"commingle";
/// Bytes reserved for the SeekHead, which is the first in the Segment.
const SEEK_ROOM: usize = 96;
/// Bytes reserved for the Duration, which is the first in the Info: ID, size, and a float of eight bytes.
const DURATION_ROOM: usize = 11;
/// Nanoseconds of a tick of the Segment: WebM has no others.
const TICK: u64 = 1_000_000;
/// What is between a block's time and its cluster's fits 16 bits with a sign.
const CLUSTER_SPAN: u64 = 30_000;
/// A keyframe this soon after a cluster's beginning does not begin another.
const CLUSTER_LEAST: u64 = 100;

/// What a growing file begins with.
pub(super) fn beginning(format: FileFormat, tracks: &[TrackSpec]) -> Bytes {
    let mut out = Vec::new();
    element(&mut out, EBML, |out| {
        for (id, number) in [(0x4286, 1), (0x42f7, 1), (0x42f2, 4), (0x42f3, 8)] {
            uint(out, id, number);
        }
        binary(out, 0x4282, if format == FileFormat::Webm { b"webm" } else { b"matroska" });
        // Version 4 of the format, readable by who knows version 2.
        uint(out, 0x4287, 4);
        uint(out, 0x4285, 2);
    });
    put_id(&mut out, SEGMENT);
    put_wide_size(&mut out, None);
    void(&mut out, SEEK_ROOM);
    element(&mut out, INFO, |out| {
        void(out, DURATION_ROOM);
        uint(out, 0x2a_d7b1, TICK);
        binary(out, 0x4d80, APP);
        binary(out, 0x5741, APP);
    });
    element(&mut out, TRACKS, |out| {
        tracks.iter().zip(1..).for_each(|(track, number)| element(out, TRACK_ENTRY, |out| entry(out, number, track)));
    });
    out.into()
}

/// The body of a TrackEntry.
fn entry(out: &mut Vec<u8>, number: u64, track: &TrackSpec) {
    uint(out, TRACK_NUMBER, number);
    // Unique within the file.
    uint(out, 0x73c5, number);
    uint(out, TRACK_TYPE, if track.codec.is_video() { 1 } else { 2 });
    // No lacing, no statement of the language.
    uint(out, 0x9c, 0);
    binary(out, 0x22_b59c, b"und");
    if !track.name.is_empty() {
        binary(out, 0x536e, track.name.as_bytes());
    }
    let codec: &[u8] = match track.codec {
        TrackCodec::Vp8 => b"V_VP8",
        TrackCodec::Vp9 => b"V_VP9",
        TrackCodec::H264 => b"V_MPEG4/ISO/AVC",
        TrackCodec::Av1 => b"V_AV1",
        TrackCodec::Opus => b"A_OPUS",
        TrackCodec::Aac => b"A_AAC",
        TrackCodec::Pcmu | TrackCodec::Pcma => b"A_MS/ACM",
    };
    binary(out, 0x86, codec);
    if !track.private.is_empty() {
        binary(out, 0x63a2, &track.private);
    }
    if track.delay > 0 {
        uint(out, CODEC_DELAY, nanoseconds(track.units(u64::from(track.delay))));
    }
    if track.codec == TrackCodec::Opus {
        // What a decoder needs before a place that is jumped to (RFC 9559 §5.1.4.1.26, RFC 7845 §4.6).
        uint(out, 0x56bb, 80_000_000);
    }
    if track.codec.is_video() {
        element(out, 0xe0, |out| {
            uint(out, 0xb0, u64::from(track.size.width));
            uint(out, 0xba, u64::from(track.size.height));
        });
    } else {
        let rate =
            if matches!(track.codec, TrackCodec::Pcmu | TrackCodec::Pcma) { 8_000.0 } else { f64::from(track.clock()) };
        element(out, 0xe1, |out| {
            float(out, 0xb5, rate);
            uint(out, 0x9f, u64::from(track.channels));
        });
    }
}

/// 720,000 units are 1,000,000,000 ns.
const fn nanoseconds(units: u64) -> u64 {
    units / 9 * 12_500 + units % 9 * 12_500 / 9
}

/// The Segment's ticks, which are rounded: each on its own, so that they never drift.
const fn ticks(units: u64) -> u64 {
    const EACH: u64 = UNITS * TICK / 1_000_000_000;
    (units + EACH / 2) / EACH
}

/// One fragment as one or more clusters, each of which begins with a keyframe if it can.
pub(super) fn fragment(tracks: &[TrackSpec], fragment: Vec<Vec<Sample>>) -> Bytes {
    let timed = |sample: Sample| (ticks(tracks[sample.track].units(sample.time)), sample);
    let mut blocks: Vec<(u64, Sample)> = fragment.into_iter().flatten().map(timed).collect();
    // Video first: of a keyframe and the sound of the same instant, the keyframe begins the cluster.
    blocks.sort_by_key(|(time, sample)| (*time, !tracks[sample.track].codec.is_video()));
    let mut out = Vec::new();
    let mut rest = blocks.as_slice();
    while let Some((start, _)) = rest.first() {
        let begins = |(time, sample): &(u64, Sample)| {
            let keyframe = sample.keyframe && tracks[sample.track].codec.is_video();
            time - start > CLUSTER_SPAN || keyframe && time - start >= CLUSTER_LEAST
        };
        let count = rest.iter().skip(1).position(begins).map_or(rest.len(), |at| at + 1);
        let (cluster, after) = rest.split_at(count);
        rest = after;
        element(&mut out, CLUSTER, |out| {
            uint(out, TIMESTAMP, *start);
            for (time, sample) in cluster {
                ebml::put_head(out, SIMPLE_BLOCK, 4 + sample.data.len() as u64);
                // At most 16 tracks: their numbers are one byte.
                out.push(0x80 | (sample.track as u8 + 1));
                out.extend(((time - start) as i16).to_be_bytes());
                out.push(if sample.keyframe { 0x80 } else { 0 });
                out.extend_from_slice(&sample.data);
            }
        });
    }
    out.into()
}
