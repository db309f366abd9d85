//! Validation of AMF0 message bodies (Adobe's specification of AMF0), before `rml_rtmp` parses them.
//!
//! Owns: limits of nesting and of the number of values. Does not know: commands. In: untrusted bytes. Out: the number
//! of values, or None.

use bytes::Buf;

/// Deepest nesting of values; players and encoders use two levels.
const DEPTH_MAX: usize = 8;
/// Most values of a message.
const VALUES_MAX: usize = 1024;

/// The number of values in an AMF0 message body. None when it is malformed, exceeds a limit, or has a type that
/// `rml_rtmp` does not support.
pub(super) fn count_values(document: &[u8]) -> Option<usize> {
    let mut rest = document;
    let mut budget = VALUES_MAX;
    let mut count = 0;
    while !rest.is_empty() {
        value(&mut rest, DEPTH_MAX, &mut budget)?;
        count += 1;
    }
    Some(count)
}

/// Skips one value of at most `depth` levels; `budget` is the number of values left.
fn value(rest: &mut &[u8], depth: usize, budget: &mut usize) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    *budget = budget.checked_sub(1)?;
    match rest.try_get_u8().ok()? {
        // Number, boolean, string.
        0 => skip(rest, 8),
        1 => skip(rest, 1),
        2 => name(rest).map(drop),
        3 => object(rest, depth, budget),
        // Null, undefined.
        5 | 6 => Some(()),
        // ECMA array: an object with a count in front, which is only a hint.
        8 => skip(rest, 4).and_then(|()| object(rest, depth, budget)),
        // Strict array.
        10 => (0..rest.try_get_u32().ok()?).try_for_each(|_| value(rest, depth, budget)),
        _ => None,
    }
}

fn object(rest: &mut &[u8], depth: usize, budget: &mut usize) -> Option<()> {
    while !name(rest)?.is_empty() {
        value(rest, depth, budget)?;
    }
    // Object end marker.
    (rest.try_get_u8().ok()? == 9).then_some(())
}

fn name<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::from(rest.try_get_u16().ok()?);
    let (name, after) = rest.split_at_checked(length)?;
    *rest = after;
    std::str::from_utf8(name).ok()
}

fn skip(rest: &mut &[u8], bytes: usize) -> Option<()> {
    *rest = rest.get(bytes..)?;
    Some(())
}
