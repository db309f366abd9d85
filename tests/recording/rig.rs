//! Test rig: an output process, and an edge that feeds it.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use commingle::codec::{EncodedFrame, Payloader};
use commingle::container::Sample;
use commingle::id::{OutputId, ViewName};
use commingle::link::child::link_on_stdin;
use commingle::link::frame::{Decoder, encode_into};
use commingle::link::output::{FileReport, FileTarget, FromOutput, OutputSettings, Target, ToOutput};
use commingle::media::{AUDIO_TICK_SAMPLES, Codec, EncodedPacket, FileFormat, StreamKey, Tier};
use commingle::output::run_process;
use commingle::plan::StreamSpec;
use commingle::room::outputs::OutputReport;
use commingle::time::{Timestamp, now};

use crate::media::{FPS, FRAME, SIZE, opus, video};

/// Environment variable that makes a child the output process.
const ROLE: &str = "COMMINGLE_TEST_OUTPUT";
/// A hanging test fails after this time.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The output process if started by [`Rig::start`]; does nothing in the test process itself.
#[test]
fn child() {
    if std::env::var_os(ROLE).is_some() {
        run_process(link_on_stdin().expect("a socket")).expect("the link ends well");
    }
}

/// The target of a recording in `folder`.
pub fn target(folder: &Path, format: FileFormat) -> FileTarget {
    FileTarget {
        folder: folder.into(),
        stem: "daily-20261125-184231-o1".into(),
        part: 0,
        format,
        opus: false,
        cut_after: None,
        cut_bytes: None,
        floor_bytes: 0,
    }
}

/// Encoded media that is sent repeatedly: frames beginning with a keyframe, and audio packets.
pub struct Reel {
    codec: Option<Codec>,
    frames: Vec<Sample>,
    packets: Vec<Sample>,
}

impl Reel {
    pub fn new(codec: Option<Codec>) -> Self {
        commingle::codec::init().expect("installed");
        let frames = codec.map(|codec| video(0, codec, 60).1).unwrap_or_default();
        Self { codec, frames, packets: opus(0, 100).1 }
    }
}

/// The edge's end of the link.
pub struct Rig {
    pub child: Child,
    link: UnixStream,
    heard: Receiver<FromOutput>,
    /// Zero of media timestamps.
    pub epoch: Timestamp,
    payloader: Option<Payloader>,
    /// Indexes of the next frame and the next audio packet since the epoch.
    frame: u64,
    packet: u64,
    pub report: OutputReport,
    pub files: Vec<FileReport>,
    pub keyframes_wanted: u32,
    pub ended: Option<Option<String>>,
}

impl Rig {
    pub fn start(target: Target, reel: &Reel) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let child = Command::new(std::env::current_exe().expect("our path"))
            .args(["--exact", "rig::child", "--nocapture"])
            .env(ROLE, "1")
            .envs([target.access().variable()])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .expect("the child starts");
        let (sender, heard) = sync_channel(10_000);
        let mut reading = ours.try_clone().expect("a second handle");
        thread::spawn(move || {
            let (mut decoder, mut bytes) = (Decoder::default(), vec![0; 1 << 16]);
            while let Ok(length @ 1..) = reading.read(&mut bytes) {
                decoder.extend(&bytes[..length]);
                while let Some(message) = decoder.next_message().expect("well formed") {
                    if sender.send(message).is_err() {
                        return;
                    }
                }
            }
        });
        let epoch = now();
        let stream = reel.codec.map(|codec| StreamSpec {
            serial: 1,
            key: StreamKey { view: ViewName::program(), codec, tier: Tier::High },
            size: SIZE,
            fps: FPS as u32,
            bitrate_kbps: 300,
            steady: true,
        });
        let mut rig = Self {
            child,
            link: ours,
            heard,
            epoch,
            payloader: reel.codec.map(Payloader::new),
            frame: 0,
            packet: 0,
            report: OutputReport::default(),
            files: Vec::new(),
            keyframes_wanted: 0,
            ended: None,
        };
        rig.send(&[ToOutput::Configure(Box::new(OutputSettings {
            room: "daily".parse().expect("a name"),
            output: OutputId(1),
            epoch,
            streams: stream.into_iter().collect(),
            target,
        }))]);
        rig
    }

    /// Sends messages; ignores that the process may have exited.
    pub fn send(&mut self, messages: &[ToOutput]) {
        let mut bytes = Vec::new();
        for message in messages {
            encode_into(message, &mut bytes).expect("short enough");
        }
        let _ = self.link.write_all(&bytes);
    }

    /// Seconds of media sent.
    pub fn sent(&self) -> f64 {
        self.packet as f64 * 0.02
    }

    /// Sends media up to `until` (seconds) as fast as the process reads; `sounds` and `shows` select the times with
    /// audio and video.
    pub fn feed(&mut self, reel: &Reel, until: f64, sounds: impl Fn(f64) -> bool, shows: impl Fn(f64) -> bool) {
        while self.sent() < until {
            let at = self.sent();
            let mut messages = Vec::new();
            while self.payloader.is_some() && self.frame as f64 / (FPS as f64) <= at {
                let sample = &reel.frames[self.frame as usize % reel.frames.len()];
                let frame = EncodedFrame { data: sample.data.clone(), keyframe: sample.keyframe, pts: Duration::ZERO };
                let timestamp = (self.frame * u64::from(FRAME)) as u32;
                if let (Some(payloader), true) = (&mut self.payloader, shows(at)) {
                    let packets = payloader.packets(&frame, timestamp);
                    messages.extend(packets.into_iter().map(|packet| ToOutput::Video { stream: 0, packet }));
                }
                self.frame += 1;
            }
            if sounds(at) {
                let payload = reel.packets[self.packet as usize % reel.packets.len()].data.clone();
                let timestamp = (self.packet * AUDIO_TICK_SAMPLES as u64) as u32;
                messages.push(ToOutput::Sound(EncodedPacket {
                    timestamp,
                    marker: false,
                    starts_keyframe: true,
                    payload,
                }));
            }
            self.packet += 1;
            self.send(&messages);
            self.poll();
        }
    }

    /// Sends media at `speed` times real time.
    pub fn play(&mut self, reel: &Reel, until: f64, speed: f64) {
        let (begun, from) = (now(), self.sent());
        while self.sent() < until && self.ended.is_none() {
            let due = from + now().since(begun).as_secs_f64() * speed;
            self.feed(reel, due.min(until), |_| true, |_| true);
            self.wait(Duration::from_millis(5));
        }
    }

    /// Handles messages from the process for `time`.
    pub fn wait(&mut self, time: Duration) {
        let until = now() + time;
        loop {
            let left = until.since(now());
            match self.heard.recv_timeout(left) {
                Ok(message) => self.handle(message),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => {
                    return assert!(self.ended.is_some(), "it exited without a message");
                }
            }
        }
    }

    fn poll(&mut self) {
        while let Ok(message) = self.heard.try_recv() {
            self.handle(message);
        }
    }

    fn handle(&mut self, message: FromOutput) {
        match message {
            FromOutput::Report(report) => self.report = report,
            FromOutput::File(file) => self.files.push(file),
            FromOutput::KeyframeWanted { .. } | FromOutput::SourceKeyframeWanted(_) => self.keyframes_wanted += 1,
            FromOutput::Ended { failure } => self.ended = Some(failure),
            FromOutput::Hls { .. } => panic!("a recording makes no HLS"),
        }
    }

    /// Waits for a condition.
    pub fn wait_until(&mut self, what: &str, is: impl Fn(&Self) -> bool) {
        let begun = now();
        while !is(self) {
            assert!(now().since(begun) < TEST_TIMEOUT, "not in time: {what}");
            self.wait(Duration::from_millis(5));
        }
    }

    /// Finishes the output; returns its failure.
    pub fn finish(&mut self) -> Option<String> {
        self.send(&[ToOutput::Finish]);
        self.wait_for_end()
    }

    /// Closes the link without a message, as a crash of the edge does, and waits for the process.
    pub fn hang_up(&mut self) {
        self.link.shutdown(Shutdown::Both).expect("ours");
        self.child.wait().expect("ours");
    }

    /// Waits for the end of the process; returns its failure.
    pub fn wait_for_end(&mut self) -> Option<String> {
        self.wait_until("it ends", |rig| rig.ended.is_some());
        self.child.wait().expect("ours");
        self.ended.clone().flatten()
    }

    /// Kills the process with SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("ours");
        self.child.wait().expect("ours");
    }

    /// Resident memory of the process in KiB.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The recordings in a folder, in order of their numbers.
pub fn recordings(folder: &Path, format: FileFormat) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == format.extension()));
    // The first one has no number.
    paths.sort_by_key(|path| path.with_extension(""));
    paths
}
