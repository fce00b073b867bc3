//! Parses one raw value into its field. Type and range are checked here; relations between keys are checked
//! in `check.rs`.

use std::fmt::Display;

use super::key::{Key, KeyType};
use super::raw::{RawValue, expects};
use super::{Config, ListenAddr, TrustedProxies, jwt_keys};

/// Most addresses that one daemon listens on. It catches typing errors; real setups use a few.
const LISTENERS_MAX: usize = 64;
/// Most entries of `allowed_origins`. Each upgrade request is compared with all of them.
const ORIGINS_MAX: usize = 1_000;

/// Stores `value` under `key`. The error text says what the key expects.
pub(super) fn apply(key: &Key, value: &RawValue, config: &mut Config) -> Result<(), String> {
    match &key.kind {
        KeyType::Int { at, min, max, zero, .. } => *at(config) = in_range(value, *min, *max, *zero)?,
        KeyType::Size { at, min, max, zero, .. } => *at(config) = in_range(value, *min, *max, *zero)?,
        KeyType::Bool { at, .. } => match value {
            RawValue::Bool(flag) => *at(config) = *flag,
            other => return Err(expects("true or false", other)),
        },
        KeyType::Path { at, .. } => match value {
            RawValue::Str(text) if !text.is_empty() && !text.contains('\0') => *at(config) = text.into(),
            other => return Err(expects("a path", other)),
        },
        KeyType::Listens { at, .. } => *at(config) = listens(value)?,
        KeyType::Listen { at, .. } => {
            *at(config) = match value {
                RawValue::Str(text) if text == "off" => None,
                other => Some(listen(other)?),
            }
        }
        KeyType::WebOrigins { at } => *at(config) = web_origins(value)?,
        KeyType::Proxies { at } => *at(config) = TrustedProxies::from_raw(value)?,
        KeyType::Word { words, set, .. } => {
            let known = matches!(value, RawValue::Str(text) if set(config, text));
            if !known {
                return Err(expects(&format!("one of {}", words.join(", ")), value));
            }
        }
        KeyType::JwtKeys => config.auth.jwt_keys = jwt_keys::from_raw(value)?,
    }
    Ok(())
}

/// The range as text: `an integer from 1 to 3600`, `… or 0 (no limit)`.
pub(super) fn range_text(min: impl Display, max: impl Display, zero: Option<&str>) -> String {
    match zero {
        Some(meaning) => format!("an integer from {min} to {max}, or 0 ({meaning})"),
        None => format!("an integer from {min} to {max}"),
    }
}

fn in_range<T>(value: &RawValue, min: T, max: T, zero: Option<&str>) -> Result<T, String>
where
    T: TryFrom<i128> + PartialOrd + Display + Copy + Default,
{
    let number = match value {
        RawValue::Int(number) => T::try_from(*number).ok(),
        _ => None,
    };
    match number {
        Some(number) if number >= min && number <= max => Ok(number),
        Some(number) if number == T::default() && zero.is_some() => Ok(number),
        _ => Err(expects(&range_text(min, max, zero), value)),
    }
}

fn listen(value: &RawValue) -> Result<ListenAddr, String> {
    match value {
        RawValue::Str(text) => text.parse().map_err(|error| format!("{error}")),
        other => Err(expects("an address such as \"127.0.0.1:8080\" or \"unix:/path\"", other)),
    }
}

fn listens(value: &RawValue) -> Result<Vec<ListenAddr>, String> {
    let addrs = match value {
        RawValue::List(items) => items.iter().map(listen).collect::<Result<Vec<_>, _>>()?,
        one => vec![listen(one)?],
    };
    if addrs.is_empty() || addrs.len() > LISTENERS_MAX {
        return Err(format!("expects 1 to {LISTENERS_MAX} addresses, got {}", addrs.len()));
    }
    Ok(addrs)
}

fn web_origins(value: &RawValue) -> Result<Vec<String>, String> {
    let RawValue::List(items) = value else {
        return Err(expects("a list of origins such as \"https://app.example\"", value));
    };
    if items.len() > ORIGINS_MAX {
        return Err(format!("expects at most {ORIGINS_MAX} origins, got {}", items.len()));
    }
    items.iter().map(web_origin).collect()
}

/// Parses an origin as browsers serialise it (RFC 6454 §6.2) and converts it to lower case. `*` and `null`
/// are refused, because they would let any page use a visitor's cookie.
fn web_origin(value: &RawValue) -> Result<String, String> {
    let refuse =
        || expects("an origin `scheme://host[:port]` without a path, and neither `*` nor `null`", value);
    let RawValue::Str(text) = value else { return Err(refuse()) };
    let (scheme, authority) = text.split_once("://").ok_or_else(refuse)?;
    let scheme_ok = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-".contains(&b));
    let authority_ok = !authority.is_empty()
        && authority.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b))
        && !authority.starts_with(':');
    let default_port = (scheme == "https" && authority.ends_with(":443"))
        || (scheme == "http" && authority.ends_with(":80") && !authority.ends_with("::80"));
    if !scheme_ok || !authority_ok {
        return Err(refuse());
    }
    if default_port {
        return Err(format!("{text:?} names the default port, which browsers leave out: remove the port"));
    }
    Ok(text.to_ascii_lowercase())
}
