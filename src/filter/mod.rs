//! Filters of pictures and sound that operators offer and moderators apply. Plain data and its checks.
//!
//! Owns: [`Declaration`], a file `filter_NAME.gst` with its declared parameters; the [`Catalog`] of those that are
//! allowed; [`FilterRequest`] (what is asked for) and [`Filter`] (with all values); [`FilterSpec`] (what the mixer
//! runs). Does not know: GStreamer, which images and sources exist, who may apply a filter. In: texts of files, JSON of
//! the API. Out: checked values, and pipelines in gst-launch syntax whose holes are filled with numbers and with words
//! of the file, so that no text from the network reaches the parser.

mod declaration;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Map;

pub use self::declaration::{Declaration, Media, Parameter, Range};
use crate::media::{Kind, SourceKind};

/// Most filters of a participant.
pub const FILTERS_MAX: usize = 4;
/// The files that are part of the program.
pub const SHIPPED: [(&str, &str); 3] = [
    ("blur", include_str!("../../pipelines/filter_blur.gst")),
    ("chroma_key", include_str!("../../pipelines/filter_chroma_key.gst")),
    ("grayscale", include_str!("../../pipelines/filter_grayscale.gst")),
];

/// The filters that the configuration allows, by name.
#[derive(Debug, Clone, Default)]
pub struct Catalog(BTreeMap<String, Arc<Declaration>>);

/// A request for a filter: its name, the source, and the values of parameters. Absent ones have their default.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct FilterRequest {
    /// The name in the catalog.
    pub name: String,
    /// The source of the participant; by default the camera, or the microphone for a filter of audio.
    #[serde(default)]
    pub source: Option<SourceKind>,
    /// The values.
    #[serde(flatten)]
    pub values: Map<String, serde_json::Value>,
}

/// The value of a parameter.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A whole number.
    Integer(i64),
    /// A number.
    Number(f64),
    /// On or off.
    Boolean(bool),
    /// One of the words of the file.
    Word(String),
    /// The name of an image, or None for no image.
    Image(Option<String>),
}

/// A filter with the values of all its parameters.
#[derive(Debug, Clone)]
pub struct Filter {
    declaration: Arc<Declaration>,
    /// The source that it filters.
    pub source: SourceKind,
    /// The values by parameter.
    pub values: BTreeMap<String, Value>,
}

/// A filter as the mixer runs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterSpec {
    /// Its number; used once in a room.
    pub serial: u32,
    /// Its name, for logs.
    pub name: String,
    /// What it processes.
    pub media: Media,
    /// The elements in gst-launch syntax, from raw media to raw media.
    pub pipeline: String,
    /// The name of the image that is shown where its pictures are transparent.
    pub image: Option<String>,
}

/// Why a filter was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Removal {
    /// It cannot be started: for example, an element is not installed.
    Unavailable,
    /// It has reported an error.
    Failed,
    /// It takes more CPU time than is allowed, or lets less than half of the frames through.
    Slow,
    /// It lets no frame through.
    Stalled,
}

impl Catalog {
    /// The filters of this name, each with the text of its file.
    ///
    /// # Errors
    /// One text per invalid file; it begins with the file's name.
    pub fn new(files: impl IntoIterator<Item = (String, String)>) -> Result<Self, Vec<String>> {
        let (mut filters, mut errors) = (BTreeMap::new(), Vec::new());
        for (name, text) in files {
            match Declaration::parse(&name, &text) {
                Ok(declaration) => drop(filters.insert(name, Arc::new(declaration))),
                Err(error) => errors.push(format!("filter_{name}.gst: {error}")),
            }
        }
        if errors.is_empty() { Ok(Self(filters)) } else { Err(errors) }
    }

    /// The filters that are part of the program.
    pub fn shipped() -> Self {
        Self::new(SHIPPED.map(|(name, text)| (name.to_owned(), text.to_owned()))).expect("a test parses them")
    }

    /// Each filter with the default of its parameters.
    pub fn defaults(&self) -> impl Iterator<Item = Filter> {
        self.0.keys().map(|name| {
            let request = FilterRequest { name: name.clone(), source: None, values: Map::new() };
            self.check(&request).expect("every parameter has a valid default")
        })
    }

    /// Checks a request.
    ///
    /// # Errors
    /// A text that names the known filters, the parameters of the filter, or the range of a parameter.
    pub fn check(&self, request: &FilterRequest) -> Result<Filter, String> {
        let FilterRequest { name, source, values } = request;
        let declaration = self.0.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            match known[..] {
                [] => format!("there is no filter `{name}`: the configuration allows none (filters.allow)"),
                _ => format!("there is no filter `{name}`; the filters are {}", known.join(", ")),
            }
        })?;
        let (usual, kind, possible) = match declaration.media {
            Media::Video => (SourceKind::Camera, Kind::Video, "camera or screen"),
            Media::Audio => (SourceKind::Microphone, Kind::Audio, "microphone"),
        };
        let source = source.unwrap_or(usual);
        if source.kind() != kind {
            return Err(format!("the filter `{name}` is for {possible}: set `source` to that, or leave it out"));
        }
        let parameters = &declaration.parameters;
        if let Some(unknown) = values.keys().find(|key| parameters.iter().all(|parameter| parameter.name != **key)) {
            let known: Vec<&str> = parameters.iter().map(|parameter| parameter.name.as_str()).collect();
            let known = if known.is_empty() { "it has none".to_owned() } else { known.join(", ") };
            return Err(format!("the filter `{name}` has no parameter `{unknown}`; its parameters: {known}"));
        }
        let value = |parameter: &Parameter| match values.get(&parameter.name) {
            Some(value) => parameter.check(value).map_err(|error| format!("the filter `{name}`: {error}")),
            None => Ok(parameter.range.default()),
        };
        let values = parameters.iter().map(|parameter| Ok((parameter.name.clone(), value(parameter)?)));
        Ok(Filter { declaration: declaration.clone(), source, values: values.collect::<Result<_, String>>()? })
    }
}

impl Filter {
    /// The name of the filter.
    pub fn name(&self) -> &str {
        &self.declaration.name
    }

    fn media(&self) -> Media {
        self.declaration.media
    }

    /// The name of its image.
    pub fn image(&self) -> Option<&str> {
        self.values.values().find_map(|value| match value {
            Value::Image(image) => image.as_deref(),
            _ => None,
        })
    }

    /// Forgets its image.
    pub fn remove_image(&mut self) {
        for value in self.values.values_mut() {
            if let Value::Image(image) = value {
                *image = None;
            }
        }
    }

    /// What the mixer runs.
    pub fn spec(&self, serial: u32) -> FilterSpec {
        FilterSpec {
            serial,
            name: self.name().to_owned(),
            media: self.media(),
            pipeline: self.declaration.pipeline(&self.values),
            image: self.image().map(str::to_owned),
        }
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        (self.name(), self.source, &self.values) == (other.name(), other.source, &other.values)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(json: serde_json::Value) -> Result<Filter, String> {
        let request = serde_json::from_value(json).expect("a request");
        Catalog::shipped().check(&request)
    }

    #[test]
    fn a_request_gets_the_defaults_of_absent_parameters() {
        let blur = check(json!({"name": "blur", "strength": 8})).expect("valid");
        assert_eq!((blur.name(), blur.source), ("blur", SourceKind::Camera));
        assert_eq!(blur.values["strength"], Value::Number(8.0));
        assert!(blur.spec(1).pipeline.contains("sigma=8 "), "{}", blur.spec(1).pipeline);
        let key = check(json!({"name": "chroma_key", "source": "screen", "image": "beach"})).expect("valid");
        assert_eq!((key.image(), key.source), (Some("beach"), SourceKind::Screen));
        assert!(key.spec(2).pipeline.starts_with("alpha method=green angle=20 noise-level=2"), "{:?}", key.spec(2));
    }

    #[test]
    fn a_refusal_names_what_is_known() {
        let cases = [
            (json!({"name": "glow"}), "blur, chroma_key, grayscale"),
            (json!({"name": "blur", "radius": 3}), "strength"),
            (json!({"name": "blur", "strength": 11}), "0.5 to 10"),
            (json!({"name": "blur", "strength": "8 ! filesrc"}), "0.5 to 10"),
            (json!({"name": "chroma_key", "color": "red"}), "green, blue"),
            (json!({"name": "chroma_key", "image": 7}), "name of an image"),
            (json!({"name": "blur", "source": "microphone"}), "camera or screen"),
        ];
        for (request, named) in cases {
            let error = check(request.clone()).expect_err("refused");
            assert!(error.contains(named), "{request}: {error}");
        }
        let none = Catalog::default().check(&serde_json::from_value(json!({"name": "blur"})).expect("a request"));
        assert!(none.expect_err("none is allowed").contains("filters.allow"));
    }

    #[test]
    fn every_file_with_an_error_is_reported() {
        let files = [("a", "identity"), ("b", "# B.\n# media: video\nidentity"), ("c", "")];
        let errors = Catalog::new(files.map(|(name, text)| (name.to_owned(), text.to_owned()))).expect_err("two");
        assert_eq!(errors.len(), 2);
        assert!(errors[0].starts_with("filter_a.gst: ") && errors[1].starts_with("filter_c.gst: "), "{errors:?}");
    }
}
