"""Sends one blob: not at all if it is there, mounted if a neighbour has it, else in chunks that outlive broken connections.

After a break the registry is asked how far it got (`GET` of the upload's address), and the rest is sent. A registry that
does not know the upload any more gets it from the beginning. That is also all that can be done where a chunk was cut in its
middle and the registry signs the offset into the address, as Docker's own does up to 2.8: it refuses that address from then on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Literal, cast
from urllib.parse import urlencode, urljoin

from hedgerow.contracts.oci import Descriptor
from packager.distribution.errors import RegistryFailed, TransferBroken
from packager.distribution.repository import RegistryBusy, Repository
from packager.distribution.wire import Answer, FilePart, WireBroken

Outcome = Literal["pushed", "mounted", "already_there"]
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")
_OK, _CREATED, _ACCEPTED, _NO_CONTENT, _NOT_FOUND, _OUT_OF_STEP = 200, 201, 202, 204, 404, 416
_OCTETS = {"Content-Type": "application/octet-stream"}


class _Stalled(Exception):
    """The registry and we disagree about how far the upload is, or it forgot it."""


@dataclass(frozen=True)
class _Upload:
    """``offset``: how many bytes the registry has; ``least_bytes``: how small a chunk may be that is not the last."""

    address: str
    offset: int
    least_bytes: int


class BlobUpload:
    """``told`` hears how many bytes of the blob the registry has, which may go back."""

    def __init__(
        self, repository: Repository, blob: Descriptor, source: Path, chunk_bytes: int, told: Callable[[int], None]
    ) -> None:
        self._repository, self._blob, self._source = repository, blob, source
        self._chunk_bytes, self._told = chunk_bytes, told

    def send(self, mount_from: Sequence[str]) -> Outcome:
        """Raises TransferBroken, RegistryLoginFailed, RegistryForbids, RegistryUnreachable, RegistryFailed, EgressRefused."""
        if self._repository.tried(self._is_there):
            return "already_there"
        for other in mount_from:
            if self._repository.tried(partial(self._mount, other)):
                return "mounted"
        self._push()
        return "pushed"

    def _is_there(self) -> bool:
        with self._repository.ask("HEAD", self._repository.address(f"blobs/{self._blob.digest}")) as answer:
            if answer.status != _NOT_FOUND:
                self._repository.expect(answer, {_OK}, self._what)
            return answer.status == _OK

    def _mount(self, other: str) -> bool:
        query = urlencode({"mount": self._blob.digest, "from": other})
        with self._repository.ask("POST", self._repository.address(f"blobs/uploads/?{query}")) as answer:
            # Any other answer means no: most often 202, an upload that was begun instead, and is left to expire.
            return answer.status == _CREATED

    def _push(self) -> None:
        upload: _Upload | None = None
        failures, furthest = 0, 0
        while True:
            try:
                upload = upload or self._begin()
                if self._blob.size - upload.offset <= self._chunk_bytes:
                    self._finish(upload)
                    self._told(self._blob.size)
                    return
                upload = self._chunk(upload)
                self._told(upload.offset)
            except (WireBroken, RegistryBusy, _Stalled) as problem:
                # Only what is further than ever before is progress: otherwise a registry could make us send for ever.
                done = upload.offset if upload else 0
                failures = 1 if done > furthest else failures + 1
                furthest = max(furthest, done)
                self._give_up_or_wait(problem, failures, done)
                if isinstance(problem, WireBroken) and self._repository.tried(self._is_there):
                    return  # only the answer to the last request was lost
                upload = self._ask_how_far(upload)

    def _begin(self) -> _Upload:
        with self._repository.ask("POST", self._repository.address("blobs/uploads/")) as answer:
            self._repository.expect(answer, {_ACCEPTED}, f"an upload to {self._repository.image.repository}")
            least = answer.headers.get("oci-chunk-min-length", "")
            return _Upload(self._next(answer), 0, int(least) if least.isdecimal() and len(least) < 12 else 0)

    def _chunk(self, upload: _Upload) -> _Upload:
        start = upload.offset
        end = min(self._blob.size, start + max(self._chunk_bytes, upload.least_bytes))
        headers = {**_OCTETS, "Content-Range": f"{start}-{end - 1}"}
        with self._repository.ask("PATCH", upload.address, headers, self._part(start, end), end - start) as answer:
            if answer.status in (_NOT_FOUND, _OUT_OF_STEP):
                raise _Stalled
            self._repository.expect(answer, {_ACCEPTED}, self._what)
            done = _how_far(answer)
            if done is None or not start < done <= end:
                raise _Stalled
            return _Upload(self._next(answer), done, upload.least_bytes)

    def _finish(self, upload: _Upload) -> None:
        """The last chunk, or the only one, goes with the request that ends the upload."""
        start, end = upload.offset, self._blob.size
        address = upload.address + ("&" if "?" in upload.address else "?") + urlencode({"digest": self._blob.digest})
        headers = {**_OCTETS, "Content-Range": f"{start}-{end - 1}"} if 0 < start < end else _OCTETS
        with self._repository.ask("PUT", address, headers, self._part(start, end), end - start) as answer:
            if answer.status in (_NOT_FOUND, _OUT_OF_STEP):
                raise _Stalled
            self._repository.expect(answer, {_CREATED, _NO_CONTENT}, self._what)

    def _ask_how_far(self, upload: _Upload | None) -> _Upload | None:
        """Where to go on; None for a new beginning."""
        if upload is None:
            return None

        def ask() -> _Upload | None:
            with self._repository.ask("GET", upload.address) as answer:
                done = _how_far(answer) if answer.status == _NO_CONTENT else None
                if done is None or done > self._blob.size:
                    return None
                address = self._next(answer) if answer.headers.get("location") else upload.address
                return _Upload(address, done, upload.least_bytes)

        return self._repository.tried(ask)

    def _part(self, start: int, end: int) -> Callable[[], IO[bytes]]:
        # Opened for each request: two threads never share a position, and a request that is repeated begins anew.
        return lambda: cast("IO[bytes]", FilePart(self._source, start, end))

    def _next(self, answer: Answer) -> str:
        location = answer.headers.get("location")
        if not location:
            host = self._repository.image.host
            raise RegistryFailed(registry=host, status=answer.status, what="an upload", said=" without saying where to send it")
        return urljoin(answer.url, location)

    def _give_up_or_wait(self, problem: WireBroken | RegistryBusy | _Stalled, failures: int, done: int) -> None:
        if failures >= self._repository.access.attempts and (done or isinstance(problem, _Stalled)):
            host, size = self._repository.image.host, self._blob.size
            raise TransferBroken(registry=host, times=failures, done=done, size=size, what=self._blob.digest) from problem
        waited = WireBroken("the upload got out of step") if isinstance(problem, _Stalled) else problem
        self._repository.give_up_or_wait(waited, failures)

    @property
    def _what(self) -> str:
        return f"content {self._blob.digest}"


def _how_far(answer: Answer) -> int | None:
    """How many bytes the registry has. `0-0` says none (it could say one; then the next request is out of step)."""
    found = _RANGE.fullmatch(answer.headers.get("range", ""))
    if found is None:
        return None
    return int(found[1]) + 1 if int(found[1]) else 0
