"""Plain numbers as text that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from relay.telemetry.families import Exposition, counter, gauge, histogram
from relay.telemetry.histograms import Histogram


class Some(Collector):
    def __init__(self, *families: Metric) -> None:
        self.families = families

    def collect(self) -> Iterator[Metric]:
        yield from self.families


def read(*families: Metric) -> dict[str, dict[str, float]]:
    """Samples of our own families: by name, by labels."""
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(Exposition(Some(*families)).text().decode()):
        for one in family.samples:
            if not one.name.startswith("process_"):
                labels = ",".join(f"{name}={value}" for name, value in one.labels.items())
                found.setdefault(one.name, {})[labels] = one.value
    return found


def test_gauges_and_counters() -> None:
    """One value, one for each label, one for each pair of labels; none is none."""
    pairs: dict[tuple[str, ...], float] = {("a", "b"): 3.0}
    assert read(
        gauge("now", "Now.", 1.5),
        gauge("absent", "Nothing.", {}),
        gauge("by", "By label.", {"a": 1.0, 'quote"d': 2.0}, "of"),
        counter("sum_total", "Sum.", pairs, "of", "and"),
    ) == {"now": {"": 1.5}, "by": {"of=a": 1, 'of=quote"d': 2}, "sum_total": {"and=b,of=a": 3}}


def test_a_histogram_counts_up() -> None:
    """Each bucket holds those below it as well; the last holds all."""
    one = Histogram((0.1, 1.0))
    for value in (0.1, 0.5, 0.5, 7.0):
        one.observe(value)
    told = read(histogram("took", "Took.", one), histogram("each", "Each.", {"read": one}, "operation"))
    assert told["took_bucket"] == {"le=0.1": 1, "le=1.0": 3, "le=+Inf": 4}
    assert (told["took_count"], told["took_sum"]) == ({"": 4}, {"": 8.1})
    assert told["each_bucket"]["le=1.0,operation=read"] == 3
    assert told["each_count"] == {"operation=read": 4}
