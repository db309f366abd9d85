//! The mixer as a process.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use commingle::codec;
use commingle::id::{ParticipantId, SourceId};
use commingle::link::child::link_on_stdin;
use commingle::link::frame::{Decoder, encode_into};
use commingle::link::{FromMixer, MixerReport, MixerSettings, ToMixer, journal};
use commingle::media::{Codec, EncodedPacket, Size, Sounds, SourceKind, SourcePacket};
use commingle::mixer::run_process;
use commingle::plan::SourceSpec;
use commingle::time::now;

use crate::aborts;
use crate::rig::{PATIENCE, encode, scene, stream, streams, turn};

/// Set for the child process that runs the mixer.
const ROLE: &str = "COMMINGLE_TEST_MIXER";

/// GStreamer elements that are removed in the child process, separated by commas.
const WITHOUT: &str = "COMMINGLE_TEST_WITHOUT";

/// Set if the H.264 decoder of the child process is to abort.
const ABORTS: &str = "COMMINGLE_TEST_ABORTS";

/// The mixer in a child process of [`start`]; does nothing in the process of the tests.
#[test]
fn child() {
    if std::env::var_os(ROLE).is_some() {
        if let Ok(elements) = std::env::var(WITHOUT) {
            codec::init().expect("GStreamer is installed");
            let registry = gstreamer::Registry::get();
            for element in elements.split(',') {
                let feature = gstreamer::ElementFactory::find(element).expect("it is installed");
                registry.remove_feature(&feature);
            }
        }
        if std::env::var_os(ABORTS).is_some() {
            aborts::replace("openh264dec");
        }
        run_process(link_on_stdin().expect("a socket")).expect("the link ends well");
    }
}

fn start() -> (Child, UnixStream) {
    start_without("")
}

/// A mixer without these elements.
fn start_without(elements: &str) -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let mut command = Command::new(std::env::current_exe().expect("our path"));
    if !elements.is_empty() {
        command.env(WITHOUT, elements);
    }
    let child = command
        .args(["--exact", "process::child", "--nocapture"])
        .env(ROLE, "1")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()
        .expect("the child starts");
    ours.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    (child, ours)
}

fn send(link: &mut UnixStream, messages: &[ToMixer]) {
    let mut bytes = Vec::new();
    for message in messages {
        encode_into(message, &mut bytes).expect("short enough");
    }
    link.write_all(&bytes).expect("the mixer reads");
}

fn configure() -> ToMixer {
    ToMixer::Configure(MixerSettings {
        room: "test".parse().expect("a name"),
        epoch: now(),
        max_source: Size::new(1920, 1080),
        openh264: false,
        transition_ms: 0,
        filter_budget: Duration::from_millis(20),
        threads: 1,
        sounds: Sounds::default(),
    })
}

fn receive(link: &mut UnixStream, decoder: &mut Decoder) -> FromMixer {
    let mut bytes = [0; 4096];
    loop {
        if let Some(message) = decoder.next_message().expect("well formed") {
            return message;
        }
        let length = link.read(&mut bytes).expect("it speaks in time");
        assert!(length > 0, "the mixer has ended");
        decoder.extend(&bytes[..length]);
    }
}

#[test]
fn a_mixer_is_ready_sends_reports_while_idle_and_ends_with_its_link() {
    let _turn = turn();
    let (mut child, mut link) = start();
    let mut decoder = Decoder::default();
    let spec =
        SourceSpec { source: SourceId(1), participant: ParticipantId(1), kind: SourceKind::Camera, codec: Codec::Vp8 };
    send(&mut link, &[configure(), ToMixer::Source(spec), ToMixer::SourceGone(SourceId(1))]);
    assert_eq!(receive(&mut link, &mut decoder), FromMixer::Ready { missing: Vec::new() });
    let begun = now();
    let mut last = MixerReport::default();
    for _ in 0..2 {
        let FromMixer::Report(report) = receive(&mut link, &mut decoder) else { panic!("nothing else to say") };
        assert_eq!(report.next.as_millis(), 2_000, "it is idle and says when it will report again");
        last = report;
    }
    assert!((1_900..4_000).contains(&now().since(begun).as_millis()), "the second report comes after two seconds");
    assert!(last.rss_kib > 1_000 && (last.video_ticks, last.audio_ticks) == (0, 0), "{last:?}");
    drop(link);
    assert!(child.wait().expect("it ends").success());
}

/// The texts of `Ready` of a mixer without these elements, and the streams of which packets came within a few seconds:
/// 1 is VP8 and 2 is H.264.
fn ready_and_streams(elements: &str) -> (Vec<String>, BTreeSet<u32>) {
    let (mut child, mut link) = start_without(elements);
    let mut decoder = Decoder::default();
    let size = Size::new(640, 360);
    let orders = [
        configure(),
        ToMixer::Scene(scene([None; 4])),
        streams([stream(1, Codec::Vp8, size, 30), stream(2, Codec::H264, size, 30)]),
    ];
    send(&mut link, &orders);
    let FromMixer::Ready { missing } = receive(&mut link, &mut decoder) else { panic!("it is ready first") };
    let (mut received, begun) = (BTreeSet::new(), now());
    while now().since(begun).as_secs() < 4 && received.len() < 2 {
        if let FromMixer::Video { serial, .. } = receive(&mut link, &mut decoder) {
            received.insert(serial);
        }
    }
    drop(link);
    assert!(child.wait().expect("it ends").success());
    (missing, received)
}

#[test]
fn a_missing_element_disables_only_what_needs_it_and_is_reported_with_its_package() {
    let _turn = turn();
    let nothing = ready_and_streams("srtsink,avenc_aac,openh264enc");
    assert_eq!(nothing, (Vec::new(), BTreeSet::from([1, 2])), "a mixer needs none of these elements");

    let (missing, received) = ready_and_streams("x264enc");
    assert_eq!(received, BTreeSet::from([1]), "VP8 is encoded without x264enc");
    assert_eq!(missing.len(), 1, "{missing:?}");
    for part in ["encoding H264", "`x264enc`", "apt-get install gstreamer1.0-plugins-ugly"] {
        assert!(missing[0].contains(part), "{part} is not in {missing:?}");
    }

    let (missing, received) = ready_and_streams("av1dec,vp9dec");
    assert_eq!(received, BTreeSet::from([1, 2]), "encoding needs no decoder");
    assert!(
        missing.len() == 2 && missing[0].contains("decoding VP9") && missing[1].contains("`av1dec`"),
        "{missing:?}"
    );

    let (missing, received) = ready_and_streams("vp8enc,x264enc");
    assert!(missing.len() == 2 && received.is_empty(), "{missing:?}, {received:?}");
}

/// The journal, without what the test program itself has written to standard output: letters, which are large numbers.
fn decoding(journal: &mut File) -> BTreeSet<SourceId> {
    let all = journal::decoding(journal).expect("readable");
    all.into_iter().filter(|source| source.0 < 1_000).collect()
}

/// A packet of an encoder as a participant sends it.
fn sent(packet: &EncodedPacket, sequence: u16) -> SourcePacket {
    SourcePacket {
        sequence,
        timestamp: packet.timestamp,
        marker: packet.marker,
        arrival: now(),
        captured: None,
        audio_level: None,
        rotation: None,
        colours: None,
        payload: packet.payload.clone(),
    }
}

#[test]
fn the_journal_of_a_mixer_that_died_names_the_source_that_was_decoded() {
    let _turn = turn();
    let size = Size::new(320, 180);
    let packets = [(1, Codec::Vp8), (2, Codec::H264)].map(|(id, codec)| {
        let frames: Vec<_> = encode(codec, size, (180, 90, 160), 3);
        (SourceId(id), codec, frames)
    });
    for evil in [false, true] {
        let mut journal = journal::create().expect("memory");
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let mut command = Command::new(std::env::current_exe().expect("our path"));
        command.args(["--exact", "process::child", "--quiet", "--nocapture"]).env(ROLE, "1").env(ABORTS, "1");
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(journal.try_clone().expect("a second handle"));
        let mut child = command.spawn().expect("the child starts");
        // Closes the copy of the other end.
        drop(command);
        let (mut link, mut decoder) = (ours, Decoder::default());
        link.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let source = |id: SourceId, codec| {
            ToMixer::Source(SourceSpec {
                source: id,
                participant: ParticipantId(id.0),
                kind: SourceKind::Camera,
                codec,
            })
        };
        let shown = [Some(SourceId(1)), evil.then_some(SourceId(2)), None, None];
        send(&mut link, &[configure(), ToMixer::Scene(scene(shown)), streams([stream(1, Codec::Vp8, size, 30)])]);
        for (id, codec, frames) in &packets {
            send(&mut link, &[source(*id, *codec)]);
            for (sequence, packet) in (0..).zip(frames.iter().flatten()) {
                send(&mut link, &[ToMixer::Packet(*id, sent(packet, sequence))]);
            }
        }
        if evil {
            assert!(!child.wait().expect("it ends").success(), "the decoder aborts");
            assert!(decoding(&mut journal).contains(&SourceId(2)));
        } else {
            while !matches!(receive(&mut link, &mut decoder), FromMixer::SourceSize(SourceId(1), _)) {}
            // The other frames are still being decoded.
            let begun = now();
            while !decoding(&mut journal).is_empty() && now().since(begun) < PATIENCE {
                std::thread::park_timeout(Duration::from_millis(5));
            }
            drop(link);
            assert!(child.wait().expect("it ends").success());
            assert_eq!(decoding(&mut journal), BTreeSet::new());
        }
    }
}

#[test]
fn a_malformed_message_ends_the_mixer_with_an_error() {
    let _turn = turn();
    let (mut child, mut link) = start();
    link.write_all(&[0xff; 64]).expect("written");
    assert!(!child.wait().expect("it ends").success());
}
