//! Decides which subscriber gets which event: what a subscriber asks for ([`Filter`]) and may see
//! ([`Rights`]), joined in a [`Selection`].
//!
//! * A filter narrows, never widens: rights are checked for every event, whatever the filter says.
//! * Chunks of parts that are not text are for those alone who ask for all parts. Only `parts=all` adds to what
//!   an empty filter matches.
//! * Fields are combined by AND, values of one field by OR. An event that lacks a named field does not match.
//! * Values are compared byte for byte. Nothing here knows organizations: rings, logs and indexes are per
//!   tenant, so an event never reaches a selection of another organization.

mod narrowing;
mod selection;
mod values;

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;

use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};

use crate::event::EventKind;
use crate::frame::{Frame, RoutingKey};

pub use narrowing::{NARROWING_VALUES, Narrowing};
pub use selection::{Rights, Selection};
pub use values::{Kinds, Names, below};

/// The most values of one filter field. Each value costs its subscriber index rows.
pub const FILTER_VALUES: usize = 100;

/// Why a filter or narrowing was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct FilterError {
    /// The parameter, field or claim.
    pub field: &'static str,
    /// What is wrong, in words.
    pub reason: String,
}

/// What a subscriber asks for. The default asks for everything but chunks of parts that are not text, and owns
/// no memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Filter(Option<Box<Fields>>);

/// An empty set is an absent field. At least one set is not empty, so that equal filters are equal values.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Fields {
    types: Kinds,
    agent_id: Names,
    user_id: Names,
    request_id: Names,
    channel: Names,
    /// Only events of a stream: `stream_chunk`, and `error` with a `request_id`.
    streams: bool,
    /// Also chunks of parts that are not text.
    all_parts: bool,
}

/// The value of an absent field.
static NO_NAMES: Names = Names::EMPTY;

impl Filter {
    /// The query parameters, and the fields of `subscribe`, that form a filter together with
    /// [`Filter::PARTS`]. Each is a list.
    pub const PARAMETERS: [&'static str; 5] = ["types", "agent_id", "user_id", "request_id", "channel"];
    /// The parameter that says which parts of streams are asked for: `text` (the default) or `all`.
    pub const PARTS: &'static str = "parts";

    /// Reads the filter from a query's unescaped pairs. Values are comma lists; a repeated name continues its
    /// list. Other names are ignored. An empty value counts as absent.
    ///
    /// # Errors
    /// [`FilterError`]: an unknown type, a value that no event can have, or too many values.
    pub fn from_query<'a, N, V>(pairs: impl IntoIterator<Item = &'a (N, V)>) -> Result<Filter, FilterError>
    where
        N: AsRef<str> + 'a,
        V: AsRef<str> + 'a,
    {
        let mut builder = FilterBuilder::default();
        for (name, value) in pairs {
            builder.parameter(name.as_ref(), value.as_ref())?;
        }
        builder.build()
    }
    /// Returns the same filter, restricted to events of a stream (`/sse/llm`).
    #[must_use]
    pub fn streams_only(self) -> Filter {
        let fields = Fields { streams: true, ..self.0.map_or_else(Fields::default, |fields| *fields) };
        Filter(Some(Box::new(fields)))
    }
    /// Returns true if [`Filter::matches`] is true of every frame. `has_other_parts` says whether some frames
    /// are chunks of parts that are not text.
    #[must_use]
    pub fn matches_all(&self, has_other_parts: bool) -> bool {
        match &self.0 {
            None => !has_other_parts,
            Some(fields) => **fields == Fields { all_parts: true, ..Fields::default() },
        }
    }
    /// Returns true if chunks of parts that are not text are asked for.
    #[must_use]
    pub fn all_parts(&self) -> bool {
        self.0.as_ref().is_some_and(|fields| fields.all_parts)
    }
    /// Returns the kinds asked for; empty means all.
    #[must_use]
    pub fn types(&self) -> Kinds {
        self.0.as_ref().map(|fields| fields.types).unwrap_or_default()
    }
    /// Returns the agents asked for; empty means all.
    #[must_use]
    pub fn agents(&self) -> &Names {
        self.0.as_ref().map_or(&NO_NAMES, |fields| &fields.agent_id)
    }
    /// Returns the users asked for; empty means all, and events without a user.
    #[must_use]
    pub fn users(&self) -> &Names {
        self.0.as_ref().map_or(&NO_NAMES, |fields| &fields.user_id)
    }
    /// Returns the streams asked for; empty means all.
    #[must_use]
    pub fn requests(&self) -> &Names {
        self.0.as_ref().map_or(&NO_NAMES, |fields| &fields.request_id)
    }
    /// Returns the channels and patterns asked for; empty means all, and events without a channel.
    #[must_use]
    pub fn channels(&self) -> &Names {
        self.0.as_ref().map_or(&NO_NAMES, |fields| &fields.channel)
    }
    /// Returns true if `frame` is asked for.
    #[must_use]
    pub fn matches(&self, frame: &Frame) -> bool {
        let Some(fields) = &self.0 else { return !frame.is_of_other_part() };
        let has = |names: &Names, key| {
            names.is_empty() || frame.key_bytes(key).is_some_and(|value| names.has(value))
        };
        // Only `stream_chunk` and `error` have a `request_id`.
        (fields.all_parts || !frame.is_of_other_part())
            && (!fields.streams || frame.key_bytes(RoutingKey::Request).is_some())
            && (fields.types.is_empty() || fields.types.contains(frame.kind()))
            && has(&fields.request_id, RoutingKey::Request)
            && has(&fields.agent_id, RoutingKey::Agent)
            && has(&fields.user_id, RoutingKey::User)
            && (fields.channel.is_empty()
                || frame.key_bytes(RoutingKey::Channel).is_some_and(|name| fields.channel.covers(name)))
    }
}

/// Writes the filter as query parameters, for listings; writes nothing for the default.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let types: Vec<&str> = self.types().iter().map(EventKind::name).collect();
        let mut fields = vec![("types", types)];
        for (name, names) in Filter::PARAMETERS[1..].iter().zip([
            self.agents(),
            self.users(),
            self.requests(),
            self.channels(),
        ]) {
            fields.push((name, names.iter().collect()));
        }
        if self.all_parts() {
            fields.push((Filter::PARTS, vec![ALL_PARTS]));
        }
        let shown: Vec<String> = fields
            .into_iter()
            .filter(|(_, values)| !values.is_empty())
            .map(|(name, values)| format!("{name}={}", values.join(",")))
            .collect();
        f.write_str(&shown.join("&"))
    }
}

/// Collects a filter field by field, for both [`Filter::from_query`] and `subscribe`.
#[derive(Debug, Default)]
pub struct FilterBuilder {
    /// In the order of [`Filter::PARAMETERS`].
    values: [Vec<Box<str>>; 5],
    all_parts: bool,
}

/// The values of [`Filter::PARTS`].
const TEXT_PARTS: &str = "text";
const ALL_PARTS: &str = "all";

impl FilterBuilder {
    /// Sets [`Filter::PARTS`]. An empty value counts as absent.
    ///
    /// # Errors
    /// [`FilterError`] on an unknown value.
    pub fn parts(&mut self, value: &str) -> Result<(), FilterError> {
        self.all_parts = match value {
            "" | TEXT_PARTS => false,
            ALL_PARTS => true,
            _ => {
                let reason = format!("must be {TEXT_PARTS} or {ALL_PARTS}");
                return Err(FilterError { field: Filter::PARTS, reason });
            }
        };
        Ok(())
    }
    /// Adds a query parameter: a comma list, or [`Filter::PARTS`]. Returns true if `name` is a field of a
    /// filter.
    ///
    /// # Errors
    /// [`FilterError`] on a bad value, or more than [`FILTER_VALUES`] of them.
    pub fn parameter(&mut self, name: &str, value: &str) -> Result<bool, FilterError> {
        if name == Filter::PARTS {
            return self.parts(value).map(|()| true);
        }
        let Some(at) = Self::place(name) else { return Ok(false) };
        value.split(',').try_for_each(|value| self.push(at, value))?;
        Ok(true)
    }
    /// Adds values as they are, commas included. Returns true if `name` is a field of a filter.
    ///
    /// # Errors
    /// As [`FilterBuilder::parameter`].
    pub fn values(&mut self, name: &str, values: &Values<'_>) -> Result<bool, FilterError> {
        let Some(at) = Self::place(name) else { return Ok(false) };
        match values {
            Values::List(list) => return self.parameter(name, list),
            Values::Each(each) => each.iter().try_for_each(|value| self.push(at, value))?,
        }
        Ok(true)
    }

    fn place(name: &str) -> Option<usize> {
        Filter::PARAMETERS.iter().position(|parameter| *parameter == name)
    }

    fn push(&mut self, at: usize, value: &str) -> Result<(), FilterError> {
        if value.is_empty() {
            return Ok(());
        }
        let field = Filter::PARAMETERS[at];
        narrowing::count(field, self.values[at].len() + 1, FILTER_VALUES)?;
        let checked = match field {
            "types" => Ok(()), // checked against the known ones in `build`
            "channel" => values::check_pattern(value),
            _ => values::check_id(value),
        };
        checked.map_err(|reason| FilterError { field, reason })?;
        self.values[at].push(value.into());
        Ok(())
    }

    /// Builds the filter.
    ///
    /// # Errors
    /// [`FilterError`] on an unknown type.
    pub fn build(self) -> Result<Filter, FilterError> {
        let [types, agent_id, user_id, request_id, channel] = self.values;
        let fields = Fields {
            types: narrowing::kinds("types", &types)?,
            agent_id: Names::new(agent_id),
            user_id: Names::new(user_id),
            request_id: Names::new(request_id),
            channel: Names::new(channel),
            streams: false,
            all_parts: self.all_parts,
        };
        Ok(Filter((fields != Fields::default()).then(|| Box::new(fields))))
    }
}

/// A filter field of `subscribe`: a comma list, or an array of values that may hold commas.
#[derive(Debug)]
pub enum Values<'a> {
    /// `"a,b"`; `null` is an empty list.
    List(Cow<'a, str>),
    /// `["a","b"]`, at most one more than [`FILTER_VALUES`], which [`FilterBuilder::values`] refuses.
    Each(Vec<Cow<'a, str>>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Values<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValuesVisitor)
    }
}

#[derive(serde::Deserialize)]
struct CowStr<'a>(#[serde(borrow)] Cow<'a, str>);

struct ValuesVisitor;

impl<'de> Visitor<'de> for ValuesVisitor {
    type Value = Values<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a comma list or an array of strings")
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Values::List(Cow::Borrowed("")))
    }
    fn visit_borrowed_str<E>(self, list: &'de str) -> Result<Self::Value, E> {
        Ok(Values::List(Cow::Borrowed(list)))
    }
    fn visit_str<E>(self, list: &str) -> Result<Self::Value, E> {
        Ok(Values::List(Cow::Owned(list.to_owned())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut each = Vec::new();
        while let Some(CowStr(value)) = seq.next_element()? {
            if each.len() <= FILTER_VALUES {
                each.push(value);
            }
        }
        Ok(Values::Each(each))
    }
}

/// The row of a subscription in an index: its audience (the subscriptions with an equal [`Selection`]) and
/// its position in the audience. 8 bytes, also as an `Option`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowId {
    /// The number of the audience plus one.
    audience: NonZeroU32,
    place: u32,
}

impl RowId {
    /// Returns the row at `place` in `audience`; `None` for the one number that does not fit.
    #[must_use]
    pub fn new(audience: u32, place: u32) -> Option<RowId> {
        Some(RowId { audience: NonZeroU32::new(audience.wrapping_add(1))?, place })
    }
    /// Returns the number of the audience.
    #[must_use]
    pub fn audience(self) -> u32 {
        self.audience.get() - 1
    }
    /// Returns the position among the audience's members.
    #[must_use]
    pub fn place(self) -> u32 {
        self.place
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::tests::frame;

    fn filter(query: &str) -> Filter {
        Filter::from_query(&crate::query::pairs(query).expect(query)).expect(query)
    }

    fn events() -> Vec<Frame> {
        let mut events = Vec::new();
        for user in ["", "u", "v"] {
            for agent in ["", "a", "b"] {
                let mut more = String::new();
                if !user.is_empty() {
                    more += &format!(r#","user_id":"{user}""#);
                }
                if !agent.is_empty() {
                    more += &format!(r#","agent_id":"{agent}""#);
                }
                for head in [
                    r#""type":"custom","channel":"c","data":1"#,
                    r#""type":"custom","channel":"c/d","data":1"#,
                    r#""type":"custom","channel":"c/d/e","data":1"#,
                    r#""type":"stream_chunk","request_id":"r","chunk":"","is_final":true"#,
                    r#""type":"stream_chunk","request_id":"s","chunk":"","is_final":true"#,
                    r#""type":"error","code":"X","message":"m""#,
                ] {
                    events.push(frame(&format!("{{{head}{more}}}"), 1));
                }
            }
        }
        events
    }

    #[test]
    fn fields_and_values_or() {
        let parsed = filter("types=custom,error&channel=c/*,x&agent_id=a&other=1&user_id=");
        let wanted = |json| parsed.matches(&frame(json, 1));
        assert!(wanted(r#"{"type":"custom","channel":"c/d","data":1,"agent_id":"a"}"#));
        assert!(wanted(r#"{"type":"custom","channel":"x","data":1,"agent_id":"a"}"#));
        assert!(!wanted(r#"{"type":"custom","channel":"c","data":1,"agent_id":"a"}"#), "not below itself");
        assert!(!wanted(r#"{"type":"custom","channel":"c/d","data":1,"agent_id":"b"}"#));
        assert!(!wanted(r#"{"type":"custom","channel":"c/d","data":1}"#), "lacks a named field");
        assert!(!wanted(r#"{"type":"error","code":"X","message":"m","agent_id":"a"}"#), "has no channel");
    }

    #[test]
    fn empty_counts_as_absent_and_equal_filters_are_equal() {
        assert_eq!(filter("types=&agent_id=,&channel&parts="), Filter::default());
        assert_eq!(filter("parts=all&parts=text"), Filter::default());
        assert_eq!(filter("agent_id=b,a,b"), filter("agent_id=a&agent_id=b"));
        assert_ne!(filter("agent_id=a"), filter("user_id=a"));
        assert_eq!(size_of::<Selection>(), 40, "one per audience");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused =
            |query: &str| Filter::from_query(&crate::query::pairs(query).expect(query)).expect_err(query);
        let error = refused("types=message,nope");
        assert_eq!(error.field, "types");
        assert!(error.reason.contains("\"nope\""), "{error}");
        assert_eq!(refused("parts=reasoning").to_string(), "parts: must be text or all");
        assert_eq!(refused("channel=a/*/b").field, "channel");
        assert_eq!(refused("channel=*").field, "channel");
        assert_eq!(refused(&format!("agent_id={}", "x".repeat(257))).field, "agent_id");
        assert_eq!(refused(&format!("request_id={}", "x,".repeat(101))).field, "request_id");
    }

    #[test]
    fn subscribe_takes_lists_and_arrays() {
        let build = |json: &str| {
            let fields: std::collections::HashMap<&str, Values<'_>> = serde_json::from_str(json).expect(json);
            let mut builder = FilterBuilder::default();
            for (name, values) in &fields {
                assert!(builder.values(name, values).expect(json));
            }
            builder.build().expect(json)
        };
        assert_eq!(build(r#"{"agent_id":["b","a"],"types":"message,error"}"#), {
            filter("types=error,message&agent_id=a,b")
        });
        assert_eq!(build(r#"{"agent_id":"","user_id":null,"channel":[]}"#), Filter::default());
        assert!(build(r#"{"agent_id":["a,\u0062"]}"#).agents().contains("a,b"), "an item is not split");
        for bad in ["7", r#"{"a":1}"#, "[1]", "[[]]", "true"] {
            assert!(serde_json::from_str::<Values<'_>>(bad).is_err(), "{bad}");
        }
    }

    /// Isolation inside an organization: a defect of this rule would show events to the wrong user.
    #[test]
    fn an_addressed_event_reaches_its_user_and_those_who_read_all() {
        let sub = |sub: Option<&str>| Rights { sub: sub.map(Into::into), ..Rights::default() };
        let all = Rights { sees_all_users: true, ..sub(Some("v")) };
        for event in events() {
            let user = event.key(RoutingKey::User);
            assert_eq!(sub(Some("u")).permit(&event), matches!(user, None | Some("u")));
            assert_eq!(sub(None).permit(&event), user.is_none());
            assert!(all.permit(&event));
            let asks_for_v = Selection { filter: filter("user_id=v"), rights: sub(Some("u")) };
            assert!(!asks_for_v.matches(&event), "silence, whatever is asked");
        }
    }

    #[test]
    fn chunks_of_other_parts_match_only_if_all_parts_are_asked_for() {
        let chunk = |part: &str| {
            let json = r#"{"type":"stream_chunk","request_id":"r","chunk":"","is_final":false"#;
            frame(&format!("{json}{part}}}"), 1)
        };
        let reasoning = chunk(r#","part":{"type":"reasoning","id":"p"}"#);
        let texts = [chunk(""), chunk(r#","part":{"id":"p","type":"text"}"#)];
        for query in ["", "parts=text", "request_id=r", "types=stream_chunk&parts=text"] {
            for filter in [filter(query), filter(query).streams_only()] {
                assert!(texts.iter().all(|chunk| filter.matches(chunk)), "{query}");
                assert!(!filter.matches(&reasoning), "{query}");
            }
        }
        for query in ["parts=all", "parts=all&request_id=r", "types=stream_chunk&parts=all"] {
            for filter in [filter(query), filter(query).streams_only()] {
                assert!(texts.iter().chain([&reasoning]).all(|chunk| filter.matches(chunk)), "{query}");
            }
        }
        assert!(!filter("parts=all&request_id=s").matches(&reasoning));
        assert_eq!(filter("parts=all&agent_id=a").to_string(), "agent_id=a&parts=all");
        assert!(filter("parts=all").matches_all(true) && filter("").matches_all(false));
        assert!(!filter("").matches_all(true) && !filter("parts=all&agent_id=a").matches_all(false));
    }

    const FIELDS: [&str; 9] = [
        "types=custom",
        "types=stream_chunk,error",
        "agent_id=a",
        "agent_id=a,b",
        "user_id=u",
        "user_id=u,v",
        "request_id=r",
        "channel=c/*",
        "channel=c,c/d/e",
    ];

    proptest! {
        /// Each added field, and each narrowing, can only remove events.
        #[test]
        fn adding_a_filter_never_widens(
            picked in prop::sample::subsequence(&FIELDS[..], 0..=9),
            more in prop::sample::select(&FIELDS[..]),
            sub in prop::option::of(prop::sample::select(vec!["u", "v"])),
            sees_all_users: bool,
            narrowed: bool,
        ) {
            // A repeated name would continue its list and so is not an added field.
            let name = |field: &str| field.split('=').next().map(str::to_owned);
            let mut fields: Vec<&str> = Vec::new();
            for field in picked {
                if !fields.iter().any(|f| name(f) == name(field)) && name(field) != name(more) {
                    fields.push(field);
                }
            }
            let rights = Rights { sub: sub.map(Into::into), sees_all_users, narrowing: Narrowing::default() };
            let narrow = Narrowing::new(Some(vec!["a".into()]), None, None).expect("valid");
            let wide = Selection { filter: filter(&fields.join("&")), rights: rights.clone() };
            fields.push(more);
            let narrowing = if narrowed { narrow } else { Narrowing::default() };
            let narrower = Selection { filter: filter(&fields.join("&")), rights: Rights { narrowing, ..rights } };
            for event in events() {
                prop_assert!(!narrower.matches(&event) || wide.matches(&event));
                prop_assert!(!wide.matches(&event) || wide.rights.permit(&event));
            }
        }
    }
}
