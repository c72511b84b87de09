"""``GetModuleLogs`` and ``UploadModuleLogs``: which modules, which lines, in which form; as text that comes piece by piece.

Requests and answers have IoT Edge's shapes. Two things are ours: ``"contentType": "lines"`` answers a JSON list with one line of
log on each of its lines (with its position), and ``"after"`` in a filter goes on behind a position.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec

from edge_agent.methods.errors import LogFilterInvalid
from edge_agent.methods.log_lines import Line, Wanted, chosen, level_of, moment, time_of
from edge_agent.methods.payload import Request, read_payload
from edge_agent.methods.sieve import Sieve

_MOST_ITEMS = 20
_GZIP = 16 + zlib.MAX_WBITS
Level = Annotated[int, msgspec.Meta(ge=0, le=7)]
Time = int | float | str
Encoding = Literal["none", "gzip"]
ContentType = Literal["text", "json", "lines"]
# A module's name and which lines are wanted of it, to a generator that is closed when nobody wants more.
LinesOf = Callable[[str, Wanted], Generator[Line, None, None]]


class LogFilter(msgspec.Struct, frozen=True, kw_only=True):
    """``loglevel`` is one level (its lines alone, as in IoT Edge) or several. Times are RFC 3339, unix seconds or ``2h``."""

    tail: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    since: Time | None = None
    until: Time | None = None
    loglevel: Level | list[Level] | None = None
    regex: str | None = None
    after: str = ""
    unfinished: bool = True


class LogItem(msgspec.Struct, frozen=True, kw_only=True):
    """``id`` is a regular expression over the names of modules."""

    id: str
    filter: LogFilter | None = None


class LogRequest(Request, frozen=True, kw_only=True):
    """The payload of both methods; ``sas_url`` only of the upload."""

    items: Annotated[list[LogItem], msgspec.Meta(min_length=1, max_length=_MOST_ITEMS)]
    encoding: Encoding = "none"
    content_type: ContentType = msgspec.field(default="text", name="contentType")
    sas_url: str | None = msgspec.field(default=None, name="sasUrl")


@dataclass(frozen=True)
class ModuleLogs:
    """The logs of one module that were asked for."""

    module: str
    display_name: str
    wanted: Wanted


class LogReader:
    """``modules`` gives the modules of the desired state with their display names; ``lines_of`` opens the log of one."""

    def __init__(self, modules: Callable[[], Mapping[str, str]], lines_of: LinesOf, device: str) -> None:
        self._modules, self._lines_of, self._device = modules, lines_of, device

    def selected(self, request: LogRequest, now: datetime) -> list[ModuleLogs]:
        """Each module once, with the filter of the first item that names it. Raises LogFilterInvalid, LogFilterTooSlow."""
        modules = self._modules()
        names = list(modules)
        found: dict[str, ModuleLogs] = {}
        for item in request.items:
            wanted = _wanted(item.filter or LogFilter(), now)
            with Sieve(_whole(item.id), "id") as sieve:
                fits = [
                    a or b for a, b in zip(sieve.matches(names), sieve.matches([modules[name] for name in names]), strict=True)
                ]
            for name, does in zip(names, fits, strict=True):
                if does and name not in found:
                    found[name] = ModuleLogs(name, modules[name], wanted)
        return list(found.values())

    def content(self, logs: ModuleLogs, content_type: ContentType) -> Iterator[str]:
        """The wanted lines as text, JSON, or JSON by lines, in pieces. Raises LogsUnreadable, LogFilterTooSlow."""
        with closing(self._lines_of(logs.module, logs.wanted)) as source:
            lines = chosen(source, logs.wanted)
            if content_type == "text":
                yield from (f"{line.text}\n" for line in lines)
                return
            between = "["
            for line in lines:
                yield between + _json(self._as_json(logs, line) if content_type == "json" else _with_place(logs, line))
                between = "," if content_type == "json" else ",\n"
            yield "[]" if between == "[" else "]"

    def answer(self, request: LogRequest, now: datetime) -> Iterator[str]:
        """The answer of ``GetModuleLogs``: JSON text in pieces."""
        selected = self.selected(request, now)
        if request.content_type == "lines":
            yield from self._lines(selected)
            return
        between = "["
        for logs in selected:
            content = self.content(logs, request.content_type)
            name = _json(logs.display_name)
            if request.encoding == "gzip":
                yield f'{between}{{"id":{name},"payloadBytes":"'
                yield from (base64.b64encode(piece).decode() for piece in _threes(gzipped(content)))
            else:
                yield f'{between}{{"id":{name},"payload":"'
                yield from (_json(piece)[1:-1] for piece in content)
            yield '"}'
            between = ","
        yield "[]" if between == "[" else "]"

    def _lines(self, selected: Sequence[ModuleLogs]) -> Iterator[str]:
        between = "[\n"
        for logs in selected:
            with closing(self._lines_of(logs.module, logs.wanted)) as source:
                for line in chosen(source, logs.wanted):
                    yield between + _json(_with_place(logs, line))
                    between = ",\n"
        yield "[]\n" if between == "[\n" else "\n]\n"

    def _as_json(self, logs: ModuleLogs, line: Line) -> dict[str, object]:
        at_s = line.at_s if line.at_s is not None else time_of(line.text)
        return {
            "device": self._device,
            "id": logs.display_name,
            "stream": "stdout",
            "loglevel": level_of(line.text),
            "timestamp": None if at_s is None else _rfc3339(at_s),
            "text": line.text,
        }


def gzipped(content: Iterator[str]) -> Iterator[bytes]:
    """A gzip file of the text, in pieces."""
    packer = zlib.compressobj(wbits=_GZIP)
    for text in content:
        if piece := packer.compress(text.encode(errors="replace")):
            yield piece
    yield packer.flush()


def read_log_request(method: str, payload: object) -> LogRequest:
    """Raises MethodPayloadInvalid."""
    return read_payload(method, payload, LogRequest)


def _wanted(asked: LogFilter, now: datetime) -> Wanted:
    if len(asked.after) > 100:
        raise LogFilterInvalid(name="after", value=asked.after[:80], problem="it is no position")
    levels = asked.loglevel
    return Wanted(
        tail=asked.tail,
        since_s=moment(asked.since, "since", now),
        until_s=moment(asked.until, "until", now),
        levels=None if levels is None else frozenset(levels if isinstance(levels, list) else [levels]),
        regex=asked.regex or None,
        after=asked.after,
        unfinished=asked.unfinished,
    )


def _whole(pattern: str) -> str:
    """A module's plain name means that module, not all whose names contain it; other patterns are searched, as in IoT Edge."""
    plain = pattern.replace("-", "").replace("_", "").replace(".", "")
    return f"^{pattern}$" if plain.isalnum() and "." not in pattern else pattern


def _with_place(logs: ModuleLogs, line: Line) -> dict[str, object]:
    return {"id": logs.module, "position": line.position, "text": line.text}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _threes(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of a multiple of three: so their base64 can be joined."""
    rest = b""
    for piece in pieces:
        whole = rest + piece
        cut = len(whole) - len(whole) % 3
        rest = whole[cut:]
        if cut:
            yield whole[:cut]
    if rest:
        yield rest


def _rfc3339(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
