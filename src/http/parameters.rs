//! Parameters of requests: what their values can be, and which there may be.
//!
//! * An unknown one is refused: ignored, an `org_id` would act on another organization than its sender thinks.
//! * Credentials are none of them: every request may carry one, and [`crate::auth`] reads it.

use crate::outcome::Refusal;

use super::exchange::Exchange;

/// Rows of a page where nobody asks for fewer.
pub(super) const PAGE_DEFAULT: usize = 50;
/// Most rows of a page.
pub(super) const PAGE_MOST: u64 = 100;
/// How far `offset` reaches; who goes on needs the cursor.
pub(super) const OFFSET_MOST: u64 = 10_000;

/// What a parameter is refused with that the request does not have.
pub(super) fn unknown(name: &str) -> Refusal {
    Refusal::bad_request(format!("{name}: no such parameter"))
}

/// Refuses every parameter.
///
/// # Errors
/// 400 naming one.
pub(super) fn no_parameters(x: &Exchange) -> Result<(), Refusal> {
    match x.parameters()?.first() {
        Some((name, _)) => Err(unknown(name)),
        None => Ok(()),
    }
}

/// The parameter `name` of a request that has no other; an empty value counts as absent.
///
/// # Errors
/// 400 naming another.
pub(super) fn only_parameter(x: &Exchange, name: &str) -> Result<Option<String>, Refusal> {
    let mut asked = None;
    for (other, value) in x.parameters()? {
        match other.as_ref() {
            other if other != name => return Err(unknown(other)),
            _ if value.is_empty() => {}
            _ => asked = Some(value.into_owned()),
        }
    }
    Ok(asked)
}

/// One segment of the path, unescaped.
///
/// # Errors
/// 404: nothing has such a name.
pub(super) fn unescaped(segment: &str) -> Result<String, Refusal> {
    crate::query::unescape_path(segment).ok_or_else(Refusal::not_found)
}

/// `true` or `false`, as a parameter's value.
///
/// # Errors
/// 400 naming the parameter.
pub(super) fn boolean(name: &str, text: &str) -> Result<bool, Refusal> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Refusal::bad_request(format!("{name}: must be true or false"))),
    }
}

/// A whole number within bounds, as a parameter's value.
///
/// # Errors
/// 400 naming the parameter and its bounds.
pub(super) fn number(name: &str, text: &str, least: u64, most: u64) -> Result<u64, Refusal> {
    text.parse()
        .ok()
        .filter(|n| (least..=most).contains(n))
        .ok_or_else(|| Refusal::bad_request(format!("{name}: must be a whole number from {least} to {most}")))
}

/// A number from 0 to 1, as a parameter's value.
///
/// # Errors
/// 400 naming the parameter.
pub(super) fn fraction(name: &str, text: &str) -> Result<f64, Refusal> {
    let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| Refusal::bad_request(format!("{name}: must be a number from 0 to 1")))
}
