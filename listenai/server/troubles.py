"""What can be wrong, how it shows, and what to do: one table.

The page `/docs/troubleshooting` shows it, and `python -m listenai doctor` takes its advice from
it, so that both say the same and a check without help cannot be written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import attrs


@attrs.frozen
class Trouble:
    """One thing that can be wrong."""

    anchor: str  # of its place on the page; the doctor's lines end with it
    title: str
    todo: str  # one sentence without a full stop
    more: tuple[str, ...] = ()  # how it shows, why, and what else helps; a paragraph each


_INSTALLATION = (
    Trouble(
        "python",
        "Python is too old",
        "install Python 3.11 or newer, remove .venv and run `scripts/run.sh` again",
        (
            "Python 3.12 and 3.14 have no ready PocketSphinx: there it is compiled, by a C"
            " compiler.",
        ),
    ),
    Trouble(
        "ten-vad",
        "Voice detection (TEN VAD) does not load",
        "install the C++ runtime (Debian, Ubuntu: `apt-get install libc++1`) and"
        " `pip install 'listenai[embedded]'`",
        ("It is needed whatever recognises speech: the server's own ear notices interruptions.",),
    ),
    Trouble(
        "espeak",
        "The embedded voice (espeak-ng) does not load",
        "`pip install --force-reinstall 'listenai[embedded]'`, or set `TTS_SERVICE_URL`",
        ("The library comes with a Python package: no system package and no driver is needed.",),
    ),
    Trouble(
        "sphinx",
        "The embedded recognizer (PocketSphinx) does not load",
        "`pip install --force-reinstall 'listenai[embedded]'`, or set `ASR_SERVICE_URL`",
    ),
    Trouble(
        "soundfile",
        "Music files cannot be read: libsndfile does not load",
        "`pip install --force-reinstall soundfile`; where there is no wheel for your machine,"
        " install libsndfile too (Debian, Ubuntu: `apt-get install libsndfile1`)",
    ),
    Trouble(
        "extras",
        "Something that was configured needs another package",
        "install the extra that the line names, or take the setting away",
    ),
    Trouble(
        "doctor",
        "A check of the doctor cannot be made",
        "run `python -m listenai doctor` again; if it stays so, report the line",
    ),
)

_CONFIGURATION = (
    Trouble(
        "configuration",
        "A setting cannot work, or has no effect",
        "correct it where it is given; `python -m listenai config` shows every setting and its"
        " source",
        (
            "An option wins over the environment, and that over `.env` in the working directory:"
            " the same variable may be set twice.",
        ),
    ),
    Trouble(
        "ports",
        "The port is taken or forbidden",
        "stop who listens there, or choose another port with `CLOUD_PORT` or `--port`",
        (
            "Ports below 1024 are for administrators; let a reverse proxy have them. If it is a"
            " ListenAI that was stopped, wait for its replies in progress to end.",
        ),
    ),
    Trouble(
        "keys",
        "API keys cannot be read",
        "correct `API_KEYS` or `API_KEYS_FILE`: one key a line, readable for the server's user",
    ),
    Trouble(
        "tls",
        "Certificate or key cannot be used",
        "give `TLS_CERT_FILE` and `TLS_KEY_FILE` that belong together, as PEM, readable for the"
        " server's user",
        (
            "Browsers give the microphone to https pages only (localhost excepted), so a server"
            " for other machines needs a certificate, here or in a proxy before it.",
        ),
    ),
    Trouble(
        "music",
        "Music cannot be played from the folder",
        "let `MUSIC_DIR` name a folder that the server's user can read",
        ("Without it the assistant has one tune of its own.",),
    ),
    Trouble(
        "mcp",
        "An MCP server does not answer",
        "start it by hand as MCP_SERVERS_FILE says and see what it prints; then correct the file,"
        ' or say `"disabled": true` there',
        ("The server runs without its tools, and takes them as soon as they are there.",),
    ),
    Trouble(
        "memory",
        "There is not enough memory for so many conversations",
        "lower `CLOUD_MAX_CONNECTIONS`, or allow more with `CLOUD_MEMORY_BUDGET_MB`",
        (
            "Each connection is counted with the most that it can make the server keep. Who comes"
            " when all places are taken gets a 503 and may try again.",
        ),
    ),
    Trouble(
        "models",
        "A model is missing or incomplete",
        "`python -m listenai models` shows what is looked for where;"
        " `python -m listenai models pull NAME` downloads it, and goes on where it was broken off",
        (
            "Nothing is ever downloaded without being asked for. Without network, copy the folder"
            " of the model from another machine into `MODELS_DIR`.",
            "A model with missing files is not loaded: the libraries would start it with random"
            " weights.",
        ),
    ),
)

_HEARING = (
    Trouble(
        "asr-service",
        "The speech recognition service is not reached",
        "start it (`python -m listenai asr`), and correct `ASR_SERVICE_URL`: ws:// or wss://, its"
        " host and port 9200; between machines, open that port in the firewall",
        (
            "While it is away, what was said is kept and sent again when it is back, for 60 s;"
            " after that the turn ends with ASR_ERROR. The connection of the device stays.",
            "A service that is still loading its model says MODEL_NOT_READY: wait for it. BUSY"
            " means too many connections: start another and give both URLs.",
        ),
    ),
    Trouble(
        "asr-empty",
        "No text comes of what is said",
        "speak louder or nearer, or lower `vad_threshold` with `configure`; look with"
        " `CLOUD_LOG_LEVEL=DEBUG` whether speech is noticed at all",
        (
            "The embedded recognizer knows US English commands. Other languages need another"
            " recognizer.",
            "Too little is heard of a microphone that is far away, muted, or taken by another"
            " program; the page shows the level of what it sends.",
        ),
    ),
    Trouble(
        "asr-format",
        "What is recognised is nonsense: the audio format does not match",
        "send 16-bit little-endian mono PCM at 16 kHz, without a WAV header",
        (
            "Speech that is sent at 44.1 or 48 kHz comes out slow and deep, big-endian or"
            " floating-point samples as noise, stereo at half speed.",
        ),
    ),
    Trouble(
        "asr-frames",
        "Voice detection complains about the size of frames",
        "send audio in messages of any size; leave `AUDIO_FRAME_SIZE` and `hop_size` as they are",
        (
            "Detection takes 512 bytes (256 samples, 16 ms) at a time. The server cuts what it is"
            " sent into such frames and keeps what is left over, odd bytes too; a client need not"
            " know.",
        ),
    ),
    Trouble(
        "asr-cut",
        "Sentences are cut, or their end is noticed too late",
        "raise or lower `end_of_turn_ms` and `vad_silence_frames` with `configure`",
        ("Noise above the threshold keeps a sentence open: raise `vad_threshold` in loud places.",),
    ),
    Trouble(
        "asr-results",
        "Results stop, or the same ones come again and again",
        "take a new `segment_id` for a new segment, and `is_final` for its end",
        (
            "A result that is not final is replaced by the next with the same id. Results are"
            " pushed as they come: do not ask for them, and do not wait for one before you send"
            " more audio.",
        ),
    ),
    Trouble(
        "asr-blocking",
        "Everything stands still while somebody is being recognised",
        "watch `loop_lag_seconds` at `/metrics`; let models run in services of their own"
        " (`python -m listenai asr`), not in the server's process",
        (
            "In your own client, read in one task and write in another: a client that does not"
            " read while it sends is disconnected when its messages pile up.",
        ),
    ),
    Trouble(
        "asr-timeout",
        "ASR_TIMEOUT or ASR_ERROR after a long silence",
        "give the recognizer a faster machine or a smaller model, or raise `ASR_TIMEOUT`",
        ("The first question after a start may wait for the model to load: ask again.",),
    ),
)

_THINKING = (
    Trouble(
        "llm",
        "The language model does not answer",
        "correct `LLM_BASE_URL`, `LLM_MODEL` or `LLM_API_KEY`, as the line says; without any of"
        " them the embedded assistant answers",
        (
            "401 or 403: the key. 404: the path of the URL (most end in /v1) or the model's name."
            " 429: the limit of your account. Refused connections: nobody listens there.",
            "A turn that fails ends with LLM_ERROR, and the next one is tried again; with several"
            " URLs the next server is asked first.",
        ),
    ),
    Trouble(
        "llm-timeout",
        "LLM_TIMEOUT, or replies that stop in the middle",
        "raise `LLM_TIMEOUT` or `LLM_TOKEN_TIMEOUT`, or take a smaller model",
        ("Replies that end in mid sentence without an error were cut by `LLM_MAX_TOKENS`.",),
    ),
    Trouble(
        "llm-offline",
        "“I am the offline assistant”",
        "set `LLM_BASE_URL`, or start an Ollama with a model on this machine",
    ),
)

_SPEAKING = (
    Trouble(
        "tts-service",
        "The speech synthesis service is not reached",
        "start it (`python -m listenai tts`), and correct `TTS_SERVICE_URL`: ws:// or wss://, its"
        " host, port 9300 and the path /tts; between machines, open that port in the firewall",
        (
            "While it is away, the sentence is kept and tried again for 60 s; after that the turn"
            " ends with TTS_ERROR.",
        ),
    ),
    Trouble(
        "tts-silent",
        "The reply is written, but not heard",
        "turn up the volume (“set the volume to fifty percent” works too), and touch the page"
        " once: browsers play nothing before",
        ("A device must play 16-bit PCM at the `sample_rate` of `tts_audio`, not at its own.",),
    ),
    Trouble(
        "tts-voice",
        "A voice or language is refused",
        "take one of those that the message lists, or the default of `TTS_VOICE_ID`",
    ),
    Trouble(
        "tts-late",
        "Speech comes late, in bursts, or with gaps",
        "look at the latencies that `python -m listenai talk` prints: the longest is to blame;"
        " VoxCPM needs a GPU, and fewer `TTS_INFERENCE_TIMESTEPS` make it faster",
        (
            "Long replies are spoken sentence by sentence: the first sound waits for the first"
            " sentence only. Gaps inside a sentence come from a slow network or synthesizer.",
        ),
    ),
    Trouble(
        "tts-timeout",
        "TTS_TIMEOUT or TTS_ERROR",
        "give the synthesizer a faster machine or more instances, or raise `TTS_TIMEOUT`",
    ),
)

_CONNECTING = (
    Trouble(
        "server",
        "The server that runs is not well",
        "the line and `/health` say which of asr, llm and tts failed last; see its entry here",
        (
            "A part is degraded from its error on until it does its work again. /health/ready"
            " answers 503 while the server ends.",
        ),
    ),
    Trouble(
        "connection-refused",
        "Devices cannot connect",
        "use the address that `serve` prints, ws:// (wss:// with a certificate), and open the port"
        " in the firewall; 127.0.0.1 is only this machine",
        (
            "404: the path; the answer lists those there are. 401: the key. 403: the page's origin,"
            " see `ALLOWED_ORIGINS`. 429: too many connections or wrong keys. 503: full.",
            "A reverse proxy must pass on the headers Upgrade and Connection, and not end quiet"
            " connections sooner than `CLOUD_PING_INTERVAL`.",
        ),
    ),
    Trouble(
        "connection-lost",
        "Connections end by themselves",
        "read the close code: `/docs/protocol` explains each",
        (
            "1008: no first message in 10 s, or no answer to pings. 1013: full. 4001: the same"
            " session was opened on another device. 1006: the network or a proxy.",
            "Come back with the same `session_id`: the conversation goes on where it was heard"
            " last.",
        ),
    ),
    Trouble(
        "browser",
        "The page gets no microphone, or no sound",
        "open it by https or at localhost, allow the microphone, and use a browser of the last"
        " years: it needs WebSocket, MediaStream and AudioWorklet",
        ("The developer tools of the browser (F12) show refused permissions and closed sockets.",),
    ),
    Trouble(
        "echo",
        "The assistant interrupts itself",
        'say `"echo": "cancelled"` only of devices that cancel their echo; use headphones, or turn'
        " the loudspeaker down",
    ),
    Trouble(
        "slow",
        "Everything is slow with many devices",
        "lower `CLOUD_MAX_CONCURRENT`, give recognizer and synthesizer machines of their own, and"
        " watch `/metrics`",
        ("Bigger models need more memory and processor for each session.",),
    ),
    Trouble(
        "spoken-loop",
        "The spoken test fails",
        "see the lines above it; if they are well, reinstall: `pip install --force-reinstall"
        " 'listenai[embedded]'`",
        ("A sentence is spoken by espeak-ng, heard by PocketSphinx, answered by the assistant.",),
    ),
)

SECTIONS: Final[Mapping[str, Sequence[Trouble]]] = {
    "Installation": _INSTALLATION,
    "Configuration": _CONFIGURATION,
    "Hearing (ASR)": _HEARING,
    "Thinking (LLM)": _THINKING,
    "Speaking (TTS)": _SPEAKING,
    "Connecting": _CONNECTING,
}
_TODO: Final[Mapping[str, str]] = {
    trouble.anchor: trouble.todo for troubles in SECTIONS.values() for trouble in troubles
}


def advice(anchor: str) -> str:
    """What to do about a trouble, as plain text; KeyError for none of the table."""
    return _TODO[anchor].replace("`", "")
