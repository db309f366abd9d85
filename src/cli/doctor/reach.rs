//! Findings about a running server: a join as a viewer, and each path to its media.

use super::Finding;
use crate::client::reach::{self, Path, PathError};
use crate::destination::{Destination, Guard, Target, Web};
use crate::http::auth::{self, Claims};
use crate::id::RoomName;
use crate::room::document::Role;
use crate::secret::Secret;
use crate::time;

/// Networks for documentation and benchmarks (RFC 5737, RFC 3849, RFC 2544): laboratories and tests run servers there,
/// and `doctor` sends a server's candidates no more than a check.
const LABORATORY: [&str; 5] = ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15", "2001:db8::/32"];

/// Lifetime of the token for the test, in seconds.
const TOKEN_SECONDS: u64 = 60;

/// The server to test.
pub(super) struct ReachTest<'a> {
    /// Its URL.
    pub(super) url: &'a str,
    /// The room that is joined and left.
    pub(super) room: &'a RoomName,
    /// The key of its tokens.
    pub(super) key: Option<&'a Secret>,
}

/// One finding for the join, then one for each path.
pub(super) fn findings(test: &ReachTest<'_>) -> Vec<(String, Finding)> {
    let server = match resource(test) {
        Ok(server) => server,
        Err(why) => return vec![("join".to_owned(), Finding::Bad(why))],
    };
    let claims = Claims {
        room: Some(test.room.clone()),
        role: Role::Viewer,
        name: Some("doctor".to_owned()),
        exp: time::unix_seconds().saturating_add(TOKEN_SECONDS) as f64,
        nbf: None,
    };
    let token = test.key.map(|key| Secret::from(auth::sign(&claims, key.expose())));
    // The operator named the address.
    let allow = LABORATORY.iter().map(|network| network.parse().expect("a network")).collect();
    let guard = Guard { allow_private: true, allow };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let paths = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        runtime.block_on(reach::test_paths(&server, token.as_ref(), &guard)).map_err(|e| e.to_string())
    });
    match paths {
        Ok(paths) => findings_of(test.url, &paths),
        Err(why) => vec![("join".to_owned(), Finding::Bad(format!("joining at {} fails: {why}", test.url)))],
    }
}

/// The WHEP resource of the room.
fn resource(test: &ReachTest<'_>) -> Result<Web, String> {
    let base = test.url.trim_end_matches('/');
    let wanted = || format!("`{base}` is not a server's URL: write it like https://call.example.org");
    // Otherwise the rest of the path would be parsed as the host.
    base.split_once("://").filter(|(_, host)| !host.is_empty()).ok_or_else(wanted)?;
    let there = Destination::input(&format!("whep+{base}/v1/rooms/{}/participants", test.room.in_url()));
    match there.map_err(|_| wanted())?.target() {
        Target::Whep(web) => Ok(web.clone()),
        _ => Err(wanted()),
    }
}

fn findings_of(url: &str, paths: &[Path]) -> Vec<(String, Finding)> {
    let joined = if paths.iter().any(|path| path.result.is_ok()) {
        Finding::Good(format!("{url} accepts a viewer"))
    } else {
        Finding::Bad(format!(
            "{url} accepts a viewer, but no path to its media works from here: participants see and hear nothing"
        ))
    };
    let each = paths.iter().map(|path| {
        let finding = match &path.result {
            Ok(took) => Finding::Good(format!("answers after {:.1} ms", took.as_secs_f64() * 1000.0)),
            Err(why) => Finding::Advice(format!("{why}; {}", advice(&path.name, why))),
        };
        (path.name.clone(), finding)
    });
    std::iter::once(("join".to_owned(), joined)).chain(each).collect()
}

/// How to make a path work.
fn advice(path: &str, why: &PathError) -> &'static str {
    match (why, path.split(' ').next()) {
        (PathError::Unreachable(_), Some("UDP")) => {
            "open this UDP port in the firewall; behind NAT set the public address by --public-ip"
        }
        (PathError::Unreachable(_), Some("TCP")) => "open this TCP port in the firewall: it serves clients without UDP",
        (PathError::Unreachable(_), _) => {
            "open this port in the firewall; if the server is one of turn.external, check that it runs: it serves \
             clients that reach nothing else"
        }
        (PathError::Credential, _) => {
            "turn.secret must be the secret of that server (coturn: use-auth-secret, static-auth-secret), and the \
             clocks of both must be right"
        }
        (PathError::Forbidden { .. }, _) => {
            "that server must be allowed to reach the media port (coturn: allowed-peer-ip, allow-loopback-peers)"
        }
        (PathError::Refused(_), _) => "see the log of that server",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_join_is_wrong_only_if_no_path_works() {
        let path = |name: &str, works: bool| Path {
            name: name.to_owned(),
            result: if works {
                Ok(Duration::from_micros(1_530))
            } else {
                Err(PathError::Unreachable("no answer in time".to_owned()))
            },
        };
        let some = findings_of("http://x/", &[path("UDP 192.0.2.1:8189", false), path("TCP 192.0.2.1:8189", true)]);
        assert!(matches!(&some[0], (name, Finding::Good(_)) if name == "join"));
        assert!(
            matches!(&some[1].1, Finding::Advice(text) if text.starts_with("no answer in time; open this UDP port"))
        );
        assert!(matches!(&some[2].1, Finding::Good(text) if text == "answers after 1.5 ms"));
        let none = findings_of("http://x/", &[path("UDP 192.0.2.1:8189", false)]);
        assert!(matches!(&none[0].1, Finding::Bad(_)));
    }

    #[test]
    fn each_error_has_its_own_advice() {
        let said = |error: PathError| {
            let path = Path { name: "TURN by UDP at 192.0.2.1:3478".to_owned(), result: Err(error) };
            match findings_of("http://x/", &[path]).pop() {
                Some((_, Finding::Advice(text))) => text,
                _ => panic!("one path"),
            }
        };
        assert!(said(PathError::Unreachable("nothing listens there".to_owned())).contains("check that it runs"));
        assert!(said(PathError::Credential).contains("turn.secret"));
        let to = "192.0.2.9:8189".parse().expect("an address");
        let forbidden = said(PathError::Forbidden { to, why: "error 403".to_owned() });
        assert!(forbidden.contains("192.0.2.9:8189") && forbidden.contains("allowed-peer-ip"), "{forbidden}");
        assert!(said(PathError::Refused("error 486".to_owned())).contains("486"));
    }

    #[test]
    fn a_url_without_http_and_host_is_an_error() {
        let room: RoomName = "doctor".parse().expect("a name");
        let test = |url| findings(&ReachTest { url, room: &room, key: None });
        for url in ["", "call.example.org", "rtmp://x", "http://"] {
            let found = test(url);
            assert!(matches!(&found[..], [(_, Finding::Bad(text))] if text.contains("https://call")), "{url}");
        }
        let nobody =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let found = test(&format!("http://{nobody}/"));
        assert!(matches!(&found[..], [(_, Finding::Bad(text))] if text.contains("joining at")));
    }
}
