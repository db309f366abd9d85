//! The settings of rooms that exist until they are deleted, and who is kept out of them, over a restart of the server.
//!
//! Owns: the file `rooms.json` in the data folder. Does not know: what settings mean, running rooms. In: the documents
//! of rooms after a change, and who is kept out; out: one [`Restored`] for each room at the start. A file that cannot be read is set aside
//! as `rooms.json.bad`, and the server starts without it. A room's task never waits for the file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::RoomName;
use crate::room::document::{RoomDocument, RoomPatch};
use crate::room::moderation::Identity;
use crate::time::WallTime;

/// Largest file. The settings of a room take less than 4 KiB, those who are kept out of it at most 70 KiB.
const FILE_MAX: u64 = 16 << 20;
/// The fields of a room's document that are settings, named as in [`RoomPatch`].
const SETTINGS: [&str; 9] =
    ["layout", "theme", "title", "locked", "lobby", "who_may", "max_participants", "opens_at", "ends_at"];

/// A room as it was before the restart.
#[derive(Debug)]
pub(super) struct Restored {
    /// Its name.
    pub(super) name: RoomName,
    /// Its settings.
    pub(super) patch: RoomPatch,
    /// Who is still kept out, and for how long.
    pub(super) kept_out: Vec<(Identity, Duration)>,
}

/// A room in the file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    settings: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    kept_out: Vec<KeptOut>,
}

/// Somebody who is kept out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct KeptOut {
    who: Identity,
    until: WallTime,
}

/// The rooms that are kept, by name.
#[derive(Debug)]
pub(super) struct Store {
    file: PathBuf,
    rooms: BTreeMap<String, Kept>,
    /// The version of the newest document of each room that was kept since the start.
    versions: BTreeMap<String, u64>,
}

impl Store {
    /// Reads the store in this folder; returns it with the rooms that it contains.
    pub(super) fn open(folder: &Path, now: WallTime) -> (Self, Vec<Restored>) {
        let file = folder.join("rooms.json");
        let rooms = read(&file).unwrap_or_else(|error| {
            let aside = file.with_extension("json.bad");
            tracing::error!(%error, file = %file.display(), aside = %aside.display(), "settings of rooms set aside");
            if let Err(error) = fs::rename(&file, &aside) {
                tracing::error!(%error, "cannot set the file aside");
            }
            BTreeMap::new()
        });
        let (mut kept, mut restored) = (BTreeMap::new(), Vec::new());
        for (name, room) in rooms {
            match parse(&name, room, now) {
                Ok((room, document)) => {
                    kept.insert(name, document);
                    restored.push(room);
                }
                Err(error) => tracing::error!(room = %name, %error, "settings of a room are not restored"),
            }
        }
        (Self { file, rooms: kept, versions: BTreeMap::new() }, restored)
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
        let kept = self.rooms.entry(name).or_default();
        if kept.settings == settings {
            return Ok(());
        }
        kept.settings = settings;
        self.write()
    }

    /// Keeps who is kept out of a room, and for how much longer, if it contains the room. Of two calls at once the
    /// later may be the older, so nobody is removed before the time is over. Blocks until it is on the disk.
    pub(super) fn keep_out(
        &mut self,
        name: &RoomName,
        those: &[(Identity, Duration)],
        now: WallTime,
    ) -> io::Result<()> {
        let Some(kept) = self.rooms.get_mut(&name.to_string()) else { return Ok(()) };
        kept.kept_out.retain(|old| old.until > now && those.iter().all(|(who, _)| *who != old.who));
        kept.kept_out.extend(those.iter().map(|(who, left)| KeptOut { who: *who, until: now.after(*left) }));
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
        let rooms = serde_json::to_vec_pretty(&self.rooms)?;
        if rooms.len() as u64 > FILE_MAX {
            return Err(io::Error::other(format!("more than {FILE_MAX} bytes")));
        }
        let new = self.file.with_extension("json.new");
        let mut file = File::create(&new)?;
        file.write_all(&rooms)?;
        file.sync_all()?;
        fs::rename(new, &self.file)?;
        // A rename is durable only after its folder is synced.
        File::open(folder)?.sync_all()
    }
}

fn read(file: &Path) -> io::Result<BTreeMap<String, Value>> {
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

fn parse(name: &str, room: Value, now: WallTime) -> Result<(Restored, Kept), String> {
    let name = name.parse::<RoomName>().map_err(|error| error.to_string())?;
    let kept: Kept = serde_json::from_value(room).map_err(|error| error.to_string())?;
    let patch: RoomPatch =
        serde_json::from_value(Value::Object(kept.settings.clone())).map_err(|error| error.to_string())?;
    patch.check()?;
    let left = |person: &KeptOut| Some((person.who, person.until.since(now)?));
    let kept_out = kept.kept_out.iter().filter_map(left).collect();
    Ok((Restored { name, patch, kept_out }, kept))
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

    const NOW: WallTime = WallTime::from_unix_micros(1_796_092_811_000_000);

    fn store_of(folder: &Path, rooms: &str) -> (Store, Vec<Restored>) {
        fs::write(folder.join("rooms.json"), rooms).expect("written");
        Store::open(folder, NOW)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = folder();
        let text = r#"{"a":{"locked":true,"title":"Weekly"},"b":{"lobby":true}}"#;
        let (mut store, rooms) = store_of(folder.path(), text);
        assert_eq!(rooms.len(), 2);
        store.forget(&"b".parse().expect("a name")).expect("written");
        let (store, rooms) = Store::open(folder.path(), NOW);
        let Restored { name, patch, .. } = rooms.first().expect("a room");
        assert_eq!((name.to_string().as_str(), patch.locked, rooms.len()), ("a", Some(true), 1));
        assert_eq!(patch.title, Some(Some("Weekly".to_owned())));
        assert!(store.contains(name));
    }

    #[test]
    fn an_older_document_does_not_replace_a_newer_one() {
        let folder = folder();
        let (mut store, _) = Store::open(folder.path(), NOW);
        let mut room = Room::new(settings(10), Timestamp::default());
        let older = room.document_for(Reader::default());
        let locked = RoomPatch { locked: Some(true), ..RoomPatch::default() };
        room.handle(Timestamp::default(), Input::Patch(locked));
        store.keep(&room.document_for(Reader::default())).expect("written");
        store.keep(&older).expect("nothing to write");
        let (_, rooms) = Store::open(folder.path(), NOW);
        assert_eq!(rooms.first().expect("a room").patch.locked, Some(true));
    }

    #[test]
    fn people_are_kept_out_until_their_time_is_over_whatever_changes_meanwhile() {
        let folder = folder();
        let (mut store, _) = store_of(folder.path(), r#"{"test":{"locked":true},"other":{}}"#);
        let (name, seconds) = ("test".parse().expect("a name"), Duration::from_secs);
        store.keep_out(&name, &[(Identity(1), seconds(60)), (Identity(2), seconds(600))], NOW).expect("written");
        let unknown = "unknown".parse().expect("a name");
        store.keep_out(&unknown, &[(Identity(1), seconds(60))], NOW).expect("nothing to write");
        // An older list that arrives later.
        store.keep_out(&name, &[(Identity(1), seconds(60))], NOW).expect("written");
        let mut room = Room::new(settings(10), Timestamp::default());
        room.handle(Timestamp::default(), Input::Patch(RoomPatch { locked: Some(false), ..RoomPatch::default() }));
        store.keep(&room.document_for(Reader::default())).expect("written");
        let (_, rooms) = Store::open(folder.path(), NOW.after(seconds(100)));
        let kept: Vec<_> = rooms.iter().map(|room| (room.patch.locked, room.kept_out.clone())).collect();
        assert_eq!(kept, [(None, vec![]), (Some(false), vec![(Identity(2), seconds(500))])]);
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
        let (_, rooms) =
            store_of(folder.path(), r#"{"a":{"locked":"yes"},"b":{"locked":false},"c/d":{},"e":{"kept_out":7},"f":1}"#);
        assert_eq!(rooms.iter().map(|room| room.name.to_string()).collect::<Vec<_>>(), ["b"]);
    }
}
