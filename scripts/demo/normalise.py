#!/usr/bin/env python3
"""Replaces what differs from run to run in the demo's transcript: ids, times, ports, sizes, paths.

Usage: normalise.py <TRANSCRIPT
"""
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
    (r"\b(br|ep|snap)-[a-z]+-[a-z]+-[a-z0-9]+", r"\1-ID"),
    (r'("project_id": )"[^"]*"', r'\1"ID"'),
    # The size of a snapshot is known some seconds after it was taken, and its line appears then.
    (r',\n *"full_size": \d+', ""),
    (r"\b(act-|ck-|run_)[0-9a-f]{16,}", r"\1ID"),
    (r'("lsn": )"[^"]*"', r'\1"LSN"'),
    (r'("lag_ms": )\d+', r"\1N"),
]


def normalise(text):
    for pattern, replacement in RULES:
        text = re.sub(pattern, replacement, text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


if __name__ == "__main__":
    if sys.argv[1:]:
        print(__doc__)
        sys.exit(sys.argv[1:] != ["--help"])
    sys.stdout.write(normalise(sys.stdin.read()))
