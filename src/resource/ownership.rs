//! Who owns an agent or a tool, and who may change it (protocol §3).
//!
//! * The user who makes one owns it. What an API key makes, or what a credential with `agents` makes so, has no owner.
//! * With `write` one changes and deletes what one owns. `agents` changes all, and it alone sets an owner.
//! * What was made before there were owners has none.

use super::ResourceError;
use crate::auth::{Principal, Scope};
use crate::event::check_id;

/// The owner of something new, where the request names `asked`; absent and `null` are different.
pub(super) fn of_new(
    principal: &Principal,
    asked: Option<Option<String>>,
) -> Result<Option<String>, ResourceError> {
    let sub = principal.sub.as_deref();
    match asked {
        None if sub.is_some() || principal.scopes.has(Scope::Agents) => Ok(sub.map(str::to_owned)),
        None => Err(ResourceError::Forbidden(
            "an API key owns nothing: to make agents and tools it needs the scope agents",
        )),
        Some(Some(owner)) if sub == Some(&*owner) => Ok(Some(owner)),
        Some(owner) => set(principal, owner),
    }
}

/// The owner after a change of something that `old` owns.
pub(super) fn of_changed(
    principal: &Principal,
    old: Option<String>,
    asked: Option<Option<String>>,
) -> Result<Option<String>, ResourceError> {
    match asked {
        None => Ok(old),
        Some(owner) if owner == old => Ok(old),
        Some(owner) => set(principal, owner),
    }
}

/// Whether the caller may change or delete what `owner` owns.
pub(super) fn check(principal: &Principal, owner: Option<&str>) -> Result<(), ResourceError> {
    match principal.may_change_owned_by(owner) {
        true => Ok(()),
        false => Err(ResourceError::Forbidden(
            "it is not yours: with the scope write you change what you own, with agents everything",
        )),
    }
}

fn set(principal: &Principal, owner: Option<String>) -> Result<Option<String>, ResourceError> {
    if !principal.scopes.has(Scope::Agents) {
        return Err(ResourceError::Forbidden("owner: only yourself, without the scope agents"));
    }
    if let Some(owner) = &owner {
        check_id(owner).map_err(|reason| ResourceError::invalid("owner", reason))?;
    }
    Ok(owner)
}
