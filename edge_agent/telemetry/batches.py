"""Many messages in one request: JSON lines, or a JSON array, cut into the very texts that the module wrote."""

from __future__ import annotations

import msgspec

from edge_agent.errors import MessageRefused, MessageTooLarge

# Content types of JSON lines; an array comes as any other type with ``?batch=array``.
LINES_TYPES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"})
BATCH_BYTES_MAX = 1_048_576
BATCH_MESSAGES_MAX = 1000


def json_text(data: bytes) -> str:
    """One JSON text as it was written. Raises MessageRefused."""
    try:
        msgspec.json.decode(data)
        return data.decode()
    except RecursionError:
        raise MessageRefused(problem="its JSON is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise MessageRefused(problem=f"its body is not JSON: {problem}") from None


def json_lines(data: bytes, max_message_bytes: int) -> list[str]:
    """The texts of JSON lines; empty lines are passed over. Raises MessageRefused, MessageTooLarge."""
    return _checked([line for line in data.split(b"\n") if line.strip()], max_message_bytes)


def json_array(data: bytes, max_message_bytes: int) -> list[str]:
    """The texts of an array's elements. Raises MessageRefused, MessageTooLarge."""
    try:
        elements = msgspec.json.decode(data, type=list[msgspec.Raw])
    except RecursionError:
        raise MessageRefused(problem="its JSON is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise MessageRefused(problem=f"its body is not a JSON array: {problem}") from None
    # Counted before they are copied: a megabyte holds half a million.
    _check_number(len(elements))
    return _checked([bytes(element) for element in elements], max_message_bytes)


def _checked(texts: list[bytes], max_message_bytes: int) -> list[str]:
    _check_number(len(texts))
    largest = max(map(len, texts))
    if largest > max_message_bytes:
        raise MessageTooLarge(size=largest, limit=max_message_bytes)
    return [json_text(text) for text in texts]


def _check_number(messages: int) -> None:
    if not 0 < messages <= BATCH_MESSAGES_MAX:
        raise MessageRefused(problem=f"it has {messages} messages, a batch has 1 to {BATCH_MESSAGES_MAX}")
