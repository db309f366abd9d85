//! Opening a source: from what a moderator wrote to media that comes in.
//!
//! Owns: how each kind of source is connected to. Does not know: when it is played, or what follows its end. Opening waits
//! for the network: it has a thread of its own.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::http::Web;
use super::media_file::MediaFile;
use super::push::Encoder;
use super::{rtmp, rtsp, whep};
use crate::codec::CodecError;
use crate::codec::intake::{self, Intake, SrtCall, Way};
use crate::destination::{Destination, SrtMode, Target};
use crate::dial::{self, DialError};
use crate::link::input::InputSettings;

/// A source that media comes from.
pub(super) struct Opened {
    pub(super) intake: Intake,
    /// It comes at its own pace, and is caught up with.
    pub(super) live: bool,
    /// It is somebody else's turn: that nothing comes is no fault.
    pub(super) patient: bool,
    /// What must not end before the source does, and ends with it.
    _held: Held,
}

/// What a source needs besides its intake.
#[expect(dead_code, reason = "most are only to be dropped")]
enum Held {
    Nothing,
    File(MediaFile),
    Task(Task),
    /// A runtime must not be waited for by whoever happens to drop it.
    Pushed(Task, Option<Runtime>),
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Self::Pushed(_, runtime) = self
            && let Some(runtime) = runtime.take()
        {
            runtime.shutdown_background();
        }
    }
}

/// What feeds a source; dropping it ends it.
pub(super) struct Task(pub(super) JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a source cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenError {
    /// In words, without secrets.
    pub(super) reason: String,
    /// Trying again is of no use.
    pub(super) lasting: bool,
}

impl OpenError {
    pub(super) fn passing(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), lasting: false }
    }

    /// What is refused stays refused; a name may be known again.
    pub(super) fn dial(error: &DialError) -> Self {
        Self { reason: error.to_string(), lasting: error.is_final() }
    }

    pub(super) fn lasting(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), lasting: true }
    }
}

/// Opens one source, again and again.
pub(super) struct Opener {
    origin: Origin,
    settings: InputSettings,
}

/// Where a source is.
enum Origin {
    /// It is fetched.
    Fetched(Box<Destination>, Runtime),
    /// It is pushed, once.
    Pushed(Box<Mutex<Option<Encoder>>>),
}

impl Opener {
    /// Prepares this process for one source, for good; also says what is missing on this machine.
    ///
    /// # Errors
    /// Why the source can never be opened.
    pub(super) fn new(settings: InputSettings, encoder: Option<Encoder>) -> Result<(Self, Vec<String>), OpenError> {
        let Some(source) = &settings.source else {
            let missing = intake::confine(Way::Fed).map_err(OpenError::lasting)?;
            return Ok((Self { origin: Origin::Pushed(Box::new(Mutex::new(encoder))), settings }, missing));
        };
        let destination = source.open().map_err(OpenError::lasting)?;
        let way = match destination.target() {
            Target::File(_) => Way::File,
            Target::Http(_) => Way::Http,
            Target::Srt(_) => Way::Srt,
            Target::Rtsp(_) | Target::Rtmp(_) | Target::Whep(_) => Way::Fed,
            Target::Whip(_) | Target::Rtp(_) => {
                return Err(OpenError::lasting("this kind of URL is something to send to, not to fetch from"));
            }
        };
        let missing = intake::confine(way).map_err(OpenError::lasting)?;
        // What feeds a source may wait for it; the other thread is for all else.
        let network = Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(OpenError::lasting)?;
        if way == Way::Http {
            intake::set_fetch(Arc::new(Web::new(settings.guard.clone(), network.handle().clone())));
        }
        Ok((Self { origin: Origin::Fetched(Box::new(destination), network), settings }, missing))
    }

    /// Whether the source is a file, which is as it is however often it is read.
    pub(super) fn is_file(&self) -> bool {
        matches!(&self.origin, Origin::Fetched(destination, _) if matches!(destination.target(), Target::File(_)))
    }

    /// Whether the source is pushed: when it is gone, it is for others to come back.
    pub(super) const fn is_pushed(&self) -> bool {
        matches!(self.origin, Origin::Pushed(_))
    }

    /// Opens the source; `wake` is called whenever it has news. May take as long as a network lets it.
    pub(super) fn open(&self, wake: impl Fn() + Send + Sync + 'static) -> Result<Opened, OpenError> {
        let (destination, network) = match &self.origin {
            Origin::Fetched(destination, network) => (destination, network),
            Origin::Pushed(encoder) => {
                let encoder = encoder.lock().take().ok_or_else(|| OpenError::lasting("the encoder is gone"))?;
                let (intake, task, runtime) = encoder.accept(wake)?;
                return Ok(Opened { intake, live: true, patient: false, _held: Held::Pushed(task, Some(runtime)) });
            }
        };
        let guard = &self.settings.guard;
        let passing = |error: CodecError| OpenError::passing(error);
        match destination.target() {
            Target::File(name) => {
                let file = MediaFile::open(&self.settings.media_dir, name).map_err(OpenError::lasting)?;
                let intake = Intake::file(&file.path(), wake).map_err(OpenError::lasting)?;
                Ok(Opened { intake, live: false, patient: false, _held: Held::File(file) })
            }
            Target::Http(web) => {
                // Said here in words that name the address; what a playlist names is judged where it is fetched.
                network.block_on(dial::resolve(&web.endpoint, guard)).map_err(|error| OpenError::dial(&error))?;
                let intake = Intake::http(web.url.expose(), wake).map_err(passing)?;
                Ok(Opened { intake, live: false, patient: false, _held: Held::Nothing })
            }
            Target::Srt(srt) => {
                let (address, listens) = match &srt.mode {
                    SrtMode::Caller(endpoint) => {
                        let resolved = network.block_on(dial::resolve(endpoint, guard));
                        (resolved.map_err(|error| OpenError::dial(&error))?, false)
                    }
                    SrtMode::Listener(address) => (*address, true),
                };
                let call = SrtCall {
                    address,
                    listens,
                    latency: srt.latency,
                    passphrase: srt.passphrase.as_ref().map(|secret| secret.expose()),
                    key_length: srt.key_length,
                    stream: srt.stream_id.as_ref().map(|secret| secret.expose()),
                };
                let intake = Intake::srt(&call, wake).map_err(passing)?;
                Ok(Opened { intake, live: true, patient: listens, _held: Held::Nothing })
            }
            Target::Rtmp(server) => {
                let (intake, task) = rtmp::open(server, guard, network, wake)?;
                Ok(Opened { intake, live: true, patient: false, _held: Held::Task(task) })
            }
            Target::Rtsp(server) => {
                let (intake, task) = rtsp::open(server, guard, network, wake)?;
                Ok(Opened { intake, live: true, patient: false, _held: Held::Task(task) })
            }
            Target::Whep(server) => {
                let (intake, task) = whep::open(server, destination, guard, network, wake)?;
                Ok(Opened { intake, live: true, patient: false, _held: Held::Task(task) })
            }
            Target::Whip(_) | Target::Rtp(_) => unreachable!("refused when this process was prepared"),
        }
    }
}
