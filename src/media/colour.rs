//! Colours with transparency as the API writes them: `#rrggbb` and `#rrggbbaa`.
//!
//! Owns: [`Colour`] and its text. Does not know: colour spaces of video.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Red, green, blue and opacity, 0 to 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Colour(pub [u8; 4]);

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [r, g, b, alpha] = self.0;
        write!(f, "#{r:02x}{g:02x}{b:02x}")?;
        if alpha < 255 { write!(f, "{alpha:02x}") } else { Ok(()) }
    }
}

impl FromStr for Colour {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let digits = text.strip_prefix('#').filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
            let value = u32::from_str_radix(digits, 16).ok()?;
            match digits.len() {
                6 => Some((value << 8) | 0xff),
                8 => Some(value),
                _ => None,
            }
        };
        let shown: String = text.chars().take(20).collect();
        read()
            .map(|value| Self(value.to_be_bytes()))
            .ok_or_else(|| format!("`{shown}` is no colour: write #rrggbb, or #rrggbbaa with an opacity"))
    }
}

impl Serialize for Colour {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Colour {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_read_and_written_as_hexadecimal_text() {
        for (text, colour) in [("#ff8000", [255, 128, 0, 255]), ("#0a0d10b8", [10, 13, 16, 184])] {
            let read: Colour = text.parse().expect(text);
            assert_eq!((read, read.to_string().as_str()), (Colour(colour), text));
        }
        assert_eq!("#FFFFFFFF".parse::<Colour>().expect("upper case").to_string(), "#ffffff");
        for bad in ["", "#", "#fff", "ff8000", "#ff80000", "#ff800g", "#+f8000", "red", "#ff8000ff0"] {
            assert!(bad.parse::<Colour>().is_err(), "{bad:?} was taken");
        }
    }
}
