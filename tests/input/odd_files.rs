//! Files and playlists whose times jump, compressed playlists, and tracks of one picture.

use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use commingle::codec::srt::SrtSender;
use commingle::destination::{Destination, Target};
use commingle::media::{AUDIO_RATE, SourceKind};
use commingle::time::now;

use crate::check_claps;
use crate::network::{Web, free_port};
use crate::odd_rtmp::{is_video, tags, time_of};
use crate::rig::{CLAPS, Clips, Rig, settings, tone};

/// A picture and a tone of six seconds.
const TONE: &str = "-f lavfi -i testsrc2=s=320x180:r=25:d=6 -f lavfi -i sine=f=600:d=6:r=48000";
const ENCODE: &str = "-c:v libx264 -preset ultrafast -tune zerolatency -g 10 -pix_fmt yuv420p -c:a aac";

/// Clips of two seconds whose times begin at these seconds.
fn parts(clips: &Clips, begins: &[f64]) -> Vec<String> {
    let parts = begins.iter().enumerate().map(|(n, begin)| {
        let name = format!("part{n}.ts");
        let source = "-f lavfi -i testsrc2=s=320x180:r=25:d=2 -f lavfi -i sine=f=600:d=2:r=48000";
        clips.make(&name, &format!("{source} {ENCODE} -muxdelay 0 -muxpreload 0 -output_ts_offset {begin}"));
        name
    });
    parts.collect()
}

fn join(folder: &Path, parts: &[String], name: &str) {
    let bytes = parts.iter().flat_map(|part| std::fs::read(folder.join(part)).expect("just made"));
    std::fs::write(folder.join(name), bytes.collect::<Vec<u8>>()).expect("room for it");
}

/// Checks that playback was continuous, and whether jumps of timestamps were counted.
fn check(rig: &Rig, seconds: usize, jumps: bool) {
    rig.check_continuous(seconds);
    let heard: Vec<f32> = rig.sound().into_iter().flat_map(|(_, _, samples)| samples).collect();
    // In windows of 100 ms: the phase changes at a jump.
    let windows: Vec<f32> = heard.chunks_exact(AUDIO_RATE as usize / 10).map(|window| tone(window, 600.0)).collect();
    let clean = windows.iter().filter(|purity| **purity > 0.8).count();
    assert!(clean * 100 >= windows.len() * 85, "the tone is clean in {clean} of {} windows", windows.len());
    let counted = rig.reports.last().expect("reports").1.timestamp_jumps;
    assert_eq!(counted > 0, jumps, "{counted} jumps were counted");
}

#[test]
fn a_transport_stream_whose_times_jump_is_played_without_a_break() {
    let clips = Clips::new();
    // Forward, backward, and across the wrap of the 33-bit clock.
    let parts = parts(&clips, &[0.0, 5_000.0, 1.0, 95_442.7]);
    join(clips.folder(), &parts, "joined.ts");
    let mut rig = Rig::new(settings("file:joined.ts", clips.folder()));
    assert_eq!(rig.until_ended(), None);
    check(&rig, 7, true);
}

#[test]
fn an_srt_stream_whose_times_jump_is_played_without_a_break() {
    let clips = Clips::new();
    let parts = parts(&clips, &[10.0, 5_000.0, 1.0]);
    let port = free_port();
    let mut rig = Rig::new(settings(&format!("srt://:{port}?mode=listener"), clips.folder()));
    rig.listen(Duration::from_secs(1));
    let url = Destination::output(&format!("srt://127.0.0.1:{port}")).expect("a URL");
    let Target::Srt(srt) = url.target().clone() else { panic!("it is SRT") };
    let streams: Vec<Vec<u8>> =
        parts.iter().map(|part| std::fs::read(clips.folder().join(part)).expect("just made")).collect();
    thread::spawn(move || {
        let sender = SrtSender::new(&srt, SocketAddr::from(([127, 0, 0, 1], port))).expect("srtsink is installed");
        let mut due = now();
        for stream in &streams {
            let buffers = stream.chunks(7 * 188);
            let pace = Duration::from_secs(2) / buffers.len() as u32;
            for buffer in buffers {
                sender.push(Bytes::copy_from_slice(buffer));
                due = due + pace;
                thread::park_timeout(due.since(now()));
            }
        }
        thread::park_timeout(Duration::from_secs(5));
        sender.end();
    });
    rig.until("all three parts", |rig| rig.of(SourceKind::Microphone).len() > 260);
    check(&rig, 5, true);
}

/// A Flash video of six seconds whose times in milliseconds are changed.
fn flash_video(clips: &Clips, name: &str, change: impl Fn(u32) -> u32) {
    let path = clips.make("whole.flv", &format!("{TONE} {ENCODE}"));
    let mut file = std::fs::read(&path).expect("just made")[..13].to_vec();
    for media in tags(&path) {
        let when = change(time_of(&media));
        let (kind, tag) = match &media {
            commingle::rtmp::Media::Video { tag, .. } => (9, tag),
            commingle::rtmp::Media::Audio { tag, .. } => (8, tag),
        };
        assert_eq!(kind == 9, is_video(&media));
        let length = tag.len() as u32;
        file.push(kind);
        file.extend(&length.to_be_bytes()[1..]);
        file.extend(&when.to_be_bytes()[1..]);
        file.extend([when.to_be_bytes()[0], 0, 0, 0]);
        file.extend(tag);
        file.extend((length + 11).to_be_bytes());
    }
    std::fs::write(clips.folder().join(name), file).expect("room for it");
}

#[test]
fn a_flash_video_whose_times_jump_is_played_without_a_break() {
    let clips = Clips::new();
    let jumps = |time: u32| match time {
        2_000..3_500 => time + 3_600_000,
        3_500..5_000 => time - 3_000,
        _ => time,
    };
    flash_video(&clips, "jumps.flv", jumps);
    // The demuxer corrects steps over 2 s only.
    flash_video(&clips, "back.flv", |time| if time < 3_000 { time } else { time - 1_500 });
    for name in ["jumps.flv", "back.flv"] {
        let mut rig = Rig::new(settings(&format!("file:{name}"), clips.folder()));
        assert_eq!(rig.until_ended(), None, "{name}");
        check(&rig, 5, true);
    }
}

/// Plays a playlist of segments of two seconds, with these lines between them.
fn play_list(clips: &Clips, segments: &[String], between: &str) {
    let segments: Vec<String> = segments.iter().map(|segment| format!("#EXTINF:2.0,\n{segment}\n")).collect();
    let segments = segments.join(between);
    let list = format!("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n{segments}#EXT-X-ENDLIST\n");
    std::fs::write(clips.folder().join("jumps.m3u8"), list).expect("room for it");
    let web = Web::new(clips.folder());
    let mut rig = Rig::new(settings(&format!("http://{}/jumps.m3u8", web.address), clips.folder()));
    assert_eq!(rig.until_ended(), None);
    check(&rig, 5, true);
}

#[test]
fn a_playlist_whose_times_jump_without_a_discontinuity_tag_is_played_without_a_break() {
    let clips = Clips::new();
    play_list(&clips, &parts(&clips, &[100.0, 20.0, 5_000.0]), "");
}

#[test]
fn a_playlist_with_discontinuity_tags_is_played_without_a_break() {
    let clips = Clips::new();
    play_list(&clips, &parts(&clips, &[100.0, 20.0, 5_000.0]), "#EXT-X-DISCONTINUITY\n");
}

/// A playlist `list.m3u8` of three MP4 segments of two seconds. Their video and audio begin at these seconds.
fn fragments(clips: &Clips, source: &str, begins: [[i64; 2]; 3]) {
    let hls = "-t 6 -f hls -hls_time 2 -hls_list_size 0 -hls_segment_type fmp4";
    clips.make("list.m3u8", &format!("{source} {ENCODE} -ar 48000 {hls}"));
    for (n, begins) in begins.iter().enumerate() {
        let path = clips.folder().join(format!("list{n}.m4s"));
        let mut bytes = std::fs::read(&path).expect("just made");
        let (mut track, mut changed) = (0, [0; 2]);
        for at in 0..bytes.len() - 16 {
            match &bytes[at..at + 4] {
                // The numbers of the tracks are 1 and 2.
                b"tfhd" => track = usize::from(bytes[at + 11]) - 1,
                b"tfdt" => {
                    assert_eq!(bytes[at + 4], 1, "decoding times of 64 bits");
                    let scale = [12_800, 48_000][track];
                    let time = i64::from_be_bytes(bytes[at + 8..at + 16].try_into().expect("eight bytes"));
                    let moved = time + (begins[track] - 2 * n as i64) * scale;
                    bytes[at + 8..at + 16].copy_from_slice(&moved.to_be_bytes());
                    changed[track] += 1;
                }
                _ => {}
            }
        }
        assert!(changed.iter().all(|changed| *changed > 0), "{changed:?} fragments");
        std::fs::write(&path, bytes).expect("room for it");
    }
}

/// Plays a file of this folder by HTTP.
fn play_web(clips: &Clips, name: &str) -> Rig {
    let web = Web::new(clips.folder());
    let mut rig = Rig::new(settings(&format!("http://{}/{name}", web.address), clips.folder()));
    assert_eq!(rig.until_ended(), None, "{name}");
    rig
}

fn jumps(rig: &Rig) -> u64 {
    rig.reports.last().expect("reports").1.timestamp_jumps
}

#[test]
fn mp4_segments_whose_times_go_back_stay_synchronized_without_a_break() {
    let clips = Clips::new();
    fragments(&clips, CLAPS, [[100; 2], [20; 2], [1; 2]]);
    let rig = play_web(&clips, "list.m3u8");
    rig.check_continuous(5);
    check_claps(&rig, 4);
    assert_eq!(jumps(&rig), 2);
}

#[test]
fn mp4_segments_whose_times_go_forward_and_back_are_played_without_a_break() {
    let clips = Clips::new();
    fragments(&clips, TONE, [[20; 2], [5_000; 2], [100; 2]]);
    let rig = play_web(&clips, "list.m3u8");
    check(&rig, 5, true);
    assert!(jumps(&rig) >= 2, "{}", jumps(&rig));
}

#[test]
fn mp4_segments_with_discontinuity_tags_are_played_without_a_break() {
    let clips = Clips::new();
    fragments(&clips, TONE, [[100; 2], [20; 2], [5_000; 2]]);
    let list = std::fs::read_to_string(clips.folder().join("list.m3u8")).expect("just made");
    let tagged = list.replace("#EXTINF", "#EXT-X-DISCONTINUITY\n#EXTINF");
    std::fs::write(clips.folder().join("tagged.m3u8"), tagged).expect("room for it");
    check(&play_web(&clips, "tagged.m3u8"), 5, true);
}

#[test]
fn one_track_of_mp4_segments_whose_times_go_back_does_not_disturb_the_other() {
    for begins in [[[100, 100], [20, 102], [22, 104]], [[100, 100], [102, 20], [104, 104]]] {
        let clips = Clips::new();
        fragments(&clips, TONE, begins);
        let rig = play_web(&clips, "list.m3u8");
        check(&rig, 5, true);
        assert_eq!(jumps(&rig), 1, "{begins:?}");
    }
}

#[test]
fn a_fragmented_mp4_file_whose_times_go_back_is_played_without_a_break() {
    let clips = Clips::new();
    fragments(&clips, TONE, [[100; 2], [20; 2], [22; 2]]);
    let parts = ["init.mp4", "list0.m4s", "list1.m4s", "list2.m4s"].map(str::to_owned);
    join(clips.folder(), &parts, "joined.mp4");
    check(&play_web(&clips, "joined.mp4"), 5, true);
    let mut rig = Rig::new(settings("file:joined.mp4", clips.folder()));
    assert_eq!(rig.until_ended(), None);
    check(&rig, 5, true);
}

#[test]
fn a_matroska_file_whose_clusters_go_back_stays_synchronized_without_a_break() {
    let clips = Clips::new();
    let path = clips.make("claps.mkv", &format!("{CLAPS} -t 6 {ENCODE} -output_ts_offset 100 -cluster_time_limit 900"));
    let mut bytes = std::fs::read(&path).expect("just made");
    let mut times = Vec::new();
    for at in 0..bytes.len() - 16 {
        // The time is the first element of a cluster, in milliseconds.
        if bytes[at..].starts_with(&[0x1f, 0x43, 0xb6, 0x75]) {
            let field = (at + 5..at + 13).find(|at| bytes[*at..].starts_with(&[0xe7, 0x83])).expect("its time") + 2;
            let time = u32::from_be_bytes([0, bytes[field], bytes[field + 1], bytes[field + 2]]);
            let moved = time
                - if time >= 104_000 {
                    103_000
                } else if time >= 102_000 {
                    50_000
                } else {
                    0
                };
            bytes[field..field + 3].copy_from_slice(&moved.to_be_bytes()[1..]);
            times.push(moved);
        }
    }
    assert!(times.iter().any(|time| *time < 10_000) && times.len() >= 6, "{times:?}");
    std::fs::write(clips.folder().join("back.mkv"), bytes).expect("room for it");
    let mut file = Rig::new(settings("file:back.mkv", clips.folder()));
    assert_eq!(file.until_ended(), None);
    for rig in [file, play_web(&clips, "back.mkv")] {
        rig.check_continuous(5);
        check_claps(&rig, 4);
        assert_eq!(jumps(&rig), 2);
    }
}

#[test]
fn joined_webm_files_are_played_to_the_end() {
    let clips = Clips::new();
    let source = TONE.replace("d=6", "d=2");
    let encode = "-c:v libvpx -deadline realtime -cpu-used 8 -g 10 -c:a libopus";
    let parts: Vec<String> = (0..3).map(|n| format!("part{n}.webm")).collect();
    parts.iter().for_each(|part| drop(clips.make(part, &format!("{source} {encode}"))));
    join(clips.folder(), &parts, "joined.webm");
    let mut file = Rig::new(settings("file:joined.webm", clips.folder()));
    assert_eq!(file.until_ended(), None);
    for rig in [file, play_web(&clips, "joined.webm")] {
        check(&rig, 5, true);
        assert_eq!(jumps(&rig), 2);
    }
}

#[test]
fn compressed_playlists_and_segments_are_played() {
    let clips = Clips::new();
    let source = "-f lavfi -i testsrc2=s=320x180:r=25:d=3 -f lavfi -i sine=f=600:d=3:r=48000";
    clips.make("list.m3u8", &format!("{source} {ENCODE} -f hls -hls_time 1 -hls_list_size 0"));
    let main = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000000\nlist.m3u8\n";
    std::fs::write(clips.folder().join("main.m3u8"), main).expect("room for it");
    let web = Web::new(clips.folder());
    // The URLs in the playlists are relative: segments are compressed too.
    for list in ["list.m3u8", "main.m3u8"] {
        let mut rig = Rig::new(settings(&format!("http://{}/gzip/{list}", web.address), clips.folder()));
        assert_eq!(rig.until_ended(), None, "{list}");
        check(&rig, 2, false);
    }
}

#[test]
fn a_track_of_one_picture_does_not_stop_the_audio_and_stays_visible() {
    let clips = Clips::new();
    let picture = "-f lavfi -i testsrc2=s=320x180:r=25:d=0.04 -f lavfi -i sine=f=600:d=5:r=48000";
    clips.make("one.mp4", &format!("{picture} {ENCODE}"));
    clips.make("one.mkv", &format!("{picture} -c:v libvpx -c:a libopus"));
    for name in ["one.mp4", "one.mkv"] {
        let mut rig = Rig::new(settings(&format!("file:{name}"), clips.folder()));
        assert_eq!(rig.until_ended(), None, "{name}");
        let sound = rig.of(SourceKind::Microphone);
        assert!((245..=260).contains(&sound.len()), "{name}: {} packets of audio", sound.len());
        assert!(sound.windows(2).all(|two| two[1].timestamp.wrapping_sub(two[0].timestamp) == 960), "{name}: a gap");
        let frames = rig.frames();
        assert!((4..=7).contains(&frames.len()), "{name}: sent {} times", frames.len());
        let first = frames[0][0].arrival.since(sound[0].arrival);
        assert!(first.as_millis() < 1_000, "{name}: the picture was sent after {first:?}");
    }
}

#[test]
fn slow_pictures_keep_their_pace() {
    let clips = Clips::new();
    let slides = "-f lavfi -i testsrc2=s=320x180:r=1/3:d=9";
    clips.make("slides.mp4", &format!("{slides} -c:v libx264 -pix_fmt yuv420p"));
    clips.make("slides.mkv", &format!("{slides} -c:v libvpx"));
    for name in ["slides.mp4", "slides.mkv"] {
        let mut rig = Rig::new(settings(&format!("file:{name}"), clips.folder()));
        assert_eq!(rig.until_ended(), None, "{name}");
        let frames = rig.frames();
        let length = frames.last().expect("frames")[0].arrival.since(frames[0][0].arrival);
        assert!((3..8).contains(&length.as_secs()), "{name}: played in {length:?}");
        assert_eq!(rig.reports.last().expect("reports").1.reconnects, 0);
    }
}
