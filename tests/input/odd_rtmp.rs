//! Encoders that push by RTMP with jumping timestamps and bad messages.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use commingle::destination::{Destination, Target};
use commingle::media::SourceKind;
use commingle::room::document::{InputState, SkipReason};
use commingle::rtmp::flv::audio_frame;
use commingle::rtmp::{Client, ClientEvent, Media, Purpose};
use commingle::time::now;

use crate::rig::{CLAPS, Clips, Rig};

/// Arguments of the encoders of a clip.
const ENCODE: &str = "-c:v libx264 -preset ultrafast -tune zerolatency -g 25 -pix_fmt yuv420p -c:a aac -ac 1";

/// The audio and video tags of an FLV file.
pub fn tags(path: &Path) -> Vec<Media> {
    let file = Bytes::from(std::fs::read(path).expect("just made"));
    let (mut at, mut tags) = (13, Vec::new());
    while let Some(header) = file.get(at..at + 11) {
        let number = |bytes: &[u8]| bytes.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte));
        let (length, time_ms) = (number(&header[1..4]) as usize, number(&header[4..7]) | u32::from(header[7]) << 24);
        let tag = file.slice(at + 11..at + 11 + length);
        match header[0] {
            8 => tags.push(Media::Audio { time_ms, tag }),
            9 => tags.push(Media::Video { time_ms, tag }),
            _ => {}
        }
        at += 11 + length + 4;
    }
    tags
}

pub const fn time_of(media: &Media) -> u32 {
    match media {
        Media::Video { time_ms, .. } | Media::Audio { time_ms, .. } => *time_ms,
    }
}

pub const fn is_video(media: &Media) -> bool {
    matches!(media, Media::Video { .. })
}

fn is_config(media: &Media) -> bool {
    let (Media::Video { tag, .. } | Media::Audio { tag, .. }) = media;
    tag.get(1) == Some(&0)
}

fn at(media: Media, time_ms: u32) -> Media {
    match media {
        Media::Video { tag, .. } => Media::Video { time_ms, tag },
        Media::Audio { tag, .. } => Media::Audio { time_ms, tag },
    }
}

/// Publishes messages, each with the time at which it is sent, after the input has accepted the encoder.
fn publish(mut stream: TcpStream, messages: Vec<(u32, Media)>, stay: Receiver<()>) {
    let url = Destination::output("rtmp://host/live/test").expect("a URL");
    let Target::Rtmp(rtmp) = url.target() else { panic!("it is RTMP") };
    let mut client = Client::new(rtmp, Purpose::Publish).expect("starts");
    let mut bytes = vec![0; 65_536];
    loop {
        stream.write_all(&client.output()).expect("connected");
        let length = stream.read(&mut bytes).expect("connected");
        if client.input(&bytes[..length]).expect("RTMP").contains(&ClientEvent::Ready) {
            break;
        }
    }
    let begun = now();
    for (when, media) in messages {
        let due = begun + Duration::from_millis(when.into());
        while now() < due {
            thread::park_timeout(due.since(now()));
        }
        client.send(media).expect("publishing");
        // The input may have ended.
        if stream.write_all(&client.output()).is_err() {
            return;
        }
    }
    // Keeps the connection until the test ends it.
    let _ = stay.recv();
}

/// An encoder of these messages, and the input that it pushes to. Dropping the sender closes the connection.
fn push(clips: &Clips, messages: Vec<(u32, Media)>) -> (Rig, std::sync::mpsc::SyncSender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (end, stay) = sync_channel(0);
    thread::spawn(move || publish(stream, messages, stay));
    let (connection, _) = listener.accept().expect("it connects");
    (Rig::pushed(connection, clips.folder()), end)
}

/// The frame of an audio message with an ADTS header: AAC LC, 44.1 kHz, mono.
fn with_adts(media: Media) -> Media {
    let Media::Audio { time_ms, tag } = media else { return media };
    let length = tag.len() - 2 + 7;
    let header = [0xff, 0xf1, 0x50, 0x40, (length >> 3) as u8, (length << 5) as u8 | 0x1f, 0xfc];
    Media::Audio { time_ms, tag: audio_frame(&[&header[..], &tag[2..]].concat()) }
}

fn empty_and_broken(time_ms: u32) -> Vec<Media> {
    let audio = |bytes: &'static [u8]| Media::Audio { time_ms, tag: Bytes::from_static(bytes) };
    let video = |bytes: &'static [u8]| Media::Video { time_ms, tag: Bytes::from_static(bytes) };
    vec![
        audio(&[0xaf, 1]),
        audio(&[0xaf, 0]),
        video(&[0x27, 1, 0, 0, 0]),
        video(&[0x27, 1, 0, 0, 0, 0, 0, 9, 9, 0x41]),
        audio(&[0xaf, 0, 0]),
        video(&[0x1c, 1, 0, 0, 0, 1]),
        video(&[0x17, 2]),
    ]
}

#[test]
fn playback_continues_after_jumps_and_bad_messages_of_an_encoder() {
    let clips = Clips::new();
    let first = tags(&clips.make("claps.flv", &format!("{CLAPS} -t 13 {ENCODE} -ar 48000")));
    let second = tags(&clips.make("claps44.flv", &format!("{CLAPS} -t 13 {ENCODE} -ar 44100")));
    let mut messages = Vec::new();
    // From 8 s on the audio has another configuration, from 10 s on ADTS headers instead of one.
    let config = second.iter().find(|media| !is_video(media) && is_config(media)).expect("one").clone();
    let media = first.into_iter().filter(|media| is_video(media) || time_of(media) < 8_000);
    let later = second.into_iter().filter(|media| !is_video(media) && time_of(media) >= 8_000);
    let mut all: Vec<Media> = media.chain([at(config, 8_000)]).chain(later).collect();
    all.sort_by_key(|media| (time_of(media), !is_config(media)));
    let (mut broken, mut pictures) = (false, 0);
    for media in all {
        let when = time_of(&media);
        if when >= 2_000 && !std::mem::replace(&mut broken, true) {
            messages.extend(empty_and_broken(when).into_iter().map(|media| (when, media)));
        }
        pictures += u32::from(is_video(&media));
        let jump = match when {
            _ if is_config(&media) => 0,
            0..1_000 => 0,
            // Milliseconds since 1970, 32 bits of them; then a step back, and a wrap.
            1_000..4_000 => 0x9000_0000,
            4_000..5_000 => 0x9000_0000 - 3_000,
            5_000..6_000 => u32::MAX - 5_500,
            // Only the picture, for a second.
            6_000..7_000 if is_video(&media) => 3_600_000,
            _ => 0,
        };
        let media = if when >= 10_000 && !is_video(&media) { with_adts(media) } else { media };
        messages.push((when, at(media, when.wrapping_add(jump))));
    }
    let (mut rig, end) = push(&clips, messages);
    rig.until("the first seconds", |rig| rig.of(SourceKind::Camera).iter().filter(|p| p.marker).count() > 175);
    rig.until("the end", |rig| rig.state() == Some(InputState::Stalled));
    let (_, report) = rig.reports.last().expect("reports").clone();
    assert_eq!(report.reason.as_deref(), Some("no media received for 3 s"));
    let skipped = [(SkipReason::Empty, 3), (SkipReason::Malformed, 2), (SkipReason::Unsupported, 1)];
    assert_eq!(report.skipped, BTreeMap::from(skipped));
    // At 1, 4 and 5 s both tracks, at 6 s each by itself.
    assert!(report.timestamp_jumps >= 5, "{} jumps", report.timestamp_jumps);
    assert!(pictures >= 320, "{pictures} pictures were sent");
    rig.check_continuous(12);

    let late = |time: &commingle::time::Timestamp, first: commingle::time::Timestamp| time.since(first).as_secs() >= 8;
    let begun = rig.frames()[0][0].arrival;
    let flashes: Vec<_> = crate::flashes(&rig).into_iter().filter(|time| late(time, begun)).collect();
    let beeps = crate::beeps(&rig);
    assert!(flashes.len() >= 3, "{} flashes after the jumps", flashes.len());
    for flash in flashes {
        let apart = beeps.iter().map(|beep| flash.as_micros().abs_diff(beep.as_micros())).min().expect("beeps");
        assert!(apart < 60_000, "a flash and its beep are {apart} us apart after the jumps");
    }
    drop(end);
    rig.until_ended();
}

#[test]
fn an_encoder_that_pauses_is_stalled_and_then_live_again() {
    let clips = Clips::new();
    let all = tags(&clips.make("claps.flv", &format!("{CLAPS} -t 3 {ENCODE}")));
    // Its clock stands during the pause.
    let messages = all.into_iter().map(|media| (time_of(&media), media));
    let messages = messages.map(|(when, media)| (if when >= 1_500 { when + 4_000 } else { when }, media)).collect();
    let (mut rig, _end) = push(&clips, messages);
    rig.until("media", |rig| rig.state() == Some(InputState::Live));
    rig.until("a stall", |rig| rig.state() == Some(InputState::Stalled));
    let (_, report) = rig.reports.last().expect("reports").clone();
    assert_eq!(report.reason.as_deref(), Some("no media received for 3 s"));
    rig.until("more media", |rig| rig.state() == Some(InputState::Live));
    let frames = rig.frames().len();
    rig.until("pictures after the pause", |rig| rig.frames().len() > frames + 25);
    assert_eq!(rig.reports.last().expect("reports").1.timestamp_jumps, 1);
}

#[test]
fn an_encoder_of_unsupported_codecs_is_told_so() {
    let clips = Clips::new();
    let hevc = |n: u32| Media::Video { time_ms: n * 10, tag: Bytes::from_static(b"\x90hvc1") };
    let messages = (0..300).map(|n| (n * 10, hevc(n)));
    let (mut rig, _end) = push(&clips, messages.collect());
    let reason = rig.until_ended().expect("a reason");
    assert!(reason.contains("must be H.264"), "{reason}");
}
