//! Opens a source: from its URL to received media.
//!
//! Owns: how each kind of source is connected. Does not know: playout and reconnects. In: [`InputSettings`]. Out:
//! [`Opened`]. Opening blocks on the network, so the caller uses a separate thread.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::http::HttpFetcher;
use super::media_file::MediaFile;
use super::push::Encoder;
use super::skipped::Skipped;
use super::{rtmp, rtsp, whep};
use crate::codec::CodecError;
use crate::codec::intake::{self, Intake, Protocol, SrtCall};
use crate::destination::{Destination, SrtMode, Target};
use crate::dial::{self, DialError};
use crate::link::input::InputSettings;

/// An open source.
pub(super) struct Opened {
    pub(super) intake: Intake,
    /// It arrives in real time, and playout follows its pace.
    pub(super) live: bool,
    /// It may send nothing at first without being considered broken: a listener waits for the other side.
    pub(super) may_be_silent: bool,
    /// Dropped together with the source.
    _resources: Resources,
}

/// Resources that a source needs besides its intake.
#[expect(dead_code, reason = "most are only held until they are dropped")]
enum Resources {
    None,
    File(MediaFile),
    Task(Task),
    /// The runtime is shut down without waiting, because the drop may happen on any thread.
    Push(Task, Option<Runtime>),
}

impl Drop for Resources {
    fn drop(&mut self) {
        if let Self::Push(_, runtime) = self
            && let Some(runtime) = runtime.take()
        {
            runtime.shutdown_background();
        }
    }
}

/// A task that feeds an intake; aborted on drop.
pub(super) struct Task(pub(super) JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a source cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenError {
    /// Text for moderators, without secrets.
    pub(super) reason: String,
    /// A retry cannot succeed.
    pub(super) permanent: bool,
}

impl OpenError {
    pub(super) fn transient(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), permanent: false }
    }

    /// A refused address is permanent; a failed resolution or connection is transient.
    pub(super) fn dial(error: &DialError) -> Self {
        Self { reason: error.to_string(), permanent: error.is_final() }
    }

    pub(super) fn permanent(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), permanent: true }
    }
}

/// Opens one source, for each attempt anew.
pub(super) struct Opener {
    origin: Origin,
    settings: InputSettings,
    skipped: Arc<Skipped>,
}

/// Origin of a source.
enum Origin {
    /// We connect to it.
    Pull(Box<Destination>, Runtime),
    /// An encoder has connected to us; it can be taken once.
    Push(Box<Mutex<Option<Encoder>>>),
}

impl Opener {
    /// Prepares and confines this process for one source. Also returns the GStreamer elements missing on this machine.
    ///
    /// # Errors
    /// A permanent error.
    pub(super) fn new(settings: InputSettings, encoder: Option<Encoder>) -> Result<(Self, Vec<String>), OpenError> {
        let Some(source) = &settings.source else {
            let missing = intake::confine(Protocol::Pushed).map_err(OpenError::permanent)?;
            return Ok((
                Self { origin: Origin::Push(Box::new(Mutex::new(encoder))), settings, skipped: Arc::default() },
                missing,
            ));
        };
        let destination = source.open().map_err(OpenError::permanent)?;
        let protocol = match destination.target() {
            Target::File(_) => Protocol::File,
            Target::Http(_) => Protocol::Http,
            Target::Srt(_) => Protocol::Srt,
            Target::Rtsp(_) | Target::Rtmp(_) | Target::Whep(_) => Protocol::Pushed,
            Target::Whip(_) | Target::Rtp(_) => {
                return Err(OpenError::permanent("this URL scheme is for outputs, not for inputs"));
            }
        };
        let missing = intake::confine(protocol).map_err(OpenError::permanent)?;
        // Two threads: the task that feeds a source may block one of them.
        let network =
            Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(OpenError::permanent)?;
        if protocol == Protocol::Http {
            intake::set_fetch(Arc::new(HttpFetcher::new(settings.guard.clone(), network.handle().clone())));
        }
        Ok((Self { origin: Origin::Pull(Box::new(destination), network), settings, skipped: Arc::default() }, missing))
    }

    /// Whether the source is a file: if it cannot be decoded, a retry cannot succeed.
    pub(super) fn is_file(&self) -> bool {
        matches!(&self.origin, Origin::Pull(destination, _) if matches!(destination.target(), Target::File(_)))
    }

    /// The skipped units of all attempts.
    pub(super) fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// Whether the source is pushed: a reconnect is up to the encoder.
    pub(super) const fn is_pushed(&self) -> bool {
        matches!(self.origin, Origin::Push(_))
    }

    /// Opens the source; `wake` is called whenever media or a state change is available. May block on the network.
    pub(super) fn open(&self, wake: impl Fn() + Send + Sync + 'static) -> Result<Opened, OpenError> {
        let (destination, network) = match &self.origin {
            Origin::Pull(destination, network) => (destination, network),
            Origin::Push(encoder) => {
                let encoder =
                    encoder.lock().take().ok_or_else(|| OpenError::permanent("the encoder has disconnected"))?;
                let (intake, task, runtime) = encoder.accept(self.skipped.clone(), wake)?;
                return Ok(Opened {
                    intake,
                    live: true,
                    may_be_silent: false,
                    _resources: Resources::Push(task, Some(runtime)),
                });
            }
        };
        let guard = &self.settings.guard;
        let transient = |error: CodecError| OpenError::transient(error);
        match destination.target() {
            Target::File(name) => {
                let file = MediaFile::open(&self.settings.media_dir, name).map_err(OpenError::permanent)?;
                let intake = Intake::file(&file.path(), wake).map_err(OpenError::permanent)?;
                Ok(Opened { intake, live: false, may_be_silent: false, _resources: Resources::File(file) })
            }
            Target::Http(web) => {
                // Checked here for an error that names the address; `HttpFetcher` checks each URL of a playlist.
                network.block_on(dial::resolve(&web.endpoint, guard)).map_err(|error| OpenError::dial(&error))?;
                let intake = Intake::http(web.url.expose(), wake).map_err(transient)?;
                Ok(Opened { intake, live: false, may_be_silent: false, _resources: Resources::None })
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
                let intake = Intake::srt(&call, wake).map_err(transient)?;
                Ok(Opened { intake, live: true, may_be_silent: listens, _resources: Resources::None })
            }
            Target::Rtmp(server) => {
                let (intake, task) = rtmp::open(server, guard, network, self.skipped.clone(), wake)?;
                Ok(Opened { intake, live: true, may_be_silent: false, _resources: Resources::Task(task) })
            }
            Target::Rtsp(server) => {
                let (intake, task) = rtsp::open(server, guard, network, self.skipped.clone(), wake)?;
                Ok(Opened { intake, live: true, may_be_silent: false, _resources: Resources::Task(task) })
            }
            Target::Whep(server) => {
                let (intake, task) = whep::open(server, destination, guard, network, self.skipped.clone(), wake)?;
                Ok(Opened { intake, live: true, may_be_silent: false, _resources: Resources::Task(task) })
            }
            Target::Whip(_) | Target::Rtp(_) => unreachable!("refused by Opener::new"),
        }
    }
}
