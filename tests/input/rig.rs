//! Test rig: an input process, clips for it, and decoders of the packets it sends.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use commingle::codec::sound::SoundDecoder;
use commingle::codec::{DecodeLimits, Decoded, Depayloader, Picture, VideoDecoder};
use commingle::destination::{Destination, Guard, Target};
use commingle::link::frame::{Decoder, encode_into};
use commingle::link::input::{FromInput, InputSettings, ToInput};
use commingle::link::sandbox::Access;
use commingle::media::{AUDIO_RATE, Codec, Size, SourceKind, SourcePacket, VIDEO_CLOCK};
use commingle::room::document::InputState;
use commingle::room::inputs::InputReport;
use commingle::rtmp::Reception;
use commingle::time::{Timestamp, now};
use tempfile::TempDir;

/// A hanging test fails after this time.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A flash and a beep at each full second, for 120 ms.
pub const CLAPS: &str = "-f lavfi -i color=c=black:s=320x180:r=25,drawbox=enable='lt(mod(t,1),0.12)':color=white:t=fill \
                         -f lavfi -i aevalsrc='if(lt(mod(t\\,1)\\,0.12)\\,0.5*sin(2*PI*1000*t)\\,0)':s=44100";

/// A temporary folder with clips.
pub struct Clips(TempDir);

impl Clips {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder for clips"))
    }

    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    /// Creates a clip with ffmpeg.
    pub fn make(&self, name: &str, arguments: &str) -> PathBuf {
        let path = self.folder().join(name);
        let status = ffmpeg(arguments).arg(&path).status().expect("ffmpeg is installed");
        assert!(status.success(), "ffmpeg made no {name}");
        path
    }
}

/// ffmpeg with these arguments, split at white space.
pub fn ffmpeg(arguments: &str) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y"]);
    command.args(arguments.split_whitespace());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// A child process that is killed at the end of the test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Settings with a guard that allows this machine.
pub fn settings(url: &str, media_dir: &Path) -> InputSettings {
    InputSettings {
        room: "test".parse().expect("a name"),
        source: Some(Destination::input(url).expect("a URL of an input").secret_form()),
        repeat: false,
        media_dir: media_dir.to_owned(),
        guard: Guard { allow_private: false, allow: vec!["127.0.0.1/32".parse().expect("a network")] },
        picture: Size::new(1280, 720),
        fps: 30,
        openh264: false,
        threads: 1,
    }
}

/// An input process, and the messages it has sent.
pub struct Rig {
    child: Running,
    link: UnixStream,
    decoder: Decoder,
    pub codecs: BTreeMap<SourceKind, Codec>,
    pub packets: BTreeMap<SourceKind, Vec<SourcePacket>>,
    pub reports: Vec<(Timestamp, InputReport)>,
    /// An encoder has requested to publish.
    pub publishing: bool,
    pub ended: Option<Option<String>>,
}

impl Rig {
    pub fn new(settings: InputSettings) -> Self {
        let source = settings.source.as_ref().map(|source| source.open().expect("a URL of an input"));
        // As the server does.
        let access = match source.as_ref().map(Destination::target) {
            Some(Target::File(_)) => Access::reading(settings.media_dir.clone()),
            Some(_) => Access::network(),
            None => Access::default(),
        };
        let mut rig = Self::start(Stdio::null(), &access);
        rig.send(&ToInput::Configure(settings));
        rig
    }

    /// A process for the connection of an encoder, which is accepted. The request to publish is read before, as the
    /// server does.
    pub fn pushed(mut connection: TcpStream, media_dir: &Path) -> Self {
        let mut reception = Reception::new().expect("starts");
        let (mut bytes, mut request) = ([0; 4_096], None);
        while request.is_none() {
            let length = connection.read(&mut bytes).expect("connected");
            request = reception.input(&bytes[..length]).expect("RTMP");
            connection.write_all(&reception.output()).expect("connected");
        }
        let mut rig = Self::start(Stdio::from(OwnedFd::from(connection)), &Access::default());
        rig.send(&ToInput::Receive { received: reception.into_received() });
        rig.until("a request to publish", |rig| rig.publishing);
        rig.send(&ToInput::Configure(InputSettings { source: None, ..settings("file:none", media_dir) }));
        rig
    }

    fn start(stdout: Stdio, access: &Access) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let child = Command::new(env!("CARGO_BIN_EXE_commingle"))
            .arg("input")
            .envs([access.variable()])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(stdout)
            .spawn()
            .expect("the process starts");
        ours.set_read_timeout(Some(Duration::from_millis(2_000))).expect("a timeout");
        Self {
            child: Running(child),
            link: ours,
            decoder: Decoder::default(),
            codecs: BTreeMap::new(),
            packets: BTreeMap::new(),
            reports: Vec::new(),
            publishing: false,
            ended: None,
        }
    }

    pub fn send(&mut self, message: &ToInput) {
        let mut bytes = Vec::new();
        encode_into(message, &mut bytes).expect("short enough");
        self.link.write_all(&bytes).expect("the input reads");
    }

    /// Handles messages until a condition holds; the process must send messages meanwhile.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let begun = now();
        let mut bytes = vec![0; 256 << 10];
        while !holds(self) {
            assert!(now().since(begun) < TEST_TIMEOUT, "waited in vain for {what}; last {:?}", self.reports.last());
            let length = self.link.read(&mut bytes).unwrap_or_else(|error| panic!("{error} while waiting for {what}"));
            assert!(length > 0, "it ended before {what}; last {:?}", self.reports.last());
            self.decoder.extend(&bytes[..length]);
            while let Some(message) = self.decoder.next_message().expect("well formed") {
                self.poll(message);
            }
        }
    }

    fn poll(&mut self, message: FromInput) {
        match message {
            FromInput::Ready { missing } => assert!(missing.is_empty(), "{missing:?}"),
            FromInput::Publishing { .. } => self.publishing = true,
            FromInput::Started { kind, codec } => drop(self.codecs.insert(kind, codec)),
            FromInput::Packet(kind, packet) => self.packets.entry(kind).or_default().push(packet),
            FromInput::Report(report) => self.reports.push((now(), report)),
            FromInput::Ended { reason } => self.ended = Some(reason),
        }
    }

    /// The most memory that the process has used so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.0.id())).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux");
        peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    pub fn until_ended(&mut self) -> Option<String> {
        self.until("its end", |rig| rig.ended.is_some());
        self.ended.clone().expect("just waited for")
    }

    pub fn state(&self) -> Option<InputState> {
        Some(self.reports.last()?.1.state)
    }

    pub fn of(&self, kind: SourceKind) -> &[SourcePacket] {
        self.packets.get(&kind).map_or(&[], Vec::as_slice)
    }

    /// Handles messages for `time`.
    pub fn listen(&mut self, time: Duration) {
        let begun = now();
        self.until("time to pass", |_| now().since(begun) >= time);
    }

    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    pub fn into_parts(self) -> (Running, UnixStream) {
        (self.child, self.link)
    }

    /// Checks that picture and sound were sent for `seconds`, with no break over 350 ms in their RTP timestamps.
    pub fn check_continuous(&self, seconds: usize) {
        // After the last media the last picture is repeated each second until the stall: no break.
        let end = self.of(SourceKind::Microphone).last().expect("audio").arrival + Duration::from_millis(350);
        let frames: Vec<_> = self.frames().into_iter().filter(|frame| frame[0].arrival <= end).collect();
        assert!(frames.len() >= seconds * 22, "{} pictures in {seconds} s", frames.len());
        let steps = frames.windows(2).map(|two| two[1][0].timestamp.wrapping_sub(two[0][0].timestamp));
        let steps: Vec<u32> = steps.map(|step| step / (VIDEO_CLOCK / 1000)).collect();
        if let Some(at) = steps.iter().position(|step| *step > 350) {
            let begun: u32 = steps[..at].iter().sum();
            panic!("the picture stood for {} ms after {begun} ms and {at} pictures", steps[at]);
        }
        let sound = self.of(SourceKind::Microphone);
        assert!(sound.len() >= seconds * 47, "{} packets of audio in {seconds} s", sound.len());
        for (n, two) in sound.windows(2).enumerate() {
            let step = two[1].timestamp.wrapping_sub(two[0].timestamp) / (AUDIO_RATE / 1000);
            assert!(step <= 350, "no audio for {step} ms after {n} packets");
        }
    }

    /// The complete frames of the camera: packets with the same timestamp.
    pub fn frames(&self) -> Vec<&[SourcePacket]> {
        let is_whole = |frame: &&[SourcePacket]| frame.last().is_some_and(|last| last.marker);
        let all = self.of(SourceKind::Camera).chunk_by(|a, b| a.timestamp == b.timestamp);
        let frames: Vec<_> = all.clone().filter(is_whole).collect();
        assert!(frames.len() + 1 >= all.count(), "a frame without an end");
        frames
    }

    /// All decoded pictures, with RTP timestamp and arrival.
    pub fn pictures(&self) -> Vec<(u32, Timestamp, Picture)> {
        let codec = self.codecs[&SourceKind::Camera];
        let (to, from) = sync_channel(1024);
        let limits = DecodeLimits { max: Size::new(1920, 1080) };
        let mut decoder = VideoDecoder::new(codec, limits, move |decoded| match decoded {
            Decoded::Picture { picture, .. } => to.send(picture).expect("the test waits"),
            Decoded::KeyframeWanted => panic!("a frame refers to a picture that was not sent"),
            Decoded::Failed(reason) => panic!("{reason}"),
        })
        .expect("a decoder");
        let mut depayloader = Depayloader::new(codec);
        let mut pictures = Vec::new();
        for (n, frame) in self.frames().into_iter().enumerate() {
            let whole = depayloader.frame(frame).expect("a whole frame").expect("a picture");
            decoder.push(whole, Timestamp::from_micros(1 + n as u64)).expect("decodable");
            let picture = from.recv_timeout(TEST_TIMEOUT).expect("one frame in, one picture out");
            pictures.push((frame[0].timestamp, frame[0].arrival, picture));
        }
        pictures
    }

    /// All decoded audio ticks, with RTP timestamp and arrival.
    pub fn sound(&self) -> Vec<(u32, Timestamp, Vec<f32>)> {
        let mut decoder = SoundDecoder::new(Codec::Opus).expect("opus");
        let packets = self.of(SourceKind::Microphone).iter();
        packets.map(|p| (p.timestamp, p.arrival, decoder.decode(&p.payload).expect("opus").to_vec())).collect()
    }
}

/// Mean luma of a picture, 0 to 255.
pub fn luma(picture: &Picture) -> f32 {
    let (plane, stride) = picture.plane(0);
    let Size { width, height } = picture.size();
    let rows = (0..height as usize).flat_map(|row| &plane[row * stride..][..width as usize]);
    rows.map(|sample| f32::from(*sample)).sum::<f32>() / (width * height) as f32
}

/// Root mean square of samples.
pub fn loudness(samples: &[f32]) -> f32 {
    (samples.iter().map(|s| s * s).sum::<f32>() / samples.len().max(1) as f32).sqrt()
}

/// Share of a tone of this frequency in the samples, 0 to 1.
pub fn tone(samples: &[f32], hertz: f32) -> f32 {
    let (mut real, mut imaginary, mut power) = (0.0, 0.0, 1e-9);
    for (i, sample) in samples.iter().enumerate() {
        let angle = std::f32::consts::TAU * hertz * i as f32 / AUDIO_RATE as f32;
        real += sample * angle.cos();
        imaginary += sample * angle.sin();
        power += sample * sample;
    }
    (real * real + imaginary * imaginary) * 2.0 / (samples.len() as f32 * power)
}
