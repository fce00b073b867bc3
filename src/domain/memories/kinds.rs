//! The fixed words that describe a memory: its type and its scope. They are accepted in any case and written
//! in one form.

use serde::{Deserialize, Deserializer, Serialize};

/// Type of a memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, utoipa::ToSchema)]
#[repr(u8)]
pub enum MemoryType {
    /// A fact.
    Factual = 0,
    /// An event that happened.
    Episodic = 1,
    /// A way to do something.
    Procedural = 2,
    /// A meaning or a concept.
    #[default]
    Semantic = 3,
    /// Something that matters to the current task.
    Working = 4,
    /// Something that always matters.
    Core = 5,
    /// Something that can be used.
    Resource = 6,
    /// Something that was learned.
    Knowledge = 7,
    /// The context of something.
    Contextual = 8,
}

impl MemoryType {
    /// All types. The index in this array is the number in the search index.
    pub const ALL: [MemoryType; 9] = [
        MemoryType::Factual,
        MemoryType::Episodic,
        MemoryType::Procedural,
        MemoryType::Semantic,
        MemoryType::Working,
        MemoryType::Core,
        MemoryType::Resource,
        MemoryType::Knowledge,
        MemoryType::Contextual,
    ];

    /// Returns the type's name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            MemoryType::Factual => "Factual",
            MemoryType::Episodic => "Episodic",
            MemoryType::Procedural => "Procedural",
            MemoryType::Semantic => "Semantic",
            MemoryType::Working => "Working",
            MemoryType::Core => "Core",
            MemoryType::Resource => "Resource",
            MemoryType::Knowledge => "Knowledge",
            MemoryType::Contextual => "Contextual",
        }
    }

    /// Returns the type with this name, in any case.
    ///
    /// # Errors
    /// The accepted names, as a text for people.
    pub fn from_name(name: &str) -> Result<MemoryType, String> {
        named(name, &MemoryType::ALL, MemoryType::name)
    }
}

impl<'de> Deserialize<'de> for MemoryType {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<MemoryType, D::Error> {
        let name = String::deserialize(json)?;
        MemoryType::from_name(&name).map_err(serde::de::Error::custom)
    }
}

/// What a memory belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = MemoryScope)]
pub enum Scope {
    /// An agent.
    Agent,
    /// A user.
    User,
    /// A session.
    Session,
    /// A run.
    Run,
    /// The organization.
    Organization,
    /// All organizations.
    Global,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Scope; 6] =
        [Scope::Agent, Scope::User, Scope::Session, Scope::Run, Scope::Organization, Scope::Global];

    /// Returns the scope's name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Scope::Agent => "agent",
            Scope::User => "user",
            Scope::Session => "session",
            Scope::Run => "run",
            Scope::Organization => "organization",
            Scope::Global => "global",
        }
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Scope, D::Error> {
        let name = String::deserialize(json)?;
        named(&name, &Scope::ALL, Scope::name).map_err(serde::de::Error::custom)
    }
}

fn named<T: Copy>(name: &str, all: &[T], name_of: fn(T) -> &'static str) -> Result<T, String> {
    all.iter().copied().find(|it| name_of(*it).eq_ignore_ascii_case(name)).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|it| name_of(*it)).collect();
        format!("must be one of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_and_scope_names_are_parsed_in_any_case() {
        for (number, kind) in MemoryType::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number, "on disk");
            let written = serde_json::to_string(&kind).expect("JSON");
            for text in [written.clone(), written.to_lowercase(), written.to_uppercase()] {
                assert_eq!(serde_json::from_str::<MemoryType>(&text).expect(&text), kind);
            }
        }
        for scope in Scope::ALL {
            let written = serde_json::to_string(&scope).expect("JSON");
            assert_eq!(written, format!("\"{}\"", scope.name()));
            assert_eq!(serde_json::from_str::<Scope>(&written.to_uppercase()).expect(&written), scope);
        }
        let refused = serde_json::from_str::<MemoryType>("\"vague\"").expect_err("no such type").to_string();
        assert!(refused.contains("must be one of Factual, Episodic"), "{refused}");
    }
}
