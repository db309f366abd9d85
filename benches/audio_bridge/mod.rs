//! Janus' AudioBridge with participants of plain RTP, as a yardstick: Debian's package `janus`.
//!
//! Owns: the Janus process with a configuration of its own on loopback, and its participants: a socket each, which
//! sends one looped Opus stream and counts what it receives.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::thread::park_timeout;
use std::time::Duration;

use bytes::Bytes;
use commingle::time::now;
use serde_json::{Value, json};

use crate::server::cpu_seconds;
use crate::{Measured, TICK, WARM_UP, WATCHED};

const ROOM: u32 = 42;
const PAYLOAD_TYPE: u8 = 111;
/// Time from the start until Janus answers.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// Plugins and transports of the package that the benchmark does not use.
const UNUSED: [&str; 11] = [
    "echotest",
    "lua",
    "duktape",
    "nosip",
    "recordplay",
    "sip",
    "streaming",
    "textroom",
    "videocall",
    "videoroom",
    "voicemail",
];
const UNUSED_TRANSPORTS: [&str; 5] = ["mqtt", "nanomsg", "pfunix", "rabbitmq", "websockets"];

/// A room of AudioBridge in which all participants send these packets; None where Janus is not installed.
pub(crate) fn measure(people: usize, packets: &[Bytes]) -> Option<Measured> {
    let janus = Janus::start()?;
    let mut participants: Vec<Participant> = (0..people).map(|_| janus.join()).collect();
    let begun = now();
    let (mut n, mut from) = (0, None);
    let warm = (WARM_UP.as_micros() / TICK.as_micros()) as u64;
    let last = warm + (WATCHED.as_micros() / TICK.as_micros()) as u64;
    while n < last {
        for participant in &mut participants {
            participant.send(n, &packets[n as usize % packets.len()]);
        }
        n += 1;
        let due = begun + TICK * n as u32;
        while now() < due {
            participants.iter_mut().for_each(Participant::receive);
            park_timeout(due.since(now()).min(TICK / 4));
        }
        if n == warm {
            participants.iter_mut().for_each(|participant| participant.received = 0);
            from = Some((now(), janus.cpu()));
        }
    }
    let (since, cpu) = from.expect("the warm-up is over");
    let seconds = now().since(since).as_secs_f64();
    let rates: Vec<f64> = participants.iter().map(|participant| participant.received as f64 / seconds).collect();
    Some(Measured { rates, cpu: vec![("Janus", (janus.cpu() - cpu) / seconds)] })
}

/// A participant of plain RTP.
struct Participant {
    socket: UdpSocket,
    ssrc: u32,
    received: u64,
}

impl Participant {
    fn send(&self, n: u64, payload: &Bytes) {
        let mut packet = vec![0x80, PAYLOAD_TYPE];
        packet.extend((n as u16).to_be_bytes());
        packet.extend((n as u32).wrapping_mul(960).to_be_bytes());
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend(payload);
        self.socket.send(&packet).expect("loopback");
    }

    fn receive(&mut self) {
        let mut packet = [0; 1500];
        loop {
            match self.socket.recv(&mut packet) {
                Ok(_) => self.received += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("loopback: {error}"),
            }
        }
    }
}

struct Janus {
    child: Child,
    url: String,
    _configuration: tempfile::TempDir,
}

impl Janus {
    fn start() -> Option<Self> {
        let configuration = tempfile::tempdir().expect("the temporary folder can be written");
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
        let port = address.expect("a port is free").port();
        let list =
            |names: &[&str]| names.iter().map(|name| format!("libjanus_{name}.so")).collect::<Vec<_>>().join(",");
        let files = [
            (
                "janus.jcfg",
                format!(
                    "general: {{ debug_level = 1; session_timeout = 0; }}\nnat: {{ ice_enforce_list = \"lo\"; }}\n\
                     plugins: {{ disable = \"{}\"; }}\ntransports: {{ disable = \"{}\"; }}\n",
                    list(&UNUSED),
                    list(&UNUSED_TRANSPORTS)
                ),
            ),
            (
                "janus.transport.http.jcfg",
                format!("general: {{ http = true; port = {port}; ip = \"127.0.0.1\"; https = false; }}\n"),
            ),
            (
                "janus.plugin.audiobridge.jcfg",
                "general: { rtp_port_range = \"30000-39999\"; local_ip = \"127.0.0.1\"; }\n".to_owned(),
            ),
        ];
        for (name, text) in files {
            fs::write(configuration.path().join(name), text).expect("the temporary folder can be written");
        }
        let child = Command::new("janus")
            .arg("--configs-folder")
            .arg(configuration.path())
            .arg("--disable-stdout")
            .arg("--log-file=/dev/null")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let janus = Self { child, url: format!("http://127.0.0.1:{port}/janus"), _configuration: configuration };
        let until = now() + READY_WITHIN;
        let session = loop {
            match janus.post("", json!({"janus": "create"})) {
                Ok(created) => break id(&created),
                Err(error) => assert!(now() < until, "Janus does not answer: {error}"),
            }
            park_timeout(TICK);
        };
        let handle = janus.attach(session);
        // Its complexity is its default of 4; bitrate and FEC are those of commingle.
        let room = json!({"request": "create", "room": ROOM, "sampling_rate": 48_000, "allow_rtp_participants": true,
            "audiolevel_event": false, "default_bitrate": 48_000, "default_expectedloss": 8});
        let created = janus.message(session, handle, &room);
        assert_eq!(created["plugindata"]["data"]["audiobridge"], "created", "{created}");
        Some(janus)
    }

    fn join(&self) -> Participant {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let port = socket.local_addr().expect("bound").port();
        let session = id(&self.post("", json!({"janus": "create"})).expect("it answers"));
        let handle = self.attach(session);
        let rtp = json!({"ip": "127.0.0.1", "port": port, "payload_type": PAYLOAD_TYPE});
        self.message(session, handle, &json!({"request": "join", "room": ROOM, "rtp": rtp}));
        loop {
            let event = self.get(&format!("/{session}?maxev=1"));
            if let Some(port) = event["plugindata"]["data"]["rtp"]["port"].as_u64() {
                let janus = SocketAddr::from((Ipv4Addr::LOCALHOST, port as u16));
                socket.connect(janus).expect("loopback");
                socket.set_nonblocking(true).expect("a socket");
                return Participant { socket, ssrc: u32::from(port as u16), received: 0 };
            }
            assert_eq!(event["janus"], "event", "not joined: {event}");
        }
    }

    fn attach(&self, session: u64) -> u64 {
        let attach = json!({"janus": "attach", "plugin": "janus.plugin.audiobridge"});
        id(&self.post(&format!("/{session}"), attach).expect("it answers"))
    }

    fn message(&self, session: u64, handle: u64, body: &Value) -> Value {
        let message = json!({"janus": "message", "body": body});
        self.post(&format!("/{session}/{handle}"), message).expect("it answers")
    }

    fn post(&self, path: &str, mut body: Value) -> Result<Value, ureq::Error> {
        body["transaction"] = json!(format!("{:?}", now()));
        let request = ureq::post(format!("{}{path}", self.url)).header("content-type", "application/json");
        read(request.send(body.to_string())?)
    }

    fn get(&self, path: &str) -> Value {
        ureq::get(format!("{}{path}", self.url)).call().and_then(read).expect("it answers")
    }

    fn cpu(&self) -> f64 {
        cpu_seconds(self.child.id())
    }
}

impl Drop for Janus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(mut response: ureq::http::Response<ureq::Body>) -> Result<Value, ureq::Error> {
    Ok(serde_json::from_str(&response.body_mut().read_to_string()?).expect("Janus speaks JSON"))
}

fn id(answer: &Value) -> u64 {
    answer["data"]["id"].as_u64().unwrap_or_else(|| panic!("no id in {answer}"))
}
