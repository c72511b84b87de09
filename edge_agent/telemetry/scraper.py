"""Telemetry that a module only shows: its Prometheus page, read now and then, as messages of output ``metrics``. Best effort.

A message is a JSON list of ``{"TimeGeneratedUtc", "Name", "Value", "Labels"}``, the shape of IoT Edge's metrics collector; a page
becomes as many messages as its samples need. What a page shows between two readings, or while the module is away, is not seen.
"""

from __future__ import annotations

import http.client
import math
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

import msgspec

OUTPUT = "metrics"
TIMEOUT_S = 5.0
PAGE_BYTES_MAX = 4 << 20
SAMPLES_MAX = 20_000
LINE_LENGTH_MAX = 16_384
# Below the limit of a message, with room for what surrounds it on its way.
MESSAGE_BYTES_MAX = 60_000
_CHUNK = 64 * 1024
_OK = 200
_SAMPLE = re.compile(
    r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>(?:[^\"}]|\"(?:[^\"\\]|\\.)*\")*)\})?[ \t]+(?P<value>[^ \t]+)"
    r"(?:[ \t]+(?P<time>-?[0-9.]+))?[ \t]*(?:#.*)?\Z"
)
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|\Z)')
_ESCAPE = re.compile(r"\\(.)")


class MetricSample(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """One sample as it is sent."""

    time_generated_utc: str
    name: str
    value: float
    labels: dict[str, str]


@dataclass(frozen=True)
class Scraped:
    """What one reading gave: messages' bodies, and how many lines or samples were left out."""

    bodies: list[str]
    samples: int
    left_out: int


class ScrapeFailed(Exception):
    """A page that could not be read."""


def scrape(address: str, path: str, now: datetime, *, limit: int = MESSAGE_BYTES_MAX, timeout_s: float = TIMEOUT_S) -> Scraped:
    """Read a page and make messages of at most ``limit`` bytes of it. Raises ScrapeFailed."""
    return messages_of(fetch(address, path, timeout_s), now, limit)


def messages_of(text: str, now: datetime, limit: int = MESSAGE_BYTES_MAX) -> Scraped:
    """The messages of a page that was read at ``now``."""
    stamp = f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}Z"
    samples: list[MetricSample] = []
    left_out = 0
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        sample = read_sample(line.strip(), stamp) if len(line) <= LINE_LENGTH_MAX and len(samples) < SAMPLES_MAX else None
        if sample is None:
            left_out += 1
        else:
            samples.append(sample)
    return Scraped(list(in_messages(samples, limit)), len(samples), left_out)


def read_sample(line: str, stamp: str) -> MetricSample | None:
    """A line of the text format (Prometheus 0.0.4, OpenMetrics 1.0); None for none, or a value that JSON does not have."""
    found = _SAMPLE.match(line)
    labels = read_labels(found["labels"] or "") if found else None
    if found is None or labels is None:
        return None
    try:
        value = float(found["value"])
    except ValueError:
        return None
    if not math.isfinite(value):
        return None
    return MetricSample(time_generated_utc=stamp, name=found["name"], value=value, labels=labels)


def read_labels(text: str) -> dict[str, str] | None:
    """``a="b",c="d"``; None for anything else."""
    labels: dict[str, str] = {}
    at = 0
    while at < len(text):
        found = _LABEL.match(text, at)
        if found is None:
            return None if text[at:].strip() else labels
        labels[found[1]] = _ESCAPE.sub(lambda escape: "\n" if escape[1] == "n" else escape[1], found[2])
        at = found.end()
    return labels


def in_messages(samples: Iterable[MetricSample], limit: int = MESSAGE_BYTES_MAX) -> Iterator[str]:
    """JSON lists of at most ``limit`` bytes; a sample that is larger by itself is left out."""
    part: list[bytes] = []
    size = 2
    for sample in samples:
        text = msgspec.json.encode(sample)
        if len(text) + 2 > limit:
            continue
        if part and size + len(text) + 1 > limit:
            yield _joined(part)
            part, size = [], 2
        part.append(text)
        size += len(text) + 1
    if part:
        yield _joined(part)


def _joined(part: list[bytes]) -> str:
    return (b"[" + b",".join(part) + b"]").decode()


def fetch(address: str, path: str, timeout_s: float) -> str:
    """GET a page of limited size in limited time. Raises ScrapeFailed."""
    until_s = time.monotonic() + timeout_s
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=timeout_s)
    try:
        connection.request("GET", path, headers={"accept": "text/plain;version=0.0.4"})
        answer = connection.getresponse()
        if answer.status != _OK:
            raise ScrapeFailed(f"it answered {answer.status}")
        data = b""
        while chunk := answer.read1(_CHUNK):
            data += chunk
            if len(data) > PAGE_BYTES_MAX:
                raise ScrapeFailed(f"it has more than {PAGE_BYTES_MAX} bytes")
            if time.monotonic() > until_s:
                raise ScrapeFailed(f"it took more than {timeout_s:g} s")
        return data.decode(errors="replace")
    except TimeoutError:
        raise ScrapeFailed(f"no answer within {timeout_s:g} s") from None
    except (OSError, http.client.HTTPException) as problem:
        raise ScrapeFailed(str(problem) or type(problem).__name__) from None
    finally:
        connection.close()
