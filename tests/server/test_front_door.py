"""The front door on real sockets: who gets a connection, and how every connection ends."""

from __future__ import annotations

import errno
import json
import os
import resource
import ssl
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import trio
from loopback import (
    BIG_BYTES,
    CLOSE,
    GET,
    HTTP_APP,
    QUICK,
    TEXT,
    UPGRADE,
    echo,
    frame,
    known_path,
    raw_peer,
    serving,
    talk,
    until_gone,
)
from websockets.sync.client import connect

from listenai.errors import ConfigurationError
from listenai.server.front_door import Address, DoorDeadlines, Endpoint, serve_front_door
from listenai.server.head import Head, parse_head
from listenai.server.splice import BackendUnreachable, HttpBackend
from listenai.server.streams import NOTSENT_BYTES, RECEIVE_BUFFER_BYTES, tune_socket
from listenai.wire import DeviceGone, Wire

pytestmark = pytest.mark.usefixtures("nothing_left")


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


# --- who gets a connection ----------------------------------------------------------------


async def test_the_conversation_gets_the_head() -> None:
    """Path, query, headers, peer and scheme are those of the request."""
    heads: list[Head] = []

    async def converse(wire: Wire, head: Head) -> None:
        heads.append(head)

    async with serving(converse) as server, raw_peer(server) as peer:
        port = peer.stream.socket.getsockname()[1]
        assert await peer.receive() == (CLOSE, struct.pack("!H", 1000))
    (head,) = heads
    assert (head.path, head.query, head.peer, head.secure) == (
        "/ws",
        "model=a",
        ("127.0.0.1", port),
        False,
    )
    assert head.header("sec-websocket-version") == "13"


async def test_messages_sent_with_the_handshake_are_not_lost() -> None:
    """A client that does not wait for the answer is served too."""
    async with serving() as server, raw_peer(server, upgraded=False) as peer:
        await peer.upgrade(frame(TEXT, b"hi"))
        assert await peer.receive() == (TEXT, b"hi")


async def test_refused_handshakes_are_answered_and_never_converse() -> None:
    """Unknown path, malformed handshake, too large a head: an answer, then the end."""

    async def converse(wire: Wire, head: Head) -> None:
        raise AssertionError("was let in")

    async with serving(converse) as server:
        got = await talk(server.port, UPGRADE.replace(b"/ws", b"/no"))
        assert got.startswith(b"HTTP/1.1 404 Not Found\r\n")
        assert got.endswith(b"known paths: /ws\n")
        assert b"\r\nConnection: close\r\n" in got
        got = await talk(server.port, UPGRADE.replace(b"Key", b"Nay"))
        assert got.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        got = await talk(server.port, UPGRADE.replace(b"n: 13", b"n: 8"))
        assert got.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
        assert b"\r\nSec-WebSocket-Version: 13\r\n" in got
        # Much more than is read: it must not turn the answer into a reset.
        got = await talk(server.port, b"GET / HTTP/1.1\r\nX: " + b"a" * 400_000 + b"\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 431 ")


async def test_a_handshake_that_only_the_library_refuses_ends_soon() -> None:
    """Headers that we let pass and h11 does not: 400, well before any deadline."""
    draining = trio.Event()
    async with serving(deadlines=DoorDeadlines(), draining=draining) as server:
        bad = UPGRADE.replace(b"Host: x", b"Host: x\r\nX: a\x00b")
        assert (await talk(server.port, bad)).startswith(b"HTTP/1.1 400 ")
        draining.set()
        with trio.fail_after(1):  # nothing of it is left
            await server.stopped.wait()


async def test_a_slow_head_is_cut_off() -> None:
    """Half a head, then nothing: 408."""
    async with serving(deadlines=DoorDeadlines(head=0.1, close=0.3)) as server:
        assert (await talk(server.port, b"GET / HT")).startswith(b"HTTP/1.1 408 ")
        assert await talk(server.port, b"GET / HT", half_close=True) == b""


# --- HTTP ---------------------------------------------------------------------------------


async def test_http_sees_the_peer_and_every_answer_is_the_last() -> None:
    """The application knows who asks; a pooled connection never carries a later upgrade."""
    async with serving() as server:
        async with raw_peer(server, upgraded=False) as peer:
            port = peer.stream.socket.getsockname()[1]
            await peer.stream.send_all(GET)
            head, _, body = (await peer.receive_end()).partition(b"\r\n\r\n")
        assert head.lower().count(b"connection: close") == 1
        who = {"client": ["127.0.0.1", port], "scheme": "http", "asgi": "2.4"}
        assert json.loads(body) == who
        got = await talk(server.port, GET * 3)
        assert got.count(b"HTTP/1.1 200") == 1
        got = await talk(server.port, GET + UPGRADE)
        assert got.count(b"HTTP/1.1 ") == 1
        assert b" 101 " not in got
        got = await talk(server.port, GET.replace(b"/who", b"/nothing"))
        assert got.startswith(b"HTTP/1.1 404")
        assert b"connection: close" in got.lower()


async def test_large_bodies_pass_in_both_directions() -> None:
    """An upload of 3 MiB is counted; a download of 8 MiB survives a half-close."""
    upload = b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (3 << 20)
    async with serving() as server:
        got = await talk(server.port, upload + bytes(3 << 20))
        assert got.endswith(b'{"bytes":3145728}')
        chunked = b"POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunk = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
        got = await talk(server.port, chunked + chunk * 4 + b"0\r\n\r\n")
        assert got.endswith(b'{"bytes":262144}')
        download = b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n"
        assert len(await talk(server.port, download, half_close=True)) > BIG_BYTES


async def test_an_answer_before_the_whole_body_arrives() -> None:
    """The unread rest of an upload does not turn the answer into a reset."""
    upload = b"POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n"
    async with serving() as server, raw_peer(server, upgraded=False) as peer:
        await peer.stream.send_all(upload + bytes(3_000_000))
        assert (await peer.receive_end()).startswith(b"HTTP/1.1 403 ")


async def test_a_failing_application_is_answered_500_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The next request is served."""
    async with serving() as server:
        got = await talk(server.port, GET.replace(b"/who", b"/break"))
        assert got.startswith(b"HTTP/1.1 500 ")
        assert (await talk(server.port, GET)).startswith(b"HTTP/1.1 200 ")
    assert failures(caplog)


async def test_an_idle_exchange_is_ended() -> None:
    """A body that never comes does not hold a connection."""
    upload = b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
    async with serving(deadlines=DoorDeadlines(idle=0.1, close=0.3)) as server:
        assert await talk(server.port, upload) == b""


async def test_no_backend_is_an_error_of_its_own() -> None:
    """It becomes a 503; here the port is one that nobody listens on."""
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        backend = HttpBackend(unused.getsockname()[1], {})
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        head = parse_head(GET)
        assert head
        async with (
            listener,
            await trio.testing.open_stream_to_socket_listener(listener),
            await listener.accept() as stream,
        ):
            with pytest.raises(BackendUnreachable):
                await backend.splice(stream, head, idle_seconds=1, linger_seconds=0)


# --- TLS ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A throwaway certificate and its key in one file, for 127.0.0.1."""
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    options = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1"
    names = "-subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    command = f"openssl req {options} {names} -keyout {path} -out {path}.crt"
    subprocess.run(command.split(), check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def client_tls(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


async def test_wss_and_https_share_a_port(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """Both libraries verify the certificate; the scheme is told; HTTP/1.1 is agreed on."""
    heads: list[Head] = []

    async def converse(wire: Wire, head: Head) -> None:
        heads.append(head)
        await echo(wire, head)

    def websocket(url: str) -> str | bytes:
        with connect(url, ssl=client_tls, proxy=None) as connection:
            connection.send("over TLS")
            return connection.recv(timeout=5)

    async with serving(converse, endpoints=[Endpoint(tls=server_tls)]) as server:
        assert server.url.startswith("wss://127.0.0.1:")
        assert await trio.to_thread.run_sync(websocket, server.url) == "over TLS"
        async with httpx.AsyncClient(verify=client_tls, trust_env=False) as http:
            address = server.addresses[0].url()
            assert (await http.get(f"{address}/who")).json()["scheme"] == "https"
            assert len((await http.get(f"{address}/big")).content) == BIG_BYTES
        client_tls.set_alpn_protocols(["h2", "http/1.1"])
        async with await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", server.port, ssl_context=client_tls, https_compatible=True
        ) as stream:
            await stream.do_handshake()
            assert stream.selected_alpn_protocol() == "http/1.1"
    assert [head.secure for head in heads] == [True]


async def test_plain_http_on_a_tls_port_harms_nobody(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does a TLS handshake that never comes; the next client is served."""
    deadlines = DoorDeadlines(head=0.2, close=0.2)
    async with serving(endpoints=[Endpoint(tls=server_tls)], deadlines=deadlines) as server:
        for noise in (GET, b""):
            async with raw_peer(server, upgraded=False) as peer:
                await peer.stream.send_all(noise)
                answer = await peer.receive_end()
                assert answer.endswith(b"use https:// or wss://\n" if noise else b"")
        async with httpx.AsyncClient(verify=client_tls, trust_env=False) as http:
            assert (await http.get(server.addresses[0].url() + "/who")).status_code == 200
    assert not failures(caplog)


# --- connections do not touch each other ----------------------------------------------------


async def test_a_failing_conversation_closes_1011_and_touches_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Even an error that looks like a lost stream is a bug, and logged as one."""

    async def converse(wire: Wire, head: Head) -> None:
        match await wire.receive():
            case "break":
                raise trio.BrokenResourceError("from the conversation's own code")
            case "break in a group":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(until_gone, wire)
                    raise ZeroDivisionError
            case message:
                await wire.send(message)
                await echo(wire, head)

    async with serving(converse) as server, raw_peer(server) as well:
        await well.send(TEXT, b"before")
        assert await well.receive() == (TEXT, b"before")
        for order in (b"break", b"break in a group"):
            async with raw_peer(server) as ill:
                await ill.send(TEXT, order)
                assert await ill.receive() == (CLOSE, struct.pack("!H", 1011))
        await well.send(TEXT, b"after")
        assert await well.receive() == (TEXT, b"after")
    assert failures(caplog) == ["connection_failed"] * 2
    assert all(record.exc_info for record in caplog.records if record.levelname == "ERROR")


async def test_a_failing_refusal_touches_no_other_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A bug in what decides about handshakes is logged and closes that connection only."""

    def refuse(head: Head) -> None:
        if head.query:
            raise FileNotFoundError("a key file")

    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(
            lambda task_status: serve_front_door(
                HTTP_APP, echo, refuse, endpoints=[Endpoint()], task_status=task_status
            )
        )
        assert await talk(address.port, UPGRADE) == b""
        assert (await talk(address.port, GET)).startswith(b"HTTP/1.1 200 ")
        nursery.cancel_scope.cancel()
    assert failures(caplog) == ["connection_failed"]


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Takes every file descriptor that the process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
    taken: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)


async def test_running_out_of_descriptors_is_survived(caplog: pytest.LogCaptureFixture) -> None:
    """Accepting goes on once there are some again, and the client that waited is served."""
    async with serving() as server:
        with trio.socket.socket() as client:
            with no_more_descriptors():
                await client.connect(("127.0.0.1", server.port))
                while not failures(caplog):
                    await trio.testing.wait_all_tasks_blocked(0.01)
            await client.send(GET)
            assert (await client.recv(12)) == b"HTTP/1.1 200"
    assert errno.errorcode[errno.EMFILE] in failures(caplog)[0]


# --- endings --------------------------------------------------------------------------------


async def test_a_download_that_is_not_read_does_not_hold_the_shutdown() -> None:
    """The application's connection is cut with the peer's."""
    async with serving() as server, raw_peer(server, upgraded=False) as peer:
        await peer.stream.send_all(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await peer.stream.receive_some(12) == b"HTTP/1.1 200"
        assert await server.stop() < QUICK.close + 0.4


async def test_a_peer_that_left_before_it_was_welcomed_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither a reset in the queue of connections nor half a head is logged as an error."""
    async with serving() as server:
        for data in (b"", b"GET"):
            async with raw_peer(server, upgraded=False) as peer:
                await peer.stream.send_all(data)
                reset = struct.pack("ii", 1, 0)
                peer.stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, reset)
        assert (await talk(server.port, GET)).startswith(b"HTTP/1.1 200 ")
    assert not failures(caplog)


# --- where it listens -----------------------------------------------------------------------


async def test_several_endpoints_are_one_server() -> None:
    """Each is served; the addresses come in their order."""
    async with serving(endpoints=[Endpoint(), Endpoint()]) as server:
        ports = [address.port for address in server.addresses]
        assert len(set(ports)) == 2
        for port in ports:
            assert (await talk(port, GET)).startswith(b"HTTP/1.1 200 ")


async def test_a_port_that_is_taken_is_named_and_nothing_is_left_open() -> None:
    """Every endpoint that cannot be had is told; those that could are closed again."""
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        endpoints = [Endpoint(), Endpoint(port), Endpoint(0, "203.0.113.1")]
        with pytest.raises(ExceptionGroup) as group:
            await serve_front_door(HTTP_APP, echo, known_path, endpoints=endpoints)
    (error,) = group.value.exceptions
    assert isinstance(error, ConfigurationError)
    assert len(error.problems) == 2
    assert f"127.0.0.1, port {port}" in error.problems[0]
    assert "choose another port" in error.problems[0]


async def test_addresses_are_urls() -> None:
    """IPv6 has its brackets, TLS its "s"."""
    assert Address("127.0.0.1", 80, secure=False).url("ws") == "ws://127.0.0.1:80"
    assert Address("::1", 443, secure=True).url() == "https://[::1]:443"


async def test_accepted_sockets_send_at_once_and_buffer_little() -> None:
    """The options are those of barge-in: nothing waits in the kernel."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with (
        listener,
        await trio.testing.open_stream_to_socket_listener(listener),
        await listener.accept() as stream,
    ):
        tune_socket(stream)
        tcp, sol = trio.socket.IPPROTO_TCP, trio.socket.SOL_SOCKET
        assert stream.getsockopt(tcp, trio.socket.TCP_NODELAY)
        if hasattr(trio.socket, "TCP_NOTSENT_LOWAT"):
            assert stream.getsockopt(tcp, trio.socket.TCP_NOTSENT_LOWAT) == NOTSENT_BYTES
        size = stream.getsockopt(sol, trio.socket.SO_RCVBUF)
        assert size in (RECEIVE_BUFFER_BYTES, 2 * RECEIVE_BUFFER_BYTES)  # Linux doubles


async def test_device_gone_may_escape_a_conversation(caplog: pytest.LogCaptureFixture) -> None:
    """A device that leaves before its first message is nobody's failure."""
    over = trio.Event()

    async def converse(wire: Wire, head: Head) -> None:
        try:
            await wire.receive()
        except DeviceGone:
            over.set()
            raise

    async with serving(converse) as server:
        async with raw_peer(server):
            pass
        await over.wait()
    assert not failures(caplog)
