//! Real handshakes on loopback, by a client that trusts one certificate.

use std::fs;
use std::sync::Mutex;

use rcgen::{CertificateParams, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_acme::CertCache;
use rustls_acme::caches::DirCache;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;

use super::*;

/// Takes every certificate, and remembers the last one.
#[derive(Debug, Default)]
struct Witness(Mutex<Vec<u8>>);

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.0.lock().expect("nobody panics with it") = end_entity.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = dial::crypto().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = dial::crypto().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        dial::crypto().signature_verification_algorithms.supported_schemes()
    }
}

/// A client's side of a connection, and the fingerprint of what it was shown.
pub(crate) async fn connect(
    address: std::net::SocketAddr,
    alpn: &[&[u8]],
) -> io::Result<(tokio_rustls::client::TlsStream<TcpStream>, String)> {
    let witness = Arc::new(Witness::default());
    let builder = ClientConfig::builder_with_provider(dial::crypto()).with_safe_default_protocol_versions();
    let builder = builder.expect("the provider has both").dangerous();
    let mut config = builder.with_custom_certificate_verifier(Arc::clone(&witness) as _).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("call.example.org").expect("a name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let shown = sha256(&witness.0.lock().expect("nobody panics with it"));
    Ok((stream, shown))
}

/// TLS with a certificate of its own, in a folder that must be kept.
pub(crate) async fn self_signed() -> (Tls, TempDir) {
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let settings = config::Tls { mode: TlsMode::SelfSigned, ..config::Tls::default() };
    let tls = Tls::new(&settings, folder.path(), &[]).await.expect("it can be made").expect("it is on");
    (tls, folder)
}

/// Echoes one line of each connection, for ever.
async fn echo(tls: Tls) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("it listens");
            let tls = tls.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = tls.accept(stream).await else { return };
                let mut byte = [0];
                while matches!(stream.read(&mut byte).await, Ok(1)) && stream.write_all(&byte).await.is_ok() {}
            });
        }
    });
    address
}

fn pair(name: &str) -> (String, String) {
    let key = KeyPair::generate().expect("there is randomness");
    let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    (params.self_signed(&key).expect("it can be signed").pem(), key.serialize_pem())
}

async fn says(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin)) -> bool {
    let mut byte = [0];
    stream.write_all(b"x").await.is_ok() && stream.read_exact(&mut byte).await.is_ok() && &byte == b"x"
}

#[tokio::test]
async fn a_changed_certificate_is_for_new_connections_and_open_ones_live_on() {
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let put = |(cert_text, key_text): &(String, String)| {
        fs::write(&cert, cert_text).expect("it can be written");
        fs::write(&key, key_text).expect("it can be written");
    };
    let (first, second) = (pair("call.example.org"), pair("call.example.org"));
    put(&first);
    let settings = config::Tls {
        mode: TlsMode::Files,
        cert: Some(cert.clone()),
        key: Some(key.clone()),
        ..config::Tls::default()
    };
    let tls = Tls::new(&settings, folder.path(), &[]).await.expect("it is valid").expect("it is on");
    let address = echo(tls.clone()).await;
    let (mut old, shown) = connect(address, &[]).await.expect("it speaks TLS");
    assert_eq!(Some(shown.as_str()), tls.fingerprint());

    // Half of a renewal: the new certificate with the old key is not used.
    fs::write(&cert, &second.0).expect("it can be written");
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(connect(address, &[]).await.expect("it speaks TLS").1, shown);
    fs::write(&key, &second.1).expect("it can be written");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while connect(address, &[]).await.expect("it speaks TLS").1 == shown {
        assert!(tokio::time::Instant::now() < deadline, "the new certificate is never shown");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(says(&mut old).await, "who was connected is not disturbed");
}

#[tokio::test]
async fn wrong_files_are_named() {
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let settings = config::Tls {
        mode: TlsMode::Files,
        cert: Some(cert.clone()),
        key: Some(key.clone()),
        ..config::Tls::default()
    };
    let error = async || Tls::new(&settings, folder.path(), &[]).await.expect_err("it is wrong");
    assert!(error().await.contains("tls.cert"));
    fs::write(&cert, "hello").expect("it can be written");
    assert!(error().await.contains("tls.key"));
    fs::write(&key, "hello").expect("it can be written");
    assert!(error().await.contains("CERTIFICATE"));
    fs::write(&cert, pair("a").0).expect("it can be written");
    assert!(error().await.contains("private key"));
    fs::write(&key, pair("b").1).expect("it can be written");
    assert!(error().await.contains("key.pem"), "they do not belong together");
}

#[tokio::test]
async fn a_self_signed_certificate_is_made_once_and_its_key_is_private() {
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let settings =
        config::Tls { mode: TlsMode::SelfSigned, names: vec!["call.example.org".into()], ..config::Tls::default() };
    let addresses = ["192.0.2.7".parse().expect("an address")];
    let make =
        async || Tls::new(&settings, folder.path(), &addresses).await.expect("it can be made").expect("it is on");
    let (one, two) = (make().await, make().await);
    assert_eq!(one.fingerprint(), two.fingerprint(), "a restart shows the same one");
    let key = folder.path().join("tls/key.pem");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&key).expect("it is there").permissions());
    assert_eq!(mode & 0o777, 0o600);
    let address = echo(one.clone()).await;
    let (mut stream, shown) = connect(address, &[b"http/1.1"]).await.expect("it speaks TLS");
    assert_eq!(Some(shown.as_str()), one.fingerprint());
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(says(&mut stream).await);
}

#[tokio::test]
async fn who_says_nothing_is_not_waited_for_by_others() {
    let (tls, _folder) = self_signed().await;
    let address = echo(tls).await;
    let mut silent = Vec::new();
    for _ in 0..HANDSHAKES_MAX {
        silent.push(TcpStream::connect(address).await.expect("it listens"));
    }
    let refused = tokio::time::timeout(Duration::from_secs(5), async { while connect(address, &[]).await.is_ok() {} });
    refused.await.expect("there is a bound");
    silent.clear();
    let served = tokio::time::timeout(Duration::from_secs(5), async { while connect(address, &[]).await.is_err() {} });
    served.await.expect("those who are gone take no place");
}

/// By an authority that is not there: nothing is fetched.
fn by_acme() -> config::Tls {
    config::Tls {
        mode: TlsMode::Acme,
        names: vec!["call.example.org".into()],
        acme_directory: "https://127.0.0.1:9/directory".into(),
        ..config::Tls::default()
    }
}

#[tokio::test]
async fn what_acme_brought_is_shown_after_a_restart_without_asking_again() {
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let settings = by_acme();
    let (cert, key) = pair("call.example.org");
    let kept = DirCache::new(folder.path().join("acme"));
    let text = format!("{key}\n{cert}");
    kept.store_cert(&settings.names, &settings.acme_directory, text.as_bytes()).await.expect("it can be written");
    let tls = Tls::new(&settings, folder.path(), &[]).await.expect("it can be made").expect("it is on");
    let address = echo(tls).await;
    let cert = <CertificateDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(cert.as_bytes());
    let wanted = sha256(&cert.expect("it is PEM"));
    let shown = tokio::time::timeout(Duration::from_secs(5), async {
        while connect(address, &[]).await.expect("it speaks TLS").1 != wanted {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    shown.await.expect("it is shown");
}

#[tokio::test]
async fn until_acme_brings_one_a_certificate_of_our_own_is_shown() {
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let settings = by_acme();
    let tls = Tls::new(&settings, folder.path(), &[]).await.expect("it can be made").expect("it is on");
    let address = echo(tls).await;
    let (mut stream, shown) = connect(address, &[b"http/1.1"]).await.expect("it speaks TLS");
    assert!(says(&mut stream).await);
    let own = dial::certificates_of(&self_signed_certificate(folder.path())).expect("it was made");
    assert_eq!(shown, sha256(&own[0]));
    assert!(connect(address, &[b"acme-tls/1"]).await.is_err(), "nobody has asked for a proof");
}

#[tokio::test]
async fn an_authoritys_root_must_be_a_certificate() {
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let root = folder.path().join("root.pem");
    let settings = config::Tls { acme_root: Some(root.clone()), ..by_acme() };
    let error = async || Tls::new(&settings, folder.path(), &[]).await.expect_err("it is wrong");
    assert!(error().await.contains("tls.acme_root"));
    fs::write(&root, "hello").expect("it can be written");
    let said = error().await;
    assert!(said.contains("CERTIFICATE") && said.contains("root.pem"), "{said}");
}
