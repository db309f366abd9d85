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

use crate::network::{Web, free_port};
use crate::odd_rtmp::{is_video, tags, time_of};
use crate::rig::{Clips, Rig, settings, tone};

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

#[test]
fn a_flash_video_whose_times_jump_is_played_without_a_break() {
    let clips = Clips::new();
    let path = clips.make(
        "whole.flv",
        &format!("-f lavfi -i testsrc2=s=320x180:r=25:d=6 -f lavfi -i sine=f=600:d=6:r=48000 {ENCODE}"),
    );
    let mut file = std::fs::read(&path).expect("just made")[..13].to_vec();
    for media in tags(&path) {
        let when = match time_of(&media) {
            time @ 2_000..3_500 => time + 3_600_000,
            time @ 3_500..5_000 => time - 3_000,
            time => time,
        };
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
    std::fs::write(clips.folder().join("jumps.flv"), file).expect("room for it");
    let mut rig = Rig::new(settings("file:jumps.flv", clips.folder()));
    assert_eq!(rig.until_ended(), None);
    check(&rig, 5, true);
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
