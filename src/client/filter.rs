//! What a subscription asks for and where it starts, as a query. Knows no cursor's inside and no socket.

use super::encode;

/// Which events: those that match every field that is given, by any of its values. Empty: all one may see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    types: Vec<String>,
    agents: Vec<String>,
    users: Vec<String>,
    requests: Vec<String>,
    channels: Vec<String>,
}

/// Sets one field.
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
    /// All one may see.
    pub fn new() -> Self {
        Self::default()
    }

    field!(
        /// Of these types, e.g. `message`.
        types
    );
    field!(
        /// Of these agents.
        agents
    );
    field!(
        /// To or about these users.
        users
    );
    field!(
        /// Of these streams (`request_id`).
        requests
    );
    field!(
        /// On these channels; `a/*` for all below `a/`.
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
        fields.into_iter().filter(|(_, values)| !values.is_empty()).map(|(name, values)| {
            // The commas between values are the list's, those within are escaped.
            (name, values.iter().map(|value| encode(value)).collect::<Vec<_>>().join(","))
        })
    }
}

/// Where a subscription starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Position {
    /// With what comes from now on.
    #[default]
    Now,
    /// With the oldest event kept.
    Earliest,
    /// With the first event received at or after this time, RFC 3339.
    Since(String),
    /// After this cursor, the id of an event.
    After(String),
}

/// `/api/v1/<endpoint>` with filter and position.
pub(super) fn path(endpoint: &str, filter: &Filter, position: &Position) -> String {
    let position = match position {
        Position::Now => None,
        Position::Earliest => Some(("earliest", "true".to_owned())),
        Position::Since(time) => Some(("since", encode(time))),
        Position::After(cursor) => Some(("last_event_id", encode(cursor))),
    };
    let pairs = filter.pairs().chain(position);
    super::path(&format!("/api/v1/{endpoint}"), pairs)
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
