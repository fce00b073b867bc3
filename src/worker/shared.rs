//! What all workers share: configuration, services, limits and mailboxes.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::auth::Auth;
use crate::config::Config;
use crate::connection::admission::Admission;
use crate::connection::byte_shares::ByteShares;
use crate::connection::unauthenticated::UnauthenticatedSockets;
use crate::error_response::ErrorResponse;
use crate::frame::ws_decode;
use crate::metrics::Metrics;
use crate::tenant::{Tenant, Tenants};
use crate::time::Clock;
use crate::wake::WakeQueue;

use super::mail::Mail;

/// What all workers share.
pub struct SharedState {
    /// The checked configuration.
    pub config: Arc<Config>,
    /// Credentials and rights.
    pub auth: Arc<Auth>,
    /// All tenants.
    pub tenants: Arc<Tenants>,
    /// Limits of connections.
    pub admission: Arc<Admission>,
    /// Sockets whose peers have not presented a valid credential.
    pub newcomers: Arc<UnauthenticatedSockets>,
    /// Memory share of incomplete input: request bodies and WebSocket messages.
    pub incoming: Arc<ByteShares>,
    /// Memory share of responses that are not read yet.
    pub unread_answers: Arc<ByteShares>,
    /// Memory share of event streams over HTTP/2 that are not read yet.
    pub unread_streams: Arc<ByteShares>,
    /// The counters of the process.
    pub metrics: Arc<Metrics>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// One mailbox per worker.
    pub mail: Arc<[WakeQueue<Mail>]>,
    /// Tenants with new events, one queue per worker.
    pub wakes: Arc<[WakeQueue<Arc<Tenant>>]>,
    /// Number of sockets of each worker, for assigning new ones.
    pub loads: Box<[AtomicUsize]>,
    /// Limits of inbound WebSocket messages.
    pub ws_limits: ws_decode::Limits,
    /// Set when the daemon stops; then nothing new is accepted.
    pub stopping: AtomicBool,
    /// Number of connections so far, over all organizations.
    next_connection: AtomicU64,
    /// Derives connection ids from that count, with a random key. So an id does not reveal how many other
    /// connections there are. Ids also differ between runs, so that a replayed event's origin never hides
    /// another run's event.
    connection_ids: RandomState,
}

impl SharedState {
    /// Creates the shared state from its parts.
    #[allow(clippy::too_many_arguments)] // each is one module's handle, named at its only caller
    pub fn new(
        config: Arc<Config>,
        auth: Arc<Auth>,
        tenants: Arc<Tenants>,
        admission: Arc<Admission>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        mail: Arc<[WakeQueue<Mail>]>,
        wakes: Arc<[WakeQueue<Arc<Tenant>>]>,
    ) -> Arc<SharedState> {
        let loads = mail.iter().map(|_| AtomicUsize::new(0)).collect();
        let ws_limits = ws_decode::Limits::client(config.limits.ws_frame_bytes);
        let newcomers =
            UnauthenticatedSockets::new(config.limits.unauthenticated_connections, admission.clone());
        let anybody = config.limits.unauthenticated_bytes;
        let incoming = ByteShares::new(
            "incomplete requests and messages",
            config.limits.body_bytes_per_organization,
            anybody,
        );
        let unread = config.limits.unread_bytes_per_organization;
        let unread_answers = ByteShares::new("unread responses", unread, anybody);
        let unread_streams = ByteShares::new("unread event streams", unread, anybody);
        Arc::new(SharedState {
            config,
            auth,
            tenants,
            admission,
            newcomers,
            incoming,
            unread_answers,
            unread_streams,
            metrics,
            clock,
            mail,
            wakes,
            loads,
            ws_limits,
            stopping: AtomicBool::new(false),
            next_connection: AtomicU64::new(0),
            connection_ids: RandomState::new(),
        })
    }

    /// Returns a new connection id. Two ids are equal with a chance of one in 2^64.
    pub fn connection_id(&self) -> u64 {
        self.connection_ids.hash_one(self.next_connection.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns true if the daemon is stopping.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Checks that new work may begin.
    ///
    /// # Errors
    /// 503 once the daemon stops.
    pub fn serving(&self) -> Result<(), ErrorResponse> {
        match self.is_stopping() {
            true => Err(ErrorResponse::unavailable("the server is stopping")),
            false => Ok(()),
        }
    }
}
