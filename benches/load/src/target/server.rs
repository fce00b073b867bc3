//! The kinds of server that are measured, and their names in reports.

/// The kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// Nervewire, started here or reached by `--url`.
    Daemon,
    /// The bare epoll floor.
    Floor,
    /// The broadcast-channel baseline.
    Naive,
    /// The bare `pwrite` and `fdatasync`. It is not a server.
    Append,
    /// The bare HTTP server that drops every body.
    Parse,
    /// Another executable of the daemon, measured alternately with it.
    Before,
}

impl Server {
    /// Returns the name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Server::Daemon => "daemon",
            Server::Floor => "floor",
            Server::Naive => "naive",
            Server::Append => "append",
            Server::Parse => "parse",
            Server::Before => "before",
        }
    }

    /// Returns the server of this name, if a ratio to it is possible.
    #[must_use]
    pub fn named(name: &str) -> Option<Server> {
        let all = [Server::Floor, Server::Naive, Server::Append, Server::Parse, Server::Before];
        all.into_iter().find(|it| it.name() == name)
    }
}
