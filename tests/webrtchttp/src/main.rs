//! GStreamer's `whipsink` publishes into a room, its `whepsrc` watches that room.
//!
//!     webrtchttp WHIP_URL WHEP_URL COLOUR TONE SECONDS
//!
//! Owns: two pipelines, and measuring what the second one decodes. Does not know: what is good; the Rust tests judge.
//! In: where to publish and watch, the picture's background as `RRGGBB`, the sound's frequency in Hz, how long to
//! watch. Out:
//! `> published` when whipsink has been started, and it goes on when a line answers; one line of JSON each second; `>
//! watched`, which is answered too; then both leave, and the last line has all seconds.

mod measure;

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;

use measure::{Hearing, Second, Sight};

/// Longest time to the first picture, in seconds.
const FIRST_PICTURE_WITHIN: u32 = 15;

/// As in the documentation of whipsink, with a ball that moves on one colour.
fn publisher(url: &str, colour: &str, tone: &str) -> String {
    format!(
        "whipsink name=whip use-link-headers=true whip-endpoint={url}
        videotestsrc is-live=true pattern=ball background-color=0xff{colour} foreground-color=0xffffffff
        ! video/x-raw,width=320,height=180,framerate=15/1 ! videoconvert ! openh264enc gop-size=30
        ! rtph264pay config-interval=-1 ! application/x-rtp,media=video,encoding-name=H264,payload=97,clock-rate=90000 ! whip.sink_0
        audiotestsrc is-live=true freq={tone} volume=0.06 ! audio/x-raw,rate=48000,channels=1 ! opusenc ! rtpopuspay
        ! application/x-rtp,media=audio,encoding-name=OPUS,payload=96,clock-rate=48000,encoding-params=(string)2 ! whip.sink_1"
    )
}

/// With the codecs that whepsrc offers by itself, of which the first is VP8. Pictures of WebRTC are BT.601 where
/// nothing else is said; GStreamer takes large ones for BT.709.
fn watcher(url: &str) -> String {
    format!(
        "whepsrc name=whep use-link-headers=true whep-endpoint={url}
        rtpvp8depay name=video ! vp8dec ! capssetter caps=video/x-raw,colorimetry=bt601 ! videoconvert ! video/x-raw,format=RGB ! fakesink name=sight signal-handoffs=true
        rtpopusdepay name=audio ! opusdec ! audioconvert ! audio/x-raw,format=F32LE,rate=48000,channels=1
        ! fakesink name=hearing signal-handoffs=true"
    )
}

fn run(arguments: &[String]) -> Result<(), String> {
    let [whip, whep, colour, tone, seconds] = arguments else {
        return Err("usage: webrtchttp WHIP_URL WHEP_URL COLOUR TONE SECONDS".to_owned());
    };
    let hz: f32 = tone.parse().map_err(|_| format!("{tone} is no frequency in Hz"))?;
    let seconds: u32 = seconds.parse().map_err(|_| format!("{seconds} is no number of seconds"))?;
    gst::init().map_err(|error| error.to_string())?;
    gstwebrtchttp::plugin_register_static().map_err(|error| error.to_string())?;

    let publishing = Running::start(&publisher(whip, colour, tone))?;
    ask("published")?;
    let watching = Running::start_with(&watcher(whep), link)?;
    let sight = Arc::new(Mutex::new(Sight::default()));
    let hearing = Arc::new(Mutex::new(Hearing::new(hz)));
    feed(&watching, "sight", &sight, |sight, bytes, caps| {
        let [width, height] = ["width", "height"].map(|side| caps.get::<i32>(side).unwrap_or_default() as usize);
        sight.look(bytes, width, height);
    });
    feed(&watching, "hearing", &hearing, |hearing, bytes, _| hearing.listen(bytes));

    let both = [&publishing, &watching];
    let mut waited = 0;
    while lock(&sight).is_blind() {
        if waited == FIRST_PICTURE_WITHIN {
            return Err(format!("no picture within {FIRST_PICTURE_WITHIN} s"));
        }
        waited += 1;
        pass_a_second(both)?;
    }
    let mut all: Vec<Second> = Vec::new();
    for _ in 0..seconds {
        pass_a_second(both)?;
        let second = Second::of(&mut lock(&sight), &mut lock(&hearing));
        println!("{second}");
        all.push(second);
    }
    ask("watched")?;
    drop(watching);
    drop(publishing);
    println!("{}", Second::list(&all));
    Ok(())
}

/// Says what has been done, and waits until it is answered.
fn ask(what: &str) -> Result<(), String> {
    println!("> {what}");
    let _ = std::io::stdout().flush();
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer).map_err(|error| error.to_string())?;
    if read == 0 { Err(format!("nobody answered `{what}`")) } else { Ok(()) }
}

/// Links each pad of whepsrc, when it comes, to what takes its kind.
fn link(pipeline: &gst::Pipeline) {
    let whep = pipeline.by_name("whep").expect("it is in the description");
    let (video, audio) = (pipeline.by_name("video").expect("as above"), pipeline.by_name("audio").expect("as above"));
    whep.connect_pad_added(move |_, pad| {
        // Its pads are numbered by section, and tell no more before something comes: sound is the first, pictures the
        // second.
        let depayloader = if pad.name() == "src_0" { &audio } else { &video };
        let sink = depayloader.static_pad("sink").expect("depayloaders have one");
        if let Err(error) = pad.link(&sink) {
            eprintln!("{}: {error}", pad.name());
        }
    });
}

/// Gives each buffer that comes to a sink to its measure.
fn feed<T: Send + 'static>(
    running: &Running,
    name: &str,
    measure: &Arc<Mutex<T>>,
    take: impl Fn(&mut T, &[u8], &gst::StructureRef) + Send + Sync + 'static,
) {
    let measure = Arc::clone(measure);
    let sink = running.0.by_name(name).expect("it is in the description");
    sink.connect("handoff", false, move |given| {
        let [_, buffer, pad] = given else { return None };
        let (buffer, pad) = (buffer.get::<gst::Buffer>().ok()?, pad.get::<gst::Pad>().ok()?);
        take(&mut lock(&measure), &buffer.map_readable().ok()?, pad.current_caps()?.structure(0)?);
        None
    });
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pipeline that plays; it stops, and says goodbye to the server, when it is dropped.
struct Running(gst::Pipeline);

impl Running {
    fn start(description: &str) -> Result<Self, String> {
        Self::start_with(description, |_| ())
    }

    fn start_with(description: &str, prepare: impl FnOnce(&gst::Pipeline)) -> Result<Self, String> {
        let pipeline = gst::parse::launch(description).map_err(|error| error.to_string())?;
        let pipeline = pipeline.downcast::<gst::Pipeline>().map_err(|_| "not a pipeline".to_owned())?;
        prepare(&pipeline);
        pipeline.set_state(gst::State::Playing).map_err(|error| error.to_string())?;
        Ok(Self(pipeline))
    }

    /// Lets half a second pass, unless something goes wrong.
    fn pass(&self) -> Result<(), String> {
        let bus = self.0.bus().expect("pipelines have one");
        let message = bus.timed_pop_filtered(gst::ClockTime::from_mseconds(500), &[gst::MessageType::Error]);
        match message.as_ref().map(|message| message.view()) {
            Some(gst::MessageView::Error(error)) => Err(format!("{} ({:?})", error.error(), error.debug())),
            _ => Ok(()),
        }
    }
}

/// Lets a second pass, unless something goes wrong in one of them.
fn pass_a_second(pipelines: [&Running; 2]) -> Result<(), String> {
    pipelines.iter().try_for_each(|pipeline| pipeline.pass())
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("webrtchttp: {error}");
            ExitCode::FAILURE
        }
    }
}
