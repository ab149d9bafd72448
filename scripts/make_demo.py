"""Makes the page's built-in demo of a session that the page exported.

    python scripts/make_demo.py listenai-session-….zip [--until SECONDS]

The demo has the format of an export (see web/session.js), unpacked and made small: the
microphone's silence is left out of its track, the tracks have no gaps, and their audio is
8-bit µ-law.  Nothing else is changed: what happened in it happened.
"""

from __future__ import annotations

import io
import json
import struct
import wave
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

DEMO = Path(__file__).parents[1] / "web" / "demo"
MAX_BYTES = 400 * 1024  # of all files: what a page may cost that nobody asked to play it
SILENT_RMS = 60  # of int16; a quieter line of the microphone is left out
MU_LAW = 7  # WAVE_FORMAT_MULAW

Samples = NDArray[np.int16]
Line = dict[str, Any]


@click.command(help=__doc__)
@click.argument("export", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--until", type=float, default=float("inf"), help="Seconds of the session to keep.")
@click.option("--to", "directory", default=DEMO, type=click.Path(path_type=Path))
def main(export: Path, until: float, directory: Path) -> None:
    """Writes the demo's files; fails when they are too large."""
    files = make_demo(export, until)
    size = sum(map(len, files.values()))
    if size > MAX_BYTES:
        raise click.ClickException(
            f"the demo has {size // 1024} KiB, at most {MAX_BYTES // 1024} are allowed: "
            "use --until, or record a shorter session"
        )
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    click.echo(f"{directory}: {size / 1024:.0f} KiB in {', '.join(files)}")


def make_demo(export: Path, until: float) -> dict[str, bytes]:
    """The demo's files by name."""
    with zipfile.ZipFile(export) as archive:
        head, *lines = map(json.loads, archive.read("session.jsonl").splitlines())
        tracks = {
            name: _read_wav(archive.read(track["file"])) for name, track in head["tracks"].items()
        }
    kept: dict[str, list[Samples]] = {name: [] for name in tracks}
    written = [head, *_compact(lines, tracks, kept, until)]
    files = {"session.jsonl": "".join(map(_json_line, written)).encode()}
    for name, track in head["tracks"].items():
        samples = np.concatenate([np.zeros(0, np.int16), *kept[name]])
        files[track["file"]] = mu_law_wav(samples, track["rate"])
    return files


def _compact(
    lines: list[Line], tracks: dict[str, Samples], kept: dict[str, list[Samples]], until: float
) -> Iterator[Line]:
    """The lines that are kept, their audio put behind one another in `kept`."""
    lengths = dict.fromkeys(tracks, 0)
    for line in lines:
        if line["at"] > until * 1000:
            return
        if "track" in line:
            name = line["track"]
            samples = tracks[name][line["from"] :][: line["samples"]]
            if line["source"] == "microphone" and _rms(samples) < SILENT_RMS:
                continue
            line = line | {"from": lengths[name]}  # noqa: PLW2901 - the same line, moved
            kept[name].append(samples)
            lengths[name] += len(samples)
        yield line


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples.astype(np.float64))))) if len(samples) else 0.0


def _json_line(line: Line) -> str:
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"


def _read_wav(data: bytes) -> Samples:
    with wave.open(io.BytesIO(data)) as reader:
        return np.frombuffer(reader.readframes(reader.getnframes()), dtype="<i2")


def mu_law_wav(samples: Samples, rate: int) -> bytes:
    """A WAV file of 8-bit µ-law (G.711), one channel."""
    coded = mu_law(samples).tobytes()
    form = struct.pack("<HHIIHHH", MU_LAW, 1, rate, rate, 1, 8, 0)
    padding = b"\0" * (len(coded) % 2)
    chunks = [(b"fmt ", form), (b"fact", struct.pack("<I", len(coded))), (b"data", coded + padding)]
    body = b"".join(
        tag + struct.pack("<I", len(coded) if tag == b"data" else len(content)) + content
        for tag, content in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def mu_law(samples: Samples) -> NDArray[np.uint8]:
    """G.711: sign, three bits of exponent, four of mantissa, all inverted."""
    magnitude = np.minimum(np.abs(samples.astype(np.int32)), 32635) + 132
    exponent = np.floor(np.log2(magnitude)).astype(np.int32) - 7
    mantissa = (magnitude >> (exponent + 3)) & 15
    sign = np.where(samples < 0, 128, 0)
    inverted: NDArray[np.uint8] = (~(sign | (exponent << 4) | mantissa) & 255).astype(np.uint8)
    return inverted


if __name__ == "__main__":
    main()
