"""Names of streams that routes make. The same route or input always gets the same name, two never share one."""

from __future__ import annotations

import re
from hashlib import sha256

from hedgerow.contracts.names import MAX_NAME_LENGTH

DEFAULT_STREAM = "telemetry"
INPUT_PREFIX = "input."
ROUTE_PREFIX = "route."
_PLAIN = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?\Z")
_OTHER = re.compile(r"[^a-z0-9]+")
# Two of them, the longest prefix and the hash fit into a name.
_SLUG_LENGTH = 50
_HASH_LENGTH = 12


def input_stream(module: str, name: str) -> str:
    """``input.MODULE.INPUT``: the messages that wait for an input of a module (by our name for it)."""
    return _stream(INPUT_PREFIX, module, name)


def route_stream(route: str) -> str:
    """``route.NAME``: what a route with a priority or time to live of its own sends to the hub."""
    return _stream(ROUTE_PREFIX, route)


def is_input_stream(stream: str) -> bool:
    """Whether a stream of this name belongs to routes between modules."""
    return stream.startswith(INPUT_PREFIX)


def _stream(prefix: str, *names: str) -> str:
    """Names that are none of ours get a hash as one more part; a part itself has no dots, so no plain name looks like that."""
    plain = prefix + ".".join(names)
    if all(map(_PLAIN.match, names)) and len(plain) <= MAX_NAME_LENGTH:
        return plain
    slugs = [_OTHER.sub("-", name.lower()).strip("-")[:_SLUG_LENGTH].rstrip("-") or "x" for name in names]
    digest = sha256("\0".join(names).encode(errors="surrogatepass")).hexdigest()[:_HASH_LENGTH]
    return f"{prefix}{'.'.join(slugs)}.{digest}"
