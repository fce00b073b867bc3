//! `trusted_proxies[]`: the peers that are trusted to name a client's address.
//!
//! * An entry is an address, a network in CIDR notation, or `unix` for every peer of a unix socket.
//! * Addresses are compared in canonical form: an IPv4 address mapped into IPv6 is the IPv4 address.
//!
//! `http` reads the headers with which a trusted peer names the client.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::raw::RawValue;

/// Most entries of the list. Each request of a trusted proxy is compared with all of them.
const PROXIES_MAX: usize = 1_000;
const UNIX: &str = "unix";

/// The trusted peers. The default trusts none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    entries: Vec<ProxyEntry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProxyEntry {
    Unix,
    /// An address whose first `prefix` bits are compared. The other bits are 0.
    Network {
        address: IpAddr,
        prefix: u32,
    },
}

impl TrustedProxies {
    /// Whether this peer is trusted. `None` stands for a peer of a unix socket.
    #[must_use]
    pub fn contains(&self, peer: Option<IpAddr>) -> bool {
        let peer = peer.map(|peer| peer.to_canonical());
        self.entries.iter().any(|entry| match (entry, peer) {
            (ProxyEntry::Unix, None) => true,
            (ProxyEntry::Network { address, prefix }, Some(peer)) => {
                truncated(peer, *prefix) == Some(*address)
            }
            _ => false,
        })
    }

    pub(super) fn from_raw(value: &RawValue) -> Result<TrustedProxies, String> {
        let RawValue::List(items) = value else {
            let got = value.type_name();
            return Err(format!("expects a list of addresses, networks and \"unix\", got {got}"));
        };
        if items.len() > PROXIES_MAX {
            return Err(format!("expects at most {PROXIES_MAX} entries, got {}", items.len()));
        }
        let mut entries = Vec::with_capacity(items.len());
        let mut problems = Vec::new();
        for (i, item) in items.iter().enumerate() {
            match entry(item) {
                Ok(entry) => entries.push(entry),
                Err(what) => problems.push(format!("[{i}]: {what}")),
            }
        }
        if problems.is_empty() { Ok(TrustedProxies { entries }) } else { Err(problems.join("; ")) }
    }

    pub(super) fn to_raw(&self) -> RawValue {
        RawValue::List(self.entries.iter().map(|entry| RawValue::Str(entry.to_string())).collect())
    }
}

fn entry(item: &RawValue) -> Result<ProxyEntry, String> {
    let RawValue::Str(text) = item else {
        return Err(format!("expects an address, a network or \"unix\", got {}", item.type_name()));
    };
    if text == UNIX {
        return Ok(ProxyEntry::Unix);
    }
    network(text).ok_or_else(|| format!("{text:?} is not an address, a network or \"unix\""))?.map_err(
        |network| match network {
            ProxyEntry::Network { prefix: 0, .. } => format!("{text:?} would trust every peer"),
            network => format!("{text:?} has bits beyond its prefix: write \"{network}\""),
        },
    )
}

/// Parses an address or a network. The inner error is a network that is not allowed, with the bits after its
/// prefix cleared.
fn network(text: &str) -> Option<Result<ProxyEntry, ProxyEntry>> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) if prefix.bytes().all(|b| b.is_ascii_digit()) => {
            (address.parse::<IpAddr>().ok()?, Some(prefix.parse::<u32>().ok()?))
        }
        Some(_) => return None,
        None => (text.parse().ok()?, None),
    };
    let canonical = address.to_canonical();
    let prefix = match prefix {
        None => bits(canonical),
        Some(prefix) if prefix > bits(address) => return None,
        // `::ffff:10.0.0.0/104` means 10.0.0.0/8.
        Some(prefix) => prefix.checked_sub(bits(address) - bits(canonical))?,
    };
    let network = ProxyEntry::Network { address: truncated(canonical, prefix)?, prefix };
    let clean = prefix > 0 && network == ProxyEntry::Network { address: canonical, prefix };
    Some(if clean { Ok(network) } else { Err(network) })
}

fn bits(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with all but its first `prefix` bits cleared; `None` if the address has fewer bits.
fn truncated(address: IpAddr, prefix: u32) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(v4) => {
            let cleared = 32_u32.checked_sub(prefix)?;
            IpAddr::from((v4.to_bits() & u32::MAX.checked_shl(cleared).unwrap_or(0)).to_be_bytes())
        }
        IpAddr::V6(v6) => {
            let cleared = 128_u32.checked_sub(prefix)?;
            Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(cleared).unwrap_or(0)).into()
        }
    })
}

impl fmt::Display for ProxyEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProxyEntry::Unix => f.write_str(UNIX),
            ProxyEntry::Network { address, prefix } if *prefix == bits(*address) => write!(f, "{address}"),
            ProxyEntry::Network { address, prefix } => write!(f, "{address}/{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(entries: &[&str]) -> Result<TrustedProxies, String> {
        TrustedProxies::from_raw(&RawValue::List(
            entries.iter().map(|text| RawValue::Str((*text).to_owned())).collect(),
        ))
    }

    fn trusts(entries: &[&str], peer: &str) -> bool {
        load(entries).unwrap().contains((peer != UNIX).then(|| peer.parse().unwrap()))
    }

    #[test]
    fn a_peer_is_trusted_by_address_network_or_kind() {
        for (entry, inside, outside) in [
            ("10.0.0.7", &["10.0.0.7", "::ffff:10.0.0.7"][..], &["10.0.0.8", "::10.0.0.7", "unix"][..]),
            ("10.0.0.0/8", &["10.255.0.1", "::ffff:10.1.2.3"], &["11.0.0.0", "9.255.255.255", "a00::1"]),
            ("192.0.2.8/31", &["192.0.2.8", "192.0.2.9"], &["192.0.2.10", "192.0.2.7"]),
            ("128.0.0.0/1", &["255.255.255.255"], &["127.255.255.255"]),
            ("::1", &["::1"], &["::2", "127.0.0.1", "0.0.0.1"]),
            ("2001:db8::/32", &["2001:db8:ffff::1"], &["2001:db9::", "32.1.13.184"]),
            ("::ffff:10.0.0.0/104", &["10.1.2.3"], &["11.0.0.1", "::ffff:11.0.0.1"]),
            ("unix", &["unix"], &["127.0.0.1", "::"]),
        ] {
            inside.iter().for_each(|peer| assert!(trusts(&[entry], peer), "{entry} {peer}"));
            outside.iter().for_each(|peer| assert!(!trusts(&[entry], peer), "{entry} {peer}"));
        }
        assert!(!trusts(&[], UNIX) && !trusts(&[], "127.0.0.1"));
        assert!(trusts(&["unix", "::1"], "::1"));
    }

    #[test]
    fn an_invalid_entry_is_refused_with_its_index() {
        for (entry, expected) in [
            ("10.0.0.0/33", "[1]: \"10.0.0.0/33\" is not an address, a network or \"unix\""),
            ("::/129", "is not an address"),
            ("::ffff:10.0.0.0/8", "is not an address"),
            ("10.0.0.0/+8", "is not an address"),
            ("10.0.0.0/", "is not an address"),
            ("10.0.0.0/99999999999", "is not an address"),
            ("10.0.0", "is not an address"),
            ("nginx", "is not an address"),
            ("127.0.0.1:80", "is not an address"),
            ("fe80::1%eth0", "is not an address"),
            ("", "is not an address"),
            ("10.0.0.1/8", "has bits beyond its prefix: write \"10.0.0.0/8\""),
            ("2001:db8::1/64", "write \"2001:db8::/64\""),
            ("0.0.0.0/0", "would trust every peer"),
            ("::/0", "would trust every peer"),
            ("::ffff:0.0.0.0/96", "would trust every peer"),
        ] {
            let error = load(&["unix", entry]).unwrap_err();
            assert!(error.contains(expected) && error.starts_with("[1]: "), "{entry}: {error}");
        }
        assert!(TrustedProxies::from_raw(&RawValue::Int(7)).unwrap_err().contains("expects a list"));
        assert!(
            TrustedProxies::from_raw(&RawValue::List(vec![RawValue::Int(7)]))
                .unwrap_err()
                .starts_with("[0]: expects")
        );
        assert!(load(&vec!["unix"; PROXIES_MAX + 1]).is_err());
    }

    #[test]
    fn entries_are_printed_in_canonical_form() {
        let printed =
            load(&["unix", "10.0.0.7", "10.0.0.0/8", "::ffff:10.0.0.0/104", "2001:db8::/32"]).unwrap();
        let expected = ["unix", "10.0.0.7", "10.0.0.0/8", "10.0.0.0/8", "2001:db8::/32"];
        assert_eq!(
            printed.to_raw(),
            RawValue::List(expected.map(|text| RawValue::Str(text.to_owned())).to_vec())
        );
    }
}
