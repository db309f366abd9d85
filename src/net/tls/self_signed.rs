//! A self-signed certificate, for a network without DNS names: browsers ask once whether to trust it.
//!
//! Owns: its files and content. Does not know: connections. Names and addresses enter, paths of PEM files leave.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rcgen::{CertificateParams, DnType, KeyPair};
use time::OffsetDateTime;

/// Validity: some browsers accept no longer one.
const LIFETIME: Duration = Duration::from_secs(800 * 24 * 3600);
/// Age at which a new certificate is made.
const RENEWAL: Duration = Duration::from_secs(700 * 24 * 3600);
/// Validity before now, for clients whose clock is late.
const BACKDATED: Duration = Duration::from_secs(24 * 3600);

/// The folder of the certificate in the data folder.
pub fn certificate(data: &Path) -> PathBuf {
    data.join("tls/certificate.pem")
}

/// The files of certificate and key in the folder `data`, created if missing. The certificate is valid for `names`,
/// this machine's name and its addresses.
///
/// # Errors
/// A message that names the fix.
pub(super) fn files(data: &Path, names: &[String], addresses: &[IpAddr]) -> Result<(PathBuf, PathBuf), String> {
    let cert = certificate(data);
    let folder = cert.parent().expect("it is in a folder");
    let key = cert.with_file_name("key.pem");
    let now = Duration::from_secs(crate::time::unix_seconds());
    let made = |path: &Path| fs::metadata(path)?.modified();
    let age = made(&cert).map(|at| now.saturating_sub(at.duration_since(UNIX_EPOCH).unwrap_or_default()));
    if key.exists() && age.is_ok_and(|age| age < RENEWAL) {
        return Ok((cert, key));
    }
    let mut all = names.to_vec();
    all.push("localhost".to_owned());
    all.extend(host_name());
    all.extend(
        addresses.iter().chain(&["127.0.0.1", "::1"].map(|ip| ip.parse().expect("an address"))).map(IpAddr::to_string),
    );
    all.sort();
    all.dedup();
    let made = make(all, now).map_err(|error| format!("cannot make a self-signed certificate: {error}"))?;
    let written = fs::create_dir_all(folder)
        .and_then(|()| write(&key, &made.1, 0o600))
        .and_then(|()| write(&cert, &made.0, 0o644));
    written.map_err(|error| format!("{}: {error}; choose another folder by --data-dir", folder.display()))?;
    Ok((cert, key))
}

/// Certificate and key, as PEM.
fn make(names: Vec<String>, now: Duration) -> Result<(String, String), rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "commingle, self-signed");
    let at = |seconds: u64| OffsetDateTime::from_unix_timestamp(seconds as i64).expect("the clock is in this age");
    params.not_before = at(now.saturating_sub(BACKDATED).as_secs());
    params.not_after = at((now + LIFETIME).as_secs());
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    // Whole or not at all, and never readable by others, not even for a moment.
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)
}

/// This machine's host name, if it is valid in a certificate.
fn host_name() -> Option<String> {
    let name = rustix::system::uname().nodename().to_str().ok()?.to_owned();
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    (!name.is_empty() && name.chars().all(allowed)).then_some(name)
}
