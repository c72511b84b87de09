/* Preloaded into a program (LD_PRELOAD): writes down what it does to files below one folder, in order, and lets it happen.
 *
 * HW_TRACE_ROOT: the folder. HW_TRACE_LOG: the file of records, shared by all processes of the run (appended by one writev each).
 * A record is: op (1 byte), file (8), offset (8), length of first and of second text (4 each), the texts. Ops: C create, W write,
 * T truncate to offset, S sync of a file, D sync of a folder (first text), R rename, L link, U unlink.
 * The replayer (tests/power_loss.py) makes of it what a disk may hold after the power went.
 *
 * HW_CLOCK: a file with 8 bytes, nanoseconds to add to the wall clock, read with every look at the clock.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FILES 4096
struct tracked { uint64_t file; char used, folder, append; };

static struct tracked files[FILES];
static char root[PATH_MAX], clock_path[PATH_MAX];
static size_t root_length;
static int log_fd = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void before_fork(void) { pthread_mutex_lock(&lock); }
static void after_fork(void) { pthread_mutex_unlock(&lock); }

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("HW_TRACE_ROOT"), *log = getenv("HW_TRACE_LOG"), *shift = getenv("HW_CLOCK");
    if (shift) snprintf(clock_path, sizeof clock_path, "%s", shift);
    if (!folder || !log || !realpath(folder, root)) return;
    root_length = strlen(root);
    int fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) return;
    log_fd = syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 900);
    if (log_fd < 0) log_fd = fd; else syscall(SYS_close, fd);
    pthread_atfork(before_fork, after_fork, after_fork);
}

static int below(const char *path) {
    return root_length && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

static void note(char op, uint64_t file, uint64_t offset, const void *one, uint32_t n, const void *two, uint32_t m) {
    char head[25];
    head[0] = op;
    memcpy(head + 1, &file, 8); memcpy(head + 9, &offset, 8); memcpy(head + 17, &n, 4); memcpy(head + 21, &m, 4);
    struct iovec parts[3] = {{head, sizeof head}, {(void *)one, n}, {(void *)two, m}};
    syscall(SYS_writev, log_fd, parts, 3);
}


/* The real path of `name` seen from folder `at`; only its parent has to exist. */
static int full(int at, const char *name, char *out) {
    char path[PATH_MAX], parent[PATH_MAX];
    if (name[0] == '/' || at == AT_FDCWD) snprintf(path, sizeof path, "%s", name);
    else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t n = readlink(link, parent, sizeof parent - 1);
        if (n < 0) return 0;
        parent[n] = 0;
        if (snprintf(path, sizeof path, "%s/%s", parent, name) >= (int)sizeof path) return 0;
    }
    char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    char keep[NAME_MAX + 1];
    if (snprintf(keep, sizeof keep, "%s", base) >= (int)sizeof keep) return 0;
    if (slash) *slash = 0;
    if (!realpath(slash ? (path[0] ? path : "/") : ".", parent)) return 0;
    return snprintf(out, PATH_MAX, "%s/%s", parent, keep) < PATH_MAX && below(out);
}

static int opened(int at, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    if (log_fd < 0 || !full(at, name, path)) return syscall(SYS_openat, at, name, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat facts;
    int existed = !lstat(path, &facts);
    int fd = syscall(SYS_openat, at, name, flags, mode), error = errno;
    if (fd >= 0 && fd < FILES && !fstat(fd, &facts)) {
        struct tracked *one = &files[fd];
        one->used = S_ISREG(facts.st_mode) || S_ISDIR(facts.st_mode);
        one->folder = S_ISDIR(facts.st_mode);
        one->append = (flags & O_APPEND) != 0;
        one->file = facts.st_ino;
        if (S_ISREG(facts.st_mode) && !existed) note('C', facts.st_ino, 0, path, strlen(path), "", 0);
        else if (S_ISREG(facts.st_mode) && (flags & O_TRUNC)) note('T', facts.st_ino, 0, "", 0, "", 0);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define MODE(last) mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list a; va_start(a, last); mode = va_arg(a, mode_t); va_end(a); }
int open(const char *name, int flags, ...) { MODE(flags) return opened(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags) return opened(AT_FDCWD, name, flags | O_LARGEFILE, mode); }
int openat(int at, const char *name, int flags, ...) { MODE(flags) return opened(at, name, flags, mode); }
int openat64(int at, const char *name, int flags, ...) { MODE(flags) return opened(at, name, flags | O_LARGEFILE, mode); }

static struct tracked *file_of(int fd) {
    return log_fd >= 0 && fd >= 0 && fd < FILES && files[fd].used && !files[fd].folder ? &files[fd] : NULL;
}

int close(int fd) {
    if (fd == log_fd && fd >= 0) return 0;
    if (fd >= 0 && fd < FILES) files[fd].used = 0;
    return syscall(SYS_close, fd);
}

ssize_t write(int fd, const void *data, size_t size) {
    struct tracked *one = file_of(fd);
    if (!one) return syscall(SYS_write, fd, data, size);
    pthread_mutex_lock(&lock);
    struct stat facts;
    off_t at = one->append ? (fstat(fd, &facts) ? 0 : facts.st_size) : lseek(fd, 0, SEEK_CUR);
    ssize_t n = syscall(SYS_write, fd, data, size);
    int error = errno;
    if (n > 0) note('W', one->file, at, data, n, "", 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return n;
}

static ssize_t placed(int fd, const void *data, size_t size, off_t at) {
    struct tracked *one = file_of(fd);
    if (!one) return syscall(SYS_pwrite64, fd, data, size, at);
    pthread_mutex_lock(&lock);
    ssize_t n = syscall(SYS_pwrite64, fd, data, size, at);
    int error = errno;
    if (n > 0) note('W', one->file, at, data, n, "", 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return n;
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return placed(fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { return placed(fd, data, size, at); }

static int cut(int fd, off_t length) {
    struct tracked *one = file_of(fd);
    if (!one) return syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_ftruncate, fd, length), error = errno;
    if (!result) note('T', one->file, length, "", 0, "", 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int ftruncate(int fd, off_t length) { return cut(fd, length); }
int ftruncate64(int fd, off64_t length) { return cut(fd, length); }

static int synced(int number, int fd) {
    if (log_fd < 0 || fd < 0 || fd >= FILES || !files[fd].used) return syscall(number, fd);
    pthread_mutex_lock(&lock);
    int result = syscall(number, fd), error = errno;
    if (!result && files[fd].folder) {
        char link[64], path[PATH_MAX];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, path, sizeof path);
        if (n > 0) note('D', 0, 0, path, n, "", 0);
    } else if (!result) note('S', files[fd].file, 0, "", 0, "", 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int fsync(int fd) { return synced(SYS_fsync, fd); }
int fdatasync(int fd) { return synced(SYS_fdatasync, fd); }

static int moved(char op, int at, const char *from, int to_at, const char *to) {
    char one[PATH_MAX], two[PATH_MAX];
    int ours = log_fd >= 0 && full(at, from, one) && full(to_at, to, two);
    if (ours) pthread_mutex_lock(&lock);
    int result = op == 'R' ? syscall(SYS_renameat2, at, from, to_at, to, 0) : syscall(SYS_linkat, at, from, to_at, to, 0), error = errno;
    if (ours) {
        if (!result) note(op, 0, 0, one, strlen(one), two, strlen(two));
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return result;
}
int rename(const char *from, const char *to) { return moved('R', AT_FDCWD, from, AT_FDCWD, to); }
int renameat(int at, const char *from, int to_at, const char *to) { return moved('R', at, from, to_at, to); }
int link(const char *from, const char *to) { return moved('L', AT_FDCWD, from, AT_FDCWD, to); }

static int removed(int at, const char *name, int flags) {
    char path[PATH_MAX];
    int ours = log_fd >= 0 && !(flags & AT_REMOVEDIR) && full(at, name, path);
    if (ours) pthread_mutex_lock(&lock);
    int result = syscall(SYS_unlinkat, at, name, flags), error = errno;
    if (ours) {
        if (!result) note('U', 0, 0, path, strlen(path), "", 0);
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return result;
}
int unlink(const char *name) { return removed(AT_FDCWD, name, 0); }
int unlinkat(int at, const char *name, int flags) { return removed(at, name, flags); }

static int64_t shift_ns(void) {
    int64_t shift = 0;
    int fd = clock_path[0] ? (int)syscall(SYS_openat, AT_FDCWD, clock_path, O_RDONLY | O_CLOEXEC, 0) : -1;
    if (fd < 0) return 0;
    if (syscall(SYS_read, fd, &shift, 8) != 8) shift = 0;
    syscall(SYS_close, fd);
    return shift;
}

static int shifted(clockid_t which, struct timespec *out) {
    int result = syscall(SYS_clock_gettime, which, out);
    if (!result && clock_path[0] && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) {
        __int128 now = (__int128)out->tv_sec * 1000000000 + out->tv_nsec + shift_ns();
        if (now < 0) now = 0;
        out->tv_sec = now / 1000000000;
        out->tv_nsec = now % 1000000000;
    }
    return result;
}
int clock_gettime(clockid_t which, struct timespec *out) { return shifted(which, out); }
time_t time(time_t *out) {
    struct timespec now;
    shifted(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    (void)zone;
    struct timespec now;
    shifted(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}
