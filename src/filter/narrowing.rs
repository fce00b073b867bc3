//! The limits of a credential: the agents, channels and types of its claims `agents[] channels[] types[]`.
//!
//! * An absent claim narrows nothing; an empty claim matches nothing.
//! * The same rule applies to reading and publishing: an event that lacks a named field is outside.
//! * A narrowing does not know users; [`super::Rights`] decides which user's events may be seen.

use serde::{Deserialize, Serialize};

use super::FilterError;
use super::values::{Kinds, Names, check_id, check_pattern};
use crate::event::EventKind;

/// The most values of one claim. A token with more is refused, because every value would be indexed.
pub const NARROWING_VALUES: usize = 256;

/// A narrowing. The default narrows nothing and owns no memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "Claims", into = "Claims")]
pub struct Narrowing(Option<Box<NarrowingSets>>);

/// At least one field is `Some`, so that equal narrowings are equal values.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct NarrowingSets {
    agents: Option<Names>,
    channels: Option<Names>,
    types: Option<Kinds>,
}

/// The claims as they are in a token. Other claims are ignored, so this can be flattened into a larger
/// struct.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Claims {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agents: Option<Vec<Box<str>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    channels: Option<Vec<Box<str>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    types: Option<Vec<Box<str>>>,
}

impl Narrowing {
    /// Creates a narrowing from claims: `None` is an absent claim, and an empty `Some` matches nothing.
    /// Channels may be patterns like `a/*`.
    ///
    /// # Errors
    /// [`FilterError`] names the claim with an unknown type, a value that no event can have, or too many
    /// values.
    pub fn new(
        agents: Option<Vec<Box<str>>>,
        channels: Option<Vec<Box<str>>>,
        types: Option<Vec<Box<str>>>,
    ) -> Result<Narrowing, FilterError> {
        let agents = agents.map(|values| names("agents", values, check_id)).transpose()?;
        let channels = channels.map(|values| names("channels", values, check_pattern)).transpose()?;
        let types = types.map(|values| kinds("types", &values)).transpose()?;
        let limits = NarrowingSets { agents, channels, types };
        Ok(Narrowing((limits != NarrowingSets::default()).then(|| Box::new(limits))))
    }
    /// Returns true if nothing is narrowed.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }
    /// Returns the agents, if narrowed.
    #[must_use]
    pub fn agents(&self) -> Option<&Names> {
        self.0.as_ref()?.agents.as_ref()
    }
    /// Returns the channels and patterns, if narrowed.
    #[must_use]
    pub fn channels(&self) -> Option<&Names> {
        self.0.as_ref()?.channels.as_ref()
    }
    /// Returns the types, if narrowed.
    #[must_use]
    pub fn types(&self) -> Option<Kinds> {
        self.0.as_ref()?.types
    }
    /// Returns true if an event with these fields is inside, for reading and for publishing.
    #[must_use]
    pub fn permits(&self, kind: EventKind, agent_id: Option<&str>, channel: Option<&str>) -> bool {
        let Some(limits) = &self.0 else { return true };
        limits.types.is_none_or(|types| types.contains(kind))
            && limits.agents.as_ref().is_none_or(|agents| agent_id.is_some_and(|id| agents.contains(id)))
            && limits
                .channels
                .as_ref()
                .is_none_or(|channels| channel.is_some_and(|name| channels.covers_channel(name)))
    }
    /// Returns true if an event of this kind without a channel may be inside, whatever its agent.
    #[must_use]
    pub fn permits_kind(&self, kind: EventKind) -> bool {
        self.channels().is_none() && self.types().is_none_or(|types| types.contains(kind))
    }
    /// Returns true if anything of this agent may be read or published, of whatever kind.
    #[must_use]
    pub fn permits_agent(&self, agent_id: &str) -> bool {
        self.agents().is_none_or(|agents| agents.contains(agent_id))
    }
    /// Returns true if a principal limited by `outer` may issue this narrowing: each value is covered by a
    /// value of `outer`.
    #[must_use]
    pub fn within(&self, outer: &Narrowing) -> bool {
        let inside = |mine: Option<&Names>, theirs: Option<&Names>, covers: fn(&Names, &str) -> bool| {
            theirs
                .is_none_or(|theirs| mine.is_some_and(|mine| mine.iter().all(|value| covers(theirs, value))))
        };
        inside(self.agents(), outer.agents(), Names::contains)
            && inside(self.channels(), outer.channels(), Names::covers_channel)
            && outer.types().is_none_or(|theirs| self.types().is_some_and(|mine| mine.is_subset(theirs)))
    }
}

impl TryFrom<Claims> for Narrowing {
    type Error = FilterError;

    fn try_from(claims: Claims) -> Result<Narrowing, FilterError> {
        Narrowing::new(claims.agents, claims.channels, claims.types)
    }
}

impl From<Narrowing> for Claims {
    fn from(narrowing: Narrowing) -> Claims {
        let texts = |names: &Names| names.iter().map(Into::into).collect();
        Claims {
            agents: narrowing.agents().map(texts),
            channels: narrowing.channels().map(texts),
            types: narrowing.types().map(|types| types.iter().map(|kind| kind.name().into()).collect()),
        }
    }
}

fn names(
    field: &'static str,
    values: Vec<Box<str>>,
    check: fn(&str) -> Result<(), String>,
) -> Result<Names, FilterError> {
    count(field, values.len(), NARROWING_VALUES)?;
    values.iter().try_for_each(|value| check(value)).map_err(|reason| FilterError { field, reason })?;
    Ok(Names::new(values))
}

/// Returns the kinds named by `values`.
pub(super) fn kinds(field: &'static str, values: &[Box<str>]) -> Result<Kinds, FilterError> {
    let mut kinds = Kinds::default();
    for value in values {
        match EventKind::from_name(value) {
            Some(kind) => kinds.insert(kind),
            None => {
                let shown: String = value.chars().take(64).collect();
                let known = EventKind::NAMES.join(", ");
                let reason = format!("unknown type {shown:?}; types are {known}");
                return Err(FilterError { field, reason });
            }
        }
    }
    Ok(kinds)
}

/// Refuses more than `max` values.
pub(super) fn count(field: &'static str, len: usize, max: usize) -> Result<(), FilterError> {
    match len > max {
        true => Err(FilterError { field, reason: format!("has more than {max} values") }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrowing(json: &str) -> Narrowing {
        serde_json::from_str(json).expect(json)
    }

    #[test]
    fn absent_narrows_nothing_and_empty_matches_nothing() {
        assert!(narrowing("{}").permits(EventKind::AgentUpdate, None, None));
        assert!(narrowing(r#"{"agents":null}"#).is_none());
        for empty in [r#"{"agents":[]}"#, r#"{"channels":[]}"#, r#"{"types":[]}"#] {
            assert!(!narrowing(empty).permits(EventKind::Custom, Some("a"), Some("c")), "{empty}");
        }
    }

    #[test]
    fn every_claim_must_hold() {
        let both = narrowing(r#"{"agents":["a"],"channels":["x","y/*"],"types":["custom"]}"#);
        assert!(both.permits(EventKind::Custom, Some("a"), Some("y/z")));
        assert!(!both.permits(EventKind::Custom, Some("A"), Some("y/z")));
        assert!(!both.permits(EventKind::Custom, None, Some("y/z")), "a named field is absent");
        assert!(!both.permits(EventKind::Custom, Some("a"), Some("y")), "a pattern is not its own parent");
        assert!(!both.permits(EventKind::Custom, Some("a"), Some("x/z")));
        assert!(!both.permits(EventKind::Message, Some("a"), Some("x")));
    }

    #[test]
    fn a_wider_narrowing_cannot_be_issued() {
        for (inner, outer, within) in [
            ("{}", "{}", true),
            (r#"{"agents":["a"]}"#, "{}", true),
            ("{}", r#"{"agents":["a"]}"#, false),
            (r#"{"agents":["a"]}"#, r#"{"agents":["a","b"]}"#, true),
            (r#"{"agents":["a","c"]}"#, r#"{"agents":["a","b"]}"#, false),
            (r#"{"agents":[]}"#, r#"{"agents":[]}"#, true),
            (r#"{"channels":["a/b","a/b/*","a/*"]}"#, r#"{"channels":["a/*"]}"#, true),
            (r#"{"channels":["a"]}"#, r#"{"channels":["a/*"]}"#, false),
            (r#"{"channels":["a/*"]}"#, r#"{"channels":["a/b/*"]}"#, false),
            (r#"{"channels":["ab/*"]}"#, r#"{"channels":["a/*"]}"#, false),
            (r#"{"types":["custom"]}"#, r#"{"types":["custom","error"]}"#, true),
            (r#"{"types":["message"]}"#, r#"{"types":["custom","error"]}"#, false),
            (r#"{"agents":["a"]}"#, r#"{"types":["custom"]}"#, false),
        ] {
            assert_eq!(narrowing(inner).within(&narrowing(outer)), within, "{inner} in {outer}");
        }
    }

    #[test]
    fn it_comes_back_from_json_beside_other_claims() {
        #[derive(Serialize, Deserialize)]
        struct Token {
            sub: String,
            #[serde(flatten)]
            narrowing: Narrowing,
        }
        let json = r#"{"sub":"u","agents":["a","b"],"channels":[],"types":["message","custom"]}"#;
        let token: Token = serde_json::from_str(json).expect(json);
        assert_eq!(serde_json::to_string(&token).expect("json"), json);
        assert_eq!(serde_json::to_string(&Narrowing::default()).expect("json"), "{}");
    }

    #[test]
    fn what_no_event_can_have_is_refused() {
        for bad in [
            r#"{"types":["nope"]}"#,
            r#"{"channels":["*"]}"#,
            r#"{"channels":["a/*/b"]}"#,
            r#"{"channels":["a//*"]}"#,
            r#"{"agents":[""]}"#,
            r#"{"agents":"a"}"#,
        ] {
            assert!(serde_json::from_str::<Narrowing>(bad).is_err(), "{bad}");
        }
        let many = (0..=NARROWING_VALUES).map(|n| n.to_string().into_boxed_str()).collect();
        assert_eq!(Narrowing::new(Some(many), None, None).expect_err("too many").field, "agents");
    }
}
