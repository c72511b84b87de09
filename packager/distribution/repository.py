"""Requests to one repository of a registry: logs in when asked to, follows redirects, tries again, says what went wrong.

Credentials go to the registry's own origin and to the token service that it names, and nowhere else: what a redirect
leads to gets none. Every address passes the egress policy (``wire.py``), also those that an answer named.
"""

from __future__ import annotations

import contextlib
import functools
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import TracebackType
from typing import IO, TypeVar
from urllib.parse import urljoin, urlsplit

import msgspec

from hedgerow.contracts.remote_image import RemoteImage
from packager.distribution.access import RemoteAccess
from packager.distribution.challenge import Challenge, exchange_form, read_challenges, token_address
from packager.distribution.errors import (
    RegistryFailed,
    RegistryForbids,
    RegistryLoginFailed,
    RegistryUnreachable,
    RemoteDocumentTooLarge,
    RemoteImageUnknown,
)
from packager.distribution.login import Login
from packager.distribution.wire import Answer, Wire, WireBroken

T = TypeVar("T")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_LONGEST_WAIT_S = 30.0
_TOKEN_BYTES_MAX = 1 << 20
_TOKEN = re.compile(r"[\x21-\x7e]+")
_CODE = re.compile(r"[A-Z][A-Z_]{1,60}")
UNAUTHORIZED, FORBIDDEN, NOT_FOUND = 401, 403, 404


class RegistryBusy(Exception):
    """An answer that may be another one soon; ``wait_s`` as the registry wishes."""

    def __init__(self, status: int, wait_s: float) -> None:
        super().__init__(str(status))
        self.status, self.wait_s = status, wait_s


class _Token(msgspec.Struct, frozen=True):
    token: str = ""
    access_token: str = ""
    refresh_token: str = ""


class _Said(msgspec.Struct, frozen=True):
    code: str = ""


class _Errors(msgspec.Struct, frozen=True):
    errors: list[_Said] = []


class Repository:
    """Safe for threads. ``actions`` is `pull` or `pull,push`; from ``others`` (of the same registry) blobs may be mounted."""

    def __init__(self, image: RemoteImage, access: RemoteAccess, actions: str = "pull", others: Sequence[str] = ()) -> None:
        self.image, self.access = image, access
        self._scopes = [f"repository:{image.repository}:{actions}", *(f"repository:{name}:pull" for name in others)]
        self._wire = Wire(access)
        self._authorization: str | None = None
        self._identity = ""
        self._lock = threading.Lock()

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self._wire.close()

    @functools.cached_property
    def _login(self) -> Login | None:
        """Looked up when it is wanted: a program may have to be asked."""
        return self.access.login_for(self.image)

    def stop(self) -> None:
        """End what other threads ask for."""
        self._wire.stop()

    def address(self, path: str) -> str:
        """Of something below this repository: `manifests/3`."""
        return f"{self.image.origin}/v2/{self.image.repository}/{path}"

    @contextlib.contextmanager
    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: Callable[[], IO[bytes]] | bytes | None = None,
        size: int = 0,
    ) -> Iterator[Answer]:
        """One request, whose answer may have any status but 401. ``body`` makes the body anew if it is sent twice.

        Raises EgressRefused, RegistryLoginFailed, RegistryFailed, WireBroken.
        """
        # Once more than it seems: another thread may have used up the token that this one fetched.
        for _ in range(3):
            used = self._authorization
            with self._follow(method, url, headers or {}, body, size, used) as answer:
                if answer.status != UNAUTHORIZED or not self._is_ours(answer.url):
                    yield answer
                    return
                challenges = read_challenges(answer.headers.get_all("www-authenticate", []))
            self._log_in(challenges, used)
        raise self._login_failed("it does not take what its token service gave")

    def tried(self, action: Callable[[], T]) -> T:
        """Do ``action`` until it is neither cut off nor turned away. Raises RegistryUnreachable, RegistryFailed."""
        failures = 0
        while True:
            try:
                return action()
            except (WireBroken, RegistryBusy) as problem:
                failures += 1
                self.give_up_or_wait(problem, failures)

    def give_up_or_wait(self, problem: WireBroken | RegistryBusy, failures: int) -> None:
        """After the ``failures``-th failure in a row. Raises RegistryUnreachable, RegistryFailed."""
        if failures >= self.access.attempts or (isinstance(problem, WireBroken) and problem.fatal):
            if isinstance(problem, WireBroken):
                raise RegistryUnreachable(registry=self.image.host, problem=str(problem)) from problem
            raise RegistryFailed(registry=self.image.host, status=problem.status, what="each of several requests", said="")
        wished_s = problem.wait_s if isinstance(problem, RegistryBusy) else 0.0
        self.access.pause(max(wished_s, self.access.backoff.delay_s(failures, self.access.chance)))

    def expect(self, answer: Answer, good: Collection[int], what: str) -> None:
        """Raises RegistryBusy, RemoteImageUnknown, RegistryForbids, RegistryFailed unless the status is a good one."""
        if answer.status in good:
            return
        if answer.status in _BUSY:
            raise RegistryBusy(answer.status, _wished_s(answer))
        code = _code(answer)
        if answer.status == NOT_FOUND:
            raise RemoteImageUnknown(registry=self.image.host, what=what)
        if answer.status == FORBIDDEN:
            raise RegistryForbids(registry=self.image.host, what=what, said=code or "DENIED")
        said = f" ({code})" if code else ""
        raise RegistryFailed(registry=self.image.host, status=answer.status, what=f"a request for {what}", said=said)

    def document(self, answer: Answer, limit: int, what: str) -> bytes:
        """The whole body. Raises RemoteDocumentTooLarge, WireBroken."""
        data = answer.read(limit + 1)
        if len(data) > limit:
            raise RemoteDocumentTooLarge(registry=self.image.host, limit=limit, what=what)
        announced = answer.headers.get("content-length", "")
        if announced.isdecimal() and len(data) < int(announced):
            raise WireBroken("it closed the connection")
        return data

    @contextlib.contextmanager
    def _follow(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Callable[[], IO[bytes]] | bytes | None,
        size: int,
        authorization: str | None,
    ) -> Iterator[Answer]:
        for _ in range(_MOST_REDIRECTS + 1):
            ours = self._is_ours(url)
            sent = {**headers, "Authorization": authorization} if authorization and ours else headers
            with self._wire.ask(method, url, sent, body() if callable(body) else body, size) as answer:
                location = answer.headers.get("location")
                if answer.status not in _REDIRECTS or location is None or method not in ("GET", "HEAD"):
                    yield answer
                    return
                following = urljoin(url, location)
            if url.startswith("https:") and not following.startswith("https:"):
                raise self._misled("redirects from https to something else")
            url = following
        raise self._misled("redirects in circles")

    def _misled(self, said: str) -> RegistryFailed:
        return RegistryFailed(registry=self.image.host, status="with redirects", what=self.image.repository, said=f": it {said}")

    def _is_ours(self, url: str) -> bool:
        return _origin(url) == _origin(self.image.origin)

    def _log_in(self, challenges: Sequence[Challenge], used: str | None) -> None:
        with self._lock:
            if self._authorization != used:
                return  # somebody else did, while we waited
            by_scheme = {challenge.scheme: challenge for challenge in reversed(challenges)}
            if "bearer" in by_scheme:
                fresh = "Bearer " + self._token(by_scheme["bearer"])
            elif "basic" in by_scheme and self._login is not None and not self._login.is_identity:
                fresh = self._login.basic()
            else:
                raise self._login_failed(self._why_not(by_scheme))
            if fresh == used:
                raise self._login_failed(f"it does not accept {self._who()}")
            self._authorization = fresh

    def _token(self, challenge: Challenge) -> str:
        """What the token service gives us, in the way of the distribution specification. Raises RegistryLoginFailed."""
        url = token_address(challenge, self._scopes)
        if not (self._is_ours(url) or url.startswith("https://") or self.image.scheme == "http"):
            raise self._login_failed("its token service would be asked over plain http")
        if self._login is not None and self._login.is_identity:
            self._identity = self._identity or self._login.password
        data = self.tried(lambda: self._ask_for_token(url) if not self._identity else self._exchange(challenge))
        try:
            given = msgspec.json.decode(data, type=_Token)
        except msgspec.MsgspecError:
            given = _Token()
        if given.refresh_token and self._identity:
            # Some services give a new one each time, and forget the one before.
            self._identity = given.refresh_token
        token = given.token or given.access_token
        if not _TOKEN.fullmatch(token):
            raise self._login_failed("its token service gave no token")
        return token

    def _ask_for_token(self, url: str) -> bytes:
        # The realm is the registry's word, and the password is meant for that registry: it could have asked for it itself.
        headers = {"Authorization": self._login.basic()} if self._login else {}
        for _ in range(_MOST_REDIRECTS + 1):
            with self._wire.ask("GET", url, headers) as answer:
                location = answer.headers.get("location")
                if answer.status not in _REDIRECTS or location is None:
                    if answer.status in (UNAUTHORIZED, FORBIDDEN):
                        raise self._login_failed(f"its token service does not accept {self._who()}")
                    self.expect(answer, {200}, "a token")
                    return self.document(answer, _TOKEN_BYTES_MAX, "a token")
                following = urljoin(url, location)
            if url.startswith("https:") and not following.startswith("https:"):
                raise self._misled("redirects from https to something else")
            if _origin(following) != _origin(url):
                headers = {}
            url = following
        raise self._misled("redirects in circles")

    def _exchange(self, challenge: Challenge) -> bytes:
        """An identity token for a registry token. It goes to the realm itself, and to nobody whom that one names."""
        body = exchange_form(challenge, self._scopes, self._identity)
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        with self._wire.ask("POST", challenge.parameters.get("realm", ""), headers, body, len(body)) as answer:
            if answer.status in (400, UNAUTHORIZED, FORBIDDEN):
                raise self._login_failed(f"its token service does not accept {self._who()}")
            if answer.status in _REDIRECTS:
                raise self._misled("redirects who sends it an identity token")
            self.expect(answer, {200}, "a token")
            return self.document(answer, _TOKEN_BYTES_MAX, "a token")

    def _why_not(self, schemes: Collection[str]) -> str:
        if self._login is None:
            return "no user is known for it"
        return (
            "an identity token is known for it, and it wants a password"
            if "basic" in schemes
            else ("it takes neither passwords nor tokens")
        )

    def _who(self) -> str:
        if self._login is None:
            return "requests without a user"
        return "the identity token" if self._login.is_identity else f"the password of {self._login.username!r}"

    def _login_failed(self, problem: str) -> RegistryLoginFailed:
        return RegistryLoginFailed(registry=self.image.host, repository=self.image.repository, problem=problem)


def _origin(url: str) -> tuple[str, str, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return ("", url, None)
    return (parts.scheme, (parts.hostname or "").removesuffix("."), port)


def _wished_s(answer: Answer) -> float:
    wished = answer.headers.get("retry-after", "")
    return min(float(wished), _LONGEST_WAIT_S) if wished.isdecimal() and len(wished) < 9 else 0.0


def _code(answer: Answer) -> str:
    """The registry's own code for what is wrong; not its sentence, which may repeat what it was sent."""
    try:
        found = msgspec.json.decode(answer.read(64 << 10), type=_Errors).errors
    except (msgspec.MsgspecError, WireBroken):
        return ""
    return found[0].code if found and _CODE.fullmatch(found[0].code) else ""
