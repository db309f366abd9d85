//! A mixer in this process, cameras that send packets in real time, and decoding of the streams.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use commingle::codec::{
    DecodeLimits, Decoded, Depayloader, Effort, EncodeSpec, EncodedFrame, H264Encoder, Payloader, Picture, PictureMut,
    VideoDecoder, VideoEncoder,
};
use commingle::id::{ParticipantId, SourceId, ViewName};
use commingle::layout::{ObjectFit, Scene, Style, Tile};
use commingle::link::{FromMixer, MixerReport, MixerSettings, ToMixer};
use commingle::media::{
    Codec, Colours, EncodedPacket, Rect, Rotation, Size, Sounds, SourceKind, SourcePacket, StreamKey, Tier,
};
use commingle::mixer::Mixer;
use commingle::mixer::outbox::Outbox;
use commingle::plan::{SourceSpec, StreamSet, StreamSpec};
use commingle::time::{Timestamp, now};

/// A colour in BT.601 of limited range.
pub type Colour = (u8, u8, u8);

/// Time limit of each step of a test.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until no other test with a mixer runs: cameras send in real time, and two cores carry one mixer at a time.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Encoded frames of a source that shows a colour, with a corner that blinks.
pub fn encode(codec: Codec, size: Size, (y, u, v): Colour, frames: u32) -> Vec<Vec<EncodedPacket>> {
    let picture = |n: u32| {
        let mut picture = PictureMut::new(size);
        let (planes, strides) = picture.planes();
        for ((plane, stride), sample) in planes.into_iter().zip(strides).zip([y, u, v]) {
            plane.fill(sample);
            // A corner blinks: a camera that films a still picture would not change the canvas.
            for row in plane.chunks_mut(stride).take(16) {
                row[..16].fill(if n.is_multiple_of(2) { sample } else { 128 });
            }
        }
        picture.freeze()
    };
    encode_pictures(codec, size, picture, frames)
}

/// Encoded frames of a source that shows these pictures.
pub fn encode_pictures(
    codec: Codec,
    size: Size,
    picture: impl Fn(u32) -> Picture,
    frames: u32,
) -> Vec<Vec<EncodedPacket>> {
    let spec = EncodeSpec {
        codec,
        size,
        fps: 30,
        bitrate_kbps: 400,
        h264: H264Encoder::X264,
        threads: 1,
        effort: Effort::Fast,
    };
    let (to, from) = sync_channel::<EncodedFrame>(64);
    let mut encoder = VideoEncoder::new(spec, move |frame| to.send(frame).expect("the test waits")).expect("starts");
    let mut payloader = Payloader::new(codec);
    (0..frames)
        .map(|n| {
            assert!(encoder.push(&picture(n), Duration::from_millis(33 * u64::from(n)), n == 0), "one at a time");
            let frame = from.recv_timeout(PATIENCE).expect("one frame in, one frame out");
            payloader.packets(&frame, n * 3000)
        })
        .collect()
}

/// One packet of a frame.
#[derive(Clone)]
pub struct Part {
    pub payload: Bytes,
    pub marker: bool,
    /// RTP time after that of the frame, in 1/90,000 s.
    pub offset: i32,
}

/// A source that sends 30 frames a second.
pub struct Camera {
    pub source: SourceId,
    frames: Vec<Vec<Part>>,
    pub rotation: Option<Rotation>,
    pub colours: Option<Colours>,
    sequence: u16,
    pub count: u32,
}

impl Camera {
    /// Repeats the frames; the first must be a keyframe.
    pub fn new(source: SourceId, frames: Vec<Vec<EncodedPacket>>) -> Self {
        assert!(frames[0][0].starts_keyframe);
        let part = |packet: EncodedPacket| Part { payload: packet.payload, marker: packet.marker, offset: 0 };
        Self::of_parts(source, frames.into_iter().map(|frame| frame.into_iter().map(part).collect()).collect())
    }

    /// Repeats the frames as they are.
    pub fn of_parts(source: SourceId, frames: Vec<Vec<Part>>) -> Self {
        Self { source, frames, rotation: None, colours: None, sequence: 0, count: 0 }
    }

    /// The packets of the next frame.
    pub fn next(&mut self) -> Vec<SourcePacket> {
        let frame = &self.frames[self.count as usize % self.frames.len()];
        self.count += 1;
        let timestamp = self.count * 3000;
        frame
            .iter()
            .map(|part| {
                self.sequence = self.sequence.wrapping_add(1);
                SourcePacket {
                    sequence: self.sequence,
                    timestamp: timestamp.wrapping_add_signed(part.offset),
                    marker: part.marker,
                    arrival: now(),
                    captured: None,
                    audio_level: None,
                    rotation: self.rotation,
                    colours: self.colours,
                    payload: part.payload.clone(),
                }
            })
            .collect()
    }
}

/// The mixer under test and its messages.
pub struct Rig {
    mixer: Mixer,
    outbox: Arc<Outbox>,
    heard: Receiver<FromMixer>,
    pub epoch: Timestamp,
    pub cameras: Vec<Camera>,
    ticks: u32,
    began: Timestamp,
    pub video: BTreeMap<u32, Vec<EncodedPacket>>,
    pub keyframes_wanted: BTreeMap<SourceId, u32>,
    pub sizes: BTreeMap<SourceId, Vec<Size>>,
    pub report: MixerReport,
    pub others: Vec<FromMixer>,
    /// Dropped last.
    _turn: MutexGuard<'static, ()>,
}

impl Rig {
    pub fn new() -> Self {
        let turn = turn();
        let outbox = Arc::new(Outbox::default());
        let (to, heard) = sync_channel(100_000);
        let inner = outbox.clone();
        thread::spawn(move || {
            let mut messages = Vec::new();
            while inner.take(&mut messages) {
                if messages.drain(..).any(|message| to.send(message).is_err()) {
                    return;
                }
            }
        });
        let mut mixer = Mixer::new(outbox.clone());
        let epoch = now() - Duration::from_secs(100);
        mixer.handle(ToMixer::Configure(MixerSettings {
            room: "test".parse().expect("a name"),
            epoch,
            max_source: Size::new(1920, 1080),
            openh264: false,
            transition_ms: 0,
            filter_budget: Duration::from_millis(20),
            threads: 1,
            sounds: Sounds::default(),
        }));
        let rig = Self {
            mixer,
            outbox,
            heard,
            epoch,
            cameras: Vec::new(),
            ticks: 0,
            began: now(),
            video: BTreeMap::new(),
            keyframes_wanted: BTreeMap::new(),
            sizes: BTreeMap::new(),
            report: MixerReport::default(),
            others: Vec::new(),
            _turn: turn,
        };
        let ready = rig.heard.recv_timeout(PATIENCE).expect("a mixer is ready");
        assert_eq!(ready, FromMixer::Ready { missing: Vec::new() });
        rig
    }

    pub fn send(&mut self, message: ToMixer) {
        self.mixer.handle(message);
        self.mixer.batch_handled();
    }

    pub fn add_camera(&mut self, camera: Camera, codec: Codec) {
        self.declare(camera.source, codec);
        self.cameras.push(camera);
    }

    pub fn declare(&mut self, source: SourceId, codec: Codec) {
        let kind =
            if codec.kind() == commingle::media::Kind::Audio { SourceKind::Microphone } else { SourceKind::Camera };
        self.send(ToMixer::Source(SourceSpec { source, participant: ParticipantId(source.0), kind, codec }));
    }

    /// Runs the cameras for so many frames of 30 a second and receives the messages of the mixer.
    pub fn run(&mut self, frames: u32) {
        for _ in 0..frames {
            for i in 0..self.cameras.len() {
                let source = self.cameras[i].source;
                for packet in self.cameras[i].next() {
                    self.mixer.handle(ToMixer::Packet(source, packet));
                }
            }
            self.mixer.batch_handled();
            self.ticks += 1;
            self.listen_until(self.began + Duration::from_micros(u64::from(self.ticks) * 33_333));
        }
    }

    /// Runs the cameras until the messages fulfil a condition.
    pub fn run_until(&mut self, what: &str, enough: impl Fn(&Self) -> bool) {
        let begun = now();
        while !enough(self) {
            assert!(now().since(begun) < PATIENCE, "timeout: {what}");
            self.run(1);
        }
    }

    fn listen_until(&mut self, until: Timestamp) {
        loop {
            match self.heard.recv_timeout(until.since(now())) {
                Ok(FromMixer::Video { serial, packet }) => self.video.entry(serial).or_default().push(packet),
                Ok(FromMixer::KeyframeWanted(source)) => *self.keyframes_wanted.entry(source).or_default() += 1,
                Ok(FromMixer::SourceSize(source, size)) => self.sizes.entry(source).or_default().push(size),
                Ok(FromMixer::Report(report)) => self.report = report,
                Ok(other) => self.others.push(other),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => panic!("the mixer has closed its outbox"),
            }
        }
    }

    /// Frames of a stream: RTP timestamp, whether it is a keyframe, payloads.
    pub fn frames(&self, serial: u32) -> Vec<Frame> {
        let mut frames: Vec<Frame> = Vec::new();
        let mut open = false;
        for packet in self.video.get(&serial).into_iter().flatten() {
            if open {
                let frame = frames.last_mut().expect("open");
                assert_eq!(frame.timestamp, packet.timestamp, "one timestamp a frame");
                assert!(!packet.starts_keyframe, "a frame starts once");
                frame.payloads.push(packet.payload.clone());
            } else {
                let (timestamp, keyframe) = (packet.timestamp, packet.starts_keyframe);
                frames.push(Frame { timestamp, keyframe, payloads: vec![packet.payload.clone()] });
            }
            open = !packet.marker;
        }
        frames
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.outbox.close();
    }
}

/// A frame of a stream.
pub struct Frame {
    pub timestamp: u32,
    pub keyframe: bool,
    pub payloads: Vec<Bytes>,
}

/// Decodes frames; one picture each.
pub fn decode(codec: Codec, frames: &[Frame]) -> Vec<Picture> {
    let pictures: Arc<Mutex<Vec<Picture>>> = Arc::default();
    let (to, decoded) = sync_channel(1);
    let kept = pictures.clone();
    let sink = move |what| match what {
        Decoded::Picture { picture, .. } => {
            kept.lock().expect("no panic").push(picture);
            to.send(()).expect("the test waits");
        }
        Decoded::KeyframeWanted => panic!("a stream refers to a picture that was not sent"),
        Decoded::Failed(reason) => panic!("a stream is broken: {reason}"),
    };
    let mut decoder = VideoDecoder::new(codec, DecodeLimits::default(), sink).expect("starts");
    let mut depayloader = Depayloader::new(codec);
    for (i, frame) in frames.iter().enumerate() {
        let packet = |payload: &Bytes| SourcePacket {
            sequence: 0,
            timestamp: frame.timestamp,
            marker: false,
            arrival: now(),
            captured: None,
            audio_level: None,
            rotation: None,
            colours: None,
            payload: payload.clone(),
        };
        let packets: Vec<SourcePacket> = frame.payloads.iter().map(packet).collect();
        let whole = depayloader.frame(&packets).expect("our own frames are whole").expect("a picture");
        decoder.push(whole, Timestamp::from_micros(i as u64 * 1000)).expect("our own frames can be decoded");
        decoded.recv_timeout(PATIENCE).expect("a picture for each frame");
    }
    std::mem::take(&mut pictures.lock().expect("no panic"))
}

/// The colour in the middle of a rectangle.
pub fn colour(picture: &Picture, rect: Rect) -> Colour {
    let (x, y) = ((rect.x + rect.width / 2) as usize, (rect.y + rect.height / 2) as usize);
    let at = |i: usize, x: usize, y: usize| {
        let (plane, stride) = picture.plane(i);
        plane[y * stride + x]
    };
    (at(0, x, y), at(1, x / 2, y / 2), at(2, x / 2, y / 2))
}

/// Whether two colours are equal within the errors of the codec.
pub fn alike(a: Colour, b: Colour) -> bool {
    let near = |a: u8, b: u8| a.abs_diff(b) <= 12;
    near(a.0, b.0) && near(a.1, b.1) && near(a.2, b.2)
}

/// A two by two scene of 640x360 that shows these sources.
pub fn scene(sources: [Option<SourceId>; 4]) -> Scene {
    let tiles = sources.into_iter().zip(0..).map(|(source, i)| Tile {
        participant: ParticipantId(source.map_or(90 + i, |source| source.0)),
        kind: SourceKind::Camera,
        source,
        rect: Rect { x: i % 2 * 320, y: i / 2 * 180, width: 320, height: 180 },
        fit: ObjectFit::Auto,
        label: String::new(),
        initials: String::new(),
        avatar: None,
        speaking: false,
        muted: false,
        poor_connection: false,
        hand_raised: false,
        reaction: None,
    });
    let (view, canvas, style) = (ViewName::program(), Size::new(640, 360), Style::default());
    Scene { view, canvas, fps: 30, tiles: tiles.collect(), more: None, style }
}

/// A stream of the program.
pub fn stream(serial: u32, codec: Codec, size: Size, fps: u32) -> StreamSpec {
    let tier = if fps < 30 { Tier::Low } else { Tier::High };
    let key = StreamKey { view: ViewName::program(), codec, tier };
    StreamSpec { serial, key, size, fps, bitrate_kbps: 800, steady: false }
}

pub fn streams<const N: usize>(streams: [StreamSpec; N]) -> ToMixer {
    ToMixer::Streams(StreamSet { streams: streams.into() })
}
