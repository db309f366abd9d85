//! Matroska and WebM (RFC 9559): live while it grows, seekable when it is finished.
//!
//! A growing file is an ordinary live one: its Segment has unknown size, and space is reserved for SeekHead and
//! Duration. To finish it, Cues and Chapters are appended, the reserved space is filled, and the Segment's size is set.
//!
//! Captions are blocks with a duration. It is known when the next caption comes, so the planned one is written, and
//! corrected when the file is finished.
//!
//! Owns: the element IDs and the muxer. Does not know: files.

mod ebml;
mod finish;
mod text;

use bytes::Bytes;

use self::ebml::{binary, element, float, put_id, put_wide_size, uint, void};
pub(super) use self::finish::finish;
pub(super) use self::text::text_block;
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
/// Track types.
const VIDEO: u64 = 1;
const AUDIO: u64 = 2;
const SUBTITLE: u64 = 17;
const CODEC_DELAY: u32 = 0x56aa;
const CLUSTER: u32 = 0x1f43_b675;
const TIMESTAMP: u32 = 0xe7;
const SIMPLE_BLOCK: u32 = 0xa3;
const BLOCK_GROUP: u32 = 0xa0;
const BLOCK: u32 = 0xa1;
const BLOCK_DURATION: u32 = 0x9b;
const CUES: u32 = 0x1c53_bb6b;
const CHAPTERS: u32 = 0x1043_a770;

/// MuxingApp and WritingApp: identifies files of this server.
const WRITING_APP: &[u8] = b"commingle";
/// Bytes reserved for the SeekHead, the first element of the Segment.
const SEEK_HEAD_RESERVED: usize = 96;
/// Bytes reserved for the Duration, the first element of Info: ID, size, and a float of eight bytes.
const DURATION_RESERVED: usize = 11;
/// TimestampScale in nanoseconds: WebM requires 1 ms.
const TICK: u64 = 1_000_000;
/// Longest cluster in milliseconds: a block's time relative to its cluster is a signed 16-bit integer.
const MAX_CLUSTER_SPAN: u64 = 30_000;
/// Shortest cluster in milliseconds: an earlier keyframe does not start another cluster.
const MIN_CLUSTER_SPAN: u64 = 100;

/// Header of a growing file.
pub(super) fn header(format: FileFormat, tracks: &[TrackSpec]) -> Bytes {
    let mut out = Vec::new();
    element(&mut out, EBML, |out| {
        for (id, number) in [(0x4286, 1), (0x42f7, 1), (0x42f2, 4), (0x42f3, 8)] {
            uint(out, id, number);
        }
        binary(out, 0x4282, if format == FileFormat::Webm { b"webm" } else { b"matroska" });
        // DocTypeVersion 4, DocTypeReadVersion 2.
        uint(out, 0x4287, 4);
        uint(out, 0x4285, 2);
    });
    put_id(&mut out, SEGMENT);
    put_wide_size(&mut out, None);
    void(&mut out, SEEK_HEAD_RESERVED);
    element(&mut out, INFO, |out| {
        void(out, DURATION_RESERVED);
        uint(out, 0x2a_d7b1, TICK);
        binary(out, 0x4d80, WRITING_APP);
        binary(out, 0x5741, WRITING_APP);
    });
    element(&mut out, TRACKS, |out| {
        tracks.iter().zip(1..).for_each(|(track, number)| element(out, TRACK_ENTRY, |out| entry(out, number, track)));
    });
    out.into()
}

/// The body of a TrackEntry.
fn entry(out: &mut Vec<u8>, number: u64, track: &TrackSpec) {
    uint(out, TRACK_NUMBER, number);
    // TrackUID.
    uint(out, 0x73c5, number);
    let kind = match track.codec {
        TrackCodec::Text => SUBTITLE,
        codec if codec.is_video() => VIDEO,
        _ => AUDIO,
    };
    uint(out, TRACK_TYPE, kind);
    // No lacing; language undetermined.
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
        TrackCodec::Text => b"S_TEXT/UTF8",
    };
    binary(out, 0x86, codec);
    if !track.private.is_empty() {
        binary(out, 0x63a2, &track.private);
    }
    if track.delay > 0 {
        uint(out, CODEC_DELAY, nanoseconds(track.units(u64::from(track.delay))));
    }
    if track.codec == TrackCodec::Opus {
        // SeekPreRoll of 80 ms (RFC 9559 §5.1.4.1.26, RFC 7845 §4.6).
        uint(out, 0x56bb, 80_000_000);
    }
    if track.codec.is_video() {
        element(out, 0xe0, |out| {
            uint(out, 0xb0, u64::from(track.size.width));
            uint(out, 0xba, u64::from(track.size.height));
        });
    } else if track.codec.is_text() {
        // FlagDefault: captions are off until a viewer turns them on.
        uint(out, 0x88, 0);
    } else {
        let rate =
            if matches!(track.codec, TrackCodec::Pcmu | TrackCodec::Pcma) { 8_000.0 } else { f64::from(track.clock()) };
        element(out, 0xe1, |out| {
            float(out, 0xb5, rate);
            uint(out, 0x9f, u64::from(track.channels));
        });
    }
}

/// Converts [`UNITS`] to nanoseconds.
const fn nanoseconds(units: u64) -> u64 {
    units / 9 * 12_500 + units % 9 * 12_500 / 9
}

/// Converts [`UNITS`] to Segment ticks. Each time is rounded by itself, so that rounding errors do not add up.
const fn ticks(units: u64) -> u64 {
    const EACH: u64 = UNITS * TICK / 1_000_000_000;
    (units + EACH / 2) / EACH
}

/// Muxes one fragment as one or more clusters, each beginning with a keyframe if possible.
pub(super) fn fragment(tracks: &[TrackSpec], fragment: Vec<Vec<Sample>>) -> Bytes {
    let timed = |sample: Sample| (ticks(tracks[sample.track].units(sample.time)), sample);
    let mut blocks: Vec<(u64, Sample)> = fragment.into_iter().flatten().map(timed).collect();
    // Video first: a keyframe precedes audio of the same time, so that it begins the cluster.
    blocks.sort_by_key(|(time, sample)| (*time, !tracks[sample.track].codec.is_video()));
    let mut out = Vec::new();
    let mut rest = blocks.as_slice();
    while let Some((start, _)) = rest.first() {
        let begins = |(time, sample): &(u64, Sample)| {
            let keyframe = sample.keyframe && tracks[sample.track].codec.is_video();
            time - start > MAX_CLUSTER_SPAN || keyframe && time - start >= MIN_CLUSTER_SPAN
        };
        let count = rest.iter().skip(1).position(begins).map_or(rest.len(), |at| at + 1);
        let (cluster, after) = rest.split_at(count);
        rest = after;
        element(&mut out, CLUSTER, |out| {
            uint(out, TIMESTAMP, *start);
            for (time, sample) in cluster {
                let put_block = |out: &mut Vec<u8>, id, flags| {
                    ebml::put_head(out, id, 4 + sample.data.len() as u64);
                    // There are at most 16 tracks, so a track number takes one byte.
                    out.push(0x80 | (sample.track as u8 + 1));
                    out.extend(((time - start) as i16).to_be_bytes());
                    out.push(flags);
                    out.extend_from_slice(&sample.data);
                };
                let track = &tracks[sample.track];
                if track.codec.is_text() {
                    let duration = ticks(track.units(u64::from(sample.duration)));
                    element(out, BLOCK_GROUP, |out| {
                        put_block(out, BLOCK, 0);
                        text::put_durations(out, duration);
                    });
                } else {
                    put_block(out, SIMPLE_BLOCK, if sample.keyframe { 0x80 } else { 0 });
                }
            }
        });
    }
    out.into()
}
