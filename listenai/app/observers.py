"""Who watches the conversations: metrics, logs, health and, where configured, traces."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import attrs
import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from listenai import __version__
from listenai.app.guards import Guards
from listenai.config import Config
from listenai.conversation.dialogue import Engines
from listenai.engines.ears import SegmentingRecognizerFactory
from listenai.errors import ConfigurationError
from listenai.observer import Observer, Observers
from listenai.sessions.memory import MemorySessionStore
from listenai.telemetry.events_log import LoggingObserver
from listenai.telemetry.health import DEGRADED, OK, HealthObserver
from listenai.telemetry.logs import ThreadHandler
from listenai.telemetry.loop import watch_loop
from listenai.telemetry.metrics import Metrics


@attrs.frozen
class Watch:
    """What is known of a server while it runs."""

    observers: Observers
    metrics: Metrics
    health: HealthObserver
    began_at: float = attrs.field(factory=time.monotonic)

    def show_health(self, draining: trio.Event) -> Mapping[str, object]:
        """What `/health` answers."""
        services = dict(self.health.services)
        status = DEGRADED if DEGRADED in services.values() else OK
        return {
            "status": "draining" if draining.is_set() else status,
            "version": __version__,
            "uptime_seconds": round(time.monotonic() - self.began_at, 1),
            "services": services,
        }

    def metrics_route(self) -> Route:
        """`/metrics`, for Prometheus."""

        async def show(_request: Request) -> Response:
            content_type = {"Content-Type": self.metrics.content_type, "Cache-Control": "no-store"}
            return Response(self.metrics.render(), headers=content_type)

        return Route("/metrics", show)


@asynccontextmanager
async def open_watch(
    config: Config, engines: Engines, guards: Guards, sessions: MemorySessionStore
) -> AsyncIterator[Watch]:
    """Watches as long as the block runs; ConfigurationError where TRACING_URL needs an extra."""
    metrics, health = Metrics(), HealthObserver()
    show_kept(metrics, engines, guards, sessions)
    observers: list[Observer] = [LoggingObserver(), metrics.observer, health]
    tracing = None
    if config.tracing_url:
        try:
            # An extra, and half a second: only for those who want it.
            from listenai.telemetry import tracing as traces  # noqa: PLC0415
        except ImportError as error:
            problem = "TRACING_URL: traces need `pip install 'listenai[tracing]'`"
            raise ConfigurationError([problem]) from error
        tracing = traces.TracingObserver(traces.otlp_exporter(config.tracing_url))
        observers.append(tracing)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_loop, metrics.loop_lag)
        try:
            yield Watch(Observers(observers), metrics, health)
        finally:
            nursery.cancel_scope.cancel()
            if tracing:
                with trio.CancelScope(shield=True):  # bounded by itself
                    await trio.to_thread.run_sync(tracing.close)


def show_kept(
    metrics: Metrics, engines: Engines, guards: Guards, sessions: MemorySessionStore
) -> None:
    """Gauges and counts that others keep, read when somebody looks."""
    ears = engines.recognizers
    if isinstance(ears, SegmentingRecognizerFactory):
        cut = "Utterances that were too long for one piece."
        metrics.counter("recognizer_cut_takes", cut, lambda: ears.cut_takes)
    admission, places = guards.admission, guards.places
    for reason, read in {
        "full": lambda: admission.refused,
        "address": lambda: admission.refused_addresses,
        "key": lambda: guards.authentication.refused,
        "origin": lambda: guards.origins.refused,
    }.items():
        metrics.counter("connections_refused", "Connections refused.", read, reason=reason)
    metrics.gauge("connection_places", "Connections allowed.", lambda: admission.places)
    depth, dropped = "What waits.", "What was given up."
    metrics.gauge("queue_depth", depth, lambda: places.waiting, queue="turns")
    metrics.counter("queue_dropped", dropped, lambda: places.refused, queue="turns")
    metrics.counter("queue_dropped", dropped, _log_lines_dropped, queue="log")
    metrics.gauge("pool_in_use", "Places taken.", lambda: places.in_use, pool="turns")
    metrics.gauge("pool_size", "Places in all.", lambda: places.places, pool="turns")
    kept = sessions.backend
    metrics.gauge("sessions", "Sessions kept.", lambda: sessions.kept)
    metrics.counter("sessions_expired", "Sessions forgotten, unused.", lambda: kept.expired)
    metrics.counter("sessions_evicted", "Sessions that made room.", lambda: kept.evicted)
    metrics.counter("sessions_fenced", "Leases lost to a newer one.", lambda: kept.fenced)


def _log_lines_dropped() -> int:
    handlers = logging.getLogger().handlers
    return sum(each.dropped for each in handlers if isinstance(each, ThreadHandler))
