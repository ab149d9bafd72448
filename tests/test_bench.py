"""The benchmarks: oracle and analysers on data made up for them, the commands with little to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from wsproto.frame_protocol import FrameDecoder

sys.path.append(str(Path(__file__).parents[1] / "scripts" / "bench"))

from load import AUDIO, BINARY, Diary, frame_at, masked_frame, type_of
from reference_server import server_frame, unmasked
from report import table
from speech import (
    Segment,
    UnusableSpeech,
    check_one_each,
    consult,
    decide,
    make_loop,
    regroup,
    speak,
)
from turns import INJECTED_SECONDS, interruptions, overheads, percentile

from listenai.audio import FRAME_BYTES
from listenai.engines.ten_vad import TenVadDetector
from listenai.engines.timed import TRANSCRIPT_SECONDS

BENCH = Path(__file__).parents[1] / "scripts" / "bench"
PERIOD = 100  # messages a round: 1.6 s
ROUND_SECONDS = 1.6
SEGMENTS = [Segment(at, at + 3, at + 50) for at in range(0, 5 * PERIOD, PERIOD)]
SUSPECTED_AT, ENDED_AT = 0.048, 0.8  # seconds into a round


def diary(**heard: Sequence[float]) -> Diary:
    """Who sent five rounds, the first at 0 s, and heard this."""
    sent = {s.ended: number * ROUND_SECONDS + ENDED_AT for number, s in enumerate(SEGMENTS)}
    sent |= {s.suspected: number * ROUND_SECONDS + 0.048 for number, s in enumerate(SEGMENTS)}
    known = Diary(sent)
    known.heard.update({kind: sorted(times) for kind, times in heard.items()})
    return known


def answers(overhead: float) -> list[float]:
    """The times of first audio, so long after decision and injected delays, in each round."""
    return [n * ROUND_SECONDS + ENDED_AT + INJECTED_SECONDS + overhead for n in range(5)]


# --- the oracle ----------------------------------------------------------------------------


def test_decisions_are_those_of_the_segmenter() -> None:
    """Start at the first speech frame, suspicion at the third of four, end at the fifth silent."""
    probabilities = [0.0, 0.9, 0.1, 0.9, 0.9, *[0.0] * 8]
    assert decide(probabilities) == [Segment(1, 4, 9)]


def test_each_segment_has_its_own_suspicion() -> None:
    """A click behind a word is not suspected because the word was."""
    word, click, silence = [0.9] * 4, [0.9], [0.0] * 5
    assert decide([*word, *silence, *click, *silence]) == [Segment(0, 2, 8), Segment(9, -1, 14)]


def test_speech_that_never_ends_is_no_segment() -> None:
    """Only what has ended counts."""
    assert decide([0.9] * 50) == []


@pytest.mark.parametrize(
    ("segments", "problem"),
    [
        ([], "0 segments"),
        ([Segment(0, 3, 40), Segment(50, 53, 90)], "2 segments"),
        ([Segment(60, 63, 100)], "goes on into the next round"),
        ([Segment(0, -1, 50)], "too scattered"),
        ([Segment(0, 3, 12)], "too short"),
    ],
)
def test_an_unusable_round_is_refused(segments: list[Segment], problem: str) -> None:
    """What would make a turn ambiguous stops the run, and says what to do."""
    with pytest.raises(UnusableSpeech, match=rf"{problem}.*--speech"):
        check_one_each([*segments, Segment(100, 103, 150)], PERIOD, 2)


def test_usable_rounds_are_accepted() -> None:
    """One segment in each round passes."""
    check_one_each(SEGMENTS, PERIOD, len(SEGMENTS))


def test_silence_is_no_sentence() -> None:
    """A clip in which nothing is audible is refused."""
    with pytest.raises(UnusableSpeech, match="louder"):
        make_loop(bytes(FRAME_BYTES * 10))


@pytest.mark.engines
def test_the_sentence_gives_one_segment_in_each_round() -> None:
    """flite's sentence and TEN VAD agree with the benchmark, whatever came before."""
    assert shutil.which("flite"), "the benchmark speaks with flite: apt-get install flite"
    loop = make_loop(speak())
    with TenVadDetector() as detector:
        segments = consult(detector, loop, 10.0)
    assert len(segments) == int(10.0 / loop.seconds) + 1


def test_longer_messages_hold_the_same_audio_and_complete_the_same_decisions() -> None:
    """60 ms are 3.75 frames: frame 14 ends with message 3, frame 15 needs message 4."""
    speech = bytes([100, 100]) * (7 * FRAME_BYTES // 2)
    loop = make_loop(speech, 0.1, whole=15)
    assert len(loop.messages) == 15
    messages, [segment] = regroup(loop, [Segment(0, 14, 15)], 1920)
    assert b"".join(messages) == b"".join(loop.messages)
    assert {len(message) for message in messages} == {1920}
    assert segment == Segment(0, 3, 4)


# --- the analysers -------------------------------------------------------------------------


def test_overhead_is_what_is_left_after_decision_and_delays() -> None:
    """5 ms too much, in every turn that is neither the first nor the last."""
    found = overheads([diary(audio=answers(0.005))], SEGMENTS)
    assert found.milliseconds == pytest.approx([5.0] * 3)
    assert found.missed == 0


def test_a_turn_without_audio_is_missed() -> None:
    """No answer before the next decision is no overhead but a failure."""
    times = answers(0.005)
    del times[2]
    found = overheads([diary(audio=times)], SEGMENTS)
    assert (len(found.milliseconds), found.missed) == (2, 1)


def test_audio_of_the_previous_reply_is_no_answer() -> None:
    """What comes before the injected delays allow cannot answer this turn."""
    found = overheads(
        [diary(audio=[*answers(0.005), 2 * ROUND_SECONDS + ENDED_AT + 0.1])], SEGMENTS
    )
    assert (len(found.milliseconds), found.missed) == (2, 1)


def spoken_over(pause: float, flush: float, stale: Sequence[float] = ()) -> Diary:
    """Hears a reply until just before each suspicion; told to pause and flush after so long."""
    starts = [number * ROUND_SECONDS for number in range(5)]
    return diary(
        audio=[
            *(start + 0.03 for start in starts),
            *(start + ENDED_AT + INJECTED_SECONDS + 0.005 for start in starts),
            *stale,
        ],
        pause=[start + SUSPECTED_AT + pause for start in starts],
        flush=[start + ENDED_AT + TRANSCRIPT_SECONDS + flush for start in starts],
    )


def test_interruptions_are_timed_from_their_decisions() -> None:
    """`pause` after the suspicion, `flush` after the transcript, and quiet in between."""
    found = interruptions([spoken_over(0.002, 0.004)], SEGMENTS)
    assert found.pause_ms == pytest.approx([2.0, 2.0])
    assert found.flush_ms == pytest.approx([4.0, 4.0])
    assert (found.missed, found.silent, found.stale_audio) == (0, 0, 0)


def test_audio_after_a_pause_is_counted() -> None:
    """The server's promise not to send any is checked."""
    stale = 3 * ROUND_SECONDS + SUSPECTED_AT + 0.1
    assert interruptions([spoken_over(0.002, 0.004, [stale])], SEGMENTS).stale_audio == 1


def test_a_pause_that_does_not_come_is_missed() -> None:
    """Neither is the pause of the next sentence taken for it."""
    told = spoken_over(0.002, 0.004)
    del told.heard["pause"][2]
    found = interruptions([told], SEGMENTS)
    assert (len(found.pause_ms), found.missed) == (1, 1)


def test_a_silent_reply_cannot_be_interrupted() -> None:
    """A sentence that meets no audio is neither a barge-in nor a failure."""
    told = spoken_over(0.002, 0.004)
    del told.heard[AUDIO][4:]  # nothing from the third round on
    assert interruptions([told], SEGMENTS).silent == 2


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 51), (99, 100), (100, 100)])
def test_percentiles_are_values_that_occurred(percent: float, value: int) -> None:
    """Nearest rank, over values in any order."""
    assert percentile(list(range(100, 0, -1)), percent) == value


def test_nothing_has_no_percentile() -> None:
    """A run without turns shows a dash, not a zero."""
    assert percentile([], 99) is None
    assert table([{"devices": 3, "overhead_p99_ms": None}]).split() == ["N", "p99", "ms", "3", "-"]


# --- frames --------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 125, 126, 512])
def test_a_masked_frame_is_what_a_server_expects(length: int) -> None:
    """An independent decoder and the reference server read the payload."""
    payload = bytes(at % 251 for at in range(length))
    frame = masked_frame(BINARY, payload)
    decoder = FrameDecoder(client=False)
    decoder.receive_bytes(frame)
    decoded = decoder.process_buffer()
    assert decoded is not None
    assert (decoded.opcode, bytes(decoded.payload)) == (BINARY, payload)
    body = frame[len(frame) - length :]
    mask = frame[len(frame) - length - 4 : len(frame) - length]
    assert unmasked(body, mask) == payload


def test_frames_are_read_one_after_the_other() -> None:
    """Short and long ones; a frame that is not whole is waited for."""
    payloads = [b"short", bytes(1920), b""]
    stream = b"".join(server_frame(BINARY, payload) for payload in payloads)
    read, at = [], 0
    while frame := frame_at(stream, at):
        opcode, start, at = frame
        assert opcode == BINARY
        read.append(stream[start:at])
    assert read == payloads
    assert all(frame_at(stream[:cut], 7) is None for cut in range(7, 7 + 4 + 1920))


def test_a_message_is_known_by_its_type() -> None:
    """With or without spaces in the JSON."""
    assert type_of(b'{"type":"pause","stream_id":1}') == "pause"
    assert type_of(b'{"type": "error", "message": "\\"type\\""}') == "error"


# --- the commands ----------------------------------------------------------------------------


def run(command: str, *options: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A benchmark in a process of its own, as people run it."""
    return subprocess.run(
        [sys.executable, BENCH / f"{command}.py", *options],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
    )


def measured(folder: Path, command: str, *options: str) -> list[dict[str, Any]]:
    """The rows that a benchmark wrote; each of them is a line of its table, too."""
    path = folder / "rows.json"
    done = run(command, *options, "--json", str(path))
    assert done.returncode == 0, done.stderr
    document = json.loads(path.read_text())
    assert document["bench"].replace(" ", "_").replace("-", "_") == command
    assert document["command"][: len(options)] == list(options)
    rows: list[dict[str, Any]] = document["rows"]
    lines = [line.split() for line in done.stdout.splitlines()]
    for row in rows:
        words = str(next(iter(row.values()))).split()
        assert any(line[: len(words)] == words for line in lines), f"{row} is not in the table"
    return rows


@pytest.mark.engines
@pytest.mark.slow
def test_the_frame_path_is_measured_by_stage(tmp_path: Path) -> None:
    """Every stage takes some time and none more than a frame lasts; the server takes more."""
    options = ("--frames", "20", "--rounds", "1", "--devices", "2", "--secs", "1")
    rows = measured(tmp_path, "frame_path", *options)
    took = {row["stage"].removeprefix("  of it "): row["us_p50"] for row in rows}
    assert all(0 < microseconds < 16_000 for microseconds in took.values()), took
    assert took["frames.feed"] < took["wire.receive, woken"]
    assert took["segmenter"] < took["recognizer, rest"]
    assert took["TEN VAD"] < took["served, silence"]
    assert len(rows) == 9


@pytest.mark.engines
@pytest.mark.slow
def test_services_are_measured_beside_their_engines(tmp_path: Path) -> None:
    """Each of the three, alone and through its service; nothing is faster than its engine."""
    rows = measured(tmp_path, "service_costs", "--runs", "1")
    found = [(row["stage"], row["through"]) for row in rows]
    assert found == [
        (stage, through)
        for stage in ("asr", "llm", "tts")
        for through in ("engine alone", "service")
    ]
    assert all(row["injected_ms"] in (80, 100) and row["runs"] == 1 for row in rows)
    assert all(row["first_p50_ms"] > -1 and row["last_p50_ms"] > -1 for row in rows), rows


@pytest.mark.engines
@pytest.mark.slow
def test_the_embedded_engines_are_measured_on_fixtures(tmp_path: Path) -> None:
    """Final and first audio of one sentence, which is understood; a partial where one was told."""
    options = ("--asr", "embedded", "--tts", "embedded", "--fixtures", "1")
    asr, tts = measured(tmp_path, "engine_answers", *options)
    assert (asr["stage"], asr["exact"], asr["word_error_rate"]) == ("asr", 1, 0.0)
    assert asr["final_p50_ms"] > 0
    assert (asr["partial_p50_ms"] is None) == (asr["without_partial"] == 1)
    assert tts["stage"] == "tts"
    assert 0 < tts["real_time_factor"] < 10
    assert tts["audio_p50_ms"] > 0


def test_an_unknown_engine_is_refused() -> None:
    """The answer names those that there are."""
    done = run("engine_answers", "--asr", "embedded,parrot")
    assert done.returncode != 0
    assert "parrot is unknown" in done.stderr
    assert "faster-whisper" in done.stderr


def test_an_engine_without_its_model_is_named(tmp_path: Path) -> None:
    """What is not measured is told, with what to do; with nothing to measure, that is an error."""
    done = run("engine_answers", "--asr", "vosk", "--tts", "", cwd=tmp_path)
    assert done.returncode != 0
    assert "asr vosk: not measured" in done.stderr
    assert "none of these engines is here" in done.stderr


@pytest.mark.engines
@pytest.mark.slow
def test_start_up_is_measured_before_and_after_loading(tmp_path: Path) -> None:
    """Ready comes before warm, and takes less memory; the imports are told by package."""
    rows = measured(tmp_path, "start_up", "--starts", "1", "--imports")
    first, second, *imports = rows
    for row in (first, second):
        assert row["cpu_ms"] > 0
        assert 0 < row["ready_ms"] < row["warm_ms"]
        assert row["pss_mib"] <= row["rss_mib"] < row["warm_rss_mib"]
    assert second["cpu_ms"] < first["cpu_ms"], "the first start compiles"
    assert imports[0]["package"] == "listenai"


def test_a_server_loads_no_library_that_it_may_never_need() -> None:
    """Those of services, tokens and models are loaded by whoever is told to use them."""
    needless = {"trio_websocket", "jwt", "cryptography", "mcp", "torch", "sherpa_onnx", "vosk"}
    code = f"import sys, listenai.cli, listenai.app; print(*{needless} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
