/*
 * A pass-through in C: the ceiling for a file system that sees every operation and records none of them.
 *
 * usage: passthrough BACKING MOUNTPOINT     serves in the foreground, says "ready", ends when it is unmounted
 *
 * It speaks the kernel's protocol (linux/fuse.h, 7.31 and later) on /dev/fuse itself, in one thread, a request at a
 * time: an O_PATH descriptor for each inode, names and attributes and missing names for a day, pages and lists kept
 * over opens, readdirplus, setuid bits cleared by itself (so that no write is preceded by getxattr).  It needs root.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MOST (1 << 20)      /* bytes of data in one request */
#define FOREVER 86400       /* seconds */
#define BUCKETS (1 << 20)
#define ROOM 4096           /* for everything but data */

struct inode {
    struct inode *next;     /* in its bucket */
    ino_t number;
    int fd;                 /* O_PATH */
    uint64_t lookups;
};

static struct inode *buckets[BUCKETS], root;
static int device;
static char request[MOST + ROOM] __attribute__((aligned(4096)));
static char answer[MOST + ROOM] __attribute__((aligned(4096)));

static struct inode *inode_of(uint64_t id) { return id == FUSE_ROOT_ID ? &root : (struct inode *)(uintptr_t)id; }

static const char *path_of(struct inode *inode)
{
    static char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", inode->fd);
    return path;
}

static void forget(struct inode *inode, uint64_t lookups)
{
    if (inode == &root || (inode->lookups -= lookups)) return;
    struct inode **at = &buckets[inode->number % BUCKETS];
    while (*at != inode) at = &(*at)->next;
    *at = inode->next;
    close(inode->fd);
    free(inode);
}

static void attributes(struct fuse_attr *out, const struct stat *st)
{
    *out = (struct fuse_attr){.ino = st->st_ino, .size = st->st_size, .blocks = st->st_blocks,
        .atime = st->st_atim.tv_sec, .mtime = st->st_mtim.tv_sec, .ctime = st->st_ctim.tv_sec,
        .atimensec = st->st_atim.tv_nsec, .mtimensec = st->st_mtim.tv_nsec, .ctimensec = st->st_ctim.tv_nsec,
        .mode = st->st_mode, .nlink = st->st_nlink, .uid = st->st_uid, .gid = st->st_gid, .rdev = st->st_rdev,
        .blksize = st->st_blksize};
}

/* Answer with what is called NAME in PARENT: 0, or the errno. */
static int look_up(struct inode *parent, const char *name, struct fuse_entry_out *out)
{
    struct stat st;
    memset(out, 0, sizeof *out);
    out->entry_valid = out->attr_valid = FOREVER;
    int fd = openat(parent->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return errno;
    if (fstat(fd, &st)) { int error = errno; close(fd); return error; }
    struct inode **bucket = &buckets[st.st_ino % BUCKETS], *inode = *bucket;
    while (inode && inode->number != st.st_ino) inode = inode->next;
    if (inode) {
        close(fd);
    } else {
        inode = malloc(sizeof *inode);
        *inode = (struct inode){.next = *bucket, .number = st.st_ino, .fd = fd};
        *bucket = inode;
    }
    inode->lookups++;
    out->nodeid = (uintptr_t)inode;
    attributes(&out->attr, &st);
    return 0;
}

static int attr_answer(int fd, struct fuse_attr_out *out)
{
    struct stat st;
    if (fstat(fd, &st)) return errno;
    *out = (struct fuse_attr_out){.attr_valid = FOREVER};
    attributes(&out->attr, &st);
    return 0;
}

/* A new name belongs to who asked for it; this process is root. */
static int made(struct inode *parent, const char *name, const struct fuse_in_header *in, struct fuse_entry_out *out)
{
    struct stat st;
    if ((in->uid || in->gid) && !fstat(parent->fd, &st))
        if (fchownat(parent->fd, name, in->uid, st.st_mode & S_ISGID ? -1u : in->gid, AT_SYMLINK_NOFOLLOW)) return errno;
    return look_up(parent, name, out);
}

static void kill_privileges(int fd)
{
    struct stat st;
    if (fstat(fd, &st)) return;
    mode_t gone = S_ISUID | (st.st_mode & S_IXGRP ? S_ISGID : 0);
    if (st.st_mode & gone) fchmod(fd, st.st_mode & 07777 & ~gone);
}

static int set_attributes(struct inode *inode, const struct fuse_setattr_in *in)
{
    uint32_t v = in->valid;
    int fd = v & FATTR_FH ? (int)in->fh : -1;
    if (v & FATTR_SIZE && (fd >= 0 ? ftruncate(fd, in->size) : truncate(path_of(inode), in->size))) return errno;
    if (v & (FATTR_UID | FATTR_GID)
        && fchownat(inode->fd, "", v & FATTR_UID ? in->uid : -1u, v & FATTR_GID ? in->gid : -1u, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW))
        return errno;
    if (v & FATTR_MODE && chmod(path_of(inode), in->mode & 07777)) return errno;
    if (v & FATTR_KILL_SUIDGID && fd >= 0) kill_privileges(fd);
    if (v & (FATTR_ATIME | FATTR_MTIME)) {
        struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};
        if (v & FATTR_ATIME) times[0] = (struct timespec){in->atime, v & FATTR_ATIME_NOW ? UTIME_NOW : in->atimensec};
        if (v & FATTR_MTIME) times[1] = (struct timespec){in->mtime, v & FATTR_MTIME_NOW ? UTIME_NOW : in->mtimensec};
        if (utimensat(inode->fd, "", times, AT_EMPTY_PATH) && utimensat(AT_FDCWD, path_of(inode), times, 0)) return errno;
    }
    return 0;
}

static int open_flags(uint32_t flags)   /* the kernel appends; what is direct to it may be unaligned here */
{
    return (flags & ~(O_APPEND | O_DIRECT | O_NOFOLLOW | O_CREAT | O_EXCL | O_NOCTTY)) | O_CLOEXEC;
}

/* Answer a readdir, with attributes if PLUS; return the bytes, or the negative errno. */
static int list(DIR *dir, const struct fuse_read_in *in, struct inode *parent, int plus, char *out)
{
    size_t used = 0, head = plus ? sizeof(struct fuse_direntplus) : sizeof(struct fuse_dirent);
    if (in->offset != (uint64_t)telldir(dir)) seekdir(dir, in->offset);
    for (;;) {
        long before = telldir(dir);
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (!entry) return errno && !used ? -errno : (int)used;
        size_t length = strlen(entry->d_name), size = FUSE_DIRENT_ALIGN(head + length);
        if (used + size > in->size) { seekdir(dir, before); return used; }
        memset(out + used, 0, size);
        struct fuse_dirent *name = (void *)(out + used);
        if (plus) {
            struct fuse_direntplus *both = (void *)(out + used);
            name = &both->dirent;
            if (entry->d_name[0] != '.' || (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")))
                if (look_up(parent, entry->d_name, &both->entry_out)) memset(&both->entry_out, 0, sizeof both->entry_out);
        }
        *name = (struct fuse_dirent){.ino = entry->d_ino, .off = entry->d_off, .namelen = length, .type = entry->d_type};
        memcpy(name->name, entry->d_name, length);
        used += size;
    }
}

static int start(const struct fuse_init_in *in, struct fuse_init_out *out)
{
    *out = (struct fuse_init_out){.major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION,
        .max_readahead = in->max_readahead > MOST ? MOST : in->max_readahead, .max_background = 64,
        .congestion_threshold = 48, .max_write = MOST, .time_gran = 1, .max_pages = MOST / 4096};
    out->flags = in->flags & (FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS | FUSE_MAX_PAGES
        | FUSE_PARALLEL_DIROPS | FUSE_CACHE_SYMLINKS | FUSE_HANDLE_KILLPRIV_V2);
    return sizeof *out;
}

/* Do what IN asks for, with its body at BODY; return the bytes of the answer in OUT, or the negative errno. */
static int handle(const struct fuse_in_header *in, char *body, char *out)
{
#define RETURN_0(call) return (call) ? -errno : 0
#define RETURN_ENTRY(call) do { int e_ = (call); return e_ ? -e_ : (int)sizeof(struct fuse_entry_out); } while (0)
    struct inode *inode = in->nodeid ? inode_of(in->nodeid) : NULL;
    struct fuse_entry_out *entry = (void *)out;
    struct fuse_open_out *opened = (void *)out;
    int error, fd;
    ssize_t count;
    switch (in->opcode) {
    case FUSE_INIT: return start((void *)body, (void *)out);
    case FUSE_LOOKUP:
        error = look_up(inode, body, entry);
        return error && error != ENOENT ? -error : (int)sizeof *entry;      /* nodeid 0: missing, for a day */
    case FUSE_GETATTR:
        error = attr_answer(inode->fd, (void *)out);
        return error ? -error : (int)sizeof(struct fuse_attr_out);
    case FUSE_SETATTR:
        error = set_attributes(inode, (void *)body);
        if (!error) error = attr_answer(inode->fd, (void *)out);
        return error ? -error : (int)sizeof(struct fuse_attr_out);
    case FUSE_READLINK: count = readlinkat(inode->fd, "", out, 4096); return count < 0 ? -errno : (int)count;
    case FUSE_OPEN: {
        struct fuse_open_in *o = (void *)body;
        fd = open(path_of(inode), open_flags(o->flags));
        if (fd < 0) return -errno;
        if (o->open_flags & FUSE_OPEN_KILL_SUIDGID) kill_privileges(fd);
        *opened = (struct fuse_open_out){.fh = fd, .open_flags = FOPEN_KEEP_CACHE};
        return sizeof *opened;
    }
    case FUSE_CREATE: {
        struct fuse_create_in *c = (void *)body;
        const char *name = body + sizeof *c;
        fd = openat(inode->fd, name, open_flags(c->flags) | O_CREAT | O_NOFOLLOW | (c->flags & O_EXCL), c->mode & ~c->umask);
        if (fd < 0) return -errno;
        error = made(inode, name, in, entry);
        if (error) { close(fd); return -error; }
        *(struct fuse_open_out *)(out + sizeof *entry) = (struct fuse_open_out){.fh = fd, .open_flags = FOPEN_KEEP_CACHE};
        return sizeof *entry + sizeof *opened;
    }
    case FUSE_READ: {
        struct fuse_read_in *r = (void *)body;
        count = pread(r->fh, out, r->size, r->offset);
        return count < 0 ? -errno : (int)count;
    }
    case FUSE_WRITE: {
        struct fuse_write_in *w = (void *)body;
        count = pwrite(w->fh, body + sizeof *w, w->size, w->offset);
        if (count < 0) return -errno;
        if (w->write_flags & FUSE_WRITE_KILL_SUIDGID) kill_privileges(w->fh);
        *(struct fuse_write_out *)out = (struct fuse_write_out){.size = count};
        return sizeof(struct fuse_write_out);
    }
    case FUSE_FLUSH: return 0;
    case FUSE_RELEASE: RETURN_0(close(((struct fuse_release_in *)body)->fh));
    case FUSE_FSYNC: {
        struct fuse_fsync_in *f = (void *)body;
        RETURN_0(f->fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(f->fh) : fsync(f->fh));
    }
    case FUSE_FALLOCATE: {
        struct fuse_fallocate_in *f = (void *)body;
        RETURN_0(fallocate(f->fh, f->mode, f->offset, f->length));
    }
    case FUSE_MKNOD: {
        struct fuse_mknod_in *m = (void *)body;
        if (mknodat(inode->fd, body + sizeof *m, m->mode & ~m->umask, m->rdev)) return -errno;
        RETURN_ENTRY(made(inode, body + sizeof *m, in, entry));
    }
    case FUSE_MKDIR: {
        struct fuse_mkdir_in *m = (void *)body;
        if (mkdirat(inode->fd, body + sizeof *m, m->mode & ~m->umask)) return -errno;
        RETURN_ENTRY(made(inode, body + sizeof *m, in, entry));
    }
    case FUSE_SYMLINK:
        if (symlinkat(body + strlen(body) + 1, inode->fd, body)) return -errno;
        RETURN_ENTRY(made(inode, body, in, entry));
    case FUSE_LINK: {
        struct fuse_link_in *l = (void *)body;
        if (linkat(AT_FDCWD, path_of(inode_of(l->oldnodeid)), inode->fd, body + sizeof *l, AT_SYMLINK_FOLLOW)) return -errno;
        RETURN_ENTRY(look_up(inode, body + sizeof *l, entry));
    }
    case FUSE_UNLINK: RETURN_0(unlinkat(inode->fd, body, 0));
    case FUSE_RMDIR: RETURN_0(unlinkat(inode->fd, body, AT_REMOVEDIR));
    case FUSE_RENAME: {
        struct fuse_rename_in *r = (void *)body;
        char *from = body + sizeof *r;
        RETURN_0(renameat(inode->fd, from, inode_of(r->newdir)->fd, from + strlen(from) + 1));
    }
    case FUSE_RENAME2: {
        struct fuse_rename2_in *r = (void *)body;
        char *from = body + sizeof *r;
        RETURN_0(renameat2(inode->fd, from, inode_of(r->newdir)->fd, from + strlen(from) + 1, r->flags));
    }
    case FUSE_OPENDIR: {
        fd = open(path_of(inode), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        if (!dir) return -errno;
        *opened = (struct fuse_open_out){.fh = (uintptr_t)dir, .open_flags = FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR};
        return sizeof *opened;
    }
    case FUSE_READDIR:
    case FUSE_READDIRPLUS: {
        struct fuse_read_in *r = (void *)body;
        return list((DIR *)(uintptr_t)r->fh, r, inode, in->opcode == FUSE_READDIRPLUS, out);
    }
    case FUSE_RELEASEDIR: RETURN_0(closedir((DIR *)(uintptr_t)((struct fuse_release_in *)body)->fh));
    case FUSE_FSYNCDIR: RETURN_0(fsync(dirfd((DIR *)(uintptr_t)((struct fuse_fsync_in *)body)->fh)));
    case FUSE_STATFS: {
        struct statvfs st;
        if (fstatvfs(inode->fd, &st)) return -errno;
        *(struct fuse_statfs_out *)out = (struct fuse_statfs_out){.st = {.blocks = st.f_blocks, .bfree = st.f_bfree, .bavail = st.f_bavail,
            .files = st.f_files, .ffree = st.f_ffree, .bsize = st.f_bsize, .namelen = st.f_namemax, .frsize = st.f_frsize}};
        return sizeof(struct fuse_statfs_out);
    }
    case FUSE_GETXATTR:
    case FUSE_LISTXATTR: {
        struct fuse_getxattr_in *g = (void *)body;
        char *into = g->size ? out : NULL;
        size_t room = g->size > MOST ? MOST : g->size;
        count = in->opcode == FUSE_LISTXATTR ? listxattr(path_of(inode), into, room)
                                             : getxattr(path_of(inode), body + sizeof *g, into, room);
        if (count < 0) return -errno;
        if (g->size) return count;
        *(struct fuse_getxattr_out *)out = (struct fuse_getxattr_out){.size = count};
        return sizeof(struct fuse_getxattr_out);
    }
    case FUSE_SETXATTR: {
        struct fuse_setxattr_in *s = (void *)body;
        char *name = body + FUSE_COMPAT_SETXATTR_IN_SIZE;
        RETURN_0(setxattr(path_of(inode), name, name + strlen(name) + 1, s->size, s->flags));
    }
    case FUSE_REMOVEXATTR: RETURN_0(removexattr(path_of(inode), body));
    default: return -ENOSYS;
    }
}

static void serve(void)
{
    for (;;) {
        ssize_t count = read(device, request, sizeof request);
        if (count < 0 && errno == ENODEV) return;       /* unmounted */
        if (count < (ssize_t)sizeof(struct fuse_in_header)) continue;       /* EINTR, ENOENT: was interrupted */
        struct fuse_in_header *in = (void *)request;
        char *body = request + sizeof *in;
        if (in->opcode == FUSE_INTERRUPT) continue;
        if (in->opcode == FUSE_FORGET) {
            forget(inode_of(in->nodeid), ((struct fuse_forget_in *)body)->nlookup);
            continue;
        }
        if (in->opcode == FUSE_BATCH_FORGET) {
            struct fuse_forget_one *one = (void *)(body + sizeof(struct fuse_batch_forget_in));
            for (uint32_t left = ((struct fuse_batch_forget_in *)body)->count; left; left--, one++) forget(inode_of(one->nodeid), one->nlookup);
            continue;
        }
        request[count] = 0;
        int result = handle(in, body, answer);
        int size = result < 0 ? 0 : result;
        struct fuse_out_header head = {.len = sizeof head + size, .error = result < 0 ? result : 0, .unique = in->unique};
        struct iovec parts[2] = {{&head, sizeof head}, {answer, size}};
        if (writev(device, parts, size ? 2 : 1) < 0 && errno != ENOENT) perror("passthrough: writev");
        if (in->opcode == FUSE_INIT) { puts("ready"); fflush(stdout); }
    }
}

int main(int argc, char **argv)
{
    char options[128];
    struct rlimit limit;
    if (argc != 3) return fprintf(stderr, "usage: passthrough BACKING MOUNTPOINT\n"), 2;
    umask(0);
    if (!getrlimit(RLIMIT_NOFILE, &limit)) { limit.rlim_cur = limit.rlim_max; setrlimit(RLIMIT_NOFILE, &limit); }
    root.fd = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
    device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (root.fd < 0 || device < 0) return perror("passthrough"), 1;
    snprintf(options, sizeof options, "fd=%d,rootmode=40755,user_id=0,group_id=0,allow_other,default_permissions", device);
    if (mount("bench", argv[2], "fuse.passthrough", MS_NOSUID | MS_NODEV, options)) return perror("passthrough: mount"), 1;
    serve();
    return 0;
}
