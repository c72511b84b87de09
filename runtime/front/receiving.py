"""One connection's bytes in, whole requests out. llhttp (through httptools) decides what HTTP is; this decides how much of it.

llhttp is as strict as h11 and stricter where they differ: no bare LF or CR, no folded headers, no space before a colon, no
Content-Length beside Transfer-Encoding, no repeated or signed lengths, methods in capitals. The choices left open:

    Host                may be missing (nothing here depends on it), may not stand twice
    absolute targets    http://host/path means /path; CONNECT is refused
    versions            HTTP/1.0 and 1.1; a 1.0 request with Transfer-Encoding is refused, as a smuggler's would be
    encodings           chunked alone; gzip, chunked would hand a compressed body to a model: 501
    Expect              100-continue from HTTP/1.1 is answered when it is that request's turn; anything else is 417
    Upgrade             is ignored: the request is answered as HTTP/1.1
    trailers            are read, bounded and dropped
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import httptools

from runtime.exchange import Request
from runtime.front.known_heads import KnownHeads
from runtime.front.limits import HEAD_BYTES, HEADER_COUNT, SLICE_BYTES, SMALL_BODY_BYTES, TARGET_BYTES, Buffered
from runtime.front.long_body import LongBody
from runtime.front.wire import path_and_query

# Path, headers and caller of a request whose body is not there yet.
LetsIn = Callable[[str, Mapping[str, str], str], bool]
_ONLY_ONCE = frozenset({"content-length", "host", "content-type"})
# Bytes of chunk sizes, extensions and trailers beside each byte of a body; a chunk of one byte has five.
_FRAMING_PER_BYTE = 16
# Joining more parts than this at once would hold up the loop.
_PARTS = 16


# Names of headers as they came and as we look them up. Callers use few; whoever makes up names fills it once and no further.
_names: dict[bytes, str] = {}
_MOST_NAMES = 512


def _name(name: bytes) -> str:
    key = name.decode("latin-1").lower()
    if len(_names) < _MOST_NAMES and len(name) <= 64:
        _names[name] = key
    return key


class Intake(Protocol):
    """Who takes what was received (connection.py)."""

    def has_room(self) -> bool: ...

    def came(self, request: Request, keep_alive: bool, old: bool) -> None: ...

    def refuse(self, status: int, problem: str) -> None: ...


class Receiving:
    """The parser of one connection and what it has of the request under way. ``caller`` goes into every request."""

    __slots__ = (
        "_body",
        "_body_bytes",
        "_buffered",
        "_came",
        "_expected_bytes",
        "_head_done",
        "_header_count",
        "_headers",
        "_held",
        "_intake",
        "_known",
        "_lets_in",
        "_long",
        "_most_body_bytes",
        "_only",
        "_over",
        "_parser",
        "_spilled",
        "_url",
        "_was_last",
        "caller",
        "held_back",
        "in_message",
        "wants_continue",
    )

    def __init__(
        self, intake: Intake, most_body_bytes: int, buffered: Buffered, lets_in: LetsIn | None, known: KnownHeads
    ) -> None:
        self._lets_in, self._known = lets_in, known
        # The one request that what is being parsed brought so far, when its connection goes on; for known_heads.py.
        self._only: Request | None = None
        self._came = intake.came
        self._intake, self._most_body_bytes, self._buffered = intake, most_body_bytes, buffered
        self._parser = httptools.HttpRequestParser(self)
        self.caller = ""
        self.in_message = self.wants_continue = False
        # What is not looked at before the requests in front of it are answered.
        self.held_back = b""
        # Nothing more is wanted; and: the last request said that it is the last.
        self._over = self._was_last = False
        # Bytes of this request that came in looks at the connection which did not complete it.
        self._spilled = 0
        self._held = 0
        self._headers: dict[str, str]
        self._body: list[bytes]
        self._long: LongBody | None
        self._expected_bytes: int | None
        self.on_message_begin()
        self.in_message = False

    # What the connection calls ----------------------------------------------------------------------------------------

    @property
    def under_way(self) -> bool:
        """Whether there is anything of a request that was not handed over yet."""
        return self.in_message or bool(self.held_back)

    def at_once(self, data: bytes) -> Request | None:
        """What came as one whole request, without parsing it: its head came before. None: :meth:`feed` has to look."""
        if self.in_message or self.held_back or self._over or self._was_last:
            return None
        return self._known.request(data, self.caller)

    @property
    def wants_a_look(self) -> bool:
        """Whether the end of the request in front is what something here waits for."""
        return bool(self.held_back) or self.wants_continue

    def feed(self, data: bytes) -> None:
        """Parse what came; the intake hears of every request that it completes."""
        if len(data) <= SLICE_BYTES and not self.held_back:
            begins, self._only = not self.in_message, None
            self._parse(data)
            if begins:
                self._learn(data)
            return
        if self.held_back:
            self.held_back += data
            return
        # One look may bring a quarter of a mebibyte: thousands of small requests, if somebody means it.
        view = memoryview(data)
        at = 0
        while at < len(data) and not self._over:
            if not self._intake.has_room():
                self.held_back = data[at:]
                return
            end = at + max(self._lacking, SLICE_BYTES)
            self._parse(view[at:end])
            at = end

    def go_on(self) -> None:
        """There is room again: look at what was held back."""
        rest, self.held_back = self.held_back, b""
        self.feed(rest)

    def stop(self) -> None:
        """Nothing more is wanted: forget what there is of a request."""
        self._over = True
        self.in_message = self.wants_continue = False
        self.held_back = b""
        self._body = []
        self._long = None
        self._buffered.give(self._held)
        self._held = 0

    def how_far(self) -> str:
        """How much there is of the request that is being received, in words."""
        if not self._head_done:
            return "it ended within its head"
        whole = f" of {self._expected_bytes}" if self._expected_bytes is not None else ""
        return f"it ended after {self._body_bytes}{whole} bytes"

    def question(self) -> Request:
        """What is known of the request that is being received, for an answer that refuses it."""
        path, _ = path_and_query(self._url)
        method = self._parser.get_method().decode("latin-1") if self._url else ""
        return Request(method, path, "", self._headers, b"", self.caller)

    # What the parser calls --------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = {}
        self._header_count = self._body_bytes = 0
        self._body = []
        self._long = None
        self._expected_bytes = None
        self._head_done = False
        self.in_message = True

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > TARGET_BYTES:
            self._refuse(414, f"its target is longer than {TARGET_BYTES} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_done:
            # A trailer: nobody here asks for one, and it must not pass for a header.
            return
        key, text = _names.get(name) or _name(name), value.decode("latin-1")
        self._header_count += 1
        if self._header_count > HEADER_COUNT:
            self._refuse(431, f"it has more than {HEADER_COUNT} headers")
        elif key in self._headers:
            if key in _ONLY_ONCE:
                self._refuse(400, f"it has {key} twice")
            self._headers[key] += f", {text}"
        else:
            self._headers[key] = text

    def on_headers_complete(self) -> None:
        self._head_done = True
        headers = self._headers
        if self._spilled and _size_of(self._url, headers) > HEAD_BYTES:
            self._refuse(431, f"its head is longer than {HEAD_BYTES} bytes")
        length = headers.get("content-length")
        if length is not None:
            self._expect_body(int(length))
        elif "transfer-encoding" in headers:
            self._check_encoding(headers["transfer-encoding"])
            self._check_key()
        if "expect" in headers:
            self._check_key()
        if "expect" in headers and not self._over:
            self._check_expectation(headers["expect"])

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._over:
            return
        self.wants_continue = False
        if self._body_bytes > self._most_body_bytes:
            self._refuse(413, "")
        else:
            self._body.append(body)
            if len(self._body) > _PARTS:
                self._gather()

    def on_message_complete(self) -> None:
        if self._over:
            return
        self.in_message = self.wants_continue = False
        self._spilled = 0
        body = self._body[0] if len(self._body) == 1 and self._long is None else self._whole()
        parser, headers = self._parser, self._headers
        if parser.should_upgrade() and parser.get_method() != b"CONNECT":
            return
        keep_alive = parser.should_keep_alive()
        old = False
        if not keep_alive or "connection" in headers:
            old = self._is_old(parser.get_http_version())
        method = parser.get_method().decode("latin-1")
        if method == "CONNECT":
            self._refuse(405, "this is no proxy")
        if self._over or ((self._held or len(body) > SMALL_BODY_BYTES) and not self._hold_whole(len(body))):
            return
        path, query = path_and_query(self._url)
        self._body = []
        request = Request(method, path, query, headers, body, self.caller)
        # A large one would be held as long as the connection is silent.
        self._only = request if keep_alive and not old and len(body) <= SMALL_BODY_BYTES else None
        self._was_last = not keep_alive
        self._came(request, keep_alive, old)

    # Inside -----------------------------------------------------------------------------------------------------------

    def _parse(self, data: bytes | memoryview) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data, upgrade)
        except httptools.HttpParserError as problem:
            self._refuse(400, f"it is no valid HTTP ({problem})")
        if self.in_message:
            self._partly(len(data))

    def _learn(self, data: bytes) -> None:
        if self._only is not None:
            self._known.learn(data, self._only)

    def _ignore_upgrade(self, data: bytes | memoryview, upgrade: httptools.HttpParserUpgrade) -> None:
        """There may be many in a row: no recursion."""
        while not self._over:
            data = self._without_upgrade() + bytes(data[upgrade.args[0] :])
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as another:
                upgrade = another
            except httptools.HttpParserError as problem:
                self._refuse(400, f"it is no valid HTTP ({problem})")
            else:
                return

    def _without_upgrade(self) -> bytes:
        """A request that offers another protocol, as Java's client does with every first one, is a request all the same.

        llhttp leaves its body unread; a new parser that does not see the offer takes over.
        """
        fields = [f"{name}: {value}\r\n".encode("latin-1") for name, value in self._headers.items() if name != "upgrade"]
        head = b"%b %b HTTP/1.1\r\n%b\r\n" % (self._parser.get_method(), self._url, b"".join(fields))
        self._parser = httptools.HttpRequestParser(self)
        return head

    def _partly(self, size: int) -> None:
        """A request did not end within what was just parsed. What llhttp keeps for itself is bounded here."""
        self._spilled += size
        if not self._head_done:
            if self._spilled > HEAD_BYTES + SLICE_BYTES:
                self._refuse(431, f"its head is longer than {HEAD_BYTES} bytes")
            return
        if self._spilled > 2 * (HEAD_BYTES + SLICE_BYTES) + _FRAMING_PER_BYTE * self._body_bytes:
            self._refuse(400, "its chunks bring too much that is not its body")
        grown = self._body_bytes - self._held
        if grown:
            self._held += grown
            if not self._buffered.take(grown):
                self._refuse(503, "")

    def _gather(self) -> None:
        if self._long is None:
            self._long = LongBody(self._expected_bytes)
        self._long.add(self._body)
        self._body.clear()

    def _whole(self) -> bytes:
        if self._long is None:
            return b"".join(self._body)
        self._gather()
        whole, self._long = self._long.whole(), None
        return whole

    def _hold_whole(self, size: int) -> bool:
        held, self._held = self._held, 0
        wanted = size if size > SMALL_BODY_BYTES else 0
        if wanted == held or self._buffered.take(wanted - held) or wanted < held:
            return True
        self._held = wanted
        self._refuse(503, "")
        return False

    @property
    def _lacking(self) -> int:
        """How many bytes of the body under way are still to come, where its head said how long it is."""
        return (self._expected_bytes or 0) - self._body_bytes if self.in_message and self._head_done else 0

    def _expect_body(self, size: int) -> None:
        self._expected_bytes = size
        if size <= min(SMALL_BODY_BYTES, self._most_body_bytes):
            return
        self._check_key()
        if size > self._most_body_bytes:
            self._refuse(413, "")
        elif not self._buffered.has_room(size):
            self._refuse(503, "")

    def _check_key(self) -> None:
        """A large body is not read from whoever may not come in."""
        if self._lets_in is not None and not self._lets_in(path_and_query(self._url)[0], self._headers, self.caller):
            self._refuse(401, "")

    def _check_encoding(self, encoding: str) -> None:
        if encoding.lower() != "chunked":
            self._refuse(501, f"its transfer-encoding {encoding!r} is not chunked alone")
        elif self._parser.get_http_version() != "1.1":
            self._refuse(400, "HTTP/1.0 has no transfer-encoding")

    def _check_expectation(self, expected: str) -> None:
        if self._parser.get_http_version() == "1.0":
            return
        if expected.lower() == "100-continue":
            self.wants_continue = True
        else:
            self._refuse(417, f"it expects {expected!r}")

    def _is_old(self, version: str) -> bool:
        if version not in ("1.1", "1.0"):
            self._refuse(505, f"HTTP/{version} is not spoken here")
        return version == "1.0"

    def _refuse(self, status: int, problem: str) -> None:
        if not self._over:
            self._intake.refuse(status, problem)


def _size_of(url: bytes, headers: dict[str, str]) -> int:
    """Bytes of a head; ``name: value`` and a line's end each."""
    return len(url) + sum([len(name) + len(value) + 4 for name, value in headers.items()])
