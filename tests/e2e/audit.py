"""The audit log of a mount, verified as whoever gets a copy does it: with scripts/verify-audit and nothing but the copy."""

import importlib.machinery
import importlib.util
import io
import json
import os

from mount import ROOT

SCRIPT = ROOT / "scripts" / "verify-audit"
_loader = importlib.machinery.SourceFileLoader("verify_audit_script", str(SCRIPT))
script = importlib.util.module_from_spec(importlib.util.spec_from_loader("verify_audit_script", _loader))
_loader.exec_module(script)


def copies(mount, most=None):
    """metrics, and then events.jsonl and every history.jsonl (at most so many), as bytes by their paths."""
    metrics = (mount / ".control/metrics").read_bytes()
    if b"checkpointfs_store_up 1\n" not in metrics:
        raise ConnectionError("the store is away")
    logs = {".control/events.jsonl": (mount / ".control/events.jsonl").read_bytes()}
    for name in os.listdir(mount.root)[:most]:
        if name.startswith(".") or name == "latest" or not (mount / name).is_dir():
            continue
        try:
            logs[f"{name}/history.jsonl"] = (mount / f"{name}/history.jsonl").read_bytes()
        except FileNotFoundError:
            pass  # deleted meanwhile
    return metrics, logs


def wrong_with(data, name="copy", **known):
    """What verify-audit says of a log's bytes; None = it holds."""
    try:
        script.check(io.BytesIO(data), name, **known)
    except script.Wrong as e:
        return str(e)
    return None


def verify_audit(mount, last=False, most=None):
    """Copies the whole audit log of a mount and verifies it against the heads that .control/metrics tells. `last`: nothing is under way,
    so that the heads are the last lines. `most`: no more histories than so many. Returns how many lines events.jsonl has."""
    metrics, logs = copies(mount, most)
    heads = script.heads_in(metrics)
    known = {head.get("checkpoint") for head in heads}
    for path, data in logs.items():
        # a checkpoint that came after the metrics were read has no head in them
        new = not last and path.endswith("history.jsonl") and (not data or json.loads(data.partition(b"\n")[0])["checkpoint"] not in known)
        said = wrong_with(data, path) if new else wrong_with(data, path, heads=heads, last=last)
        assert said is None, f"{path}: {said}\n{data[-3000:].decode(errors='replace')}"
    return logs[".control/events.jsonl"].count(b"\n")
