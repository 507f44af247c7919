"""Plain numbers as families of samples: the one room that knows how prometheus_client wants them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from relay.telemetry.histograms import Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = str | tuple[str, ...]
Values = float | Mapping[str, float] | Mapping[tuple[str, ...], float]


def gauge(name: str, text: str, values: Values, *labels: str) -> Metric:
    """What is so now: one value, or one for the values of each of the `labels`."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for of, value in _each(values):
        family.add_metric(of, value)
    return family


def counter(name: str, text: str, values: Values, *labels: str) -> Metric:
    """What only grows; `name` ends with `_total`."""
    family = CounterMetricFamily(name, text, labels=labels)
    for of, value in _each(values):
        family.add_metric(of, value)
    return family


def histogram(name: str, text: str, values: Histogram | Mapping[str, Histogram], *labels: str) -> Metric:
    """How values were distributed since the start."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for of, one in {"": values}.items() if isinstance(values, Histogram) else values.items():
        count, buckets = 0, []
        for bound, amount in zip((*one.bounds, math.inf), one.counts, strict=True):
            count += amount
            buckets.append(("+Inf" if bound == math.inf else repr(bound), count))
        family.add_metric((of,) if labels else (), buckets, one.total)
    return family


def _each(values: Values) -> Iterable[tuple[tuple[str, ...], float]]:
    if not isinstance(values, Mapping):
        return (((), values),)
    return [((of,) if isinstance(of, str) else of, value) for of, value in values.items()]


class Exposition:
    """What is scraped: the families of some collectors, and those of the process itself."""

    def __init__(self, *collectors: Collector) -> None:
        self.registry = CollectorRegistry()
        for one in collectors:
            self.registry.register(one)
        ProcessCollector(registry=self.registry)

    def text(self) -> bytes:
        """All samples of this moment, as `CONTENT_TYPE` says."""
        return generate_latest(self.registry)
