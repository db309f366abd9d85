//! EBML elements (RFC 8794): writing them, and reading them from untrusted bytes.
//!
//! Owns: element headers, sizes and primitive types. Does not know: what any element means.

/// Appends an element whose body is written by `body`.
pub(super) fn element(out: &mut Vec<u8>, id: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let mut content = Vec::new();
    body(&mut content);
    put_head(out, id, content.len() as u64);
    out.extend(content);
}

/// Appends an element header: ID, and size of the body in the fewest bytes.
pub(super) fn put_head(out: &mut Vec<u8>, id: u32, size: u64) {
    put_id(out, id);
    // All ones are reserved for an unknown size (RFC 8794 §6.2).
    let width = (1..8).find(|width| size < (1 << (7 * width)) - 1).unwrap_or(8);
    put_size(out, size, width);
}

/// Appends an ID; its leading bits encode its own length.
pub(super) fn put_id(out: &mut Vec<u8>, id: u32) {
    out.extend(&id.to_be_bytes()[id.leading_zeros() as usize / 8..]);
}

/// Appends a size of eight bytes that can be overwritten later; None writes an unknown size.
pub(super) fn put_wide_size(out: &mut Vec<u8>, size: Option<u64>) {
    put_size(out, size.unwrap_or((1 << 56) - 1), 8);
}

fn put_size(out: &mut Vec<u8>, size: u64, width: u32) {
    let marked = size | 1 << (7 * width);
    out.extend(&marked.to_be_bytes()[8 - width as usize..]);
}

/// Appends an unsigned integer element in the fewest bytes.
pub(super) fn uint(out: &mut Vec<u8>, id: u32, number: u64) {
    let bytes = number.to_be_bytes();
    let skip = (number.leading_zeros() as usize / 8).min(7);
    binary(out, id, &bytes[skip..]);
}

/// Appends a float element of eight bytes.
pub(super) fn float(out: &mut Vec<u8>, id: u32, number: f64) {
    binary(out, id, &number.to_be_bytes());
}

/// Appends a binary or string element.
pub(super) fn binary(out: &mut Vec<u8>, id: u32, bytes: &[u8]) {
    put_head(out, id, bytes.len() as u64);
    out.extend(bytes);
}

/// Appends a Void element of `total` bytes, 2 to 127, to reserve space.
pub(super) fn void(out: &mut Vec<u8>, total: usize) {
    out.push(super::VOID as u8);
    put_size(out, total as u64 - 2, 1);
    out.resize(out.len() + total - 2, 0);
}

/// An element header: ID, length of the header, and size of the body (None when unknown).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ElementHeader {
    pub(super) id: u32,
    pub(super) length: usize,
    pub(super) size: Option<u64>,
}

impl ElementHeader {
    /// Longest header in bytes.
    pub(super) const MAX_LENGTH: u64 = 12;

    /// Reads the header at the start of `bytes`.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (id, id_length) = number(bytes, 4)?;
        let (size, size_length) = number(&bytes[id_length..], 8)?;
        let mask = (1u64 << (7 * size_length)) - 1;
        let size = Some(size & mask).filter(|size| *size != mask);
        Some(Self { id: id as u32, length: id_length + size_length, size })
    }
}

/// A variable-size integer with its marker bit, and its length, which is at most `most`.
pub(super) fn number(bytes: &[u8], most: usize) -> Option<(u64, usize)> {
    let length = bytes.first()?.leading_zeros() as usize + 1;
    let bytes = bytes.get(..length).filter(|_| length <= most)?;
    Some((bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)), length))
}

/// Iterates over the elements in `bytes`: ID, offset of the body, body. Ends before the first incomplete element.
pub(super) fn children(bytes: &[u8]) -> impl Iterator<Item = (u32, usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let head = ElementHeader::read(bytes.get(at..)?)?;
        let start = at + head.length;
        let body = bytes.get(start..start.checked_add(usize::try_from(head.size?).ok()?)?)?;
        at = start + body.len();
        Some((head.id, start, body))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn written_headers_are_read_back(
            id in prop_oneof![Just(0xecu32), Just(0x4dbb), Just(0x1f43_b675)],
            size in 0u64..1 << 55,
        ) {
            let mut out = Vec::new();
            put_head(&mut out, id, size);
            prop_assert_eq!(ElementHeader::read(&out), Some(ElementHeader { id, length: out.len(), size: Some(size) }));
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            children(&bytes).count();
        }
    }

    #[test]
    fn known_sizes_are_never_written_as_unknown() {
        for size in [126u64, 127, 16_382, 16_383, 2_097_151] {
            let mut out = Vec::new();
            put_head(&mut out, 0xec, size);
            assert_eq!(ElementHeader::read(&out).and_then(|head| head.size), Some(size));
        }
        let mut out = vec![0xec];
        put_wide_size(&mut out, None);
        assert_eq!(ElementHeader::read(&out), Some(ElementHeader { id: 0xec, length: 9, size: None }));
    }
}
