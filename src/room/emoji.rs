//! An emoji: what a reaction consists of.
//!
//! Owns: the grammar of one emoji (UTS #51, "EBNF and Regex"). Does not know: fonts, reactions. In: untrusted text. Out:
//! an [`Emoji`] in its form with colours: a sign that is a letter by default gets a variation selector.

use icu_properties::CodePointSetData;
use icu_properties::props::{Emoji as IsEmoji, EmojiModifier, EmojiPresentation, RegionalIndicator};
use serde::{Serialize, Serializer};
use unicode_segmentation::UnicodeSegmentation;

/// Most code points of an emoji: a kiss of two people, each with a tone of skin.
const CODE_POINTS_MAX: usize = 10;
/// Variation selector 16: the character before it has colours.
const COLOURED: char = '\u{fe0f}';
const KEYCAP: char = '\u{20e3}';
const JOINER: char = '\u{200d}';
/// Ends the tags of a flag of a region.
const TAGS_END: char = '\u{e007f}';

/// One emoji.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Emoji(String);

/// A text that is not one emoji.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`emoji` must be one emoji, for example \"👏\"")]
pub struct EmojiError;

impl Emoji {
    /// Reads an emoji.
    ///
    /// # Errors
    /// The text is empty, longer than an emoji, or something else.
    pub fn new(text: &str) -> Result<Self, EmojiError> {
        let chars: Vec<char> = text.chars().take(CODE_POINTS_MAX + 1).collect();
        if chars.len() > CODE_POINTS_MAX || text.graphemes(true).nth(1).is_some() {
            return Err(EmojiError);
        }
        match chars.as_slice() {
            [first] if first.is_ascii() || is::<RegionalIndicator>(*first) => Err(EmojiError),
            [only] if is::<IsEmoji>(*only) && !is::<EmojiPresentation>(*only) => Ok(Self(format!("{only}{COLOURED}"))),
            [first, ..] if first.is_ascii() && chars.last() != Some(&KEYCAP) => Err(EmojiError),
            _ if is_emoji(&chars) => Ok(Self(text.to_owned())),
            _ => Err(EmojiError),
        }
    }

    /// The emoji as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for Emoji {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

fn is<P: icu_properties::props::BinaryProperty>(c: char) -> bool {
    CodePointSetData::new::<P>().contains(c)
}

/// Elements that are joined.
fn is_emoji(chars: &[char]) -> bool {
    let mut rest = chars;
    loop {
        rest = match element(rest) {
            Some([]) => return true,
            Some([JOINER, next @ ..]) => next,
            _ => return false,
        };
    }
}

/// What follows the first element; None if there is none.
fn element(chars: &[char]) -> Option<&[char]> {
    match chars {
        [first, second, rest @ ..] if is::<RegionalIndicator>(*first) && is::<RegionalIndicator>(*second) => Some(rest),
        [first, ..] if !is::<IsEmoji>(*first) || is::<RegionalIndicator>(*first) => None,
        [_, COLOURED, KEYCAP, rest @ ..] | [_, COLOURED, rest @ ..] => Some(rest),
        [_, modifier, rest @ ..] if is::<EmojiModifier>(*modifier) => Some(rest),
        [_, rest @ ..] => {
            let tags = rest.iter().take_while(|c| ('\u{e0020}'..='\u{e007e}').contains(*c)).count();
            match rest.split_at(tags) {
                (_, [TAGS_END, rest @ ..]) if tags > 0 => Some(rest),
                _ => Some(rest),
            }
        }
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn emoji_of_each_form_are_taken() {
        for text in ["👏", "🎉", "😀", "❤️", "👍🏽", "👩‍🚀", "👨‍👩‍👧‍👦", "👩🏽‍❤️‍💋‍👨🏿", "🇫🇷", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "1️⃣", "#️⃣", "🏳️‍🌈", "✋", "☺️"]
        {
            assert_eq!(Emoji::new(text).as_ref().map(Emoji::as_str), Ok(text));
        }
        assert_eq!(Emoji::new("❤").as_ref().map(Emoji::as_str), Ok("❤\u{fe0f}"), "in colours");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            " ",
            "a",
            "1",
            "#",
            "1\u{fe0f}",
            "ok",
            "👏👏",
            "👏 ",
            " 👏",
            "👏a",
            "🇫",
            "🇫🇷🇩🇪",
            "é",
            "<",
            "\u{200d}",
            "\u{fe0f}",
            "👩\u{200d}",
            "👏\u{301}",
            "a\u{fe0f}",
            "👏\n",
            "\u{e007f}",
            "👨\u{200d}a",
        ] {
            assert_eq!(Emoji::new(text), Err(EmojiError), "{text:?}");
        }
        assert_eq!(Emoji::new(&"👩\u{200d}".repeat(40)), Err(EmojiError), "longer than an emoji");
    }

    proptest! {
        #[test]
        fn what_is_taken_is_short_and_one_cluster(text in "[a👏🇫🇷\u{200d}\u{fe0f}\u{20e3}1🏽🏴\u{e0067}\u{e007f}]{0,14}") {
            if let Ok(emoji) = Emoji::new(&text) {
                prop_assert_eq!(emoji.as_str().graphemes(true).count(), 1);
                prop_assert!(emoji.as_str().chars().count() <= CODE_POINTS_MAX);
                prop_assert!(!emoji.as_str().contains('a'));
                prop_assert_eq!(Emoji::new(emoji.as_str()), Ok(emoji.clone()), "taken again");
            }
        }
    }
}
