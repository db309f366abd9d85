//! Captions in files: truncated, interrupted, and files without captions.

use super::*;

/// Media of `milliseconds` and captions: time and planned duration in milliseconds.
fn file_with(format: FileFormat, milliseconds: u64, captions: &[(u64, u32)]) -> Vec<Bytes> {
    let mut tracks = tracks(format);
    let mut samples = samples(&tracks, milliseconds);
    let text = tracks.len();
    tracks.push(TrackSpec::text(Size::new(640, 360)).named("Captions"));
    samples.extend(captions.iter().map(|(time, duration)| Sample {
        track: text,
        time: time * 48,
        duration: duration * 48,
        keyframe: true,
        data: format!("Ann: {time}").into(),
    }));
    samples.sort_by_key(|sample| tracks[sample.track].units(sample.time));
    pieces(format, &tracks, &samples)
}

const FORMATS: [FileFormat; 2] = [FileFormat::Mp4, FileFormat::Mkv];

#[test]
fn a_file_without_captions_loses_their_track() {
    for format in FORMATS {
        let media = tracks(format).len();
        let mut file = Cursor::new(file_with(format, 2_500, &[]).concat());
        let summary = finish(format, &mut file, &chapters()).expect("complete");
        assert_eq!(summary.samples.len(), media, "{format:?}");
        let once = file.clone().into_inner();
        assert_eq!(finish(format, &mut file, &[]).expect("finished"), summary, "{format:?}");
        assert_eq!(file.into_inner(), once, "{format:?}");
    }
}

#[test]
fn captions_do_not_delay_fragments_or_lengthen_a_file() {
    for format in FORMATS {
        let plain = pieces(format, &tracks(format), &samples(&tracks(format), 4_500));
        let pieces = file_with(format, 4_500, &[(3_900, 6_000)]);
        assert_eq!(pieces.len(), plain.len(), "{format:?}");
        let mut file = Cursor::new(pieces.concat());
        let summary = finish(format, &mut file, &[]).expect("complete");
        assert!(summary.duration.abs_diff(Duration::from_millis(4_500)) <= Duration::from_millis(12), "{summary:?}");
        // An MP4 also has the pause before it.
        assert_eq!(summary.samples.last(), Some(if format == FileFormat::Mp4 { &2 } else { &1 }));
    }
}

#[test]
fn captions_are_the_last_track_of_mp4_and_matroska() {
    let text = TrackSpec::text(Size::new(640, 360));
    let refused = |format, tracks: Vec<TrackSpec>| {
        matches!(Writer::new(format, tracks, SECOND), Err(ContainerError::Tracks { .. }))
    };
    for format in FORMATS {
        assert!(refused(format, vec![text.clone(), TrackSpec::opus(1)]));
        assert!(!refused(format, vec![TrackSpec::opus(1), text.clone()]));
    }
    for format in [FileFormat::Webm, FileFormat::Ogg] {
        assert!(refused(format, vec![TrackSpec::opus(1), text.clone()]));
    }
}

#[test]
fn captions_half_a_day_apart_are_written() {
    for format in FORMATS {
        let tracks = vec![TrackSpec::opus(1), TrackSpec::text(Size::new(640, 360))];
        let mut writer = Writer::new(format, tracks, SECOND).expect("fits");
        let mut file = Vec::new();
        for half_days in 0..=6 {
            let time = 48_000 + half_days * 43_200 * 48_000;
            let media = Sample { track: 0, time, duration: 960, keyframe: true, data: Bytes::from_static(&[1]) };
            writer.push(media.clone()).expect("in order");
            if [0, 6].contains(&half_days) {
                writer.push(Sample { track: 1, duration: 96_000, data: "late".into(), ..media }).expect("in order");
            }
            file.extend(std::iter::from_fn(|| writer.poll()).flatten());
        }
        file.extend(std::iter::from_fn(|| writer.end()).flatten());
        let summary = finish(format, &mut Cursor::new(file), &[]).expect("complete");
        // Pauses of 12 hours at most, in MP4: one at the beginning, and six between.
        assert_eq!(summary.samples, [7, if format == FileFormat::Mp4 { 9 } else { 2 }], "{format:?}");
    }
}

/// As [`finish_may_be_interrupted_at_any_byte`], with captions to be corrected, and without captions.
#[test]
fn corrections_of_captions_may_be_interrupted_at_any_byte() {
    let captions: [&[(u64, u32)]; 2] = [&[], &[(100, 6_000), (350, 6_000), (355, 100), (1_100, 6_000)]];
    for (format, captions) in FORMATS.into_iter().flat_map(|format| captions.map(|captions| (format, captions))) {
        let bytes = file_with(format, 1_200, captions).concat();
        let mut whole = Cursor::new(bytes.clone());
        let expected = finish(format, &mut whole, &chapters()).expect("complete");
        for left in 0..=whole.get_ref().len() + 300 - bytes.len() {
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
            assert!(failing.file.get_ref() == whole.get_ref(), "{format:?}: interrupted after {left} bytes");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_truncated_file_with_captions_keeps_its_media(
        mp4 in any::<bool>(),
        at in 0.0..1.0f64,
        captions in prop::collection::vec((1..1_500_u64, 0..6_000_u32), 0..8),
    ) {
        let format = FORMATS[usize::from(!mp4)];
        let mut time = 0;
        let captions: Vec<(u64, u32)> =
            captions.into_iter().map(|(wait, lasts)| { time += wait; (time, lasts) }).collect();
        let pieces = file_with(format, 3_300, &captions);
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
        prop_assert!(summary.duration.as_secs_f64() + 0.02 > complete.saturating_sub(1) as f64 - 1.0);
        prop_assert!(summary.duration <= Duration::from_millis(3_340));
        let once = file.get_ref().clone();
        prop_assert_eq!(&finish(format, &mut file, &[]).expect("finished"), &FileSummary { cut: 0, ..summary });
        prop_assert_eq!(file.get_ref(), &once);
    }
}
