//! Binding: TCP, unix sockets, and listeners that systemd hands over; with the options that accepted sockets inherit.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::ListenAddr;

/// Connections the kernel keeps for us until they are accepted.
const BACKLOG: i32 = 4_096;

/// What accepted sockets inherit.
#[derive(Clone, Copy, Debug)]
pub(super) struct SocketOptions {
    /// `TCP_NOTSENT_LOWAT`, bytes: what a subscriber that does not read may cost the kernel.
    pub(super) unsent_bytes: u32,
    /// `TCP_USER_TIMEOUT`: how long sent bytes may stay unacknowledged.
    pub(super) write_timeout: Duration,
}

/// A listener, non-blocking, ready to be accepted from by every worker.
#[derive(Debug)]
pub(super) struct Bound {
    /// The listening socket.
    pub(super) socket: Socket,
    /// As shown: `127.0.0.1:8080`, or `unix:/path`.
    pub(super) shown: String,
    /// Whether it is a unix socket.
    pub(super) unix: bool,
    /// A socket file of ours, removed at the end.
    file: Option<PathBuf>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            let _ = std::fs::remove_file(file); // whoever removed it first did the same
        }
    }
}

/// Why nothing listens: what, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}: {source}{}", advice(source))]
pub(super) struct ListenError {
    /// As configured.
    pub(super) addr: String,
    /// What the system said.
    #[source]
    pub(super) source: io::Error,
}

/// What to do about it, as the rest of a sentence.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program has it: stop that one, or choose another address with --listen or --admin-listen"
        }
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        io::ErrorKind::PermissionDenied => "; ports below 1024 are for root and CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

/// Binds one address, or every address of a name.
///
/// # Errors
/// [`ListenError`].
pub(super) fn bind(addr: &ListenAddr, options: SocketOptions) -> Result<Vec<Bound>, ListenError> {
    let bound = match addr {
        ListenAddr::Tcp(addr) => bind_tcp(*addr, options).map(|bound| vec![bound]),
        ListenAddr::Name(name, port) => bind_name(name, *port, options),
        ListenAddr::Unix(path) => bind_unix(path).map(|bound| vec![bound]),
    };
    bound.map_err(|source| ListenError { addr: addr.to_string(), source })
}

/// Binds every address that `name` has and this machine knows. Where the kernel chooses the port, all get the same.
fn bind_name(name: &str, mut port: u16, options: SocketOptions) -> io::Result<Vec<Bound>> {
    let (mut found, mut tried) = (Vec::new(), Vec::new());
    let mut absent = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for mut addr in (name, port).to_socket_addrs()? {
        if tried.contains(&addr.ip()) {
            continue;
        }
        tried.push(addr.ip());
        addr.set_port(port);
        match bind_tcp(addr, options) {
            Ok(bound) => {
                port = bound.socket.local_addr()?.as_socket().map_or(port, |addr| addr.port());
                found.push(bound);
            }
            // `localhost` is `::1` too, also on a machine without IPv6.
            Err(error) if is_absent(&error) => {
                tracing::debug!(%addr, %error, "not listened on");
                absent = error;
            }
            Err(error) => return Err(error),
        }
    }
    if found.is_empty() { Err(absent) } else { Ok(found) }
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn bind_tcp(addr: SocketAddr, options: SocketOptions) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    set_options(&socket, options)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    let shown = socket.local_addr()?.as_socket().map_or_else(|| addr.to_string(), |addr| addr.to_string());
    Ok(Bound { socket, shown, unix: false, file: None })
}

fn set_options(socket: &Socket, options: SocketOptions) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(options.unsent_bytes)?;
    socket.set_tcp_user_timeout(Some(options.write_timeout))
}

fn bind_unix(path: &Path) -> io::Result<Bound> {
    let addr = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    if let Err(error) = socket.bind(&addr) {
        // A file that nobody listens behind was left by a process that died.
        let stale = error.kind() == io::ErrorKind::AddrInUse
            && Socket::new(Domain::UNIX, Type::STREAM, None)?.connect(&addr).is_err();
        if !stale {
            return Err(error);
        }
        std::fs::remove_file(path)?;
        socket.bind(&addr)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    socket.listen(BACKLOG)?;
    Ok(Bound { socket, shown: format!("unix:{}", path.display()), unix: true, file: Some(path.to_owned()) })
}

/// The listeners systemd handed over (`LISTEN_FDS`), none without it. They replace the configured public ones.
///
/// # Errors
/// A descriptor that is no listening stream socket.
pub(super) fn inherited(options: SocketOptions) -> io::Result<Vec<Bound>> {
    let Ok(fds) = sd_notify::listen_fds() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for fd in fds {
        // SAFETY: sd_listen_fds(3): the descriptors 3 to 3 + LISTEN_FDS are ours to own when LISTEN_PID names this process,
        // which `listen_fds` checked; nothing else in this program takes them.
        #[allow(unsafe_code)]
        let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(fd) });
        let _ = rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC); // a leak to a child we never start
        if !socket.is_listener()? || socket.r#type()? != Type::STREAM {
            return Err(io::Error::other("an inherited descriptor is no listening stream socket"));
        }
        socket.set_nonblocking(true)?;
        let addr = socket.local_addr()?;
        let (shown, unix) = match addr.as_socket() {
            Some(addr) => {
                set_options(&socket, options)?;
                (addr.to_string(), false)
            }
            None => {
                let path = addr.as_pathname().unwrap_or(Path::new("(unnamed)"));
                (format!("unix:{}", path.display()), true)
            }
        };
        found.push(Bound { socket, shown, unix, file: None });
    }
    Ok(found)
}
