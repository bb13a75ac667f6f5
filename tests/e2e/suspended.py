"""A machine that is suspended, as its programs see it: CLOCK_BOOTTIME jumps, CLOCK_MONOTONIC doesn't. A library preloaded into them adds as
many seconds as a file has bytes."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from mount import BINARY

SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

int clock_gettime(clockid_t id, struct timespec *ts)
{
    int (*real)(clockid_t, struct timespec *) = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *file = getenv("SUSPENDED");
    struct stat st;
    int r = real(id, ts);

    if (r == 0 && id == CLOCK_BOOTTIME && file && stat(file, &st) == 0)
        ts->tv_sec += st.st_size;
    return r;
}
"""


class Machine:
    """`env` is for its programs."""

    def __enter__(self):
        if b"san.so" in subprocess.run(["ldd", BINARY], capture_output=True, check=True).stdout:
            pytest.skip("a sanitizer wants to be loaded first")
        self.base = tempfile.TemporaryDirectory(prefix="ckpt-machine-")
        library, self.file = Path(self.base.name) / "clock.so", Path(self.base.name) / "seconds"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, "-x", "c", "-"], input=SOURCE, text=True, check=True)
        self.file.touch()
        self.env = {"LD_PRELOAD": str(library), "SUSPENDED": str(self.file)}
        return self

    def __exit__(self, *exc):
        self.base.cleanup()

    def suspend(self, seconds=3600):
        os.truncate(self.file, self.file.stat().st_size + seconds)
