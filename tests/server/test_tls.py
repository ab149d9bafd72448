"""TLS on the front port: certificates that work, and words about those that do not."""

from __future__ import annotations

import ssl
from pathlib import Path

import attrs
import httpx
import pytest
import trio
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from loopback import GET, UPGRADE, RawPeer, echo, frame, serving
from websockets.sync.client import connect

from listenai.errors import ConfigurationError
from listenai.server.front_door import DoorDeadlines, Endpoint
from listenai.server.tls import make_tls_context, reload_certificate

leaves_nothing = pytest.mark.usefixtures("nothing_left")


@attrs.frozen
class Files:
    """A certificate, its key, and who has to be trusted for it."""

    certificate: str
    key: str
    authority: trustme.CA

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context


def make_files(directory: Path) -> Files:
    directory.mkdir()
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    for blob in issued.cert_chain_pems:
        blob.write_to_path(certificate, append=True)
    issued.private_key_pem.write_to_path(key)
    return Files(str(certificate), str(key), authority)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return make_files(tmp_path / "tls")


@pytest.fixture
def context(files: Files) -> ssl.SSLContext:
    made = make_tls_context(files.certificate, files.key)
    assert made
    return made


# --- settings ---------------------------------------------------------------------------------


def test_without_files_there_is_no_tls() -> None:
    """Both empty: ws:// and http://."""
    assert make_tls_context("", "") is None


def problem(certificate: str, key: str) -> str:
    with pytest.raises(ConfigurationError) as error:
        make_tls_context(certificate, key)
    assert "PRIVATE KEY-----\n" not in str(error.value)
    return str(error.value)


def test_one_file_alone_is_not_enough(files: Files) -> None:
    """The other one is named."""
    assert problem(files.certificate, "").startswith("TLS_KEY_FILE is empty")
    assert problem("", files.key).startswith("TLS_CERT_FILE is empty")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """Both, with the reason."""
    told = problem(str(tmp_path / "none"), str(tmp_path))
    assert "TLS_CERT_FILE=" in told
    assert "No such file" in told
    assert "TLS_KEY_FILE=" in told
    assert "Is a directory" in told


def test_a_key_of_another_certificate_is_told(files: Files, tmp_path: Path) -> None:
    """Not in OpenSSL's words alone."""
    other = make_files(tmp_path / "other")
    told = problem(files.certificate, other.key)
    assert "is not the key of TLS_CERT_FILE" in told
    assert "give the two that belong together" in told


def test_an_encrypted_key_is_told_and_no_password_asked_for(files: Files) -> None:
    """A server has nobody who could type it."""
    key = load_pem_private_key(Path(files.key).read_bytes(), None)
    cipher = BestAvailableEncryption(b"password")
    Path(files.key).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, cipher))
    assert "is encrypted; give a key without a password" in problem(files.certificate, files.key)


def test_files_that_are_something_else_are_told(files: Files, tmp_path: Path) -> None:
    """Text, nothing, and the two in each other's place."""
    for certificate, key in (
        (__file__, files.key),
        (files.certificate, __file__),
        (files.key, files.certificate),
    ):
        told = problem(certificate, key)
        assert "both must be PEM" in told


# --- on the port ------------------------------------------------------------------------------


@leaves_nothing
async def test_wss_and_https_share_a_port(context: ssl.SSLContext, files: Files) -> None:
    """Both verify the certificate; a page and a conversation."""

    def websocket(url: str) -> str | bytes:
        with connect(url, ssl=files.client(), proxy=None) as connection:
            connection.send("over TLS")
            return connection.recv(timeout=5)

    async with serving(endpoints=[Endpoint(tls=context)]) as server:
        assert await trio.to_thread.run_sync(websocket, server.url) == "over TLS"
        async with httpx.AsyncClient(verify=files.client(), trust_env=False) as http:
            answer = await http.get(server.addresses[0].url() + "/who")
    assert answer.json()["scheme"] == "https"


@leaves_nothing
@pytest.mark.parametrize("request_bytes", [GET, UPGRADE, b"hello\r\n", b"\x00"])
async def test_plain_words_on_a_tls_port_are_answered_plainly(
    context: ssl.SSLContext, request_bytes: bytes
) -> None:
    """At once, with what to do."""
    async with (
        serving(endpoints=[Endpoint(tls=context)]) as server,
        await trio.open_tcp_stream("127.0.0.1", server.port) as stream,
    ):
        await stream.send_all(request_bytes)
        answer = await RawPeer(stream).receive_end()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"this port speaks TLS only: use https:// or wss://\n")


@leaves_nothing
@pytest.mark.parametrize("noise", [b"", b"\x16", b"\x16\x03\x01\x00\x05hello"])
async def test_who_never_finishes_a_handshake_is_let_go(
    context: ssl.SSLContext, noise: bytes
) -> None:
    """Nothing, half of a handshake, and one that is none: closed when its time is over."""
    deadlines = DoorDeadlines(head=0.2, close=0.2)
    async with (
        serving(endpoints=[Endpoint(tls=context)], deadlines=deadlines) as server,
        await trio.open_tcp_stream("127.0.0.1", server.port) as stream,
    ):
        await stream.send_all(noise)
        assert b"HTTP" not in await RawPeer(stream).receive_end()


@leaves_nothing
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")  # that is the test
async def test_old_versions_of_tls_are_refused(context: ssl.SSLContext, files: Files) -> None:
    """1.1 is, 1.2 and 1.3 are not."""
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    async with serving(endpoints=[Endpoint(tls=context)]) as server:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            client = files.client()
            client.minimum_version = client.maximum_version = version
            async with await trio.open_ssl_over_tcp_stream(
                "127.0.0.1", server.port, ssl_context=client, https_compatible=True
            ) as stream:
                await stream.do_handshake()
        client = files.client()
        client.set_ciphers("ALL:@SECLEVEL=0")
        client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
        stream = await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", server.port, ssl_context=client, https_compatible=True
        )
        with pytest.raises(trio.BrokenResourceError):
            await stream.do_handshake()
        await trio.aclose_forcefully(stream)


@leaves_nothing
async def test_a_new_certificate_is_shown_without_a_restart(
    context: ssl.SSLContext, files: Files, tmp_path: Path
) -> None:
    """To new connections; open ones go on; files that cannot work change nothing."""
    renewed, other = make_files(tmp_path / "renewed"), make_files(tmp_path / "other")

    async def reach(port: int, trust: Files) -> trio.SSLStream[trio.SocketStream]:
        stream = await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", port, ssl_context=trust.client(), https_compatible=True
        )
        await stream.do_handshake()
        return stream

    async with serving(echo, endpoints=[Endpoint(tls=context)]) as server:
        before = await reach(server.port, files)
        await before.send_all(UPGRADE)
        assert (await before.receive_some()).startswith(b"HTTP/1.1 101 ")
        with pytest.raises(ConfigurationError, match="is not the key of"):
            reload_certificate(context, renewed.certificate, other.key)
        await trio.aclose_forcefully(await reach(server.port, files))
        reload_certificate(context, renewed.certificate, renewed.key)
        await trio.aclose_forcefully(await reach(server.port, renewed))
        await before.send_all(frame(1, b"still here"))
        assert (await before.receive_some()).endswith(b"still here")
        await trio.aclose_forcefully(before)
