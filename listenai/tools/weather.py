"""The weather of a city, from a service that speaks Open-Meteo's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import httpx

from listenai.errors import ToolError
from listenai.events import ToolSchema

GEOCODING_URL = "https://geocoding-api.open-meteo.com/v1/search"
FORECAST_URL = "https://api.open-meteo.com/v1/forecast"

MAX_CITY_CHARACTERS = 100
_DAYS = {"today": 0, "tomorrow": 1}

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
    """get_weather: today's or tomorrow's weather; the client's timeout is the tool's."""

    schema = ToolSchema(
        "get_weather",
        "Get weather information for a specified city, today or tomorrow.",
        {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "name of the city, e.g. London"},
                "when": {"type": "string", "enum": list(_DAYS), "default": "today"},
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    )

    def __init__(
        self,
        client: httpx.AsyncClient,
        geocoding_url: str = GEOCODING_URL,
        forecast_url: str = FORECAST_URL,
    ) -> None:
        self._client = client
        self._geocoding_url = geocoding_url
        self._forecast_url = forecast_url

    async def run(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """The weather: city, country, when, summary, low and high (and, today, now) in °C, rain %.

        Raises ToolError for a bad argument, an unknown city, or a service out of reach.
        """
        city, when = _read_arguments(arguments)
        place = await self._find(city)
        forecast = await self._get(
            self._forecast_url,
            {
                "latitude": place.latitude,
                "longitude": place.longitude,
                "current": "temperature_2m,weather_code",
                "daily": "weather_code,temperature_2m_max,temperature_2m_min,"
                "precipitation_probability_max",
                "timezone": "auto",
                "forecast_days": len(_DAYS),
            },
        )
        try:
            weather = _read_forecast(forecast, when)
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise ToolError("the weather service sent an answer I cannot read") from error
        return {"city": place.name, "country": place.country, "when": when, **weather}

    async def _find(self, city: str) -> _Place:
        found = await self._get(
            self._geocoding_url, {"name": city, "count": 1, "language": "en", "format": "json"}
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
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ToolError("the weather service sent an answer I cannot read") from error

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
        except httpx.HTTPError as error:
            raise ToolError("the weather service cannot be reached from here") from error
        except ValueError as error:
            raise ToolError("the weather service sent an answer I cannot read") from error
        if not isinstance(answer, dict):
            raise ToolError("the weather service sent an answer I cannot read")
        return answer


@attrs.frozen
class _Place:
    name: str
    country: str
    latitude: float
    longitude: float


def _read_arguments(arguments: Mapping[str, Any]) -> tuple[str, str]:
    city, when = arguments.get("city"), arguments.get("when") or "today"
    if not isinstance(city, str) or not city.strip():
        raise ToolError('get_weather needs "city", the name of a city')
    if len(city) > MAX_CITY_CHARACTERS:
        raise ToolError(f'the "city" of get_weather has at most {MAX_CITY_CHARACTERS} characters')
    if not isinstance(when, str) or when not in _DAYS:
        raise ToolError(f'the "when" of get_weather is "today" or "tomorrow", not {when!r}')
    return city.strip(), when


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
