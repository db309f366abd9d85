//! WebVTT (W3C): the text of captions with their times.
//!
//! Owns: the header of a file, cues and their escapes. Pure. Does not know: who speaks when, HLS. In: times, names and
//! texts; out: text.

use std::fmt::Write as _;
use std::time::Duration;

/// The beginning of every file.
pub const HEADER: &str = "WEBVTT\n\n";
/// The beginning of an HLS segment whose cue times are times of its media (RFC 8216 section 3.5).
pub const HLS_HEADER: &str = "WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:0,LOCAL:00:00:00.000\n\n";

/// What one person says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cue<'a> {
    /// The identifier: one line without `-->`. Players take cues of one identifier for the same.
    pub id: &'a str,
    /// When it appears.
    pub from: Duration,
    /// When it disappears.
    pub until: Duration,
    /// The name of the speaker.
    pub name: &'a str,
    /// What is said.
    pub text: &'a str,
}

impl Cue<'_> {
    /// Appends the cue. Players do not show the voice span, so the name is also part of the text.
    pub fn write(&self, out: &mut String) {
        let Self { id, from, until, name, text } = self;
        let (from, until) = (timestamp(*from), timestamp(*until));
        let (voice, name, text) = (annotation(name), escaped(name), escaped(text));
        let line = match (voice.as_str(), name.as_str()) {
            (_, "") => text,
            ("", name) => format!("{name}: {text}"),
            (voice, name) => format!("<v {voice}>{name}: {text}</v>"),
        };
        write!(out, "{id}\n{from} --> {until}\n{line}\n\n").expect("a String takes every write");
    }
}

/// A time with milliseconds, rounded down; hours may have more than two digits.
fn timestamp(at: Duration) -> String {
    let (seconds, millis) = (at.as_secs(), at.subsec_millis());
    format!("{:02}:{:02}:{:02}.{millis:03}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// A text as cue text of one line: `-->`, tags and character references have no meaning in it.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in words(text) {
        if !out.is_empty() {
            out.push(' ');
        }
        for character in word.chars() {
            match character {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                other => out.push(other),
            }
        }
    }
    out
}

/// A name for a voice span: shaka-player parses cues as XML, and takes letters and digits without spaces.
fn annotation(name: &str) -> String {
    let letters: String = name.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { ' ' }).collect();
    // A hyphen before the end of the tag could make an arrow.
    words(letters.trim_end_matches([' ', '-'])).collect::<Vec<_>>().join("\u{a0}")
}

/// The words of a text without control characters.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The cues of a file by the parser of the specification (section 6.1): identifier, times in milliseconds, payload.
    fn parsed(file: &str) -> Vec<(String, u64, u64, String)> {
        let mut blocks = file.split("\n\n");
        assert!(blocks.next().is_some_and(|header| header.starts_with("WEBVTT")));
        let millis = |text: &str| {
            let (rest, millis) = text.split_once('.').expect("milliseconds");
            let seconds = rest.split(':').fold(0, |sum, part| sum * 60 + part.parse::<u64>().expect("digits"));
            seconds * 1_000 + millis.parse::<u64>().expect("three digits")
        };
        blocks
            .filter(|block| !block.is_empty())
            .map(|block| {
                let lines: Vec<&str> = block.lines().collect();
                let [id, times, payload] = lines[..] else { panic!("three lines in {block:?}") };
                let (from, until) = times.split_once(" --> ").expect("an arrow");
                (id.to_owned(), millis(from), millis(until), payload.to_owned())
            })
            .collect()
    }

    /// The text that a player shows: without tags, and with character references replaced.
    fn shown(payload: &str) -> String {
        let mut out = String::new();
        let mut rest = payload;
        while let Some(at) = rest.find('<') {
            out.push_str(&rest[..at]);
            rest = &rest[at + rest[at..].find('>').expect("the end of the tag") + 1..];
        }
        out.push_str(rest);
        out.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    }

    fn spaced(text: &str) -> String {
        words(text).collect::<Vec<_>>().join(" ")
    }

    fn any_text() -> impl Strategy<Value = String> {
        let odd = prop::sample::select(vec![
            "-->",
            "&",
            "&amp;",
            "<",
            ">",
            "<b>",
            "</v>",
            "\n",
            "\n\n",
            "\r",
            "\0",
            "שלום",
            "مرحبا",
            "👩‍👩‍👧",
            "é",
            " ",
            "WEBVTT",
            "00:01",
            "{\\an8}",
            "\u{2028}",
        ]);
        prop::collection::vec(prop_oneof![odd.prop_map(str::to_owned), any::<String>()], 0..8)
            .prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn any_name_and_text_are_read_back(
            name in any_text(),
            text in any_text().prop_map(|text| format!("{text}x")),
            from in 0..400_000_000_u64,
            length in 1..60_000_u64,
        ) {
            let mut file = HEADER.to_owned();
            let (start, end) = (Duration::from_millis(from), Duration::from_millis(from + length));
            for id in ["1-p1", "2-p1"] {
                Cue { id, from: start, until: end, name: &name, text: &text }.write(&mut file);
            }
            let cues = parsed(&file);
            prop_assert_eq!(cues.len(), 2);
            let (id, at, until, payload) = &cues[1];
            prop_assert_eq!((id.as_str(), *at, *until), ("2-p1", from, from + length));
            let (name, text) = (spaced(&name), spaced(&text));
            let expected = if name.is_empty() { text } else { format!("{name}: {text}") };
            prop_assert_eq!(shown(payload), expected);
            prop_assert!(!payload.contains("-->"));
        }
    }

    #[test]
    fn a_cue_has_its_identifier_times_voice_and_text() {
        let mut out = HLS_HEADER.to_owned();
        let (from, until) = (Duration::from_millis(360_001_250), Duration::from_millis(360_007_250));
        Cue { id: "360001250-p1", from, until, name: "Ada \"A\" <x>", text: "1 < 2 & 3 -->\n\n4" }.write(&mut out);
        assert_eq!(
            out,
            "WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:0,LOCAL:00:00:00.000\n\n360001250-p1\n100:00:01.250 --> 100:00:07.250\n\
             <v Ada\u{a0}A\u{a0}x>Ada \"A\" &lt;x&gt;: 1 &lt; 2 &amp; 3 --&gt; 4</v>\n\n"
        );
    }
}
