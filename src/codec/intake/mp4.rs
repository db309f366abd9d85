//! Short tracks in MP4 files (ISO/IEC 14496-12), such as one picture with an hour of audio.
//!
//! Owns: [`lengthen`] and [`has_short`], pure. Does not know: GStreamer. In: bytes that contain the movie box. Out: the
//! same bytes with longer durations in the headers of short tracks: `qtdemux` takes a track shorter than 20 % of the
//! movie for a preview and ignores it, also if it is the only one of its kind. The samples and their times stay as they
//! are.

use std::ops::Range;

/// Bytes of a box header.
const HEADER: usize = 8;

/// The boxes within these bytes that are complete: type, and position of the contents.
fn boxes(bytes: &[u8], within: Range<usize>) -> impl Iterator<Item = ([u8; 4], Range<usize>)> {
    let mut at = within.start;
    std::iter::from_fn(move || {
        let header: [u8; HEADER] = bytes.get(at..at + HEADER)?.try_into().ok()?;
        let [a, b, c, d, name @ ..] = header;
        let end = at.checked_add(u32::from_be_bytes([a, b, c, d]) as usize)?;
        if end < at + HEADER || end > within.end {
            return None;
        }
        let contents = at + HEADER..end;
        at = end;
        Some((name, contents))
    })
}

fn child(bytes: &[u8], within: &Range<usize>, name: [u8; 4]) -> Option<Range<usize>> {
    boxes(bytes, within.clone()).find(|(found, _)| *found == name).map(|(_, contents)| contents)
}

/// Timescale and duration of a movie or media header, and the position of the duration.
fn times(bytes: &[u8], header: &Range<usize>) -> Option<(u64, u64, Range<usize>)> {
    let header_bytes = bytes.get(header.clone())?;
    let number = |at: Range<usize>| {
        header_bytes.get(at).map(|bytes| bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte)))
    };
    // Version 1 has longer fields.
    let (scale, duration) = if *header_bytes.first()? == 1 { (20..24, 24..32) } else { (12..16, 16..20) };
    let position = header.start + duration.start..header.start + duration.end;
    Some((number(scale)?, number(duration)?, position))
}

/// Whether these bytes contain a complete movie box with short tracks that are the only one of their kind.
pub(super) fn has_short(bytes: &[u8]) -> bool {
    changes(bytes).is_some_and(|changes| !changes.is_empty())
}

/// Lengthens these tracks in their headers.
pub(super) fn lengthen(bytes: &mut [u8]) {
    for (at, duration) in changes(bytes).unwrap_or_default() {
        let length = at.len();
        bytes[at].copy_from_slice(&duration.to_be_bytes()[8 - length..]);
    }
}

/// The positions and the new values of durations.
fn changes(bytes: &[u8]) -> Option<Vec<(Range<usize>, u64)>> {
    let movie = child(bytes, &(0..bytes.len()), *b"moov")?;
    let (movie_scale, movie_duration, _) = times(bytes, &child(bytes, &movie, *b"mvhd")?)?;
    let tracks = boxes(bytes, movie).filter(|(name, _)| name == b"trak");
    let tracks: Vec<_> = tracks
        .filter_map(|(_, track)| {
            let media = child(bytes, &track, *b"mdia")?;
            let handler = child(bytes, &media, *b"hdlr")?;
            let kind: [u8; 4] = bytes[handler].get(8..12)?.try_into().ok()?;
            Some((kind, times(bytes, &child(bytes, &media, *b"mdhd")?)?))
        })
        .collect();
    let is_alone = |kind: &[u8; 4]| tracks.iter().filter(|(other, _)| other == kind).count() == 1;
    let short = tracks.iter().filter(|(kind, _)| (kind == b"vide" || kind == b"soun") && is_alone(kind));
    let changes = short.filter_map(|(_, (scale, duration, at))| {
        let least = u128::from(movie_duration) * u128::from(*scale) / u128::from(movie_scale.max(1)) / 5 + 1;
        let most = if at.len() == 4 { u128::from(u32::MAX - 1) } else { u128::from(u64::MAX >> 1) };
        (u128::from(*duration) < least && least <= most).then(|| (at.clone(), least as u64))
    });
    Some(changes.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn a_box(name: &[u8; 4], contents: &[u8]) -> Vec<u8> {
        [&(contents.len() as u32 + 8).to_be_bytes(), &name[..], contents].concat()
    }

    fn header(name: &[u8; 4], version: u8, scale: u32, duration: u32) -> Vec<u8> {
        let times: &[&[u8]] = match version {
            1 => &[&[0; 16], &scale.to_be_bytes(), &u64::from(duration).to_be_bytes()],
            _ => &[&[0; 8], &scale.to_be_bytes(), &duration.to_be_bytes()],
        };
        a_box(name, &[&[version, 0, 0, 0], &times.concat()[..], &[0; 4]].concat())
    }

    fn track(kind: &[u8; 4], version: u8, scale: u32, duration: u32) -> Vec<u8> {
        let handler = a_box(b"hdlr", &[&[0; 8], &kind[..], &[0; 12]].concat());
        a_box(b"trak", &a_box(b"mdia", &[header(b"mdhd", version, scale, duration), handler].concat()))
    }

    fn movie(duration: u32, tracks: &[Vec<u8>]) -> Vec<u8> {
        let moov = a_box(b"moov", &[header(b"mvhd", 0, 1_000, duration), tracks.concat()].concat());
        [a_box(b"ftyp", b"isom"), moov].concat()
    }

    /// Durations of the tracks, in seconds.
    fn durations(bytes: &[u8]) -> Vec<f64> {
        let movie = child(bytes, &(0..bytes.len()), *b"moov").expect("it is there");
        let tracks = boxes(bytes, movie).filter(|(name, _)| name == b"trak");
        let duration = |(_, track): ([u8; 4], Range<usize>)| {
            let media = child(bytes, &track, *b"mdia").expect("it is there");
            let (scale, duration, _) =
                times(bytes, &child(bytes, &media, *b"mdhd").expect("it is there")).expect("whole");
            duration as f64 / scale as f64
        };
        tracks.map(duration).collect()
    }

    #[test]
    fn only_short_tracks_that_are_alone_of_their_kind_are_changed() {
        for version in [0, 1] {
            let picture = track(b"vide", version, 12_800, 512);
            let mut bytes = movie(5_000, &[picture.clone(), track(b"soun", version, 48_000, 240_000)]);
            assert!(has_short(&bytes));
            lengthen(&mut bytes);
            assert!((1.0..1.001).contains(&durations(&bytes)[0]) && durations(&bytes)[1] == 5.0);
            assert!(!has_short(&bytes), "it is long enough now");
            let bytes = movie(5_000, &[track(b"vide", version, 25, 125), track(b"soun", version, 48_000, 1_024)]);
            assert!(has_short(&bytes), "a short sound");
            // A preview beside the film, and subtitles.
            let film = track(b"vide", version, 12_800, 64_000);
            let mut bytes = movie(5_000, &[film, picture, track(b"text", version, 1_000, 40)]);
            let before = bytes.clone();
            lengthen(&mut bytes);
            assert_eq!(bytes, before);
        }
    }

    proptest! {
        #[test]
        fn damaged_files_do_not_panic(at in 0..200usize, byte: u8, length in 0..200usize) {
            let mut bytes = movie(5_000, &[track(b"vide", 0, 12_800, 512), track(b"soun", 1, 48_000, 240_000)]);
            if let Some(changed) = bytes.get_mut(at) {
                *changed = byte;
            }
            bytes.truncate(bytes.len() - length.min(bytes.len()));
            let before = bytes.len();
            lengthen(&mut bytes);
            prop_assert_eq!(bytes.len(), before);
        }
    }
}
