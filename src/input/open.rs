//! Opening a source: from what a moderator wrote to media that comes in.
//!
//! Owns: how each kind of source is connected to. Does not know: when it is played, or what follows its end. Opening waits
//! for the network: it has a thread of its own.

use std::sync::Arc;

use super::http::Web;
use super::reach::{MediaFile, ReachError, resolve};
use crate::codec::CodecError;
use crate::codec::intake::{self, Intake, SrtCall, Way};
use crate::destination::{Destination, SrtMode, Target};
use crate::link::input::InputSettings;

/// A source that media comes from.
pub(super) struct Opened {
    pub(super) intake: Intake,
    /// It comes at its own pace, and is caught up with.
    pub(super) live: bool,
    /// It is somebody else's turn: that nothing comes is no fault.
    pub(super) patient: bool,
    /// What must not end before the source does.
    pub(super) _held: Option<MediaFile>,
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
    fn passing(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), lasting: false }
    }

    /// What is refused stays refused; a name may be known again.
    fn reach(error: ReachError) -> Self {
        Self { reason: error.to_string(), lasting: matches!(error, ReachError::Refused(_)) }
    }

    fn lasting(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), lasting: true }
    }
}

/// Opens one source, again and again.
pub(super) struct Opener {
    destination: Destination,
    settings: InputSettings,
}

impl Opener {
    /// Prepares this process for one source, for good; also says what is missing on this machine.
    ///
    /// # Errors
    /// Why the source can never be opened.
    pub(super) fn new(settings: InputSettings) -> Result<(Self, Vec<String>), OpenError> {
        let destination = settings.source.open().map_err(OpenError::lasting)?;
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
        if way == Way::Http {
            intake::set_fetch(Arc::new(Web::new(settings.guard.clone())));
        }
        Ok((Self { destination, settings }, missing))
    }

    /// Whether the source is a file, which is as it is however often it is read.
    pub(super) fn is_file(&self) -> bool {
        matches!(self.destination.target(), Target::File(_))
    }

    /// Opens the source; `wake` is called whenever it has news. May take as long as a network lets it.
    pub(super) fn open(&self, wake: impl Fn() + Send + Sync + 'static) -> Result<Opened, OpenError> {
        let guard = &self.settings.guard;
        let passing = |error: CodecError| OpenError::passing(error);
        match self.destination.target() {
            Target::File(name) => {
                let file = MediaFile::open(&self.settings.media_dir, name).map_err(OpenError::lasting)?;
                let intake = Intake::file(&file.path(), wake).map_err(OpenError::lasting)?;
                Ok(Opened { intake, live: false, patient: false, _held: Some(file) })
            }
            Target::Http(web) => {
                // Said here in words that name the address; what a playlist names is judged where it is fetched.
                resolve(&web.endpoint, guard).map_err(OpenError::reach)?;
                let intake = Intake::http(web.url.expose(), wake).map_err(passing)?;
                Ok(Opened { intake, live: false, patient: false, _held: None })
            }
            Target::Srt(srt) => {
                let (address, listens) = match &srt.mode {
                    SrtMode::Caller(endpoint) => (resolve(endpoint, guard).map_err(OpenError::reach)?, false),
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
                Ok(Opened { intake, live: true, patient: listens, _held: None })
            }
            _ => Err(OpenError::lasting("this kind of source cannot be taken in yet")),
        }
    }
}
