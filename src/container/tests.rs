//! Files of every format: written, truncated at any byte, corrupted, finished, finished twice.

mod captions;

use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::media::{Codec, Size};

const SECOND: Duration = Duration::from_secs(1);
/// Ticks of a video frame at 30 frames per second.
const FRAME: u32 = 3_000;
/// Ticks of an audio packet of 20 ms.
const PACKET: u32 = 960;

fn access_unit(keyframe: bool, filling: u8) -> Bytes {
    let sets: &[u8] = &[0, 0, 0, 1, 0x67, 0x42, 0xe0, 0x1f, 0xaa, 0, 0, 0, 1, 0x68, 1];
    let picture = [0, 0, 1, if keyframe { 0x65 } else { 0x41 }, filling | 1, 9];
    if keyframe { [sets, &picture].concat().into() } else { Bytes::copy_from_slice(&picture) }
}

fn tracks(format: FileFormat) -> Vec<TrackSpec> {
    let size = Size::new(640, 360);
    let video =
        |codec| TrackSpec::video(codec, size, &access_unit(true, 1)).expect("has its parameter sets").named("room");
    match format {
        FileFormat::Mp4 => vec![video(Codec::H264), TrackSpec::aac(2, Bytes::from_static(&[0x11, 0x90]))],
        FileFormat::Webm => vec![video(Codec::Vp8), TrackSpec::opus(2)],
        FileFormat::Mkv => vec![video(Codec::H264), TrackSpec::opus(2), TrackSpec::g711(false).named("phone")],
        FileFormat::Ogg => vec![TrackSpec::opus(1).named("voice")],
    }
}

/// Samples of every track for `milliseconds`, in order of time.
fn samples(tracks: &[TrackSpec], milliseconds: u64) -> Vec<Sample> {
    let mut all = Vec::new();
    for (track, spec) in tracks.iter().enumerate() {
        let (duration, ticks) = if spec.codec.is_video() { (FRAME, 90) } else { (PACKET, 48) };
        let count = milliseconds * ticks / u64::from(duration);
        all.extend((0..count).map(|i| {
            let keyframe = !spec.codec.is_video() || i % 50 == 0;
            let data =
                if spec.codec.is_video() { access_unit(keyframe, i as u8) } else { vec![i as u8 | 1; 20].into() };
            Sample { track, time: i * u64::from(duration), duration, keyframe, data }
        }));
    }
    all.sort_by_key(|sample| tracks[sample.track].units(sample.time));
    all
}

/// All buffers that a writer returns for these samples, the last one included.
fn pieces(format: FileFormat, tracks: &[TrackSpec], samples: &[Sample]) -> Vec<Bytes> {
    let mut writer = Writer::new(format, tracks.to_vec(), SECOND).expect("fits the format");
    let mut pieces = Vec::new();
    for sample in samples {
        writer.push(sample.clone()).expect("in order");
        pieces.extend(std::iter::from_fn(|| writer.poll()));
    }
    pieces.extend(std::iter::from_fn(|| writer.end()));
    pieces
}

fn chapters() -> Vec<Chapter> {
    [(0, "Ann joins"), (1_500, "Böb speaks")]
        .map(|(ms, title)| Chapter { time: Duration::from_millis(ms), title: title.into() })
        .to_vec()
}

#[test]
fn a_finished_file_has_its_duration_and_is_not_changed_again() {
    for format in FileFormat::ALL {
        let tracks = tracks(format);
        let samples = samples(&tracks, 3_500);
        let mut file = Cursor::new(pieces(format, &tracks, &samples).concat());
        let summary = finish(format, &mut file, &chapters()).expect("complete");
        let counts: Vec<u64> = (0..tracks.len())
            .map(|track| samples.iter().filter(|sample| sample.track == track).count() as u64)
            .collect();
        assert_eq!(
            (summary.samples.clone(), summary.cut, summary.bytes),
            (counts, 0, file.get_ref().len() as u64),
            "{format:?}"
        );
        assert!(summary.duration.abs_diff(Duration::from_millis(3_500)) <= Duration::from_millis(12), "{summary:?}");
        let once = file.clone().into_inner();
        assert_eq!(finish(format, &mut file, &[]).expect("finished"), summary);
        assert_eq!(file.into_inner(), once, "{format:?}: finishing again changes something");
    }
}

#[test]
fn every_fragment_has_one_second_of_all_tracks() {
    for format in FileFormat::ALL {
        let tracks = tracks(format);
        let mut writer = Writer::new(format, tracks.clone(), SECOND).expect("fits the format");
        let header = writer.poll().expect("the header comes first");
        let mut file = Cursor::new(header.to_vec());
        let mut seconds = 0;
        for sample in samples(&tracks, 5_000) {
            let now = tracks[sample.track].units(sample.time);
            writer.push(sample).expect("in order");
            while let Some(piece) = writer.poll() {
                file.get_mut().extend(&piece);
                seconds += 1;
                let lateness = now as i64 - (seconds * UNITS) as i64;
                assert!(
                    (-36_000..36_000).contains(&lateness),
                    "{format:?}: fragment {seconds} comes {lateness} units late"
                );
                let mut copy = file.clone();
                let summary = finish(format, &mut copy, &[]).expect("plays");
                for (spec, count) in tracks.iter().zip(summary.samples) {
                    assert_eq!(count, seconds * if spec.codec.is_video() { 30 } else { 50 }, "{format:?}");
                }
            }
        }
        assert!(seconds >= 4, "{format:?}: {seconds} fragments in 5 s");
    }
}

#[test]
fn a_stalled_track_does_not_delay_the_others() {
    let tracks = tracks(FileFormat::Webm);
    let mut writer = Writer::new(FileFormat::Webm, tracks.clone(), SECOND).expect("fits the format");
    let _beginning = writer.poll();
    let all = samples(&tracks, 4_000);
    let (mut pieces, mut late) = (0, 0);
    for sample in all.iter().filter(|sample| sample.track == 1 || sample.time < 45_000) {
        writer.push(sample.clone()).expect("in order");
        pieces += std::iter::from_fn(|| writer.poll()).count();
    }
    assert_eq!(pieces, 3, "audio alone continues");
    for sample in all.iter().filter(|sample| sample.track == 0 && sample.time >= 180_000) {
        writer.push(sample.clone()).expect("late is not out of order");
        late += 1;
    }
    assert!(late > 0 && writer.end().is_some());
}

#[test]
fn unsupported_tracks_and_malformed_samples_are_refused() {
    let opus = TrackSpec::opus(2);
    for (format, tracks) in [
        (FileFormat::Mp4, vec![TrackSpec::g711(true)]),
        (FileFormat::Webm, vec![TrackSpec::aac(2, Bytes::new())]),
        (FileFormat::Ogg, vec![opus.clone(), opus.clone()]),
        (FileFormat::Mkv, vec![]),
        (FileFormat::Mkv, vec![opus.clone(); 17]),
    ] {
        assert!(matches!(Writer::new(format, tracks, SECOND), Err(ContainerError::Tracks { .. })), "{format:?}");
    }
    let size = Size::new(640, 360);
    assert!(TrackSpec::video(Codec::H264, size, &access_unit(false, 1)).is_err(), "no parameter sets");
    assert!(TrackSpec::video(Codec::Opus, size, &Bytes::new()).is_err());
    let mut writer = Writer::new(FileFormat::Ogg, vec![opus], SECOND).expect("fits");
    let sample = Sample { track: 0, time: 960, duration: 960, keyframe: true, data: Bytes::from_static(&[1]) };
    writer.push(sample.clone()).expect("fine");
    assert!(matches!(writer.push(sample.clone()), Err(ContainerError::Unordered { .. })));
    assert!(matches!(writer.push(Sample { track: 1, ..sample.clone() }), Err(ContainerError::NoTrack(1))));
    let empty = Sample { time: 1_920, data: Bytes::new(), ..sample };
    assert!(matches!(writer.push(empty), Err(ContainerError::Malformed { .. })));
}

#[test]
fn codec_strings_follow_rfc_6381() {
    let names: Vec<String> = tracks(FileFormat::Mp4).iter().map(TrackSpec::codec_string).collect();
    assert_eq!(names, ["avc1.42E01F", "mp4a.40.2"]);
    assert_eq!(TrackSpec::opus(2).codec_string(), "opus");
}

/// Three hours: pending samples are bounded, and the tracks end at the same tick.
#[test]
fn long_recordings_have_no_drift_and_bounded_fragments() {
    const HOURS: u64 = 3;
    for format in [FileFormat::Mp4, FileFormat::Mkv] {
        let tracks = vec![tracks(format).remove(0), TrackSpec::opus(2)];
        let mut writer = Writer::new(format, tracks.clone(), SECOND).expect("fits");
        let mut file = Cursor::new(Vec::new());
        let (mut frame, mut packet) = (0u64, 0u64);
        while frame < HOURS * 3_600 * 30 {
            let video = frame * 3_000 * 8 <= packet * 960 * 15;
            let sample = if video {
                frame += 1;
                let data = access_unit(frame % 300 == 1, frame as u8);
                Sample { track: 0, time: (frame - 1) * 3_000, duration: 3_000, keyframe: frame % 300 == 1, data }
            } else {
                packet += 1;
                let data = Bytes::from_static(&[1]);
                Sample { track: 1, time: (packet - 1) * 960, duration: 960, keyframe: true, data }
            };
            writer.push(sample).expect("in order");
            while let Some(piece) = writer.poll() {
                assert!(piece.len() < 8_000, "{format:?}: a fragment of {} bytes", piece.len());
                file.get_mut().extend(&piece);
            }
        }
        file.get_mut().extend(std::iter::from_fn(|| writer.end()).flatten());
        let growing = file.get_ref().len();
        let summary = finish(format, &mut file, &[]).expect("complete");
        assert_eq!(summary.samples, [frame, packet]);
        let expected = Duration::from_secs(HOURS * 3_600);
        assert!(
            summary.duration.abs_diff(expected) <= Duration::from_millis(10),
            "{format:?} lasts {:?}",
            summary.duration
        );
        let index = file.get_ref().len() - growing;
        assert!(index < 5 * (frame + packet) as usize, "{format:?}: an index of {index} bytes");
    }
}

#[test]
fn corruption_far_from_the_end_leaves_the_file_unchanged() {
    for format in FileFormat::ALL {
        let tracks = tracks(format);
        let mut bytes = pieces(format, &tracks, &samples(&tracks, 2_000)).concat();
        bytes.resize(bytes.len() + (65 << 20), 0);
        let mut file = Cursor::new(bytes);
        let length = file.get_ref().len();
        assert!(matches!(finish(format, &mut file, &[]), Err(ContainerError::Damaged { .. })), "{format:?}");
        assert_eq!(file.get_ref().len(), length);
    }
}

/// Storage that fails after `left` bytes were written.
struct Failing {
    file: Cursor<Vec<u8>>,
    left: usize,
}

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Seek for Failing {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.left);
        self.left -= count;
        if count == 0 { Err(io::ErrorKind::StorageFull.into()) } else { self.file.write(&bytes[..count]) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Storage for Failing {
    fn set_len(&mut self, length: u64) -> io::Result<()> {
        Storage::set_len(&mut self.file, length)
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Interrupted after any number of bytes, `finish` gives the same file when it is repeated.
#[test]
fn finish_may_be_interrupted_at_any_byte() {
    for format in FileFormat::ALL {
        let tracks = tracks(format);
        let bytes = pieces(format, &tracks, &samples(&tracks, 1_200)).concat();
        let mut whole = Cursor::new(bytes.clone());
        let expected = finish(format, &mut whole, &chapters()).expect("complete");
        for left in 0..=whole.get_ref().len() + 200 - bytes.len() {
            let mut failing = Failing { file: Cursor::new(bytes.clone()), left };
            if finish(format, &mut failing, &chapters()).is_ok() {
                break;
            }
            let summary = finish(format, &mut failing.file, &chapters()).expect("repaired");
            assert_eq!(
                (&summary.samples, summary.duration),
                (&expected.samples, expected.duration),
                "{format:?} at {left}"
            );
            assert!(
                failing.file.get_ref() == whole.get_ref(),
                "{format:?}: interrupted after {left} bytes, the repeated finish gives another file"
            );
        }
    }
}

fn formats() -> impl Strategy<Value = FileFormat> {
    prop::sample::select(FileFormat::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A file truncated at any byte is repaired to its complete fragments.
    #[test]
    fn a_truncated_file_keeps_its_complete_fragments(format in formats(), at in 0.0..1.0f64, then in 0.0..1.0f64) {
        let tracks = tracks(format);
        let pieces = pieces(format, &tracks, &samples(&tracks, 3_300));
        let bytes = pieces.concat();
        let cut = (bytes.len() as f64 * at) as usize;
        let mut whole = 0;
        let complete = pieces.iter().take_while(|piece| { whole += piece.len(); whole <= cut }).count();
        let mut file = Cursor::new(bytes[..cut].to_vec());
        let summary = match finish(format, &mut file, &chapters()) {
            Ok(summary) => summary,
            Err(ContainerError::Empty | ContainerError::Foreign { .. }) => {
                prop_assert!(complete < 2, "{} pieces are there", complete);
                return Ok(());
            }
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        // Of Matroska and Ogg, complete clusters and pages of an incomplete fragment are kept too.
        let mut intact = Cursor::new(pieces[..complete].concat());
        if complete >= 2 {
            let expected = finish(format, &mut intact, &chapters()).expect("complete fragments");
            for (summary, expected) in summary.samples.iter().zip(&expected.samples) {
                prop_assert!(summary >= expected);
            }
            if format == FileFormat::Mp4 {
                prop_assert_eq!(&summary.samples, &expected.samples);
            }
        }
        let once = file.get_ref().clone();
        prop_assert_eq!(&finish(format, &mut file, &[]).expect("finished"), &FileSummary { cut: 0, ..summary });
        prop_assert_eq!(file.get_ref(), &once);
        // A finished file that is truncated again does not panic.
        let again = (once.len() as f64 * then) as usize;
        let mut file = Cursor::new(once[..again].to_vec());
        let _ = finish(format, &mut file, &[]);
    }

    /// A file with flipped bits is refused, or finished so that it is not changed again.
    #[test]
    fn a_corrupted_file_is_refused_or_finished(
        format in formats(),
        flips in prop::collection::vec((0.0..1.0f64, 1u8..), 1..6),
        done in any::<bool>(),
    ) {
        let tracks = tracks(format);
        let mut file = Cursor::new(pieces(format, &tracks, &samples(&tracks, 2_200)).concat());
        if done {
            finish(format, &mut file, &chapters()).expect("complete");
        }
        for (at, with) in flips {
            let at = (file.get_ref().len() as f64 * at * at) as usize;
            file.get_mut()[at] ^= with;
        }
        if let Ok(summary) = finish(format, &mut file, &chapters()) {
            let once = file.get_ref().clone();
            prop_assert_eq!(finish(format, &mut file, &[]).expect("finished"), FileSummary { cut: 0, ..summary });
            prop_assert_eq!(file.get_ref(), &once);
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(format in formats(), bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = finish(format, &mut Cursor::new(bytes), &[]);
    }
}
