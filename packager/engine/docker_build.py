"""A Dockerfile's work through the docker SDK: build, take a folder out, and leave nothing behind in the engine."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

from packager.engine.port import EngineWork
from packager.errors import EngineFailed, SourceBuildFailed

_TAIL_LINES = 60
_REASON_AT_MOST, _LINE_AT_MOST = 800, 500
# A compiler may be silent for long.
_SILENT_S = 3600
# The engine finishes the step at which it was when nobody waits any more.
_LOOKS_AFTER_GIVING_UP, _BETWEEN_LOOKS_S = 7, 0.5
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_LINE_END = re.compile(r"[\r\n]")
_REPOSITORY = "hedgerow-engine-build"


def build_and_take(client: Any, work: EngineWork, told: Callable[[str], None]) -> Iterator[bytes]:  # noqa: ANN401 - the SDK has no types
    """See :meth:`packager.engine.port.ContainerEngine.build`. Raises SourceBuildFailed, EngineFailed and errors of the SDK."""
    # A builder takes names only; this one is nobody else's.
    tag = secrets.token_hex(8)
    client.images.get(work.base).tag(_REPOSITORY, tag)
    looks = _LOOKS_AFTER_GIVING_UP
    try:
        try:
            image_id = _build(client, work, f"{_REPOSITORY}:{tag}", told)
            looks = 1
        except SourceBuildFailed:
            looks = 1
            raise
        container = client.api.create_container(image_id, command=["/hedgerow-never-started"])["Id"]
        try:
            chunks, _ = client.api.get_archive(container, work.take)
            yield from chunks
        finally:
            client.api.remove_container(container, v=True, force=True)
    finally:
        _clean(client, work.label, f"{_REPOSITORY}:{tag}", looks)


def _build(client: Any, work: EngineWork, base: str, told: Callable[[str], None]) -> str:  # noqa: ANN401 - the SDK has no types
    image_id, failed, tail, said = "", "", deque[str](maxlen=_TAIL_LINES), Said()
    with work.context.open("rb") as context:
        # nocache: what it would find was made by somebody else's build.
        lines = client.api.build(
            fileobj=context,
            custom_context=True,
            rm=True,
            forcerm=True,
            nocache=True,
            network_mode=None if work.network else "none",
            buildargs={"BASE": base, **work.arguments},
            decode=True,
            timeout=_SILENT_S,
        )
        for line in lines:
            # Read to its end all the same: the SDK closes the connection no earlier.
            failed = failed or str(line.get("error", ""))
            image_id = str(line.get("aux", {}).get("ID", image_id))
            for text in said.lines(str(line.get("stream", ""))):
                tail.append(text)
                told(text)
    tail.extend(said.lines("\n"))
    if failed:
        raise SourceBuildFailed(packages=work.what, problem=_reason(list(tail)) or failed)
    if not image_id:
        raise EngineFailed(what="build", problem="it did not say which image it made")
    return image_id


class Said:
    """Whole lines out of a build's output, which the engine hands on in the pieces that the step happened to write."""

    def __init__(self) -> None:
        self._begun = ""

    def lines(self, piece: str) -> list[str]:
        """The lines that ended with ``piece``, cut where they are very long, without colours and empty lines."""
        *ended, begun = _LINE_END.split(self._begun + piece)
        self._begun = begun[:_LINE_AT_MOST]
        whole = (_ESCAPES.sub("", line).strip()[:_LINE_AT_MOST] for line in ended)
        return [line for line in whole if line]


def _reason(tail: list[str]) -> str:
    """What of the last lines says most: what compilers call an error, and the very last words."""
    words = [line for line in tail if not line.startswith(("Removing intermediate", "--->", "hint:"))]
    errors = [line for line in words if "error:" in line.lower()][-2:]
    return " / ".join(dict.fromkeys([*errors, *words[-3:]]))[:_REASON_AT_MOST]


def _clean(client: Any, label: str, tag: str, looks: int) -> None:  # noqa: ANN401 - the SDK has no types
    """Whatever happened: the base's second name, the steps, their images. More than one look: a build is just ending."""
    from docker.errors import DockerException

    with contextlib.suppress(DockerException):
        client.images.remove(tag)
    for look in range(looks):
        if look:
            Event().wait(_BETWEEN_LOOKS_S)
        for container in client.api.containers(all=True, filters={"label": label}):
            with contextlib.suppress(DockerException):  # a step that still runs; steps have the labels of their image
                client.api.remove_container(container["Id"], v=True, force=True)
        for image in client.images.list(all=True, filters={"label": label}):
            with contextlib.suppress(DockerException):  # removing one removes those that it was made of
                client.images.remove(image.id, force=True)
