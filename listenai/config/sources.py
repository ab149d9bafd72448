"""Where settings come from: options, the environment, and the file `.env`, in that order."""

from __future__ import annotations

import io
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import attrs
from dotenv.parser import parse_stream


class Source(StrEnum):
    """Where a value comes from, as it is shown."""

    DEFAULT = "default"
    ENV_FILE = ".env"
    ENVIRONMENT = "environment"
    OPTION = "option"


@attrs.frozen
class Given:
    """A value somebody gave, still as text."""

    variable: str  # the name it was given under
    text: str
    source: Source


@attrs.frozen
class Sources:
    """All that was given."""

    options: Mapping[str, str]  # by variable
    environment: Mapping[str, str]
    env_file: Mapping[str, str]

    def find(self, variable: str) -> Given | None:
        """The value that wins for a name."""
        for source, given in (
            (Source.OPTION, self.options),
            (Source.ENVIRONMENT, self.environment),
            (Source.ENV_FILE, self.env_file),
        ):
            if variable in given:
                return Given(variable, given[variable], source)
        return None

    @property
    def names(self) -> list[str]:
        """Everything that was given, each name once."""
        return sorted({*self.options, *self.environment, *self.env_file})


def read_env_file(path: Path, problems: list[str]) -> Mapping[str, str]:
    """The variables in a `.env` file, taken literally (`$NAME` is not replaced); none: no file.

    What is wrong with it is added to `problems`, by line and never with the line's text: there
    may be a secret in it.
    """
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        return {}
    except OSError as error:
        problems.append(f"{path}: cannot be read ({error.strerror}); correct or remove it")
        return {}
    except UnicodeDecodeError as error:
        problems.append(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8")
        return {}
    found: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(text)):
        # A binding begins with the blank lines before it.
        line = binding.original.line + len(_blank_lines(binding.original.string))
        if binding.error or (binding.key is not None and binding.value is None):
            problems.append(f'{path} line {line}: must be NAME=value, NAME="value" or # a comment')
        elif binding.key in found:
            problems.append(f"{path} line {line}: {binding.key} is there twice; keep one of them")
        elif binding.key is not None and binding.value is not None:
            found[binding.key] = binding.value
    return found


def _blank_lines(text: str) -> list[str]:
    return (text[: len(text) - len(text.lstrip())]).splitlines()
