"""Logs of Docker modules, as the engine keeps them. A position is the time of a line, which Docker gives to nanoseconds."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from datetime import datetime
from typing import Any

from edge_agent.methods.errors import LogsUnreadable
from edge_agent.methods.log_lines import LINE_BYTES, Line, Wanted

API_TIMEOUT_S = 30
_WHOLE_SECOND, _NANOSECONDS = 19, 9


def docker_lines(container: str, module: str, wanted: Wanted, base_url: str | None) -> Generator[Line, None, None]:
    """The lines of a container, from the first that can be wanted on. Raises LogsUnreadable."""
    try:
        # Only a device with docker modules has (and pays for) the SDK.
        import docker
        import docker.errors
    except ModuleNotFoundError as problem:
        raise LogsUnreadable(module=module, problem=f"{problem.name} is not installed") from None
    try:
        with contextlib.closing(docker.APIClient(base_url=base_url, version="auto", timeout=API_TIMEOUT_S)) as client:
            chunks = client.logs(container, stream=True, follow=False, timestamps=True, **_options(wanted))
            yield from _lines(chunks, wanted)
    except docker.errors.DockerException as problem:
        raise LogsUnreadable(module=module, problem=str(problem)) from problem


def _options(wanted: Wanted) -> dict[str, Any]:
    """Whole seconds: what is earlier within the second is left out here."""
    options: dict[str, Any] = {"tail": "all" if wanted.tail is None else max(0, wanted.tail)}
    begins = [at_s for at_s in (wanted.since_s, _seconds(wanted.after) if wanted.after else None) if at_s is not None]
    if begins:
        options["since"] = max(0, int(max(begins)))
    if wanted.until_s is not None:
        options["until"] = max(0, int(wanted.until_s) + 1)
    return options


def _lines(chunks: Iterator[bytes], wanted: Wanted) -> Iterator[Line]:
    rest = b""
    after = _comparable(wanted.after) if wanted.after else ""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from _told(whole, after)
        if len(rest) > 2 * LINE_BYTES:
            yield from _told([rest[:LINE_BYTES]], after)
            rest = rest[: _stamp_end(rest)] + rest[LINE_BYTES:]
    if rest:
        yield from _told([rest], after)


def _told(lines: list[bytes], after: str) -> Iterator[Line]:
    for raw in lines:
        stamp, _, text = raw.removesuffix(b"\r").decode(errors="replace").partition(" ")
        at_s = _seconds(stamp)
        if at_s is not None and _comparable(stamp) > after:
            yield Line(text, stamp, at_s)


def _stamp_end(line: bytes) -> int:
    return line.find(b" ") + 1


def _comparable(stamp: str) -> str:
    """Docker leaves zeros at the end of nanoseconds away, so that times do not sort as text."""
    part = stamp[_WHOLE_SECOND:].removesuffix("Z").removeprefix(".")
    return f"{stamp[:_WHOLE_SECOND]}.{part.ljust(_NANOSECONDS, '0')}"


def _seconds(stamp: str) -> float | None:
    try:
        return datetime.fromisoformat(f"{_comparable(stamp)[: _WHOLE_SECOND + 7]}+00:00").timestamp()
    except ValueError:
        return None
