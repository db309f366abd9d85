//! `commingle serve`: connects the modules of the serving process, and stops them in order.
//!
//! Owns: the flags, startup and shutdown, signals. Does not know: what the modules do. In: configuration and signals;
//! out: a running server, and a `ready` line on standard output.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use anyhow::Context;
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::task::TaskTracker;

use super::{ConfigArgs, Failure, environment, filters, flag, start_logs};
use crate::config::{self, Config, H264Encoder, Reload, TlsMode};
use crate::http::api::{self, App};
use crate::http::rtmp_ingest;
use crate::metrics::Metrics;
use crate::net::tcp::{self, TcpCounters};
use crate::net::tls::Tls;
use crate::net::turn;
use crate::net::udp::{self, Mux};
use crate::peer::PeerConfig;
use crate::process::{Ceiling, ProcessCommand};
use crate::recordings::{Finish, Library, Uploads};
use crate::rooms::HlsBroadcasts;
use crate::rooms::{InputServerSettings, RecordingSettings, RoomCounters, Rooms, ServerSettings};

/// The error if the executable, which also runs the child processes, is not found.
const OWN_FILE: &str = "cannot find the executable of this program, which is needed to start child processes";

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The address of HTTP; port 0 selects a free port [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<String>,
    /// The port for all media, UDP and ICE over TCP; 0 selects a free port [default: 8189]
    #[arg(long, value_name = "PORT")]
    media_port: Option<String>,
    /// The address of the media port [default: 0.0.0.0]
    #[arg(long, value_name = "IP")]
    media_bind: Option<String>,
    /// The public address of this machine, if it is behind NAT; may be given several times
    #[arg(long, value_name = "IP")]
    public_ip: Vec<String>,
    /// The port of the TURN server, UDP and TCP; 0 selects a free port [default: 3478, or a free port if it is in use]
    #[arg(long, value_name = "PORT", conflicts_with = "no_turn")]
    turn_port: Option<String>,
    /// Run no TURN server
    #[arg(long)]
    no_turn: bool,
    /// Serve HTTPS: `self-signed` creates a certificate at the first start, `acme` obtains one (see tls.names),
    /// `files` reads --tls-cert and --tls-key, `off` is HTTP [default: off]
    #[arg(long, value_name = "MODE")]
    tls: Option<String>,
    /// The certificate and its chain, a PEM file; reloaded when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The port for encoders that push by RTMP [default: none]
    #[arg(long, value_name = "PORT")]
    rtmp_port: Option<String>,
    /// The data folder, which contains the recordings [default: data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Serve other machines without a key: every client may join and moderate all rooms
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
    // Reported like an error in the configuration.
    config.filters()?;
    start_logs()?;
    filters::check_in_background(&config);
    for name in config::unknown_variables(environment()) {
        tracing::warn!("the environment variable {name} is not a setting; check its spelling");
    }
    if !config.auth.has_key() && config.auth.insecure && !config.http.bind.ip().is_loopback() {
        tracing::warn!("no key is set: every client that reaches {} may join and moderate all rooms", config.http.bind);
    }
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(args, config)).map_err(Failure::Running)
}

async fn serve(args: &ServeArgs, mut config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut running = config.clone();
    discover_addresses(&mut config.media).await?;
    let (mux, tcp) = media_port(&config)?;
    watch_addresses(&config.media, &mux);
    let listener = TcpListener::bind(config.http.bind).await.with_context(|| {
        format!("cannot bind {} for HTTP; choose another with --http, port 0 selects a free port", config.http.bind)
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
    let peers = PeerConfig::new(mux).context("cannot start the threads for viewers")?;
    let rooms = Rooms::new(settings, peers);
    rooms.restore(Path::new(&config.data.dir));
    tokio::spawn(rooms.clone().follow(library.changes()));
    let app = App::new(&config, rooms.clone(), library.clone(), metrics, ice_servers);
    let fingerprint = tls.as_ref().and_then(Tls::fingerprint).map(str::to_owned);
    let server = tokio::spawn(api::serve(listener, app.clone(), tls, turn));
    if config.inputs.rtmp_port != 0 {
        let address = SocketAddr::new(config.inputs.rtmp_bind, config.inputs.rtmp_port);
        let listener = TcpListener::bind(address).await;
        let listener = listener
            .with_context(|| format!("cannot bind {address} for RTMP; choose another port with --rtmp-port"))?;
        tracing::info!(%address, "listening for RTMP encoders");
        tokio::spawn(rtmp_ingest::serve(listener, app.clone()));
    }
    announce(http, media, &config, fingerprint.as_deref())?;

    loop {
        tokio::select! {
            () = signals.next() => break,
            _ = hangup.recv() => reload(args, &mut running, &app, &library),
        }
    }
    tracing::info!("shutting down: no more joins; a second signal stops at once");
    app.drain();
    let ending = async {
        rooms.shutdown().await;
        library.close().await;
        app.close();
        server.await
    };
    tokio::select! {
        ended = ending => ended.context("the HTTP server panicked"),
        () = signals.next() => anyhow::bail!("stopped at once by a second signal"),
    }
}

/// Reads the configuration again and applies what a running server can change. An invalid one changes nothing.
fn reload(args: &ServeArgs, running: &mut Config, app: &App, library: &Library) {
    let failed = "SIGHUP: configuration not reloaded; the server continues with the previous one";
    let reload = match args.load() {
        Ok(new) => Reload::new(running, &new),
        Err(Failure::Usage(error) | Failure::Running(error)) => Err(format!("{error:#}")),
    };
    let Reload { config, applied, kept } = match reload {
        Ok(reload) => reload,
        Err(error) => return tracing::error!("{failed}: {error}"),
    };
    match settings(&config, library.clone()) {
        Ok(settings) => app.reconfigure(&config, settings),
        Err(error) => return tracing::error!("{failed}: {error:#}"),
    }
    *running = config;
    tracing::info!(changed = applied.len(), needs_restart = kept.len(), "SIGHUP: configuration reloaded");
    for change in applied {
        tracing::info!("configuration: {change} applies from now on");
    }
    for change in kept {
        tracing::warn!("configuration: {change} applies only after a restart");
    }
}

/// Asks the configured STUN server for the public addresses of this machine.
async fn discover_addresses(media: &mut config::Media) -> anyhow::Result<()> {
    if let Some(server) = &media.stun_server {
        let public = udp::public_addresses(server, media.bind).await?;
        tracing::info!(?public, server, "public addresses from the STUN server; candidates use them");
        media.public_ips = public;
    }
    Ok(())
}

/// Repeats this regularly, because the public address may change.
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
        format!("cannot bind the media port {media}; choose another with --media-port, 0 selects a free port")
    })?;
    Ok((mux, tcp))
}

/// Raises the limit of open files to its maximum: every connection is one.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    // On an error, `commingle doctor` gives advice.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// TLS, if it is configured.
async fn tls(config: &Config, mux: &Mux) -> anyhow::Result<Option<Tls>> {
    let mut addresses: Vec<IpAddr> = mux.advertised_addresses().iter().map(SocketAddr::ip).collect();
    addresses.push(config.http.bind.ip());
    addresses.retain(|ip| !ip.is_unspecified());
    Tls::new(&config.tls, &config.data.dir, &addresses).await.map_err(anyhow::Error::msg)
}

/// Opens the recordings on disk, and repairs and uploads what earlier servers left.
fn library(config: &Config) -> anyhow::Result<Library> {
    // Output processes get an absolute path, because their working folder may differ.
    let data = std::path::absolute(&config.data.dir).context("cannot resolve data.dir")?;
    Ok(Library::open(&data, Finish::in_place(), Uploads::new(&config.upload)?))
}

/// The settings of rooms, from the configuration.
fn settings(config: &Config, library: Library) -> anyhow::Result<ServerSettings> {
    Ok(ServerSettings {
        mixer: ProcessCommand::own("mixer", Ceiling::mixer(config.processes.mixer_memory_mib)).context(OWN_FILE)?,
        output: ProcessCommand::own("output", Ceiling::output(config.processes.output_memory_mib)).context(OWN_FILE)?,
        recordings: RecordingSettings {
            folder: library.folder().to_owned(),
            floor_bytes: u64::from(config.recordings.floor_mb) * 1_000_000,
        },
        library,
        broadcasts: config.outputs.guard(),
        max_outputs: config.rooms.max_outputs as usize,
        inputs: InputServerSettings {
            command: ProcessCommand::own("input", Ceiling::input(config.processes.input_memory_mib))
                .context(OWN_FILE)?,
            guard: config.inputs.guard(),
            media_dir: std::path::absolute(config.media_dir()).context("cannot resolve inputs.media_dir")?,
        },
        max_inputs: config.rooms.max_inputs as usize,
        canvas: config.video.canvas,
        fps: config.video.fps,
        ladder: config.ladder(),
        encodable: config.video.codecs.clone(),
        openh264: config.video.h264_encoder == H264Encoder::OpenH264,
        max_source: config.video.max_source,
        transition_ms: config.video.transition_ms,
        filters: Arc::new(config.filters()?),
        filter_budget: config.filters.frame_budget(),
        mixer_threads: thread::available_parallelism().map_or(1, |threads| threads.get() as u32),
        auto_create: config.rooms.auto_create,
        max_participants: config.rooms.max_participants as usize,
        max_viewers: config.rooms.max_viewers as usize,
        direct_for_two: config.rooms.direct_for_two,
        max_rooms: config.rooms.max_rooms as usize,
        linger: config.rooms.linger(),
        chat_history: config.rooms.chat_history as usize,
        counters: RoomCounters::default(),
        hls: HlsBroadcasts::default(),
        endings: TaskTracker::new(),
    })
}

/// Registers the counters of the media port.
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
    read!("udp_stun_limited", "Plain STUN requests not answered because of the rate limit", stun_limited);
    read!("udp_dropped_malformed", "Malformed STUN messages", dropped_malformed);
    read!("udp_dropped_unknown_ufrag", "ICE checks with an unknown username fragment", dropped_unknown_ufrag);
    read!("udp_dropped_unauthenticated", "STUN messages without valid MESSAGE-INTEGRITY", dropped_unauthenticated);
    read!(
        "udp_dropped_unvalidated",
        "DTLS, SRTP or other datagrams from addresses that no connection has validated",
        dropped_unvalidated
    );
    read!("udp_dropped_inbox", "Datagrams dropped because the queue of their connection was full", dropped_inbox);
    read!(
        "udp_checks_limited",
        "ICE checks not sent because too many to the same network went unanswered",
        checks_limited
    );
    read!("tunnel_received", "Datagrams received through tunnels: ICE over TCP, TURN relays", tunnel_received);
    read!("tunnel_sent", "Datagrams sent through tunnels", tunnel_sent);
    read!("tunnel_dropped", "Datagrams dropped because their tunnel was full or closed", tunnel_dropped);
    read!("tunnels_opened", "Tunnels opened", tunnels_opened);
    read!("tunnels_closed", "Tunnels closed", tunnels_closed);
}

/// Prints on standard output that the server is ready, and the URLs to open.
fn announce(http: SocketAddr, media: SocketAddr, config: &Config, fingerprint: Option<&str>) -> io::Result<()> {
    let url = page(http, config);
    let mut out = io::stdout().lock();
    writeln!(out, "ready http={http} media={media} open={url}")?;
    writeln!(out, "  a call    {url}?room=demo")?;
    writeln!(out, "  publish   {url}whip/demo")?;
    writeln!(out, "  watch     {url}whep/demo")?;
    if config.tls.mode == TlsMode::SelfSigned {
        writeln!(out, "  the certificate is self-signed; browsers show a warning once. Its SHA-256:")?;
        writeln!(out, "  {}", fingerprint.unwrap_or_default())?;
    }
    if config.auth.key.is_some() {
        writeln!(out, "  tokens    commingle token --room demo --role participant")?;
    }
    out.flush()
}

/// The URL of the page for `http`.
pub(super) fn page(http: SocketAddr, config: &Config) -> String {
    let scheme = if config.tls.mode == TlsMode::Off { "http" } else { "https" };
    // The certificate is valid only for its names.
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
    fn the_printed_url_can_be_opened() {
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
