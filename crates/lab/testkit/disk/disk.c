/*
 * A disk that fails, for tests: a library that is preloaded into the process under test (LD_PRELOAD) and stands between
 * it and the kernel. It sees every call that changes a file below one directory, and does two jobs.
 *
 * 1. Faults. A control file is mapped into the process, and the test rewrites it while the process runs. It holds
 *    rules: which calls, on which files, how often, and what happens instead (an errno, a short write, a delay, a lie).
 * 2. Power failure. A process that is killed loses nothing that it wrote, because the kernel still has it; a machine
 *    without power loses whatever was not synced. A shadow directory holds what a disk would: the contents that a file
 *    had when it was last synced, and the names that a directory had when that was. The test kills the process and
 *    replaces the directory by its shadow.
 *
 * It is no part of the product. The workspace forbids unsafe Rust, and an interposed function of libc is nothing else,
 * so it is C.
 *
 * Environment: FAULTY_DISK_DIR      the directory, canonical; files elsewhere are left alone
 *              FAULTY_DISK_CONTROL  the control file
 *              FAULTY_DISK_SHADOW   the shadow directory; without it there is no second job
 *
 * What changes without these calls cannot fail: shared mappings (SQLite's -shm, made anew after a crash), io_uring,
 * what libc does behind fopen. The shadow has it all the same, because it reads the file itself. Nobody here relies on
 * msync or sync_file_range.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* The layout below is written by testkit's disk.rs; the two must agree. Numbers are 64 bits wide in the machine's
 * order. */
enum { RULES = 8 };
/* Calls, as bits. GROWS narrows writes and truncations to those that need room, and opens to those that make a file. */
enum { WRITE = 1, SYNC = 2, TRUNCATE = 4, OPEN = 8, UNLINK = 16, MKDIR = 32, RENAME = 64, GROWS = 128 };
/* Effects; a positive one is an errno. SHORT: half of a write is done, and the rest of it fails with ENOSPC. LIE:
 * success, and nothing is done. DELAY: the call takes longer. DROP: a sync fails with EIO, and what it was to bring
 * to the disk is gone for good, as Linux does it: the pages are clean afterwards, and the next sync succeeds. Only
 * with a shadow, which knows what was synced. */
enum { SHORT = -1, LIE = -2, DELAY = -3, DROP = -4 };

struct rule {
    _Atomic int64_t armed;     /* 0 or 1; written last */
    int64_t calls;
    int64_t effect;
    _Atomic int64_t remaining; /* how often it still strikes; -1: always */
    int64_t per_mille;         /* how likely it is to */
    _Atomic uint64_t random;   /* begins as the seed */
    int64_t micros;            /* of a delay */
    _Atomic int64_t hits;      /* how often it struck; the test reads it */
    char pattern[64];          /* fnmatch, on the path below the directory */
};

struct control {
    _Atomic int64_t loaded; /* processes that read it: shows that the library is there */
    struct rule rules[RULES];
};

static struct control *control;
static const char *root, *shadow;
static size_t root_length;
static __thread int torn = -1; /* the descriptor whose last write was short */

static void must(int ok, const char *what) {
    if (ok) return;
    /* An instrument that fails in silence would report losses that nobody had. */
    dprintf(2, "disk.c: cannot %s: %s\n", what, strerror(errno));
    abort();
}

/* ---- which file ------------------------------------------------------------------------------------------------- */
/* The part of an absolute path below the directory ("" for the directory itself), or NULL where it is elsewhere. */
static const char *below(const char *path) {
    if (!root || strncmp(path, root, root_length) != 0) return NULL;
    const char *rest = path + root_length;
    return *rest == '/' ? rest + 1 : *rest ? NULL : rest;
}

static const char *below_fd(int fd, char *buffer) {
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, buffer, PATH_MAX - 1);
    if (length > 0) buffer[length] = '\0';
    return length > 0 ? below(buffer) : NULL;
}

/* PostgreSQL names its files from its working directory. Paths from another directory's descriptor are left alone. */
static const char *below_path(int at, const char *path, char *buffer) {
    if (path[0] == '/') return below(path);
    if (at != AT_FDCWD || !root || !getcwd(buffer, PATH_MAX)) return NULL;
    size_t length = strlen(buffer);
    snprintf(buffer + length, PATH_MAX - length, "/%s", path);
    return below(buffer);
}

/* ---- faults ----------------------------------------------------------------------------------------------------- */
static uint64_t next_random(_Atomic uint64_t *state) { /* SplitMix64 */
    uint64_t z = atomic_fetch_add(state, 0x9E3779B97F4A7C15u) + 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static int takes_turn(struct rule *rule) {
    if ((int64_t)(next_random(&rule->random) % 1000) >= rule->per_mille) return 0;
    int64_t left = atomic_load(&rule->remaining);
    while (left > 0 && !atomic_compare_exchange_weak(&rule->remaining, &left, left - 1)) {}
    return left != 0;
}

#define EACH(rule) (struct rule *rule = control ? control->rules : NULL; rule && rule < control->rules + RULES; rule++)

/* What happens to this call instead: 0 for nothing. */
static int strike(int call, const char *file, int grows) {
    for EACH(rule) {
        if (!file || !atomic_load(&rule->armed) || !(rule->calls & call) || ((rule->calls & GROWS) && !grows)) continue;
        if (fnmatch(rule->pattern, file, 0) != 0 || !takes_turn(rule)) continue;
        atomic_fetch_add(&rule->hits, 1);
        if (rule->effect != DELAY) return (int)rule->effect;
        usleep((useconds_t)rule->micros);
    }
    return 0;
}

static int is_armed(int calls) {
    for EACH(rule) if (atomic_load(&rule->armed) && (rule->calls & calls)) return 1;
    return 0;
}

/* ---- power ------------------------------------------------------------------------------------------------------ */
/*
 * The shadow is flat. A file or directory is named by its key, its inode number and time of birth: whatever happens to
 * its names, it stays itself, and a number that is used again is not mistaken for its predecessor.
 *
 *   SHADOW/KEY   of a file: its contents when it was last synced
 *                of a directory: a line "KEY NAME" for each name in it when it was last synced ("d KEY NAME" for
 *                directories)
 *   SHADOW/root  the key of the directory itself
 *
 * So a new file has no name until its directory is synced, and no contents until it is synced itself; a rename has not
 * happened until the directory is synced. That is all that POSIX promises; most file systems do better.
 */
enum { KEY = 80, BLOCK = 4096, CHUNK = 16 * BLOCK };

/* The mode is 0 of what vanished meanwhile, and that is not kept. */
static mode_t key_of(int at, const char *name, char *key) {
    struct statx st = {0};
    syscall(SYS_statx, at, name, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &st);
    snprintf(key, KEY, "%llu-%lld-%u", (unsigned long long)st.stx_ino, (long long)st.stx_btime.tv_sec, st.stx_btime.tv_nsec);
    return st.stx_mode;
}

/* One at a time, of all processes and threads: whoever read a file before another wrote to it must not overwrite
 * what the other kept. */
static int lock_shadow(void) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/lock", shadow);
    int lock = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    must(lock >= 0, "open the lock of the shadow");
    while (flock(lock, LOCK_EX) != 0) must(errno == EINTR, "lock the shadow");
    return lock;
}

/* Brings the copy up to the contents of the file, block by block, so that a kill leaves some blocks new and some
 * old, as a disk does; or the file back to the copy. It stays as long as it is then: what was never synced is
 * zeros. */
static void match_file(int file, const char *path, int back) {
    char now[CHUNK], kept[CHUNK];
    int copy = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    must(copy >= 0, "open a file of the shadow");
    off_t at = 0;
    for (ssize_t length; (length = pread(file, now, CHUNK, at)) != 0; at += length) {
        must(length > 0, "read a file that is synced");
        ssize_t known = pread(copy, kept, CHUNK, at);
        must(known >= 0, "read a file of the shadow");
        memset(kept + known, 0, (size_t)(CHUNK - known));
        for (ssize_t block = 0; block < length; block += BLOCK) {
            ssize_t size = length - block < BLOCK ? length - block : BLOCK;
            if ((back || block + size <= known) && memcmp(kept + block, now + block, (size_t)size) == 0) continue;
            must(syscall(SYS_pwrite64, back ? file : copy, (back ? kept : now) + block, size, at + block) == size, "write a block");
        }
    }
    if (!back) must(syscall(SYS_ftruncate, copy, at) == 0, "cut a file of the shadow");
    close(copy);
}

static int is_dots(const char *name) { return strcmp(name, ".") == 0 || strcmp(name, "..") == 0; }

/* Replaces the list of a directory's names, whole. */
static void keep_names(int fd, const char *path) {
    char beside[PATH_MAX + 8], key[KEY];
    snprintf(beside, sizeof beside, "%s.new", path);
    int to = (int)syscall(SYS_openat, AT_FDCWD, beside, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    must(to >= 0, "open a directory of the shadow");
    DIR *names = fdopendir(fd);
    must(names != NULL, "read a directory that is synced");
    for (struct dirent *entry; (entry = readdir(names));) {
        if (is_dots(entry->d_name)) continue;
        mode_t mode = key_of(dirfd(names), entry->d_name, key);
        if (S_ISREG(mode) || S_ISDIR(mode)) dprintf(to, "%s%s %s\n", S_ISDIR(mode) ? "d " : "", key, entry->d_name);
    }
    closedir(names);
    close(to);
    must(syscall(SYS_renameat2, AT_FDCWD, beside, AT_FDCWD, path, 0) == 0, "rename a directory of the shadow");
}

/* Everything about this file or directory is on the disk now. A file is read through the caller's own descriptor
 * where that can be: to close another one of the same file would give up the locks that SQLite holds on it. */
static void keep(int fd) {
    char path[PATH_MAX], link[40], key[KEY];
    int before = errno, lock = lock_shadow(), from = fd;
    mode_t mode = key_of(fd, "", key);
    snprintf(path, sizeof path, "%s/%s", shadow, key);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (S_ISDIR(mode) || (fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY)
        must((from = (int)syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC)) >= 0, "open again what is synced");
    if (S_ISDIR(mode)) keep_names(from, path); /* which closes it */
    else if (S_ISREG(mode)) match_file(from, path, 0);
    if (!S_ISDIR(mode) && from != fd) close(from);
    close(lock);
    errno = before;
}

/* Nothing of this file that was not synced is there any more. The descriptor is the caller's own where that can be,
 * as above. */
static void drop_unsynced(int fd) {
    char path[PATH_MAX], link[40], key[KEY];
    int lock = lock_shadow(), own = (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR;
    if (S_ISREG(key_of(fd, "", key))) {
        snprintf(path, sizeof path, "%s/%s", shadow, key);
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        int file = own ? fd : (int)syscall(SYS_openat, AT_FDCWD, link, O_RDWR | O_CLOEXEC);
        must(file >= 0, "open again what is not synced");
        match_file(file, path, 1);
        if (!own) close(file);
    }
    close(lock);
}

/* What is there when the first process starts is on the disk. */
static void keep_all(int at, const char *name) {
    int fd = (int)syscall(SYS_openat, at, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return; /* a link, a socket, or somebody else's */
    keep(fd);
    struct stat st;
    DIR *names = fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) ? fdopendir(fd) : NULL;
    for (struct dirent *entry; names && (entry = readdir(names));)
        if (!is_dots(entry->d_name)) keep_all(dirfd(names), entry->d_name);
    if (names) closedir(names);
    else close(fd);
}

static void seed_shadow(void) {
    char path[PATH_MAX], key[KEY];
    snprintf(path, sizeof path, "%s/root", shadow);
    int mark = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (mark < 0) return; /* another process was first */
    key_of(AT_FDCWD, root, key);
    dprintf(mark, "%s", key);
    close(mark);
    keep_all(AT_FDCWD, root);
}

/* PostgreSQL writes its process titles over its environment. */
static const char *variable(const char *name) { return getenv(name) ? strdup(getenv(name)) : NULL; }

__attribute__((constructor)) static void start(void) {
    const char *path = variable("FAULTY_DISK_CONTROL");
    if (!(root = variable("FAULTY_DISK_DIR"))) return;
    root_length = strlen(root);
    if (path) {
        int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
        must(fd >= 0, "open the control file");
        void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        must(mapped != MAP_FAILED, "map the control file");
        control = mapped;
        close(fd);
        atomic_fetch_add(&control->loaded, 1);
    }
    shadow = variable("FAULTY_DISK_SHADOW");
    if (shadow) seed_shadow();
}

/* ---- the calls -------------------------------------------------------------------------------------------------- */
/* What happens to a write of `length` bytes at `at` (-1: wherever the descriptor stands). */
static int strike_write(int fd, size_t length, off_t at) {
    char path[PATH_MAX];
    if (!is_armed(WRITE)) return 0;
    const char *file = below_fd(fd, path);
    struct stat st;
    if (!file || fstat(fd, &st) != 0) return 0;
    if (torn == fd) return torn = -1, ENOSPC;
    if (at < 0) at = fcntl(fd, F_GETFL) & O_APPEND ? st.st_size : lseek(fd, 0, SEEK_CUR);
    int effect = strike(WRITE, file, at + (off_t)length > st.st_size);
    if (effect == SHORT) torn = fd;
    return effect;
}

/* A write through a descriptor that syncs every one of them. */
static ssize_t written(int fd, ssize_t result) {
    char path[PATH_MAX];
    if (shadow && result > 0 && (fcntl(fd, F_GETFL) & O_DSYNC) && below_fd(fd, path)) keep(fd);
    return result;
}

/* What most calls do with it: an errno ends them, a lie too. */
#define STRUCK(effect, length)                 \
    int struck = (effect);                     \
    if (struck > 0) return errno = struck, -1; \
    if (struck == LIE) return (ssize_t)(length);

ssize_t write(int fd, const void *data, size_t length) {
    STRUCK(strike_write(fd, length, -1), length)
    return written(fd, syscall(SYS_write, fd, data, struck == SHORT ? length / 2 : length));
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t at) {
    STRUCK(strike_write(fd, length, at), length)
    return written(fd, syscall(SYS_pwrite64, fd, data, struck == SHORT ? length / 2 : length, at));
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t at) { return pwrite64(fd, data, length, at); }

static size_t length_of(const struct iovec *parts, int count) {
    size_t length = 0;
    for (int i = 0; i < count; i++) length += parts[i].iov_len;
    return length;
}

/* A short write of several parts is one of the first. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
    size_t length = length_of(parts, count);
    STRUCK(strike_write(fd, length, -1), length)
    if (struck == SHORT) return syscall(SYS_write, fd, parts[0].iov_base, parts[0].iov_len / 2);
    return written(fd, syscall(SYS_writev, fd, parts, count));
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) {
    size_t length = length_of(parts, count);
    STRUCK(strike_write(fd, length, at), length)
    if (struck == SHORT) return syscall(SYS_pwrite64, fd, parts[0].iov_base, parts[0].iov_len / 2, at);
    return written(fd, syscall(SYS_pwritev, fd, parts, count, at, 0));
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return pwritev64(fd, parts, count, at); }

/* With a shadow the kernel's own sync is left out: nobody looks at that disk, and tests have more rounds. */
static int sync_with(int fd, long number) {
    char path[PATH_MAX];
    if (!shadow && !is_armed(SYNC)) return (int)syscall(number, fd);
    const char *file = below_fd(fd, path);
    STRUCK(strike(SYNC, file, 0), 0)
    if (struck == DROP) return drop_unsynced(fd), errno = EIO, -1;
    if (!file || !shadow) return (int)syscall(number, fd);
    return keep(fd), 0;
}
int fsync(int fd) { return sync_with(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_with(fd, SYS_fdatasync); }
static int strike_room(int fd, off_t end) {
    char path[PATH_MAX];
    struct stat st;
    if (!is_armed(TRUNCATE) || fstat(fd, &st) != 0) return 0;
    return strike(TRUNCATE, below_fd(fd, path), end > st.st_size);
}

int ftruncate64(int fd, off64_t length) {
    STRUCK(strike_room(fd, length), 0)
    return (int)syscall(SYS_ftruncate, fd, length);
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int fallocate64(int fd, int mode, off64_t at, off64_t length) {
    STRUCK(strike_room(fd, at + length), 0)
    return (int)syscall(SYS_fallocate, fd, mode, at, length);
}
int fallocate(int fd, int mode, off_t at, off_t length) { return fallocate64(fd, mode, at, length); }
int posix_fallocate64(int fd, off64_t at, off64_t length) { return fallocate64(fd, 0, at, length) == 0 ? 0 : errno; }
int posix_fallocate(int fd, off_t at, off_t length) { return posix_fallocate64(fd, at, length); }

static int open_with(int at, const char *path, int flags, mode_t mode) {
    char buffer[PATH_MAX];
    if (is_armed(OPEN)) {
        int is_new = (flags & O_CREAT) && syscall(SYS_faccessat, at, path, F_OK) != 0;
        STRUCK(strike(OPEN, below_path(at, path, buffer), is_new), 0)
    }
    return (int)syscall(SYS_openat, at, path, flags, mode);
}

#define MODE(flags)                                                             \
    va_list rest;                                                               \
    va_start(rest, flags);                                                      \
    mode_t mode = (flags) & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
    va_end(rest);
int open(const char *path, int flags, ...) { MODE(flags) return open_with(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_with(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags) return open_with(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags) return open_with(at, path, flags, mode); }

static int strike_name(int call, int at, const char *path) {
    char buffer[PATH_MAX];
    return is_armed(call) ? strike(call, below_path(at, path, buffer), 1) : 0;
}

int unlinkat(int at, const char *path, int flags) {
    STRUCK(strike_name(UNLINK, at, path), 0)
    return (int)syscall(SYS_unlinkat, at, path, flags);
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

int mkdir(const char *path, mode_t mode) {
    STRUCK(strike_name(MKDIR, AT_FDCWD, path), 0)
    return (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

/* Named by where it leads: that is what is missing afterwards. */
int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    STRUCK(strike_name(RENAME, to_at, to), 0)
    return (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags);
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }
