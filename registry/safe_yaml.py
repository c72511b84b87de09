"""YAML that strangers wrote, as a small tree with line numbers: text, lists and mappings, nothing else.

Built from the parser's events, so no constructor ever runs. Anchors, aliases, tags, merge keys and repeated keys are refused;
size, depth and number of nodes are bounded. Scalars stay the text that was written: ``python: 3.10`` is "3.10", not 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

MAX_CHARACTERS = 512 * 1024
MAX_DEPTH = 20
MAX_NODES = 50_000
_NO_ANCHORS = "anchors and aliases (&name, *name) are not taken; write the value out"
_NOTHING = frozenset({"", "~", "null", "Null", "NULL"})


class YamlRefused(Exception):
    """Why a text is not taken, and its line (from 1). Whoever reads a file turns it into a sentence that names the file."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line
        self.problem = problem


@dataclass(frozen=True)
class Node:
    """A value and the line (from 1) on which it begins. ``plain``: text without quotes, which may be meant as a number."""

    line: int
    value: str | list[Node] | dict[str, Node] | None
    plain: bool = field(default=False, compare=False)


class _Loader(yaml.SafeLoader):
    """Only its event stream is used: what makes Python objects of it never runs."""


# libyaml's parser where the wheel has it: 25 times faster. Its events are the same.
_EVENTS: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", _Loader)


def read_yaml(text: str) -> Node:
    """The one document in ``text``; None for an empty one. Raises YamlRefused."""
    if len(text) > MAX_CHARACTERS:
        raise YamlRefused(1, f"it has more than {MAX_CHARACTERS} characters")
    reader = _Reader(_events(text))
    try:
        return reader.document()
    except yaml.MarkedYAMLError as problem:
        raise _refusal(problem, text) from None
    except yaml.reader.ReaderError as problem:
        line = text.count("\n", 0, problem.position) + 1
        raise YamlRefused(line, f"the character {problem.character!r} is not allowed") from None
    except yaml.YAMLError:
        raise YamlRefused(1, "it is no YAML") from None
    except UnicodeError:
        raise YamlRefused(1, "it holds half a character (a lone surrogate)") from None


def _refusal(problem: yaml.MarkedYAMLError, text: str) -> YamlRefused:
    mark = problem.problem_mark or problem.context_mark
    number = mark.line if mark else 0
    line = "".join(text.split("\n")[number : number + 1])
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return YamlRefused(number + 1, "it is indented with a tab; YAML takes spaces only")
    return YamlRefused(number + 1, _words(problem.problem or problem.context or "it is no YAML"))


def _words(problem: str) -> str:
    return " ".join(problem.split())[:200]


def _events(text: str) -> Iterator[yaml.Event]:
    events: Iterator[yaml.Event] = yaml.parse(text, Loader=_EVENTS)
    return events


class _Reader:
    """Builds the tree of one document from its events; recursion ends at MAX_DEPTH."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self._events = events
        self._nodes = 0

    def document(self) -> Node:
        node = Node(1, None)
        seen = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                seen += 1
                if seen > 1:
                    raise YamlRefused(_line(event), "a second document begins; write one only")
            elif isinstance(event, yaml.NodeEvent):
                node = self._node(event, 1)
        return node

    def _node(self, event: yaml.Event, depth: int) -> Node:
        line = _line(event)
        if isinstance(event, yaml.AliasEvent):
            raise YamlRefused(line, _NO_ANCHORS)
        if isinstance(event, yaml.ScalarEvent | yaml.SequenceStartEvent | yaml.MappingStartEvent):
            self._check(event, line, depth)
        if isinstance(event, yaml.ScalarEvent):
            plain = not event.style
            return Node(line, None if plain and event.value in _NOTHING else event.value, plain)
        if isinstance(event, yaml.SequenceStartEvent):
            return Node(line, self._items(depth))
        return Node(line, self._pairs(depth))

    def _check(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, line: int, depth: int) -> None:
        if event.anchor is not None:
            raise YamlRefused(line, _NO_ANCHORS)
        if event.tag is not None:
            raise YamlRefused(line, f"the tag {event.tag[:80]} is not taken; write the plain value")
        if depth > MAX_DEPTH:
            raise YamlRefused(line, f"it is nested more than {MAX_DEPTH} deep")
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise YamlRefused(line, f"it has more than {MAX_NODES} values")

    def _items(self, depth: int) -> list[Node]:
        items: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return items

    def _pairs(self, depth: int) -> dict[str, Node]:
        pairs: dict[str, Node] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key.value, str):
                raise YamlRefused(key.line, "a key must be plain text")
            if key.value == "<<":
                raise YamlRefused(key.line, "merge keys (<<) are not taken; write the values out")
            if key.value in pairs:
                raise YamlRefused(key.line, f"the key {key.value[:80]!r} is given twice")
            pairs[key.value] = self._node(next(self._events), depth + 1)
        return pairs


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1
