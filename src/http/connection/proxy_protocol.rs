//! PROXY protocol version 2: a proxy sends the client's address before the first byte of HTTP.
//!
//! * The header is binary: a fixed head of 16 bytes, which gives the number of bytes that follow, at most
//!   [`PROXY_HEADER_BYTES`] in total.
//! * `LOCAL` (a health check of the proxy) and address families without IP addresses name no client.
//! * Extensions after the addresses (TLVs) are skipped.
//!
//! This module only parses bytes. The caller decides which peers are trusted. Version 1, which is text, is
//! not supported.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest header that is accepted. It leaves room for the extensions of load balancers, including client
/// certificates.
pub(super) const PROXY_HEADER_BYTES: usize = 4_096;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Length of the head: signature, version and command, family, length.
const HEAD_BYTES: usize = 16;

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ParsedHeader {
    /// Not a header of this version, or one that cannot be parsed.
    Other,
    /// The start of a header; more bytes are needed.
    Partial,
    /// A complete header of `length` bytes.
    Header {
        length: usize,
        /// The client's address; `None` if the header names none.
        source: Option<IpAddr>,
    },
}

/// Parses a header at the start of `bytes`.
pub(super) fn parse(bytes: &[u8]) -> ParsedHeader {
    let Some((signature, rest)) = bytes.split_first_chunk() else {
        return if SIGNATURE.starts_with(bytes) { ParsedHeader::Partial } else { ParsedHeader::Other };
    };
    if signature != SIGNATURE {
        return ParsedHeader::Other;
    }
    let Some((&[command, family, high, low], rest)) = rest.split_first_chunk() else {
        return ParsedHeader::Partial;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if !matches!(command, 0x20 | 0x21) || HEAD_BYTES + length > PROXY_HEADER_BYTES {
        return ParsedHeader::Other;
    }
    let Some(addresses) = rest.get(..length) else { return ParsedHeader::Partial };
    let source = match (command, family >> 4) {
        (0x20, _) => Ok(None),
        (_, 1) => addresses.first_chunk::<12>().map(v4).ok_or(()),
        (_, 2) => addresses.first_chunk::<36>().map(v6).ok_or(()),
        (_, 0 | 3) => Ok(None),
        _ => Err(()),
    };
    source.map_or(ParsedHeader::Other, |source| ParsedHeader::Header { length: HEAD_BYTES + length, source })
}

/// Source and destination address, then the ports.
fn v4(addresses: &[u8; 12]) -> Option<IpAddr> {
    addresses.first_chunk::<4>().map(|source| Ipv4Addr::from(*source).into())
}

fn v6(addresses: &[u8; 36]) -> Option<IpAddr> {
    addresses.first_chunk::<16>().map(|source| IpAddr::from(Ipv6Addr::from(*source)).to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = (addresses.len() as u16).to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &length, addresses].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 60, 10, 0, 0, 1, 0x12, 0x67, 0, 80];

    fn v6_of(source: &str) -> Vec<u8> {
        let source: Ipv6Addr = source.parse().unwrap();
        [source.octets().as_slice(), &[0; 20]].concat()
    }

    #[test]
    fn a_proxy_header_names_its_client_or_none() {
        let tlv = [V4.as_slice(), &[0x04, 0, 3, 1, 2, 3]].concat();
        for (bytes, source) in [
            (header(0x21, 0x11, &V4), Some("192.0.2.60")),
            (header(0x21, 0x12, &V4), Some("192.0.2.60")),
            (header(0x21, 0x11, &tlv), Some("192.0.2.60")),
            (header(0x21, 0x21, &v6_of("2001:db8::1")), Some("2001:db8::1")),
            (header(0x21, 0x21, &v6_of("::ffff:192.0.2.60")), Some("192.0.2.60")),
            (header(0x20, 0x11, &V4), None),
            (header(0x20, 0, &[]), None),
            (header(0x21, 0, &[]), None),
            (header(0x21, 0, &V4), None),
            (header(0x21, 0x31, &[0; 216]), None),
        ] {
            let expected = ParsedHeader::Header {
                length: bytes.len(),
                source: source.map(|source| source.parse().unwrap()),
            };
            assert_eq!(parse(&bytes), expected, "{bytes:?}");
            assert_eq!(parse(&[bytes.as_slice(), b"GET / HTTP/1.1\r\n"].concat()), expected);
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]), ParsedHeader::Partial, "{end} of {bytes:?}");
            }
        }
    }

    #[test]
    fn bytes_without_a_proxy_header_are_left_to_http() {
        let mut wrong = header(0x21, 0x11, &V4);
        wrong[11] = b' ';
        for bytes in [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"\r\nGET".to_vec(),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.60 10.0.0.1 1 2\r\n".to_vec(),
            wrong,
            header(0x11, 0x11, &V4),
            header(0x31, 0x11, &V4),
            header(0x22, 0x11, &V4),
            header(0x21, 0x11, &V4[..11]),
            header(0x21, 0x21, &V4),
            header(0x21, 0x41, &V4),
            header(0x21, 0x11, &vec![0; PROXY_HEADER_BYTES]),
        ] {
            assert_eq!(parse(&bytes), ParsedHeader::Other, "{bytes:?}");
        }
        assert_ne!(
            parse(&header(0x21, 0x11, &vec![0; PROXY_HEADER_BYTES - HEAD_BYTES])),
            ParsedHeader::Other
        );
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_reading_past_the_end(tail in proptest::collection::vec(any::<u8>(), 0..600)) {
            for bytes in [tail.clone(), [SIGNATURE.as_slice(), &[0x21], &tail].concat()] {
                if let ParsedHeader::Header { length, .. } = parse(&bytes) {
                    prop_assert!((HEAD_BYTES..=PROXY_HEADER_BYTES).contains(&length) && length <= bytes.len());
                }
            }
        }
    }
}
