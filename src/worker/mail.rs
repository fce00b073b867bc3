//! What other threads ask of a worker, and how it answers: listings, kicks, changed rights, commits, the end.

use std::rc::Rc;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::oneshot;

use crate::close::Close;
use crate::ids::TenantId;

use super::commits::Told;
use super::sockets::Token;
use super::ws_publish::Committed;
use super::{Accepted, State, Worker};

/// Most connections of one listing and worker.
pub const LISTED: usize = 10_000;

/// A message to a worker.
pub enum Mail {
    /// A fresh socket, dealt by load.
    Accepted(Accepted),
    /// A WebSocket's publish was committed, or was not.
    Committed(Committed),
    /// A commit that a task waits for is over.
    Told(Told),
    /// Describe connections.
    List(Which, oneshot::Sender<Vec<Listed>>),
    /// Close connections; answers how many.
    Kick(Which, oneshot::Sender<usize>),
    /// Credentials, users or organizations changed: look at every connection's rights.
    Recheck,
    /// The daemon stops: close everything, spread over this many seconds.
    Drain {
        /// 0: at once.
        seconds: u64,
    },
}

/// Which connections of one organization.
#[derive(Clone, Debug)]
pub struct Which {
    /// The organization.
    pub tenant: TenantId,
    /// Only this one.
    pub id: Option<u64>,
    /// Only of this `sub`.
    pub user: Option<Arc<str>>,
    /// Only of this API key.
    pub key: Option<Arc<str>>,
}

/// One connection, as a listing shows it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Connection)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// `ws`, `sse`, `sse_h2`, `sse_http10`.
    pub transport: &'static str,
    /// The credential's `sub`.
    pub user: Option<String>,
    /// The API key it came with.
    pub key_id: Option<String>,
    /// What it asks for, as query parameters; empty: everything it may see.
    pub filter: String,
    /// Where it comes from; absent for a unix socket.
    pub peer: Option<String>,
    /// Since when it is open.
    #[schema(format = DateTime)]
    pub since: String,
    /// Events written.
    pub sent_events: u64,
    /// Bytes written.
    pub sent_bytes: u64,
    /// How many sequences its cursor is behind the end.
    pub cursor_lag: u64,
    /// Whether it was opened for publishing only.
    pub publish_only: bool,
}

impl Worker {
    pub(super) fn on_mail(self: &Rc<Self>, state: &mut State, mail: Mail) {
        match mail {
            Mail::Accepted(accepted) => match self.on_accepted.get() {
                Some(serve) => serve(accepted),
                None => tracing::warn!("a socket was dealt to a worker that does not serve yet"),
            },
            Mail::Committed(committed) => self.on_committed(state, committed),
            Mail::Told(told) => self.commits.on_told(&told),
            Mail::List(which, reply) => {
                let tokens = self.select(state, &which);
                let listed =
                    tokens.into_iter().take(LISTED).filter_map(|token| self.describe(state, token)).collect();
                let _ = reply.send(listed); // who asked may have gone
            }
            Mail::Kick(which, reply) => {
                let tokens = self.select(state, &which);
                let _ = reply.send(tokens.len()); // who asked may have gone
                tokens.into_iter().for_each(|token| self.close(state, token, Close::Kicked));
            }
            Mail::Recheck => self.recheck(state),
            Mail::Drain { seconds } => {
                self.stop.send_replace(true);
                self.drain(state, seconds);
            }
        }
    }

    fn select(&self, state: &State, which: &Which) -> Vec<Token> {
        let mut tokens = Vec::new();
        for (slot, connection) in state.connections.iter() {
            let Some(admitted) = &connection.admitted else { continue };
            let principal = admitted.principal();
            let wanted = principal.tenant == which.tenant
                && !connection.flags.closing
                && which.id.is_none_or(|id| id == connection.id)
                && which.user.as_deref().is_none_or(|user| principal.sub.as_deref() == Some(user))
                && which.key.as_deref().is_none_or(|key| principal.key_id() == Some(key));
            if wanted {
                tokens.push(Token { slot: slot as u32, generation: connection.generation });
            }
        }
        tokens
    }

    fn describe(&self, state: &State, token: Token) -> Option<Listed> {
        let connection = state.connections.get(token.slot as usize)?;
        let admitted = connection.admitted.as_ref()?;
        let principal = admitted.principal();
        let view = state.views.get(connection.view as usize).filter(|_| connection.row.is_some());
        let filter = match (view, connection.row) {
            (Some(view), Some(row)) => {
                view.index.selection(row).map(|it| it.filter.to_string()).unwrap_or_default()
            }
            _ => String::new(),
        };
        let lag = view.map_or(0, |view| {
            let position = view.position_of(connection);
            view.tenant.head().counter().saturating_sub(position.counter())
        });
        Some(Listed {
            id: connection_name(connection.id),
            transport: connection.transport.label(),
            user: principal.sub.as_deref().map(str::to_owned),
            key_id: principal.key_id().map(str::to_owned),
            filter,
            peer: admitted.peer().map(|peer| peer.to_string()),
            since: crate::time::rfc3339(connection.since_ms),
            sent_events: connection.sent_events,
            sent_bytes: connection.sent_bytes,
            cursor_lag: lag,
            publish_only: connection.row.is_none(),
        })
    }

    /// Closes whose credential no longer stands, and gives the others today's rights.
    fn recheck(self: &Rc<Self>, state: &mut State) {
        let tokens: Vec<Token> = state
            .connections
            .iter()
            .map(|(slot, connection)| Token { slot: slot as u32, generation: connection.generation })
            .collect();
        for token in tokens {
            let Some(admitted) = state.connection(token).and_then(|connection| connection.admitted.as_ref())
            else {
                continue;
            };
            match self.shared.auth.still_valid(admitted.principal()) {
                Ok(rights) => self.renew_rights(state, token, rights),
                Err(ended) => self.close(state, token, crate::outcome::close_of(ended)),
            }
        }
    }

    /// Closes a connection whose credential has ended, without waiting for the mail that tells of it.
    pub(super) fn close_if_ended(self: &Rc<Self>, state: &mut State, token: Token) {
        let Some(admitted) = state.connection(token).and_then(|connection| connection.admitted.as_ref())
        else {
            return;
        };
        if let Err(ended) = self.shared.auth.confirm(admitted.principal()) {
            self.close(state, token, crate::outcome::close_of(ended));
        }
    }

    /// Closes everything within `seconds`, in slices, so that clients do not all come back at once.
    fn drain(self: &Rc<Self>, state: &mut State, seconds: u64) {
        let slices = seconds.max(1) * 10;
        let tokens: Vec<Token> = state
            .connections
            .iter()
            .map(|(slot, connection)| Token { slot: slot as u32, generation: connection.generation })
            .collect();
        let (worker, per_slice) = (self.clone(), tokens.len().div_ceil(slices as usize).max(1));
        // Ends with its last slice; the runtime is dropped when the drain time is over anyway.
        tokio::task::spawn_local(async move {
            for slice in tokens.chunks(per_slice) {
                {
                    let state = &mut *worker.state.borrow_mut();
                    slice.iter().for_each(|token| worker.close(state, *token, Close::Restart));
                }
                if seconds > 0 {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        });
    }
}

/// A connection id as clients see it.
#[must_use]
pub fn connection_name(id: u64) -> String {
    format!("conn-{id:016x}")
}

/// The id a name stands for.
#[must_use]
pub fn connection_id(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("conn-")?, 16).ok()
}
