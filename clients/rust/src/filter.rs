//! The filter and start position of a subscription, as a query string. It does not read cursors and has no
//! socket.

use crate::url::{encode, path_with_query};

/// Selects events: an event must match every field that is set, by any of its values. An empty filter matches
/// all events that the credential may see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    types: Vec<String>,
    agents: Vec<String>,
    users: Vec<String>,
    requests: Vec<String>,
    channels: Vec<String>,
    /// Whether a reader of streams gets parts other than text.
    pub(crate) all_parts: bool,
}

/// Defines the setter of one field.
macro_rules! field {
    ($(#[$about:meta])* $name:ident) => {
        $(#[$about])*
        #[must_use]
        pub fn $name(mut self, values: impl IntoIterator<Item: Into<String>>) -> Self {
            self.$name = values.into_iter().map(Into::into).collect();
            self
        }
    };
}

impl Filter {
    /// Creates an empty filter, which matches all events that the credential may see.
    pub fn new() -> Self {
        Self::default()
    }

    field!(
        /// Only events of these types, e.g. `message`.
        types
    );
    field!(
        /// Only events of these agents.
        agents
    );
    field!(
        /// Only events to or about these users.
        users
    );
    field!(
        /// Only events of these streams (`request_id`).
        requests
    );
    field!(
        /// Only events on these channels; `a/*` matches all channels below `a/`.
        channels
    );

    fn pairs(&self) -> impl Iterator<Item = (&'static str, String)> {
        let fields = [
            ("types", &self.types),
            ("agent_id", &self.agents),
            ("user_id", &self.users),
            ("request_id", &self.requests),
            ("channel", &self.channels),
        ];
        let named = fields.into_iter().filter(|(_, values)| !values.is_empty()).map(|(name, values)| {
            // Commas between values separate the list; commas in values are escaped.
            (name, values.iter().map(|value| encode(value)).collect::<Vec<_>>().join(","))
        });
        named.chain(self.all_parts.then(|| ("parts", "all".to_owned())))
    }
}

/// Where a subscription starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Position {
    /// With the next event published from now on.
    #[default]
    Now,
    /// With the oldest event kept.
    Earliest,
    /// With the first event received at or after this time, RFC 3339.
    Since(String),
    /// After this cursor, which is the id of an event.
    After(String),
}

/// Returns `/api/v1/<endpoint>` with filter and position.
pub(crate) fn path(endpoint: &str, filter: &Filter, position: &Position) -> String {
    let position = match position {
        Position::Now => None,
        Position::Earliest => Some(("earliest", "true".to_owned())),
        Position::Since(time) => Some(("since", encode(time))),
        Position::After(cursor) => Some(("last_event_id", encode(cursor))),
    };
    let pairs = filter.pairs().chain(position);
    path_with_query(&format!("/api/v1/{endpoint}"), pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_and_positions_become_queries() {
        let filter = Filter::new().types(["message", "custom"]).channels(["chat/*", "a b,c"]);
        let query = "types=message,custom&channel=chat%2F%2A,a%20b%2Cc";
        for (position, end) in [
            (Position::Now, ""),
            (Position::Earliest, "&earliest=true"),
            (Position::Since("2026-11-22T10:00:00Z".into()), "&since=2026-11-22T10%3A00%3A00Z"),
            (Position::After("Ab_-".into()), "&last_event_id=Ab_-"),
        ] {
            assert_eq!(path("sse", &filter, &position), format!("/api/v1/sse?{query}{end}"));
        }
        assert_eq!(path("ws", &Filter::new(), &Position::Now), "/api/v1/ws");
        let filter = Filter::new().agents(["a"]).users(["u"]).requests(vec!["r".to_owned()]);
        assert_eq!(path("ws", &filter, &Position::Now), "/api/v1/ws?agent_id=a&user_id=u&request_id=r");
    }
}
