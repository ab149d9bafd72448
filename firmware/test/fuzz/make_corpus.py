#!/usr/bin/env python3
"""Writes the small corpus that fuzzing begins with: each message once, whole and in pieces."""

from __future__ import annotations

import struct
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"

MESSAGES = {
    "ready": '{"type":"status","state":"ready","session_id":"s","restored":true,'
    '"configuration":{"language":"en","end_of_turn_ms":null},"capabilities":{"voices":["a"]}}',
    "hearing": '{"type":"status","state":"hearing","session_id":"s"}',
    "asr": '{"type":"asr_result","text":"\\u4f60\\ud83d\\ude00 ok","is_final":true,'
    '"speeching":false,"segment_id":1,"turn_id":1}',
    "delta": '{"type":"llm_response","turn_id":1,"delta":true,"text":" a \\"b\\"\\n"}',
    "call": '{"type":"tool_call","turn_id":1,"call_id":"c.1","name":"set_volume",'
    '"arguments":{"percent":50.0,"x":[1,{"y":"]"}]},"target":"device"}',
    "start": '{"type":"tts_audio","state":"start","turn_id":1,"stream_id":1,"sample_rate":16000}',
    "end": '{"type":"tts_audio","state":"end","stream_id":1,"samples":4}',
    "pause": '{"type":"pause","stream_id":1}',
    "resume": '{"type":"resume","stream_id":1}',
    "flush": '{"type":"flush","stream_id":1}',
    "interrupted": '{"type":"interrupted","turn_id":1,"heard_text":"a","played_ms":1.5e2}',
    "error": '{"type":"error","code":"RATE_LIMITED","message":"later","retry_after_ms":100}',
    "numbers": '{"a":-0,"b":0.5,"c":1E+9,"d":[true,false,null,[],{}]}',
    "bad": '{"type":"flush","stream_id":01}',
    "hotpin": '{"status":"processing","stage":"tts","response":"Hi."}',
}
PCM = struct.pack("<8h", *range(0, 8000, 1000))
WAV = (
    b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80>\0\0\0}\0\0\2\0\x10\0data"
    + struct.pack("<I", len(PCM))
    + PCM
)


def piece(opcode: int, data: bytes, *, fin: bool = True, offset: int = 0, more: bool = False):
    """One piece as the fuzz target reads it."""
    return bytes([opcode | (128 if fin else 0) | (64 if more else 0), len(data), offset]) + data


def text(name: str) -> bytes:
    """A message in frames of at most 200 bytes."""
    data = MESSAGES[name].encode()
    parts = [data[at : at + 200] for at in range(0, len(data), 200)]
    return b"".join(
        piece(1 if i == 0 else 0, part, fin=i + 1 == len(parts)) for i, part in enumerate(parts)
    )


def main() -> None:
    """Writes both directories."""
    proto, reassembly = CORPUS / "proto", CORPUS / "reassembly"
    for name, message in MESSAGES.items():
        (proto / name).write_bytes(b"\x06" + message.encode())
    (proto / "wav").write_bytes(b"\x04" + WAV)
    reply = text("ready") + text("start") + piece(2, PCM) * 4
    split = piece(2, PCM[:3], more=True) + piece(2, PCM[3:], offset=3)
    hotpin = b"\1" + piece(1, b'{"status":"connected"}') + text("hotpin")
    seeds = {
        "reply": b"\0" + reply + text("end"),
        "held": b"\0" + reply + text("pause") + text("resume") + text("pause") + text("flush"),
        "stale": b"\0" + reply + text("flush") + piece(2, PCM) + text("start"),
        "call": b"\0" + text("ready") + text("call"),
        "pieces": b"\0" + text("ready") + text("start") + split,
        "gap": b"\0" + text("ready") + piece(1, b"{", offset=4),
        "hotpin": hotpin + piece(2, WAV) + piece(1, b'{"status":"complete"}'),
        "hotpin_pieces": hotpin + piece(2, WAV[:30], fin=False) + piece(0, WAV[30:]),
    }
    for name, seed in seeds.items():
        (reassembly / name).write_bytes(seed)


if __name__ == "__main__":
    main()
