//! Captions in Matroska: blocks of plain text with a duration, which is corrected when the file is finished.
//!
//! A block group ends with two fields of fixed size: the duration, and a Void element with the planned duration. So the
//! right duration can be computed from the file at any time, also after an interrupted correction.

use bytes::Bytes;

use super::{BLOCK_DURATION, VOID};

/// Bytes of the two fields.
pub(super) const DURATIONS: u64 = 12;
/// Heads of the fields: ID, and a size of four bytes.
const HEADS: [[u8; 2]; 2] = [[BLOCK_DURATION as u8, 0x84], [VOID as u8, 0x84]];

/// The text as players show it: they take some text in `<>` for markup of SubRip, and `{\` for that of ASS. A WORD
/// JOINER, which is invisible, prevents that.
pub(in crate::container) fn text_block(text: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(text.len());
    for (at, byte) in text.iter().enumerate() {
        out.push(*byte);
        let next = text.get(at + 1).copied().unwrap_or(0);
        if *byte == b'<' && (next.is_ascii_alphabetic() || next == b'/') || *byte == b'{' && next == b'\\' {
            out.extend("\u{2060}".as_bytes());
        }
    }
    out.into()
}

/// Appends the fields of a block that is planned to last this long, in milliseconds.
pub(super) fn put_durations(out: &mut Vec<u8>, planned: u64) {
    let planned = u32::try_from(planned).unwrap_or(u32::MAX).max(1);
    for head in HEADS {
        out.extend(head);
        out.extend(planned.to_be_bytes());
    }
}

/// The duration and the planned duration in fields that [`put_durations`] wrote.
pub(super) fn durations(fields: &[u8]) -> Option<(u32, u32)> {
    let (first, second) = fields.split_at_checked(6)?;
    let number = |field: &[u8], head: [u8; 2]| {
        let number = field.strip_prefix(&head)?;
        Some(u32::from_be_bytes(number.try_into().ok()?))
    };
    Some((number(first, HEADS[0])?, number(second, HEADS[1])?))
}

/// A caption in a file. Times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TextBlock {
    /// When it appears.
    pub(super) time: u64,
    /// Its duration in the file, and the planned one.
    pub(super) durations: (u32, u32),
    /// Offset of its fields in the file.
    pub(super) at: u64,
}

impl TextBlock {
    /// Offset and number to write, so that it ends at `end` at the latest; None if the file has it.
    pub(super) fn correction(&self, end: u64) -> Option<(u64, u32)> {
        let (written, planned) = self.durations;
        let left = u32::try_from(end.saturating_sub(self.time)).unwrap_or(u32::MAX);
        let right = planned.min(left).max(1);
        (right != written).then_some((self.at + 2, right))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_without_word_joiners_is_read_back_and_has_no_markup(text in "[<>/{}\\\\a-c\u{5d0}&\\-\n]{0,40}") {
            let block = text_block(text.as_bytes());
            let written = std::str::from_utf8(&block).expect("still UTF-8");
            prop_assert_eq!(written.replace('\u{2060}', ""), text);
            let has_markup = ["{\\", "</", "<b"].iter().any(|markup| written.contains(markup));
            prop_assert!(!has_markup, "{}", written);
        }

        #[test]
        fn a_caption_ends_as_planned_or_at_the_next_one(
            planned in 0..100_000_u64,
            time in 0..1_000_000_u64,
            after in 0..10_000_u64,
        ) {
            let mut fields = Vec::new();
            put_durations(&mut fields, planned);
            prop_assert_eq!(fields.len() as u64, DURATIONS);
            let read = durations(&fields).expect("just written");
            let block = TextBlock { time, durations: read, at: 0 };
            let right = planned.min(after).max(1) as u32;
            match block.correction(time + after) {
                Some((at, duration)) => {
                    prop_assert_eq!((at, duration), (2, right));
                    fields[2..6].copy_from_slice(&duration.to_be_bytes());
                    let read = durations(&fields).expect("still well formed");
                    let corrected = TextBlock { durations: read, ..block };
                    prop_assert_eq!(corrected.correction(time + after), None);
                }
                None => prop_assert_eq!(read.0, right),
            }
        }
    }
}
