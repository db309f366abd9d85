//! The trust in a request before its token counts: proxies, the host name, and the origin of the web page that sent it.
//!
//! Owns: the client's address behind trusted proxies, the checks of Host and Origin, the CORS header. Does not know:
//! tokens, routes. In: header fields and the address of the connection; out: [`Source`] or a [`Problem`].
//!
//! Without a key, permissions follow from the address of the client. A web page of another origin in a browser on this
//! machine, a page behind a rebound DNS name, and every client of a proxy on this machine would then be operators. They
//! are refused here. With a key, permissions follow from tokens, which no browser sends by itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::http::header::{FORWARDED, HOST, HeaderName, ORIGIN, VIA};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

use crate::config::{Config, ForwardedHeader};
use crate::destination::Network;
use crate::http::problem::Problem;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
/// The headers by which proxies reveal themselves.
const PROXY_HEADERS: [HeaderName; 5] = [FORWARDED, X_FORWARDED_FOR, X_FORWARDED_HOST, X_REAL_IP, VIA];
/// The paths that pages of all origins may use with a token: WHIP, WHEP, the sessions that they create, HLS, documents.
const OPEN_PATHS: [&str; 7] = ["/whip/", "/whep/", "/v1/sessions/", "/hls/", "/healthz", "/openapi.json", "/docs/"];

/// What is known about the source of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// The address of the client, behind trusted proxies.
    pub(super) address: IpAddr,
    /// The value of `Access-Control-Allow-Origin`.
    pub(super) allow_origin: Option<HeaderValue>,
}

/// The configuration of the checks.
#[derive(Debug)]
pub(super) struct Origins {
    has_key: bool,
    insecure: bool,
    hosts: Vec<String>,
    origins: Vec<String>,
    proxies: Vec<Network>,
    forwarded: ForwardedHeader,
    proxy_protocol: bool,
}

impl Origins {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            has_key: config.auth.has_key(),
            insecure: config.auth.insecure,
            hosts: config.http.hosts.iter().chain(&config.tls.names).map(|host| host.to_ascii_lowercase()).collect(),
            origins: config.http.origins.iter().map(|origin| origin.to_ascii_lowercase()).collect(),
            proxies: config.http.trusted_proxies.clone(),
            forwarded: config.http.forwarded_header,
            proxy_protocol: config.http.proxy_protocol,
        }
    }

    /// Whether the address belongs to a trusted proxy.
    pub(super) fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(address))
    }

    /// Whether a connection from this address begins with a header of the PROXY protocol.
    pub(super) fn begins_with_proxy_header(&self, address: IpAddr) -> bool {
        self.proxy_protocol && self.is_proxy(address)
    }

    /// Checks a request that was received from `connection`.
    ///
    /// # Errors
    /// A problem of the kinds `proxy`, `host` or `origin`.
    pub(super) fn check(
        &self,
        connection: IpAddr,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Source, Problem> {
        let address = self.client(connection, headers);
        let host = text(headers, &HOST).to_ascii_lowercase();
        if !self.has_key {
            self.check_proxy(connection, address, headers)?;
            self.check_host(&host)?;
        }
        let allow_origin = self.check_origin(&host, method, uri.path(), headers)?;
        Ok(Source { address, allow_origin })
    }

    /// The address of the client: the last one that a trusted proxy has added and that is not a trusted proxy itself.
    fn client(&self, connection: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = connection.to_canonical();
        if !self.is_proxy(client) {
            return client;
        }
        let name = match self.forwarded {
            ForwardedHeader::XForwardedFor => &X_FORWARDED_FOR,
            ForwardedHeader::Forwarded => &FORWARDED,
        };
        let lines: Vec<&str> = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?")).collect();
        let elements = lines.iter().flat_map(|line| line.split(',')).rev();
        for element in elements {
            let node = match self.forwarded {
                ForwardedHeader::XForwardedFor => Some(element),
                ForwardedHeader::Forwarded => forwarded_for(element),
            };
            // An obfuscated or malformed node (RFC 7239 section 6) hides the client. It must not get the address of the
            // proxy, because a loopback address has all permissions without a key.
            let Some(address) = node.and_then(node_address) else { return Ipv4Addr::UNSPECIFIED.into() };
            client = address;
            if !self.is_proxy(client) {
                break;
            }
        }
        client
    }

    /// Without a key, a proxy on this machine would make all its clients operators. `connection` is a client of a proxy
    /// if the proxy has sent a header of the PROXY protocol.
    fn check_proxy(&self, connection: IpAddr, client: IpAddr, headers: &HeaderMap) -> Result<(), Problem> {
        let forwarded = PROXY_HEADERS.iter().any(|name| headers.contains_key(name));
        if forwarded && !self.is_proxy(connection) {
            let detail = "this request was forwarded by a proxy, and without a key a proxy would give its permissions \
                to all of its clients: set a key (auth.key_file), or list the proxy in http.trusted_proxies";
            return Err(Problem::of_kind(StatusCode::FORBIDDEN, "proxy", detail));
        }
        if !self.insecure && !client.is_loopback() {
            let detail = "without a key this server serves this machine only, and a proxy has forwarded a request from \
                another machine: set a key (auth.key_file)";
            return Err(Problem::of_kind(StatusCode::FORBIDDEN, "proxy", detail));
        }
        Ok(())
    }

    /// A name that an attacker has bound to this address (DNS rebinding) makes the attacker's page a page of this
    /// origin. IP addresses and `localhost` cannot be rebound. Requests without Host are not from browsers.
    fn check_host(&self, host: &str) -> Result<(), Problem> {
        let name = host_name(host);
        let known = name.is_empty()
            || name == "localhost"
            || name.ends_with(".localhost")
            || name.parse::<IpAddr>().is_ok()
            || self.hosts.iter().any(|known| known == name);
        if known {
            return Ok(());
        }
        let detail = format!(
            "without a key this server answers only to IP addresses, `localhost` and the names in http.hosts: add \
             `{name}` there, or set a key (auth.key_file)"
        );
        Err(Problem::of_kind(StatusCode::MISDIRECTED_REQUEST, "host", detail))
    }

    /// Refuses pages of other origins where no token protects the server, and returns the CORS header.
    fn check_origin(
        &self,
        host: &str,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Option<HeaderValue>, Problem> {
        let Some(origin) = headers.get(ORIGIN) else {
            // Requests that need no CORS, such as those of images, have no Origin, but newer browsers name the site.
            let site = text(headers, &SEC_FETCH_SITE);
            let embedded = matches!(site, "cross-site" | "same-site");
            if !self.has_key && embedded && text(headers, &SEC_FETCH_MODE) != "navigate" {
                return Err(foreign("another site"));
            }
            return Ok((self.has_key && is_open(path)).then(all_origins));
        };
        let name = origin.to_str().unwrap_or_default().to_ascii_lowercase();
        let own = name.split_once("://").is_some_and(|(scheme, authority)| {
            !host.is_empty() && without_default_port(scheme, authority) == without_default_port(scheme, host)
        });
        let listed = self.origins.iter().any(|known| known == "*" || *known == name);
        if own || listed {
            return Ok(Some(origin.clone()));
        }
        // The answer to a preflight (Fetch, section 4.8) is the same for everyone; the request after it is refused.
        let is_preflight = method == Method::OPTIONS && is_open(path);
        if !(self.has_key || is_preflight) {
            return Err(foreign(&format!("the origin `{name}`")));
        }
        Ok(is_open(path).then(all_origins))
    }
}

fn all_origins() -> HeaderValue {
    HeaderValue::from_static("*")
}

/// Whether pages of all origins may use the path with a token.
fn is_open(path: &str) -> bool {
    let join = path.starts_with("/v1/rooms/") && path.ends_with("/participants");
    // Modules of the page, which contain nothing secret, may be imported.
    join || path.ends_with(".js") || OPEN_PATHS.iter().any(|open| path.starts_with(open))
}

fn foreign(whose: &str) -> Problem {
    let detail = format!(
        "a web page of {whose} must not use this server, because without a key every page open in a browser on this \
         machine would be an operator: add its origin to http.origins, or set a key (auth.key_file)"
    );
    Problem::of_kind(StatusCode::FORBIDDEN, "origin", detail)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The host of `host[:port]`, without the brackets of an IPv6 address and without a final dot.
fn host_name(host: &str) -> &str {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(name, _)| name),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.strip_suffix('.').unwrap_or(name)
}

fn without_default_port<'a>(scheme: &str, authority: &'a str) -> &'a str {
    let port = if scheme == "https" { ":443" } else { ":80" };
    authority.strip_suffix(port).unwrap_or(authority)
}

/// The node of the parameter `for` of an element (RFC 7239 section 4).
fn forwarded_for(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then(|| value.trim_matches('"'))
    })
}

/// The address of a node: an IP address with or without port; an IPv6 address may be in brackets.
fn node_address(node: &str) -> Option<IpAddr> {
    let node = node.trim();
    let bare = node.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(node);
    let address = bare.parse().or_else(|_| node.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOCAL: &str = "127.0.0.1";

    fn origins(change: impl FnOnce(&mut Config)) -> Origins {
        let mut config = Config::default();
        change(&mut config);
        Origins::new(&config)
    }

    fn keyless() -> Origins {
        origins(|_| {})
    }

    fn keyed() -> Origins {
        origins(|config| config.auth.key = Some("0123456789abcdef0123456789abcdef".to_owned().into()))
    }

    fn behind(proxies: &[&str], header: ForwardedHeader) -> Origins {
        origins(|config| {
            config.auth.key = Some("0123456789abcdef0123456789abcdef".to_owned().into());
            config.http.trusted_proxies = proxies.iter().map(|text| text.parse().expect("a network")).collect();
            config.http.forwarded_header = header;
        })
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("header text"))
        };
        let mut map = HeaderMap::new();
        for (name, value) in fields.iter().map(field) {
            map.append(name, value);
        }
        map
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// The status and the CORS header of a request from this machine.
    fn outcome(origins: &Origins, path: &'static str, fields: &[(&'static str, &str)]) -> Result<String, u16> {
        let checked = origins.check(ip(LOCAL), &Method::GET, &Uri::from_static(path), &headers(fields));
        let allowed = |source: Source| {
            source.allow_origin.map(|value| value.to_str().expect("text").to_owned()).unwrap_or_default()
        };
        checked.map(allowed).map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn without_a_key_only_pages_of_the_own_origin_are_served() {
        let own = [("host", "localhost:8080"), ("origin", "http://localhost:8080")];
        assert_eq!(outcome(&keyless(), "/v1/rooms", &own), Ok("http://localhost:8080".into()));
        assert_eq!(outcome(&keyless(), "/v1/rooms", &[("host", "localhost:8080")]), Ok(String::new()), "curl");
        for foreign in
            ["https://evil.example", "http://localhost:3000", "null", "http://localhost", "https://localhost:8080.evil"]
        {
            let fields = [("host", "localhost:8080"), ("origin", foreign)];
            for path in ["/v1/rooms", "/whip/r", "/v1/rooms/r/events", "/"] {
                assert_eq!(outcome(&keyless(), path, &fields), Err(403), "{foreign} {path}");
            }
        }
        let image = [("host", "localhost"), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")];
        assert_eq!(outcome(&keyless(), "/hls/r/index.m3u8", &image), Err(403));
        let link = [("host", "localhost"), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert_eq!(outcome(&keyless(), "/", &link), Ok(String::new()), "a link to the page");
        let own = [("host", "localhost"), ("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors")];
        assert_eq!(outcome(&keyless(), "/v1/rooms", &own), Ok(String::new()));
    }

    #[test]
    fn without_a_key_unknown_host_names_are_refused() {
        for known in ["localhost", "LOCALHOST:80", "call.localhost", "127.0.0.1:8080", "[::1]:8080", "192.168.1.5", ""]
        {
            assert_eq!(outcome(&keyless(), "/v1/rooms", &[("host", known)]), Ok(String::new()), "{known}");
        }
        for unknown in ["evil.example", "localhost.evil.example:8080", "xlocalhost", "127.0.0.1.evil.example", "evil:1"]
        {
            assert_eq!(outcome(&keyless(), "/v1/rooms", &[("host", unknown)]), Err(421), "{unknown}");
            assert_eq!(outcome(&keyed(), "/v1/rooms", &[("host", unknown)]), Ok(String::new()), "{unknown}");
        }
        let listed = origins(|config| config.http.hosts = vec!["Calls.example".into()]);
        assert_eq!(outcome(&listed, "/v1/rooms", &[("host", "calls.EXAMPLE.:8080")]), Ok(String::new()));
    }

    #[test]
    fn with_a_key_other_origins_may_use_whip_and_whep_and_listed_ones_all() {
        let fields = [("host", "calls.example"), ("origin", "https://other.example")];
        for path in ["/whip/r", "/whep/r", "/v1/sessions/s", "/v1/rooms/r/participants", "/hls/r/index.m3u8"] {
            assert_eq!(outcome(&keyed(), path, &fields), Ok("*".into()), "{path}");
        }
        for path in ["/v1/rooms", "/v1/rooms/r", "/v1/recordings", "/metrics", "/v1/rooms/r/participants/p1"] {
            assert_eq!(outcome(&keyed(), path, &fields), Ok(String::new()), "{path}");
        }
        let listed = origins(|config| config.http.origins = vec!["https://Other.example".into()]);
        let fields = [("host", "localhost"), ("origin", "https://other.example")];
        assert_eq!(outcome(&listed, "/v1/rooms", &fields), Ok("https://other.example".into()));
        let own = [("host", "calls.example:443"), ("origin", "https://calls.example")];
        assert_eq!(outcome(&keyed(), "/v1/rooms", &own), Ok("https://calls.example".into()));
    }

    #[test]
    fn without_a_key_forwarded_requests_are_refused() {
        for name in ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"] {
            let fields = [("host", "localhost"), (name, "127.0.0.1")];
            assert_eq!(outcome(&keyless(), "/v1/rooms", &fields), Err(403), "{name}");
            assert_eq!(outcome(&keyed(), "/v1/rooms", &fields), Ok(String::new()), "{name}");
        }
        let trusted = origins(|config| config.http.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")]);
        let from = |address| [("host", "localhost"), ("x-forwarded-for", address)];
        assert_eq!(outcome(&trusted, "/v1/rooms", &from("127.0.0.1")), Ok(String::new()));
        for other in ["198.51.100.1", "unknown", "127.0.0.1, unknown", ""] {
            assert_eq!(outcome(&trusted, "/v1/rooms", &from(other)), Err(403), "`{other}` is not this machine");
        }
        let client = |address| trusted.check(ip(address), &Method::GET, &Uri::from_static("/"), &HeaderMap::new());
        let refused = client("198.51.100.1").expect_err("a client that the PROXY protocol names");
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        assert!(client("::1").is_ok() && client("::ffff:127.0.0.1").is_ok());
    }

    #[test]
    fn the_client_is_the_last_address_that_trusted_proxies_have_added() {
        let client = |header, fields: &[(&'static str, &str)], connection: &str| {
            let origins = behind(&["127.0.0.1/32", "10.0.0.0/8"], header);
            origins.client(ip(connection), &headers(fields))
        };
        let by_list = |list: &str| client(ForwardedHeader::XForwardedFor, &[("x-forwarded-for", list)], LOCAL);
        assert_eq!(by_list("198.51.100.1"), ip("198.51.100.1"));
        assert_eq!(by_list("203.0.113.9, 198.51.100.1, 10.1.1.1"), ip("198.51.100.1"), "the client wrote the first");
        assert_eq!(by_list("198.51.100.1:4711"), ip("198.51.100.1"));
        assert_eq!(by_list("[2001:db8::1]:443"), ip("2001:db8::1"));
        assert_eq!(by_list("2001:db8::1"), ip("2001:db8::1"));
        assert_eq!(by_list("198.51.100.1, unknown"), ip("0.0.0.0"), "the proxy hides the client");
        assert_eq!(by_list("10.1.1.1"), ip("10.1.1.1"), "all are proxies: the first");
        let two_lines = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", "198.51.100.1")];
        assert_eq!(client(ForwardedHeader::XForwardedFor, &two_lines, LOCAL), ip("198.51.100.1"));
        let standard = [("forwarded", "for=203.0.113.9, For=\"[2001:db8::1]:4711\";proto=https;by=10.1.1.1")];
        assert_eq!(client(ForwardedHeader::Forwarded, &standard, "10.0.0.2"), ip("2001:db8::1"));
        assert_eq!(client(ForwardedHeader::XForwardedFor, &standard, "10.0.0.2"), ip("10.0.0.2"), "not configured");
        assert_eq!(client(ForwardedHeader::Forwarded, &[("forwarded", "for=_hidden")], LOCAL), ip("0.0.0.0"));
        let spoofed = [("x-forwarded-for", "127.0.0.1")];
        assert_eq!(client(ForwardedHeader::XForwardedFor, &spoofed, "192.0.2.1"), ip("192.0.2.1"), "not trusted");
    }

    proptest! {
        /// Whatever a client writes before the addresses that proxies add, its address is the one that the first
        /// trusted proxy has seen.
        #[test]
        fn a_client_cannot_choose_its_address(forged in "[ -~]{0,60}", seen in any::<u32>(), hops in 0usize..3) {
            let seen = IpAddr::from(seen.to_be_bytes());
            prop_assume!(!seen.is_loopback() && !matches!(seen, IpAddr::V4(v4) if v4.octets()[0] == 10));
            let list = format!("{forged}, {seen}{}", ", 10.0.0.1".repeat(hops));
            let origins = behind(&["127.0.0.1/32", "10.0.0.0/8"], ForwardedHeader::XForwardedFor);
            prop_assert_eq!(origins.client(ip(LOCAL), &headers(&[("x-forwarded-for", &list)])), seen);
        }
    }
}
