"""A tree of :mod:`registry.safe_yaml` as plain values, by the core schema of YAML 1.2: `true` and `10` are what they look like.

What has quotes is text. `yes`, `on`, `012` and times, which YAML 1.1 made something else of, are text.
"""

from __future__ import annotations

import re

from registry.safe_yaml import Node

_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,30})")
_REAL = re.compile(r"[-+]?(?:\.[0-9]{1,60}|[0-9]{1,60}(?:\.[0-9]{0,60})?)(?:[eE][-+]?[0-9]{1,3})?")
_TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


def plain_value(node: Node) -> object:
    """Text, whole and real numbers, truth values, None, lists and dictionaries."""
    value = node.value
    if isinstance(value, dict):
        return {key: plain_value(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain_value(inner) for inner in value]
    return _scalar(value) if node.plain and value is not None else value


def _scalar(text: str) -> object:
    if text in _TRUTH:
        return _TRUTH[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    # Leading zeros are for names (`012`), not for numbers.
    leading = text.lstrip("+-")
    if _REAL.fullmatch(text) and not (leading[:1] == "0" and leading[1:2].isdigit()):
        return float(text)
    return text
