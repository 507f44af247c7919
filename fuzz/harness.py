"""What every target shares: rooms instrumented, seeds written, libFuzzer started. A target decides what must hold.

A target is `check(data)`: it returns, or raises whatever shows a defect. The corpus, grown over runs, is in
`.fuzz/TARGET/`; an input that broke something is written to `.fuzz/TARGET-crash-*`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import atheris

ROOT = Path(__file__).resolve().parents[1]
VECTORS = ROOT / "tests" / "wire" / "vectors"
FOUND = ROOT / ".fuzz"
MOST_BYTES = 4096


def vectors(name: str) -> Any:  # noqa: ANN401
    """A file of golden vectors."""
    return json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))


def unhex(value: str | list[Any]) -> bytes:
    """Bytes of a vector; what is repeated in it is shortened, since fuzzing wants small seeds."""
    if isinstance(value, str):
        return bytes.fromhex(value)
    return b"".join(
        bytes.fromhex(part) if isinstance(part, str) else bytes.fromhex(part["repeat"]) * min(part["times"], 64)
        for part in value
    )


def pieces(data: bytes) -> tuple[bytes, list[bytes]]:
    """(what the first byte leaves, the same cut into parts as the first byte says)."""
    if not data:
        return b"", [b""]
    size, rest = data[0] or 1, data[1:]
    return rest, [rest[at : at + size] for at in range(0, len(rest), size)] or [b""]


def run(name: str, check: Callable[[bytes], None], seeds: Iterable[bytes]) -> None:
    """Fuzzes `check`; libFuzzer's own options follow the command (`-max_total_time=60`). Does not return."""
    corpus = FOUND / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (corpus / hashlib.sha256(seed).hexdigest()[:24]).write_bytes(seed)
    for seed in seeds_of_old_faults(name):
        (corpus / hashlib.sha256(seed).hexdigest()[:24]).write_bytes(seed)
    prefix = os.fspath(FOUND / f"{name}-")
    options = [f"-artifact_prefix={prefix}", f"-max_len={MOST_BYTES}", "-timeout=10", "-rss_limit_mb=2048"]
    options += ["-verbosity=0", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, *sys.argv[1:], os.fspath(corpus)], check)
    atheris.Fuzz()


def seeds_of_old_faults(name: str) -> Iterable[bytes]:
    """Inputs that once broke this target: they are tried first, until the fault is mended."""
    return [path.read_bytes() for path in sorted(FOUND.glob(f"{name}-crash-*"))]
