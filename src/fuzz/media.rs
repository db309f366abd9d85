//! Targets that read media: links, payload formats, codecs, RTMP, files, HLS.
//!
//! Owns: these targets. Does not know: the fuzzer.

use std::io::Cursor;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;

use crate::codec::sound::{SoundDecoder, joined};
use crate::codec::{Depayloader, coded_colours, coded_size, entry, is_keyframe};
use crate::container::{Chapter, ContainerError, FileSummary, Sample, TrackSpec, Writer, av1, avc, finish, ivf::Ivf};
use crate::destination::{Destination, Target};
use crate::hls::{Broadcast, Lookup, Piece, Query, Rendition};
use crate::jitter::{AudioJitter, VideoJitter};
use crate::link::frame::{Decoder, encode_into};
use crate::link::input::{FromInput, ToInput};
use crate::link::output::{FromOutput, ToOutput};
use crate::link::{FromMixer, ToMixer};
use crate::media::{Codec, FileFormat, Size, SourcePacket, Tier};
use crate::rtmp::{Client, Purpose, Reception, Server, ServerEvent, flv, take_over};
use crate::time::Timestamp;

const VIDEO: [Codec; 4] = [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1];
const START: Timestamp = Timestamp::from_micros(1_000_000_000);

/// Messages of a link in each direction, behind a byte that says which. What can be read can be written again.
pub(super) fn link(bytes: &[u8]) {
    fn read<T: serde::Serialize + serde::de::DeserializeOwned>(bytes: &[u8]) {
        let mut decoder = Decoder::default();
        decoder.extend(bytes);
        while let Ok(Some(message)) = decoder.next_message::<T>() {
            let mut again = Vec::new();
            encode_into(&message, &mut again).expect("it was short enough");
        }
    }
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 6 {
        0 => read::<ToMixer>(bytes),
        1 => read::<FromMixer>(bytes),
        2 => read::<ToOutput>(bytes),
        3 => read::<FromOutput>(bytes),
        4 => read::<ToInput>(bytes),
        _ => read::<FromInput>(bytes),
    }
}

/// Packets of one codec: by the jitter buffer, and joined to a frame, which is written to a file.
pub(super) fn depay(pieces: &[(u8, &[u8])]) {
    let Some((first, _)) = pieces.first() else { return };
    let codec = VIDEO[usize::from(first & 3)];
    let mut depayloader = Depayloader::new(codec);
    depayloader.set_highest_layer(first >> 5);
    let mut jitter = VideoJitter::new(Duration::from_millis(100));
    let (mut now, mut waiting, mut sequence, mut timestamp) = (START, Vec::new(), 0u16, 0u32);
    for (op, bytes) in pieces {
        let payload = Bytes::copy_from_slice(bytes);
        let starts_keyframe = Depayloader::starts_keyframe(codec, &payload);
        Depayloader::starts_key_picture(codec, &payload);
        assert!(Depayloader::spatial_layers(codec, &payload).len() <= 8);
        sequence = sequence.wrapping_add(u16::from(op >> 6));
        let marker = op & 4 != 0;
        let packet = packet(sequence, timestamp, marker, now, payload);
        now = now + Duration::from_millis(5);
        jitter.insert(packet.clone(), starts_keyframe, now);
        waiting.push(packet);
        if marker {
            frame(codec, &mut depayloader, &waiting);
            waiting.clear();
            timestamp = timestamp.wrapping_add(3_000 << (op >> 3 & 7));
        }
        jitter.poll(now);
    }
    frame(codec, &mut depayloader, &waiting);
    depayloader.skipped();
}

fn packet(sequence: u16, timestamp: u32, marker: bool, arrival: Timestamp, payload: Bytes) -> SourcePacket {
    SourcePacket {
        sequence,
        timestamp,
        marker,
        arrival,
        captured: None,
        audio_level: None,
        rotation: None,
        colours: None,
        payload,
    }
}

fn frame(codec: Codec, depayloader: &mut Depayloader, packets: &[SourcePacket]) {
    packets.iter().for_each(|packet| depayloader.observe(&packet.payload));
    let bytes: usize = packets.iter().map(|packet| packet.payload.len()).sum();
    let Ok(Some(frame)) = depayloader.frame(packets) else { return };
    // Parameter sets of H.264 are repeated, and each unit gets a start code or a size.
    assert!(frame.len() <= 8 * bytes + (256 << 10), "{} bytes of {bytes}", frame.len());
    read_header(codec, &frame);
}

fn read_header(codec: Codec, frame: &Bytes) {
    coded_size(codec, frame);
    coded_colours(codec, frame);
    entry(codec, frame);
    if !is_keyframe(codec, frame).unwrap_or(false) {
        return;
    }
    let Ok(track) = TrackSpec::video(codec, Size::new(640, 360), frame) else { return };
    track.codec_string();
    let mut writer = Writer::new(FileFormat::Mkv, vec![track], Duration::from_secs(1)).expect("it takes any codec");
    let sample = Sample { track: 0, time: 0, duration: 3_000, keyframe: true, data: frame.clone() };
    if writer.push(sample).is_ok() {
        let file: Vec<u8> = std::iter::from_fn(|| writer.end()).flatten().collect();
        finish(FileFormat::Mkv, &mut Cursor::new(file), &[]).expect("the file is whole");
    }
}

/// A frame behind a byte that says of which codec, and its units.
pub(super) fn codec_header(bytes: &[u8]) {
    let Some((codec, frame)) = bytes.split_first() else { return };
    let codec = VIDEO[usize::from(codec & 3)];
    read_header(codec, &Bytes::copy_from_slice(frame));
    for unit in avc::nal_units(frame) {
        avc::has_start_code(unit);
        avc::coded_size(unit);
        avc::SequenceParameterSet::read(unit);
    }
    flv::AvcConfig::of(frame);
    let mut rest = frame;
    while let Some((unit, behind)) = av1::split_obu(rest) {
        av1::SequenceHeader::read(unit.payload);
        assert!(behind.len() < rest.len());
        rest = behind;
    }
}

/// Packets of Opus: by the jitter buffer, decoded with concealment of losses, and joined.
pub(super) fn opus(pieces: &[(u8, &[u8])]) {
    let mut decoder = SoundDecoder::new(Codec::Opus).expect("an audio codec");
    let mut jitter = AudioJitter::new(48_000);
    let (mut now, mut sequence) = (START, 0u16);
    for (op, bytes) in pieces {
        sequence = sequence.wrapping_add(u16::from(op & 7));
        now = now + Duration::from_millis(u64::from(op >> 6) * 20);
        let packet = packet(sequence, u32::from(sequence) * 960, false, now, Bytes::copy_from_slice(bytes));
        jitter.insert(packet, now);
        jitter.pull(now);
        if op & 8 != 0 {
            let next = (op & 16 != 0).then_some(*bytes);
            assert_eq!(decoder.conceal(960, next).len(), 960);
        }
        if let Ok(samples) = decoder.decode(bytes) {
            assert!(samples.len() <= 5_760, "{} samples", samples.len());
            assert!(samples.iter().all(|sample| sample.is_finite()));
        }
    }
    let packets: Vec<Bytes> = pieces.iter().take(6).map(|(_, bytes)| Bytes::copy_from_slice(bytes)).collect();
    if let Some(long) = joined(&packets) {
        // Packets of others may be malformed, joined or not.
        let _ = decoder.decode(&long);
    }
}

/// What an encoder sends: behind a handshake, or anything from the first byte.
pub(super) fn rtmp_server(pieces: &[(u8, &[u8])]) {
    let mut reception = Reception::new().expect("starts");
    let (mut server, mut received) = (Server::new().expect("starts"), 0);
    if pieces.first().is_some_and(|(op, _)| op & 1 == 0) {
        reception.input(&handshake()).expect("a handshake");
        server.input(&handshake()).expect("a handshake");
    }
    let (mut asked, mut failed) = (None, false);
    for (op, bytes) in pieces {
        received += bytes.len();
        match server.input(bytes) {
            Ok(events) => {
                let publish = events.iter().any(|event| matches!(event, ServerEvent::Publish { .. }));
                if publish && op & 2 == 0 {
                    // An error means that the encoder has closed its stream again.
                    let _ = server.accept();
                }
            }
            Err(_) => break,
        }
        if asked.is_none() && !failed {
            match reception.input(bytes) {
                Ok(found) => asked = found,
                Err(_) => failed = true,
            }
            reception.output();
        }
        assert!(server.output().len() <= (64 << 10) + 16 * received, "the answers are longer than the requests");
    }
    if asked.is_some() {
        take_over(&reception.into_received()).expect("a state machine that gets the same bytes has the same state");
    }
}

fn handshake() -> Vec<u8> {
    [&[3][..], &[0; 2 * 1_536]].concat()
}

/// What a server sends: behind a handshake, or anything from the first byte.
pub(super) fn rtmp_client(pieces: &[(u8, &[u8])]) {
    static SERVER: OnceLock<crate::destination::Rtmp> = OnceLock::new();
    let server = SERVER.get_or_init(|| {
        let destination = Destination::output("rtmp://host/app/inst/name?auth=1").expect("a URL");
        let Target::Rtmp(rtmp) = destination.target() else { panic!("{}", destination.target()) };
        rtmp.clone()
    });
    let Some((first, _)) = pieces.first() else { return };
    let purpose = if first & 2 == 0 { Purpose::Publish } else { Purpose::Play };
    let mut client = Client::new(server, purpose).expect("starts");
    client.output();
    if first & 1 == 0 {
        client.input(&handshake()).expect("a handshake");
    }
    for (_, bytes) in pieces {
        if client.input(bytes).is_err() {
            return;
        }
        client.output();
    }
}

/// Bodies of audio and video messages.
pub(super) fn flv(pieces: &[(u8, &[u8])]) {
    let mut video = flv::VideoReader::default();
    for (op, bytes) in pieces {
        let message = Bytes::copy_from_slice(bytes);
        if op & 1 == 0 {
            // An error is counted, and the message skipped.
            let _ = video.read(message);
        } else {
            let _ = flv::read_audio(message);
            flv::sample_rate(bytes);
        }
    }
}

/// The tracks of a file in a format, and whether they are video.
fn tracks(format: FileFormat) -> Vec<(TrackSpec, bool)> {
    let keyframe =
        Bytes::from_static(&[0, 0, 0, 1, 0x67, 0x42, 0xe0, 0x1f, 0xaa, 0, 0, 0, 1, 0x68, 1, 0, 0, 1, 0x65, 1, 9]);
    let video = |codec| (TrackSpec::video(codec, Size::new(640, 360), &keyframe).expect("parameter sets"), true);
    match format {
        FileFormat::Mp4 => vec![
            video(Codec::H264),
            (TrackSpec::aac(2, Bytes::from_static(&[0x11, 0x90])), false),
            (TrackSpec::text(Size::new(640, 360)), false),
        ],
        FileFormat::Webm => vec![video(Codec::Vp8), (TrackSpec::opus(2), false)],
        FileFormat::Mkv => vec![
            video(Codec::Vp9),
            (TrackSpec::opus(2), false),
            (TrackSpec::g711(false), false),
            (TrackSpec::text(Size::new(640, 360)), false),
        ],
        FileFormat::Ogg => vec![(TrackSpec::opus(1), false)],
    }
}

/// Samples with any times and data, written to a file that a crash truncates: it can be finished, twice, or is empty.
pub(super) fn container_write(pieces: &[(u8, &[u8])]) {
    let Some((first, cut)) = pieces.first() else { return };
    let format = FileFormat::ALL[usize::from(first & 3)];
    let tracks = tracks(format);
    let specs = tracks.iter().map(|(spec, _)| spec.clone()).collect();
    let mut writer = Writer::new(format, specs, Duration::from_secs(1)).expect("fits the format");
    let (mut file, mut times) = (Vec::new(), [0u64; 4]);
    for (op, bytes) in &pieces[1..] {
        let track = usize::from(op & 3) % tracks.len();
        let [step @ .., _] = bytes else { continue };
        let step = 1 + step.iter().take(3).fold(0, |number, byte| number << 8 | u64::from(*byte));
        times[track] += step;
        let sample = Sample {
            track,
            time: times[track],
            duration: u32::from(op >> 3) * 960,
            keyframe: !tracks[track].1 || op & 4 != 0,
            data: Bytes::copy_from_slice(bytes),
        };
        // A sample that is malformed is an error, and not in the file.
        let _ = writer.push(sample);
        file.extend(std::iter::from_fn(|| writer.poll()).flatten());
    }
    file.extend(std::iter::from_fn(|| writer.end()).flatten());
    if let [high, low, ..] = cut {
        file.truncate(file.len() * usize::from(u16::from_be_bytes([*high, *low])) / 65_535);
    }
    let chapters = [Chapter { time: Duration::ZERO, title: "Ann joins".to_owned() }];
    let mut file = Cursor::new(file);
    match finish(format, &mut file, &chapters) {
        Ok(summary) => {
            let finished = file.get_ref().clone();
            let again = finish(format, &mut file, &chapters).expect("finished");
            assert_eq!(again, FileSummary { cut: 0, ..summary });
            assert!(*file.get_ref() == finished, "a finished file is changed");
        }
        // A header that is not whole is not of this server.
        Err(ContainerError::Empty | ContainerError::Foreign { .. }) => {}
        Err(error) => panic!("{} cannot be finished: {error}", format.extension()),
    }
}

/// A file of this server that was damaged: each piece writes its bytes at an offset, or cuts the file. An error leaves
/// the file as it is.
pub(super) fn container_repair(pieces: &[(u8, &[u8])]) {
    let Some((first, _)) = pieces.first() else { return };
    let format = FileFormat::ALL[usize::from(first & 3)];
    let mut file = whole_file(format, first & 4 != 0).to_vec();
    for (op, bytes) in pieces {
        let [high, low, bytes @ ..] = bytes else { continue };
        let at = usize::from(u16::from_be_bytes([*high, *low])).min(file.len());
        match op >> 6 {
            0 | 1 => file.iter_mut().skip(at).zip(bytes).for_each(|(byte, new)| *byte = *new),
            2 => file.truncate(at.max(1)),
            _ => drop(file.splice(at..at, bytes.iter().copied())),
        }
    }
    let before = file.clone();
    let mut file = Cursor::new(file);
    match finish(format, &mut file, &[]) {
        Ok(_) => {}
        Err(error) => assert!(*file.get_ref() == before, "changed despite of an error: {error}"),
    }
}

/// Two seconds of every track.
fn whole_file(format: FileFormat, finished: bool) -> &'static [u8] {
    static FILES: [OnceLock<Vec<u8>>; 8] = [const { OnceLock::new() }; 8];
    let at = FileFormat::ALL.iter().position(|other| *other == format).unwrap_or_default();
    FILES[2 * at + usize::from(finished)].get_or_init(|| {
        let tracks = tracks(format);
        let specs = tracks.iter().map(|(spec, _)| spec.clone()).collect();
        let mut writer = Writer::new(format, specs, Duration::from_millis(400)).expect("fits the format");
        let mut file = Vec::new();
        for tick in 0..20u32 {
            for (track, (spec, is_video)) in tracks.iter().enumerate() {
                let duration = spec.clock() / 10;
                let data = match is_video {
                    true => Bytes::from(vec![0, 0, 1, 0x41, tick as u8 | 1, 9]),
                    false => Bytes::from(vec![b'a' + tick as u8; 4]),
                };
                let time = u64::from(tick * duration);
                let sample = Sample { track, time, duration, keyframe: !is_video || tick % 5 == 0, data };
                writer.push(sample).expect("in order");
            }
            file.extend(std::iter::from_fn(|| writer.poll()).flatten());
        }
        file.extend(std::iter::from_fn(|| writer.end()).flatten());
        let mut file = Cursor::new(file);
        if finished {
            finish(format, &mut file, &[]).expect("the file is whole");
        }
        file.into_inner()
    })
}

pub(super) fn ivf(bytes: &[u8]) {
    if let Ok(file) = Ivf::parse(Bytes::copy_from_slice(bytes)) {
        let frames: usize = file.frames.iter().map(|frame| frame.data.len()).sum();
        assert!(frames <= bytes.len());
    }
}

/// Pieces of a broadcast, and requests for its playlists and files.
pub(super) fn hls(pieces: &[(u8, &[u8])]) {
    let second = Duration::from_secs(1);
    let size = Size::new(1280, 720);
    let video = Rendition::Video { tier: Tier::High, size, fps: 30, bandwidth: 2_000_000 };
    let renditions = vec![video, Rendition::Audio { bandwidth: 140_000 }, Rendition::Captions];
    let mut broadcast = Broadcast::new(1_795_632_150, renditions, 2 * second, second / 2);
    let mut wall_micros = 1_795_632_151_000_000;
    for (op, bytes) in pieces {
        let rendition = usize::from(op >> 6) % 3;
        let data = Bytes::copy_from_slice(bytes);
        let text = String::from_utf8_lossy(bytes);
        match op & 7 {
            0 => broadcast.push(rendition, Piece::Init { codec: "avc1.42c01f".to_owned(), data }),
            1 | 2 => {
                let duration = second * u32::from(op >> 3 & 7) / 4;
                broadcast.push(rendition, Piece::Part { duration, independent: op & 1 == 1, data });
            }
            3 => {
                wall_micros += 250_000 * u64::from(op >> 3 & 7);
                broadcast.push(rendition, Piece::Cut { wall_micros });
            }
            4 => broadcast.begin_generation(),
            5 => broadcast.push(rendition, Piece::Language(text.chars().filter(char::is_ascii_alphabetic).collect())),
            6 => {
                let number = |at: usize| bytes.get(at).map(|byte| 897_816_075 + u64::from(*byte));
                let query = Query { segment: number(0), part: bytes.get(1).copied().map(u64::from) };
                for name in ["high", "audio", "captions", &text] {
                    if let Lookup::Playlist(list) = broadcast.playlist(name, query, "?token=x") {
                        assert!(list.starts_with("#EXTM3U\n"));
                        list.lines().filter(|line| !line.starts_with('#')).for_each(|uri| {
                            let file = uri.trim_end_matches("?token=x");
                            assert!(matches!(broadcast.file(name, file), Lookup::File(_)), "{name}/{uri} is missing");
                        });
                    }
                    broadcast.file(name, &text);
                }
                broadcast.master("?token=x");
            }
            _ => {
                broadcast.file("high", &text);
                if op >> 3 == 31 {
                    broadcast.end();
                }
            }
        }
    }
}
