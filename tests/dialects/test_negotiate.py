"""Choosing the dialect by path and first message."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listenai.device import DeviceProfile
from listenai.dialects.base import Dialect
from listenai.dialects.listenai import ListenAIDialect
from listenai.dialects.negotiate import (
    MAX_CLAIMED_CHARACTERS,
    DialectRow,
    Negotiator,
    Stranger,
    opening_of,
)

LISTENAI = DialectRow("ListenAI", ("/", "/listenai", "/ws"), ListenAIDialect)


class HotpinDialect(ListenAIDialect):
    """Told from ListenAI by its class alone."""


class PromptDialect(ListenAIDialect):
    """Told from ListenAI by its class alone."""


HOTPIN = DialectRow(
    "Hotpin",
    ("/hotpin", "/ws"),
    HotpinDialect,
    lambda opening: "session_id" in opening and "type" not in opening,
)
PROMPT = DialectRow(
    "Prompt Voice", ("/ws2", "/ws"), PromptDialect, lambda opening: opening.get("type") == "start"
)
SHARED = Negotiator([HOTPIN, LISTENAI, PROMPT])


@pytest.mark.parametrize("path", ["/", "/listenai", "/ws", "/ws?key=a%20b", "/?"])
def test_listenai_alone_is_spoken_on_its_paths(path: str) -> None:
    """Its three paths, with any query, whatever the first message is."""
    negotiator = Negotiator([LISTENAI])
    assert negotiator.refuse(path) is None
    for first in ("", "{}", '{"session_id":"a"}', b"\0\0"):
        assert type(negotiator.row_for(path, first).make()) is ListenAIDialect


@pytest.mark.parametrize("path", ["", "/ws3", "/ws/", "//", "ws", "/listenai/..", "?/ws", "/WS"])
def test_an_unknown_path_is_refused_with_the_known_ones(path: str) -> None:
    """The reason lists every path and who is there."""
    reason = SHARED.refuse(path)
    assert reason is not None
    for known in (
        "/ (ListenAI)",
        "/listenai (ListenAI)",
        "/ws (Hotpin or ListenAI or Prompt Voice)",
        "/hotpin (Hotpin)",
        "/ws2 (Prompt Voice)",
    ):
        assert known in reason
    with pytest.raises(ValueError, match="unknown path"):
        SHARED.row_for(path, "{}").make()


def test_a_long_path_makes_a_short_reason() -> None:
    """The reason goes into a response head."""
    reason = SHARED.refuse("/" + "a" * 10_000 + "\r\nSet-Cookie: a=b")
    assert reason is not None
    assert len(reason) < 400
    assert "\n" not in reason


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        ('{"session_id":"a"}', HotpinDialect),
        ('{"session_id":"a","api_key":"b"}', HotpinDialect),
        ('{"type":"start","sample_rate":16000}', PromptDialect),
        ('{"type":"start_session","session_id":"a"}', ListenAIDialect),
        ('{"type":"ping"}', ListenAIDialect),
        ("{}", ListenAIDialect),
        (b"\0\0", ListenAIDialect),
        (b'{"session_id":"a"}', ListenAIDialect),
        ("", ListenAIDialect),
        ("hello", ListenAIDialect),
        ('["session_id"]', ListenAIDialect),
        ('"session_id"', ListenAIDialect),
        ("[" * MAX_CLAIMED_CHARACTERS, ListenAIDialect),
        ('{"session_id":' * 4000, ListenAIDialect),
        ('{"session_id":' + "9" * 5000 + "}", ListenAIDialect),
        ('{"session_id":"\ud800"}', HotpinDialect),
        ('{"session_id":"' + "a" * MAX_CLAIMED_CHARACTERS + '"}', ListenAIDialect),
    ],
    ids=lambda value: str(value)[:40],
)
def test_on_a_shared_path_the_first_message_decides(
    first: str | bytes, kind: type[Dialect]
) -> None:
    """Who claims it gets it, and ListenAI what nobody claims."""
    assert type(SHARED.row_for("/ws", first).make()) is kind
    assert type(SHARED.row_for("/ws?a=b", first).make()) is kind


def test_a_path_of_its_own_needs_no_claim() -> None:
    """On /hotpin everything is Hotpin, right or wrong."""
    for first in ("", b"", '{"type":"start"}'):
        assert type(SHARED.row_for("/hotpin", first).make()) is HotpinDialect
        assert type(SHARED.row_for("/ws2", first).make()) is PromptDialect


def test_every_connection_has_a_dialect_of_its_own() -> None:
    """What one device said is nothing to another."""
    profile = DeviceProfile(history_messages=3)
    row = DialectRow("ListenAI", ("/",), lambda: ListenAIDialect(profile))
    negotiator = Negotiator([row])
    first, second = negotiator.row_for("/", "").make(), negotiator.row_for("/", "").make()
    assert first is not second
    assert first.profile is second.profile is profile


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ([LISTENAI, LISTENAI], "exactly one"),
        ([HOTPIN, PROMPT], "exactly one"),
        ([DialectRow("a", ("ws",), ListenAIDialect)], "begin with '/'"),
        ([DialectRow("a", ("/ws?a",), ListenAIDialect)], "query"),
    ],
)
def test_a_table_that_leaves_a_doubt_is_refused(table: list[DialectRow], words: str) -> None:
    """When the server starts, not when a device comes."""
    with pytest.raises(ValueError, match=words):
        Negotiator(table)


JSONISH = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["session_id", "type"]) | st.text(max_size=3), inner)
    ),
    max_leaves=5,
)


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(st.text() | st.binary() | JSONISH.map(json.dumps))
def test_there_is_a_dialect_for_every_first_message(first: Any) -> None:
    """Nothing is raised, and nobody gets what it does not claim."""
    dialect = SHARED.row_for("/ws", first).make()
    if isinstance(dialect, HotpinDialect):
        opening = json.loads(first)
        assert "session_id" in opening
        assert "type" not in opening


# --- keys ------------------------------------------------------------------------------------


def test_a_dialect_may_ask_for_a_key_itself() -> None:
    """On its paths a handshake needs none; afterwards its row tells whether it has asked."""
    asking = attrs.evolve(HOTPIN, identify=lambda _opening, _owner, _peer: Stranger("who?"))
    negotiator = Negotiator([asking, LISTENAI, PROMPT])
    for path in ("/hotpin", "/ws", "/ws?a=b"):
        assert negotiator.authenticates_in_band(path)
    for path in ("/", "/ws2", "/listenai", "/nowhere"):
        assert not negotiator.authenticates_in_band(path)
    assert not any(map(SHARED.authenticates_in_band, SHARED.dialects))
    assert negotiator.row_for("/ws", '{"session_id":"a"}') is asking
    assert negotiator.row_for("/ws", '{"type":"ping"}') is LISTENAI


def test_half_of_a_surrogate_pair_is_no_opening() -> None:
    """It is no text: nothing could be made of it but a mistake in front of who asks for keys."""
    assert opening_of('{"session_id":"a","api_key":"\\ud800"}') is None
    assert opening_of('{"session_id":"\\ud83d\\ude00"}') == {"session_id": "\U0001f600"}
