//! The settings of rooms that exist until they are deleted, over a restart of the server.
//!
//! Owns: the file `rooms.json` in the data folder. Does not know: what settings mean, running rooms. In: the documents
//! of rooms after a change; out: one [`RoomPatch`] for each room at the start. A file that cannot be read is set aside
//! as `rooms.json.bad`, and the server starts without it. A room's task never waits for the file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::id::RoomName;
use crate::room::document::{RoomDocument, RoomPatch};

/// Largest file that is read. A room takes less than 4 KiB.
const FILE_MAX: u64 = 16 << 20;
/// The fields of a room's document that are settings, named as in [`RoomPatch`].
const SETTINGS: [&str; 9] =
    ["layout", "theme", "title", "locked", "lobby", "who_may", "max_participants", "opens_at", "ends_at"];

/// The settings of rooms, by name.
#[derive(Debug)]
pub(super) struct Store {
    file: PathBuf,
    rooms: BTreeMap<String, Map<String, Value>>,
    /// The version of the newest document of each room that was kept since the start.
    versions: BTreeMap<String, u64>,
}

impl Store {
    /// Reads the store in this folder; returns it with the rooms that it contains.
    pub(super) fn open(folder: &Path) -> (Self, Vec<(RoomName, RoomPatch)>) {
        let file = folder.join("rooms.json");
        let rooms = read(&file).unwrap_or_else(|error| {
            let aside = file.with_extension("json.bad");
            tracing::error!(%error, file = %file.display(), aside = %aside.display(), "settings of rooms set aside");
            if let Err(error) = fs::rename(&file, &aside) {
                tracing::error!(%error, "cannot set the file aside");
            }
            BTreeMap::new()
        });
        let mut store = Self { file, rooms, versions: BTreeMap::new() };
        let mut restored = Vec::new();
        store.rooms.retain(|name, settings| match parse(name, settings) {
            Ok(room) => {
                restored.push(room);
                true
            }
            Err(error) => {
                tracing::error!(room = %name, %error, "settings of a room are not restored");
                false
            }
        });
        (store, restored)
    }

    /// Whether it contains a room.
    pub(super) fn contains(&self, name: &RoomName) -> bool {
        self.rooms.contains_key(&name.to_string())
    }

    /// Keeps the settings of a room, unless a newer document was kept before: documents of two changes at once may
    /// arrive in either order. Blocks until the settings are on the disk.
    pub(super) fn keep(&mut self, room: &RoomDocument) -> io::Result<()> {
        let Value::Object(mut settings) = serde_json::to_value(room)? else { return Ok(()) };
        settings.retain(|name, _| SETTINGS.contains(&name.as_str()));
        let name = room.name.to_string();
        let newest = self.versions.entry(name.clone()).or_default();
        if room.version < *newest {
            return Ok(());
        }
        *newest = room.version;
        if self.rooms.get(&name) == Some(&settings) {
            return Ok(());
        }
        self.rooms.insert(name, settings);
        self.write()
    }

    /// Forgets a room. Blocks until the disk has forgotten it.
    pub(super) fn forget(&mut self, name: &RoomName) -> io::Result<()> {
        self.versions.remove(&name.to_string());
        match self.rooms.remove(&name.to_string()) {
            Some(_) => self.write(),
            None => Ok(()),
        }
    }

    fn write(&self) -> io::Result<()> {
        let folder = self.file.parent().unwrap_or_else(|| Path::new("."));
        fs::create_dir_all(folder)?;
        let new = self.file.with_extension("json.new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(&self.rooms)?)?;
        file.sync_all()?;
        fs::rename(new, &self.file)?;
        // A rename is durable only after its folder is synced.
        File::open(folder)?.sync_all()
    }
}

fn read(file: &Path) -> io::Result<BTreeMap<String, Map<String, Value>>> {
    let bytes = match fs::metadata(file) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    if bytes > FILE_MAX {
        return Err(io::Error::other(format!("the file has more than {FILE_MAX} bytes")));
    }
    Ok(serde_json::from_slice(&fs::read(file)?)?)
}

fn parse(name: &str, settings: &Map<String, Value>) -> Result<(RoomName, RoomPatch), String> {
    let room = name.parse::<RoomName>().map_err(|error| error.to_string())?;
    let patch: RoomPatch =
        serde_json::from_value(Value::Object(settings.clone())).map_err(|error| error.to_string())?;
    patch.check()?;
    Ok((room, patch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::chat::Reader;
    use crate::room::tests::settings;
    use crate::room::{Input, Room};
    use crate::time::Timestamp;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    fn store_of(folder: &Path, rooms: &str) -> (Store, Vec<(RoomName, RoomPatch)>) {
        fs::write(folder.join("rooms.json"), rooms).expect("written");
        Store::open(folder)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = folder();
        let text = r#"{"a":{"locked":true,"title":"Weekly"},"b":{"lobby":true}}"#;
        let (mut store, rooms) = store_of(folder.path(), text);
        assert_eq!(rooms.len(), 2);
        store.forget(&"b".parse().expect("a name")).expect("written");
        let (store, rooms) = Store::open(folder.path());
        let (name, patch) = rooms.first().expect("a room");
        assert_eq!((name.to_string().as_str(), patch.locked, rooms.len()), ("a", Some(true), 1));
        assert_eq!(patch.title, Some(Some("Weekly".to_owned())));
        assert!(store.contains(name));
    }

    #[test]
    fn an_older_document_does_not_replace_a_newer_one() {
        let folder = folder();
        let (mut store, _) = Store::open(folder.path());
        let mut room = Room::new(settings(10), Timestamp::ZERO);
        let older = room.document_for(Reader::default());
        let locked = RoomPatch { locked: Some(true), ..RoomPatch::default() };
        room.handle(Timestamp::ZERO, Input::Patch(locked));
        store.keep(&room.document_for(Reader::default())).expect("written");
        store.keep(&older).expect("nothing to write");
        let (_, rooms) = Store::open(folder.path());
        assert_eq!(rooms.first().expect("a room").1.locked, Some(true));
    }

    #[test]
    fn a_broken_file_is_set_aside() {
        let folder = folder();
        let (_, rooms) = store_of(folder.path(), r#"{"a":{"locked":tr"#);
        assert!(rooms.is_empty());
        assert!(folder.path().join("rooms.json.bad").exists() && !folder.path().join("rooms.json").exists());
    }

    #[test]
    fn a_broken_room_does_not_prevent_the_others() {
        let folder = folder();
        let (_, rooms) = store_of(folder.path(), r#"{"a":{"locked":"yes"},"b":{"locked":false},"c/d":{}}"#);
        assert_eq!(rooms.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>(), ["b"]);
    }
}
