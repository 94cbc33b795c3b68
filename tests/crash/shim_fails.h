/* A part of shim.c: calls that change no file, or nothing that is logged; they can only fail. */

#define BY_FD(type, bad, name, class, label, declared, passed) \
	type name declared { \
		char path[PATH_MAX]; \
		static type (*real) declared; \
		if (!real) real = dlsym(RTLD_NEXT, #name); \
		if (!chosen) return real passed; \
		path_of(fd, path); \
		if (fails(label, class, path) == 1) return bad; \
		return real passed; \
	}
#define BY_NAME(type, bad, name, class, label, declared, passed, dir) \
	type name declared { \
		char path[PATH_MAX]; \
		static type (*real) declared; \
		if (!real) real = dlsym(RTLD_NEXT, #name); \
		if (!chosen) return real passed; \
		path_at(dir, at, path); \
		if (fails(label, class, path) == 1) return bad; \
		return real passed; \
	}

BY_FD(ssize_t, -1, read, READS, "read", (int fd, void *b, size_t n), (fd, b, n))
BY_FD(ssize_t, -1, readv, READS, "read", (int fd, const struct iovec *b, int n), (fd, b, n))
BY_FD(ssize_t, -1, pread, READS, "pread", (int fd, void *b, size_t n, off_t o), (fd, b, n, o))
BY_FD(ssize_t, -1, pread64, READS, "pread", (int fd, void *b, size_t n, off64_t o), (fd, b, n, o))
BY_FD(ssize_t, -1, preadv64v2, READS, "pread", (int fd, const struct iovec *b, int n, off64_t o, int f), (fd, b, n, o, f))
BY_FD(off64_t, -1, lseek64, LOOKS, "lseek", (int fd, off64_t o, int w), (fd, o, w))
BY_FD(int, -1, fstat64, LOOKS, "fstat", (int fd, struct stat64 *s), (fd, s))
BY_FD(off_t, -1, lseek, LOOKS, "lseek", (int fd, off_t o, int w), (fd, o, w))
BY_FD(int, -1, fstatfs, LOOKS, "fstatfs", (int fd, struct statfs *s), (fd, s))
BY_FD(ssize_t, -1, fgetxattr, LOOKS, "getxattr", (int fd, const char *n, void *b, size_t s), (fd, n, b, s))
BY_FD(ssize_t, -1, flistxattr, LOOKS, "listxattr", (int fd, char *b, size_t n), (fd, b, n))
BY_FD(int, -1, fremovexattr, ATTRS, "removexattr", (int fd, const char *n), (fd, n))
BY_FD(int, -1, fstatvfs64, LOOKS, "fstatvfs", (int fd, struct statvfs64 *s), (fd, s))
BY_FD(int, -1, flock, LOCKS, "flock", (int fd, int o), (fd, o))
BY_FD(int, -1, fchmod, ATTRS, "fchmod", (int fd, mode_t m), (fd, m))
BY_FD(int, -1, fchown, ATTRS, "fchown", (int fd, uid_t u, gid_t g), (fd, u, g))
BY_FD(int, -1, futimens, ATTRS, "futimens", (int fd, const struct timespec t[2]), (fd, t))
BY_FD(int, -1, fsetxattr, ATTRS, "fsetxattr", (int fd, const char *n, const void *v, size_t s, int f), (fd, n, v, s, f))
BY_FD(DIR *, NULL, fdopendir, READS, "fdopendir", (int fd), (fd))
BY_FD(ssize_t, -1, getdents64, READS, "getdents", (int fd, void *b, size_t n), (fd, b, n))
BY_NAME(int, -1, stat64, LOOKS, "stat", (const char *at, struct stat64 *s), (at, s), AT_FDCWD)
BY_NAME(int, -1, lstat64, LOOKS, "lstat", (const char *at, struct stat64 *s), (at, s), AT_FDCWD)
BY_NAME(int, -1, fstatat64, LOOKS, "fstatat", (int d, const char *at, struct stat64 *s, int f), (d, at, s, f), d)
BY_NAME(int, -1, statvfs64, LOOKS, "statvfs", (const char *at, struct statvfs64 *s), (at, s), AT_FDCWD)
BY_NAME(DIR *, NULL, opendir, READS, "opendir", (const char *at), (at), AT_FDCWD)
BY_NAME(ssize_t, -1, readlinkat, LOOKS, "readlink", (int d, const char *at, char *b, size_t n), (d, at, b, n), d)
BY_NAME(int, -1, chmod, ATTRS, "chmod", (const char *at, mode_t m), (at, m), AT_FDCWD)
BY_NAME(int, -1, fchmodat, ATTRS, "chmod", (int d, const char *at, mode_t m, int f), (d, at, m, f), d)
BY_NAME(int, -1, fchownat, ATTRS, "chown", (int d, const char *at, uid_t u, gid_t g, int f), (d, at, u, g, f), d)
BY_NAME(int, -1, utimensat, ATTRS, "utimens", (int d, const char *at, const struct timespec t[2], int f), (d, at, t, f), d)
BY_NAME(int, -1, setxattr, ATTRS, "setxattr", (const char *at, const char *n, const void *v, size_t s, int f), (at, n, v, s, f), AT_FDCWD)
BY_NAME(int, -1, lsetxattr, ATTRS, "setxattr", (const char *at, const char *n, const void *v, size_t s, int f), (at, n, v, s, f), AT_FDCWD)
BY_NAME(int, -1, removexattr, ATTRS, "removexattr", (const char *at, const char *n), (at, n), AT_FDCWD)
BY_NAME(int, -1, lremovexattr, ATTRS, "removexattr", (const char *at, const char *n), (at, n), AT_FDCWD)
BY_NAME(ssize_t, -1, llistxattr, LOOKS, "listxattr", (const char *at, char *b, size_t n), (at, b, n), AT_FDCWD)
BY_NAME(ssize_t, -1, lgetxattr, LOOKS, "getxattr", (const char *at, const char *n, void *b, size_t s), (at, n, b, s), AT_FDCWD)
BY_NAME(ssize_t, -1, listxattr, LOOKS, "listxattr", (const char *at, char *b, size_t n), (at, b, n), AT_FDCWD)
BY_NAME(ssize_t, -1, getxattr, LOOKS, "getxattr", (const char *at, const char *n, void *b, size_t s), (at, n, b, s), AT_FDCWD)

/* What LMDB was built against. */
int __fxstat(int version, int fd, struct stat *status)
{
	char path[PATH_MAX];
	(void)version;
	if (chosen) {
		path_of(fd, path);
		if (fails("fstat", LOOKS, path) == 1)
			return -1;
	}
	return syscall(SYS_fstat, fd, status);
}

struct dirent64 *readdir64(DIR *entries)
{
	char path[PATH_MAX];
	REAL(struct dirent64 *, readdir64, DIR *);
	if (chosen) {
		path_of(dirfd(entries), path);
		if (fails("readdir", READS, path) == 1)
			return NULL;
	}
	return real(entries);
}

/* A close that fails has closed: as on a network file system, which writes then. */
int close(int fd)
{
	char path[PATH_MAX];
	path[0] = 0;
	if (chosen)
		path_of(fd, path);
	int is_failing = fails("close", CLOSES, path) == 1, saved = errno, done = syscall(SYS_close, fd);
	if (!is_failing || done < 0)
		return done;
	errno = saved;
	return -1;
}

static int controlled(int fd, int command, void *what)
{
	char path[PATH_MAX];
	if (chosen && (command == F_SETLK || command == F_SETLKW || command == F_GETLK)) {
		path_of(fd, path);
		if (fails("fcntl", LOCKS, path) == 1)
			return -1;
	}
	return syscall(SYS_fcntl, fd, command, what);
}
#define WHAT va_list list; va_start(list, command); void *what = va_arg(list, void *); va_end(list)
int fcntl(int fd, int command, ...) { WHAT; return controlled(fd, command, what); }
int fcntl64(int fd, int command, ...) { WHAT; return controlled(fd, command, what); }

static void *mapped(void *to, size_t length, int how, int flags, int fd, int64_t at)
{
	char path[PATH_MAX];
	if (chosen && fd >= 0) {
		path_of(fd, path);
		if (fails("mmap", MAPS, path) == 1)
			return MAP_FAILED;
	}
	return (void *)syscall(SYS_mmap, to, length, how, flags, fd, at);
}
void *mmap(void *to, size_t length, int how, int flags, int fd, off_t at) { return mapped(to, length, how, flags, fd, at); }
void *mmap64(void *to, size_t length, int how, int flags, int fd, off64_t at) { return mapped(to, length, how, flags, fd, at); }
