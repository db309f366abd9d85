//! Uploads of recordings to moto's S3 server over an unreliable connection.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{get, request};
use crate::scenario::{list, number, repository, require};
use crate::server::{Server, Settings};
use crate::turn;

const SECRET: &str = "a-secret-that-nobody-may-see";
/// Size of the large recording: many parts, and far more than the memory limit of an upload.
const LARGE: usize = 48 * 1024 * 1024 + 12_345;
/// Limit of the server's memory growth during the upload: some parts of 5 MiB, and what the allocator keeps.
const GROWTH_MIB: f64 = 32.0;
/// Interval and number of checks of the recordings.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOKS: usize = 600;

/// moto's server.
struct Store {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    address: SocketAddr,
}

impl Store {
    fn start() -> Self {
        let python = repository().join("tests/peers/.venv/bin/python");
        require(&python);
        let mut child = Command::new(python)
            .arg(repository().join("tests/peers/s3.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("`make test` installs Python");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let port = read_json(&mut output)["port"].as_u64().expect("it prints its port");
        let address = (Ipv4Addr::LOCALHOST, u16::try_from(port).expect("a port")).into();
        Self { child, output, address }
    }

    fn ask(&mut self, what: &str) -> Value {
        writeln!(self.child.stdin.as_mut().expect("piped"), "{what}").expect("it reads");
        read_json(&mut self.output)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_json(output: &mut impl BufRead) -> Value {
    let mut line = String::new();
    output.read_line(&mut line).expect("it is text");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("invalid reply of the store, `{line}`: {error}"))
}

/// The unreliable connection to the store. At first every request gets 500. Later, of four connections one is closed at
/// once, one gets 500, one breaks in the middle of a part, and one works for a while.
struct FaultyPath {
    address: SocketAddr,
    closed: Arc<AtomicBool>,
    broken: Arc<AtomicUsize>,
}

impl FaultyPath {
    fn to(store: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        let (closed, broken) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let (shut, counted) = (closed.clone(), broken.clone());
        thread::spawn(move || {
            for (number, client) in listener.incoming().map_while(Result::ok).enumerate() {
                let kind = if shut.load(Ordering::Relaxed) { 1 } else { number % 4 };
                if kind != 3 {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                thread::spawn(move || match kind {
                    0 => Ok(()),
                    1 => refuse(client),
                    2 => pass(client, store, 1024 * 1024),
                    _ => pass(client, store, 11 * 1024 * 1024),
                });
            }
        });
        Self { address, closed, broken }
    }
}

fn refuse(mut client: TcpStream) -> io::Result<()> {
    let mut head = [0; 16 * 1024];
    let _ = client.read(&mut head)?;
    client.write_all(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
    // The rest of the request is read; otherwise the answer is lost in a reset.
    client.shutdown(Shutdown::Write)?;
    io::copy(&mut client, &mut io::sink()).map(drop)
}

/// Forwards both directions, and breaks the connection after `most` bytes towards the store.
fn pass(client: TcpStream, store: SocketAddr, most: u64) -> io::Result<()> {
    let server = TcpStream::connect(store)?;
    let (mut back, mut answers) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || io::copy(&mut answers, &mut back));
    io::copy(&mut (&client).take(most), &mut &server)?;
    client.shutdown(Shutdown::Both)?;
    server.shutdown(Shutdown::Both)
}

/// Writes an ended recording, as an output process leaves it.
fn record(data: &Path, name: &str, ending: &str, bytes: usize) {
    let folder = data.join("recordings");
    fs::create_dir_all(&folder).expect("the temporary folder can be written");
    let media: Vec<u8> = (0..bytes).map(|at| (at * 7 + at / 4096) as u8).collect();
    fs::write(folder.join(format!("{name}.{ending}")), media).expect("it is writable");
    let sidecar = json!({
        "room": "daily", "recording": "o3", "state": "finished", "started": "2026-11-25T10:15:00Z",
        "people": [{"name": "Ann"}],
    });
    fs::write(folder.join(format!("{name}.json")), sidecar.to_string()).expect("it is writable");
}

/// Waits until all recordings satisfy `fits`.
fn wait_for(server: &Server, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    // Nothing is ever sent: this waits until the next check.
    let (_open, never) = sync_channel::<()>(0);
    let mut told = Value::Null;
    for _ in 0..LOOKS {
        told = get(&format!("{}/v1/recordings", server.url())).json();
        if list(&told, "").iter().all(&fits) {
            return told;
        }
        let _ = never.recv_timeout(LOOK_EVERY);
    }
    panic!("{what}: {told}\n{}", server.log());
}

#[test]
fn recordings_are_uploaded_over_an_unreliable_connection() {
    let _turn = turn();
    let mut store = Store::start();
    let path = FaultyPath::to(store.address);
    let data = tempfile::tempdir().expect("the temporary folder can be written");
    let (large, small) = ("daily-20261125-101500-k3", "daily-20261125-101500-k3-002");
    record(data.path(), large, "mp4", LARGE);
    record(data.path(), small, "ogg", 5_000);

    let endpoint = format!("upload.endpoint=http://{}", path.address);
    let set =
        ["upload.bucket=recordings", &endpoint, "upload.prefix=calls/", "upload.allow_http=true", "upload.part_mib=5"];
    let more = ["upload.access_key_id=test", "upload.keep_local=false"];
    let arguments: Vec<&str> = set.iter().chain(&more).flat_map(|setting| ["--set", setting]).collect();
    let environment = [("COMMINGLE_UPLOAD_SECRET_ACCESS_KEY", SECRET), ("COMMINGLE_LOG", "debug")];
    let settings =
        Settings { arguments: &arguments, environment: &environment, data: Some(data.path()), ..Settings::default() };

    let server = Server::start_with(&settings);
    let failed =
        wait_for(&server, "the failed upload has no reason", |file| file["upload"]["failures"].as_u64() > Some(0));
    assert!(list(&failed, "").iter().all(|file| file["upload"]["error"].is_string()), "{failed}");
    assert!(!failed.to_string().contains(SECRET) && !server.log().contains(SECRET), "the secret is shown");
    // SIGKILL, like a crash.
    drop(server);

    path.closed.store(false, Ordering::Relaxed);
    let server = Server::start_with(&settings);
    let before = server.memory_mib();
    let uploaded = wait_for(&server, "not uploaded", |file| file["upload"]["state"] == "done");
    let grown = server.memory_mib() - before;
    println!(
        "{}",
        json!({"grown_mib": grown, "broken_connections": path.broken.load(Ordering::Relaxed), "uploaded": uploaded})
    );
    assert!(grown < GROWTH_MIB, "an upload took {grown} MiB");
    assert_eq!(list(&uploaded, "").len(), 2, "{uploaded}");
    for file in list(&uploaded, "") {
        let name = file["file"].as_str().expect("it has a name");
        let there = store.ask(&format!("calls/{name}"));
        assert_eq!((&there["bytes"], &there["sha256"]), (&file["bytes"], &file["upload"]["sha256"]), "{name}");
        assert_eq!(file["upload"]["location"], format!("s3://recordings/calls/{name}"));
        assert!(!data.path().join("recordings").join(name).exists(), "{name} was not deleted");
        let gone = get(&format!("{}/v1/recordings/{name}", server.url()));
        gone.assert_problem("a recording that was uploaded and deleted", &[404]);
        assert!(gone.body.contains("s3://recordings/calls/"), "{gone:?}");
    }
    assert_eq!(store.ask(&format!("calls/{large}.mp4"))["type"], "video/mp4");
    assert_eq!(store.ask(&format!("calls/{large}.mp4"))["bytes"], LARGE);
    assert!(number(&store.ask(&format!("calls/{large}.json")), "/bytes") > 200.0, "its JSON is there too");
    assert_eq!(store.ask("incomplete uploads"), 0, "broken uploads were left in the store");
    assert!(path.broken.load(Ordering::Relaxed) > 6, "too few connections were broken");
    let metrics = get(&format!("{}/metrics", server.url())).body;
    assert!(metrics.contains("commingle_recordings_uploaded_total 2"), "{metrics}");
    assert_eq!(request("DELETE", &format!("{}/v1/recordings/{small}.ogg", server.url()), &[], "").status, 204);
    server.stop();
}
