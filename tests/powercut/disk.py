"""Computes what a disk may hold after a power failure from the records of shim.c.

* A byte is durable once an fsync or fdatasync of its file, started after the write, has ended. A name
  (create, rename, unlink, mkdir) is durable once an fsync of its directory, started after the change, has
  ended. Nothing else makes a byte or a name durable: close and sync_file_range do not, and the fsync of a
  file does not make the file's own name durable. (With sled 0.34 this rule finds a store that can never be
  opened again, because its `conf`, which sled never fsyncs, was cut short.)
* A change that is not durable may be lost. Each unsynced write is kept, lost or torn. A torn write keeps some
  of its 512-byte sectors, and a kept sector holds what the file held there right after that write. Of the
  unsynced names, all are kept, none, or those up to some point in their order (as with a journal).
* This file does not know the daemon or events.
"""

import os
import struct

SECTOR = 512
HEAD = struct.Struct("<BQQQQI")
WRITE, TRUNCATE, SYNC_START, SYNC_END, CREATE, RENAME, UNLINK, MKDIR, RMDIR, LINK, SYNC_ALL = range(1, 12)


class Record:
    __slots__ = ("kind", "stamp", "inode", "a", "b", "data")

    def __init__(self, kind, stamp, inode, a, b, data):
        self.kind, self.stamp, self.inode, self.a, self.b, self.data = kind, stamp, inode, a, b, data

    def paths(self):
        one, _, two = self.data.partition(b"\0")
        return one.decode(), two.decode()


def read_log(path):
    """Returns all whole records, in order. Only the last one can be torn, if the process was killed while it
    wrote it.
    """
    with open(path, "rb") as f:
        raw = f.read()
    records, at = [], 0
    while at + HEAD.size <= len(raw):
        kind, stamp, inode, a, b, n = HEAD.unpack_from(raw, at)
        if at + HEAD.size + n > len(raw):
            break
        records.append(Record(kind, stamp, inode, a, b, raw[at + HEAD.size : at + HEAD.size + n]))
        at += HEAD.size + n
    return records


class Inode:
    """A file: its durable contents, and the later changes, oldest first, each with its index in the log."""

    def __init__(self):
        self.durable = bytearray()
        self.pending = []  # (log index, "write" | "truncate", offset or size, data)

    def apply(self, content, change):
        _, what, at, data = change
        if what == "truncate":
            if at < len(content):
                del content[at:]
            else:
                content.extend(bytes(at - len(content)))
        else:
            if len(content) < at:
                content.extend(bytes(at - len(content)))
            content[at : at + len(data)] = data

    def sync(self, before):
        """Makes everything recorded before log index `before` durable."""
        keep = 0
        while keep < len(self.pending) and self.pending[keep][0] < before:
            self.apply(self.durable, self.pending[keep])
            keep += 1
        del self.pending[:keep]

    def whole(self):
        """Returns the contents as the running system sees them."""
        content = bytearray(self.durable)
        for change in self.pending:
            self.apply(content, change)
        return content

    def after_crash(self, rng, keep):
        """Returns one of the possible contents after a power failure. `keep` is the probability that an
        unsynced write is kept whole.
        """
        seen = bytearray(self.durable)
        disk = bytearray(self.durable)
        for change in self.pending:
            self.apply(seen, change)
            _, what, at, data = change
            fate = rng.random()
            if what == "truncate":
                if fate < keep:
                    self.apply(disk, change)
                continue
            first, last = at // SECTOR, (at + len(data) - 1) // SECTOR
            if fate < keep:
                sectors = range(first, last + 1)
            elif fate < keep + (1 - keep) / 3:
                # The write is torn: it keeps either the first sectors or scattered ones.
                if rng.random() < 0.5:
                    sectors = range(first, first + rng.randrange(last - first + 1))
                else:
                    sectors = [s for s in range(first, last + 1) if rng.random() < 0.5]
            else:
                continue
            for sector in sectors:
                start, end = sector * SECTOR, min((sector + 1) * SECTOR, len(seen))
                if len(disk) < start:
                    disk.extend(bytes(start - len(disk)))
                disk[start:end] = seen[start:end]
        return disk


class Disk:
    """The directory below the root, built from records one by one."""

    def __init__(self, honest=True):
        self.honest = honest  # if False, an fsync does nothing, and every good check must notice that
        self.index = 0
        self.inodes = {}  # inode number -> the latest Inode with that number
        self.names = {}  # path -> Inode, or None for a directory: the state of the running system
        self.durable_names = {}
        self.pending_names = []  # (log index, {directories touched}, [(path, Inode | None | GONE)])
        self.starts = {}  # ticket -> log index of its SYNC_START

    GONE = object()

    def feed(self, record):
        kind = record.kind
        if kind == WRITE:
            self._file(record.inode).pending.append((self.index, "write", record.a, record.data))
        elif kind == TRUNCATE:
            self._file(record.inode).pending.append((self.index, "truncate", record.a, b""))
        elif kind == SYNC_START:
            self.starts[record.a] = self.index
        elif kind == SYNC_END:
            before = self.starts.pop(record.a, None)
            if self.honest and before is not None:
                if record.inode:
                    self._file(record.inode).sync(before)
                else:
                    self._sync_directory(record.paths()[0], before)
        elif kind == SYNC_ALL:
            if self.honest:
                for inode in self.inodes.values():
                    inode.sync(self.index)
                self._sync_directory(None, self.index)
        else:
            self._name(record)
        self.index += 1

    def _file(self, number):
        if number not in self.inodes:
            raise SystemExit(f"record {self.index}: a change to a file whose creation was not recorded")
        return self.inodes[number]

    def _name(self, record):
        one, two = record.paths()
        moves = []
        if record.kind == CREATE:
            self.inodes[record.inode] = Inode()
            moves = [(one, self.inodes[record.inode])]
        elif record.kind == MKDIR:
            moves = [(one, None)]
        elif record.kind in (UNLINK, RMDIR):
            moves = [(one, self.GONE)]
        elif record.kind == LINK:
            moves = [(two, self.names[one])]
        elif record.kind == RENAME:
            below = [path for path in self.names if path == one or path.startswith(one + "/")]
            moves = [(two + path[len(one) :], self.names[path]) for path in below]
            moves += [(path, self.GONE) for path in below]
        # A rename between directories counts as synced together with its target directory.
        directory = os.path.dirname(two if record.kind in (RENAME, LINK) else one)
        self._move(self.names, moves)
        self.pending_names.append((self.index, directory, moves))

    def _move(self, names, moves):
        for path, target in moves:
            if target is self.GONE:
                names.pop(path, None)
            else:
                names[path] = target

    def _sync_directory(self, directory, before):
        rest = []
        for change in self.pending_names:
            if change[0] < before and directory in (None, change[1]):
                self._move(self.durable_names, change[2])
            else:
                rest.append(change)
        self.pending_names = rest

    def write_running(self, into):
        """Writes the directory as the running system sees it."""
        self._write(into, self.names, Inode.whole)

    def write_crashed(self, into, rng):
        """Writes one of the directories that a power failure now may leave. Returns a line that describes it.
        """
        names = dict(self.durable_names)
        fate = rng.choice(["all", "none", "some"])
        count = len(self.pending_names)
        kept = {"all": count, "none": 0, "some": rng.randint(0, count)}[fate]
        for change in self.pending_names[:kept]:
            self._move(names, change[2])
        # If a directory is lost, the names in it are lost too.
        names = {
            path: target
            for path, target in names.items()
            if all(parent in names for parent in parents(path))
        }
        keep = rng.choice([0.0, 0.2, 0.5, 0.8, 1.0])
        pending = sum(len(inode.pending) for inode in set(names.values()) - {None})
        self._write(into, names, lambda inode: inode.after_crash(rng, keep))
        return f"{pending} unsynced writes at {keep:.0%}, {kept} of {count} unsynced names"

    def _write(self, into, names, content):
        os.makedirs(into)
        done = {}
        for path, target in sorted(names.items()):
            full = os.path.join(into, path)
            if target is None:
                os.makedirs(full, exist_ok=True)
            elif target in done:
                os.link(done[target], full)
            else:
                with open(full, "wb") as f:
                    bytes_there = content(target)
                    # Segments are allocated beyond their end. Those zeros are left out here.
                    f.write(bytes_there.rstrip(b"\0"))
                    f.truncate(len(bytes_there))
                os.chmod(full, 0o600)
                done[target] = full


def parents(path):
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


# Files whose contents are not compared: the store's ballast only reserves space, by a system call that
# bypasses libc, and nothing reads it.
UNREAD = {"ballast"}


def differences(replayed, real):
    """Returns the paths that differ between two directories. There are some if a change bypassed the shim."""
    found = []
    for left, right in ((replayed, real), (real, replayed)):
        for folder, folders, files in os.walk(left):
            for name in folders + files:
                one = os.path.join(folder, name)
                two = os.path.join(right, os.path.relpath(one, left))
                if not os.path.exists(two):
                    found.append(f"{os.path.relpath(one, left)}: only in {os.path.basename(left)}")
                elif left == replayed and os.path.isfile(one) and name not in UNREAD:
                    with open(one, "rb") as a, open(two, "rb") as b:
                        if a.read() != b.read():
                            found.append(f"{os.path.relpath(one, left)}: contents differ")
    return found
