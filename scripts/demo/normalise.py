#!/usr/bin/env python3
"""Replaces what differs from run to run in the demo's transcript: ids, times, ports, sizes, paths. Filters stdin to stdout."""
import re
import sys

RULES = [
    (r"/tmp/ckpt-demo\.\w{6}", "/tmp/ckpt-demo.XXXXXX"),
    (r"(?m)^\$ \S+/checkpointfs ", "$ build/checkpointfs "),
    # ls -l: owner, group, size and date, with the padding that hangs on them.
    (r"(?m)^([-dl][-rwxsStT]{9}) +\d+ +\S+ +\S+ +\d+ +\w{3} +\d+ +[\d:]+ ", r"\1 1 USER GROUP SIZE DATE "),
    (r"(?m)^total \d+$", "total N"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?", "TIME"),
    (r"\d{4}-\d\d-\d\d", "DAY"),
    (r"(127\.0\.0\.1|localhost):\d+", r"\1:PORT"),
    (r"\b(br|ep|snap|op|proj|prj)-[a-z]+-[a-z]+-[a-z0-9]+", r"\1-ID"),
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "UUID"),
    (r"\b([a-z]+_)?(?=[0-9a-f]*[a-f])[0-9a-f]{16,}\b", r"\1HEX"),
    (r"\b[0-9A-F]+/[0-9A-F]{4,}\b", "LSN"),
    (r'("(?:lag_ms|full_size|logical_size|diff_size|size|bytes)": )\d+', r"\1N"),
]


def normalise(text):
    for pattern, replacement in RULES:
        text = re.sub(pattern, replacement, text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


if __name__ == "__main__":
    sys.stdout.write(normalise(sys.stdin.read()))
