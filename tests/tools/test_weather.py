"""The weather tool against a service that speaks Open-Meteo's protocol."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from listenai.errors import ToolError
from listenai.tools.weather import WeatherTool

LONDON = {"name": "London", "country": "United Kingdom", "latitude": 51.5, "longitude": -0.13}
FORECAST: Mapping[str, Any] = {
    "current": {"temperature_2m": 11.6, "weather_code": 2},
    "daily": {
        "weather_code": [3, 82],
        "temperature_2m_min": [7.2, -0.6],
        "temperature_2m_max": [13.9, 4.4],
        "precipitation_probability_max": [10, None],
    },
}


class OpenMeteo:
    """Knows London; remembers what it was asked; `answer` replaces its forecast."""

    def __init__(self, answer: Callable[[], httpx.Response] | None = None) -> None:
        self._answer = answer
        self.asked: list[httpx.URL] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url)
        if request.url.path == "/search":
            known = request.url.params["name"].lower() == "london"
            return httpx.Response(200, json={"results": [LONDON]} if known else {})
        return self._answer() if self._answer else httpx.Response(200, json=FORECAST)


@asynccontextmanager
async def weather_tool(service: OpenMeteo) -> AsyncIterator[WeatherTool]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(service)) as client:
        yield WeatherTool(client, "http://meteo.test/search", "http://meteo.test/forecast")


async def test_todays_weather() -> None:
    """The place is found, its forecast asked for, and both put together as JSON data."""
    service = OpenMeteo()
    async with weather_tool(service) as tool:
        weather = await tool.run({"city": " london "})
    assert weather == {
        "city": "London",
        "country": "United Kingdom",
        "when": "today",
        "summary": "partly cloudy",
        "now": 12,
        "low": 7,
        "high": 14,
        "rain_percent": 10,
    }
    json.dumps(weather)
    assert service.asked[1].params["latitude"] == "51.5"
    assert service.asked[1].params["forecast_days"] == "2"


async def test_tomorrows_weather() -> None:
    """Without what is not known of tomorrow."""
    async with weather_tool(OpenMeteo()) as tool:
        weather = await tool.run({"city": "London", "when": "tomorrow"})
    assert weather == {
        "city": "London",
        "country": "United Kingdom",
        "when": "tomorrow",
        "summary": "rain showers",
        "low": -1,
        "high": 4,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, '"city", the name'),
        ({"city": "  "}, '"city", the name'),
        ({"city": 3}, '"city", the name'),
        ({"city": "x" * 101}, "at most 100 characters"),
        ({"city": "London", "when": "next week"}, '"today" or "tomorrow", not \'next week\''),
        ({"city": "London", "when": ["today"]}, '"today" or "tomorrow"'),
        ({"city": "Atlantis"}, "I do not know a city called Atlantis"),
    ],
)
async def test_arguments_that_cannot_work(arguments: Mapping[str, Any], message: str) -> None:
    """Are told to the chat model with what is allowed."""
    async with weather_tool(OpenMeteo()) as tool:
        with pytest.raises(ToolError, match=message):
            await tool.run(arguments)


def refuse() -> httpx.Response:
    raise httpx.ConnectError("connection refused")


def stall() -> httpx.Response:
    raise httpx.ReadTimeout("nothing came")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (refuse, "cannot be reached"),
        (stall, "takes too long"),
        (lambda: httpx.Response(503), "answered with error 503"),
        (lambda: httpx.Response(200, text="<html>"), "an answer I cannot read"),
        (lambda: httpx.Response(200, json=[1]), "an answer I cannot read"),
        (lambda: httpx.Response(200, json={"daily": {}}), "an answer I cannot read"),
        (
            lambda: httpx.Response(200, json={**FORECAST, "current": {"temperature_2m": None}}),
            "an answer I cannot read",
        ),
    ],
)
async def test_a_service_in_trouble(answer: Callable[[], httpx.Response], message: str) -> None:
    """Gives words that the assistant can say, not an exception of a library."""
    async with weather_tool(OpenMeteo(answer)) as tool:
        with pytest.raises(ToolError, match=message):
            await tool.run({"city": "London"})
