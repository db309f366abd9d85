//! The `moov` box: without samples for a growing file, with sample tables and chapters for a finished one.

use super::boxes::{Reader, boxed, children, find, find_whole, full_box};
use super::text::text_entry;
use crate::container::{Chapter, ContainerError, TrackCodec, TrackSpec, UNITS};
use crate::media::VIDEO_CLOCK;

/// Most chapters of a Nero chapter list, and most bytes of a title.
const MAX_CHAPTERS: usize = 255;
const MAX_TITLE: usize = 255;
/// The unity transformation matrix.
const IDENTITY_MATRIX: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];

/// The tracks: all that a growing and a finished file have in common.
#[derive(Debug)]
pub(super) struct Movie {
    pub(super) tracks: Vec<Track>,
}

/// A track without its samples. Its track ID is its index plus 1.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) timescale: u32,
    /// Decoder delay in ticks, skipped by the edit list.
    pub(super) delay: u32,
    kind: Kind,
    width: u16,
    height: u16,
    /// The complete `hdlr` box.
    handler: Vec<u8>,
    /// The complete `stsd` box.
    description: Vec<u8>,
}

/// What a track holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Video,
    Audio,
    Text,
}

impl Kind {
    /// The handler type (§8.4.3). That of text is Apple's, which players look for.
    const fn handler(self) -> &'static [u8; 4] {
        match self {
            Self::Video => b"vide",
            Self::Audio => b"soun",
            Self::Text => b"sbtl",
        }
    }
}

/// Sample tables of a track (§8.6, §8.7).
#[derive(Debug, Default)]
pub(super) struct SampleTables {
    /// Decode time of the first sample in ticks.
    pub(super) first: u64,
    /// `stts`: runs of sample count and duration in ticks.
    pub(super) durations: Vec<(u32, u32)>,
    pub(super) sizes: Vec<u32>,
    /// `stss`: numbers, from 1, of the sync samples; video only.
    pub(super) syncs: Vec<u32>,
    /// Chunks: file offset and number of samples.
    pub(super) chunks: Vec<(u64, u32)>,
}

impl SampleTables {
    /// Total duration of the samples in ticks.
    pub(super) fn length(&self) -> u64 {
        self.durations.iter().map(|(count, ticks)| u64::from(*count) * u64::from(*ticks)).sum()
    }

    /// Shortens the last sample, so that the samples end at `end` ticks if they end later; it lasts at least one tick.
    pub(super) fn end_by(&mut self, end: u64) {
        let late = (self.first + self.length()).saturating_sub(end);
        let Some((count, ticks)) = self.durations.last_mut().filter(|_| late > 0) else { return };
        let shorter = (u64::from(*ticks).saturating_sub(late)).max(1) as u32;
        *count -= 1;
        if *count == 0 {
            self.durations.pop();
        }
        self.durations.push((1, shorter));
    }
}

impl Track {
    fn of(spec: &TrackSpec) -> Self {
        let kind = match spec.codec {
            codec if codec.is_video() => Kind::Video,
            TrackCodec::Text => Kind::Text,
            _ => Kind::Audio,
        };
        let name = spec.name.as_bytes();
        let mut handler = Vec::new();
        full_box(&mut handler, b"hdlr", 0, 0, |out| {
            out.extend([0; 4]);
            out.extend(kind.handler());
            out.extend([0; 12]);
            out.extend(name.iter().filter(|byte| **byte != 0));
            out.push(0);
        });
        let mut description = Vec::new();
        full_box(&mut description, b"stsd", 0, 0, |out| {
            put_u32s(out, &[1]);
            match kind {
                Kind::Video => visual_entry(out, spec),
                Kind::Audio => audio_entry(out, spec),
                Kind::Text => text_entry(out, spec),
            }
        });
        let side = |pixels: u32| u16::try_from(pixels).unwrap_or(u16::MAX);
        Self {
            timescale: spec.clock(),
            delay: spec.delay,
            kind,
            width: side(spec.size.width),
            height: side(spec.size.height),
            handler,
            description,
        }
    }

    fn read(trak: &[u8]) -> Option<Self> {
        let media = find(trak, &[b"mdia"])?;
        let timescale = Reader(find(media, &[b"mdhd"])?.get(20..)?).u32()?;
        let handler = find_whole(media, &[b"hdlr"])?;
        let kinds = [Kind::Video, Kind::Audio, Kind::Text];
        let kind = kinds.into_iter().find(|kind| handler.get(16..20) == Some(kind.handler()))?;
        // Another timescale means that another program wrote the file.
        if timescale != if kind == Kind::Video { VIDEO_CLOCK } else { crate::media::AUDIO_RATE } {
            return None;
        }
        let mut edit = Reader(find(trak, &[b"edts", b"elst"])?);
        let (_, entries, _) = (edit.u32()?, edit.u32()?, edit.u64()?);
        let delay = u32::try_from(edit.u64()?).ok().filter(|_| entries == 1)?;
        let mut size = Reader(find(trak, &[b"tkhd"])?.get(88..)?);
        let (width, height) = ((size.u32()? >> 16) as u16, (size.u32()? >> 16) as u16);
        let description = find_whole(media, &[b"minf", b"stbl", b"stsd"])?;
        let (handler, description) = (handler.to_vec(), description.to_vec());
        Some(Self { timescale, delay, kind, width, height, handler, description })
    }

    pub(super) const fn is_video(&self) -> bool {
        matches!(self.kind, Kind::Video)
    }

    pub(super) const fn is_text(&self) -> bool {
        matches!(self.kind, Kind::Text)
    }

    /// Converts ticks of this track to [`UNITS`], the movie timescale.
    pub(super) const fn units(&self, ticks: u64) -> u64 {
        ticks.saturating_mul(UNITS / self.timescale as u64)
    }
}

impl Movie {
    pub(super) fn of(tracks: &[TrackSpec]) -> Self {
        Self { tracks: tracks.iter().map(Track::of).collect() }
    }

    /// Parses the body of the `moov` of a growing file. None when this module did not write it.
    pub(super) fn read(moov: &[u8]) -> Option<Self> {
        let tracks = children(moov).filter(|(kind, ..)| kind == b"trak").map(|(.., body)| Track::read(body));
        let tracks: Vec<Track> = tracks.collect::<Option<_>>()?;
        (1..=16).contains(&tracks.len()).then_some(Self { tracks })
    }

    /// Appends the `moov`: of a growing file, or with `done` of a finished one.
    ///
    /// # Errors
    /// [`ContainerError::TooLarge`] when its size exceeds 32 bits.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        done: Option<(&[SampleTables], &[Chapter])>,
    ) -> Result<(), ContainerError> {
        let start = out.len();
        let lasts = |track: &Track, tables: &SampleTables| {
            track.units(tables.first + tables.length().saturating_sub(u64::from(track.delay)))
        };
        let duration = done.map_or(0, |(tables, _)| {
            let media = self.tracks.iter().zip(tables).filter(|(track, _)| !track.is_text());
            media.map(|(track, tables)| lasts(track, tables)).max().unwrap_or(0)
        });
        boxed(out, b"moov", |out| {
            full_box(out, b"mvhd", 1, 0, |out| {
                put_u64s(out, &[0, 0]);
                put_u32s(out, &[UNITS as u32]);
                put_u64s(out, &[duration]);
                // Rate and volume 1, reserved.
                put_u32s(out, &[0x1_0000, 0x0100_0000, 0, 0]);
                put_u32s(out, &IDENTITY_MATRIX);
                put_u32s(out, &[0; 6]);
                put_u32s(out, &[self.tracks.len() as u32 + 1]);
            });
            for (i, track) in self.tracks.iter().enumerate() {
                let tables = done.map(|(tables, _)| &tables[i]);
                let lasts = tables.map_or(0, |tables| lasts(track, tables));
                boxed(out, b"trak", |out| track.write(out, i as u32 + 1, lasts, tables));
            }
            match done {
                None => boxed(out, b"mvex", |out| {
                    for id in 1..=self.tracks.len() as u32 {
                        full_box(out, b"trex", 0, 0, |out| put_u32s(out, &[id, 1, 0, 0, 0]));
                    }
                }),
                Some((_, chapters)) if !chapters.is_empty() => boxed(out, b"udta", |out| chapter_list(out, chapters)),
                Some(_) => {}
            }
        });
        if u32::try_from(out.len() - start).is_err() { Err(ContainerError::TooLarge) } else { Ok(()) }
    }
}

impl Track {
    fn write(&self, out: &mut Vec<u8>, id: u32, lasts: u64, tables: Option<&SampleTables>) {
        // Flags: enabled, in movie, in preview. Captions are off until a viewer turns them on.
        full_box(out, b"tkhd", 1, if self.is_text() { 6 } else { 7 }, |out| {
            put_u64s(out, &[0, 0]);
            put_u32s(out, &[id, 0]);
            put_u64s(out, &[lasts, 0]);
            // Layer and group, volume.
            put_u32s(out, &[0, if self.kind == Kind::Audio { 0x0100_0000 } else { 0 }]);
            put_u32s(out, &IDENTITY_MATRIX);
            put_u32s(out, &[u32::from(self.width) << 16, u32::from(self.height) << 16]);
        });
        boxed(out, b"edts", |out| {
            full_box(out, b"elst", 1, 0, |out| {
                let first = self.units(tables.map_or(0, |tables| tables.first));
                let empty = first > 0;
                put_u32s(out, &[1 + u32::from(empty)]);
                if empty {
                    put_u64s(out, &[first, u64::MAX]);
                    put_u32s(out, &[0x1_0000]);
                }
                put_u64s(out, &[lasts - first.min(lasts), u64::from(self.delay)]);
                put_u32s(out, &[0x1_0000]);
            });
        });
        boxed(out, b"mdia", |out| {
            full_box(out, b"mdhd", 1, 0, |out| {
                put_u64s(out, &[0, 0]);
                put_u32s(out, &[self.timescale]);
                put_u64s(out, &[tables.map_or(0, SampleTables::length)]);
                // Language: undetermined.
                put_u32s(out, &[0x55c4_0000]);
            });
            out.extend(&self.handler);
            boxed(out, b"minf", |out| {
                match self.kind {
                    Kind::Video => full_box(out, b"vmhd", 0, 1, |out| put_u32s(out, &[0, 0])),
                    Kind::Audio => full_box(out, b"smhd", 0, 0, |out| put_u32s(out, &[0])),
                    Kind::Text => full_box(out, b"nmhd", 0, 0, |_| {}),
                }
                boxed(out, b"dinf", |out| {
                    full_box(out, b"dref", 0, 0, |out| {
                        put_u32s(out, &[1]);
                        // Flag: media data is in this file.
                        full_box(out, b"url ", 0, 1, |_| {});
                    });
                });
                boxed(out, b"stbl", |out| {
                    out.extend(&self.description);
                    self.sample_tables(out, tables);
                });
            });
        });
    }

    fn sample_tables(&self, out: &mut Vec<u8>, tables: Option<&SampleTables>) {
        let none = SampleTables::default();
        let done = tables.is_some();
        let tables = tables.unwrap_or(&none);
        full_box(out, b"stts", 0, 0, |out| {
            put_u32s(out, &[tables.durations.len() as u32]);
            tables.durations.iter().for_each(|(count, ticks)| put_u32s(out, &[*count, *ticks]));
        });
        if self.is_video() && done {
            full_box(out, b"stss", 0, 0, |out| {
                put_u32s(out, &[tables.syncs.len() as u32]);
                put_u32s(out, &tables.syncs);
            });
        }
        let changes: Vec<(u32, u32)> = tables
            .chunks
            .iter()
            .zip(1..)
            .scan(0, |before, ((_, count), number)| {
                Some((std::mem::replace(before, *count) != *count).then_some((number, *count)))
            })
            .flatten()
            .collect();
        full_box(out, b"stsc", 0, 0, |out| {
            put_u32s(out, &[changes.len() as u32]);
            changes.iter().for_each(|(number, count)| put_u32s(out, &[*number, *count, 1]));
        });
        full_box(out, b"stsz", 0, 0, |out| {
            put_u32s(out, &[0, tables.sizes.len() as u32]);
            put_u32s(out, &tables.sizes);
        });
        full_box(out, b"co64", 0, 0, |out| {
            put_u32s(out, &[tables.chunks.len() as u32]);
            tables.chunks.iter().for_each(|(at, _)| put_u64s(out, &[*at]));
        });
    }
}

fn put_u32s(out: &mut Vec<u8>, numbers: &[u32]) {
    out.reserve(4 * numbers.len());
    numbers.iter().for_each(|number| out.extend(number.to_be_bytes()));
}

fn put_u64s(out: &mut Vec<u8>, numbers: &[u64]) {
    numbers.iter().for_each(|number| out.extend(number.to_be_bytes()));
}

/// A VisualSampleEntry (§12.1.3) with the codec configuration box.
fn visual_entry(out: &mut Vec<u8>, spec: &TrackSpec) {
    boxed(out, b"avc1", |out| {
        // Data reference 1.
        put_u32s(out, &[0, 1, 0, 0, 0, 0]);
        put_u32s(out, &[spec.size.width.min(0xffff) << 16 | spec.size.height.min(0xffff)]);
        // 72 dpi, one frame per sample, empty compressor name.
        put_u32s(out, &[0x48_0000, 0x48_0000, 0]);
        out.extend([0, 1]);
        out.extend([0; 32]);
        out.extend([0, 0x18, 0xff, 0xff]);
        boxed(out, b"avcC", |out| out.extend(&spec.private));
    });
}

/// An AudioSampleEntry (§12.2.3) with the codec configuration box.
fn audio_entry(out: &mut Vec<u8>, spec: &TrackSpec) {
    let opus = spec.codec == TrackCodec::Opus;
    boxed(out, if opus { b"Opus" } else { b"mp4a" }, |out| {
        put_u32s(out, &[0, 1, 0, 0]);
        // Channels, 16 bits.
        put_u32s(out, &[u32::from(spec.channels) << 16 | 16, 0]);
        put_u32s(out, &[spec.clock() << 16]);
        if opus {
            // Opus in ISOBMFF §4.3.2: the fields of OpusHead, but big-endian.
            boxed(out, b"dOps", |out| {
                out.extend([0, spec.channels]);
                out.extend((spec.delay as u16).to_be_bytes());
                out.extend(spec.clock().to_be_bytes());
                out.extend([0; 3]);
            });
        } else {
            full_box(out, b"esds", 0, 0, |out| elementary_stream(out, &spec.private));
        }
    });
}

/// The ES_Descriptor of AAC (ISO/IEC 14496-1 §7.2.6.5), with lengths of one byte.
fn elementary_stream(out: &mut Vec<u8>, config: &[u8]) {
    let config = &config[..config.len().min(64)];
    let length = config.len() as u8;
    out.extend([3, 23 + length, 0, 0, 0]);
    // DecoderConfigDescriptor: MPEG-4 audio, audio stream, buffer size and bitrates unspecified.
    out.extend([4, 15 + length, 0x40, 0x15]);
    out.extend([0; 11]);
    out.extend([5, length]);
    out.extend(config);
    // SLConfigDescriptor, predefined 2: required in MP4.
    out.extend([6, 1, 2]);
}

/// The chapter list in Nero's format (`chpl`), which most players read.
fn chapter_list(out: &mut Vec<u8>, chapters: &[Chapter]) {
    full_box(out, b"chpl", 1, 0, |out| {
        let chapters = &chapters[..chapters.len().min(MAX_CHAPTERS)];
        out.extend([0; 4]);
        out.push(chapters.len() as u8);
        for chapter in chapters {
            let title = &chapter.title[..chapter.title.floor_char_boundary(MAX_TITLE)];
            // In units of 100 ns.
            put_u64s(out, &[(chapter.time.as_nanos() / 100) as u64]);
            out.push(title.len() as u8);
            out.extend(title.as_bytes());
        }
    });
}
