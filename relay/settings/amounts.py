"""Amounts as people write them, `10MiB` and `10 Mbit/s`, read and told: what is told can be read again. Pure."""

from __future__ import annotations

import re
from decimal import Decimal

KIB, MIB, GIB, TIB = (1024**power for power in (1, 2, 3, 4))
_SIZES = {
    "": 1, "b": 1, "byte": 1, "bytes": 1, "k": KIB, "kib": KIB, "m": MIB, "mib": MIB, "g": GIB, "gib": GIB, "tib": TIB,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
}  # fmt: skip
_BITS = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_AMOUNT = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,3})?)\s*([a-z]*)")
_TOLD_SIZES = (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB))
_TOLD_BITS = (("Gbit", 10**9), ("Mbit", 10**6), ("kbit", 10**3))


def size_of(value: object) -> int:
    """Bytes: a whole number, or a text such as `10MiB`. Raises ValueError."""
    number, unit = _read(value)
    if unit not in _SIZES:
        raise ValueError
    return _whole(number * _SIZES[unit])


def bandwidth_of(value: object) -> int:
    """Bytes a second: a whole number, or a text such as `10 Mbit/s` and `1MiB/s`. Raises ValueError."""
    number, unit = _read(value.strip().lower().removesuffix("/s") if isinstance(value, str) else value)
    if unit in _BITS:
        return _whole(number * _BITS[unit] / 8)
    if unit not in _SIZES:
        raise ValueError
    return _whole(number * _SIZES[unit])


def _read(value: object) -> tuple[Decimal, str]:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError
    found = _AMOUNT.fullmatch(str(value).strip().lower())
    if found is None:
        raise ValueError
    return Decimal(found[1]), found[2]


def _whole(number: Decimal) -> int:
    if number != int(number):
        raise ValueError
    return int(number)


def told_size(amount: int) -> str:
    """`10485760` is `10 MiB`, `1400` is `1400 bytes`."""
    for unit, one in _TOLD_SIZES:
        if amount and amount % one == 0:
            return f"{amount // one} {unit}"
    return "1 byte" if amount == 1 else f"{amount} bytes"


def told_bandwidth(amount: int) -> str:
    """`1250000` is `10 Mbit/s`, `1048576` is `1 MiB/s`, `1001` is `8008 bit/s`."""
    if amount and amount % KIB == 0 and amount % 1000:
        return f"{told_size(amount)}/s"
    for unit, one in _TOLD_BITS:
        if amount * 8 % one == 0:
            return f"{amount * 8 // one} {unit}/s"
    return f"{amount * 8} bit/s"
