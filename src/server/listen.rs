//! Binds TCP and unix sockets, and takes listeners that systemd passes. Sets the options that accepted
//! sockets inherit.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::ListenAddr;

/// Connections that the kernel queues until they are accepted.
const BACKLOG: i32 = 4_096;

/// Options that accepted sockets inherit.
#[derive(Clone, Copy, Debug)]
pub(super) struct SocketOptions {
    /// `TCP_NOTSENT_LOWAT`, bytes. It limits the kernel memory of a subscriber that does not read.
    pub(super) unsent_bytes: u32,
    /// `TCP_USER_TIMEOUT`: how long sent bytes may stay unacknowledged.
    pub(super) write_timeout: Duration,
}

/// A non-blocking listener that every worker can accept from.
#[derive(Debug)]
pub(super) struct BoundListener {
    /// The listening socket.
    pub(super) socket: Socket,
    /// The address as shown: `127.0.0.1:8080`, or `unix:/path`.
    pub(super) shown: String,
    /// Whether it is a unix socket.
    pub(super) unix: bool,
    /// The socket file that this process created. It is removed on drop.
    file: Option<PathBuf>,
}

impl Drop for BoundListener {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            let _ = std::fs::remove_file(file); // it may be gone already
        }
    }
}

/// Why an address could not be bound, with advice.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}: {source}{}", advice(source))]
pub(super) struct ListenError {
    /// The address as configured.
    pub(super) addr: String,
    /// The error of the system.
    #[source]
    pub(super) source: io::Error,
}

/// Advice for the operator, as the rest of a sentence.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program uses it: stop that program, or choose another address with --listen or --admin-listen"
        }
        io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need root or CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

/// Binds one address, or every address of a name.
///
/// # Errors
/// [`ListenError`].
pub(super) fn bind(addr: &ListenAddr, options: SocketOptions) -> Result<Vec<BoundListener>, ListenError> {
    let bound = match addr {
        ListenAddr::Tcp(addr) => bind_tcp(*addr, options).map(|bound| vec![bound]),
        ListenAddr::Name(name, port) => bind_name(name, *port, options),
        ListenAddr::Unix(path) => bind_unix(path).map(|bound| vec![bound]),
    };
    bound.map_err(|source| ListenError { addr: addr.to_string(), source })
}

/// Binds every address of `name` that this machine has. If the kernel chooses the port, all addresses get the
/// same port.
fn bind_name(name: &str, mut port: u16, options: SocketOptions) -> io::Result<Vec<BoundListener>> {
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
            // `localhost` also resolves to `::1` on a machine without IPv6.
            Err(error) if is_absent(&error) => {
                tracing::debug!(%addr, %error, "address skipped");
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

fn bind_tcp(addr: SocketAddr, options: SocketOptions) -> io::Result<BoundListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    set_options(&socket, options)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    let shown = socket.local_addr()?.as_socket().map_or_else(|| addr.to_string(), |addr| addr.to_string());
    Ok(BoundListener { socket, shown, unix: false, file: None })
}

fn set_options(socket: &Socket, options: SocketOptions) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(options.unsent_bytes)?;
    socket.set_tcp_user_timeout(Some(options.write_timeout))
}

fn bind_unix(path: &Path) -> io::Result<BoundListener> {
    let addr = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    if let Err(error) = socket.bind(&addr) {
        // A process that died left this file behind: nothing listens on it any more.
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
    Ok(BoundListener {
        socket,
        shown: format!("unix:{}", path.display()),
        unix: true,
        file: Some(path.to_owned()),
    })
}

/// Returns the listeners that systemd passed (`LISTEN_FDS`), or none. They replace the configured public
/// listeners.
///
/// # Errors
/// A descriptor is not a listening stream socket.
pub(super) fn inherited(options: SocketOptions) -> io::Result<Vec<BoundListener>> {
    let Ok(fds) = sd_notify::listen_fds() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for fd in fds {
        // SAFETY: sd_listen_fds(3): this process owns the descriptors from 3 to 3 + LISTEN_FDS if LISTEN_PID
        // names it, which `listen_fds` checked. Nothing else in this program takes them.
        #[allow(unsafe_code)]
        let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(fd) });
        // A failure would only leak it to a child process, and we start none.
        let _ = rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC);
        if !socket.is_listener()? || socket.r#type()? != Type::STREAM {
            return Err(io::Error::other("an inherited descriptor is not a listening stream socket"));
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
        found.push(BoundListener { socket, shown, unix, file: None });
    }
    Ok(found)
}
