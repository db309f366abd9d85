//! Sources on the network, from servers on this machine.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use commingle::media::SourceKind;
use commingle::room::document::InputState;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::rig::{CLAPS, Clips, Rig, Running, ffmpeg, settings, tone};

/// ffmpeg arguments: a picture and a tone, endless and in real time.
const LIVE: &str = "-re -f lavfi -i testsrc2=s=320x180:r=25 -re -f lavfi -i sine=f=600:r=48000 \
                    -c:v libx264 -preset ultrafast -tune zerolatency -g 25 -pix_fmt yuv420p -c:a aac";

/// A web server of a folder; `/to/URL` redirects to URL, `/gzip/NAME` compresses the file.
pub struct Web {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Web {
    pub fn new(folder: &Path) -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let (asked, folder) = (Arc::<Mutex<Vec<String>>>::default(), folder.to_owned());
        let log = asked.clone();
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let (folder, log) = (folder.clone(), log.clone());
                thread::spawn(move || answer(connection, &folder, &log));
            }
        });
        Self { address: SocketAddr::from(([127, 0, 0, 1], port)), asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panics").clone()
    }
}

fn answer(mut connection: TcpStream, folder: &Path, log: &Mutex<Vec<String>>) -> Option<()> {
    let to = connection.local_addr().ok()?;
    let mut lines = BufReader::new(connection.try_clone().ok()?).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let headers: BTreeMap<String, String> = lines
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())))
        .collect();
    log.lock().expect("nobody panics").push(format!("{} {path}", to.ip()));
    if let Some(url) = path.strip_prefix("/to/") {
        let head = format!("HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return connection.write_all(head.as_bytes()).ok();
    }
    let (name, compresses) = match path.strip_prefix("/gzip/") {
        Some(name) => (name, true),
        None => (path.trim_start_matches('/'), false),
    };
    let Ok(mut body) = std::fs::read(folder.join(name)) else {
        return connection.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok();
    };
    if compresses {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&body).ok()?;
        body = encoder.finish().ok()?;
        let length = body.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        connection.write_all(head.as_bytes()).ok()?;
        return connection.write_all(&body).ok();
    }
    let whole = body.len();
    let from = headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let status = match from {
        Some(from) => {
            body = body.split_off(usize::min(from, whole));
            format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{whole}", whole - 1)
        }
        None => "200 OK".to_owned(),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nAccept-Ranges: bytes\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).ok()?;
    connection.write_all(&body).ok()
}

fn check_both(rig: &Rig) {
    assert!(!rig.pictures().is_empty());
    let heard: Vec<f32> = rig.sound().into_iter().flat_map(|(_, _, samples)| samples).collect();
    assert!(tone(&heard[heard.len() / 2..], 600.0) > 0.9, "no tone");
}

const FILM: &str =
    "-f lavfi -i testsrc2=s=320x180:r=25:d=3 -f lavfi -i sine=f=600:d=3 -c:v libx264 -preset fast -g 25 -c:a aac";

#[test]
fn a_file_with_its_index_at_the_end_is_played_by_http_and_through_a_redirect() {
    let clips = Clips::new();
    clips.make("film.mp4", FILM);
    let web = Web::new(clips.folder());
    let mut rig = Rig::new(settings(&format!("http://{0}/to/http://{0}/film.mp4", web.address), clips.folder()));
    assert_eq!(rig.until_ended(), None);
    assert_eq!(rig.frames().len(), 75);
    check_both(&rig);
}

#[test]
fn hls_is_played_to_its_end_with_separate_audio_and_with_mp4_segments() {
    let clips = Clips::new();
    clips.make("list.m3u8", &format!("{FILM} -f hls -hls_time 1 -hls_list_size 0"));
    std::fs::create_dir(clips.folder().join("parts")).expect("room for it");
    let parts =
        "-map 0:v -map 1:a -f hls -hls_time 1 -hls_list_size 0 -hls_segment_type fmp4 -master_pl_name main.m3u8";
    let mut command = ffmpeg(&format!("{FILM} {parts}"));
    command.args(["-var_stream_map", "v:0,agroup:sound a:0,agroup:sound", "v%v.m3u8"]);
    assert!(command.current_dir(clips.folder().join("parts")).status().expect("ffmpeg is installed").success());
    let web = Web::new(clips.folder());
    for list in ["list.m3u8", "parts/main.m3u8"] {
        let mut rig = Rig::new(settings(&format!("http://{}/{list}", web.address), clips.folder()));
        assert_eq!(rig.until_ended(), None, "{list}");
        assert!((70..=76).contains(&rig.frames().len()), "{list}: {} pictures", rig.frames().len());
        check_both(&rig);
    }
}

#[test]
fn playlists_and_redirects_cannot_reach_refused_addresses() {
    let clips = Clips::new();
    let film = clips.make("film.ts", "-f lavfi -i testsrc2=s=320x180:r=25:d=3 -c:v libx264 -g 25");
    let web = Web::new(clips.folder());
    let port = web.address.port();
    let elsewhere = format!("http://127.0.0.2:{port}/film.ts");
    let local = format!("file://{}", film.display());
    let forbidden = [&*elsewhere, "http://[::ffff:169.254.169.254]/latest/meta-data", &*local, "http://localhost:22/"];
    for (i, url) in forbidden.iter().enumerate() {
        let name = format!("list{i}.m3u8");
        let list = format!("#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3.0,\n{url}\n#EXT-X-ENDLIST\n");
        std::fs::write(clips.folder().join(&name), list).expect("room for it");
        let key = format!(
            "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXT-X-KEY:METHOD=AES-128,URI=\"{url}\"\n#EXTINF:3.0,\nfilm.ts\n\
             #EXT-X-ENDLIST\n"
        );
        std::fs::write(clips.folder().join(format!("key{i}.m3u8")), key).expect("room for it");
        let variant = format!("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\n{url}\n");
        std::fs::write(clips.folder().join(format!("variant{i}.m3u8")), variant).expect("room for it");
        for path in [name, format!("key{i}.m3u8"), format!("variant{i}.m3u8"), format!("to/{url}")] {
            let mut rig = Rig::new(settings(&format!("http://{}/{path}", web.address), clips.folder()));
            let refused = |rig: &Rig| rig.state() == Some(InputState::Reconnecting) || rig.ended.is_some();
            rig.until("a refusal", refused);
            assert!(rig.packets.is_empty(), "{path} with {url} was played");
            let reason = rig.reports.last().and_then(|(_, report)| report.reason.clone()).expect("a reason");
            assert!(!reason.contains("src/") && reason.len() < 300, "{path} with {url}: {reason}");
        }
    }
    let asked = web.asked();
    assert!(asked.iter().any(|asked| asked == "127.0.0.1 /list0.m3u8"), "{asked:?}");
    assert!(asked.iter().all(|asked| !asked.starts_with("127.0.0.2")), "{asked:?}");
}

/// A free UDP port.
pub fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port()
}

fn srt_server(port: u16) -> Running {
    let url = format!("srt://127.0.0.1:{port}?mode=listener&passphrase=0123456789ab");
    Running(ffmpeg(&format!("{LIVE} -f mpegts {url}")).spawn().expect("ffmpeg is installed"))
}

#[test]
fn a_killed_srt_sender_is_reconnected() {
    let (clips, port) = (Clips::new(), free_port());
    let server = srt_server(port);
    let mut rig = Rig::new(settings(&format!("srt://127.0.0.1:{port}?passphrase=0123456789ab"), clips.folder()));
    rig.until("picture and sound", |rig| {
        rig.of(SourceKind::Camera).len() > 50 && rig.of(SourceKind::Microphone).len() > 100
    });
    check_both(&rig);
    drop(server);
    rig.until("that it notices", |rig| rig.state() == Some(InputState::Reconnecting));
    let before = (rig.of(SourceKind::Camera).len(), rig.of(SourceKind::Microphone).len());
    let _server = srt_server(port);
    rig.until("more of both", |rig| {
        rig.of(SourceKind::Camera).len() > before.0 + 30 && rig.of(SourceKind::Microphone).len() > before.1 + 50
    });
    let (_, report) = rig.reports.last().expect("reports");
    assert!(report.reconnects > 0 && report.state == InputState::Live, "{report:?}");
}

#[test]
fn an_srt_sender_may_connect_to_us_and_stays_synchronized() {
    let (clips, port) = (Clips::new(), free_port());
    let mut rig = Rig::new(settings(&format!("srt://127.0.0.1:{port}?mode=listener"), clips.folder()));
    rig.listen(Duration::from_secs(1));
    let claps = CLAPS.replace("-f lavfi", "-re -f lavfi");
    let sender =
        format!("{claps} -c:v libx264 -preset fast -g 25 -pix_fmt yuv420p -c:a aac -f mpegts srt://127.0.0.1:{port}");
    let _sender = Running(ffmpeg(&sender).spawn().expect("ffmpeg is installed"));
    rig.until("five seconds", |rig| rig.of(SourceKind::Microphone).len() > 250);
    crate::check_claps(&rig, 3);
}

#[test]
fn an_endless_http_stream_is_requested_again_after_a_disconnect() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let clips = Clips::new();
    let film = clips.make("film.ts", FILM);
    thread::spawn(move || {
        for mut connection in listener.incoming().map_while(Result::ok) {
            let mut head = [0; 4096];
            let _ = connection.read(&mut head);
            // Closes the connection after three seconds of an endless stream.
            let body = std::fs::read(PathBuf::from(&film)).unwrap_or_default();
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nConnection: close\r\n\r\n");
            let _ = connection.write_all(&body);
        }
    });
    let mut rig = Rig::new(settings(&format!("http://{address}/live"), clips.folder()));
    rig.until("the second round", |rig| rig.frames().len() > 100);
    let (_, report) = rig.reports.last().expect("reports");
    assert_eq!((report.reconnects, report.reason.as_deref()), (1, Some("the source has ended")));
}

/// A free TCP port.
fn free_tcp_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

/// Waits until the port accepts connections.
fn until_open(port: u16) {
    for _ in 0..200 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return;
        }
        thread::park_timeout(Duration::from_millis(50));
    }
    panic!("nobody listens at port {port}");
}

fn live_claps() -> String {
    format!(
        "{} -c:v libx264 -preset fast -bf 2 -g 25 -pix_fmt yuv420p -c:a aac",
        CLAPS.replace("-f lavfi", "-re -f lavfi")
    )
}

#[test]
fn a_stream_of_an_rtmp_server_is_played() {
    let (clips, port) = (Clips::new(), free_tcp_port());
    let config = format!(
        "load_module /usr/lib/nginx/modules/ngx_rtmp_module.so; daemon off; master_process off; pid nginx.pid; \
         error_log error.log; events {{}}\n\
         rtmp {{ server {{ listen 127.0.0.1:{port}; application live {{ live on; }} }} }}\n"
    );
    std::fs::write(clips.folder().join("nginx.conf"), config).expect("room for it");
    let mut nginx = Command::new("nginx");
    nginx.arg("-p").arg(clips.folder()).args(["-c", "nginx.conf"]).stderr(Stdio::null());
    let _nginx = Running(nginx.spawn().expect("nginx is installed"));
    until_open(port);
    let url = format!("rtmp://127.0.0.1:{port}/live/key");
    let publish = || Running(ffmpeg(&format!("{} -f flv {url}", live_claps())).spawn().expect("ffmpeg is installed"));
    let publisher = publish();
    let mut rig = Rig::new(settings(&url, clips.folder()));
    rig.until("five seconds", |rig| rig.of(SourceKind::Microphone).len() > 250);
    crate::check_claps(&rig, 3);
    drop(publisher);
    rig.until("that it notices", |rig| rig.state() == Some(InputState::Reconnecting));
    let before = rig.of(SourceKind::Camera).len();
    let _publisher = publish();
    rig.until("more pictures", |rig| rig.of(SourceKind::Camera).len() > before + 30);
}

/// An RTSP server of one stream with a picture and a tone.
const RTSP_SERVER: &str = r#"
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    "( videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=25/1 "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 ! rtph264pay name=pay0 pt=96 "
    "audiotestsrc is-live=true freq=600 ! audioconvert ! audio/x-raw,rate=48000,channels=1 ! avenc_aac ! rtpmp4gpay name=pay1 pt=97 )")
auth = GstRtspServer.RTSPAuth()
token = GstRtspServer.RTSPToken()
token.set_string("media.factory.role", "user")
auth.add_basic(GstRtspServer.RTSPAuth.make_basic("ann", "secret"), token)
server.set_auth(auth)
permissions = GstRtspServer.RTSPPermissions()
permissions.add_permission_for_role("user", "media.factory.access", True)
permissions.add_permission_for_role("user", "media.factory.construct", True)
factory.set_permissions(permissions)
server.get_mount_points().add_factory("/door", factory)
server.attach(None)
GLib.MainLoop().run()
"#;

#[test]
fn a_stream_of_an_rtsp_camera_is_played() {
    let (clips, port) = (Clips::new(), free_tcp_port());
    let script = clips.folder().join("camera.py");
    std::fs::write(&script, RTSP_SERVER).expect("room for it");
    let camera =
        || Running(Command::new("/usr/bin/python3").arg(&script).arg(port.to_string()).spawn().expect("starts"));
    let running = camera();
    until_open(port);
    let mut rig = Rig::new(settings(&format!("rtsp://ann:secret@127.0.0.1:{port}/door"), clips.folder()));
    rig.until("picture and sound", |rig| {
        rig.of(SourceKind::Camera).len() > 50 && rig.of(SourceKind::Microphone).len() > 100
    });
    check_both(&rig);
    drop(running);
    rig.until("that it notices", |rig| rig.state() == Some(InputState::Reconnecting));
    let before = rig.of(SourceKind::Camera).len();
    let _running = camera();
    rig.until("more pictures", |rig| rig.of(SourceKind::Camera).len() > before + 30);

    let mut stranger = Rig::new(settings(&format!("rtsp://ann:wrong@127.0.0.1:{port}/door"), clips.folder()));
    stranger.until("a refusal", |rig| rig.state() == Some(InputState::Reconnecting));
    let (_, report) = stranger.reports.last().expect("reports");
    assert_eq!(report.reason.as_deref(), Some("the server answered 401"));
}
