//! Runs the daemon as a sequence of phases: descriptors, store, credentials, listeners, first key, workers,
//! ready, wait, drain, end.
//!
//! * Nothing listens before everything it needs is open. Nothing is closed before its users have ended.
//! * Every address is bound before a new store gets its first key, so a start that fails creates no key that
//!   nobody sees.

mod announce;
mod capacity;
mod listen;
mod log_writer;
mod logging;
mod presence;
mod workers;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::sync::Arc;

use crate::auth::AuthChange;
use crate::auth::{Auth, AuthSettings, FirstKeyError, OwnKey, StoredRecords, unseen_first_key};
use crate::config::{Config, ListenAddr, ServeOptions};
use crate::connection::admission::{Admission, Limits};
use crate::connection::presence::Presence;
use crate::event_ring::{Pins, Reader};
use crate::http::ListenerKind;
use crate::http::admin_listener;
use crate::lifecycle::{self, Signals};
use crate::metrics::Metrics;
use crate::store::{OpenError, Store, StoreOptions};
use crate::tenant::{self, Tenants};
use crate::time::{Clock, SystemClock};
use crate::wake::{MAX_WORKERS, WakeQueue};
use crate::worker::SharedState;
use crate::worker::mail::Mail;

use announce::Announcement;
use listen::{BoundListener, SocketOptions};

/// Why the daemon did not start, or ended.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("{0}")]
    Store(#[from] OpenError),
    #[error("{0}")]
    Auth(#[from] crate::auth::AuthConfigError),
    #[error("{0}")]
    Listen(#[from] listen::ListenError),
    #[error("{0}")]
    FirstKey(#[from] FirstKeyError),
    #[error("cannot write the ready file {path}: {source}")]
    ReadyFile { path: String, source: std::io::Error },
    #[error("{what}: {source}")]
    Io { what: &'static str, source: std::io::Error },
    #[error("a worker ended")]
    WorkerLost,
}

impl ServeError {
    /// Exit codes follow sysexits.h; `docs/operations.md` lists them.
    fn exit(&self) -> u8 {
        match self {
            ServeError::Store(OpenError::InUse { .. }) => 73,
            ServeError::Store(_) | ServeError::FirstKey(_) => 74,
            ServeError::Auth(_) => 64,
            ServeError::Listen(_) => 69,
            ServeError::Io { .. } | ServeError::ReadyFile { .. } | ServeError::WorkerLost => 71,
        }
    }
}

fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> ServeError {
    move |source| ServeError::Io { what, source }
}

/// Runs the daemon until a signal ends it.
#[must_use]
pub fn run(config: Config, options: ServeOptions) -> ExitCode {
    logging::init(config.log.level, config.log.format);
    let data_dir = config.data_dir.clone();
    let code = serve(config, &options).unwrap_or_else(|error| {
        tracing::error!("{error}");
        if let Some(file) = unseen_first_key(&data_dir) {
            tracing::error!("the first key of this store has not been shown; it is in {}", file.display());
        }
        error.exit()
    });
    logging::flush();
    ExitCode::from(code)
}

fn serve(config: Config, options: &ServeOptions) -> Result<u8, ServeError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(io("runtime"))?;
    let config = Arc::new(config);
    let capacity = capacity::raise(config.limits.connections);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = Store::open(StoreOptions { clock: clock.clone(), ..StoreOptions::from(&*config) })?;
    let auth = open_auth(&config, &store, &clock)?;

    let _in_runtime = runtime.enter();
    let mut signals = Signals::new().map_err(io("signals"))?;
    let listeners = bind(&config, options)?;
    let admin_listeners = bind_admin(&config)?;
    let first_key = runtime.block_on(auth.make_first_key(&config.data_dir))?;
    let (shared, readers) = share(&config, &store, auth, &clock, capacity)?;
    let running = start_workers(&shared, readers, &listeners, capacity)?;
    let admin = admin_listeners.first().map(|bound| bound.shown.clone());
    start_admin(admin_listeners, &shared)?;
    let public = listeners.iter().filter(|(_, kind)| *kind == ListenerKind::Public);
    let serving = Announcement {
        public: public.map(|(bound, _)| bound.shown.as_str()).collect(),
        admin: admin.as_deref(),
        ready_file: options.ready_file.as_deref(),
        data_dir: &config.data_dir,
    };
    serving.announce(first_key)?;

    let code = runtime.block_on(async {
        let errands = tokio::spawn(lifecycle::run_maintenance(shared.clone()));
        let erasures = tokio::spawn(lifecycle::run_erasures(shared.clone()));
        let streams = tokio::spawn(lifecycle::run_streams(shared.clone()));
        let presence = tokio::spawn(presence::run(shared.clone()));
        let lost = async {
            while !running.iter().any(workers::WorkerThread::has_ended) {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        };
        let ended = tokio::select! {
            _ = signals.next(|| reload_keys(options, &shared)) => Ok(0),
            () = lost => Err(ServeError::WorkerLost),
        };
        errands.abort();
        erasures.abort();
        streams.abort();
        presence.abort(); // users whose connections the drain closes are not reported as offline
        // A client that is refused at once connects elsewhere; in the kernel's queue it would wait for the
        // whole drain. systemd keeps an inherited socket open, and the next process accepts from it.
        drop(listeners);
        tracing::info!(seconds = config.drain_seconds, "draining");
        tokio::select! {
            () = lifecycle::drain(&shared, config.drain_seconds) => {}
            code = signals.next(|| {}) => {
                logging::flush();
                std::process::exit(i32::from(code))
            }
        }
        ended
    });
    running.into_iter().for_each(workers::WorkerThread::end);
    store.close_blocking();
    tracing::info!("ended");
    code
}

fn open_auth(config: &Config, store: &Store, clock: &Arc<dyn Clock>) -> Result<Arc<Auth>, ServeError> {
    let own = OwnKey::load_or_make(&config.data_dir)?;
    let records = Arc::new(StoredRecords::new(store.clone(), clock.clone()));
    Ok(Arc::new(Auth::new(&AuthSettings::from(config), own, records, clock.clone())?))
}

/// Reads `auth.jwt_keys` and its key files again, so that keys rotate without a restart. If anything in the
/// configuration or in a key file is wrong, all keys stay as they were.
fn reload_keys(options: &ServeOptions, shared: &SharedState) {
    let reloaded = options.reload().map_err(|error| error.to_string()).and_then(|config| {
        let keys = AuthSettings::from(&config).jwt_keys;
        shared.auth.reload_keys(&keys).map_err(|error| error.to_string())
    });
    match reloaded {
        Ok(()) => tracing::info!("auth.jwt_keys reloaded"),
        Err(error) => tracing::error!(%error, "auth.jwt_keys not reloaded: the keys are unchanged"),
    }
}

fn bind(config: &Config, options: &ServeOptions) -> Result<Vec<(BoundListener, ListenerKind)>, ServeError> {
    let socket_options = SocketOptions {
        unsent_bytes: u32::try_from(config.limits.unsent_bytes).unwrap_or(u32::MAX),
        write_timeout: config.write_timeout(),
    };
    let mut found = listen::inherited(socket_options).map_err(io("inherited sockets"))?;
    if found.is_empty() {
        for addr in &config.listen {
            found.extend(listen::bind(addr, socket_options)?);
        }
    }
    let mut listeners: Vec<(BoundListener, ListenerKind)> =
        found.into_iter().map(|bound| (bound, ListenerKind::Public)).collect();
    if let Some(addr) = options.diagnostic_echo {
        let echo = listen::bind(&ListenAddr::Tcp(addr), socket_options)?;
        listeners.extend(echo.into_iter().map(|bound| (bound, ListenerKind::Echo)));
    }
    Ok(listeners)
}

fn share(
    config: &Arc<Config>,
    store: &Store,
    auth: Arc<Auth>,
    clock: &Arc<dyn Clock>,
    capacity: usize,
) -> Result<(Arc<SharedState>, Vec<Reader>), ServeError> {
    let count = match config.worker_threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    }
    .min(MAX_WORKERS);
    let (pins, readers) = Pins::new(count);
    let metrics = Arc::new(Metrics::new(count));
    let mail: Arc<[WakeQueue<Mail>]> =
        (0..count).map(|_| WakeQueue::new()).collect::<Result<_, _>>().map_err(io("eventfd"))?;
    let wakes: Arc<[_]> =
        (0..count).map(|_| WakeQueue::new()).collect::<Result<_, _>>().map_err(io("eventfd"))?;
    let limits = tenant::Limits::from(&**config);
    let tenants =
        Tenants::new(store.clone(), pins, Arc::clone(&wakes), clock.clone(), metrics.clone(), limits);
    let presence = Presence::new(clock.clone(), config.presence_grace());
    auth.with_presence().into_iter().for_each(|tenant| presence.set_enabled(tenant, true));
    let limits = Limits {
        total: capacity,
        per_organization: config.limits.connections_per_organization,
        per_user: config.limits.connections_per_user,
        per_address: config.limits.connections_per_address,
        count_local: [None, Some(Ipv4Addr::LOCALHOST.into()), Some(Ipv6Addr::LOCALHOST.into())]
            .into_iter()
            .any(|local| config.trusted_proxies.contains(local)),
    };
    let admission = Admission::new(limits, presence.clone());
    let boxes = Arc::clone(&mail);
    auth.on_change(move |change| {
        match change {
            AuthChange::PresenceChanged(tenant, on) => return presence.set_enabled(*tenant, *on),
            // Presence is switched off before the connections end, so that their end publishes nothing.
            AuthChange::OrganizationDeleted(tenant) => presence.set_enabled(*tenant, false),
            _ => {}
        }
        boxes.iter().for_each(|mail| mail.push(Mail::Recheck(change.clone())));
    });
    let shared =
        SharedState::new(config.clone(), auth, tenants, admission, metrics, clock.clone(), mail, wakes);
    Ok((shared, readers))
}

fn start_workers(
    shared: &Arc<SharedState>,
    readers: Vec<Reader>,
    listeners: &[(BoundListener, ListenerKind)],
    capacity: usize,
) -> Result<Vec<workers::WorkerThread>, ServeError> {
    let mut running = Vec::with_capacity(readers.len());
    for (id, reader) in readers.into_iter().enumerate() {
        let mut share = Vec::with_capacity(listeners.len());
        for (bound, kind) in listeners.iter().filter(|(_, kind)| *kind == ListenerKind::Public || id == 0) {
            let fd = bound.socket.try_clone().map_err(io("listener"))?;
            share.push((fd.into(), bound.unix, *kind));
        }
        running.push(workers::start(id, shared, reader, share, capacity).map_err(io("worker"))?);
    }
    Ok(running)
}

fn bind_admin(config: &Config) -> Result<Vec<BoundListener>, ServeError> {
    let Some(addr) = &config.admin_listen else { return Ok(Vec::new()) };
    let options = SocketOptions { unsent_bytes: 1 << 20, write_timeout: config.write_timeout() };
    Ok(listen::bind(addr, options)?)
}

/// Serves the admin listeners on a separate thread, which ends with the process.
fn start_admin(bound: Vec<BoundListener>, shared: &Arc<SharedState>) -> Result<(), ServeError> {
    if bound.is_empty() {
        return Ok(());
    }
    let shared = shared.clone();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let served = runtime.map(|runtime| {
            runtime.block_on(async {
                let mut serving = tokio::task::JoinSet::new();
                for bound in &bound {
                    let fd: std::os::fd::OwnedFd = bound.socket.try_clone()?.into();
                    let listener = match bound.unix {
                        true => {
                            admin_listener::Listener::Unix(tokio::net::UnixListener::from_std(fd.into())?)
                        }
                        false => admin_listener::Listener::Tcp(tokio::net::TcpListener::from_std(fd.into())?),
                    };
                    serving.spawn(admin_listener::serve(listener, shared.clone()));
                }
                serving.join_all().await;
                Ok::<_, std::io::Error>(())
            })
        });
        if let Ok(Err(error)) | Err(error) = served {
            tracing::error!(%error, "the admin listener failed");
        }
    };
    std::thread::Builder::new().name("admin".into()).spawn(run).map_err(io("admin thread"))?;
    Ok(())
}
