//! Pipelines of filters: the elements of a file `filter_NAME.gst` between an appsrc and an appsink.
//!
//! Owns: the two ends, and the check of a pipeline. Does not know: frames; how the elements were chosen and their holes
//! filled ([`crate::filter`]). In: a [`FilterSpec`], or the default of a filter. Out: a [`Pipeline`] in state Null.

use gstreamer as gst;
use gstreamer::prelude::*;

use super::{Pipeline, PipelineError};
use crate::filter::{FilterSpec, Media};

/// The caps of the sound that filters process.
pub const SOUND_CAPS: &str = "audio/x-raw,format=F32LE,layout=interleaved,rate=48000,channels=1";
/// The caps of their pictures; AYUV has transparency.
const PICTURE_CAPS: &str = "video/x-raw,format={I420,AYUV}";
/// The caps of the pictures that a check sends.
const CHECKED_CAPS: &str = "video/x-raw,format=I420,width=320,height=180,framerate=0/1";

/// Makes the pipeline of a filter. The owner sets the caps of the appsrc for pictures, and bounds its queue.
///
/// # Errors
/// [`PipelineError`] names the file and the fault. GStreamer must be initialised.
pub fn pipeline(spec: &FilterSpec) -> Result<Pipeline, PipelineError> {
    let FilterSpec { name, media, pipeline, .. } = spec;
    let (source, sink) = match media {
        Media::Video => (String::new(), PICTURE_CAPS),
        Media::Audio => (format!("caps={SOUND_CAPS}"), SOUND_CAPS),
    };
    let description = format!(
        "appsrc name=in is-live=true format=time block=false max-buffers=0 max-bytes=0 max-time=0 {source} ! \
         {pipeline} ! \
         appsink name=out sync=false async=false max-buffers=1 drop=false enable-last-sample=false caps=\"{sink}\""
    );
    let file = format!("filter_{name}.gst");
    let made = Pipeline::parse(file.into(), &description, Vec::new())?;
    if made.out.is::<gstreamer_app::AppSink>() {
        return Ok(made);
    }
    Err(PipelineError::End { file: made.file.clone(), end: "out", kind: "appsink" })
}

/// Whether a filter can be made, and its elements accept the caps of their media.
///
/// # Errors
/// As [`pipeline`], and [`PipelineError::Start`] if the caps are refused.
pub fn check(spec: &FilterSpec) -> Result<(), PipelineError> {
    let made = pipeline(spec)?;
    if spec.media == Media::Video {
        let caps: gst::Caps = CHECKED_CAPS.parse().expect("constant");
        made.source().set_caps(Some(&caps));
    }
    let refused = |reason: &str| PipelineError::Start { file: made.file.clone(), reason: reason.into() };
    made.pipeline.set_state(gst::State::Ready).map_err(|_| refused("an element does not start"))?;
    // Two elements whose caps cannot agree have no common caps at the appsrc.
    let pad = made.source().static_pad("src").expect("every appsrc has a source pad");
    let wanted: gst::Caps =
        if spec.media == Media::Video { CHECKED_CAPS } else { SOUND_CAPS }.parse().expect("constant");
    let accepted = pad.peer_query_caps(Some(&wanted));
    if accepted.is_empty() {
        return Err(refused(&format!("its elements do not take {wanted} and return raw media")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Catalog;
    use crate::pipeline::elements;

    fn spec(pipeline: &str, media: Media) -> FilterSpec {
        FilterSpec { serial: 1, name: "test".into(), media, pipeline: pipeline.into(), image: None }
    }

    #[test]
    fn shipped_filters_can_be_made_and_their_elements_are_in_the_table_of_packages() {
        gst::init().expect("GStreamer is installed");
        for filter in Catalog::shipped().defaults() {
            let spec = filter.spec(1);
            assert_eq!(check(&spec).map_err(|error| error.to_string()), Ok(()), "{}", filter.name());
            for element in elements::named(&spec.pipeline) {
                assert!(elements::package(element).is_some(), "{element} is in no package of pipeline/elements.rs");
            }
        }
    }

    #[test]
    fn a_check_finds_missing_elements_wrong_syntax_and_wrong_media() {
        gst::init().expect("GStreamer is installed");
        let error = |pipeline: &str, media| check(&spec(pipeline, media)).expect_err(pipeline).to_string();
        assert!(error("nosuchelement", Media::Video).contains("filter_test.gst"));
        assert!(error("identity nosuchproperty=1", Media::Video).contains("nosuchproperty"));
        // These cannot be linked.
        for (pipeline, media) in [
            ("volume volume=0.5", Media::Video),
            ("videobalance", Media::Audio),
            ("videoconvert ! video/x-raw,format=RGB", Media::Video),
        ] {
            assert!(error(pipeline, media).contains("filter_test.gst"));
        }
        assert!(error("jpegdec", Media::Video).contains("do not take video/x-raw"));
        assert!(check(&spec("volume volume=0.5", Media::Audio)).is_ok());
        assert!(check(&spec("videoconvert ! video/x-raw,format=RGB ! videoconvert", Media::Video)).is_ok());
    }
}
