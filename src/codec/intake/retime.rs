//! The element `tsretime`: a parser of MPEG-TS that removes jumps of timestamps before `tsdemux`.
//!
//! Owns: the element, which `decodebin` autoplugs before `tsdemux` because of its rank, for all protocols. Does not
//! know: packets of MPEG-TS ([`super::mpegts`]). In: buffers of a transport stream. Out: buffers of whole packets.
//!
//! `tsdemux` of GStreamer 1.22 drops the access units around a jump of the PCR, or passes on timestamps that go back,
//! which decoders clamp.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use parking_lot::Mutex;

use super::mpegts::Retimer;

/// Registers the element, once per process. GStreamer must be initialised.
pub(super) fn register() {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    REGISTERED.get_or_init(|| {
        // `decodebin` prefers it to `tsdemux`, which has the rank PRIMARY.
        let registered = gst::Element::register(None, "tsretime", gst::Rank::PRIMARY + 1, TsRetime::static_type());
        if let Err(error) = &registered {
            tracing::error!(%error, "cannot register the element tsretime");
        }
        registered.is_ok()
    });
}

glib::wrapper! {
    pub(super) struct TsRetime(ObjectSubclass<imp::TsRetime>) @extends gst::Element, gst::Object;
}

impl TsRetime {
    /// The element adds the number of jumps that it removes to this counter. Only the first call has an effect.
    pub(super) fn count_jumps(&self, jumps: Arc<AtomicU64>) {
        let _set = self.imp().jumps.set(jumps);
    }
}

mod imp {
    use super::*;

    pub(in super::super) struct TsRetime {
        sink: gst::Pad,
        source: gst::Pad,
        retimer: Mutex<Retimer>,
        /// Counter of the owner, see [`count_jumps`](super::TsRetime::count_jumps).
        pub(super) jumps: OnceLock<Arc<AtomicU64>>,
    }

    impl TsRetime {
        /// Passes on the whole packets of the received bytes, with new timestamps.
        fn chain(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
            let mut retimer = self.retimer.lock();
            if buffer.flags().contains(gst::BufferFlags::DISCONT) {
                retimer.interrupt();
            }
            let kept = retimer.pending() as u64;
            let bytes = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
            let written = retimer.take(&bytes);
            if let Some(jumps) = self.jumps.get() {
                jumps.fetch_add(retimer.take_jumps(), Ordering::Relaxed);
            }
            drop(retimer);
            let mut written = gst::Buffer::from_mut_slice(written);
            let fields = written.get_mut().expect("just made");
            // The output begins with the bytes that were kept from the buffers before.
            let offset = Some(buffer.offset()).filter(|offset| *offset != gst::format::Buffers::OFFSET_NONE);
            fields.set_offset(offset.map_or(gst::format::Buffers::OFFSET_NONE, |offset| offset.saturating_sub(kept)));
            fields.set_flags(buffer.flags() & gst::BufferFlags::DISCONT);
            fields.set_pts(buffer.pts());
            fields.set_dts(buffer.dts());
            self.source.push(written)
        }

        fn event(&self, event: gst::Event) -> bool {
            match event.view() {
                // The default handler forwards caps only between pads that proxy them.
                gst::EventView::Caps(_) => return self.source.push_event(event),
                gst::EventView::FlushStop(_) => self.retimer.lock().interrupt(),
                gst::EventView::Eos(_) => {
                    let rest = self.retimer.lock().finish();
                    // An error means that the pipeline ends.
                    let _pushed = self.source.push(gst::Buffer::from_mut_slice(rest));
                }
                _ => {}
            }
            gst::Pad::event_default(&self.sink, Some(&*self.obj()), event)
        }
    }

    #[glib::object_subclass]
    impl ObjectSubclass for TsRetime {
        const NAME: &'static str = "CommingleTsRetime";
        type Type = super::TsRetime;
        type ParentType = gst::Element;

        fn with_class(class: &Self::Class) -> Self {
            let template = |name| class.pad_template(name).expect("both are declared");
            let sink = gst::Pad::builder_from_template(&template("sink"))
                .chain_function(|_, parent, buffer| {
                    Self::catch_panic_pad_function(parent, || Err(gst::FlowError::Error), |this| this.chain(&buffer))
                })
                .event_function(|_, parent, event| {
                    Self::catch_panic_pad_function(parent, || false, |this| this.event(event))
                })
                .build();
            let source = gst::Pad::from_template(&template("src"));
            Self { sink, source, retimer: Mutex::default(), jumps: OnceLock::new() }
        }
    }

    impl ObjectImpl for TsRetime {
        fn constructed(&self) {
            self.parent_constructed();
            for pad in [&self.sink, &self.source] {
                self.obj().add_pad(pad).expect("it has no pads yet");
            }
        }
    }

    impl GstObjectImpl for TsRetime {}

    impl ElementImpl for TsRetime {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: OnceLock<gst::subclass::ElementMetadata> = OnceLock::new();
            Some(METADATA.get_or_init(|| {
                gst::subclass::ElementMetadata::new(
                    "MPEG-TS retimer",
                    "Codec/Parser",
                    "Removes jumps of the timestamps in MPEG-TS",
                    "commingle",
                )
            }))
        }

        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: OnceLock<Vec<gst::PadTemplate>> = OnceLock::new();
            TEMPLATES.get_or_init(|| {
                let caps = gst::Caps::builder("video/mpegts").field("systemstream", true).build();
                let pads = [("sink", gst::PadDirection::Sink), ("src", gst::PadDirection::Src)];
                let template = |(name, direction)| {
                    gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).expect("valid caps")
                };
                pads.into_iter().map(template).collect()
            })
        }

        fn change_state(&self, change: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
            if change == gst::StateChange::ReadyToPaused {
                *self.retimer.lock() = Retimer::default();
            }
            self.parent_change_state(change)
        }
    }
}
