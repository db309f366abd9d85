//! A camera whose RTP timestamps jump, and that sends bad packets.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use commingle::codec::{EncodedFrame, Payloader};
use commingle::media::{Codec, Kind, SourceKind};
use commingle::room::document::SkipReason;
use commingle::room::inputs::InputReport;
use commingle::rtmp::Media;
use commingle::rtmp::flv::{VideoReader, VideoTag};
use commingle::time::now;

use crate::odd_rtmp::tags;
use crate::rig::{Clips, Rig, settings, tone};

/// A unit of media of the camera.
struct Unit {
    kind: Kind,
    /// When it is sent, in milliseconds.
    when: u64,
    payloads: Vec<Vec<u8>>,
}

/// Pictures of a clip in RTP payloads, and a square wave of 500 Hz in mu-law.
fn units(clips: &Clips, seconds: u64) -> Vec<Unit> {
    let encode = format!(
        "-f lavfi -i testsrc2=s=320x180:r=25:d={seconds} -c:v libx264 -preset ultrafast -tune zerolatency -g 5"
    );
    let (mut reader, mut payloader) = (VideoReader::default(), Payloader::new(Codec::H264));
    let mut units = Vec::new();
    for media in tags(&clips.make("camera.flv", &encode)) {
        let Media::Video { time_ms, tag } = media else { continue };
        let Ok(VideoTag::Frame(frame)) = reader.read(tag) else { continue };
        let (data, keyframe) = (frame.access_unit, frame.keyframe);
        let packets = payloader.packets(&EncodedFrame { data, keyframe, pts: Duration::ZERO }, 0);
        let payloads = packets.into_iter().map(|packet| packet.payload.to_vec()).collect();
        units.push(Unit { kind: Kind::Video, when: time_ms.into(), payloads });
    }
    let wave: Vec<u8> = (0..160).map(|n| if n / 8 % 2 == 0 { 0x20 } else { 0xa0 }).collect();
    let sounds = (0..seconds * 50).map(|n| Unit { kind: Kind::Audio, when: n * 20, payloads: vec![wave.clone()] });
    units.extend(sounds);
    units.sort_by_key(|unit| unit.when);
    units
}

/// Answers the requests of one client up to PLAY. `RTP-Info` says `rtptime=0`, as some cameras do.
fn handshake(connection: &mut TcpStream) {
    let mut lines = BufReader::new(connection.try_clone().expect("a socket")).lines();
    loop {
        let head: Vec<String> = lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let header = |name: &str| {
            let line = head.iter().find(|line| line.to_lowercase().starts_with(name));
            line.and_then(|line| line.split_once(": ")).map_or("", |(_, value)| value)
        };
        let (method, url) = head[0].split_once(' ').expect("a request");
        let url = url.split(' ').next().expect("a URL");
        let (fields, body) = match method {
            "DESCRIBE" => {
                let body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\n\
                            m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
                            a=fmtp:96 packetization-mode=1\r\na=control:video\r\n\
                            m=audio 0 RTP/AVP 0\r\na=control:audio\r\n";
                let length = body.len();
                let fields =
                    format!("Content-Base: {url}/\r\nContent-Type: application/sdp\r\nContent-Length: {length}\r\n");
                (fields, body)
            }
            "SETUP" => (format!("Session: 1\r\nTransport: {}\r\n", header("transport")), ""),
            "PLAY" => {
                let streams = ["video", "audio"].map(|name| format!("url={url}{name};seq=1;rtptime=0"));
                (format!("Session: 1\r\nRTP-Info: {}\r\n", streams.join(",")), "")
            }
            _ => ("Public: OPTIONS, DESCRIBE, SETUP, PLAY\r\n".to_owned(), ""),
        };
        let answer = format!("RTSP/1.0 200 OK\r\nCSeq: {}\r\n{fields}\r\n{body}", header("cseq"));
        connection.write_all(answer.as_bytes()).expect("connected");
        if method == "PLAY" {
            return;
        }
    }
}

/// Sends units in real time, with RTP timestamps in milliseconds plus what `jump` says.
fn play(mut connection: TcpStream, units: Vec<Unit>, jump: impl Fn(&Unit) -> i64) {
    handshake(&mut connection);
    let mut sequence = [0u16; 2];
    let begun = now();
    for unit in units {
        let due = begun + Duration::from_millis(unit.when);
        while now() < due {
            thread::park_timeout(due.since(now()));
        }
        let (channel, format, rate, base) = match unit.kind {
            Kind::Video => (0u8, 96u8, 90, 0xf000_0000),
            Kind::Audio => (2, 0, 8, 5_000),
        };
        let timestamp = base + (unit.when as i64 + jump(&unit)) * rate;
        let last = unit.payloads.len() - 1;
        for (n, payload) in unit.payloads.iter().enumerate() {
            let number = &mut sequence[usize::from(channel / 2)];
            *number += 1;
            let marker = if n == last && unit.kind == Kind::Video { 0x80 } else { 0 };
            let mut packet = vec![b'$', channel];
            packet.extend((payload.len() as u16 + 12).to_be_bytes());
            packet.extend([0x80, marker | format]);
            packet.extend(number.to_be_bytes());
            packet.extend((timestamp as u32).to_be_bytes());
            packet.extend([0, 0, 0, channel]);
            packet.extend(payload);
            if connection.write_all(&packet).is_err() {
                return;
            }
        }
    }
    // The input keeps the connection until it ends.
    let mut rest = Bytes::new().to_vec();
    let _ = std::io::Read::read_to_end(&mut connection, &mut rest);
}

fn camera(units: Vec<Unit>, jump: impl Fn(&Unit) -> i64 + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("rtsp://{}/door", listener.local_addr().expect("bound"));
    thread::spawn(move || {
        let (connection, _) = listener.accept().expect("it connects");
        play(connection, units, jump);
    });
    url
}

#[test]
fn playback_continues_after_jumps_and_bad_packets_of_a_camera() {
    let clips = Clips::new();
    let mut all = units(&clips, 8);
    // Bad packets before the pictures of the first half second of each second.
    let bad: [&[u8]; 5] = [&[0x1e, 1, 2], &[0x7f, 1, 2], &[0x60, 1], &[0x7c], &[]];
    for (n, unit) in all.iter_mut().filter(|unit| unit.kind == Kind::Video).enumerate() {
        if n > 25 && n % 25 < 5 {
            unit.payloads.insert(0, bad[n % 25].to_vec());
        }
        // A fragment without its end.
        if n > 25 && n % 25 == 7 {
            unit.payloads = vec![vec![0x7c, 0x81, 1, 2, 3], vec![0x7c, 0x01, 4, 5]];
        }
    }
    let hour = 3_600_000;
    let url = camera(all, move |unit| match unit.when {
        0..2_000 => 0,
        2_000..4_000 => hour,
        4_000..5_000 => -hour,
        5_000..6_000 if unit.kind == Kind::Audio => 10_000,
        _ => 700,
    });
    let mut rig = Rig::new(settings(&url, clips.folder()));
    rig.until("seven seconds", |rig| rig.of(SourceKind::Microphone).len() > 350);
    assert!(rig.reports.iter().all(|(_, report)| report.reconnects == 0), "{:?}", rig.reports.last());
    let (_, report) = rig.reports.last().expect("reports");
    assert!(report.skipped.get(&SkipReason::Malformed).is_some_and(|count| *count > 5), "{report:?}");
    // At 2 and 4 s both tracks, at 5 s each by itself.
    assert!(report.timestamp_jumps >= 4, "{report:?}");
    rig.check_continuous(6);
    let heard: Vec<f32> = rig.sound().into_iter().flat_map(|(_, _, samples)| samples).collect();
    assert!(tone(&heard[heard.len() / 2..], 500.0) > 0.6, "no tone");
}

#[test]
fn endless_messages_of_a_camera_are_refused() {
    let clips = Clips::new();
    let line = "X-More: ".to_owned() + &"x".repeat(4_000) + "\r\n";
    // A header of endless lines, an endless line, a body of 4 GB.
    for (begin, more) in [
        ("RTSP/1.0 200 OK\r\nCSeq: 1\r\n", line.as_str()),
        ("RTSP/1.0 200 OK\r\nCSeq: 1\r\nX-More: ", &line[..4_000]),
        ("RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Type: application/sdp\r\nContent-Length: 4000000000\r\n\r\n", &line),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("rtsp://{}/door", listener.local_addr().expect("bound"));
        let more = more.repeat(100);
        thread::spawn(move || {
            while let Ok((mut connection, _)) = listener.accept() {
                let _ = connection.write_all(begin.as_bytes());
                while connection.write_all(more.as_bytes()).is_ok() {}
            }
        });
        let mut rig = Rig::new(settings(&url, clips.folder()));
        let refused =
            |report: &InputReport| report.reason.as_ref().is_some_and(|why| why.contains("too long a message"));
        rig.until("a refusal", |rig| rig.reports.iter().any(|(_, report)| refused(report)));
        let peak = rig.peak_memory();
        assert!(peak < 500 << 20, "{begin:?}: {peak} bytes");
    }
}
