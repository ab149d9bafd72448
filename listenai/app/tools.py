"""The tools of a server and of its conversations.

Three registries stand one before the other: a conversation's own (they know its language,
volume and music), those that MCP servers lend, and the server's, which `/mcp` offers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import attrs
import httpx
import trio

from listenai.config import Config
from listenai.conversation.music_player import MusicPlayer
from listenai.sessions.base import Session
from listenai.tools.base import ArgumentChecker, ToolRegistry
from listenai.tools.entry_points import load_custom_tools
from listenai.tools.mcp import lend_tools
from listenai.tools.mcp_servers import McpServer, read_mcp_servers
from listenai.tools.music import MusicTool
from listenai.tools.volume import VolumeTool
from listenai.tools.weather import FORECAST_URL, GEOCODING_URL, WeatherTool

OUR_OWN = ("get_weather", "set_volume", "play_music")


@attrs.frozen
class ServerTools:
    """What every conversation's tools are made of."""

    own: ToolRegistry
    lent: ToolRegistry
    mcp_servers: Sequence[McpServer]
    make_weather: Callable[..., WeatherTool]
    checker: ArgumentChecker

    def of(self, session: Session, music: MusicPlayer) -> ToolRegistry:
        """The tools of one conversation."""

        def apply_volume(percent: int) -> None:
            session.volume = percent

        registry = ToolRegistry(self.lent)
        registry.register(self.make_weather(language=lambda: session.configuration.language))
        registry.register(VolumeTool(lambda: session.volume, apply_volume))
        if music.can_play:
            registry.register(MusicTool(music))
        return registry

    async def borrow(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keeps the MCP servers' tools registered, until cancelled."""
        await lend_tools(self.mcp_servers, self.lent, checker=self.checker, task_status=task_status)


def make_server_tools(
    config: Config, client: httpx.AsyncClient, checker: ArgumentChecker
) -> ServerTools:
    """The server's tools, its own and those of installed packages.

    Raises ConfigurationError for tools or MCP servers that cannot be used.
    """
    make_weather = partial(
        WeatherTool,
        client,
        config.weather_geocoding_url or GEOCODING_URL,
        config.weather_forecast_url or FORECAST_URL,
    )
    own = ToolRegistry()
    own.register(make_weather())
    for tool in load_custom_tools(OUR_OWN):
        own.register(tool)
    servers = read_mcp_servers(config.mcp_servers_file) if config.mcp_servers_file else ()
    return ServerTools(own, ToolRegistry(own), servers, make_weather, checker)
