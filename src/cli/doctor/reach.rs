//! The reach of a server that runs: joined as somebody who only watches would, and each way to its media tried.

use crate::client::reach::{self, Obstacle, Way};
use crate::destination::{Destination, Guard, Target, Web};
use crate::http::auth::{self, Claims};
use crate::id::RoomName;
use crate::room::document::Role;
use crate::secret::Secret;
use crate::time;

use super::Finding;

/// How long the token is good that is made for the look.
const TOKEN_SECONDS: u64 = 60;

/// What to look at.
pub(super) struct Look<'a> {
    /// The server's page.
    pub(super) url: &'a str,
    /// The room that is joined for a moment.
    pub(super) room: &'a RoomName,
    /// What the server's tokens are signed with.
    pub(super) key: Option<&'a Secret>,
}

/// What is found, one for each way; the first is about getting in at all.
pub(super) fn findings(look: &Look<'_>) -> Vec<(String, Finding)> {
    let server = match resource(look) {
        Ok(server) => server,
        Err(why) => return vec![("join".to_owned(), Finding::Bad(why))],
    };
    let claims = Claims {
        room: Some(look.room.clone()),
        role: Role::Viewer,
        name: Some("doctor".to_owned()),
        exp: time::unix_seconds().saturating_add(TOKEN_SECONDS) as f64,
        nbf: None,
    };
    let token = look.key.map(|key| Secret::from(auth::sign(&claims, key.expose())));
    // It is whoever types the command who names the address.
    let guard = Guard { allow_private: true, ..Guard::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ways = runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(reach::look(&server, token.as_ref(), &guard)).map_err(|e| e.to_string()));
    match ways {
        Ok(ways) => judged(look.url, &ways),
        Err(why) => vec![("join".to_owned(), Finding::Bad(format!("nobody can join at {}: {why}", look.url)))],
    }
}

/// Where one joins to watch.
fn resource(look: &Look<'_>) -> Result<Web, String> {
    let base = look.url.trim_end_matches('/');
    let wanted = || format!("`{base}` is not a server's URL: write it like https://call.example.org");
    // What follows would be taken for a host that is missing.
    base.split_once("://").filter(|(_, host)| !host.is_empty()).ok_or_else(wanted)?;
    let there = Destination::input(&format!("whep+{base}/v1/rooms/{}/participants", look.room));
    match there.map_err(|_| wanted())?.target() {
        Target::Whep(web) => Ok(web.clone()),
        _ => Err(wanted()),
    }
}

fn judged(url: &str, ways: &[Way]) -> Vec<(String, Finding)> {
    let joined = if ways.iter().any(|way| way.led.is_ok()) {
        Finding::Good(format!("{url} lets people in"))
    } else {
        Finding::Bad(format!(
            "{url} lets people in, but no way leads to its media from here: they see and hear nothing"
        ))
    };
    let each = ways.iter().map(|way| {
        let finding = match &way.led {
            Ok(took) => Finding::Good(format!("answers after {:.1} ms", took.as_secs_f64() * 1000.0)),
            Err(why) => Finding::Advice(format!("{why}; {}", advice(&way.name, why))),
        };
        (way.name.clone(), finding)
    });
    std::iter::once(("join".to_owned(), joined)).chain(each).collect()
}

/// What opens a way.
fn advice(way: &str, why: &Obstacle) -> &'static str {
    match (why, way.split(' ').next()) {
        (Obstacle::Unreachable(_), Some("UDP")) => {
            "let UDP to this port through the firewall, and behind NAT give the address that others use by --public-ip"
        }
        (Obstacle::Unreachable(_), Some("TCP")) => {
            "let TCP to this port through the firewall: it serves who has no UDP"
        }
        (Obstacle::Unreachable(_), _) => {
            "let this port through the firewall, and if it is one of turn.external see that it runs: it serves who reaches \
             nothing else"
        }
        (Obstacle::Credential, _) => {
            "turn.secret must be the secret of that server (coturn: use-auth-secret, static-auth-secret), and the clocks of \
             both must be right"
        }
        (Obstacle::Forbidden { .. }, _) => {
            "that server must be allowed to reach the media port (coturn: allowed-peer-ip, allow-loopback-peers)"
        }
        (Obstacle::Refused(_), _) => "the log of that server says more",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_is_wrong_only_where_no_way_leads() {
        let way = |name: &str, led: bool| Way {
            name: name.to_owned(),
            led: if led {
                Ok(Duration::from_micros(1_530))
            } else {
                Err(Obstacle::Unreachable("nobody answers".to_owned()))
            },
        };
        let some = judged("http://x/", &[way("UDP 192.0.2.1:8189", false), way("TCP 192.0.2.1:8189", true)]);
        assert!(matches!(&some[0], (name, Finding::Good(_)) if name == "join"));
        assert!(matches!(&some[1].1, Finding::Advice(text) if text.starts_with("nobody answers; let UDP")));
        assert!(matches!(&some[2].1, Finding::Good(text) if text == "answers after 1.5 ms"));
        let none = judged("http://x/", &[way("UDP 192.0.2.1:8189", false)]);
        assert!(matches!(&none[0].1, Finding::Bad(_)));
    }

    #[test]
    fn each_obstacle_has_an_advice_of_its_own() {
        let said = |obstacle: Obstacle| {
            let way = Way { name: "TURN by UDP at 192.0.2.1:3478".to_owned(), led: Err(obstacle) };
            match judged("http://x/", &[way]).pop() {
                Some((_, Finding::Advice(text))) => text,
                _ => panic!("one way"),
            }
        };
        assert!(said(Obstacle::Unreachable("nothing listens there".to_owned())).contains("see that it runs"));
        assert!(said(Obstacle::Credential).contains("turn.secret"));
        let to = "192.0.2.9:8189".parse().expect("an address");
        let forbidden = said(Obstacle::Forbidden { to, why: "error 403".to_owned() });
        assert!(forbidden.contains("192.0.2.9:8189") && forbidden.contains("allowed-peer-ip"), "{forbidden}");
        assert!(said(Obstacle::Refused("error 486".to_owned())).contains("486"));
    }

    #[test]
    fn only_urls_of_servers_are_asked() {
        let room: RoomName = "doctor".parse().expect("a name");
        let look = |url| findings(&Look { url, room: &room, key: None });
        for url in ["", "call.example.org", "rtmp://x", "http://"] {
            let found = look(url);
            assert!(matches!(&found[..], [(_, Finding::Bad(text))] if text.contains("https://call")), "{url}");
        }
        let nobody =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let found = look(&format!("http://{nobody}/"));
        assert!(matches!(&found[..], [(_, Finding::Bad(text))] if text.contains("nobody can join")));
    }
}
