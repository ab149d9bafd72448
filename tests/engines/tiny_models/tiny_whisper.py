"""Writes a tiny Whisper model in CTranslate2's format, which says what it is told to say.

All layers are nothing but their residual connections, so what the decoder sees is the position of
a token, and each position's output is one word: the real loader, features, encoder, search and
tokenizer run, and the text is known.  python tiny_whisper.py FOLDER WORD…
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers
from ctranslate2.specs import WhisperSpec

PROMPT_TOKENS = 4  # start, language, task, no timestamps; the first and the last in English only
MULTILINGUAL = ""  # the token by which CTranslate2 knows a vocabulary of many languages
# In the order in which CTranslate2 counts the languages.
SPECIAL = (
    *("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|zh|>", "<|de|>"),
    *("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>"),
    *("<|nospeech|>", "<|notimestamps|>"),
)
WIDTH, HEADS, MELS, AUDIO_FRAMES, TEXT_TOKENS = 64, 1, 80, 1500, 448
TIMES = 1501  # tokens of 20 ms in a window of 30 s
CERTAIN = 40.0  # of a logit: all others are 0


def tiny_whisper(
    folder: Path, words: Sequence[str], *, multilingual: bool = True, width: int = WIDTH
) -> Path:
    """The folder, with a model in it that hears these words in everything."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = ["<unk>", *([MULTILINGUAL] if multilingual else []), *sorted(set(words)), *SPECIAL]
    vocabulary += [f"<|{number * 0.02:.2f}|>" for number in range(TIMES)]
    prompt = PROMPT_TOKENS if multilingual else PROMPT_TOKENS - 2
    said = [vocabulary.index(word) for word in (*words, "<|endoftext|>")]
    spec = _spec(len(vocabulary), said, prompt - 1, width)
    spec.register_vocabulary(vocabulary)
    languages = [vocabulary.index(f"<|{code}|>") for code in ("en", "zh", "de")]
    spec.config.lang_ids = languages
    spec.config.suppress_ids, spec.config.suppress_ids_begin = [], []
    spec.config.alignment_heads = [(0, 0)]
    spec.validate()
    spec.optimize(quantization=None)
    spec.save(str(folder))
    _save_tokenizer(folder, vocabulary)
    extractor = {"feature_size": MELS, "sampling_rate": 16_000, "hop_length": 160, "n_fft": 400}
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
    return folder


def _save_tokenizer(folder: Path, vocabulary: Sequence[str]) -> None:
    numbers = {token: number for number, token in enumerate(vocabulary)}
    model = tokenizers.models.WordLevel(numbers, unk_token="<unk>")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([token for token in SPECIAL if token in numbers])
    tokenizer.save(str(folder / "tokenizer.json"))


def _spec(size: int, said: Sequence[int], first: int, width: int) -> WhisperSpec:
    """A model whose output at position `first` is the first of the tokens `said`."""
    spec = WhisperSpec(1, HEADS, 1, HEADS)
    encoder, decoder = spec.encoder, spec.decoder
    encoder.conv1.weight, encoder.conv1.bias = _nothing(width, MELS, 3), _nothing(width)
    encoder.conv2.weight, encoder.conv2.bias = _nothing(width, width, 3), _nothing(width)
    encoder.position_encodings.encodings = _nothing(AUDIO_FRAMES, width)
    _layer_norm(encoder.layer_norm, width)
    positions = _nothing(TEXT_TOKENS, width)
    decoder.embeddings.weight = _nothing(size, width)
    decoder.projection.weight = _nothing(size, width)
    for number, token in enumerate(said):
        positions[first + number, number] = 1.0
        decoder.projection.weight[token, number] += CERTAIN / width**0.5
    decoder.position_encodings.encodings = positions
    _layer_norm(decoder.layer_norm, width)
    _silence(encoder.layer[0], width)
    _silence(decoder.layer[0], width)
    attention = decoder.layer[0].attention
    _layer_norm(attention.layer_norm, width)
    for part, outputs in zip(attention.linear, (width, 2 * width, width), strict=True):
        part.weight, part.bias = _nothing(outputs, width), _nothing(outputs)
    return spec


def _silence(layer: object, width: int) -> None:
    own, feed = layer.self_attention, layer.ffn  # type: ignore[attr-defined]
    _layer_norm(own.layer_norm, width)
    for part, outputs in zip(own.linear, (3 * width, width), strict=True):
        part.weight, part.bias = _nothing(outputs, width), _nothing(outputs)
    _layer_norm(feed.layer_norm, width)
    for part in (feed.linear_0, feed.linear_1):
        part.weight, part.bias = _nothing(width, width), _nothing(width)


def _layer_norm(norm: object, width: int) -> None:
    norm.gamma, norm.beta = np.ones(width, np.float32), _nothing(width)  # type: ignore[attr-defined]


def _nothing(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


if __name__ == "__main__":
    tiny_whisper(Path(sys.argv[1]), sys.argv[2:])
