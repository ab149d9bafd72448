"""Keys, owners, origins and TLS of a whole server, through real sockets."""

from __future__ import annotations

import itertools
import logging
import re
import signal
import ssl
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import attrs
import httpx
import pytest
import trio
import trustme
from end_to_end_server import DATA
from served import SECONDS, Peer, Served, begun, connected, served, server_process
from trio_websocket import ConnectionClosed, open_websocket_url

from listenai.client.connection import ServerUnreachable
from listenai.server.authentication import MAX_WRONG_KEYS
from listenai.server.page import PageFiles, page_routes, web_directory

pytestmark = [pytest.mark.engines, pytest.mark.usefixtures("nothing_left")]

ANN, BOB = "anns-own-key", "bobs-own-key"
KEYS = f"ann:{ANN},bob:{BOB}"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# What is to be open; everything else that the server has must not be.
OPEN = {
    "/",
    "/auth/websocket",  # asks for a token of its own
    "/test_client.html",
    "/health",
    "/health/ready",
    "/docs/protocol",
    "/docs/troubleshooting",
}
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


async def http_paths(server: Served, key: str) -> list[str]:
    """Every path of the real application, as itself tells who has a key."""
    answer = await server.ask("/nowhere", headers={"X-API-Key": key})
    assert answer.status_code == 404
    return answer.json()["known_paths"]


async def websocket_paths(server: Served) -> list[str]:
    """Every path that a device may connect to, as the door tells."""
    answer = await server.ask("/nowhere", headers=HANDSHAKE)
    assert answer.status_code == 404
    return re.findall(r"(/[\w/]*) \(", answer.text)


# --- keys ------------------------------------------------------------------------------------


async def test_nothing_answers_without_a_key_but_what_is_listed():
    """All routes with all methods, and paths that are none; with a key none is refused."""
    page = {p for r in page_routes(web_directory()) if isinstance(r, PageFiles) for p in r.routes}
    async with served(api_keys=KEYS) as server:
        paths = await http_paths(server, ANN)
        assert {"/metrics", "/mcp", "/health"} <= set(paths)
        answered = set[str]()
        for path, method in itertools.product([*paths, *page, "/nowhere", "/metricsx"], METHODS):
            answer = await server.ask(path, method)
            if answer.status_code == 401:
                assert answer.headers["WWW-Authenticate"] == 'Bearer realm="ListenAI"'
            else:
                answered.add(path)
            if method == "GET":
                keyed = await server.ask(path, headers={"Authorization": f"Bearer {ANN}"})
                assert keyed.status_code != 401, path
        assert answered == OPEN | page
        assert await server.metrics(params={"key": BOB})


LISTENAI = {"/", "/listenai", "/ws"}
IN_BAND = {"/ws", "/hotpin", "/realtime/ws"}  # spoken there: dialects that ask for a key


async def test_no_websocket_opens_without_a_key():
    """On no path; with a key each does, however the key is given; the query is for browsers."""
    async with served(api_keys=KEYS) as server:
        paths = set(await websocket_paths(server))
        assert paths > LISTENAI | IN_BAND
        for path in paths - IN_BAND:
            refused = await server.ask(path, headers=HANDSHAKE)
            assert refused.status_code == 401
            assert "this needs an API key" in refused.text
            assert "?key=KEY" in refused.text
            assert (await server.ask(f"{path}?key={ANN}", headers=HANDSHAKE)).status_code == 101
        for path in IN_BAND:  # the first message says who it is, or nobody does
            async with connected(server.ws + path[1:]) as stranger:
                await stranger.send("ping")
                with suppress(ConnectionClosed):
                    while True:
                        await stranger.socket.get_message()
                assert stranger.socket.closed.code == 1008
        for path in LISTENAI:
            for given in ({"X-API-Key": ANN}, {"Authorization": f"Bearer {ANN}"}):
                headers = [(name.encode(), value.encode()) for name, value in given.items()]
                url = server.ws + path[1:]
                async with open_websocket_url(url, extra_headers=headers) as socket:
                    assert await Peer(socket).answers()
            async with connected(f"{server.ws}{path[1:]}?key={ANN}") as peer:
                assert await peer.answers()


async def test_a_wrong_key_is_told_so_and_a_guesser_waits():
    """401 with what to do; after so many different ones 429 and when, also for the right one."""
    async with served(api_keys=KEYS) as server:
        for number in range(MAX_WRONG_KEYS):
            with pytest.raises(ServerUnreachable, match="401 this API key is not known here"):
                async with connected(server.ws, f"guess-{number}"):
                    pass
        refused = await server.ask("/metrics", headers={"X-API-Key": ANN})
        assert refused.status_code == 429
        assert 0 < int(refused.headers["Retry-After"]) <= 60
        assert (await server.ask("/health")).status_code == 200


async def test_a_session_belongs_to_whose_key_made_it():
    """Another owner gets SESSION_ERROR and no word of it; its owner gets it from anywhere."""
    async with served(api_keys=f"{KEYS},ann:second-key-of-ann") as server:
        async with begun(server.ws, ANN, session_id="den") as peer:
            await peer.turn("remember rosebud")
        async with connected(server.ws, BOB) as thief:
            await thief.send("start_session", session_id="den")
            error = await thief.until("error")
            assert error["code"] == "SESSION_ERROR"
            assert not thief.all("status")
            assert "rosebud" not in str(thief.got)
            await thief.send("start_session", session_id="bobs")
            assert (await thief.until("status"))["restored"] is False
        async with begun(server.ws, "second-key-of-ann", session_id="den") as peer:
            assert peer.got[0]["restored"] is True
            await peer.send("session_stats")
            assert (await peer.until("session_stats"))["message_count"] == 2


async def test_a_key_is_in_no_log_and_in_no_answer(caplog: pytest.LogCaptureFixture):
    """However it is given, right or wrong, in what works and what does not, at any level."""
    caplog.set_level(logging.DEBUG)
    wrong = "a-wrong-key-of-somebody"
    answers: list[httpx.Response] = []
    async with served(api_keys=KEYS) as server:
        paths = [*await http_paths(server, ANN), "/nowhere"]
        for path, key in itertools.product(paths, (ANN, wrong)):
            answers.append(await server.ask(f"{path}?key={key}&a=b"))
            answers.append(await server.ask(path, headers={"X-API-Key": key}))
            answers.append(await server.ask(path, "POST", headers={"Authorization": key}))
        async with connected(f"{server.ws}?key={ANN}") as peer:
            await peer.send_raw("nonsense")
            await peer.until("error")
            await peer.turn()
            assert ANN not in str(peer.got)
    assert len(answers) == 6 * len(paths)
    for answer in answers:
        assert not [key for key in (ANN, BOB, wrong) if key in answer.text + str(answer.headers)]
    ours = [record for record in caplog.records if not record.name.startswith("http")]
    assert ours  # the client's own loggers are another matter
    told = "\n".join(f"{r.getMessage()} {r.exc_text} {r.__dict__.get('fields')}" for r in ours)
    assert not [key for key in (ANN, BOB, wrong) if key in told]


async def test_a_process_does_not_log_its_keys(tmp_path: Path):
    """From variable and file, at DEBUG, with right and wrong ones."""
    (tmp_path / "keys").write_text(f"cat:{BOB}\n")
    async with server_process(
        "--fake-engines",
        directory=tmp_path,
        API_KEYS=f"ann:{ANN}",
        API_KEYS_FILE="keys",
        CLOUD_LOG_LEVEL="DEBUG",
    ) as server:
        async with begun(f"{server.ws}?key={ANN}") as peer:
            await peer.turn()
        assert await server.metrics(headers={"X-API-Key": BOB})
        refused = await server.ask("/metrics", params={"key": "a-wrong-key"})
        assert refused.status_code == 401
        await server.wait_logged("connection_closed")
        await server.end()
        assert [line for line in server.log if line["event"] == "turn_left"]
        assert not [key for key in (ANN, BOB, "a-wrong-key") if key in server.logged.decode()]


# --- origins ---------------------------------------------------------------------------------


async def test_pages_of_elsewhere_may_not_connect_unless_they_are_listed():
    """ALLOWED_ORIGINS: for WebSockets 403, for HTTP no CORS header; our own page always may."""
    theirs, listed = "https://evil.example", "https://good.example"
    async with served(allowed_origins=(listed,)) as server:
        for origin, status in ((theirs, 403), (listed, 101), (server.http, 101)):
            answer = await server.ask("/", headers={**HANDSHAKE, "Origin": origin})
            assert answer.status_code == status, origin
            if status == 403:
                assert "ALLOWED_ORIGINS" in answer.text
        for origin, allowed in ((theirs, None), (listed, listed)):
            answer = await server.ask("/metrics", headers={"Origin": origin})
            assert answer.headers.get("Access-Control-Allow-Origin") == allowed
        counted = await server.metrics()
        assert counted['listenai_connections_refused_total{reason="origin"}'] == 1


# --- TLS -------------------------------------------------------------------------------------


@attrs.frozen
class Certificate:
    """A certificate of an authority of our own, in the files that a server reads."""

    directory: Path

    @property
    def settings(self) -> dict[str, str]:
        return {
            "TLS_CERT_FILE": str(self.directory / "certificate.pem"),
            "TLS_KEY_FILE": str(self.directory / "key.pem"),
        }

    @property
    def authority(self) -> Path:
        return self.directory / "authority.pem"

    def renew(self) -> ssl.SSLContext:
        """A new authority and a new certificate; who trusts that authority."""
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1", "localhost")
        issued.private_key_and_cert_chain_pem.write_to_path(self.settings["TLS_CERT_FILE"])
        issued.private_key_pem.write_to_path(self.settings["TLS_KEY_FILE"])
        authority.cert_pem.write_to_path(str(self.authority))
        context = ssl.create_default_context()
        authority.configure_trust(context)
        return context

    def spoil(self) -> None:
        Path(self.settings["TLS_KEY_FILE"]).write_text("no key")


async def test_wss_and_https_are_on_one_port_and_a_new_certificate_is_taken(tmp_path: Path):
    """By the process; SIGHUP reads the files again, a connection that is open goes on."""
    certificate = Certificate(tmp_path)
    trusting = certificate.renew()
    async with server_process(
        "--fake-engines", directory=tmp_path, **certificate.settings
    ) as server:
        assert server.scheme == "https"
        assert (await server.ask("/", tls=trusting)).status_code == 200
        assert (await server.ask("/health", tls=trusting)).json()["status"] == "ok"
        async with open_websocket_url(server.ws, ssl_context=trusting) as socket:
            peer = Peer(socket)
            await peer.send("start_session")
            assert (await peer.turn())["text"]
            assert peer.pcm
            newly_trusting = certificate.renew()
            server.process.send_signal(signal.SIGHUP)
            await server.wait_logged("certificate_reloaded")
            assert await peer.answers()
        assert (await server.ask("/health", tls=newly_trusting)).status_code == 200
        with pytest.raises(httpx.ConnectError):
            await server.ask("/health", tls=trusting)
        plain = Served(server.port)
        told = await plain.ask("/health")
        assert told.status_code == 400
        assert "use https:// or wss://" in told.text
        certificate.spoil()
        server.process.send_signal(signal.SIGHUP)
        assert "TLS_KEY_FILE" in str(await server.wait_logged("certificate_not_reloaded"))
        assert (await server.ask("/health", tls=newly_trusting)).status_code == 200
        await server.end()
        assert server.process.returncode == 0


@pytest.mark.slow
async def test_talk_trusts_the_authority_of_ssl_cert_file(tmp_path: Path):
    """`talk --url wss://…` asks and is answered; without the authority it says why not."""
    certificate = Certificate(tmp_path)
    certificate.renew()
    async with server_process(
        "--fake-engines", directory=tmp_path, **certificate.settings
    ) as server:
        command = [sys.executable, "-m", "listenai", "talk", str(DATA / "no.wav")]
        statuses = []
        for trusted in ({"SSL_CERT_FILE": str(certificate.authority)}, {}):
            with trio.fail_after(4 * SECONDS):
                done = await trio.run_process(
                    [*command, "--url", server.ws],
                    capture_stdout=True,
                    stderr=subprocess.STDOUT,
                    check=False,
                    cwd=tmp_path,
                    env={"PATH": "", **trusted},
                )
            statuses.append((done.returncode, done.stdout.decode()))
        (good, said), (bad, refused) = statuses
        assert good == 0, said
        assert "London" in said
        assert bad != 0
        assert "certificate verify failed" in refused.lower().replace("_", " ")


# --- what is not kept ------------------------------------------------------------------------


async def test_nothing_of_a_session_is_on_the_disk(tmp_path: Path):
    """Spoken, typed and answered: no file is written, and an ended session is gone."""
    async with server_process(directory=tmp_path, TMPDIR=str(tmp_path)) as server:
        async with begun(server.ws, session_id="den") as peer:
            await peer.speak("no.wav")
            await peer.until("turn_metrics")
            await peer.turn("repeat that")
            assert files_below(tmp_path) == []
            await peer.send("end_session")
            assert await peer.close_code() == 1000
        async with begun(server.ws, session_id="den") as peer:
            assert peer.got[0]["restored"] is False
        await server.end()
    assert files_below(tmp_path) == []


def files_below(directory: Path) -> list[Path]:
    return list(directory.rglob("*"))
