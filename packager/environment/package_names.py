"""Names of Python packages, as package indexes compare them. Pure."""

from __future__ import annotations

import re

# Without anchors: part of larger patterns as well.
NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"


def normal_name(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def name_of(requirement: str) -> str:
    """`numpy` of `numpy[extra]>=1.26`, normal; empty for what begins with no name."""
    match = re.match(NAME, requirement)
    return normal_name(match.group()) if match else ""
