//! A decoder that aborts the process with its first frame.

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;

/// Replaces a decoder of this process, whose plugin must not be loaded: it would register its own again.
pub fn replace(element: &str) {
    gst::init().expect("GStreamer is installed");
    gst::Element::register(None, element, gst::Rank::NONE, Aborts::static_type()).expect("not registered before");
}

glib::wrapper! {
    /// The element.
    pub struct Aborts(ObjectSubclass<imp::Aborts>) @extends gst::Element, gst::Object;
}

mod imp {
    use std::sync::LazyLock;

    use super::*;

    #[derive(Default)]
    pub struct Aborts;

    #[glib::object_subclass]
    impl ObjectSubclass for Aborts {
        const NAME: &'static str = "DecoderThatAborts";
        type Type = super::Aborts;
        type ParentType = gst::Element;
    }

    impl ObjectImpl for Aborts {
        /// The properties that pipelines of decoders set.
        fn properties() -> &'static [glib::ParamSpec] {
            static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
                let number = |name: &str| glib::ParamSpecInt::builder(name).minimum(-1).maximum(64).build();
                vec![number("threads"), number("max-errors"), glib::ParamSpecBoolean::builder("qos").build()]
            });
            &PROPERTIES
        }

        fn set_property(&self, _id: usize, _value: &glib::Value, _specification: &glib::ParamSpec) {}

        fn constructed(&self) {
            self.parent_constructed();
            let element = self.obj();
            let template = |name: &str| element.pad_template(name).expect("declared below");
            let sink = gst::Pad::builder_from_template(&template("sink"))
                .chain_function(|_, _, _| std::process::abort())
                .build();
            element.add_pad(&sink).expect("the first of its name");
            element.add_pad(&gst::Pad::from_template(&template("src"))).expect("the first of its name");
        }
    }

    impl GstObjectImpl for Aborts {}

    impl ElementImpl for Aborts {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
                gst::subclass::ElementMetadata::new("Decoder that aborts", "Decoder/Video", "Aborts", "commingle")
            });
            Some(&METADATA)
        }

        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
                let template = |name: &str, direction, caps: &gst::Caps| {
                    gst::PadTemplate::new(name, direction, gst::PadPresence::Always, caps).expect("valid")
                };
                let raw: gst::Caps = "video/x-raw,format=I420".parse().expect("constant");
                vec![
                    template("sink", gst::PadDirection::Sink, &gst::Caps::new_any()),
                    template("src", gst::PadDirection::Src, &raw),
                ]
            });
            &TEMPLATES
        }
    }
}
