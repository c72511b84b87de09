"""What ``/score`` answers without a script: a list for one output, ``{"output name": …}`` for several; stdlib JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping

import msgspec

from runtime.large_json.writing import all_finite, is_large, list_text, stdlib_list_text
from runtime.models.outputs import Outputs, Share
from runtime.tensors import Array, values_of


def json_answer(share: Share) -> bytes:
    """Raises what json.dumps raises for values that JSON has no form for."""
    if share.large:
        return _large_answer(share.values())
    return _text(share.only() if len(share.whole.values) == 1 else share.nested())


def _text(answer: object) -> bytes:
    try:
        text = msgspec.json.encode(answer)
    except (TypeError, msgspec.MsgspecError):
        return json.dumps(answer).encode()
    # msgspec has no word for NaN and infinities but null; this contract has.
    return json.dumps(answer).encode() if b"null" in text else text


def _large_answer(outputs: Outputs) -> bytes:
    """The same bytes, large arrays written in pieces."""
    large: dict[str, Array] = {name: value for name, value in outputs.items() if is_large(value)}  # type: ignore[misc]  # is_large says so
    small = {name: values_of(value) for name, value in outputs.items() if name not in large}
    if _needs_stdlib(outputs, large, small):
        texts = {name: stdlib_list_text(large[name]) if name in large else json.dumps(small[name]).encode() for name in outputs}
        if len(texts) == 1:
            return next(iter(texts.values()))
        return b"{%b}" % b", ".join([json.dumps(name).encode() + b": " + text for name, text in texts.items()])
    texts = {name: list_text(large[name]) if name in large else msgspec.json.encode(small[name]) for name in outputs}
    if len(texts) == 1:
        return next(iter(texts.values()))
    return msgspec.json.encode({name: msgspec.Raw(text) for name, text in texts.items()})


def _needs_stdlib(outputs: Outputs, large: Mapping[str, Array], small: Mapping[str, object]) -> bool:
    """Whether msgspec could not write it, or would write null anywhere."""
    try:
        # A name alone says nothing where there is one output only.
        rest = msgspec.json.encode([list(outputs) if len(outputs) > 1 else [], small])
    except (TypeError, msgspec.MsgspecError):
        return True
    return b"null" in rest or not all(map(all_finite, large.values()))
