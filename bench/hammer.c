/*
 * The inner loops of the bench in C, so that what is measured is the file system and not an interpreter.
 *
 * usage: hammer write FILE BLOCK COUNT seq|rand NOISE    pwrite of blocks out of the file NOISE, close included
 *        hammer read FILE BLOCK COUNT seq|rand           pread of the same blocks; "seq" starts again at the end
 *        hammer map FILE COUNT                           mmap, a byte of each page, munmap; so many times
 *        hammer stat FILE COUNT                          stat of one file
 *        hammer lookup DIR STEM FILES COUNT WANTED       access() of DIR/dN/STEMn, all files so many times; WANTED exist
 *        hammer create|unlink|open DIR STEM FILES SIZE   each of DIR/dN/STEMn: create, write SIZE bytes, close; ...
 *        hammer rename DIR STEM FILES NEW                STEMn becomes NEWn
 *
 * Prints the seconds that the loop took.  500 files are in a directory, which exists.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PER_DIRECTORY 500

static double started;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void require(int right, const char *what)
{
    if (right) return;
    perror(what);
    exit(1);
}

static void done(void) { printf("%.9f\n", now() - started); }

/* The n-th of COUNT (a power of two) block numbers, each of which comes once. */
static uint64_t block_of(uint64_t n, uint64_t count, int random)
{
    if (!random) return n % count;
    n = (n * 2862933555777941757ull + 3037000493ull) & (count - 1);
    return ((n ^ n >> 7) * 3935559000370003845ull) & (count - 1);
}

static void blocks(char **a, int writing)
{
    size_t block = strtoull(a[1], NULL, 10), most = 16 << 20;
    uint64_t count = strtoull(a[2], NULL, 10);
    int random = !strcmp(a[3], "rand");
    char *data = aligned_alloc(4096, most);
    struct stat st;
    if (writing) {
        int noise = open(a[4], O_RDONLY);
        require(noise >= 0 && read(noise, data, most) == (ssize_t)most, a[4]);
        close(noise);
    } else {
        memset(data, 0, most);
    }
    uint64_t parts = most / block;
    started = now();
    int fd = open(a[0], writing ? O_RDWR | O_CREAT : O_RDONLY, 0644);
    require(fd >= 0 && !fstat(fd, &st), a[0]);
    uint64_t in_file = writing ? count : (uint64_t)st.st_size / block;
    for (uint64_t n = 0; n < count; n++) {
        uint64_t at = block_of(n, in_file, random);
        ssize_t got = writing ? pwrite(fd, data + n % parts * block, block, at * block) : pread(fd, data, block, at * block);
        require(got == (ssize_t)block, a[0]);
    }
    require(!close(fd), a[0]);
    done();
}

static void map(char **a)
{
    struct stat st;
    int fd = open(a[0], O_RDONLY);
    require(fd >= 0 && !fstat(fd, &st), a[0]);
    volatile char sum = 0;
    started = now();
    for (long round = atol(a[1]); round; round--) {
        char *pages = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        require(pages != MAP_FAILED, a[0]);
        for (off_t at = 0; at < st.st_size; at += 4096) sum += pages[at];
        munmap(pages, st.st_size);
    }
    done();
}

static void stats(char **a)
{
    struct stat st;
    require(!stat(a[0], &st), a[0]);
    started = now();
    for (long left = atol(a[1]); left; left--) require(!stat(a[0], &st), a[0]);
    done();
}

static char *path(char *into, const char *top, const char *stem, long n)
{
    sprintf(into, "%s/d%ld/%s%ld", top, n / PER_DIRECTORY, stem, n);
    return into;
}

static long present(char **a, long files)
{
    char name[4096];
    long found = 0;
    for (long n = 0; n < files; n++) found += !access(path(name, a[0], a[1], n), F_OK);
    return found;
}

static void lookups(char **a)
{
    long files = atol(a[2]), wanted = atol(a[4]);
    require(present(a, files) == wanted, a[0]);
    started = now();
    for (long round = atol(a[3]); round; round--) require(present(a, files) == wanted, a[0]);
    done();
}

static void each(const char *what, char **a)
{
    static uint64_t data[1 << 17];
    char name[4096], other[4096];
    long files = atol(a[2]), size = atol(a[3]);
    require(size <= (long)sizeof data, "SIZE");
    for (size_t at = 0; at < sizeof data / sizeof *data; at++) data[at] = at * 2862933555777941757ull ^ at << 29 ^ at >> 3;
    started = now();
    for (long n = 0; n < files; n++) {
        path(name, a[0], a[1], n);
        if (*what == 'u') {
            require(!unlink(name), name);
        } else if (*what == 'r') {
            require(!rename(name, path(other, a[0], a[3], n)), name);
        } else {
            int fd = open(name, *what == 'c' ? O_WRONLY | O_CREAT | O_EXCL : O_RDONLY, 0644);
            require(fd >= 0, name);
            data[0] = n;
            if (*what == 'c' && size) require(write(fd, data, size) == size, name);
            require(!close(fd), name);
        }
    }
    done();
}

int main(int count, char **words)
{
    const char *what = count > 1 ? words[1] : "";
    char **a = words + 2;
    if (!strcmp(what, "write") && count == 7) blocks(a, 1);
    else if (!strcmp(what, "read") && count == 6) blocks(a, 0);
    else if (!strcmp(what, "map") && count == 4) map(a);
    else if (!strcmp(what, "stat") && count == 4) stats(a);
    else if (!strcmp(what, "lookup") && count == 7) lookups(a);
    else if ((!strcmp(what, "create") || !strcmp(what, "unlink") || !strcmp(what, "open") || !strcmp(what, "rename")) && count == 6)
        each(what, a);
    else return fprintf(stderr, "hammer: see its source for the usage\n"), 2;
    return 0;
}
