"""PocketSphinx's C API through ctypes, on the library that its Python package ships.

The package's own classes hold the GIL while they decode, which stops the event loop
for hundreds of milliseconds; ctypes releases it around every call.  Nothing here knows
about tasks: a decoder is for one thread at a time, and every failure is a
TranscriberError.  Loading the library and a model happens on first use.
"""

from __future__ import annotations

import ctypes
import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from listenai.audio import SAMPLE_BYTES
from listenai.engines.sphinx_agreement import Word
from listenai.errors import TranscriberError

INSTALL = "install it with: pip install 'listenai[embedded]'"

_P = ctypes.c_void_p
_INT = ctypes.c_int
_INT_POINTER = ctypes.POINTER(ctypes.c_int)
_TEXT = ctypes.c_char_p
# name -> (what it returns, what it takes); pocketsphinx.h is the source.
_FUNCTIONS: Mapping[str, tuple[type | None, tuple[type, ...]]] = {
    "ps_config_parse_json": (_P, (_P, _TEXT)),
    "ps_config_free": (_INT, (_P,)),
    "ps_init": (_P, (_P,)),
    "ps_free": (_INT, (_P,)),
    "ps_add_word": (_INT, (_P, _TEXT, _TEXT, _INT)),
    "ps_add_jsgf_string": (_INT, (_P, _TEXT, _TEXT)),
    "ps_activate_search": (_INT, (_P, _TEXT)),
    "ps_start_utt": (_INT, (_P,)),
    "ps_process_raw": (_INT, (_P, _TEXT, ctypes.c_size_t, _INT, _INT)),
    "ps_end_utt": (_INT, (_P,)),
    "ps_seg_iter": (_P, (_P,)),
    "ps_seg_next": (_P, (_P,)),  # frees the one it was given
    "ps_seg_word": (_TEXT, (_P,)),
    "ps_seg_frames": (None, (_P, _INT_POINTER, _INT_POINTER)),
    "ps_seg_prob": (ctypes.c_int32, (_P, _INT_POINTER, _INT_POINTER, _INT_POINTER)),
    "ps_lookup_word": (_P, (_P, _TEXT)),  # to be freed by
    "ckd_free": (None, (_P,)),
    "ps_get_cmn": (_TEXT, (_P, _INT)),
    "ps_set_cmn": (_INT, (_P, _TEXT)),
}


# Words of the command grammar that the dictionary of the model lacks.
MORE_PRONUNCIATIONS: Mapping[str, Sequence[str]] = MappingProxyType(
    {"unmute": ("AH N M Y UW T",)},
)

# Scores of a word lattice come shifted by this (SENSCR_SHIFT), those of a search do not.
_LATTICE_SHIFT = 10


@functools.cache
def _library() -> ctypes.CDLL:
    """The wheel's extension module, seen as a plain C library."""
    try:
        from pocketsphinx import _pocketsphinx  # noqa: PLC0415 - 60 ms, and optional
    except ImportError as error:
        raise TranscriberError(f"pocketsphinx cannot be imported ({error}); {INSTALL}") from error
    library = ctypes.CDLL(_pocketsphinx.__file__)
    for name, (returns, takes) in _FUNCTIONS.items():
        try:
            function = getattr(library, name)
        except AttributeError as error:
            raise TranscriberError(
                f"this build of pocketsphinx has no {name}; version 5.1 has: {INSTALL}"
            ) from error
        function.restype, function.argtypes = returns, list(takes)
    return library


def model_path(name: str) -> Path:
    """Where a part of the model lies that pocketsphinx ships ("en-us/en-us.lm.bin")."""
    _library()
    from pocketsphinx import get_model_path  # noqa: PLC0415 - see above

    path = Path(get_model_path(name))
    if not path.exists():
        raise TranscriberError(f"the model file {path} is missing; {INSTALL} --force-reinstall")
    return path


def pronunciations(words: Iterable[str], dictionary: Path) -> dict[str, list[str]]:
    """The phones of each word, every variant, in the dictionary's order; unknown words lack.

    The dictionary has a line for each: "hello HH AH L OW", "hello(2) HH EH L OW".
    """
    wanted = set(words)
    found: dict[str, list[str]] = {}
    with dictionary.open(encoding="utf-8") as lines:
        for line in lines:
            head, _, phones = line.partition(" ")
            if (word := head.partition("(")[0]) in wanted:
                found.setdefault(word, []).append(phones.strip())
    return found


def known_words(
    words: Iterable[str], found: Mapping[str, Sequence[str]]
) -> dict[str, Sequence[str]]:
    """Every word with its phones; raises TranscriberError naming those that have none."""
    pronounced = {**MORE_PRONUNCIATIONS, **found}
    if missing := sorted(word for word in words if word not in pronounced):
        raise TranscriberError(
            f"the recognizer cannot pronounce {', '.join(missing)} of the command grammar: "
            "choose other words there, or add their phones to MORE_PRONUNCIATIONS"
        )
    return {word: pronounced[word] for word in words}


class Decoder:
    """One speech decoder, for one thread at a time; `close` frees its memory."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        """Loads models by PocketSphinx's own settings; raises TranscriberError."""
        self._library = _library()
        self._handle: int | None = None
        as_json = json.dumps({"loglevel": "FATAL", **settings}).encode()
        config = self._library.ps_config_parse_json(None, as_json)
        if not config:
            raise TranscriberError(f"pocketsphinx does not know one of these settings: {settings}")
        try:
            self._handle = self._library.ps_init(config)
        finally:
            self._library.ps_config_free(config)
        if not self._handle:
            raise TranscriberError(f"pocketsphinx cannot load its model with {settings}; {INSTALL}")

    def load_grammar(self, jsgf: str, words: Mapping[str, Iterable[str]]) -> None:
        """Searches sentences of this grammar from now on; `words` has the phones of each word."""
        for word, variants in words.items():
            for index, phones in enumerate(variants, start=1):
                name = word if index == 1 else f"{word}({index})"
                known = self._library.ps_add_word(self._open, name.encode(), phones.encode(), 0)
                if known < 0:
                    raise TranscriberError(
                        f"pocketsphinx refuses the word {name!r} with the phones {phones!r}; "
                        "phones are those of its dictionary, such as 'HH AH L OW'"
                    )
        self._check(
            self._library.ps_add_jsgf_string(self._open, b"grammar", jsgf.encode()),
            "cannot read the command grammar",
        )
        self._check(
            self._library.ps_activate_search(self._open, b"grammar"),
            "cannot search the command grammar",
        )

    def start(self) -> None:
        """Begins an utterance."""
        self._check(self._library.ps_start_utt(self._open), "cannot begin an utterance")

    def feed(self, pcm: bytes) -> None:
        """Decodes the next audio: int16 mono 16 kHz."""
        samples = len(pcm) // SAMPLE_BYTES
        self._check(
            self._library.ps_process_raw(self._open, pcm, samples, 0, 0), "cannot decode audio"
        )

    def end(self) -> None:
        """Ends the utterance; `words` are final then."""
        self._check(self._library.ps_end_utt(self._open), "cannot end an utterance")

    def words(self) -> list[Word]:
        """The best words so far, without fillers; final after `end`."""
        segments = list(self._segments())
        from_lattice = all(score % (1 << _LATTICE_SHIFT) == 0 for _, _, score in segments)
        shift = _LATTICE_SHIFT if from_lattice else 0
        return [
            Word(name.partition("(")[0], self._phones(name), frames, score / (1 << shift))
            for name, frames, score in segments
            if name[0] not in "<[("  # <sil>, [NOISE], (NULL)
        ]

    def _segments(self) -> Iterator[tuple[str, int, int]]:
        """Name ("the(2)" for a second pronunciation), frames and score of each part."""
        first, last, score, ignored = (ctypes.c_int() for _ in range(4))
        segment = self._library.ps_seg_iter(self._open)
        while segment:
            name: bytes = self._library.ps_seg_word(segment)
            self._library.ps_seg_frames(segment, first, last)
            self._library.ps_seg_prob(segment, score, ignored, ignored)
            yield name.decode(), last.value - first.value + 1, score.value
            segment = self._library.ps_seg_next(segment)

    def _phones(self, name: str) -> tuple[str, ...]:
        """How the dictionary pronounces a word; fillers are left out before."""
        phones = self._library.ps_lookup_word(self._open, name.encode())
        if not phones:
            return ()
        try:
            return tuple(ctypes.string_at(phones).decode().split())
        finally:
            self._library.ckd_free(phones)

    @property
    def channel(self) -> str:
        """The cepstral mean of the voice and channel heard so far."""
        mean: bytes | None = self._library.ps_get_cmn(self._open, 1)
        if mean is None:
            raise TranscriberError("pocketsphinx cannot tell its cepstral mean")
        return mean.decode()

    @channel.setter
    def channel(self, mean: str) -> None:
        self._check(
            self._library.ps_set_cmn(self._open, mean.encode()), "refuses this cepstral mean"
        )

    def close(self) -> None:
        """Frees the models; may be called twice."""
        if self._handle:
            self._library.ps_free(self._handle)
            self._handle = None

    @property
    def _open(self) -> int:
        if not self._handle:
            raise TranscriberError("this decoder is closed")
        return self._handle

    @staticmethod
    def _check(code: int, what: str) -> None:
        if code < 0:
            raise TranscriberError(f"pocketsphinx {what} (code {code})")
