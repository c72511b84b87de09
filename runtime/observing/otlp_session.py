"""How spans get through OpenTelemetry's exporter, which knows addresses, keys, certificates, packing and when to try again.

It encodes spans itself, slowly, and takes no others. What it takes is a session of ours to post with: it is handed one span that
stands for all, and what is posted in its place are those that otlp_wire.py encoded.
"""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import requests

_FASTEST = 1


class InPlaceSession(requests.Session):
    """Posts ``body`` in place of what it is given, packed the same way."""

    body = b""

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # noqa: ANN401 - requests' own
        if request.method == "POST":
            body = _packed(self.body, str(request.headers.get("Content-Encoding", "")))
            request.body = body
            request.headers["Content-Length"] = str(len(body))
        return super().send(request, **options)


def _packed(body: bytes, packing: str) -> bytes:
    if packing == "gzip":
        return gzip.compress(body, _FASTEST)
    return zlib.compress(body, _FASTEST) if packing == "deflate" else body
