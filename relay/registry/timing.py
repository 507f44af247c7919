"""How long transactions take, and how many fail for the database's sake: what a node tells of its registry."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from relay.registry.errors import SchemaError, Unavailable
from relay.telemetry.histograms import Histogram

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Timing:
    """Of one kind of transactions, from the wait for their turn to their end."""

    def __init__(self) -> None:
        self.seconds = Histogram(SECONDS)
        self.errors = 0
        """Refusals are answers, and no errors."""

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Around one transaction."""
        began = time.perf_counter()
        try:
            yield
        except (Unavailable, SchemaError):
            self.errors += 1
            raise
        finally:
            self.seconds.observe(time.perf_counter() - began)
