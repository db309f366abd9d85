//! The element `webfetch`: the only GStreamer source for HTTP in this process.
//!
//! Owns: the element, which handles `http:` and `https:` URLs, also those in playlists. Does not know: HTTP. In: a URL.
//! Out: bytes. Requests are made by the [`Fetch`] that the process has set; without one there is no HTTP. Therefore
//! every connection is checked in Rust, and C code opens none.

use std::io::Read;
use std::sync::{Arc, OnceLock};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use gstreamer_base as gst_base;
use gstreamer_base::subclass::base_src::CreateSuccess;
use gstreamer_base::subclass::prelude::*;
use parking_lot::Mutex;

/// Bytes of one buffer.
const READ: usize = 64 << 10;

/// Makes HTTP requests.
pub trait Fetch: Send + Sync {
    /// Prepares a request that can be cancelled.
    fn begin(&self) -> Box<dyn Exchange>;
}

/// One HTTP request.
pub trait Exchange: Send + Sync {
    /// Sends a GET request from this byte on. Waits for the header of the response.
    ///
    /// # Errors
    /// A text without the URL.
    fn get(&self, url: &str, from: u64) -> Result<Fetched, String>;
    /// Cancels the request.
    fn cancel(&self);
}

/// A response.
pub struct Fetched {
    /// The body.
    pub body: Box<dyn Read + Send>,
    /// Length of the whole resource, if known.
    pub length: Option<u64>,
    /// Range requests are supported.
    pub ranges: bool,
    /// The URL after redirections.
    pub url: String,
}

static FETCH: OnceLock<Arc<dyn Fetch>> = OnceLock::new();

/// Sets the implementation of HTTP requests in this process; only the first call has an effect.
pub fn set_fetch(fetch: Arc<dyn Fetch>) {
    if FETCH.set(fetch).is_err() {
        tracing::debug!("HTTP implementation is set already");
    }
}

/// Registers the element; GStreamer was initialised before.
pub(super) fn register() {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    REGISTERED.get_or_init(|| {
        let registered = gst::Element::register(None, "webfetch", gst::Rank::MARGINAL, WebFetch::static_type());
        if let Err(error) = &registered {
            tracing::error!(%error, "cannot register the element webfetch");
        }
        registered.is_ok()
    });
}

glib::wrapper! {
    pub(super) struct WebFetch(ObjectSubclass<imp::WebFetch>)
        @extends gst_base::PushSrc, gst_base::BaseSrc, gst::Element, gst::Object,
        @implements gst::URIHandler;
}

mod imp {
    use super::*;

    #[derive(Default)]
    pub(in super::super) struct WebFetch {
        url: Mutex<Option<String>>,
        /// Locked while it waits for bytes.
        transfer: Mutex<Transfer>,
        exchange: Mutex<Option<Arc<dyn Exchange>>>,
        facts: Mutex<Facts>,
    }

    #[derive(Default)]
    struct Transfer {
        body: Option<Box<dyn Read + Send>>,
        position: u64,
    }

    /// The header of the last response.
    #[derive(Default)]
    struct Facts {
        length: Option<u64>,
        ranges: bool,
        /// The URL after redirections.
        from: Option<String>,
    }

    impl WebFetch {
        fn open(&self, transfer: &mut Transfer) -> Result<(), gst::ErrorMessage> {
            let fail = |reason: &str| gst::error_msg!(gst::ResourceError::OpenRead, ("{}", reason));
            let url = self.url.lock().clone().ok_or_else(|| fail("no URL was set"))?;
            let fetch = FETCH.get().ok_or_else(|| fail("HTTP is not available in this process"))?;
            let exchange: Arc<dyn Exchange> = fetch.begin().into();
            *self.exchange.lock() = Some(exchange.clone());
            let fetched = exchange.get(&url, transfer.position).map_err(|reason| fail(&reason))?;
            transfer.body = Some(fetched.body);
            *self.facts.lock() = Facts { length: fetched.length, ranges: fetched.ranges, from: Some(fetched.url) };
            Ok(())
        }
    }

    #[glib::object_subclass]
    impl ObjectSubclass for WebFetch {
        const NAME: &'static str = "CommingleWebFetch";
        type Type = super::WebFetch;
        type ParentType = gst_base::PushSrc;
        type Interfaces = (gst::URIHandler,);
    }

    impl ObjectImpl for WebFetch {}

    impl GstObjectImpl for WebFetch {}

    impl ElementImpl for WebFetch {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: OnceLock<gst::subclass::ElementMetadata> = OnceLock::new();
            Some(METADATA.get_or_init(|| {
                gst::subclass::ElementMetadata::new(
                    "Web fetch",
                    "Source/Network",
                    "Reads what an HTTP URL names",
                    "commingle",
                )
            }))
        }

        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: OnceLock<Vec<gst::PadTemplate>> = OnceLock::new();
            TEMPLATES.get_or_init(|| {
                let any = gst::Caps::new_any();
                gst::PadTemplate::new("src", gst::PadDirection::Src, gst::PadPresence::Always, &any)
                    .into_iter()
                    .collect()
            })
        }
    }

    impl BaseSrcImpl for WebFetch {
        fn start(&self) -> Result<(), gst::ErrorMessage> {
            let mut transfer = self.transfer.lock();
            *transfer = Transfer::default();
            self.open(&mut transfer)
        }

        fn stop(&self) -> Result<(), gst::ErrorMessage> {
            *self.exchange.lock() = None;
            *self.transfer.lock() = Transfer::default();
            Ok(())
        }

        fn unlock(&self) -> Result<(), gst::ErrorMessage> {
            if let Some(exchange) = &*self.exchange.lock() {
                exchange.cancel();
            }
            Ok(())
        }

        fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
            // A cancelled request is sent again, from its position.
            self.transfer.lock().body = None;
            Ok(())
        }

        fn is_seekable(&self) -> bool {
            self.facts.lock().ranges
        }

        fn size(&self) -> Option<u64> {
            self.facts.lock().length
        }

        fn do_seek(&self, segment: &mut gst::Segment) -> bool {
            let Some(segment) = segment.downcast_ref::<gst::format::Bytes>() else { return false };
            let start = segment.start().map_or(0, |start| *start);
            let mut transfer = self.transfer.lock();
            if start == transfer.position {
                return true;
            }
            if !self.facts.lock().ranges {
                return false;
            }
            transfer.position = start;
            transfer.body = None;
            true
        }

        fn query(&self, query: &mut gst::QueryRef) -> bool {
            if let gst::QueryViewMut::Uri(query) = query.view_mut() {
                query.set_uri(self.url.lock().as_deref());
                query.set_redirection(self.facts.lock().from.as_deref(), false);
                return true;
            }
            BaseSrcImplExt::parent_query(self, query)
        }
    }

    impl PushSrcImpl for WebFetch {
        fn create(&self, _: Option<&mut gst::BufferRef>) -> Result<CreateSuccess, gst::FlowError> {
            let mut transfer = self.transfer.lock();
            if transfer.body.is_none() {
                self.open(&mut transfer).map_err(|error| {
                    self.post_error_message(error);
                    gst::FlowError::Error
                })?;
            }
            let mut bytes = vec![0; READ];
            let read = transfer.body.as_mut().expect("just opened").read(&mut bytes);
            let whole = self.facts.lock().length.is_none_or(|length| transfer.position >= length);
            match read {
                Ok(0) if whole => Err(gst::FlowError::Eos),
                Ok(length @ 1..) => {
                    bytes.truncate(length);
                    let mut buffer = gst::Buffer::from_slice(bytes);
                    buffer.get_mut().expect("just made").set_offset(transfer.position);
                    transfer.position += length as u64;
                    Ok(CreateSuccess::NewBuffer(buffer))
                }
                Ok(0) | Err(_) => {
                    gst::element_imp_error!(self, gst::ResourceError::Read, ("the connection broke off"));
                    Err(gst::FlowError::Error)
                }
            }
        }
    }

    impl URIHandlerImpl for WebFetch {
        const URI_TYPE: gst::URIType = gst::URIType::Src;

        fn protocols() -> &'static [&'static str] {
            &["http", "https"]
        }

        fn uri(&self) -> Option<String> {
            self.url.lock().clone()
        }

        fn set_uri(&self, uri: &str) -> Result<(), glib::Error> {
            *self.url.lock() = Some(uri.to_owned());
            Ok(())
        }
    }
}
