//! The permissions of each role, in one table.
//!
//! * A token without scopes has those of its roles ([`Role::scopes`]), and a handler requires a permission
//!   through a right (`authorized.rs`). Both come from [`PERMISSIONS`], so they cannot disagree.
//! * A permission says which action is allowed at all. Whose data it may touch is checked separately: by
//!   `Rights` for reading and by [`super::authorized::Authorized::check`] for writing.

use serde::{Deserialize, Serialize};

use super::scope::{Scope, ScopeSet};

/// Role of a user in an organization.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = UserRole)]
pub enum Role {
    /// May do everything inside the organization.
    Admin,
    /// May read, and write in their own name.
    #[default]
    User,
    /// May read only.
    #[serde(alias = "readonly")]
    Viewer,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 3] = [Role::Admin, Role::User, Role::Viewer];

    /// The name in tokens and responses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::User => "user",
            Role::Viewer => "viewer",
        }
    }

    /// Returns the role with this name; `readonly` is another name for `viewer`.
    #[must_use]
    pub fn named(name: &str) -> Option<Role> {
        match name {
            "readonly" => Some(Role::Viewer),
            name => Role::ALL.into_iter().find(|role| role.name() == name),
        }
    }

    /// Returns the scopes that the role grants.
    #[must_use]
    pub fn scopes(self) -> ScopeSet {
        let given = PERMISSIONS.iter().filter(|permission| permission.roles.contains(&self));
        given.map(|permission| ScopeSet::from(permission.gives)).collect()
    }

    /// Returns the scopes of the role with this name; `None` for an unknown role.
    #[must_use]
    pub fn scopes_of(name: &str) -> Option<ScopeSet> {
        Role::named(name).map(Role::scopes)
    }
}

/// One kind of allowed action.
#[derive(Clone, Copy, Debug)]
pub struct Permission {
    /// What is allowed, in the words of `docs/protocol.md`.
    pub what: &'static str,
    /// One of these scopes is enough.
    pub any_of: ScopeSet,
    /// The scope through which a role grants the permission.
    pub gives: Scope,
    /// The roles that have the permission.
    pub roles: &'static [Role],
}

/// Reading.
pub const READ: Permission = Permission {
    what: "read events, agents, messages, memories, core memory, tools, presence, one's own connections",
    any_of: ScopeSet::of(&[Scope::Subscribe]),
    gives: Scope::Subscribe,
    roles: &[Role::Admin, Role::User, Role::Viewer],
};
/// Reading what is addressed to other users.
pub const READ_ALL: Permission = Permission {
    what: "read what is addressed to other users",
    any_of: ScopeSet::of(&[Scope::ReadAll]),
    gives: Scope::ReadAll,
    roles: &[Role::Admin],
};
/// Publishing events.
pub const PUBLISH: Permission = Permission {
    what: "publish events in one's own name",
    any_of: ScopeSet::of(&[Scope::Publish, Scope::PublishOrg]),
    gives: Scope::Publish,
    roles: &[Role::Admin, Role::User],
};
/// Publishing and writing in any user's name.
pub const PUBLISH_ALL: Permission = Permission {
    what: "publish for every user, and for all at once; with `write`, write messages and memories for them too",
    any_of: ScopeSet::of(&[Scope::PublishOrg]),
    gives: Scope::PublishOrg,
    roles: &[Role::Admin],
};
/// Writing what belongs to a user.
pub const WRITE: Permission = Permission {
    what: "write messages, memories, core memory in one's own name; one's own profile",
    any_of: ScopeSet::of(&[Scope::Write]),
    gives: Scope::Write,
    roles: &[Role::Admin, Role::User],
};
/// Writing one's own agents and tools; any agents and tools with [`AGENTS`] as well.
pub const WRITE_OWN: Permission = Permission {
    what: "create agents and tools; change and delete those one owns, and an agent's shared core memory",
    any_of: ScopeSet::of(&[Scope::Write, Scope::Agents]),
    gives: Scope::Write,
    roles: &[Role::Admin, Role::User],
};
/// Writing any user's agents and tools.
pub const AGENTS: Permission = Permission {
    what: "change and delete any agent and tool, and set its owner",
    any_of: ScopeSet::of(&[Scope::Agents]),
    gives: Scope::Agents,
    roles: &[Role::Admin],
};
/// Minting credentials for users.
pub const MINT: Permission = Permission {
    what: "mint tokens and tickets of users, with at most `subscribe publish write`",
    any_of: ScopeSet::of(&[Scope::Mint, Scope::Manage]),
    gives: Scope::Mint,
    roles: &[Role::Admin],
};
/// Managing an organization.
pub const MANAGE: Permission = Permission {
    what: "users and members, API keys, tokens, connections, statistics, one's own organization",
    any_of: ScopeSet::of(&[Scope::Manage]),
    gives: Scope::Manage,
    roles: &[Role::Admin],
};
/// Creating and deleting organizations. No role has this permission.
pub const OPERATE: Permission = Permission {
    what: "create, list and delete organizations",
    any_of: ScopeSet::of(&[Scope::Operate]),
    gives: Scope::Operate,
    roles: &[],
};

/// All permissions.
pub const PERMISSIONS: [Permission; 10] =
    [READ, READ_ALL, PUBLISH, PUBLISH_ALL, WRITE, WRITE_OWN, AGENTS, MINT, MANAGE, OPERATE];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_have_the_documented_scopes() {
        assert_eq!(Role::Admin.scopes(), ScopeSet::ORGANIZATION);
        assert_eq!(Role::User.scopes(), ScopeSet::MINTABLE);
        assert_eq!(Role::Viewer.scopes(), Scope::Subscribe.into());
        assert_eq!(Role::scopes_of("admin"), Some(ScopeSet::ORGANIZATION));
        assert_eq!(Role::scopes_of("user"), Some(ScopeSet::MINTABLE));
        assert_eq!(Role::scopes_of("readonly"), Role::scopes_of("viewer"));
        assert_eq!(Role::scopes_of("Admin"), None);
        assert_eq!(Role::scopes_of("root"), None);
    }

    #[test]
    fn a_role_round_trips_through_its_name() {
        for role in Role::ALL {
            assert_eq!(Role::named(role.name()), Some(role));
            let json = serde_json::to_string(&role).expect("JSON");
            assert_eq!(json, format!("{:?}", role.name()));
            assert_eq!(serde_json::from_str::<Role>(&json).ok(), Some(role));
        }
        assert_eq!(serde_json::from_str::<Role>("\"readonly\"").ok(), Some(Role::Viewer));
        assert_eq!(Role::named("readonly"), Some(Role::Viewer));
        assert_eq!(Role::named("root"), None);
    }

    #[test]
    fn a_role_grants_each_permission_of_its_row() {
        for permission in PERMISSIONS {
            assert!(permission.any_of.has(permission.gives), "{}", permission.what);
            for role in Role::ALL {
                let has = role.scopes().intersects(permission.any_of);
                assert_eq!(has, permission.roles.contains(&role), "{role:?}: {}", permission.what);
            }
        }
    }
}
