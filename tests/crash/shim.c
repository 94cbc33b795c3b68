/*
 * A shim between a program and libc (LD_PRELOAD): it logs every call that changes files below a directory, or makes the
 * n-th call on them fail.  shim.py builds it and speaks with it.
 *
 * Paths of fds are asked of /proc at every call, so dup(2), threads and fork(2) need no care.  Calls that libc makes
 * within itself are not seen: opendir(3) is one call here.
 */
#define _GNU_SOURCE
#undef _FILE_OFFSET_BITS
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <sys/uio.h>
#include <unistd.h>

enum { LOG_WRITE = 1, LOG_TRUNCATE, LOG_SYNC, LOG_CREATE, LOG_MKDIR, LOG_RENAME, LOG_UNLINK, LOG_RMDIR, LOG_LINK, LOG_SYMLINK,
       LOG_SPACE, LOG_OTHER, LOG_DURABLE, LOG_DIRECT, LOG_FLUSH };
/* Classes of calls, for the mask of those that may fail. */
enum { READS = 1, WRITES = 2, SYNCS = 4, NAMES = 8, OPENS = 16, LOOKS = 32, MAPS = 64, LOCKS = 128, ATTRS = 256, SPACE = 512,
       CLOSES = 1024 };

struct entry { uint32_t op, path_length; uint64_t inode; int64_t offset; uint64_t length; };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];         /* calls on what is below it are logged, or fail */
static size_t root_length;
static int log_fd = -1;
static long count, chosen;
static int error_number, is_sticky, is_short, mask;
static char failed[128];            /* the first call that failed, and what it was on */
static long failures;

/* ---- said by shim.py */

void shim_root(const char *path) { root_length = strlen(path); memcpy(root, path, root_length + 1); }
void shim_log(int fd) { log_fd = fd; }
void shim_arm(long n, int error, int sticky, int cut_short, int classes)
{
	count = failures = 0; failed[0] = 0;
	error_number = error; is_sticky = sticky; is_short = cut_short; mask = classes; chosen = n;
}
void shim_disarm(void) { chosen = 0; }
long shim_count(void) { return count; }
long shim_failures(void) { return failures; }
const char *shim_failed(void) { return failed; }

/* ---- paths */

static ssize_t raw_readlink(const char *path, char *buffer, size_t size)
{
	return syscall(SYS_readlinkat, AT_FDCWD, path, buffer, size);
}

static void path_of(int fd, char *path)
{
	char link[40];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = raw_readlink(link, path, PATH_MAX - 1);
	path[length < 0 ? 0 : length] = 0;
}

static void path_at(int dir, const char *name, char *path)
{
	char full[PATH_MAX];
	path[0] = 0;
	if (!name)
		return;
	if (!strncmp(name, "/proc/self/fd/", 14)) {
		ssize_t length = raw_readlink(name, path, PATH_MAX - 1);
		path[length < 0 ? 0 : length] = 0;
		return;
	}
	if (name[0] == '/') {
		snprintf(path, PATH_MAX, "%s", name);
		return;
	}
	if (dir == AT_FDCWD) {
		if (syscall(SYS_getcwd, full, sizeof full) < 0)
			return;
	} else
		path_of(dir, full);
	if (!*name || !strcmp(name, "."))
		snprintf(path, PATH_MAX, "%s", full);
	else if ((size_t)snprintf(path, PATH_MAX, "%s/%s", full, name) >= PATH_MAX)
		path[0] = 0;
}

static int is_ours(const char *path)
{
	return root_length && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

/* ---- failing */

/* Return whether this call is to fail, or, if it is a write and writes are to be cut short, 2. */
static int fails(const char *call, int class, const char *path)
{
	if (!chosen || !(mask & class) || !is_ours(path))
		return 0;
	long n = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
	if (n != chosen && !(is_sticky && n > chosen))
		return 0;
	if (__atomic_add_fetch(&failures, 1, __ATOMIC_SEQ_CST) == 1)
		snprintf(failed, sizeof failed, "%s %.100s", call, path + root_length);
	if (is_short)
		return 2;
	errno = error_number;
	return 1;
}

/* ---- logging */

static void put(const void *data, size_t length)
{
	const char *at = data;
	while (length) {
		ssize_t done = syscall(SYS_write, log_fd, at, length);
		if (done <= 0)
			_exit(99);
		at += done; length -= done;
	}
}

static void note(int op, uint64_t inode, const char *path, int64_t offset, const void *data, uint64_t length)
{
	struct entry entry = { op, strlen(path), inode, offset, length };
	put(&entry, sizeof entry);
	put(path, entry.path_length);
	if (data)
		put(data, length);
}

static uint64_t inode_of(int fd)
{
	struct stat status;
	memset(&status, 0, sizeof status);
	syscall(SYS_fstat, fd, &status);
	return status.st_ino;
}

#define LOGGED(path) (log_fd >= 0 && is_ours(path))
#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, #name)
#define LOCKED(body) do { pthread_mutex_lock(&mutex); body; int saved = errno; pthread_mutex_unlock(&mutex); errno = saved; } while (0)

/* ---- opening */

static int opened(int dir, const char *name, int flags, mode_t mode, const char *call)
{
	char path[PATH_MAX];
	path_at(dir, name, path);
	if (fails(call, OPENS, path) == 1)
		return -1;
	if (!LOGGED(path) || !(flags & (O_CREAT | O_TRUNC)))
		return syscall(SYS_openat, dir, name, flags, mode);
	int fd;
	LOCKED({
		struct stat before;
		int is_new = syscall(SYS_newfstatat, dir, name, &before, AT_SYMLINK_NOFOLLOW) < 0;
		fd = syscall(SYS_openat, dir, name, flags, mode);
		if (fd >= 0 && is_new)
			note(LOG_CREATE, inode_of(fd), path, 0, NULL, 0);
		else if (fd >= 0 && flags & O_TRUNC)
			note(LOG_TRUNCATE, inode_of(fd), path, 0, NULL, 0);
	});
	return fd;
}

#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list list; va_start(list, flags); mode = va_arg(list, int); va_end(list); }
int open(const char *name, int flags, ...) { MODE(flags) return opened(AT_FDCWD, name, flags, mode, "open"); }
int open64(const char *name, int flags, ...) { MODE(flags) return opened(AT_FDCWD, name, flags, mode, "open"); }
int openat(int dir, const char *name, int flags, ...) { MODE(flags) return opened(dir, name, flags, mode, "openat"); }
int openat64(int dir, const char *name, int flags, ...) { MODE(flags) return opened(dir, name, flags, mode, "openat"); }

/* ---- writing */

static ssize_t written(int fd, const struct iovec *parts, int number, int64_t offset, const char *call)
{
	char path[PATH_MAX];
	ssize_t done;
	path_of(fd, path);
	int is_failing = fails(call, WRITES, path);
	if (is_failing == 1)
		return -1;
	if (is_failing == 2) {  /* a half of the first part */
		size_t half = (parts[0].iov_len + 1) / 2;
		return offset < 0 ? syscall(SYS_write, fd, parts[0].iov_base, half)
				  : syscall(SYS_pwrite64, fd, parts[0].iov_base, half, offset);
	}
	if (!LOGGED(path))
		return offset < 0 ? syscall(SYS_writev, fd, parts, number)
				  : syscall(SYS_pwritev, fd, parts, number, offset, 0);
	LOCKED({
		int64_t at = offset;
		if (at < 0)
			at = syscall(SYS_fcntl, fd, F_GETFL) & O_APPEND ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
		done = offset < 0 ? syscall(SYS_writev, fd, parts, number)
				  : syscall(SYS_pwritev, fd, parts, number, offset, 0);
		ssize_t left = done;
		int how = syscall(SYS_fcntl, fd, F_GETFL);
		int op = how & O_DSYNC ? LOG_DURABLE : how & O_DIRECT ? LOG_DIRECT : LOG_WRITE;
		for (int i = 0; i < number && left > 0; i++) {
			size_t length = (size_t)left < parts[i].iov_len ? (size_t)left : parts[i].iov_len;
			note(op, inode_of(fd), path, at, parts[i].iov_base, length);
			at += length; left -= length;
		}
	});
	return done;
}

#define ONE(data, length) struct iovec part = { (void *)data, length }
ssize_t write(int fd, const void *data, size_t length) { ONE(data, length); return written(fd, &part, 1, -1, "write"); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t at) { ONE(data, length); return written(fd, &part, 1, at, "pwrite"); }
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t at) { ONE(data, length); return written(fd, &part, 1, at, "pwrite"); }
ssize_t writev(int fd, const struct iovec *parts, int number) { return written(fd, parts, number, -1, "writev"); }
ssize_t pwritev(int fd, const struct iovec *parts, int number, off_t at) { return written(fd, parts, number, at, "pwritev"); }
ssize_t pwritev64(int fd, const struct iovec *parts, int number, off64_t at) { return written(fd, parts, number, at, "pwritev"); }
ssize_t pwritev64v2(int fd, const struct iovec *parts, int number, off64_t at, int flags) { (void)flags; return written(fd, parts, number, at, "pwritev"); }

/* ---- sizes and syncs */

static int cut(int fd, int64_t size, const char *call)
{
	char path[PATH_MAX];
	int done;
	path_of(fd, path);
	if (fails(call, WRITES, path) == 1)
		return -1;
	if (!LOGGED(path))
		return syscall(SYS_ftruncate, fd, size);
	LOCKED(if (!(done = syscall(SYS_ftruncate, fd, size))) note(LOG_TRUNCATE, inode_of(fd), path, size, NULL, 0));
	return done;
}
int ftruncate(int fd, off_t size) { return cut(fd, size, "ftruncate"); }
int ftruncate64(int fd, off64_t size) { return cut(fd, size, "ftruncate"); }

static int cut_at(const char *name, int64_t size)
{
	char path[PATH_MAX];
	int done;
	path_at(AT_FDCWD, name, path);
	if (fails("truncate", WRITES, path) == 1)
		return -1;
	if (!LOGGED(path))
		return syscall(SYS_truncate, name, size);
	LOCKED({
		struct stat status;
		memset(&status, 0, sizeof status);
		syscall(SYS_newfstatat, AT_FDCWD, name, &status, 0);
		if (!(done = syscall(SYS_truncate, name, size)))
			note(LOG_TRUNCATE, status.st_ino, path, size, NULL, 0);
	});
	return done;
}
int truncate(const char *name, off_t size) { return cut_at(name, size); }
int truncate64(const char *name, off64_t size) { return cut_at(name, size); }

static int space(int fd, int mode, int64_t offset, int64_t length, const char *call)
{
	char path[PATH_MAX];
	int done;
	path_of(fd, path);
	if (fails(call, SPACE, path) == 1)
		return -1;
	if (!LOGGED(path))
		return syscall(SYS_fallocate, fd, mode, offset, length);
	LOCKED(if (!(done = syscall(SYS_fallocate, fd, mode, offset, length))) note(LOG_SPACE, inode_of(fd), path, mode ? -1 : offset, NULL, length));
	return done;
}
int fallocate(int fd, int mode, off_t offset, off_t length) { return space(fd, mode, offset, length, "fallocate"); }
int fallocate64(int fd, int mode, off64_t offset, off64_t length) { return space(fd, mode, offset, length, "fallocate"); }
int posix_fallocate(int fd, off_t offset, off_t length) { return space(fd, 0, offset, length, "fallocate") ? errno : 0; }
int posix_fallocate64(int fd, off64_t offset, off64_t length) { return space(fd, 0, offset, length, "fallocate") ? errno : 0; }

static int synced(int fd, int number, const char *call)
{
	char path[PATH_MAX];
	int done;
	path_of(fd, path);
	if (fails(call, SYNCS, path) == 1)
		return -1;
	if (log_fd < 0)
		return syscall(number, fd);
	if (!LOGGED(path)) {  /* the disk flushes its cache nevertheless */
		LOCKED(done = 0; note(LOG_FLUSH, 0, path, 0, NULL, 0));
		return done;
	}
	/* The call itself is left out: nothing is to be durable, and it takes most of the time. */
	LOCKED(done = 0; note(LOG_SYNC, inode_of(fd), path, 0, NULL, 0));
	return done;
}
int fsync(int fd) { return synced(fd, SYS_fsync, "fsync"); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync, "fdatasync"); }

/* ---- names */

static int named(int op, const char *call, int dir, const char *name, int dir2, const char *name2, long number, long a, long b, long c, long d, long e)
{
	char path[PATH_MAX], path2[PATH_MAX];
	int done;
	path_at(dir, name, path);
	path2[0] = 0;
	if (name2)
		path_at(dir2, name2, path2);
	if (fails(call, NAMES, is_ours(path) ? path : path2) == 1)
		return -1;
	if (!LOGGED(path) && !LOGGED(path2))
		return syscall(number, a, b, c, d, e);
	LOCKED({
		done = syscall(number, a, b, c, d, e);
		if (!done)
			note(op, 0, path, 0, path2, strlen(path2));
	});
	return done;
}
#define L(x) (long)(x)
int rename(const char *a, const char *b) { return named(LOG_RENAME, "rename", AT_FDCWD, a, AT_FDCWD, b, SYS_renameat, AT_FDCWD, L(a), AT_FDCWD, L(b), 0); }
int renameat(int d, const char *a, int e, const char *b) { return named(LOG_RENAME, "rename", d, a, e, b, SYS_renameat, d, L(a), e, L(b), 0); }
int renameat2(int d, const char *a, int e, const char *b, unsigned f) { return named(f & 2 ? LOG_OTHER : LOG_RENAME, "rename", d, a, e, b, SYS_renameat2, d, L(a), e, L(b), f); }
int unlink(const char *a) { return named(LOG_UNLINK, "unlink", AT_FDCWD, a, 0, NULL, SYS_unlinkat, AT_FDCWD, L(a), 0, 0, 0); }
int unlinkat(int d, const char *a, int f) { return named(f & AT_REMOVEDIR ? LOG_RMDIR : LOG_UNLINK, "unlink", d, a, 0, NULL, SYS_unlinkat, d, L(a), f, 0, 0); }
int rmdir(const char *a) { return named(LOG_RMDIR, "rmdir", AT_FDCWD, a, 0, NULL, SYS_unlinkat, AT_FDCWD, L(a), AT_REMOVEDIR, 0, 0); }
int mkdir(const char *a, mode_t m) { return named(LOG_MKDIR, "mkdir", AT_FDCWD, a, 0, NULL, SYS_mkdirat, AT_FDCWD, L(a), m, 0, 0); }
int mkdirat(int d, const char *a, mode_t m) { return named(LOG_MKDIR, "mkdir", d, a, 0, NULL, SYS_mkdirat, d, L(a), m, 0, 0); }
int link(const char *a, const char *b) { return named(LOG_LINK, "link", AT_FDCWD, a, AT_FDCWD, b, SYS_linkat, AT_FDCWD, L(a), AT_FDCWD, L(b), 0); }
int linkat(int d, const char *a, int e, const char *b, int f) { return named(LOG_LINK, "link", d, a, e, b, SYS_linkat, d, L(a), e, L(b), f); }
int symlink(const char *t, const char *a) { return named(LOG_SYMLINK, "symlink", AT_FDCWD, a, 0, NULL, SYS_symlinkat, L(t), AT_FDCWD, L(a), 0, 0); }
int symlinkat(const char *t, int d, const char *a) { return named(LOG_SYMLINK, "symlink", d, a, 0, NULL, SYS_symlinkat, L(t), d, L(a), 0, 0); }
int mknodat(int d, const char *a, mode_t m, dev_t n) { return named(LOG_OTHER, "mknod", d, a, 0, NULL, SYS_mknodat, d, L(a), m, n, 0); }

#include "shim_fails.h"
