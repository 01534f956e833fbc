#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* Loaded before the C library, this lets system calls on the files below a folder fail, as a broken disk does. */

static char under[4096];
static long at = -1, many = 0, count = 0;
static int code = EIO;

/* From now on, of the calls on files below `where`, the `first` and number - 1 after it fail with `error`. */
void fail_plan(const char *where, long first, long number, int error) {
    strncpy(under, where, sizeof under - 1);
    count = 0, at = first, many = number, code = error;
}

long fail_count(void) { return count; }

static int fails(const char *path) {
    if (at < 0 || !path || strncmp(path, under, strlen(under))) return 0;
    long now = __sync_fetch_and_add(&count, 1);
    if (now >= at && now < at + many) { errno = code; return 1; }
    return 0;
}

static int fails_fd(int fd) {
    char link[64], path[4096];
    int before = errno;
    if (at < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    static ssize_t (*real)(const char *, char *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "readlink");
    ssize_t n = real(link, path, sizeof path - 1);
    errno = before;
    if (n < 0) return 0;
    path[n] = 0;
    return fails(path);
}

#define REAL(name) static typeof(&name) real; if (!real) real = (typeof(&name))dlsym(RTLD_NEXT, #name)

int open(const char *path, int flags, ...) {
    va_list list; va_start(list, flags); mode_t mode = va_arg(list, int); va_end(list);
    REAL(open); if (fails(path)) return -1; return real(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    va_list list; va_start(list, flags); mode_t mode = va_arg(list, int); va_end(list);
    REAL(open64); if (fails(path)) return -1; return real(path, flags, mode);
}
int openat(int folder, const char *path, int flags, ...) {
    va_list list; va_start(list, flags); mode_t mode = va_arg(list, int); va_end(list);
    REAL(openat); if (fails(path)) return -1; return real(folder, path, flags, mode);
}
ssize_t read(int fd, void *to, size_t n) { REAL(read); if (fails_fd(fd)) return -1; return real(fd, to, n); }
ssize_t pread(int fd, void *to, size_t n, off_t o) { REAL(pread); if (fails_fd(fd)) return -1; return real(fd, to, n, o); }
ssize_t pread64(int fd, void *to, size_t n, off_t o) { REAL(pread64); if (fails_fd(fd)) return -1; return real(fd, to, n, o); }
ssize_t write(int fd, const void *from, size_t n) { REAL(write); if (fails_fd(fd)) return -1; return real(fd, from, n); }
int fsync(int fd) { REAL(fsync); if (fails_fd(fd)) return -1; return real(fd); }
int rename(const char *a, const char *b) { REAL(rename); if (fails(a) || fails(b)) return -1; return real(a, b); }
int unlink(const char *path) { REAL(unlink); if (fails(path)) return -1; return real(path); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); if (fails(path)) return -1; return real(path, mode); }
int stat(const char *path, struct stat *to) { REAL(stat); if (fails(path)) return -1; return real(path, to); }
int stat64(const char *path, struct stat64 *to) { REAL(stat64); if (fails(path)) return -1; return real(path, to); }
int lstat64(const char *path, struct stat64 *to) { REAL(lstat64); if (fails(path)) return -1; return real(path, to); }
int lstat(const char *path, struct stat *to) { REAL(lstat); if (fails(path)) return -1; return real(path, to); }
void *opendir(const char *path) { static void *(*real)(const char *); if (!real) real = dlsym(RTLD_NEXT, "opendir"); if (fails(path)) return 0; return real(path); }
void *mmap64(void *a, size_t n, int p, int f, int fd, off_t o) { static void *(*real)(void *, size_t, int, int, int, off_t); if (!real) real = dlsym(RTLD_NEXT, "mmap64"); if (fd >= 0 && fails_fd(fd)) return (void *)-1; return real(a, n, p, f, fd, o); }
