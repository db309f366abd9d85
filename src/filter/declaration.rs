//! Files of filters: their pipeline in gst-launch syntax, and the parameters that their comments declare.
//!
//! Owns: the syntax of declarations, the ranges of parameters, the filling of holes. Does not know: which filters are
//! allowed, GStreamer. In: the text of a file. Out: a [`Declaration`], or what is wrong with the file.
//!
//! `docs/filters.md` describes the syntax:
//!
//! ```text
//! # Blurs the picture.
//! # media: video
//! # parameter strength: number 0.5 to 10, default 4; standard deviation
//! gaussianblur sigma={strength}
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Value;

/// Longest file of a filter, in bytes.
const FILE_MAX: usize = 16 * 1024;
/// Longest name of a filter, a parameter or a word.
const NAME_MAX: usize = 32;
/// Names that documents of filters use themselves.
const RESERVED: [&str; 3] = ["name", "source", "cpu_ms"];

/// What a filter processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Media {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
}

/// A filter as its file declares it.
#[derive(Debug, Clone, PartialEq)]
pub struct Declaration {
    /// Its name.
    pub name: String,
    /// What it processes.
    pub media: Media,
    /// Its parameters in the order of the file.
    pub parameters: Vec<Parameter>,
    /// The elements, with holes.
    text: String,
}

/// A parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its values.
    pub range: Range,
}

/// The type, the range and the default of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Range {
    /// A whole number within the bounds.
    Integer {
        /// The smallest.
        min: i64,
        /// The largest.
        max: i64,
        /// The default.
        default: i64,
    },
    /// A number within the bounds.
    Number {
        /// The smallest.
        min: f64,
        /// The largest.
        max: f64,
        /// The default.
        default: f64,
    },
    /// True or false.
    Boolean(bool),
    /// One of these words, and the default.
    Word(Vec<String>, String),
    /// The name of an uploaded image; no image by default.
    Image,
}

impl Declaration {
    /// Reads the file of a filter.
    ///
    /// # Errors
    /// What is wrong, with the line.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        if !is_name(name) {
            return Err(format!("`{name}` is no name of a filter: write a-z, 0-9 and _, at most {NAME_MAX}"));
        }
        if text.len() > FILE_MAX {
            return Err(format!("the file has more than {FILE_MAX} bytes"));
        }
        let (mut media, mut parameters, mut lines) = (None, Vec::<Parameter>::new(), Vec::new());
        for (number, line) in (1..).zip(text.lines()) {
            let at = |error: String| format!("line {number}: {error}");
            let Some(comment) = line.strip_prefix('#') else {
                lines.push(line);
                continue;
            };
            if let Some(text) = comment.trim().strip_prefix("media:") {
                media = Some(match text.trim() {
                    "video" => Media::Video,
                    "audio" => Media::Audio,
                    other => return Err(at(format!("media is `{other}`: it is video or audio"))),
                });
            } else if let Some(text) = comment.trim().strip_prefix("parameter ") {
                let parameter = Parameter::parse(text).map_err(at)?;
                if parameters.iter().any(|known| known.name == parameter.name) {
                    return Err(at(format!("the parameter `{}` is declared twice", parameter.name)));
                }
                parameters.push(parameter);
            }
        }
        let media = media.ok_or("add the line `# media: video` or `# media: audio`")?;
        let text = lines.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
        if text.is_empty() {
            return Err("it has no elements".into());
        }
        let images = parameters.iter().filter(|parameter| parameter.range == Range::Image).count();
        if images > 1 || (images == 1 && media == Media::Audio) {
            return Err("a filter of video has at most one parameter of the type image, and one of audio none".into());
        }
        let declaration = Self { name: name.to_owned(), media, parameters, text };
        declaration.check_holes()?;
        Ok(declaration)
    }

    fn check_holes(&self) -> Result<(), String> {
        let mut used = BTreeSet::new();
        fill(&self.text, |hole| {
            used.insert(hole.to_owned());
            String::new()
        });
        let fills = |parameter: &&Parameter| parameter.range != Range::Image;
        let known: BTreeSet<String> =
            self.parameters.iter().filter(fills).map(|parameter| parameter.name.clone()).collect();
        if let Some(hole) = used.difference(&known).next() {
            return Err(format!("`{{{hole}}}` is no declared parameter with a value"));
        }
        match known.difference(&used).next() {
            Some(unused) => Err(format!("the parameter `{unused}` is not used: write `{{{unused}}}` in the pipeline")),
            None => Ok(()),
        }
    }

    /// The elements with these values.
    pub(super) fn pipeline(&self, values: &BTreeMap<String, Value>) -> String {
        fill(&self.text, |hole| match values.get(hole) {
            Some(Value::Integer(value)) => value.to_string(),
            Some(Value::Number(value)) => value.to_string(),
            Some(Value::Boolean(value)) => value.to_string(),
            Some(Value::Word(word)) => word.clone(),
            Some(Value::Image(_)) | None => String::new(),
        })
    }
}

/// Replaces each `{name}`; other braces, as in lists of caps, remain.
fn fill(text: &str, mut value: impl FnMut(&str) -> String) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        match after.split_once('}') {
            Some((hole, after)) if is_name(hole) => {
                filled.push_str(&value(hole));
                rest = after;
            }
            _ => {
                filled.push('{');
                rest = after;
            }
        }
    }
    filled + rest
}

fn is_name(text: &str) -> bool {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.len() <= NAME_MAX && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(letters)
}

impl Parameter {
    /// Reads `NAME: TYPE, default VALUE; description`.
    fn parse(text: &str) -> Result<Self, String> {
        let (declared, _description) = text.split_once(';').unwrap_or((text, ""));
        let (name, declared) = declared.split_once(':').ok_or("write `# parameter NAME: TYPE, default VALUE`")?;
        let name = name.trim();
        if !is_name(name) || RESERVED.contains(&name) {
            return Err(format!("`{name}` is no name of a parameter: write a-z, 0-9 and _, at most {NAME_MAX}"));
        }
        let (kind, default) = match declared.split_once(',') {
            Some((kind, default)) => {
                let value = default.trim().strip_prefix("default ");
                (kind.trim(), Some(value.ok_or("after the comma comes `default VALUE`")?.trim()))
            }
            None => (declared.trim(), None),
        };
        Ok(Self { name: name.to_owned(), range: Range::parse(kind, default)? })
    }

    /// Checks a value of a request.
    pub(super) fn check(&self, value: &serde_json::Value) -> Result<Value, String> {
        let name = &self.name;
        match &self.range {
            Range::Integer { min, max, .. } => {
                let found = value.as_i64().filter(|value| (min..=max).contains(&value)).map(Value::Integer);
                found.ok_or_else(|| format!("{name} is {value}: it is a whole number from {min} to {max}"))
            }
            Range::Number { min, max, .. } => {
                let found = value.as_f64().filter(|value| (min..=max).contains(&value)).map(Value::Number);
                found.ok_or_else(|| format!("{name} is {value}: it is a number, {min} to {max}"))
            }
            Range::Boolean(_) => {
                let found = value.as_bool().map(Value::Boolean);
                found.ok_or_else(|| format!("{name} is {value}: it is true or false"))
            }
            Range::Word(words, _) => {
                let found = value.as_str().filter(|value| words.iter().any(|word| word == value));
                let found = found.map(|word| Value::Word(word.to_owned()));
                found.ok_or_else(|| format!("{name} is {value}: it is one of {}", words.join(", ")))
            }
            Range::Image => match value {
                serde_json::Value::Null => Ok(Value::Image(None)),
                serde_json::Value::String(image) => Ok(Value::Image(Some(image.clone()))),
                _ => Err(format!("{name} is {value}: it is the name of an image of the room, or null")),
            },
        }
    }
}

impl Range {
    fn parse(kind: &str, default: Option<&str>) -> Result<Self, String> {
        let (name, bounds) = kind.split_once(' ').unwrap_or((kind, ""));
        let wanted = || default.ok_or_else(|| format!("the type {name} needs a default: add `, default VALUE`"));
        let outside = || "the default is outside the range".to_owned();
        match name {
            "integer" => {
                let (min, max) = bounds_of::<i64>(bounds)?;
                let default = number(wanted()?)?;
                if (min..=max).contains(&default) { Ok(Self::Integer { min, max, default }) } else { Err(outside()) }
            }
            "number" => {
                let (min, max) = bounds_of::<f64>(bounds)?;
                let default = number(wanted()?)?;
                if (min..=max).contains(&default) { Ok(Self::Number { min, max, default }) } else { Err(outside()) }
            }
            "boolean" => match wanted()? {
                "true" => Ok(Self::Boolean(true)),
                "false" => Ok(Self::Boolean(false)),
                other => Err(format!("the default is `{other}`: it is true or false")),
            },
            "one" => {
                let words = bounds.strip_prefix("of ").ok_or("write `one of A|B`")?;
                let words: Vec<String> = words.split('|').map(|word| word.trim().to_owned()).collect();
                let is_word = |word: &String| {
                    let letters = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                    !word.is_empty() && word.len() <= NAME_MAX && word.chars().all(letters)
                };
                if let Some(word) = words.iter().find(|word| !is_word(word)) {
                    return Err(format!("`{word}` is no word: write letters, digits, _ and -, at most {NAME_MAX}"));
                }
                let default = wanted()?.to_owned();
                if words.contains(&default) { Ok(Self::Word(words, default)) } else { Err(outside()) }
            }
            "image" if default.is_none() => Ok(Self::Image),
            "image" => Err("a parameter of the type image has no default".into()),
            _ => Err(format!("`{name}` is no type: the types are integer, number, boolean, one of, image")),
        }
    }

    pub(super) fn default(&self) -> Value {
        match self {
            Self::Integer { default, .. } => Value::Integer(*default),
            Self::Number { default, .. } => Value::Number(*default),
            Self::Boolean(default) => Value::Boolean(*default),
            Self::Word(_, default) => Value::Word(default.clone()),
            Self::Image => Value::Image(None),
        }
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| format!("`{text}` is no number of this type"))
}

/// Reads `MIN to MAX`.
fn bounds_of<T: std::str::FromStr + PartialOrd>(text: &str) -> Result<(T, T), String> {
    let (min, max) = text.split_once(" to ").ok_or("write the range as `MIN to MAX`")?;
    let (min, max) = (number(min)?, number(max)?);
    // Also false for NaN.
    if min <= max { Ok((min, max)) } else { Err("the range is empty: write `MIN to MAX`".into()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parse(lines: &str) -> Result<Declaration, String> {
        Declaration::parse("test", &format!("# A test.\n# media: video\n{lines}"))
    }

    #[test]
    fn all_types_are_read() {
        let file = "# parameter a: integer -3 to 3, default 0; a number\n# parameter b: number 0.5 to 1e3, default 2\n\
                    # parameter c: boolean, default true\n# parameter d: one of x-1|y, default y\n\
                    # parameter e: image\n\
                    one a={a} b={b}\n! two c={c} d={d}\n! video/x-raw,format={ I420, AYUV }";
        let declaration = parse(file).expect("valid");
        let ranges: Vec<&Range> = declaration.parameters.iter().map(|parameter| &parameter.range).collect();
        assert_eq!(*ranges[0], Range::Integer { min: -3, max: 3, default: 0 });
        assert_eq!(*ranges[1], Range::Number { min: 0.5, max: 1000.0, default: 2.0 });
        assert_eq!(*ranges[3], Range::Word(vec!["x-1".into(), "y".into()], "y".into()));
        let values = declaration.parameters.iter().map(|p| (p.name.clone(), p.range.default())).collect();
        assert_eq!(declaration.pipeline(&values), "one a=0 b=2 ! two c=true d=y ! video/x-raw,format={ I420, AYUV }");
        assert!(Declaration::parse("t", "# media: audio\nvolume").is_ok_and(|file| file.media == Media::Audio));
    }

    #[test]
    fn errors_of_a_file_name_the_line_and_the_fix() {
        let cases = [
            ("# parameter a: integer 1 to 2\nx a={a}", "line 3: the type integer needs a default"),
            ("# parameter a: integer 2 to 1, default 1\nx a={a}", "range is empty"),
            ("# parameter a: number 1 to NaN, default 1\nx a={a}", "range is empty"),
            ("# parameter a: integer 1 to 2, default 3\nx a={a}", "outside the range"),
            ("# parameter a: float 1 to 2, default 1\nx a={a}", "the types are integer"),
            ("# parameter a: one of b|c d, default b\nx a={a}", "`c d` is no word"),
            ("# parameter a: image, default b\nx", "no default"),
            ("# parameter A: boolean, default true\nx a={a}", "`A` is no name"),
            ("# parameter source: boolean, default true\nx a={source}", "`source` is no name"),
            ("# parameter a: boolean, default true\nx", "not used"),
            ("x a={a}", "no declared parameter"),
            ("# parameter a: image\n# parameter b: image\nx", "at most one"),
            ("# parameter a: boolean, default true\n# parameter a: boolean, default true\nx a={a}", "twice"),
            ("# nothing", "no elements"),
        ];
        for (file, expected) in cases {
            let error = parse(file).expect_err("invalid");
            assert!(error.contains(expected), "{file}: {error}");
        }
        assert!(Declaration::parse("test", "identity").expect_err("no media").contains("# media: video"));
        assert!(Declaration::parse("../x", "# media: video\nidentity").is_err());
    }

    proptest! {
        #[test]
        fn no_request_fills_a_hole_with_other_text_than_a_value_of_its_range(text in ".*", number in any::<f64>()) {
            let file = "# parameter a: number -5 to 5, default 0\n# parameter b: one of x|y, default x\ne a={a} b={b}";
            let declaration = parse(file).expect("valid");
            for value in [json!(text), json!(number), json!([text]), json!({"a": number})] {
                for parameter in &declaration.parameters {
                    let Ok(value) = parameter.check(&value) else { continue };
                    let is_inside = match value {
                        Value::Number(value) => (-5.0..=5.0).contains(&value),
                        Value::Word(word) => word == "x" || word == "y",
                        _ => false,
                    };
                    prop_assert!(is_inside);
                }
            }
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".*") {
            let _read = Declaration::parse("test", &text);
            let _read = parse(&format!("# parameter {text}\nx"));
        }
    }
}
