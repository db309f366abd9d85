//! The ICE servers sent to clients.
//!
//! Owns: their URIs (RFC 7064, RFC 7065), their credentials and the format of `Link` headers (RFC 9725 section 4.6).
//! Does not know: HTTP, the TURN server. The configuration enters, header values leave.

use std::net::IpAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::credentials::{Credential, Credentials};
use crate::config;

/// Our ICE servers, and the configured external ones.
#[derive(Debug, Clone)]
pub struct IceServers {
    /// Our public address; None for the host of the request.
    ip: Option<IpAddr>,
    stun_port: u16,
    turn_port: Option<u16>,
    /// The ports of TURN over TLS.
    tls_ports: Vec<u16>,
    external: Vec<String>,
    credentials: Option<Arc<Credentials>>,
}

impl IceServers {
    /// Only the media port, as a STUN server.
    pub fn stun(ip: Option<IpAddr>, stun_port: u16) -> Self {
        Self { ip, stun_port, turn_port: None, tls_ports: Vec::new(), external: Vec::new(), credentials: None }
    }

    /// Adds the configured external TURN servers.
    pub(super) fn with_turn(mut self, turn: &config::Turn, credentials: Arc<Credentials>) -> Self {
        self.external = turn.external.clone();
        self.credentials = Some(credentials);
        self
    }

    /// Adds our own TURN server: the port of UDP and TCP, and the ports of TLS.
    pub(super) fn with_ports(mut self, port: u16, tls_ports: Vec<u16>) -> Self {
        (self.turn_port, self.tls_ports) = (Some(port), tls_ports);
        self
    }

    /// The values of `Link` headers with a new credential for one session, which ends with `over`. `host` is the host
    /// of the request; `now` in seconds since 1970.
    pub(crate) fn links(&self, host: Option<&str>, now: u64, over: &CancellationToken) -> Vec<String> {
        let ours = self.ip.map(bracketed).or_else(|| host.map(str::to_owned));
        let mut links = Vec::new();
        if let Some(ours) = &ours {
            links.push(format!("<stun:{ours}:{}>; rel=\"ice-server\"", self.stun_port));
        }
        let Some(credentials) = &self.credentials else { return links };
        let mut uris = Vec::new();
        if let (Some(ours), Some(port)) = (&ours, self.turn_port) {
            uris.extend(["udp", "tcp"].map(|transport| format!("turn:{ours}:{port}?transport={transport}")));
        }
        // A certificate is valid for the host of the request.
        if let Some(name) = host.or(ours.as_deref()) {
            uris.extend(self.tls_ports.iter().map(|port| format!("turns:{name}:{port}?transport=tcp")));
        }
        uris.extend(self.external.iter().cloned());
        let Credential { username, password } = credentials.make(now);
        if self.turn_port.is_some() {
            credentials.belongs_to(username.clone(), over.clone());
        }
        links.extend(uris.into_iter().map(|uri| {
            format!(
                "<{uri}>; rel=\"ice-server\"; username=\"{username}\"; credential=\"{password}\"; \
                 credential-type=\"password\""
            )
        }));
        links
    }
}

fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links_of(servers: &IceServers, host: Option<&str>, now: u64) -> Vec<String> {
        servers.links(host, now, &CancellationToken::new())
    }

    fn uris(links: &[String]) -> Vec<&str> {
        links.iter().map(|link| &link[1..link.find('>').expect("an URI")]).collect()
    }

    #[test]
    fn the_media_port_is_a_stun_server() {
        let by_host = IceServers::stun(None, 8189);
        assert_eq!(links_of(&by_host, Some("localhost"), 0), ["<stun:localhost:8189>; rel=\"ice-server\""]);
        assert_eq!(links_of(&by_host, Some("[::1]"), 0), ["<stun:[::1]:8189>; rel=\"ice-server\""]);
        assert!(links_of(&by_host, None, 0).is_empty());
        let by_ip = IceServers::stun(Some("2001:db8::1".parse().expect("an address")), 9);
        assert_eq!(links_of(&by_ip, Some("x"), 0), ["<stun:[2001:db8::1]:9>; rel=\"ice-server\""]);
    }

    #[test]
    fn turn_servers_have_a_credential_per_session() {
        let turn = config::Turn { external: vec!["turn:t.example.org".into()], ..config::Turn::default() };
        let credentials = Arc::new(Credentials::new("north".to_owned().into(), 60));
        let servers = IceServers::stun(Some([203, 0, 113, 7].into()), 8189).with_turn(&turn, Arc::clone(&credentials));
        let elsewhere = links_of(&servers, None, 100);
        assert_eq!(uris(&elsewhere), ["stun:203.0.113.7:8189", "turn:t.example.org"]);
        let servers = servers.with_ports(3478, vec![443]);
        let links = links_of(&servers, Some("call.example.org"), 100);
        assert_eq!(
            uris(&links),
            [
                "stun:203.0.113.7:8189",
                "turn:203.0.113.7:3478?transport=udp",
                "turn:203.0.113.7:3478?transport=tcp",
                "turns:call.example.org:443?transport=tcp",
                "turn:t.example.org",
            ]
        );
        assert!(!links[0].contains("credential"), "{}", links[0]);
        for link in &links[1..] {
            assert!(link.contains("; username=\"160:") && link.contains("; credential-type=\"password\""), "{link}");
        }
        assert_ne!(links[1], links_of(&servers, Some("call.example.org"), 100)[1]);
    }
}
