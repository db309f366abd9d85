//! Playlists as a player reads them, and random sequences of pieces.

use proptest::prelude::*;

use super::*;

const PART: Duration = Duration::from_millis(500);

fn renditions() -> Vec<Rendition> {
    vec![
        Rendition::Video { tier: Tier::High, size: Size::new(1280, 720), fps: 30, bandwidth: 2_000_000 },
        Rendition::Audio { bandwidth: 140_000 },
    ]
}

fn broadcast() -> Broadcast {
    let mut broadcast = Broadcast::new("ab12".to_owned(), renditions(), Duration::from_secs(2), PART);
    for (rendition, codec) in ["avc1.42c01f", "mp4a.40.2"].into_iter().enumerate() {
        broadcast.push(rendition, Piece::Init { codec: codec.to_owned(), data: Bytes::from_static(b"init") });
    }
    broadcast
}

fn cut(broadcast: &mut Broadcast, number: u64) {
    for rendition in 0..2 {
        broadcast.push(rendition, Piece::Cut { wall_micros: 1_795_632_151_000_000 + number * 2_000_000 });
    }
}

fn part(broadcast: &mut Broadcast, name: &str, independent: bool) {
    for rendition in 0..2 {
        let data = Bytes::from(name.to_owned());
        broadcast.push(rendition, Piece::Part { duration: PART, independent, data });
    }
}

fn segments(broadcast: &mut Broadcast, numbers: std::ops::Range<u64>) {
    for number in numbers {
        cut(broadcast, number);
        (0..4).for_each(|n| part(broadcast, &format!("{number}.{n} "), n == 0));
    }
}

fn text(found: Lookup) -> String {
    match found {
        Lookup::Playlist(text) => text,
        other => panic!("no playlist: {other:?}"),
    }
}

#[test]
fn the_multivariant_playlist_waits_for_a_complete_segment_and_lists_video_tiers_and_audio_only() {
    let mut all = broadcast();
    assert_eq!(all.master(""), Lookup::Pending);
    segments(&mut all, 0..1);
    assert_eq!(all.master(""), Lookup::Pending);
    cut(&mut all, 1);
    let text = text(all.master("?token=x"));
    assert!(text.contains("BANDWIDTH=2140000,CODECS=\"avc1.42c01f,mp4a.40.2\",RESOLUTION=1280x720,FRAME-RATE=30.000"));
    assert!(text.contains("\nhigh/index.m3u8?token=x\n"), "{text}");
    assert!(text.contains("#EXT-X-STREAM-INF:BANDWIDTH=140000,CODECS=\"mp4a.40.2\",AUDIO=\"sound\"\naudio/index.m3u8"));
}

#[test]
fn a_media_playlist_lists_parts_hints_the_next_part_and_blocks_until_the_requested_one() {
    let mut all = broadcast();
    segments(&mut all, 0..3);
    let now = text(all.playlist("high", Query::default(), ""));
    let lines: Vec<&str> = now.lines().collect();
    assert!(lines.contains(&"#EXT-X-TARGETDURATION:2"));
    assert!(lines.contains(&"#EXT-X-MAP:URI=\"ab12-init0.mp4\""));
    assert!(lines.contains(&"#EXT-X-PROGRAM-DATE-TIME:2026-11-25T18:42:33Z"), "{now}");
    assert!(lines.contains(&"#EXT-X-PART:DURATION=0.50000,URI=\"ab12-2-0.m4s\",INDEPENDENT=YES"));
    assert!(lines.contains(&"#EXTINF:2.00000,") && lines.contains(&"ab12-1.m4s"));
    assert_eq!(lines[lines.len() - 2], "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"ab12-2-4.m4s\"");
    assert_eq!(lines[lines.len() - 1], "#EXT-X-RENDITION-REPORT:URI=\"../audio/index.m3u8\",LAST-MSN=2,LAST-PART=3");

    let ask = |all: &Broadcast, segment, part| all.playlist("high", Query { segment: Some(segment), part }, "");
    assert!(matches!(ask(&all, 2, Some(3)), Lookup::Playlist(_)));
    assert_eq!(ask(&all, 2, Some(4)), Lookup::Pending);
    assert_eq!(ask(&all, 2, None), Lookup::Pending, "the segment is not complete");
    assert_eq!(ask(&all, 5, Some(0)), Lookup::TooFar);
    assert_eq!(all.file("high", "ab12-2-4.m4s"), Lookup::Pending, "it is hinted");
    assert_eq!(all.file("high", "ab12-3-0.m4s"), Lookup::Pending, "the segment may be cut instead");
    assert_eq!(all.file("high", "ab12-2-5.m4s"), Lookup::NotFound);
    part(&mut all, "2.4 ", false);
    assert!(matches!(ask(&all, 2, Some(4)), Lookup::Playlist(_)));
    assert_eq!(all.file("high", "ab12-2-4.m4s"), Lookup::File("2.4 ".into()));
    assert_eq!(all.file("high", "ab12-1.m4s"), Lookup::File("1.0 1.1 1.2 1.3 ".into()));
    cut(&mut all, 3);
    assert!(matches!(ask(&all, 2, None), Lookup::Playlist(_)));
    assert_eq!(all.file("high", "ab12-2-5.m4s"), Lookup::NotFound, "the segment ended instead");
}

#[test]
fn another_process_makes_a_discontinuity_and_the_end_is_marked() {
    let mut all = broadcast();
    segments(&mut all, 0..2);
    all.begin_generation();
    for (rendition, codec) in ["avc1.42c01f", "mp4a.40.2"].into_iter().enumerate() {
        all.push(rendition, Piece::Init { codec: codec.to_owned(), data: Bytes::from_static(b"other") });
    }
    segments(&mut all, 2..4);
    let now = text(all.playlist("audio", Query::default(), ""));
    assert!(now.contains("ab12-1.m4s\n#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"ab12-init1.mp4\"\n"), "{now}");
    assert_eq!(all.file("audio", "ab12-init1.mp4"), Lookup::File("other".into()));
    segments(&mut all, 4..20);
    let now = text(all.playlist("audio", Query::default(), ""));
    assert!(now.contains("#EXT-X-DISCONTINUITY-SEQUENCE:1\n"), "it has left the list: {now}");
    assert_eq!(all.file("audio", "ab12-init0.mp4"), Lookup::NotFound);
    all.end();
    let now = text(all.playlist("audio", Query { segment: Some(99), part: None }, ""));
    assert!(now.ends_with("#EXT-X-ENDLIST\n") && !now.contains("PRELOAD"), "{now}");
}

#[test]
fn unknown_file_names_are_not_found() {
    let mut all = broadcast();
    segments(&mut all, 0..2);
    for name in
        ["", "ab12", "ab12-", "ab12-x.m4s", "ab12-0-x.m4s", "ab12-0-.m4s", "ab13-0.m4s", "ab12-0.txt", "ab12-init9.mp4"]
    {
        assert_eq!(all.file("high", name), Lookup::NotFound, "{name}");
    }
    assert_eq!(all.file("medium", "ab12-0.m4s"), Lookup::NotFound);
    assert_eq!(all.playlist("medium", Query::default(), ""), Lookup::NotFound);
}

proptest! {
    /// For any sequence of pieces: listed files are available, sequence numbers never decrease, and memory is bounded.
    #[test]
    fn listed_files_are_available(steps in prop::collection::vec(0..12_u8, 1..300)) {
        let mut all = broadcast();
        let mut last = 0;
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                0 | 1 => cut(&mut all, n as u64),
                2 => {
                    all.begin_generation();
                    let piece = |codec: &str| Piece::Init { codec: codec.to_owned(), data: Bytes::from_static(b"i") };
                    all.push(0, piece("avc1.42c01f"));
                    all.push(1, piece("mp4a.40.2"));
                }
                _ => part(&mut all, "data", step == 3),
            }
            prop_assert!(all.renditions.iter().all(|track| track.segments.len() <= STORED_SEGMENTS + 1));
            prop_assert!(all.renditions.iter().all(|track| track.inits.len() <= STORED_SEGMENTS + 2));
            let Lookup::Playlist(text) = all.playlist("high", Query::default(), "") else { continue };
            let mut first = None;
            for line in text.lines() {
                if let Some(number) = line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:") {
                    first = number.parse::<u64>().ok();
                }
                let hint = line.starts_with("#EXT-X-PRELOAD");
                let uri = line.split("URI=\"").nth(1).and_then(|rest| rest.split('"').next());
                let uri = uri.or_else(|| (!line.starts_with('#')).then_some(line)).filter(|uri| !uri.starts_with(".."));
                if let Some(uri) = uri {
                    let found = all.file("high", uri);
                    let fine = if hint { found == Lookup::Pending } else { matches!(found, Lookup::File(_)) };
                    prop_assert!(fine, "{} gave {:?}", line, found);
                }
            }
            let first = first.expect("a playlist has it");
            prop_assert!(first >= last);
            last = first;
        }
    }
}
