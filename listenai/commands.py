"""The commands that need no language model: one grammar to hear them and to understand them.

`commands.jsgf` is the recognizer's search graph and this module's source, so what can
be heard can be understood.  Read is the part of JSGF that it uses: words, sequences,
`a | b`, `[optional]`, `(group)`, `<rule>`, comments.  Everything else (weights, tags,
`*`, `+`, imports, recursion) is refused with the line it stands in.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Iterator, Mapping
from importlib import resources

import attrs

from listenai.errors import ConfigurationError

# --- what a grammar is made of -----------------------------------------------------------


@attrs.frozen
class Word:
    """One word, in lower case."""

    text: str


@attrs.frozen
class Rule:
    """`<name>`: another rule's body."""

    name: str


@attrs.frozen
class Sequence:
    """One part after the other."""

    parts: tuple[Node, ...]


@attrs.frozen
class Choice:
    """One of several."""

    options: tuple[Node, ...]


@attrs.frozen
class Optional:
    """`[part]`: may be missing."""

    part: Node


Node = Word | Rule | Sequence | Choice | Optional


# --- sentences ---------------------------------------------------------------------------

_CONTRACTIONS = {"what's": "what is", "how's": "how is", "who's": "who is", "ok": "okay"}
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
_LETTERS = r"[^\W\d_]+"
_PIECE = re.compile(rf"{_LETTERS}(?:'{_LETTERS})*|\d+(?:[.,:]\d+)*|%")


def spoken_words(text: str) -> list[str]:
    """The words of a text as they are spoken: lower case, no punctuation, "50%" in words."""
    plain = text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    words: list[str] = []
    for piece in _PIECE.findall(plain):
        if piece == "%":
            words.append("percent")
        elif piece.isdecimal() and len(piece) <= 3:
            words += _number_words(int(piece)) or [piece]
        else:
            words += _CONTRACTIONS.get(piece, piece).split()
    return words


def number(words: str) -> int:
    """The value of a grammar number, "forty five" or "a hundred"; ValueError for other words."""
    value = 0
    for word in words.replace("a hundred", "hundred").split() or [words]:
        if word in _ONES:
            value += _ONES.index(word)
        elif word in _TENS[2:]:
            value += 10 * _TENS.index(word)
        elif word == "hundred":
            value = 100 * max(1, value)
        else:
            raise ValueError(f"{word!r} in {words!r} is no number word of the command grammar")
    return value


def _number_words(value: int) -> list[str] | None:
    """The words of 0 to 100; None for what the grammar cannot say."""
    if value < 20:
        return [_ONES[value]]
    if value < 100:
        return [_TENS[value // 10]] + ([_ONES[value % 10]] if value % 10 else [])
    return ["one", "hundred"] if value == 100 else None


@attrs.frozen
class Command:
    """A sentence of the grammar: its rule, and the words that the rules inside it covered.

    Example: "what is the weather in beijing" is rule "weather" with parts
    {"place": "in beijing", "city": "beijing"}.  A rule met twice keeps its first words.
    """

    rule: str
    parts: Mapping[str, str]
    text: str  # as spoken: lower case, no punctuation


@attrs.frozen
class CommandGrammar:
    """A grammar with one public rule, whose alternatives each name one command."""

    jsgf: str
    _public: str
    _rules: Mapping[str, Node]

    @property
    def words(self) -> frozenset[str]:
        """Every word the grammar knows."""
        return frozenset(
            node.text
            for body in self._rules.values()
            for node in _nodes(body)
            if isinstance(node, Word)
        )

    def accepts(self, text: str) -> bool:
        """Whether the whole text is one sentence; case and punctuation do not matter."""
        return self.parse(text) is not None

    def parse(self, text: str) -> Command | None:
        """The command a text is, or None; case and punctuation do not matter."""
        words = spoken_words(text)
        for alternative in _alternatives(self._rules[self._public]):
            for end, parts in self._match(alternative, words, 0):
                if end == len(words):
                    rule = _required_rule(alternative)
                    del parts[rule]  # its words are the sentence
                    return Command(rule, parts, " ".join(words))
        return None

    def draw(self, chance: random.Random) -> str:
        """A random sentence; every alternative of a rule is as likely as the others."""
        return " ".join(self._draw(Rule(self._public), chance))

    def _draw(self, node: Node, chance: random.Random) -> list[str]:
        match node:
            case Word(text):
                return [text]
            case Rule(name):
                return self._draw(self._rules[name], chance)
            case Sequence(parts):
                return [word for part in parts for word in self._draw(part, chance)]
            case Choice(options):
                return self._draw(chance.choice(options), chance)
            case Optional(part):
                return self._draw(part, chance) if chance.random() < 0.5 else []

    def _match(self, node: Node, words: list[str], at: int) -> Iterator[tuple[int, dict[str, str]]]:
        """Every way to read words[at:] as the node: where it ends, and the rules inside."""
        match node:
            case Word(text):
                if at < len(words) and words[at] == text:
                    yield at + 1, {}
            case Rule(name):
                for end, parts in self._match(self._rules[name], words, at):
                    yield end, {name: " ".join(words[at:end]), **parts}
            case Sequence(()):
                yield at, {}
            case Sequence((first, *rest)):
                for middle, before in self._match(first, words, at):
                    for end, after in self._match(Sequence(tuple(rest)), words, middle):
                        yield end, {**after, **before}
            case Choice(options):
                for option in options:
                    yield from self._match(option, words, at)
            case Optional(part):
                yield from self._match(part, words, at)
                yield at, {}


@functools.cache
def load_commands() -> CommandGrammar:
    """The command grammar of this package, read once."""
    return read_grammar(resources.files("listenai").joinpath("commands.jsgf").read_text("utf-8"))


# --- reading -----------------------------------------------------------------------------

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_TOKEN = re.compile(r"\s*(?:(#JSGF[^;\n]*;)|(<[A-Za-z_]\w*>)|([A-Za-z']+)|([=;|()\[\]]))")
_ALLOWED = "allowed are words, <rules>, ( ), [ ], |, = and ;"


def read_grammar(jsgf: str) -> CommandGrammar:
    """Reads a JSGF text with one public rule; raises ConfigurationError naming the line."""
    reader = _Reader(jsgf)
    rules, public = reader.read()
    for name, body in rules.items():
        for node in _nodes(body):
            if isinstance(node, Rule) and node.name not in rules:
                raise reader.problem(f"<{name}> uses <{node.name}>, which no rule defines")
    _refuse_recursion(rules, reader)
    for alternative in _alternatives(rules[public]):
        try:
            _required_rule(alternative)
        except ValueError as error:
            raise reader.problem(f"in the public <{public}>: {error}") from None
    return CommandGrammar(jsgf, public, rules)


class _Reader:
    """Recursive descent over the tokens of one JSGF text."""

    def __init__(self, jsgf: str) -> None:
        # Comments become blanks of the same shape, so that line numbers stay right.
        self._text = _COMMENT.sub(lambda comment: re.sub(r"[^\n]", " ", comment[0]), jsgf).rstrip()
        self._at = 0

    def problem(self, what: str) -> ConfigurationError:
        line = self._text.count("\n", 0, self._at) + 1
        return ConfigurationError([f"command grammar, line {line}: {what}"])

    def read(self) -> tuple[dict[str, Node], str]:
        rules: dict[str, Node] = {}
        public: list[str] = []
        if not self._peek().startswith("#JSGF"):
            raise self.problem("a grammar begins with '#JSGF V1.0;'")
        self._take()
        self._expect("grammar")
        self._take()
        self._expect(";")
        while symbol := self._peek():
            if symbol == "public":
                self._take()
                public.append(self._peek())
            name = self._take()
            if not name.startswith("<"):
                raise self.problem(f"{name!r} where a rule should begin: [public] <name> = …;")
            if name[1:-1] in rules:
                raise self.problem(f"{name} is defined twice; keep one")
            self._expect("=")
            rules[name[1:-1]] = self._choice()
            self._expect(";")
        if len(public) != 1:
            raise self.problem(f"{len(public)} public rules; exactly one is needed")
        return rules, public[0][1:-1]

    def _choice(self) -> Node:
        options = [self._sequence()]
        while self._peek() == "|":
            self._take()
            options.append(self._sequence())
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while (symbol := self._peek()) not in {"", "|", ")", "]", ";", "="}:
            self._take()
            if symbol in {"(", "["}:
                inside = self._choice()
                self._expect(")" if symbol == "(" else "]")
                parts.append(inside if symbol == "(" else Optional(inside))
            elif symbol.startswith("<"):
                parts.append(Rule(symbol[1:-1]))
            else:
                parts.append(Word(symbol.lower()))
        if not parts:
            raise self.problem(f"nothing stands before {symbol or 'the end'!r}; {_ALLOWED}")
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _peek(self) -> str:
        """The next symbol, "" at the end."""
        if self._at >= len(self._text):
            return ""
        symbol = _TOKEN.match(self._text, self._at)
        if symbol is None:
            rest = self._text[self._at :].split(maxsplit=1)[0]
            raise self.problem(f"cannot read {rest[:20]!r}; {_ALLOWED}")
        return symbol[0].strip()

    def _take(self) -> str:
        symbol = self._peek()
        if not symbol:
            raise self.problem("the grammar ends in the middle of a rule")
        self._at = self._text.index(symbol, self._at) + len(symbol)
        return symbol

    def _expect(self, wanted: str) -> None:
        if (symbol := self._take()) != wanted:
            raise self.problem(f"{symbol!r} where {wanted!r} is needed")


def _nodes(node: Node) -> Iterator[Node]:
    """The node and everything inside it; rules are not followed."""
    yield node
    match node:
        case Sequence(parts) | Choice(parts):
            for part in parts:
                yield from _nodes(part)
        case Optional(part):
            yield from _nodes(part)
        case _:
            pass


def _alternatives(node: Node) -> tuple[Node, ...]:
    return node.options if isinstance(node, Choice) else (node,)


def _required_rule(alternative: Node) -> str:
    """The one rule outside brackets; ValueError when there is none or more than one."""
    parts = alternative.parts if isinstance(alternative, Sequence) else (alternative,)
    names = [part.name for part in parts if isinstance(part, Rule)]
    if len(names) != 1:
        raise ValueError(f"an alternative names {names}; it must name exactly one rule outside [ ]")
    return names[0]


def _refuse_recursion(rules: Mapping[str, Node], reader: _Reader) -> None:
    """A rule that contains itself would never end."""

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise reader.problem(f"<{name}> contains itself: {' > '.join((*path, name))}")
        for node in _nodes(rules[name]):
            if isinstance(node, Rule):
                visit(node.name, (*path, name))

    for name in rules:
        visit(name, ())
