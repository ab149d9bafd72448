"""The dashboard asks for what is there, and for all of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fakes import fake_engines
from prometheus_client.parser import text_string_to_metric_families

from listenai.app import make_guards, make_sessions
from listenai.app.observers import show_kept
from listenai.config import Config
from listenai.effects import Effects
from listenai.engines.ears import SegmentingRecognizerFactory
from listenai.engines.ten_vad import TenVadDetector
from listenai.engines.timed import TimedTranscriber
from listenai.telemetry.metrics import Metrics

DASHBOARD = Path(__file__).parents[2] / "scripts" / "grafana" / "listenai.json"


def server_metrics() -> Metrics:
    """All that a server shows."""
    metrics, config = Metrics(), Config()
    ears = SegmentingRecognizerFactory(TenVadDetector, TimedTranscriber())
    sessions = make_sessions(config, Effects())
    show_kept(metrics, fake_engines(recognizers=ears), make_guards(config), sessions)
    return metrics


def shown_names() -> set[str]:
    """The metrics of a server, as a query names them; of histograms the buckets."""
    names = set()
    for family in text_string_to_metric_families(server_metrics().render().decode()):
        suffix = {"counter": "_total", "histogram": "_bucket"}.get(family.type, "")
        names.add(family.name + suffix)
    return names


def panels() -> list[dict[str, Any]]:
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]


def queries() -> Iterator[str]:
    for panel in panels():
        yield from (target["expr"] for target in panel.get("targets", ()))


def test_the_dashboard_asks_for_every_metric_and_for_no_other():
    """A metric that is renamed, added or removed is noticed here."""
    asked = {name for query in queries() for name in re.findall(r"\blistenai_\w+", query)}
    assert asked == shown_names()


def test_each_query_is_of_the_chosen_server_and_well_formed():
    """Counters as rates, histograms as quantiles; parentheses close."""
    for query in queries():
        assert '{instance=~"$instance"' in query
        for opening, closing in ("()", "{}", "[]"):
            assert query.count(opening) == query.count(closing), query
        if re.search(r"_(total|bucket)\b", query):
            assert re.search(r"\b(rate|increase)\(", query), query
        if "_bucket" in query:
            assert re.match(r"histogram_quantile\(0\.\d+, sum by \(le[,)]", query), query


def test_panels_have_places_and_say_what_they_show():
    """Ids are unique, none overlaps another."""
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["description"]
