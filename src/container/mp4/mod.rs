//! MP4 (ISO/IEC 14496-12): fragmented while it grows, progressive when it is finished.
//!
//! A growing file is an ordinary fragmented MP4: `ftyp`, a reserved `free` box of 16 bytes, `moov`, then one `moof` and
//! `mdat` per second. To finish it, a `moov` with all sample tables is appended, and the reserved box becomes the
//! header of an `mdat` that spans all fragments. No sample is moved.
//!
//! Owns: the MP4 muxer, and initialization sections and parts for HLS. Does not know: files, playlists.

mod boxes;
mod finish;
mod movie;
mod text;

use bytes::Bytes;

use self::boxes::{boxed, full_box};
pub(super) use self::finish::finish;
use self::movie::Movie;
pub(super) use self::text::text_sample;
use super::{ContainerError, Sample, TrackSpec};

/// Bytes between `ftyp` and `moov` that become the header of one `mdat` with a 64-bit size.
const RESERVED: u64 = 16;
/// Sample flags (§8.8.3.1): `sample_depends_on` 2, a sync sample.
const SYNC: u32 = 0x0200_0000;
/// Sample flags: `sample_depends_on` 1 and `sample_is_non_sync_sample`.
const NOT_SYNC: u32 = 0x0101_0000;

/// Header of a growing file.
pub(super) fn header(tracks: &[TrackSpec]) -> Bytes {
    let mut out = file_type(*b"isom");
    boxed(&mut out, b"free", |out| out.extend([0; RESERVED as usize - 8]));
    Movie::of(tracks).write(&mut out, None).expect("a movie without samples is small");
    out.into()
}

/// The media initialization section of an HLS rendition (RFC 8216 §3.3): `ftyp` and `moov`.
pub fn initialization(tracks: &[TrackSpec]) -> Bytes {
    let mut out = file_type(*b"iso6");
    Movie::of(tracks).write(&mut out, None).expect("a movie without samples is small");
    out.into()
}

/// One HLS part of one track: `moof` and `mdat`. `sequence` counts parts from 1. `base` is the decode time of the first
/// sample in ticks of the track's clock, and replaces the sample's own time.
///
/// # Errors
/// [`ContainerError::Malformed`] when a sample is not valid for its codec.
pub fn part(track: &TrackSpec, sequence: u32, base: u64, samples: &[Sample]) -> Result<Bytes, ContainerError> {
    let stored = samples.iter().map(|sample| {
        let data = track.stored(sample.data.clone())?;
        Ok(Sample { data, ..sample.clone() })
    });
    let stored = stored.collect::<Result<Vec<_>, ContainerError>>()?;
    Ok(fragment(sequence, &[(1, base, &stored)]))
}

/// Muxes the fragments of a file.
#[derive(Debug, Default)]
pub(super) struct Muxer {
    sequence: u32,
}

impl Muxer {
    /// One fragment with the samples of each track.
    pub(super) fn fragment(&mut self, tracks: &[Vec<Sample>]) -> Bytes {
        self.sequence = self.sequence.wrapping_add(1);
        let runs = tracks.iter().zip(1u32..);
        let runs = runs.filter_map(|(samples, id)| Some((id, samples.first()?.time, samples.as_slice())));
        fragment(self.sequence, &runs.collect::<Vec<_>>())
    }
}

fn file_type(major: [u8; 4]) -> Vec<u8> {
    let mut out = Vec::new();
    boxed(&mut out, b"ftyp", |out| {
        out.extend(major);
        out.extend(0x200u32.to_be_bytes());
        [*b"isom", *b"iso6", *b"iso2", *b"avc1", *b"mp41"].iter().for_each(|brand| out.extend(brand));
    });
    out
}

/// `moof` and `mdat` of runs, each with its track ID, the decode time of the first sample, and the samples.
fn fragment(sequence: u32, runs: &[(u32, u64, &[Sample])]) -> Bytes {
    let mut out = Vec::new();
    // Of each run: position of its data offset field in `out`, and offset of its samples in `mdat`.
    let mut offsets = Vec::new();
    let mut length = 0;
    boxed(&mut out, b"moof", |out| {
        full_box(out, b"mfhd", 0, 0, |out| out.extend(sequence.to_be_bytes()));
        for (id, base, samples) in runs {
            boxed(out, b"traf", |out| {
                // default-base-is-moof: offsets are relative to this moof.
                full_box(out, b"tfhd", 0, 0x02_0000, |out| out.extend(id.to_be_bytes()));
                full_box(out, b"tfdt", 1, 0, |out| out.extend(base.to_be_bytes()));
                // Data offset; duration, size and flags of each sample.
                full_box(out, b"trun", 0, 0x0701, |out| {
                    out.extend((samples.len() as u32).to_be_bytes());
                    offsets.push((out.len(), length));
                    out.extend([0; 4]);
                    for sample in *samples {
                        let flags = if sample.keyframe { SYNC } else { NOT_SYNC };
                        for field in [sample.duration, sample.data.len() as u32, flags] {
                            out.extend(field.to_be_bytes());
                        }
                        length += sample.data.len();
                    }
                });
            });
        }
    });
    let data = out.len() + 8;
    for (at, from) in offsets {
        out[at..at + 4].copy_from_slice(&((data + from) as u32).to_be_bytes());
    }
    out.reserve_exact(8 + length);
    boxed(&mut out, b"mdat", |out| {
        runs.iter().flat_map(|(_, _, samples)| *samples).for_each(|sample| out.extend_from_slice(&sample.data));
    });
    out.into()
}
