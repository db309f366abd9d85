//! The PROXY protocol, version 2 (haproxy.org, proxy-protocol.txt section 2.2): the address of a proxy's client.
//!
//! Owns: reading one header from a connection. Does not know: which proxies are trusted. In: a connection; out: the
//! client's address, and the connection behind the header.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use ppp::v2::{Addresses, Command, Header};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Length of the fixed part in bytes: signature, version and command, protocol, length of the rest.
const FIXED: usize = 16;
/// Largest rest in bytes; addresses have at most 216, the others are extensions.
const REST_MAX: usize = 2048;

/// Reads the header. None if the proxy connects for itself, such as for a health check, or hides the address.
///
/// # Errors
/// The connection does not begin with such a header.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let malformed = |reason: String| io::Error::new(ErrorKind::InvalidData, reason);
    let mut header = vec![0; FIXED];
    stream.read_exact(&mut header).await?;
    if !header.starts_with(ppp::v2::PROTOCOL_PREFIX) {
        return Err(malformed("no PROXY protocol header of version 2: configure the proxy to send one".to_owned()));
    }
    let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if rest > REST_MAX {
        return Err(malformed(format!("a PROXY protocol header of {rest} bytes; at most {REST_MAX} are accepted")));
    }
    header.resize(FIXED + rest, 0);
    stream.read_exact(&mut header[FIXED..]).await?;
    let header =
        Header::try_from(&header[..]).map_err(|error| malformed(format!("malformed PROXY header: {error}")))?;
    Ok(match (header.command, header.addresses) {
        (Command::Proxy, Addresses::IPv4(v4)) => Some((v4.source_address, v4.source_port).into()),
        (Command::Proxy, Addresses::IPv6(v6)) => Some((v6.source_address, v6.source_port).into()),
        (Command::Local, _) | (_, Addresses::Unspecified | Addresses::Unix(_)) => None,
    })
}

#[cfg(test)]
mod tests {
    use ppp::v2::{Builder, Protocol, Version};
    use proptest::prelude::*;

    use super::*;

    fn header(command: Command, from: &str, to: &str) -> Vec<u8> {
        let addresses: (SocketAddr, SocketAddr) = (from.parse().expect("one"), to.parse().expect("one"));
        Builder::with_addresses(Version::Two | command, Protocol::Stream, addresses).build().expect("short")
    }

    #[tokio::test]
    async fn the_address_of_the_client_is_read_and_the_rest_remains() {
        for (from, to) in [("198.51.100.1:4711", "192.0.2.1:443"), ("[2001:db8::1]:4711", "[2001:db8::2]:443")] {
            let mut bytes = header(Command::Proxy, from, to);
            bytes.extend(b"GET /");
            let mut stream = &bytes[..];
            assert_eq!(read(&mut stream).await.expect("well formed"), Some(from.parse().expect("one")));
            assert_eq!(stream, b"GET /");
        }
        let local = header(Command::Local, "198.51.100.1:4711", "192.0.2.1:443");
        assert_eq!(read(&mut &local[..]).await.expect("well formed"), None, "a health check of the proxy");
    }

    #[tokio::test]
    async fn other_beginnings_are_errors() {
        let whole = header(Command::Proxy, "198.51.100.1:4711", "192.0.2.1:443");
        let mut long = whole.clone();
        long[14] = 255;
        let mut version = whole.clone();
        version[12] = 0x11;
        for bytes in [&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], &whole[..20], &whole[..5], &long, &version] {
            assert!(read(&mut &bytes[..]).await.is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(rest in prop::collection::vec(any::<u8>(), 0..300), signed in any::<bool>()) {
            let mut bytes = if signed { ppp::v2::PROTOCOL_PREFIX.to_vec() } else { Vec::new() };
            bytes.extend(rest);
            let _ = futures::executor::block_on(read(&mut &bytes[..]));
        }
    }
}
