"""Tiny ONNX graphs that the real sherpa-onnx loads.

SenseVoice: the graph looks up, by the number of the language, which token each frame is.
Piper and Kokoro: each phoneme sounds for a fixed number of samples, at a level that tells the
speaker.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
SAMPLES_PER_PHONEME = 256
SAMPLE_RATE = 22_050
MOST_FRAMES = 600  # 36 s
LANGUAGES = ("auto", "zh", "en", "ja", "ko", "yue")
_STYLES, _STYLE_WIDTH = 510, 4  # of Kokoro: for texts of up to so many phonemes


def build_sensevoice(folder: Path, texts: Mapping[str, str]) -> Path:
    """Hears these words ("turn on") by the language asked for; without one, those of "auto"."""
    folder.mkdir(parents=True)
    words = sorted({f"▁{word}" for text in texts.values() for word in text.split()})
    tokens = ["<blank>", "<|en|>", "<|NEUTRAL|>", "<|Speech|>", "<|woitn|>", *words]
    lines = (f"{token} {number}\n" for number, token in enumerate(tokens))
    (folder / "tokens.txt").write_text("".join(lines), "utf-8")
    spoken = np.zeros((len(LANGUAGES), MOST_FRAMES), np.int64)
    for number, language in enumerate(LANGUAGES):
        text = texts.get(language, texts["auto"])
        row = [1, 2, 3, 4, *(tokens.index(f"▁{word}") for word in text.split())]
        spoken[number, : len(row)] = row
    table = np.eye(len(tokens), dtype=np.float32)[spoken]  # (language, frame, token)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "language"], ["chosen"], axis=0),
            helper.make_node("Shape", ["x"], ["length"], start=1, end=2),
            helper.make_node("Add", ["length", "tags"], ["end"]),
            helper.make_node("Slice", ["chosen", "start", "end", "axis"], ["logits"]),
        ],
        "sensevoice",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "T", 560]),
            helper.make_tensor_value_info("x_length", TensorProto.INT32, ["N"]),
            helper.make_tensor_value_info("language", TensorProto.INT32, ["N"]),
            helper.make_tensor_value_info("text_norm", TensorProto.INT32, ["N"]),
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", "L", len(tokens)])],
        _constants(table=table, tags=[4], start=[0], axis=[1]),
    )
    about = {
        "comment": "tiny",
        "vocab_size": len(tokens),
        "lfr_window_size": 7,
        "lfr_window_shift": 6,
        "normalize_samples": 0,
        "with_itn": 14,
        "without_itn": 15,
        "neg_mean": ",".join(["0"] * 560),
        "inv_stddev": ",".join(["1"] * 560),
        **{f"lang_{language}": number for number, language in enumerate(LANGUAGES)},
    }
    _save(graph, about, folder / "model.int8.onnx")
    return folder


def build_piper(folder: Path, espeak_data: Path) -> Path:
    """A Piper voice with one speaker; phonemes come from espeak-ng's data."""
    folder.mkdir(parents=True)
    _save_phonemes(folder, espeak_data)
    graph = helper.make_graph(
        [*_sound("input", "level"), helper.make_node("Reshape", ["wave", "form"], ["output"])],
        "piper",
        [
            helper.make_tensor_value_info("input", TensorProto.INT64, [1, "T"]),
            helper.make_tensor_value_info("input_lengths", TensorProto.INT64, [1]),
            helper.make_tensor_value_info("scales", TensorProto.FLOAT, [3]),
        ],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1, 1, "S"])],
        _constants(level=np.float32(0.25), form=[1, 1, 1, -1], **_SOUND_CONSTANTS),
    )
    about = {"n_speakers": 1, "language": "English", "comment": "piper", "voice": "en-us"}
    _save(graph, {**about, "sample_rate": SAMPLE_RATE, "has_espeak": 1}, folder / "tiny.onnx")
    return folder


def build_kokoro(folder: Path, espeak_data: Path, *, speakers: int = 3) -> Path:
    """A Kokoro model whose speaker n sounds at the level (n + 1) / 10."""
    folder.mkdir(parents=True)
    _save_phonemes(folder, espeak_data)
    (folder / "lexicon-us-en.txt").write_text("hello h ə l\n", "utf-8")
    levels = (np.arange(speakers, dtype=np.float32) + 1) / 10
    styles = np.broadcast_to(levels[:, None, None], (speakers, _STYLES, _STYLE_WIDTH))
    (folder / "voices.bin").write_bytes(styles.astype("<f4").tobytes())
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["style"], ["level"], keepdims=0),
            *_sound("tokens", "level"),
            helper.make_node("Reshape", ["wave", "form"], ["audio"]),
        ],
        "kokoro",
        [
            helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, "T"]),
            helper.make_tensor_value_info("style", TensorProto.FLOAT, [1, _STYLE_WIDTH]),
            helper.make_tensor_value_info("speed", TensorProto.FLOAT, [1]),
        ],
        [helper.make_tensor_value_info("audio", TensorProto.FLOAT, ["S"])],
        _constants(form=[-1], **_SOUND_CONSTANTS),
    )
    about = {
        "model_type": "kokoro",
        "language": "English",
        "has_espeak": 1,
        "sample_rate": SAMPLE_RATE,
        "version": 1,
        "voice": "en-us",
        "style_dim": f"{_STYLES},1,{_STYLE_WIDTH}",
        "n_speakers": speakers,
        "speaker_names": ",".join(f"s{number}" for number in range(speakers)),
    }
    _save(graph, about, folder / "model.onnx")
    return folder


_SOUND_CONSTANTS = {"samples": [SAMPLES_PER_PHONEME]}


def _sound(phonemes: str, level: str) -> list[onnx.NodeProto]:
    """So many samples of one level as there are phonemes: the output `wave`, flat."""
    return [
        helper.make_node("Shape", [phonemes], ["count"], start=1, end=2),
        helper.make_node("Mul", ["count", "samples"], ["size"]),
        helper.make_node("Expand", [level, "size"], ["wave"]),
    ]


def _save_phonemes(folder: Path, espeak_data: Path) -> None:
    """Every phoneme that English needs, and espeak-ng's data beside them."""
    symbols = [
        *("_", "^", "$", " ", *"!'(),-.:;?"),
        *"abcdefghijklmnopqrstuvwxyz",
        *"æçðŋœɐɑɒɔɕɖəɚɛɜɡɪɫɬɹɾʃʊʌʒʔʲˈˌːθᵻɝ̩̃",
    ]
    lines = (f"{symbol} {number}\n" for number, symbol in enumerate(symbols))
    (folder / "tokens.txt").write_text("".join(lines), "utf-8")
    (folder / "espeak-ng-data").symlink_to(espeak_data, target_is_directory=True)


def _constants(**values: Any) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]


def _save(graph: onnx.GraphProto, about: Mapping[str, Any], path: Path) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 8
    helper.set_model_props(model, {key: str(value) for key, value in about.items()})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
