"""What an installed wheel says about itself in its METADATA: licence and requirements, for the bill of materials.

Read once beside the wheel's layer and kept in the cache with it; nothing of the wheel is run or imported.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from packager.environment.package_names import normal_name

if TYPE_CHECKING:
    from email.message import Message

# Headers come first, a description of any length after them.
_HEADERS_AT_MOST = 1024 * 1024
# What an SPDX expression is written with; anything else is a name for people.
_EXPRESSION = re.compile(r"[A-Za-z0-9.+:() -]{1,200}\Z")
# Some wheels carry the whole text of their licence in the field for its name.
_LONGEST_NAME = 120
_CLASSIFIER = "License :: "


class WheelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """``license_expression`` is SPDX; ``licenses`` are names where there is none. ``requires`` is as Requires-Dist has it."""

    name: str
    version: str
    license_expression: str | None = None
    licenses: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()


def wheel_metadata(info_folder: Path) -> WheelMetadata:
    """Read ``NAME-VERSION.dist-info/METADATA``. What is missing or unreadable there is left out; ``name`` is normalised.

    Raises OSError when the file is there and cannot be read.
    """
    from email.parser import HeaderParser  # only for wheels that are installed: most builds find all of them made

    name, _, version = info_folder.name.removesuffix(".dist-info").rpartition("-")
    try:
        with (info_folder / "METADATA").open("rb") as file:
            text = file.read(_HEADERS_AT_MOST).decode("utf-8", errors="replace")
    except FileNotFoundError:
        text = ""
    headers = HeaderParser().parsestr(text)
    expression = _one_line(str(headers.get("License-Expression", "")))
    is_spdx = bool(_EXPRESSION.match(expression))
    return WheelMetadata(
        name=normal_name(_one_line(str(headers.get("Name", ""))) or name),
        version=_one_line(str(headers.get("Version", ""))) or version,
        license_expression=expression if is_spdx else None,
        licenses=() if is_spdx else _license_names(headers, expression),
        requires=tuple(sorted({_one_line(str(line)) for line in headers.get_all("Requires-Dist", [])})),
    )


def _license_names(headers: Message, expression: str) -> tuple[str, ...]:
    """Names of licences: what the field says if that is a name, else the classifiers, else the field's first words."""
    written = str(headers.get("License", "")).strip()
    name = _one_line(written)
    if name.upper() == "UNKNOWN":
        name = ""
    if expression:
        return (expression[:_LONGEST_NAME],)
    if name and "\n" not in written and len(name) <= _LONGEST_NAME:
        return (name,)
    classifiers = [_one_line(str(line)) for line in headers.get_all("Classifier", [])]
    found = {line.rpartition(" :: ")[2] for line in classifiers if line.startswith(_CLASSIFIER)}
    return tuple(sorted(found)) or ((_one_line(written.splitlines()[0])[:_LONGEST_NAME],) if name else ())


def _one_line(text: str) -> str:
    return " ".join(text.split())
