//! `commingle serve`: wires the parts of the edge together, and ends them in order.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use anyhow::Context;
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::task::TaskTracker;

use super::{ConfigArgs, Failure, environment, flag, start_logs};
use crate::config::{self, Config, H264Encoder, TlsMode};
use crate::http::api::{self, App};
use crate::http::rtmp_ingest;
use crate::metrics::Metrics;
use crate::net::tcp::{self, TcpCounters};
use crate::net::tls::Tls;
use crate::net::turn;
use crate::net::udp::{self, Mux};
use crate::peer::PeerConfig;
use crate::process::ProcessCommand;
use crate::recordings::{Finish, Library, Uploads};
use crate::rooms::HlsBroadcasts;
use crate::rooms::{InputServerSettings, RecordingSettings, RoomCounters, Rooms, ServerSettings};

/// Why no child process could be started.
const OWN_FILE: &str = "cannot find this program's own file, which mixers and outputs are started from";

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where HTTP listens; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<String>,
    /// The one port of all media, UDP and ICE over TCP; 0 takes a free one [default: 8189]
    #[arg(long, value_name = "PORT")]
    media_port: Option<String>,
    /// The address the media port listens at [default: 0.0.0.0]
    #[arg(long, value_name = "IP")]
    media_bind: Option<String>,
    /// An address that others reach this machine by, when it stands behind NAT; may be given several times
    #[arg(long, value_name = "IP")]
    public_ip: Vec<String>,
    /// The port of the TURN server, UDP and TCP; 0 takes a free one [default: 3478, or a free one where that is taken]
    #[arg(long, value_name = "PORT", conflicts_with = "no_turn")]
    turn_port: Option<String>,
    /// Run no TURN server
    #[arg(long)]
    no_turn: bool,
    /// Serve HTTPS: `self-signed` makes a certificate at the first start, `acme` fetches one (see tls.names), `files` reads the
    /// two that follow, `off` is HTTP [default: off]
    #[arg(long, value_name = "MODE")]
    tls: Option<String>,
    /// The file of the certificate and its chain, PEM; read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The file of the certificate's key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The port that encoders may push to by RTMP [default: none]
    #[arg(long, value_name = "PORT")]
    rtmp_port: Option<String>,
    /// Where recordings go [default: data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Serve other addresses than this machine's own without a key: everybody who reaches it may join and moderate
    #[arg(long)]
    insecure: bool,
}

impl ServeArgs {
    fn load(&self) -> Result<Config, Failure> {
        let given = [
            ("http.bind", "--http", &self.http),
            ("media.port", "--media-port", &self.media_port),
            ("media.bind", "--media-bind", &self.media_bind),
            ("tls.mode", "--tls", &self.tls),
            ("turn.port", "--turn-port", &self.turn_port),
            ("inputs.rtmp_port", "--rtmp-port", &self.rtmp_port),
        ];
        let mut flags: Vec<_> =
            given.into_iter().filter_map(|(key, name, value)| Some(flag(key, name, value.as_ref()?))).collect();
        if !self.public_ip.is_empty() {
            flags.push(flag("media.public_ips", "--public-ip", self.public_ip.join(",")));
        }
        if let (Some(cert), Some(key)) = (&self.tls_cert, &self.tls_key) {
            flags.push(flag("tls.cert", "--tls-cert", cert.display()));
            flags.push(flag("tls.key", "--tls-key", key.display()));
            if self.tls.is_none() {
                flags.push(flag("tls.mode", "--tls-cert:", "files"));
            }
        }
        if let Some(dir) = &self.data_dir {
            flags.push(flag("data.dir", "--data-dir", dir.display()));
        }
        if self.no_turn {
            flags.push(flag("turn.enabled", "--no-turn:", false));
        }
        if self.insecure {
            flags.push(flag("auth.insecure", "--insecure:", true));
        }
        self.config.load(flags)
    }
}

pub(super) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let config = args.load()?;
    start_logs()?;
    for name in config::unknown_variables(environment()) {
        tracing::warn!("environment {name} sets nothing; is it meant to?");
    }
    if config.auth.key.is_none() && config.auth.insecure && !config.http.bind.ip().is_loopback() {
        tracing::warn!("there is no key: everybody who reaches {} may join any room and moderate it", config.http.bind);
    }
    allow_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(config)).map_err(Failure::Running)
}

async fn serve(mut config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    ask_for_addresses(&mut config.media).await?;
    let (mux, tcp) = media_port(&config)?;
    watch_addresses(&config.media, &mux);
    let listener = TcpListener::bind(config.http.bind).await.with_context(|| {
        format!("cannot bind {} for HTTP; choose another by --http, port 0 takes a free one", config.http.bind)
    })?;
    let http = listener.local_addr()?;
    let media = mux.local_addr();

    let metrics = Arc::new(Metrics::default());
    register_udp(&metrics, &mux);
    metrics.register(|registry| tcp.register(registry));
    let library = library(&config)?;
    metrics.register(|registry| library.counters().register(registry));
    let settings = settings(&config, library.clone())?;
    metrics.register(|registry| settings.counters.register(registry));
    let tls = tls(&config, &mux).await?;
    let https_port = tls.as_ref().map(|_| http.port());
    let (ice_servers, turn) = turn::start(&config, &mux, tls.as_ref(), https_port).map_err(anyhow::Error::msg)?;
    if let Some(turn) = &turn {
        turn.register(&metrics);
    }
    let peers = PeerConfig::new(mux).context("cannot prepare for viewers")?;
    let rooms = Rooms::new(settings, peers);
    tokio::spawn(rooms.clone().follow(library.changes()));
    let app = App::new(&config, rooms.clone(), library.clone(), metrics, ice_servers);
    let fingerprint = tls.as_ref().and_then(Tls::fingerprint).map(str::to_owned);
    let server = tokio::spawn(api::serve(listener, app.clone(), tls, turn));
    if config.inputs.rtmp_port != 0 {
        let address = SocketAddr::new(config.inputs.rtmp_bind, config.inputs.rtmp_port);
        let listener = TcpListener::bind(address).await;
        let listener =
            listener.with_context(|| format!("cannot bind {address} for RTMP; choose another by --rtmp-port"))?;
        tracing::info!(%address, "encoders may push by RTMP");
        tokio::spawn(rtmp_ingest::serve(listener, app.clone()));
    }
    announce(http, media, &config, fingerprint.as_deref())?;

    signals.next().await;
    tracing::info!("stopping: no more joins; a second signal ends at once");
    app.drain();
    let ending = async {
        rooms.shutdown().await;
        library.close().await;
        app.close();
        server.await
    };
    tokio::select! {
        ended = ending => ended.context("the HTTP server panicked"),
        () = signals.next() => anyhow::bail!("ended at once by a second signal"),
    }
}

/// Asks which addresses others reach this machine by, where that is wanted.
async fn ask_for_addresses(media: &mut config::Media) -> anyhow::Result<()> {
    if let Some(server) = &media.stun_server {
        let public = udp::public_addresses(server, media.bind).await?;
        tracing::info!(?public, server, "the STUN server sees this machine at these addresses: browsers are told them");
        media.public_ips = public;
    }
    Ok(())
}

/// Asks again all the time, where it was asked.
fn watch_addresses(media: &config::Media, mux: &Arc<Mux>) {
    if let Some(server) = &media.stun_server {
        tokio::spawn(udp::watch_public_addresses(Arc::downgrade(mux), server.clone(), media.bind));
    }
}

/// Binds the media port.
fn media_port(config: &Config) -> anyhow::Result<(Arc<Mux>, TcpCounters)> {
    let public = config.media.public_ips.clone();
    let media = SocketAddr::new(config.media.bind, config.media.port);
    let tcp = TcpCounters::default();
    let bound = if config.media.tcp { tcp::bind(media, public, &tcp) } else { Mux::bind(media, public) };
    let mux = bound.with_context(|| {
        format!("cannot bind the media port {media}; choose another by --media-port, 0 takes a free one")
    })?;
    Ok((mux, tcp))
}

/// Every connection is a file: asks for as many as this process may have.
fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused, `commingle doctor` says what to do.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// TLS, where it is configured.
async fn tls(config: &Config, mux: &Mux) -> anyhow::Result<Option<Tls>> {
    let mut addresses: Vec<IpAddr> = mux.told_addresses().iter().map(SocketAddr::ip).collect();
    addresses.push(config.http.bind.ip());
    addresses.retain(|ip| !ip.is_unspecified());
    Tls::new(&config.tls, &config.data.dir, &addresses).await.map_err(anyhow::Error::msg)
}

/// The recordings on disk; what earlier servers left is mended and uploaded from now on.
fn library(config: &Config) -> anyhow::Result<Library> {
    // Outputs are told where to write, and may run elsewhere.
    let data = std::path::absolute(&config.data.dir).context("cannot tell where data.dir is")?;
    Ok(Library::open(&data, Finish::in_place(), Uploads::new(&config.upload)?))
}

/// What the rooms are made with, from what is configured.
fn settings(config: &Config, library: Library) -> anyhow::Result<ServerSettings> {
    Ok(ServerSettings {
        mixer: ProcessCommand::own("mixer").context(OWN_FILE)?,
        output: ProcessCommand::own("output").context(OWN_FILE)?,
        recordings: RecordingSettings {
            folder: library.folder().to_owned(),
            floor_bytes: u64::from(config.recordings.floor_mb) * 1_000_000,
        },
        library,
        broadcasts: config.outputs.guard(),
        max_outputs: config.rooms.max_outputs as usize,
        inputs: InputServerSettings {
            command: ProcessCommand::own("input").context(OWN_FILE)?,
            guard: config.inputs.guard(),
            media_dir: std::path::absolute(config.media_dir()).context("cannot tell where inputs.media_dir is")?,
        },
        max_inputs: config.rooms.max_inputs as usize,
        canvas: config.video.canvas,
        fps: config.video.fps,
        ladder: config.ladder(),
        encodable: config.video.codecs.clone(),
        openh264: config.video.h264_encoder == H264Encoder::OpenH264,
        max_source: config.video.max_source,
        mixer_threads: thread::available_parallelism().map_or(1, |threads| threads.get() as u32),
        auto_create: config.rooms.auto_create,
        max_participants: config.rooms.max_participants as usize,
        max_viewers: config.rooms.max_viewers as usize,
        direct_for_two: config.rooms.direct_for_two,
        max_rooms: config.rooms.max_rooms as usize,
        linger: config.rooms.linger(),
        counters: RoomCounters::default(),
        hls: HlsBroadcasts::default(),
        endings: TaskTracker::new(),
    })
}

/// The media port counts for itself; the metrics read it.
fn register_udp(metrics: &Metrics, mux: &Arc<Mux>) {
    macro_rules! read {
        ($name:literal, $help:literal, $field:ident) => {
            let counted = Arc::clone(mux);
            metrics.register_count($name, $help, move || counted.stats().$field.load(Ordering::Relaxed));
        };
    }
    read!("udp_received", "Datagrams received at the media port", received);
    read!("udp_received_bytes", "Bytes received at the media port", received_bytes);
    read!("udp_sent", "Datagrams sent from the media port", sent);
    read!("udp_sent_bytes", "Bytes sent from the media port", sent_bytes);
    read!("udp_send_dropped", "Datagrams that the kernel did not take", send_dropped);
    read!("udp_stun_answered", "Plain STUN requests answered", stun_answered);
    read!("udp_stun_limited", "Plain STUN requests not answered: too many", stun_limited);
    read!("udp_dropped_malformed", "STUN that cannot be read", dropped_malformed);
    read!("udp_dropped_unknown_ufrag", "ICE checks for nobody here", dropped_unknown_ufrag);
    read!("udp_dropped_unauthenticated", "STUN without a valid integrity", dropped_unauthenticated);
    read!("udp_dropped_unvalidated", "Datagrams from addresses no connection has validated", dropped_unvalidated);
    read!("udp_dropped_inbox", "Datagrams for connections that read too slowly", dropped_inbox);
    read!("way_received", "Datagrams received by other ways than UDP: TCP, relays", way_received);
    read!("way_sent", "Datagrams sent by other ways than UDP", way_sent);
    read!("way_dropped", "Datagrams that such ways did not take: too slow, or gone", way_dropped);
    read!("ways_opened", "Ways other than UDP opened", ways_opened);
    read!("ways_closed", "Ways other than UDP closed", ways_closed);
}

/// Says on standard output that all is ready, and what to open.
fn announce(http: SocketAddr, media: SocketAddr, config: &Config, fingerprint: Option<&str>) -> io::Result<()> {
    let url = page(http, config);
    let mut out = io::stdout().lock();
    writeln!(out, "ready http={http} media={media} open={url}")?;
    writeln!(out, "  a call    {url}?room=demo")?;
    writeln!(out, "  publish   {url}whip/demo")?;
    writeln!(out, "  watch     {url}whep/demo")?;
    if config.tls.mode == TlsMode::SelfSigned {
        writeln!(out, "  the certificate is self-signed: browsers ask once whether to trust it. Its SHA-256:")?;
        writeln!(out, "  {}", fingerprint.unwrap_or_default())?;
    }
    if config.auth.key.is_some() {
        writeln!(out, "  tokens    commingle token --room demo --role participant")?;
    }
    out.flush()
}

/// What to type into a browser to get to `http`.
pub(super) fn page(http: SocketAddr, config: &Config) -> String {
    let scheme = if config.tls.mode == TlsMode::Off { "http" } else { "https" };
    // A certificate is for the name it was given for.
    if let (TlsMode::Files | TlsMode::Acme, Some(name)) = (config.tls.mode, config.tls.names.first()) {
        return format!("{scheme}://{name}:{}/", http.port());
    }
    let ip = match (http.ip().is_unspecified(), config.media.public_ips.first()) {
        (false, _) => http.ip(),
        (true, Some(public)) => *public,
        (true, None) => Ipv4Addr::LOCALHOST.into(),
    };
    format!("{scheme}://{}/", SocketAddr::new(ip, http.port()))
}

/// SIGTERM and SIGINT.
struct Signals {
    term: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_can_be_opened() {
        let at = |address: &str, public: &[&str], tls: config::Tls| {
            let mut config = Config { tls, ..Config::default() };
            config.media.public_ips = public.iter().map(|ip| ip.parse().expect("an address")).collect();
            page(address.parse().expect("an address"), &config)
        };
        let off = config::Tls::default;
        assert_eq!(at("127.0.0.1:8080", &["203.0.113.7"], off()), "http://127.0.0.1:8080/");
        assert_eq!(at("0.0.0.0:80", &[], off()), "http://127.0.0.1:80/");
        assert_eq!(at("[::]:80", &["2001:db8::1"], off()), "http://[2001:db8::1]:80/");
        let names = vec!["call.example.org".to_owned()];
        let acme = config::Tls { mode: TlsMode::Acme, names: names.clone(), ..off() };
        assert_eq!(at("0.0.0.0:443", &["203.0.113.7"], acme), "https://call.example.org:443/");
        let own = config::Tls { mode: TlsMode::SelfSigned, names, ..off() };
        assert_eq!(at("0.0.0.0:443", &["203.0.113.7"], own), "https://203.0.113.7:443/");
    }
}
