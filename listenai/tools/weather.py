"""The weather of a city, from a service that speaks Open-Meteo's protocol."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import httpx
import trio

from listenai.errors import ToolError
from listenai.events import ToolSchema
from listenai.tools.base import ToolTraits

GEOCODING_URL = "https://geocoding-api.open-meteo.com/v1/search"
FORECAST_URL = "https://api.open-meteo.com/v1/forecast"

SERVICE_SECONDS = 10.0  # for place and forecast together; a user waits no longer in silence
MAX_CITY_CHARACTERS = 100
MAX_PLACES = 32  # remembered: cities do not move, and a user asks for the same ones
_DAYS = {"today": 0, "tomorrow": 1}
# What the tool calls units, and what the service calls the unit of its temperatures.
_UNITS = {"metric": "celsius", "imperial": "fahrenheit"}
# A service may answer anything at all.
_UNREADABLE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)

# WMO weather interpretation codes, as Open-Meteo documents them; a code means what the
# nearest one at or below it means.
_SKY = {
    0: "clear sky",
    1: "mostly clear",
    2: "partly cloudy",
    3: "overcast",
    45: "fog",
    51: "drizzle",
    56: "freezing drizzle",
    61: "light rain",
    63: "rain",
    65: "heavy rain",
    66: "freezing rain",
    71: "light snow",
    73: "snow",
    75: "heavy snow",
    80: "rain showers",
    85: "snow showers",
    95: "thunderstorms",
}


class WeatherTool:
    """get_weather: today's or tomorrow's weather.

    language: tells the code (ISO 639-1) of the language in which places are to be named.
    service_seconds: how long its two requests may take together.
    """

    schema = ToolSchema(
        "get_weather",
        "Get weather information for a specified city, today or tomorrow.",
        {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "name of the city, e.g. London"},
                "when": {"type": "string", "enum": list(_DAYS), "default": "today"},
                "units": {
                    "type": "string",
                    "enum": list(_UNITS),
                    "default": "metric",
                    "description": "imperial only for a user who thinks in Fahrenheit",
                },
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    )
    traits = ToolTraits()

    def __init__(
        self,
        client: httpx.AsyncClient,
        geocoding_url: str = GEOCODING_URL,
        forecast_url: str = FORECAST_URL,
        language: Callable[[], str] = lambda: "en",
        service_seconds: float = SERVICE_SECONDS,
    ) -> None:
        self._client = client
        self._geocoding_url = geocoding_url
        self._forecast_url = forecast_url
        self._language = language
        self._service_seconds = service_seconds
        self._places: OrderedDict[tuple[str, str], _Place] = OrderedDict()

    async def run(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """The weather: city, country, when, temperature_unit (celsius or fahrenheit), summary, low
        and high (and, today, now) in that unit, and rain_percent where it is known.

        Raises ToolError for a bad argument, an unknown city, or a service in trouble.
        """
        city, when, unit = _read_arguments(arguments)
        try:
            with trio.fail_after(self._service_seconds):
                place = await self._find(city)
                forecast = await self._forecast(place, when, unit)
        except trio.TooSlowError as error:
            raise ToolError("the weather service takes too long to answer") from error
        try:
            weather = _read_forecast(forecast, when)
        except _UNREADABLE as error:
            raise ToolError("the weather service sent an answer I cannot read") from error
        where = {"city": place.name, "country": place.country}
        return {**where, "when": when, "temperature_unit": unit, **weather}

    async def _find(self, city: str) -> _Place:
        """The best known place of that name, which is asked for once."""
        language = self._language()
        asked = city.casefold(), language
        if asked not in self._places:
            self._places[asked] = await self._search(city, language)
        self._places.move_to_end(asked)
        place = self._places[asked]
        if len(self._places) > MAX_PLACES:
            self._places.popitem(last=False)
        return place

    async def _search(self, city: str, language: str) -> _Place:
        found = await self._get(
            self._geocoding_url,
            {"name": city, "count": 1, "language": language, "format": "json"},
        )
        try:
            places = found.get("results") or []
            if not places:
                raise ToolError(f"I do not know a city called {city}")
            first = places[0]
            return _Place(
                str(first["name"]),
                str(first.get("country", "")),
                float(first["latitude"]),
                float(first["longitude"]),
            )
        except _UNREADABLE as error:
            raise ToolError("the weather service sent an answer I cannot read") from error

    async def _forecast(self, place: _Place, when: str, unit: str) -> dict[str, Any]:
        asked = {
            "latitude": place.latitude,
            "longitude": place.longitude,
            "daily": "weather_code,temperature_2m_max,temperature_2m_min,"
            "precipitation_probability_max",
            "temperature_unit": unit,
            "timezone": "auto",
            "forecast_days": _DAYS[when] + 1,
        }
        if when == "today":
            asked["current"] = "temperature_2m,weather_code"
        return await self._get(self._forecast_url, asked)

    async def _get(self, url: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        try:
            response = await self._client.get(url, params=dict(parameters))
            response.raise_for_status()
            answer = response.json()
        except httpx.TimeoutException as error:
            raise ToolError("the weather service takes too long to answer") from error
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            raise ToolError(f"the weather service answered with error {status}") from error
        except (httpx.DecodingError, ValueError, RecursionError) as error:
            raise ToolError("the weather service sent an answer I cannot read") from error
        except httpx.HTTPError as error:
            raise ToolError("the weather service cannot be reached from here") from error
        if not isinstance(answer, dict):
            raise ToolError("the weather service sent an answer I cannot read")
        return answer


@attrs.frozen
class _Place:
    name: str
    country: str
    latitude: float
    longitude: float


def _read_arguments(arguments: Mapping[str, Any]) -> tuple[str, str, str]:
    """City, day, and unit of temperature."""
    city = arguments.get("city")
    if not isinstance(city, str) or not city.strip():
        raise ToolError('get_weather needs "city", the name of a city')
    if len(city) > MAX_CITY_CHARACTERS:
        raise ToolError(f'the "city" of get_weather has at most {MAX_CITY_CHARACTERS} characters')
    when = _choice(arguments, "when", list(_DAYS))
    return city.strip(), when, _UNITS[_choice(arguments, "units", list(_UNITS))]


def _choice(arguments: Mapping[str, Any], name: str, choices: list[str]) -> str:
    """One of the choices; the first, if none was made."""
    chosen = arguments.get(name) or choices[0]
    if chosen not in choices:
        allowed = " or ".join(f'"{choice}"' for choice in choices)
        raise ToolError(f'the "{name}" of get_weather is {allowed}, not {chosen!r}')
    return str(chosen)


def _read_forecast(forecast: Mapping[str, Any], when: str) -> dict[str, Any]:
    day, daily = _DAYS[when], forecast["daily"]
    weather: dict[str, Any] = {
        "summary": _sky(daily["weather_code"][day]),
        "low": round(daily["temperature_2m_min"][day]),
        "high": round(daily["temperature_2m_max"][day]),
    }
    if (rain := daily["precipitation_probability_max"][day]) is not None:
        weather["rain_percent"] = round(rain)
    if when == "today":
        weather["now"] = round(forecast["current"]["temperature_2m"])
        weather["summary"] = _sky(forecast["current"]["weather_code"])
    return weather


def _sky(code: int) -> str:
    return _SKY[max(known for known in _SKY if known <= code)]
