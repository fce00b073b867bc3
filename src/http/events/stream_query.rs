//! The query parameters that `/ws`, `/sse` and `/events` share: a filter and a start position.

use crate::cursor::StartPosition;
use crate::error_response::ErrorResponse;
use crate::filter::{Filter, FilterBuilder};
use crate::http::request::ApiRequest;
use crate::http::request::parameters::{boolean, unknown};

/// The filter and position that were parsed so far.
#[derive(Default)]
pub struct StreamQuery {
    filter: FilterBuilder,
    cursor: Option<Box<str>>,
    since_ms: Option<u64>,
    earliest: bool,
}

impl StreamQuery {
    /// Reads the query. Each parameter is first passed to `other`, which returns true if it has handled it.
    /// An empty value of a position counts as absent.
    ///
    /// # Errors
    /// 400: an invalid value, or an unknown parameter.
    pub fn read(
        request: &ApiRequest,
        mut other: impl FnMut(&str, &str) -> Result<bool, ErrorResponse>,
    ) -> Result<(Filter, StartPosition), ErrorResponse> {
        let mut criteria = StreamQuery::default();
        for (name, value) in &request.parameters()? {
            let (name, value) = (name.as_ref(), value.as_ref());
            if !(other(name, value)? || criteria.take(name, value)?) {
                return Err(unknown(name));
            }
        }
        let header = request.header("last-event-id").filter(|id| !id.is_empty());
        Ok((
            criteria.filter.build()?,
            StartPosition::strongest(
                header.map(Into::into).or(criteria.cursor),
                criteria.since_ms,
                criteria.earliest,
            ),
        ))
    }

    fn take(&mut self, name: &str, value: &str) -> Result<bool, ErrorResponse> {
        match (name, value) {
            ("last_event_id" | "after" | "lastEventId" | "since" | "earliest", "") => {}
            // The npm package `reconnecting-eventsource` resumes with `lastEventId`.
            ("last_event_id" | "after" | "lastEventId", cursor) => self.cursor = Some(cursor.into()),
            ("since", time) => {
                let ms = crate::time::parse_rfc3339(time);
                self.since_ms =
                    Some(ms.ok_or_else(|| ErrorResponse::bad_request("since: must be RFC 3339"))?);
            }
            ("earliest", flag) => self.earliest = boolean(name, flag)?,
            (name, value) => return Ok(self.filter.parameter(name, value)?),
        }
        Ok(true)
    }
}
