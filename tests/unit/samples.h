/* The real saved states that tests read: copies in tests/data, and the big ones in $SAMPLES (../shared/samples), if there. */
#ifndef TESTS_UNIT_SAMPLES_H
#define TESTS_UNIT_SAMPLES_H

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "util/buf.h"
#include "util/cleanup.h"
#include "util/text.h"

static inline const char *samples_dir(void)
{
    const char *dir = getenv("TESTS_DATA");

    return dir ? dir : "tests/data";
}

static inline void read_file(const char *dir, const char *name, struct buf *ret)
{
    cleanup_free char *path = str_format("%s/%s", dir, name);
    FILE *f = fopen(path, "rb");
    size_t n;

    if (!f)
        fail_msg("can't open %s", path);
    while ((n = fread(buf_room(ret, 65536), 1, 65536, f)) > 0)
        buf_grown(ret, n);
    fclose(f);
    assert_int_equal(buf_error(ret), 0);
}

static inline void read_sample(const char *name, struct buf *ret)
{
    read_file(samples_dir(), name, ret);
}

typedef void sample_fn(const char *name, const char *bytes, size_t n);

/* Calls `fn` for every file of the directory; returns how many there were. */
static inline size_t each_sample_in(const char *dir, sample_fn *fn)
{
    DIR *d = opendir(dir);
    struct dirent *entry;
    size_t count = 0;

    while (d && (entry = readdir(d))) {
        cleanup_buf struct buf bytes = {0};
        if (entry->d_name[0] == '.')
            continue;
        read_file(dir, entry->d_name, &bytes);
        fn(entry->d_name, bytes.data, bytes.len);
        count++;
    }
    if (d)
        closedir(d);
    return count;
}

static inline void each_sample(sample_fn *fn)
{
    const char *more = getenv("SAMPLES");

    assert_true(each_sample_in(samples_dir(), fn) >= 25);
    each_sample_in(more ? more : "../shared/samples", fn);
}

/* Numbers that look random and are the same in every run (xorshift64). */
static inline uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

#endif
