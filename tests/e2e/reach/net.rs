//! Three network namespaces in a row: client, router, server. Requires root and nftables. Removed when dropped.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::server::command_in;

/// The port of HTTP; each server has its own namespace.
const HTTP_PORT: u16 = 8080;

/// The namespaces. Interface `c0` connects client and router, `s0` connects router and server.
pub(crate) struct Net {
    pub(crate) client: String,
    pub(crate) router: String,
    pub(crate) server: String,
}

impl Net {
    /// The client is in a private network behind the router 203.0.113.1; the server 203.0.113.2 has no route to that
    /// network.
    pub(crate) fn ipv4() -> Self {
        let net = Self::new();
        net.address(&net.client, "c0", "10.1.0.2/24");
        net.address(&net.router, "c0", "10.1.0.1/24");
        net.address(&net.router, "s0", "203.0.113.1/24");
        net.address(&net.server, "s0", "203.0.113.2/24");
        net.ip(&net.client, "route add default via 10.1.0.1");
        net
    }

    /// Like [`Self::ipv4`] with a second network, `c1`, in which the client has the public address 203.0.113.3. As on
    /// a phone, packets leave through the network of their source address, and others through the first network.
    pub(crate) fn two_networks() -> Self {
        let net = Self::ipv4();
        net.link(&net.client, "c1");
        net.address(&net.client, "c1", "10.3.0.2/24");
        net.address(&net.router, "c1", "10.3.0.1/24");
        net.address(&net.router, "s0", "203.0.113.3/24");
        net.ip(&net.client, "route add default via 10.3.0.1 metric 600");
        net.ip(&net.client, "route add default via 10.3.0.1 table 3");
        net.ip(&net.client, "rule add from 10.3.0.2 lookup 3");
        net.rules(
            "add table ip nat
add chain ip nat post { type nat hook postrouting priority 100; }
add rule ip nat post oifname s0 ip saddr 10.1.0.0/24 snat to 203.0.113.1
add rule ip nat post oifname s0 ip saddr 10.3.0.0/24 snat to 203.0.113.3
add chain ip nat strays { type filter hook forward priority 0; }
add rule ip nat strays iifname c0 ip saddr != 10.1.0.0/24 drop
add rule ip nat strays iifname c1 ip saddr != 10.3.0.0/24 drop",
        );
        net
    }

    /// The client loses its first network; the second one is already up.
    pub(crate) fn lose_first(&self) {
        self.ip(&self.client, "link set c0 down");
    }

    /// The client loses its second network, has none for a moment, then the first one with another address.
    pub(crate) fn switch_to_first(&self, moment: Duration) {
        self.ip(&self.client, "link set c1 down");
        thread::park_timeout(moment);
        self.ip(&self.client, "address delete 10.1.0.2/24 dev c0");
        self.address(&self.client, "c0", "10.1.0.7/24");
        self.ip(&self.client, "link set c0 up");
        self.ip(&self.client, "route add default via 10.1.0.1");
    }

    /// Client and server are in two IPv6 networks; the server is 2001:db8:2::2.
    pub(crate) fn ipv6() -> Self {
        let net = Self::new();
        net.address(&net.client, "c0", "2001:db8:1::2/64");
        net.address(&net.router, "c0", "2001:db8:1::1/64");
        net.address(&net.router, "s0", "2001:db8:2::1/64");
        net.address(&net.server, "s0", "2001:db8:2::2/64");
        net.ip(&net.client, "-6 route add default via 2001:db8:1::1");
        net.ip(&net.server, "-6 route add default via 2001:db8:2::1");
        net
    }

    /// The client has a public address, the server the private address 10.2.0.2; 203.0.113.9 is an address of the
    /// router.
    pub(crate) fn server_inside() -> Self {
        let net = Self::new();
        net.address(&net.client, "c0", "198.51.100.2/24");
        net.address(&net.router, "c0", "198.51.100.1/24");
        net.address(&net.router, "s0", "10.2.0.1/24");
        net.address(&net.server, "s0", "10.2.0.2/24");
        net.ip(&net.client, "route add default via 198.51.100.1");
        net.ip(&net.server, "route add default via 10.2.0.1");
        net
    }

    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(rustix::process::geteuid().is_root(), "these tests create network namespaces: run them as root");
        let name = format!("reach-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let net = Self { client: format!("{name}-c"), router: format!("{name}-r"), server: format!("{name}-s") };
        for namespace in [&net.client, &net.router, &net.server] {
            run(Command::new("ip").args(["netns", "add", namespace]), "");
            net.ip(namespace, "link set lo up");
            // Chromium aborts page loads if an address changes a second after it appears.
            for what in ["accept_dad", "dad_transmits"] {
                net.set(namespace, &format!("ipv6.conf.default.{what}=0"));
            }
        }
        net.link(&net.client, "c0");
        net.link(&net.server, "s0");
        for forwarding in ["ipv4.ip_forward=1", "ipv6.conf.all.forwarding=1"] {
            net.set(&net.router, forwarding);
        }
        net
    }

    /// Connects a namespace to the router by an interface with the same name on both sides.
    fn link(&self, outer: &str, link: &str) {
        let pair = ["link", "add", link, "netns", outer, "type", "veth", "peer", "name", link, "netns", &self.router];
        run(Command::new("ip").args(pair), "");
        self.ip(outer, &format!("link set {link} up"));
        self.ip(&self.router, &format!("link set {link} up"));
    }

    /// The HTTP address of a server with this IP address.
    pub(crate) fn http(ip: &str) -> SocketAddr {
        SocketAddr::new(ip.parse::<IpAddr>().expect("an address"), HTTP_PORT)
    }

    /// Sets the rules of the router, in the syntax of nft(8).
    pub(crate) fn rules(&self, rules: &str) {
        run(command_in(&self.router, "nft").args(["-f", "-"]), rules);
    }

    /// Changes the router's address towards the server; all translations are forgotten.
    pub(crate) fn readdress(&self) {
        self.rules(
            "add table ip seen
add chain ip seen post { type filter hook postrouting priority 200; }
add rule ip seen post ip saddr 203.0.113.3 meta l4proto udp counter",
        );
        self.ip(&self.router, "address delete 203.0.113.1/24 dev s0");
        self.address(&self.router, "s0", "203.0.113.3/24");
    }

    /// Datagrams that the server received from the router's new address.
    pub(crate) fn datagrams_at_new_address(&self) -> u64 {
        let told = command_in(&self.router, "nft").args(["list", "chain", "ip", "seen", "post"]).output();
        let told = String::from_utf8(told.expect("nft runs").stdout).expect("it writes text");
        let count = told.split_once("counter packets ").and_then(|(_, rest)| rest.split(' ').next());
        count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no counter in {told}"))
    }

    /// Sets a kernel parameter below `net` in the namespace.
    fn set(&self, namespace: &str, what: &str) {
        run(command_in(namespace, "sysctl").args(["-q", "-w", &format!("net.{what}")]), "");
    }

    fn address(&self, namespace: &str, link: &str, address: &str) {
        // Without duplicate address detection the address is usable at once.
        let now = if address.contains(':') { " nodad" } else { "" };
        self.ip(namespace, &format!("address add {address} dev {link}{now}"));
    }

    fn ip(&self, namespace: &str, words: &str) {
        run(Command::new("ip").args(["-n", namespace]).args(words.split(' ')), "");
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for namespace in [&self.client, &self.router, &self.server] {
            // A namespace that was not created cannot be deleted.
            let _ = Command::new("ip").args(["netns", "delete", namespace]).stderr(Stdio::null()).status();
        }
    }
}

/// Runs a command that must succeed, with `input` as its standard input.
fn run(command: &mut Command, input: &str) {
    let spawned = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}; `make test` installs it"));
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it is ours");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
