"""The weather tool against a service that speaks Open-Meteo's protocol."""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx
import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from listenai.errors import ToolError
from listenai.tools.weather import MAX_PLACES, WeatherTool

LONDON = {"name": "London", "country": "United Kingdom", "latitude": 51.5, "longitude": -0.13}
FORECAST: Mapping[str, Any] = {
    "current": {"time": "2025-09-08T07:00", "temperature_2m": 11.6, "weather_code": 2},
    "daily": {
        "time": ["2025-09-08", "2025-09-09"],
        "weather_code": [3, 82],
        "temperature_2m_min": [7.2, -0.6],
        "temperature_2m_max": [13.9, 4.4],
        "precipitation_probability_max": [10, None],
    },
}
SEARCHED_BY = {"name", "count", "language", "format"}
FORECAST_BY = {"latitude", "longitude", "current", "daily", "temperature_unit", "timezone"}
FORECAST_BY |= {"forecast_days"}

Answer = Callable[[], Awaitable[Response]]


class OpenMeteo:
    """Knows London by some names; tells what it was not asked for, or cannot read, as it does.

    asked: the parameters of every request.  answer: in place of its forecast.
    """

    def __init__(self, answer: Answer | None = None, place: Any = LONDON) -> None:
        self._answer = answer
        self._place = place
        self.asked: list[dict[str, str]] = []
        routes = [Route("/search", self._search), Route("/forecast", self._forecast)]
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(Starlette(routes=routes)))

    def tool(self, **settings: Any) -> WeatherTool:
        urls = ("http://meteo.test/search", "http://meteo.test/forecast")
        return WeatherTool(self.client, *urls, **settings)

    async def _search(self, request: Request) -> Response:
        asked = self._note(request)
        if set(asked) != SEARCHED_BY:
            return refusal("unknown parameter")
        if asked["name"].lower() not in {"london", "伦敦"}:
            return JSONResponse({"generationtime_ms": 0.5})
        name = "伦敦" if asked["language"] == "zh" else self._place["name"]
        return JSONResponse({"results": [{**self._place, "name": name}], "generationtime_ms": 0.5})

    async def _forecast(self, request: Request) -> Response:
        asked = self._note(request)
        if not set(asked) <= FORECAST_BY:
            return refusal("unknown parameter")
        if self._answer:
            return await self._answer()
        warmer = 40 if asked["temperature_unit"] == "fahrenheit" else 0
        daily = FORECAST["daily"]
        told: dict[str, Any] = {
            "daily": {name: daily[name][: int(asked["forecast_days"])] for name in daily}
        }
        for name in ("temperature_2m_min", "temperature_2m_max"):
            told["daily"][name] = [degrees + warmer for degrees in told["daily"][name]]
        if "current" in asked:
            told["current"] = FORECAST["current"]
        return JSONResponse(told)

    def _note(self, request: Request) -> dict[str, str]:
        self.asked.append(dict(request.query_params))
        return self.asked[-1]


def refusal(reason: str) -> Response:
    return JSONResponse({"error": True, "reason": reason}, 400)


async def test_todays_weather() -> None:
    """The place is found, its forecast asked for, and both put together as JSON data."""
    service = OpenMeteo()
    weather = await service.tool().run({"city": " london "})
    assert weather == {
        "city": "London",
        "country": "United Kingdom",
        "when": "today",
        "temperature_unit": "celsius",
        "summary": "partly cloudy",
        "now": 12,
        "low": 7,
        "high": 14,
        "rain_percent": 10,
    }
    json.dumps(weather)
    assert service.asked[1]["latitude"] == "51.5"
    assert service.asked[1]["forecast_days"] == "1"


async def test_tomorrows_weather() -> None:
    """Without what is not known of tomorrow."""
    weather = await OpenMeteo().tool().run({"city": "London", "when": "tomorrow"})
    assert weather == {
        "city": "London",
        "country": "United Kingdom",
        "when": "tomorrow",
        "temperature_unit": "celsius",
        "summary": "rain showers",
        "low": -1,
        "high": 4,
    }


async def test_imperial_units() -> None:
    """The service converts, and the result says which unit it is in."""
    arguments = {"city": "London", "when": "tomorrow", "units": "imperial"}
    weather = await OpenMeteo().tool().run(arguments)
    assert (weather["low"], weather["temperature_unit"]) == (39, "fahrenheit")


async def test_places_are_named_in_the_language_spoken() -> None:
    """Which may change from one question to the next."""
    languages = iter(["zh", "en"])
    tool = OpenMeteo().tool(language=lambda: next(languages))
    assert (await tool.run({"city": "伦敦"}))["city"] == "伦敦"
    assert (await tool.run({"city": "伦敦"}))["city"] == "London"


async def test_a_place_is_searched_for_once() -> None:
    """The second question takes one request, until the place was forgotten for others."""
    service = OpenMeteo()
    tool = service.tool()
    for city in ("London", "LONDON", "london"):
        await tool.run({"city": city})
    assert [("name" in asked) for asked in service.asked] == [True, False, False, False]


async def test_the_places_remembered_are_bounded() -> None:
    """The one asked for longest ago is forgotten, and found again."""
    service, languages = OpenMeteo(), [f"{number}" for number in range(MAX_PLACES)]
    asked = iter(["en", *languages, "en"])
    tool = service.tool(language=lambda: next(asked))
    for _ in range(MAX_PLACES + 2):
        await tool.run({"city": "London"})
    searches = [request["language"] for request in service.asked if "name" in request]
    assert searches == ["en", *languages, "en"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, '"city", the name'),
        ({"city": "  "}, '"city", the name'),
        ({"city": 3}, '"city", the name'),
        ({"city": "x" * 101}, "at most 100 characters"),
        ({"city": "London", "when": "next week"}, '"today" or "tomorrow", not \'next week\''),
        ({"city": "London", "when": ["today"]}, '"today" or "tomorrow"'),
        ({"city": "London", "units": "kelvin"}, '"metric" or "imperial", not \'kelvin\''),
        ({"city": "Atlantis"}, "I do not know a city called Atlantis"),
    ],
)
async def test_arguments_that_cannot_work(arguments: Mapping[str, Any], message: str) -> None:
    """Are told to the chat model with what is allowed."""
    with pytest.raises(ToolError, match=message):
        await OpenMeteo().tool().run(arguments)


def answers(response: Response) -> Answer:
    async def answer() -> Response:
        return response

    return answer


def answers_with(**changed: Any) -> Answer:
    """A forecast in which some parts are others; as JSON, which Python reads generously."""
    return answers(Response(json.dumps({**FORECAST, **changed}), media_type="application/json"))


async def never() -> Response:
    await trio.sleep_forever()
    raise AssertionError


async def late() -> Response:
    raise httpx.ReadTimeout("nothing came")


CURRENT, DAILY = FORECAST["current"], FORECAST["daily"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (late, "takes too long"),
        (answers(Response(status_code=503)), "answered with error 503"),
        (answers(Response(status_code=302, headers={"location": "/"})), "answered with error 302"),
        (answers(refusal("Latitude must be in range of -90 to 90°.")), "answered with error 400"),
        (answers(PlainTextResponse("<html>")), "an answer I cannot read"),
        (answers(PlainTextResponse("[" * 100_000)), "an answer I cannot read"),
        (answers(Response(b"{", headers={"content-encoding": "gzip"})), "an answer I cannot read"),
        (answers(JSONResponse([1])), "an answer I cannot read"),
        (answers_with(daily={}), "an answer I cannot read"),
        (answers_with(daily={**DAILY, "weather_code": []}), "an answer I cannot read"),
        (answers_with(daily={**DAILY, "weather_code": [-1]}), "an answer I cannot read"),
        (answers_with(current={**CURRENT, "temperature_2m": None}), "an answer I cannot read"),
        (answers_with(current={**CURRENT, "temperature_2m": float("inf")}), "I cannot read"),
        (answers_with(current={**CURRENT, "temperature_2m": float("nan")}), "I cannot read"),
    ],
)
async def test_a_service_in_trouble(answer: Answer, message: str) -> None:
    """Gives words that the assistant can say, not an exception of a library."""
    with pytest.raises(ToolError, match=message):
        await OpenMeteo(answer).tool().run({"city": "London"})


@pytest.mark.parametrize("place", [{"name": "London"}, {**LONDON, "latitude": "north"}])
async def test_a_place_that_is_nowhere(place: Any) -> None:
    """Is an answer that cannot be read either."""
    with pytest.raises(ToolError, match="an answer I cannot read"):
        await OpenMeteo(place=place).tool().run({"city": "London"})


async def test_a_service_that_never_answers(autojump_clock: trio.testing.MockClock) -> None:
    """Is given its time for both requests together, whatever the client allows for each."""
    tool = OpenMeteo(never).tool(service_seconds=7)
    with pytest.raises(ToolError, match="takes too long"):
        await tool.run({"city": "London"})
    assert trio.current_time() == pytest.approx(7)


async def test_without_a_network() -> None:
    """Here a port of this machine on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        async with httpx.AsyncClient(trust_env=False) as client:
            with pytest.raises(ToolError, match="cannot be reached from here"):
                await WeatherTool(client, url, url).run({"city": "London"})
