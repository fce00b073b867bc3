//! The organizations of a run, and the daemon's statistics of one.
//!
//! * A mode with several tenants creates them in the daemon that it measures, each with its own key. If the
//!   daemon was not started here, they are deleted afterwards.
//! * [`Buckets`] are the daemon's own times from publish to send. The values of an interval are the difference
//!   of two readings.
//! * Requests here block. Use them in quiet moments, or on a thread that has nothing else to do.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::Target;
use crate::error::BenchError;
use crate::wire::Access;
use crate::wire::http_connection::HttpConnection;

/// The longest time for one response.
const ANSWER: Duration = Duration::from_secs(20);

/// An organization of the measured daemon.
#[derive(Debug)]
pub struct Tenant {
    /// Access with every right in the organization.
    pub access: Access,
    id: String,
    /// Access that may delete the organization.
    owner: Option<Access>,
}

impl Tenant {
    /// Creates an organization.
    ///
    /// # Errors
    /// The daemon refuses, because the given key is not an operator key.
    pub fn make(target: &Target, name: &str) -> Result<Tenant, BenchError> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let id = format!("bench-{name}-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        made(&target.access, "/api/v1/organizations", &json!({"id": id}))?;
        // A daemon started here is removed with all its organizations.
        let owner = target.secret.is_none().then(|| target.access.clone());
        let mut tenant = Tenant { access: target.access.clone(), id, owner };
        let body = json!({"org_id": tenant.id, "name": "bench", "scopes": ["*"]});
        let reply = made(&target.access, "/api/v1/api-keys", &body)?;
        let key = reply["data"]["api_key"].as_str().unwrap_or_default();
        tenant.access = target.access.with_credential(key);
        Ok(tenant)
    }

    /// Reads the statistics of the organization.
    ///
    /// # Errors
    /// The daemon does not respond.
    pub fn stats(&self) -> Result<Stats, BenchError> {
        stats(&self.access)
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        if let Some(owner) = &self.owner {
            // If this fails, an organization named bench-… remains, with its events until they expire.
            let _ = call(owner, "DELETE", &format!("/api/v1/organizations/{}", self.id), None);
        }
    }
}

fn made(access: &Access, path: &str, body: &Value) -> Result<Value, BenchError> {
    match call(access, "POST", path, Some(body))? {
        (200..=299, reply) => Ok(reply),
        (status, reply) => Err(BenchError::Server(format!(
            "{path}: response {status}: {reply}; this mode creates organizations, so its key must be an operator key"
        ))),
    }
}

/// Sends one request on its own connection. Returns status and body (`null` if it is not JSON).
pub(crate) fn call(
    access: &Access,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<(u16, Value), BenchError> {
    let mut connection = HttpConnection::new(access, ANSWER)?;
    let (status, body) = connection.request(method, path, body)?;
    Ok((status, serde_json::from_slice(body).unwrap_or(Value::Null)))
}

/// The statistics of `GET /api/v1/stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Open connections.
    pub connections: u64,
    /// Events in the log.
    pub stored_events: u64,
    /// Live deliveries so far, by their time from publish to send.
    pub sent: Buckets,
}

/// Reads the statistics of the organization of `access`.
pub(crate) fn stats(access: &Access) -> Result<Stats, BenchError> {
    let (status, reply) = call(access, "GET", "/api/v1/stats", None)?;
    let data = &reply["data"];
    if status != 200 || !data["publish_to_send"].is_object() {
        return Err(BenchError::Server(format!("/api/v1/stats: response {status}: {reply}")));
    }
    Ok(Stats {
        connections: data["connections"].as_u64().unwrap_or_default(),
        stored_events: data["stored_events"].as_u64().unwrap_or_default(),
        sent: Buckets::of(&data["publish_to_send"]),
    })
}

/// Returns the bytes of the oldest event as `access` reads it from the log, with its id and time; `None` if
/// there is none.
pub(crate) fn event_as_read(access: &Access) -> Option<usize> {
    let (status, page) = call(access, "GET", "/api/v1/events?earliest=true&limit=1", None).ok()?;
    // Parsing changes the order and spelling of the members, but not the total length: input and output are
    // compact.
    page["data"].get(0).filter(|_| status == 200).map(|event| event.to_string().len())
}

/// Times by bucket: the upper bound in microseconds (`u64::MAX` for none) and the count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buckets(BTreeMap<u64, u64>);

impl Buckets {
    fn of(reply: &Value) -> Buckets {
        let buckets = reply["buckets"].as_array().map(Vec::as_slice).unwrap_or_default();
        let bound = |bucket: &Value| bucket["under_us"].as_u64().unwrap_or(u64::MAX);
        Buckets(buckets.iter().map(|it| (bound(it), it["count"].as_u64().unwrap_or_default())).collect())
    }

    /// Returns what was added after an earlier reading.
    #[must_use]
    pub fn since(&self, before: &Buckets) -> Buckets {
        let earlier = |bound| before.0.get(bound).copied().unwrap_or_default();
        let left = self.0.iter().map(|(bound, count)| (*bound, count.saturating_sub(earlier(bound))));
        Buckets(left.filter(|(_, count)| *count > 0).collect())
    }

    /// Returns the total count.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// Returns the upper bound, in microseconds, of a share `q` (0 to 1) of the times; `None` if there are
    /// none. The daemon's buckets are a quarter of an octave wide, and so is the uncertainty.
    #[must_use]
    pub fn quantile_us(&self, q: f64) -> Option<f64> {
        let rank = ((self.count() as f64 * q).ceil() as u64).max(1);
        let mut below = 0;
        self.0.iter().find_map(|(bound, count)| {
            below += count;
            (below >= rank).then_some(*bound as f64)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(of: &[(Option<u64>, u64)]) -> Buckets {
        let of: Vec<Value> =
            of.iter().map(|(bound, count)| json!({"under_us": bound, "count": count})).collect();
        Buckets::of(&json!({"count": 0, "buckets": of}))
    }

    #[test]
    fn an_interval_is_the_difference_of_two_readings() {
        let before = buckets(&[(Some(10), 90), (Some(100), 10)]);
        let after = buckets(&[(Some(10), 90), (Some(40), 98), (Some(100), 11), (None, 1)]);
        let between = after.since(&before);
        assert_eq!(between, buckets(&[(Some(40), 98), (Some(100), 1), (None, 1)]));
        assert_eq!(between.count(), 100);
        assert_eq!(between.quantile_us(0.5), Some(40.0));
        assert_eq!(between.quantile_us(0.98), Some(40.0));
        assert_eq!(between.quantile_us(0.99), Some(100.0));
        assert_eq!(between.quantile_us(1.0), Some(u64::MAX as f64));
        assert_eq!(before.since(&before).quantile_us(0.5), None);
    }
}
