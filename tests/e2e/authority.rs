//! ACME certificates from pebble, the test server of Let's Encrypt, which validates our HTTPS port.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use commingle::{dial, time};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::server::{Server, Settings, commingle};
use crate::turn;

/// Time limit of every wait.
const PATIENCE: Duration = Duration::from_secs(30);
/// Interval between two checks.
const LOOK: Duration = Duration::from_millis(50);
/// Validity of a certificate that is renewed soon: after two thirds of it.
const SHORT: Duration = Duration::from_secs(9);
/// Validity of a certificate that is not renewed during the test.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// An ACME server on loopback, and the folder of its files.
struct Pebble {
    folder: tempfile::TempDir,
    /// The ports of ACME and of the management interface.
    ports: [u16; 2],
    running: Option<Child>,
}

impl Pebble {
    /// Writes the files; the server is not started yet.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("the temporary folder can be written");
        let key = KeyPair::generate().expect("there is randomness");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("it can be signed").pem();
        fs::write(folder.path().join("own.pem"), certificate).expect("just made");
        fs::write(folder.path().join("own.key"), key.serialize_pem()).expect("just made");
        Self { folder, ports: [free_port(), free_port()], running: None }
    }

    /// The certificate of pebble's own HTTPS server.
    fn own(&self) -> PathBuf {
        self.folder.path().join("own.pem")
    }

    fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.ports[0])
    }

    /// Starts pebble with a new root. It validates servers at `tls_port` and issues certificates valid for `good_for`.
    fn start(&mut self, tls_port: u16, good_for: Duration) {
        self.stop();
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let listens = self.ports.map(|port| format!("127.0.0.1:{port}"));
        let config = json!({"pebble": {
            "listenAddress": listens[0],
            "managementListenAddress": listens[1],
            "certificate": file("own.pem"),
            "privateKey": file("own.key"),
            "httpPort": 9,
            "tlsPort": tls_port,
            "certificateValidityPeriod": good_for.as_secs(),
        }});
        fs::write(file("pebble.json"), config.to_string()).expect("just made");
        let child = Command::new("pebble")
            .args(["-config", &file("pebble.json")])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "0")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("`make test` installs pebble");
        self.running = Some(child);
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.running.take() {
            child.kill().expect("it is not reaped yet");
            child.wait().expect("it is ours");
        }
    }

    /// The file with the root of the issued certificates.
    fn root(&self) -> PathBuf {
        let text = fetch(&format!("https://localhost:{}/roots/0", self.ports[1]), &self.own()).expect("it runs");
        let file = self.folder.path().join("root.pem");
        fs::write(&file, text).expect("just made");
        file
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("it is bound").port()
}

/// Fetches a URL whose server must have a certificate issued by `root`.
fn fetch(url: &str, root: &Path) -> Result<String, ureq::Error> {
    let root = Certificate::from_pem(&fs::read(root).expect("it was written"))?;
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(vec![root])))
        .unversioned_rustls_crypto_provider(dial::crypto())
        .build();
    let config = ureq::Agent::config_builder().tls_config(tls).timeout_global(Some(PATIENCE)).build();
    ureq::Agent::new_with_config(config).get(url).call()?.body_mut().read_to_string()
}

#[track_caller]
fn until(what: &str, server: &Server, mut done: impl FnMut() -> bool) -> Duration {
    let from = time::now();
    while !done() {
        assert!(time::now().since(from) < PATIENCE, "{what} did not happen in time; log:\n{}", server.log());
        thread::park_timeout(LOOK);
    }
    time::now().since(from)
}

#[test]
fn acme_certificates_are_obtained_renewed_and_kept() {
    let _turn = turn();
    let data = tempfile::tempdir().expect("the temporary folder can be written");
    let mut pebble = Pebble::new();
    let (directory, root) =
        (format!("tls.acme_directory={}", pebble.directory()), format!("tls.acme_root={}", pebble.own().display()));
    let arguments = ["--tls", "acme", "--set", "tls.names=localhost", "--set", &directory, "--set", &root];
    let start = || {
        let settings = Settings { turn: true, arguments: &arguments, data: Some(data.path()), ..Settings::default() };
        let server = Server::start_with(&settings);
        let health = format!("https://localhost:{}/healthz", server.http.port());
        (server, health)
    };

    // The authority is not running: clients are served with a self-signed certificate.
    let (server, health) = start();
    until("the complaint", &server, || server.log().contains("cannot be asked"));
    assert!(server.log().contains("tls.acme_directory"), "{}", server.log());
    fetch(&health, &data.path().join("tls/certificate.pem")).expect("a certificate of its own is shown");

    // The authority validates another port.
    pebble.start(free_port(), SHORT);
    until("the refusal", &server, || server.log().contains("cannot see that localhost is this server"));

    pebble.start(server.http.port(), SHORT);
    until("the authority's start", &server, || fetch(&pebble.directory(), &pebble.own()).is_ok());
    let root = pebble.root();
    let took = until("the certificate", &server, || fetch(&health, &root).is_ok());
    println!("certificate issued {took:?} after the authority was available");

    // The certificate is renewed before it expires.
    pebble.start(server.http.port(), LONG);
    until("the authority's start", &server, || fetch(&pebble.directory(), &pebble.own()).is_ok());
    let root = pebble.root();
    let took = until("the next certificate", &server, || fetch(&health, &root).is_ok());
    println!("certificate renewed {took:?} later");

    // TURN shares the port and the certificate.
    let doctor = |server: &Server| {
        let url = format!("https://localhost:{}", server.http.port());
        let output = commingle().args(["doctor", "--url", &url]).env("SSL_CERT_FILE", &root).output();
        let output = output.expect("it was built");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    let turn = |server: &Server| format!("ok      TURN by TLS at localhost:{}: answers after ", server.http.port());
    let (code, said) = doctor(&server);
    assert!(code == Some(0) && said.contains(&turn(&server)), "{code:?}: {said}");
    server.stop();

    // The next start uses the stored certificate without contacting the authority.
    pebble.stop();
    let (server, health) = start();
    let took = until("the certificate", &server, || fetch(&health, &root).is_ok());
    println!("stored certificate used {took:?} after the next start");
    assert!(took < Duration::from_secs(1), "{took:?}");
    let (code, said) = doctor(&server);
    assert!(code == Some(0) && said.contains(&turn(&server)), "{code:?}: {said}");
    assert!(
        server.log().contains("ACME certificate loaded") && !server.log().contains("ACME failed"),
        "{}",
        server.log()
    );
    server.stop();
}
