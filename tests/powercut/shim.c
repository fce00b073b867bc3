/*
 * Records what a process does to one directory, for disk.py to replay. Load it with LD_PRELOAD.
 *
 * POWERCUT_ROOT  the directory, as an absolute path without symbolic links. Anything outside is ignored.
 * POWERCUT_LOG   the file that records are appended to. Several processes may share it one after another.
 * POWERCUT_KILL  a number of records. After that many, the process is killed as by kill -9.
 * POWERCUT_EIO   a path. While a file exists there, fdatasync of files below the root does nothing and fails
 *                with EIO.
 *
 * - A change and its record happen under one lock, so the order of records is the order of changes.
 * - An fsync is two records, its start and its end. At its end, what was recorded before its start is
 *   durable, and nothing else.
 * - sync_file_range is passed on and not recorded, because it guarantees nothing.
 * - A record has the CLOCK_MONOTONIC time, taken under the lock and before the caller learns the result. So
 *   everything that a client learned later depends only on records with smaller times.
 * - Only calls that go through libc are recorded. Raw system calls and writable shared mappings are not; the
 *   replayed directory then differs from the real one, which powercut/run detects.
 *
 * A record in little endian: kind u8, stamp u64 (ns), inode u64, a u64, b u64, n u32, n bytes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { WRITE = 1, TRUNCATE, SYNC_START, SYNC_END, CREATE, RENAME, UNLINK, MKDIR, RMDIR, LINK, SYNC_ALL };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char root[PATH_MAX];
static size_t root_len;
static const char *eio;
static long kill_after;
static int log_fd = -1;

static void die(const char *why) {
    fprintf(stderr, "powercut shim: %s: %s\n", why, strerror(errno));
    _exit(70);
}

static void start(void) {
    const char *r = getenv("POWERCUT_ROOT"), *l = getenv("POWERCUT_LOG");
    if (!r || !l) return;
    eio = getenv("POWERCUT_EIO");
    const char *k = getenv("POWERCUT_KILL");
    kill_after = k ? atol(k) : 0;
    root_len = strlen(r);
    if (root_len >= sizeof root) die("POWERCUT_ROOT too long");
    memcpy(root, r, root_len + 1);
    log_fd = syscall(SYS_openat, AT_FDCWD, l, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0) die("POWERCUT_LOG");
}

static int recording(void) {
    pthread_once(&once, start);
    return log_fd >= 0;
}

#define REAL(ret, name, ...)                                          \
    static ret (*real)(__VA_ARGS__);                                  \
    if (!real) real = (ret(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name);    \
    if (!real) die("no " name)

/* Returns the path below the root ("" for the root itself), or NULL for a path elsewhere. */
static const char *below(const char *path) {
    if (strncmp(path, root, root_len) != 0) return NULL;
    if (path[root_len] == 0) return path + root_len;
    return path[root_len] == '/' ? path + root_len + 1 : NULL;
}

/*
 * Returns the path that a name refers to, without following its last component. Returns NULL if the path is
 * not below the root.
 */
static const char *resolve(int dir, const char *path, char out[PATH_MAX]) {
    char joined[PATH_MAX * 2], parent[PATH_MAX * 2], real_parent[PATH_MAX];
    if (path[0] == '/') {
        snprintf(joined, sizeof joined, "%s", path);
    } else {
        char base[PATH_MAX];
        if (dir == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) return NULL;
        } else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
            ssize_t n = readlink(link, base, sizeof base - 1);
            if (n < 0) return NULL;
            base[n] = 0;
        }
        snprintf(joined, sizeof joined, "%s/%s", base, path);
    }
    size_t len = strlen(joined);
    while (len > 1 && joined[len - 1] == '/') joined[--len] = 0;
    snprintf(parent, sizeof parent, "%s", joined);
    char *slash = strrchr(parent, '/');
    if (!slash) return NULL;
    *slash = 0;
    if (!realpath(parent[0] ? parent : "/", real_parent)) return NULL;
    if (snprintf(out, PATH_MAX, "%s/%s", real_parent, strrchr(joined, '/') + 1) >= PATH_MAX) return NULL;
    return below(out);
}

/*
 * Returns the inode of a descriptor of a file or directory below the root, and sets its path. Returns 0 for
 * anything else.
 */
static uint64_t traced(int fd, mode_t *mode, char path[PATH_MAX], const char **relative) {
    struct stat st;
    char link[64];
    if (!recording() || fd == log_fd) return 0;
    int saved = errno;
    uint64_t inode = 0;
    if (fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, path, PATH_MAX - 1);
        if (n > 0) {
            path[n] = 0;
            *relative = below(path);
            *mode = st.st_mode;
            if (*relative) inode = st.st_ino;
        }
    }
    errno = saved;
    return inode;
}

static uint64_t traced_file(int fd) {
    mode_t mode;
    char path[PATH_MAX];
    const char *relative;
    uint64_t inode = traced(fd, &mode, path, &relative);
    return inode && S_ISREG(mode) ? inode : 0;
}

/* Appends one record. The caller holds the lock. */
static void record(enum kind kind, uint64_t inode, uint64_t a, uint64_t b, const struct iovec *data, int parts, size_t n) {
    struct __attribute__((packed)) {
        uint8_t kind;
        uint64_t stamp, inode, a, b;
        uint32_t n;
    } head;
    struct timespec now;
    int saved = errno;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    head.kind = kind;
    head.stamp = (uint64_t)now.tv_sec * 1000000000u + now.tv_nsec;
    head.inode = inode;
    head.a = a;
    head.b = b;
    head.n = n;
    char *buffer = malloc(sizeof head + n);
    if (!buffer) die("out of memory");
    memcpy(buffer, &head, sizeof head);
    size_t at = 0;
    for (int i = 0; i < parts && at < n; i++) {
        size_t take = data[i].iov_len < n - at ? data[i].iov_len : n - at;
        memcpy(buffer + sizeof head + at, data[i].iov_base, take);
        at += take;
    }
    /* The record is one write, so that a process killed here leaves the whole record or nothing of it. */
    if (syscall(SYS_write, log_fd, buffer, sizeof head + n) != (ssize_t)(sizeof head + n)) die("the log is cut short");
    free(buffer);
    static long records;
    if (kill_after && ++records == kill_after) kill(getpid(), SIGKILL);
    errno = saved;
}

static void record_paths(enum kind kind, uint64_t inode, uint64_t a, const char *one, const char *two) {
    struct iovec parts[3] = {{(void *)one, strlen(one)}, {"\0", 1}, {(void *)(two ? two : ""), two ? strlen(two) : 0}};
    record(kind, inode, a, 0, parts, 3, parts[0].iov_len + 1 + parts[2].iov_len);
}

/* ---- opening ---- */

static int opening(int dir, const char *path, int flags, mode_t mode, int (*call)(int, const char *, int, mode_t)) {
    char full[PATH_MAX];
    const char *relative = NULL;
    if (!recording() || !(flags & (O_CREAT | O_TRUNC)) || !(relative = resolve(dir, path, full)))
        return call(dir, path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat st;
    int existed = lstat(full, &st) == 0;
    uint64_t before = existed ? st.st_ino : 0;
    int fd = call(dir, path, flags, mode);
    if (fd >= 0 && fstat(fd, &st) == 0) {
        if (!existed) record_paths(CREATE, st.st_ino, 0, relative, NULL);
        else if ((flags & O_TRUNC) && before == st.st_ino) record(TRUNCATE, st.st_ino, 0, 0, NULL, 0, 0);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

static int call_openat(int dir, const char *path, int flags, mode_t mode) {
    REAL(int, "openat64", int, const char *, int, ...);
    return real(dir, path, flags, mode);
}

#define MODE_ARGUMENT                                    \
    mode_t mode = 0;                                     \
    if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) { \
        va_list rest;                                    \
        va_start(rest, flags);                           \
        mode = va_arg(rest, mode_t);                     \
        va_end(rest);                                    \
    }

int open(const char *path, int flags, ...) { MODE_ARGUMENT return opening(AT_FDCWD, path, flags, mode, call_openat); }
int open64(const char *path, int flags, ...) { MODE_ARGUMENT return opening(AT_FDCWD, path, flags, mode, call_openat); }
int openat(int dir, const char *path, int flags, ...) { MODE_ARGUMENT return opening(dir, path, flags, mode, call_openat); }
int openat64(int dir, const char *path, int flags, ...) { MODE_ARGUMENT return opening(dir, path, flags, mode, call_openat); }
int creat(const char *path, mode_t mode) { return opening(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode, call_openat); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

/* ---- contents ---- */

/*
 * Returns where a plain write on this descriptor began. It is computed from the end of the write, so that it
 * is correct for O_APPEND too.
 */
static uint64_t position_before(int fd, ssize_t written) { return (uint64_t)lseek64(fd, 0, SEEK_CUR) - written; }

ssize_t write(int fd, const void *data, size_t n) {
    REAL(ssize_t, "write", int, const void *, size_t);
    uint64_t inode = traced_file(fd);
    if (!inode) return real(fd, data, n);
    pthread_mutex_lock(&lock);
    ssize_t done = real(fd, data, n);
    struct iovec part = {(void *)data, n};
    if (done > 0) record(WRITE, inode, position_before(fd, done), 0, &part, 1, done);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    uint64_t inode = traced_file(fd);
    if (!inode) return real(fd, parts, count);
    pthread_mutex_lock(&lock);
    ssize_t done = real(fd, parts, count);
    if (done > 0) record(WRITE, inode, position_before(fd, done), 0, parts, count, done);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    uint64_t inode = traced_file(fd);
    if (!inode) return real(fd, data, n, at);
    pthread_mutex_lock(&lock);
    ssize_t done = real(fd, data, n, at);
    struct iovec part = {(void *)data, n};
    if (done > 0) record(WRITE, inode, at, 0, &part, 1, done);
    pthread_mutex_unlock(&lock);
    return done;
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { return pwrite64(fd, data, n, at); }

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) {
    REAL(ssize_t, "pwritev64", int, const struct iovec *, int, off64_t);
    uint64_t inode = traced_file(fd);
    if (!inode) return real(fd, parts, count, at);
    pthread_mutex_lock(&lock);
    ssize_t done = real(fd, parts, count, at);
    if (done > 0) record(WRITE, inode, at, 0, parts, count, done);
    pthread_mutex_unlock(&lock);
    return done;
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return pwritev64(fd, parts, count, at); }

int ftruncate64(int fd, off64_t size) {
    REAL(int, "ftruncate64", int, off64_t);
    uint64_t inode = traced_file(fd);
    if (!inode) return real(fd, size);
    pthread_mutex_lock(&lock);
    int result = real(fd, size);
    if (result == 0) record(TRUNCATE, inode, size, 0, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

/* Supports only plain allocation. Any other mode gets the error of a file system that does not support it. */
int fallocate64(int fd, int mode, off64_t at, off64_t n) {
    REAL(int, "fallocate64", int, int, off64_t, off64_t);
    uint64_t inode = traced_file(fd);
    if (!inode) return real(fd, mode, at, n);
    if (mode & ~FALLOC_FL_KEEP_SIZE) { errno = EOPNOTSUPP; return -1; }
    pthread_mutex_lock(&lock);
    int result = real(fd, mode, at, n);
    struct stat st;
    if (result == 0 && !mode && fstat(fd, &st) == 0) record(TRUNCATE, inode, st.st_size, 0, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int fallocate(int fd, int mode, off_t at, off_t n) { return fallocate64(fd, mode, at, n); }
int posix_fallocate64(int fd, off64_t at, off64_t n) { return fallocate64(fd, 0, at, n) == 0 ? 0 : errno; }
int posix_fallocate(int fd, off_t at, off_t n) { return posix_fallocate64(fd, at, n); }

/* A copy inside the kernel shows no bytes to record. It gets an error, so that callers use read and write. */
ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t n, unsigned flags) {
    REAL(ssize_t, "copy_file_range", int, off64_t *, int, off64_t *, size_t, unsigned);
    if (!traced_file(out)) return real(in, in_at, out, out_at, n, flags);
    errno = ENOSYS;
    return -1;
}
ssize_t sendfile64(int out, int in, off64_t *at, size_t n) {
    REAL(ssize_t, "sendfile64", int, int, off64_t *, size_t);
    if (!traced_file(out)) return real(out, in, at, n);
    errno = EINVAL;
    return -1;
}
ssize_t sendfile(int out, int in, off_t *at, size_t n) { return sendfile64(out, in, at, n); }

/* ---- durability ---- */

static int syncing(int fd, int (*call)(int)) {
    mode_t mode;
    char path[PATH_MAX];
    const char *relative;
    uint64_t inode = traced(fd, &mode, path, &relative);
    if (!inode) return call(fd);
    int directory = S_ISDIR(mode);
    /* Pairs start and end. It is unique in a process, and processes run one after another. */
    static uint64_t ticket;
    pthread_mutex_lock(&lock);
    uint64_t mine = ++ticket;
    if (directory) record_paths(SYNC_START, 0, mine, relative, NULL);
    else record(SYNC_START, inode, mine, 0, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    int result = call(fd);
    if (result == 0) {
        pthread_mutex_lock(&lock);
        if (directory) record_paths(SYNC_END, 0, mine, relative, NULL);
        else record(SYNC_END, inode, mine, 0, NULL, 0, 0);
        pthread_mutex_unlock(&lock);
    }
    return result;
}

static int call_fsync(int fd) { REAL(int, "fsync", int); return real(fd); }
static int call_fdatasync(int fd) { REAL(int, "fdatasync", int); return real(fd); }
static int call_syncfs(int fd) { REAL(int, "syncfs", int); return real(fd); }
int fsync(int fd) { return syncing(fd, call_fsync); }
int fdatasync(int fd) {
    if (recording() && eio && traced_file(fd) && access(eio, F_OK) == 0) { errno = EIO; return -1; }
    return syncing(fd, call_fdatasync);
}

int syncfs(int fd) {
    int result = call_syncfs(fd);
    if (result == 0 && recording()) {
        pthread_mutex_lock(&lock);
        record(SYNC_ALL, 0, 0, 0, NULL, 0, 0);
        pthread_mutex_unlock(&lock);
    }
    return result;
}

/* ---- names ---- */

static int naming(enum kind kind, int dir, const char *path, int argument, int (*call)(int, const char *, int)) {
    char full[PATH_MAX];
    const char *relative;
    if (!recording() || !(relative = resolve(dir, path, full))) return call(dir, path, argument);
    pthread_mutex_lock(&lock);
    int result = call(dir, path, argument);
    if (result == 0) record_paths(kind, 0, 0, relative, NULL);
    pthread_mutex_unlock(&lock);
    return result;
}

static int call_mkdirat(int dir, const char *path, int mode) { REAL(int, "mkdirat", int, const char *, mode_t); return real(dir, path, mode); }
static int call_unlinkat(int dir, const char *path, int flags) { REAL(int, "unlinkat", int, const char *, int); return real(dir, path, flags); }
int mkdirat(int dir, const char *path, mode_t mode) { return naming(MKDIR, dir, path, mode, call_mkdirat); }
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
int unlinkat(int dir, const char *path, int flags) { return naming(flags & AT_REMOVEDIR ? RMDIR : UNLINK, dir, path, flags, call_unlinkat); }
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

static int call_renameat2(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    REAL(int, "renameat2", int, const char *, int, const char *, unsigned);
    return real(from_dir, from, to_dir, to, flags);
}
static int call_linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    REAL(int, "linkat", int, const char *, int, const char *, int);
    return real(from_dir, from, to_dir, to, flags);
}

static int pairing(enum kind kind, int from_dir, const char *from, int to_dir, const char *to, int flags,
                   int (*call)(int, const char *, int, const char *, int)) {
    char full_from[PATH_MAX], full_to[PATH_MAX];
    if (!recording()) return call(from_dir, from, to_dir, to, flags);
    const char *a = resolve(from_dir, from, full_from), *b = resolve(to_dir, to, full_to);
    if (!a && !b) return call(from_dir, from, to_dir, to, flags);
    if (!a || !b) { errno = EXDEV; return -1; }
    pthread_mutex_lock(&lock);
    int result = call(from_dir, from, to_dir, to, flags);
    if (result == 0) record_paths(kind, 0, 0, a, b);
    pthread_mutex_unlock(&lock);
    return result;
}

int renameat2(int fd, const char *f, int td, const char *t, unsigned flags) { return pairing(RENAME, fd, f, td, t, flags, call_renameat2); }
int renameat(int fd, const char *f, int td, const char *t) { return renameat2(fd, f, td, t, 0); }
int rename(const char *f, const char *t) { return renameat2(AT_FDCWD, f, AT_FDCWD, t, 0); }
int linkat(int fd, const char *f, int td, const char *t, int flags) { return pairing(LINK, fd, f, td, t, flags, call_linkat); }
int link(const char *f, const char *t) { return linkat(AT_FDCWD, f, AT_FDCWD, t, 0); }
