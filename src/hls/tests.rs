//! Playlists as a player reads them, and random sequences of pieces.

use proptest::prelude::*;

use super::*;

const PART: Duration = Duration::from_millis(500);
/// The start of the broadcast, in seconds since 1970.
const BEGAN: u64 = 1_795_632_150;
/// The media sequence number of the first segment, which begins a second later.
const FIRST: u64 = 897_816_075;

fn renditions() -> Vec<Rendition> {
    vec![
        Rendition::Video { tier: Tier::High, size: Size::new(1280, 720), fps: 30, bandwidth: 2_000_000 },
        Rendition::Audio { bandwidth: 140_000 },
    ]
}

fn broadcast() -> Broadcast {
    let mut broadcast = Broadcast::new(BEGAN, renditions(), Duration::from_secs(2), PART);
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
    assert!(lines.contains(&"#EXT-X-MAP:URI=\"init-1795632150.mp4\""));
    assert!(lines.contains(&"#EXT-X-PROGRAM-DATE-TIME:2026-11-25T18:42:33Z"), "{now}");
    assert!(lines.contains(&"#EXT-X-PART:DURATION=0.50000,URI=\"897816077-0.m4s\",INDEPENDENT=YES"));
    assert!(lines.contains(&"#EXTINF:2.00000,") && lines.contains(&"897816076.m4s"));
    assert_eq!(lines[lines.len() - 2], "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"897816077-4.m4s\"");
    assert_eq!(
        lines[lines.len() - 1],
        "#EXT-X-RENDITION-REPORT:URI=\"../audio/index.m3u8\",LAST-MSN=897816077,LAST-PART=3"
    );

    let ask = |all: &Broadcast, segment, part| all.playlist("high", Query { segment: Some(FIRST + segment), part }, "");
    assert!(matches!(ask(&all, 2, Some(3)), Lookup::Playlist(_)));
    assert_eq!(ask(&all, 2, Some(4)), Lookup::Pending);
    assert_eq!(ask(&all, 2, None), Lookup::Pending, "the segment is not complete");
    assert_eq!(ask(&all, 5, Some(0)), Lookup::TooFar);
    assert_eq!(all.file("high", "897816077-4.m4s"), Lookup::Pending, "it is hinted");
    assert_eq!(all.file("high", "897816078-0.m4s"), Lookup::Pending, "the segment may be cut instead");
    assert_eq!(all.file("high", "897816077-5.m4s"), Lookup::NotFound);
    part(&mut all, "2.4 ", false);
    assert!(matches!(ask(&all, 2, Some(4)), Lookup::Playlist(_)));
    assert_eq!(all.file("high", "897816077-4.m4s"), Lookup::File("2.4 ".into()));
    assert_eq!(all.file("high", "897816076.m4s"), Lookup::File("1.0 1.1 1.2 1.3 ".into()));
    cut(&mut all, 3);
    assert!(matches!(ask(&all, 2, None), Lookup::Playlist(_)));
    assert_eq!(all.file("high", "897816077-5.m4s"), Lookup::NotFound, "the segment ended instead");
}

/// Adds a segment of captions: the whole segment is one part, as its end is known.
fn caption_segment(broadcast: &mut Broadcast, number: u64) {
    let captions = broadcast.renditions.len() - 1;
    let data = Bytes::from(format!("WEBVTT {number}"));
    broadcast.push(captions, Piece::Part { duration: Duration::from_secs(2), independent: true, data });
    broadcast.push(captions, Piece::Cut { wall_micros: 1_795_632_151_000_000 + (number + 1) * 2_000_000 });
}

#[test]
fn captions_are_listed_in_whole_segments_with_the_numbers_of_the_media() {
    let mut all = Broadcast::new(
        BEGAN,
        renditions().into_iter().chain([Rendition::Captions]).collect(),
        Duration::from_secs(2),
        PART,
    );
    for (rendition, codec) in ["avc1.42c01f", "mp4a.40.2"].into_iter().enumerate() {
        all.push(rendition, Piece::Init { codec: codec.to_owned(), data: Bytes::from_static(b"init") });
    }
    all.push(2, Piece::Cut { wall_micros: 1_795_632_151_000_000 });
    segments(&mut all, 0..1);
    cut(&mut all, 1);
    assert_eq!(all.master(""), Lookup::Pending, "it waits for captions, too");
    caption_segment(&mut all, 0);
    let master = text(all.master("?token=x"));
    assert!(
        master.contains(
            "TYPE=SUBTITLES,GROUP-ID=\"captions\",NAME=\"Captions\",DEFAULT=NO,AUTOSELECT=YES,\
             CHARACTERISTICS=\"public.accessibility.transcribes-spoken-dialog\",URI=\"captions/index.m3u8?token=x\"\n"
        ),
        "{master}"
    );
    assert_eq!(master.matches(",SUBTITLES=\"captions\"\n").count(), 2, "video and audio only: {master}");
    all.push(2, Piece::Language("pt-BR".to_owned()));
    assert!(text(all.master("")).contains(",LANGUAGE=\"pt-BR\","));

    segments(&mut all, 1..3);
    caption_segment(&mut all, 1);
    let now = text(all.playlist("captions", Query::default(), ""));
    let listed: Vec<&str> = now.lines().filter(|line| !line.contains("DATE-TIME")).collect();
    assert_eq!(
        listed,
        [
            "#EXTM3U",
            "#EXT-X-VERSION:9",
            "#EXT-X-INDEPENDENT-SEGMENTS",
            "#EXT-X-TARGETDURATION:2",
            "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES",
            "#EXT-X-MEDIA-SEQUENCE:897816075",
            "#EXT-X-DISCONTINUITY-SEQUENCE:2150",
            "#EXTINF:2.00000,",
            "897816075.vtt",
            "#EXTINF:2.00000,",
            "897816076.vtt",
            "#EXT-X-RENDITION-REPORT:URI=\"../high/index.m3u8\",LAST-MSN=897816077,LAST-PART=3",
            "#EXT-X-RENDITION-REPORT:URI=\"../audio/index.m3u8\",LAST-MSN=897816077,LAST-PART=3",
        ]
    );
    let video = text(all.playlist("high", Query::default(), ""));
    assert!(video.contains("\"../captions/index.m3u8\",LAST-MSN=897816076\n"), "{video}");
    assert_eq!(all.file("captions", "897816076.vtt"), Lookup::File("WEBVTT 1".into()));
    for absent in ["897816076.m4s", "897816076-0.vtt", "897816074.vtt", "init-1795632150.mp4"] {
        assert_eq!(all.file("captions", absent), Lookup::NotFound, "{absent}");
    }
    let next = Query { segment: Some(FIRST + 2), part: None };
    assert_eq!(all.playlist("captions", next, ""), Lookup::Pending);
    caption_segment(&mut all, 2);
    assert!(matches!(all.playlist("captions", next, ""), Lookup::Playlist(_)));

    // The process is lost within a segment.
    cut(&mut all, 3);
    part(&mut all, "3.0 ", true);
    all.begin_generation();
    assert_eq!(all.file("captions", "897816078.vtt"), Lookup::File("WEBVTT\n".into()));
    segments(&mut all, 4..5);
    all.push(2, Piece::Cut { wall_micros: 1_795_632_151_000_000 + 4 * 2_000_000 });
    caption_segment(&mut all, 4);
    assert_eq!(all.file("captions", "897816079.vtt"), Lookup::File("WEBVTT 4".into()), "the number of the media");
    all.end();
    let ended = text(all.playlist("captions", Query::default(), ""));
    let end = "#EXTINF:0.50000,\n897816078.vtt\n#EXT-X-DISCONTINUITY\n";
    assert!(ended.contains(end) && ended.ends_with("897816079.vtt\n#EXT-X-ENDLIST\n"), "{ended}");
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
    assert!(now.contains("897816076.m4s\n#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"init-1795632151.mp4\"\n"), "{now}");
    assert_eq!(all.file("audio", "init-1795632151.mp4"), Lookup::File("other".into()));
    segments(&mut all, 4..20);
    let now = text(all.playlist("audio", Query::default(), ""));
    assert!(now.contains("#EXT-X-DISCONTINUITY-SEQUENCE:2151\n"), "it has left the list: {now}");
    assert_eq!(all.file("audio", "init-1795632150.mp4"), Lookup::NotFound);
    all.end();
    let now = text(all.playlist("audio", Query { segment: Some(FIRST + 99), part: None }, ""));
    assert!(now.ends_with("#EXT-X-ENDLIST\n") && !now.contains("PRELOAD"), "{now}");
}

#[test]
fn unknown_file_names_are_not_found() {
    let mut all = broadcast();
    segments(&mut all, 0..2);
    for name in [
        "",
        "x",
        "-",
        "x.m4s",
        "897816075-x.m4s",
        "897816075-.m4s",
        "0.m4s",
        "897816075.txt",
        "init-9.mp4",
        "init-.mp4",
    ] {
        assert_eq!(all.file("high", name), Lookup::NotFound, "{name}");
    }
    assert_eq!(all.file("medium", "897816075.m4s"), Lookup::NotFound);
    assert_eq!(all.playlist("medium", Query::default(), ""), Lookup::NotFound);
}

/// The numbers of a playlist: media sequence, number of its listed segments, discontinuity sequence.
fn numbers(text: &str) -> (u64, u64, u64) {
    let value = |tag: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(tag)).expect("every playlist has it");
        line.parse::<u64>().expect("a number")
    };
    let listed = text.matches("#EXTINF").count() as u64;
    (value("#EXT-X-MEDIA-SEQUENCE:"), listed, value("#EXT-X-DISCONTINUITY-SEQUENCE:"))
}

#[test]
fn after_a_restart_of_the_server_players_find_greater_numbers_and_other_files() {
    let mut before = broadcast();
    segments(&mut before, 0..20);
    let old = text(before.playlist("high", Query::default(), ""));
    let (first, listed, discontinuities) = numbers(&old);
    assert_eq!((first, listed), (FIRST + 12, 7));
    // The server restarts within four seconds; its segments begin at other moments.
    let mut after = Broadcast::new(BEGAN + 43, renditions(), Duration::from_secs(2), PART);
    let wanted = Query { segment: Some(first + listed + 1), part: Some(0) };
    assert_eq!(after.playlist("high", wanted, ""), Lookup::Pending, "a player waits for the next segment");
    for rendition in 0..2 {
        after.push(rendition, Piece::Init { codec: "avc1.42c01f".to_owned(), data: Bytes::from_static(b"init") });
    }
    for number in 0..3 {
        for (rendition, late) in [(0, 30_000), (1, 0)] {
            let wall_micros = BEGAN * 1_000_000 + 45_700_000 + number * 2_000_000 + late;
            after.push(rendition, Piece::Cut { wall_micros });
            let piece = Piece::Part { duration: PART, independent: true, data: Bytes::from_static(b"media") };
            after.push(rendition, piece);
        }
    }
    let new = text(after.playlist("high", wanted, ""));
    let (next, _, later) = numbers(&new);
    assert!(next > first + listed && later != discontinuities, "{old}\n{new}");
    assert!(later < 2 * DISCONTINUITIES, "players keep an array of this length");
    let files = |text: &str| text.lines().filter(|line| line.ends_with(".m4s")).map(str::to_owned).collect::<Vec<_>>();
    assert!(files(&new).iter().all(|file| !files(&old).contains(file)));
    assert!(!old.contains(new.split("#EXT-X-MAP:URI=").nth(1).and_then(|rest| rest.lines().next()).expect("a map")));
    let audio = numbers(&text(after.playlist("audio", Query::default(), "")));
    assert_eq!(audio.0, next, "all renditions have the same numbers");
}

proptest! {
    /// Numbers of a later broadcast are greater, for any length, any pause of two segments or more, and late keyframes.
    #[test]
    fn later_broadcasts_have_greater_numbers(
        begin in 1_700_000_000_000_000..2_000_000_000_000_000_u64,
        late in prop::collection::vec(0..1_900_000_u64, 1..40),
        pause in 4_000_000..60_000_000_u64,
    ) {
        let last = |begin: u64, late: &[u64]| {
            let mut all = Broadcast::new(begin / 1_000_000, renditions(), Duration::from_secs(2), PART);
            for (n, late) in late.iter().enumerate() {
                all.push(0, Piece::Cut { wall_micros: begin + n as u64 * 2_000_000 + late });
                let piece = Piece::Part { duration: PART, independent: true, data: Bytes::from_static(b"media") };
                all.push(0, piece);
            }
            let track = &all.renditions[0];
            (track.first.expect("it has begun"), track.next().expect("it has begun") - 1)
        };
        let (_, newest) = last(begin, &late);
        let end = begin + (late.len() as u64 - 1) * 2_000_000 + late.last().copied().unwrap_or(0);
        let (first, _) = last(end + pause, &[0]);
        prop_assert!(first > newest, "{} after {}", first, newest);
    }

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
