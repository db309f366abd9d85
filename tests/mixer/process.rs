//! The mixer as a process of its own.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use commingle::id::{ParticipantId, SourceId};
use commingle::link::child::link_on_stdin;
use commingle::link::frame::{Decoder, encode_into};
use commingle::link::{FromMixer, MixerReport, MixerSettings, ToMixer};
use commingle::media::{Codec, Size, Sounds, SourceKind};
use commingle::mixer::run_process;
use commingle::plan::SourceSpec;
use commingle::time::now;

use crate::rig::PATIENCE;

/// Set for a process that is to be the mixer.
const ROLE: &str = "COMMINGLE_TEST_MIXER";

/// Does nothing in the tests' own process; in a child started by [`start`] it is the mixer.
#[test]
fn child() {
    if std::env::var_os(ROLE).is_some() {
        run_process(link_on_stdin().expect("a socket")).expect("the link ends well");
    }
}

fn start() -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let child = Command::new(std::env::current_exe().expect("our path"))
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
        threads: 1,
        sounds: Sounds::default(),
    })
}

fn hear(link: &mut UnixStream, decoder: &mut Decoder) -> FromMixer {
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
fn it_is_ready_reports_while_idle_and_ends_with_its_link() {
    let (mut child, mut link) = start();
    let mut decoder = Decoder::default();
    let spec =
        SourceSpec { source: SourceId(1), participant: ParticipantId(1), kind: SourceKind::Camera, codec: Codec::Vp8 };
    send(&mut link, &[configure(), ToMixer::Source(spec), ToMixer::SourceGone(SourceId(1))]);
    assert_eq!(hear(&mut link, &mut decoder), FromMixer::Ready { missing: Vec::new() });
    let begun = now();
    let mut last = MixerReport::default();
    for _ in 0..8 {
        let FromMixer::Report(report) = hear(&mut link, &mut decoder) else { panic!("nothing else to say") };
        last = report;
    }
    assert!(now().since(begun).as_millis() < 4_000, "eight reports take two seconds");
    assert!(last.rss_kib > 1_000 && (last.video_ticks, last.audio_ticks) == (0, 0), "{last:?}");
    drop(link);
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn nonsense_on_the_link_ends_it_with_an_error() {
    let (mut child, mut link) = start();
    link.write_all(&[0xff; 64]).expect("written");
    assert!(!child.wait().expect("it ends").success());
}
