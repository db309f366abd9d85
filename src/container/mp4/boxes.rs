//! Boxes (ISO/IEC 14496-12 §4.2): writing them, and reading them from untrusted bytes.
//!
//! Owns: box headers and lookup by path. Does not know: what any box means.

/// Appends a box whose body is written by `body`.
pub(super) fn boxed(out: &mut Vec<u8>, kind: &[u8; 4], body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; 4]);
    out.extend(kind);
    body(out);
    let size = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}

/// Appends a FullBox: a box with version and flags.
pub(super) fn full_box(out: &mut Vec<u8>, kind: &[u8; 4], version: u8, flags: u32, body: impl FnOnce(&mut Vec<u8>)) {
    boxed(out, kind, |out| {
        out.extend((u32::from(version) << 24 | flags).to_be_bytes());
        body(out);
    });
}

/// Iterates over the boxes in `bytes`: type, whole box, body. Ends before the first incomplete box.
pub(super) fn children(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8], &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let size = u32::from_be_bytes(*rest.first_chunk()?) as usize;
        let kind = *rest.get(4..)?.first_chunk()?;
        let (whole, after) = rest.split_at_checked(size).filter(|_| size >= 8)?;
        rest = after;
        Some((kind, whole, &whole[8..]))
    })
}

/// The body of the box at `path`.
pub(super) fn find<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    find_whole(bytes, path).map(|whole| &whole[8..])
}

/// The box at `path`, with its header.
pub(super) fn find_whole<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    let (first, rest) = path.split_first()?;
    let (_, whole, body) = children(bytes).find(|(kind, ..)| kind == *first)?;
    if rest.is_empty() { Some(whole) } else { find_whole(body, rest) }
}

/// Reads big-endian integers from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) fn u32(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        Some(u64::from(self.u32()?) << 32 | u64::from(self.u32()?))
    }
}
