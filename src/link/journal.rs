//! The journal of a mixer: which sources it is decoding, readable after it has died.
//!
//! Owns: the file, which exists in memory only; the mixer's end, [`Journal`]; the edge's end, [`create`] and
//! [`decoding`]. Does not know: decoders, what follows from an entry. In: begin and end of decoding, from any thread.
//! Out: the sources whose decoding has begun and not ended.
//!
//! The mixer inherits the file as its standard output. An entry is 4 bytes at a place of its own: the id of a source,
//! or 0. Writing one is a system call, so that the kernel has it when the process dies at the next instruction.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::MemfdFlags;

use crate::id::SourceId;

/// Most entries: decoders of a mixer at one time. Those beyond are not noted.
const ENTRIES_MAX: usize = 1024;
/// Bytes of an entry.
const ENTRY: u64 = 4;

/// Creates an empty journal.
///
/// # Errors
/// The system cannot create the file.
pub fn create() -> io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create("commingle-journal", MemfdFlags::CLOEXEC)?))
}

/// The sources that were being decoded when the process wrote last.
///
/// # Errors
/// The file cannot be read.
pub fn decoding(journal: &mut File) -> io::Result<BTreeSet<SourceId>> {
    let mut bytes = Vec::new();
    journal.rewind()?;
    // A longer file is not one that a mixer has written.
    journal.take(ENTRIES_MAX as u64 * ENTRY).read_to_end(&mut bytes)?;
    let ids = bytes.as_chunks::<{ ENTRY as usize }>().0.iter().map(|entry| u32::from_le_bytes(*entry));
    Ok(ids.filter(|id| *id != 0).map(SourceId).collect())
}

/// The mixer's end of its journal. Without a file, nothing is noted.
#[derive(Debug, Default)]
pub struct Journal {
    file: Option<File>,
    /// The places that are taken.
    places: Mutex<Vec<bool>>,
}

impl Journal {
    /// The journal that this process has inherited as its standard output.
    ///
    /// # Errors
    /// Standard output cannot be duplicated.
    pub fn on_stdout() -> io::Result<Arc<Self>> {
        let file = File::from(rustix::stdio::stdout().try_clone_to_owned()?);
        Ok(Arc::new(Self { file: Some(file), places: Mutex::default() }))
    }

    /// A place for the entries of one decoder of this source.
    pub fn entry(self: &Arc<Self>, source: SourceId) -> Entry {
        let mut places = self.places.lock();
        let place = places.iter().position(|taken| !taken).or_else(|| {
            (places.len() < ENTRIES_MAX).then(|| {
                places.push(false);
                places.len() - 1
            })
        });
        if let Some(place) = place {
            places[place] = true;
        }
        Entry { journal: Arc::clone(self), place, source, is_busy: Mutex::new(false) }
    }

    fn write(&self, place: usize, id: u32) {
        if let Some(file) = &self.file {
            // An error means that standard output is no such file, as in tests: then nobody reads it.
            let _ = file.write_at(&id.to_le_bytes(), place as u64 * ENTRY);
        }
    }
}

/// The place of one decoder. Dropping it ends its entry.
#[derive(Debug)]
pub struct Entry {
    journal: Arc<Journal>,
    place: Option<usize>,
    source: SourceId,
    is_busy: Mutex<bool>,
}

impl Entry {
    /// The decoder takes a frame, or waits for the next.
    pub fn set(&self, busy: bool) {
        let mut is_busy = self.is_busy.lock();
        if let Some(place) = self.place
            && std::mem::replace(&mut *is_busy, busy) != busy
        {
            self.journal.write(place, if busy { self.source.0 } else { 0 });
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.set(false);
        if let Some(place) = self.place {
            self.journal.places.lock()[place] = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> (File, Arc<Journal>) {
        let file = create().expect("memory");
        let written = file.try_clone().expect("a second handle");
        (file, Arc::new(Journal { file: Some(written), places: Mutex::default() }))
    }

    #[test]
    fn the_sources_whose_decoding_has_begun_and_not_ended_are_read() {
        let (mut file, journal) = journal();
        let mut read = || decoding(&mut file).expect("readable").into_iter().map(|id| id.0).collect::<Vec<_>>();
        assert_eq!(read(), [0; 0]);
        let entries: Vec<Entry> = (1..=3).map(|id| journal.entry(SourceId(id))).collect();
        assert_eq!(read(), [0; 0], "none has a frame");
        entries.iter().for_each(|entry| entry.set(true));
        entries[1].set(false);
        entries[2].set(true);
        assert_eq!(read(), [1, 3]);
        // Two decoders of one source: one ends.
        let other = journal.entry(SourceId(1));
        other.set(true);
        drop(other);
        assert_eq!(read(), [1, 3]);
        drop(entries);
        assert_eq!(read(), [0; 0]);
    }

    #[test]
    fn places_are_used_again_and_are_bounded() {
        let (mut file, journal) = journal();
        for id in 1..5_000 {
            journal.entry(SourceId(id)).set(true);
        }
        assert_eq!(journal.places.lock().len(), 1);
        let entries: Vec<Entry> = (1..5_000).map(|id| journal.entry(SourceId(id))).collect();
        entries.iter().for_each(|entry| entry.set(true));
        assert_eq!(decoding(&mut file).expect("readable").len(), ENTRIES_MAX);
    }

    #[test]
    fn a_file_that_is_no_journal_is_read_without_an_error() {
        let (mut file, _) = journal();
        file.write_at(&[0xff; 10_001], 0).expect("written");
        assert_eq!(decoding(&mut file).expect("readable"), BTreeSet::from([SourceId(u32::MAX)]));
    }
}
