"""The same promises to every kind of device, through real sockets: one server, five dialects.

Each device does in its own way what its user wants; what it is told is compared in words that
all have in common: the answer's text, its sound, that it was stopped, and what went wrong.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import attrs
import jwt
import pytest
import trio
from devices import ninja
from devices.configurator import Page, open_page
from end_to_end_server import recording
from fakes import FakeChatModel, FakeSynthesizer, call
from served import DEVICE, SECONDS, SILENCE, Peer, Served, connected, served

from listenai.engines.base import ChatMessage, ReplyPart, ReplyText
from listenai.engines.timed import HEARD_TEXT
from listenai.errors import ChatModelError
from listenai.server.call_tokens import CallTokens

pytestmark = [pytest.mark.engines, pytest.mark.usefixtures("nothing_left")]

SECRET = "a secret of tests, longer than thirty-two bytes"
SPEECH = "no.wav"  # any words will do: the engines know one sentence only
ANSWER = "One two three."
STORY = " ".join(f"Sentence {n} of the story." for n in range(12))


# --- devices -------------------------------------------------------------------------------------


class Talker(Protocol):
    """A device with its session, and what its user wants of it."""

    sound: int  # bytes of audio, with their containers

    async def ask(self) -> None:
        """Says something, and lets the microphone go where there is a button."""

    async def answer(self) -> str:
        """The whole text of the answer, once the device has it all, sound too."""

    async def hears(self) -> None:
        """The answer is coming."""

    async def interrupt(self) -> None:
        """Stops the answer by asking something else; returns when the device was told."""

    async def blunder(self) -> str:
        """Sends what is no message; the code or words of the error."""

    async def error(self) -> str:
        """The code or words of an error, once its turn is over."""


@attrs.define
class Told:
    """What devices with a `Peer` have in common."""

    peer: Peer
    _since: int = 0  # what came before is another turn's

    @property
    def sound(self) -> int:
        return len(self.peer.pcm)

    async def ask(self) -> None:
        self._since = len(self.peer.got)
        await self.peer.speak(SPEECH)

    async def until(self, kind: str, **fields: Any) -> dict[str, Any]:
        return await self.peer.until(kind, **fields)

    def text(self, kind: str, **fields: Any) -> str:
        messages = self.peer.got[self._since :]
        wanted = {"type": kind, **fields}
        return "".join(m["text"] for m in messages if wanted.items() <= m.items())

    async def blunder(self) -> str:
        await self.peer.send_raw("hello?")
        return (await self.until("error"))["code"]


class ListenAIDevice(Told):
    """Spec 000."""

    async def answer(self) -> str:
        await self.until("turn_metrics")
        return self.text("llm_response", done=True)

    async def hears(self) -> None:
        await self.until("audio")

    async def interrupt(self) -> None:
        await self.ask()
        await self.until("interrupted")
        await self.until("turn_metrics")
        self._since = len(self.peer.got)

    async def error(self) -> str:
        code = (await self.until("error"))["code"]
        await self.until("turn_metrics")
        return code


@asynccontextmanager
async def listenai(server: Served, session_id: str) -> AsyncIterator[Talker]:
    async with connected(server.ws) as peer:
        await peer.send("start_session", session_id=session_id, capabilities=DEVICE)
        await peer.until("status", state="ready")
        yield ListenAIDevice(peer)


class PromptVoicePage(Told):
    """Spec 001, with a button; its chunks are JSON."""

    @property
    def sound(self) -> int:
        return sum(len(chunk["audio_b64"]) for chunk in self.peer.all("tts_chunk"))

    async def ask(self) -> None:
        await self.peer.send("start")
        await self.until("info", message="ready")
        await self._speak()

    async def _speak(self) -> None:
        await Told.ask(self)
        await self.peer.send("stop")

    async def answer(self) -> str:
        await self.until("metrics")
        return self.text("llm_token")

    async def hears(self) -> None:
        await self.until("tts_chunk")

    async def interrupt(self) -> None:
        await self.peer.send("start")
        await self.until("info", message="interrupted")
        await self.until("metrics")
        await self._speak()

    async def error(self) -> str:
        code = (await self.until("error"))["code"]
        await self.until("metrics")
        return code


@asynccontextmanager
async def prompt_voice(server: Served, session_id: str) -> AsyncIterator[Talker]:
    async with connected(server.ws + "ws2") as peer:  # there are no ids
        yield PromptVoicePage(peer)


class StatusPeer(Peer):
    """Messages without a type have a status."""

    async def _receive(self) -> dict[str, Any]:
        message = await super()._receive()
        message.setdefault("type", message.get("status"))
        return message


class HotpinDevice(Told):
    """Spec 002: the answer is a file, and can be stopped until it is complete."""

    async def ask(self) -> None:
        await super().ask()
        await self.peer.send_raw('{"signal":"EOS"}')

    async def answer(self) -> str:
        await self.until("complete")
        [response] = [m["response"] for m in self.peer.got[self._since :] if "response" in m]
        return response

    async def hears(self) -> None:
        await self.until("processing", stage="llm")

    async def interrupt(self) -> None:
        await Told.ask(self)
        await self.until("error", message="Interrupted")
        await self.peer.send_raw('{"signal":"EOS"}')

    async def blunder(self) -> str:
        await self.peer.send_raw("hello?")
        return (await self.until("error"))["message"]

    async def error(self) -> str:
        return (await self.until("error"))["message"]


@asynccontextmanager
async def hotpin(server: Served, session_id: str) -> AsyncIterator[Talker]:
    async with connected(server.ws + "hotpin") as link:
        peer = StatusPeer(link.socket)
        await peer.send_raw(f'{{"session_id":"{session_id}"}}')
        await peer.until("connected")
        yield HotpinDevice(peer)


@attrs.define
class ConfiguratorPage:
    """Spec 003: the client written from it."""

    page: Page
    _turns: int = 0
    _errors: int = 0

    @property
    def sound(self) -> int:
        return sum(message["bytes"] for message in self.page.all("audio"))

    async def ask(self) -> None:
        self._turns += 1
        self.page.hear(recording(SPEECH) + SILENCE)

    async def answer(self) -> str:
        response = await self.page.until("response", self._turns)
        await self.page.wait_played(self._turns)
        return response["text"]

    async def hears(self) -> None:
        await self.page.until("audio")

    async def interrupt(self) -> None:
        await self.ask()
        await self.page.until("stop_audio")

    async def blunder(self) -> str:
        self.page.send_raw("hello?")
        return await self._next_error()

    async def error(self) -> str:
        await self.page.until("response", self._turns)
        await self.page.wait_played(self._turns)
        return await self._next_error()

    async def _next_error(self) -> str:
        self._errors += 1
        return (await self.page.until("error", self._errors))["code"]


@asynccontextmanager
async def configurator(server: Served, session_id: str) -> AsyncIterator[Talker]:
    async with open_page(server.ws + "voice", session_id) as page:
        page.open_microphone()
        yield ConfiguratorPage(page)


@attrs.define
class NinjaCall:
    """Spec 004: the client written from it."""

    caller: ninja.Call
    _turns: int = 0
    _errors: int = 0

    @property
    def sound(self) -> int:
        return self.caller.played.files

    async def ask(self) -> None:
        self._turns += 1
        await self.caller.speak(recording(SPEECH) + SILENCE)

    async def _over(self) -> None:
        await self.caller.wait(lambda: len(self.caller.all("metrics")) >= self._turns)

    async def answer(self) -> str:
        await self._over()
        return self.caller.all("ai_response", done=True)[-1]["text"]

    async def hears(self) -> None:
        await self.caller.wait(lambda: self.sound)

    async def interrupt(self) -> None:
        await self.ask()
        await self.caller.until("audio_response", state="stop")

    async def blunder(self) -> str:
        await self.caller.send_raw("hello?")
        return await self._next_error()

    async def error(self) -> str:
        await self._over()
        return await self._next_error()

    async def _next_error(self) -> str:
        self._errors += 1
        errors = await self.caller.wait(lambda: self.caller.all("error")[self._errors - 1 :])
        return errors[0]["code"]


@asynccontextmanager
async def ninja_call(server: Served, session_id: str) -> AsyncIterator[Talker]:
    token = jwt.encode({"sub": "user-1"}, SECRET, "HS256")
    issued = CallTokens(SECRET, time.time).issue(token, "user-1", session_id)
    url = server.ws + "realtime/ws"
    async with ninja.open_call(url, issued, "user-1", session_id) as caller:
        yield NinjaCall(caller)


@attrs.frozen
class Kind:
    """A dialect, and what its devices may expect where they differ."""

    open: Callable[[Served, str], AbstractAsyncContextManager[Talker]]
    resumes: bool = True
    no_message: str = "INVALID_MESSAGE"
    no_model: str = "LLM_ERROR"


KINDS = {
    "ListenAI": Kind(listenai),
    "Hotpin": Kind(hotpin, no_message="not JSON", no_model="Service temporarily unavailable"),
    "Prompt Voice": Kind(prompt_voice, resumes=False),
    "Configurator": Kind(configurator),
    "Ninja": Kind(ninja_call),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@asynccontextmanager
async def serving(chat: FakeChatModel, seconds: float = 0.3) -> AsyncIterator[Served]:
    """seconds: of every sentence."""
    engines = {"chat_model": chat, "synthesizer": FakeSynthesizer(seconds)}
    with trio.fail_after(3 * SECONDS):
        async with served(engines=engines, jwt_secret=SECRET) as server:
            yield server


def roles(messages: Sequence[ChatMessage]) -> list[str]:
    return [message.role for message in messages]


# --- promises ------------------------------------------------------------------------------------


@every_kind
async def test_a_question_is_answered(kind: Kind):
    """In text and sound; and so is the next, by who remembers the first."""
    chat = FakeChatModel(ANSWER)
    async with serving(chat) as server, kind.open(server, "one") as device:
        await device.ask()
        assert (await device.answer()).strip() == ANSWER
        first = device.sound
        assert first > 0
        await device.ask()
        assert (await device.answer()).strip() == ANSWER
        assert device.sound > first
    (_, one), (_, two) = chat.asked
    assert one[-1].content == two[-1].content == HEARD_TEXT
    assert roles(two) == ["system", "user", "assistant", "user"]
    assert two[2].content == ANSWER


@every_kind
async def test_tools_are_used(kind: Kind):
    """What they gave is in the answer, whether the device is told of them or not."""
    chat = FakeChatModel(
        lambda messages: (
            [call("set_volume", '{"level": 50}')]
            if messages[-1].role == "user"
            else [ReplyText("It is done.")]
        )
    )
    async with serving(chat) as server, kind.open(server, "one") as device:
        await device.ask()
        assert (await device.answer()).strip() == "It is done."
        assert device.sound > 0
    assert roles(chat.asked[1][1]) == ["system", "user", "assistant", "tool"]


@every_kind
async def test_an_answer_is_stopped_by_its_user(kind: Kind):
    """The device is told; the next question is answered, and what was unheard is forgotten."""

    def answer(messages: Sequence[ChatMessage]) -> Sequence[ReplyPart]:
        story = roles(messages).count("user") == 1
        return [ReplyText(f"{word} ") for word in (STORY if story else ANSWER).split()]

    chat = FakeChatModel(answer, delay=0.03)
    async with serving(chat, 3.0) as server, kind.open(server, "one") as device:
        await device.ask()
        await device.hears()
        await device.interrupt()
        assert (await device.answer()).strip() == ANSWER
    (_, _), (_, second) = chat.asked
    assert [m.content for m in second if m.role == "user"] == [HEARD_TEXT] * 2
    heard = [m.content for m in second if m.role == "assistant"]
    assert all(STORY.startswith(text) and len(text) < len(STORY) / 2 for text in heard)


@every_kind
async def test_what_goes_wrong_is_told_and_the_device_talks_on(kind: Kind):
    """A message that is none; a model that is gone; and then an answer."""
    chat = FakeChatModel("", fail=ChatModelError("gone"))
    async with serving(chat) as server, kind.open(server, "one") as device:
        if kind.open is prompt_voice:
            await device.peer.send("start")  # type: ignore[attr-defined]
        assert kind.no_message in await device.blunder()
        await device.ask()
        assert await device.error() == kind.no_model
        chat.fail, chat.answer = None, ANSWER
        await device.ask()
        assert (await device.answer()).strip() == ANSWER


@every_kind
async def test_who_comes_back_goes_on_where_it_was(kind: Kind):
    """By its id, where there is one; where there is none, it begins anew."""
    chat = FakeChatModel(ANSWER)
    async with serving(chat) as server:
        for _ in range(2):
            async with kind.open(server, "one") as device:
                await device.ask()
                await device.answer()
        async with kind.open(server, "two") as other:
            await other.ask()
            await other.answer()
    first, second, third = (roles(messages) for _, messages in chat.asked)
    assert first == third == ["system", "user"]
    assert second == (["system", "user", "assistant", "user"] if kind.resumes else first)


async def test_all_kinds_talk_at_the_same_time():
    """To one server; nobody hears another's answer."""
    chat = FakeChatModel(ANSWER)
    answers: dict[str, str] = {}

    async def talk(server: Served, name: str, kind: Kind) -> None:
        async with kind.open(server, name.replace(" ", "-")) as device:
            await device.ask()
            answers[name] = (await device.answer()).strip()

    async with serving(chat) as server, trio.open_nursery() as nursery:
        for name, kind in KINDS.items():
            nursery.start_soon(talk, server, name, kind)
    assert answers == dict.fromkeys(KINDS, ANSWER)
    assert [roles(messages) for _, messages in chat.asked] == [["system", "user"]] * len(KINDS)
