/* A disk that is full from the n-th write on: preloaded, so that what C++ and Rust write meets it too. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char prefix[4096];
static int number = -1, stays, count, log_file = -1;

void faults_arm(const char *folder, int n, int from_then_on, int log) {
    strncpy(prefix, folder, sizeof prefix - 1);
    stays = from_then_on, log_file = log, count = 0, number = n;
}

/* Whether this operation finds the disk full. */
static int full(const char *operation, const char *path) {
    static ssize_t (*real)(int, const void *, size_t);
    char line[5000];
    if (number < 0 || strncmp(path, prefix, strlen(prefix)) || path[strlen(prefix)] != '/') return 0;
    int mine = __sync_add_and_fetch(&count, 1);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    int length = snprintf(line, sizeof line, "%s %s\n", operation, path + strlen(prefix) + 1);
    if (real(log_file, line, length) < 0) return 0;
    if (!number || !(mine == number || (stays && mine > number))) return 0;
    errno = ENOSPC;
    return 1;
}

static int full_file(const char *operation, int file) {
    char link[64], path[4096];
    if (number < 0 || file == log_file) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return full(operation, path);
}

#define REAL(name, ...) static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name); return real(__VA_ARGS__)
#define MODE mode_t mode = 0; if (flags & O_CREAT) { va_list rest; va_start(rest, flags); mode = va_arg(rest, int); va_end(rest); }

ssize_t write(int file, const void *data, size_t size) {
    if (full_file("write", file)) return -1;
    REAL(write, file, data, size);
}
ssize_t writev(int file, const struct iovec *parts, int parts_count) {
    if (full_file("write", file)) return -1;
    REAL(writev, file, parts, parts_count);
}
ssize_t pwrite(int file, const void *data, size_t size, off_t place) {
    if (full_file("write", file)) return -1;
    REAL(pwrite, file, data, size, place);
}
ssize_t pwrite64(int file, const void *data, size_t size, off64_t place) {
    if (full_file("write", file)) return -1;
    REAL(pwrite64, file, data, size, place);
}
int open(const char *path, int flags, ...) {
    MODE
    if ((flags & O_CREAT) && full("create", path)) return -1;
    REAL(open, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE
    if ((flags & O_CREAT) && full("create", path)) return -1;
    REAL(open64, path, flags, mode);
}
int mkdir(const char *path, mode_t mode) {
    if (full("mkdir", path)) return -1;
    REAL(mkdir, path, mode);
}
