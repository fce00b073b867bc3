//! Checks of fields and limits that several administrative requests share.

use crate::auth::error::AdminError;
use crate::auth::tokens::jwt::is_id;

/// Maximum length of a display name, in bytes.
pub const NAME_BYTES: usize = 256;

pub(super) fn check_name(name: &str) -> Result<(), AdminError> {
    match name.len() <= NAME_BYTES && !name.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(AdminError::invalid("name", "must be at most 256 bytes without control characters")),
    }
}

/// Checks that there is room for one more object.
pub(super) fn check_limit(what: &'static str, count: usize, max: usize) -> Result<(), AdminError> {
    match count < max {
        true => Ok(()),
        false => Err(AdminError::Limit { what, max }),
    }
}

/// Checks a `sub` or `jti`.
pub(super) fn check_id(field: &'static str, id: &str) -> Result<(), AdminError> {
    match is_id(id) {
        true => Ok(()),
        false => Err(AdminError::invalid(field, "must be 1 to 256 bytes without control characters")),
    }
}
