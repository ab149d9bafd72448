"""Counts, latencies and loads, as Prometheus asks for them; every name begins with `listenai_`.

What connections do is counted by the observer; what others keep (sessions, places, queues, pools)
is read when somebody looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import attrs
from prometheus_client import (
    CollectorRegistry,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from listenai.observer import Observer
from listenai.telemetry.counting import PREFIX, CountingObserver

LAG = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)  # seconds

# Each counter's birth, as one more time series.  (The library's function has no types.)
disable_created_metrics()  # type: ignore[no-untyped-call]

Family = GaugeMetricFamily | CounterMetricFamily


class Metrics:
    """Everything that is counted, in a registry of its own."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._readings: dict[str, _Reading] = {}
        self._counts = counts = CountingObserver(self._registry)
        self._lag = Histogram(
            "loop_lag_seconds",
            "How late a task came to run.",
            namespace=PREFIX,
            buckets=LAG,
            registry=self._registry,
        )
        messages, sizes = "Wire messages.", "Bytes of wire messages."
        self.counter("messages", messages, lambda: counts.messages_in, direction="in")
        self.counter("messages", messages, lambda: counts.messages_out, direction="out")
        self.counter("message_bytes", sizes, lambda: counts.bytes_in, direction="in")
        self.counter("message_bytes", sizes, lambda: counts.bytes_out, direction="out")
        ProcessCollector(PREFIX, registry=self._registry)  # CPU, memory, files; Linux only

    @property
    def observer(self) -> Observer:
        """Counts what connections do."""
        return self._counts

    def gauge(self, name: str, about: str, read: Callable[[], float], **labels: str) -> None:
        """Shows a value kept elsewhere, read when somebody looks; `listenai_` goes before `name`.

        One name may be shown several times with other labels.  Raises ValueError for a name that
        is taken otherwise.
        """
        self._show(GaugeMetricFamily, name, about, read, labels)

    def counter(self, name: str, about: str, read: Callable[[], float], **labels: str) -> None:
        """Shows a count kept elsewhere, which never falls; `_total` goes behind `name`."""
        self._show(CounterMetricFamily, name, about, read, labels)

    def loop_lag(self, seconds: float) -> None:
        """A task came to run so late."""
        self._lag.observe(seconds)

    def render(self) -> bytes:
        """All of it as text, for `/metrics`."""
        return generate_latest(self._registry)

    def _show(
        self,
        family: Callable[..., Family],
        name: str,
        about: str,
        read: Callable[[], float],
        labels: Mapping[str, str],
    ) -> None:
        reading = self._readings.get(name)
        if reading is None:
            reading = _Reading(family, f"{PREFIX}_{name}", about, tuple(labels))
            self._registry.register(reading)
            self._readings[name] = reading
        reading.add(family, labels, read)


@attrs.frozen(eq=False)
class _Reading(Collector):
    """One metric that is kept elsewhere: how to read it, for each set of labels."""

    family: Callable[..., Family]
    name: str
    about: str
    labels: tuple[str, ...]
    reads: dict[tuple[str, ...], Callable[[], float]] = attrs.field(factory=dict)

    def add(
        self, family: Callable[..., Family], labels: Mapping[str, str], read: Callable[[], float]
    ) -> None:
        """One more set of labels."""
        values = tuple(labels.values())
        if (family, tuple(labels)) != (self.family, self.labels) or values in self.reads:
            shown = ", ".join(self.labels) or "no labels"
            raise ValueError(f"{self.name} is shown already, with {shown}; choose another name")
        self.reads[values] = read

    def describe(self) -> Iterable[Family]:
        """Its name, for the registry."""
        return [self.family(self.name, self.about)]

    def collect(self) -> Iterable[Family]:
        """Its values now."""
        found = self.family(self.name, self.about, labels=self.labels)
        for values, read in self.reads.items():
            found.add_metric(values, read())
        return [found]
