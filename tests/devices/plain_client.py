"""A device written from the protocol's description alone: plain_client.py URL restore|takeover.

Prints what it was told as one JSON object; knows nothing of the server's code."""

import json
import socket
import sys

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect


def start(link: ClientConnection, **more: str) -> dict:
    return ask(link, "status", type="start_session", capabilities={"flush": True}, **more)


def ask(link: ClientConnection, kind: str, **message: object) -> dict:
    """Sends a message; the whole answer of this kind."""
    link.send(json.dumps(message))
    return wait_for(link, lambda m: m["type"] == kind and "delta" not in m)


def wait_for(link: ClientConnection, wanted) -> dict:
    """The next text message that is wanted; audio before it is thrown away."""
    while isinstance(message := link.recv(timeout=20), bytes) or not wanted(json.loads(message)):
        pass
    return json.loads(message)


def restore(url: str) -> dict:
    """Leaves in the middle of a story, comes back, and asks what it was about."""
    with connect(url) as link:
        first = start(link)
        link.send(json.dumps({"type": "text", "text": "tell me a story"}))
        chunks = 0
        while chunks < 60:  # of 60 ms each: some seconds
            chunks += isinstance(link.recv(timeout=20), bytes)
        link.socket.shutdown(socket.SHUT_RDWR)  # no goodbye: the battery is empty
    with connect(url) as link:
        second = start(link, session_id=first["session_id"])
        stats = ask(link, "session_stats", type="session_stats")
        answer = ask(link, "llm_response", type="text", text="repeat that")
    return {"first": first, "second": second, "stats": stats, "answer": answer}


def takeover(url: str) -> dict:
    """Opens its session a second time; what becomes of the first connection?"""
    with connect(url) as older, connect(url) as newer:
        first = start(older)
        second = start(newer, session_id=first["session_id"])
        try:
            error = wait_for(older, lambda m: m["type"] == "error")
            wait_for(older, lambda m: False)
        except ConnectionClosed as closed:
            code = closed.rcvd and closed.rcvd.code
        pong = ask(newer, "pong", type="ping", id=5)
    return {"first": first, "second": second, "error": error, "close_code": code, "pong": pong}


print(json.dumps({"restore": restore, "takeover": takeover}[sys.argv[2]](sys.argv[1])))
