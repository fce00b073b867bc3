//! Owners of agents and tools, and who may change these (protocol §3).
//!
//! * The user who creates an agent or a tool owns it. It has no owner if an API key creates it, or a
//!   credential with the scope `agents` that asks for none.
//! * With the scope `write`, users change and delete what they own. The scope `agents` allows changing all,
//!   and only it can set an owner.
//! * Agents and tools from before owners were introduced have none.

use super::ResourceError;
use crate::auth::{Principal, Scope};
use crate::event::check_id;

/// Returns the owner of a new resource whose request names the owner `requested`. A field that is left out
/// differs from `null`.
pub(super) fn of_new(
    principal: &Principal,
    requested: Option<Option<String>>,
) -> Result<Option<String>, ResourceError> {
    let sub = principal.sub.as_deref();
    match requested {
        None if sub.is_some() || principal.scopes.has(Scope::Agents) => Ok(sub.map(str::to_owned)),
        None => Err(ResourceError::Forbidden(
            "an API key cannot own anything: to create agents and tools it needs the scope agents",
        )),
        Some(Some(owner)) if sub == Some(&*owner) => Ok(Some(owner)),
        Some(owner) => set(principal, owner),
    }
}

/// Returns the owner after a change of a resource that `old` owns.
pub(super) fn of_changed(
    principal: &Principal,
    old: Option<String>,
    requested: Option<Option<String>>,
) -> Result<Option<String>, ResourceError> {
    match requested {
        None => Ok(old),
        Some(owner) if owner == old => Ok(old),
        Some(owner) => set(principal, owner),
    }
}

/// Checks that the caller may change or delete what `owner` owns.
pub(super) fn check(principal: &Principal, owner: Option<&str>) -> Result<(), ResourceError> {
    match principal.may_change_owned_by(owner) {
        true => Ok(()),
        false => Err(ResourceError::Forbidden(
            "you are not the owner: the scope write covers only what you own, the scope agents everything",
        )),
    }
}

fn set(principal: &Principal, owner: Option<String>) -> Result<Option<String>, ResourceError> {
    if !principal.scopes.has(Scope::Agents) {
        return Err(ResourceError::Forbidden("owner: must be yourself unless you have the scope agents"));
    }
    if let Some(owner) = &owner {
        check_id(owner).map_err(|reason| ResourceError::invalid("owner", reason))?;
    }
    Ok(owner)
}
