"""After a refusal: which requirements have no wheel at all for a platform, and which versions would do. Asks uv again."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol

from packager.environment.package_names import name_of
from packager.errors import EnvironmentUnsolvable
from packager.settings import OLDEST_PYTHON_MINOR, RUNTIME_REQUIREMENTS

_ASKED_AT_MOST = 40
_PYTHONS = tuple(f"3.{minor}" for minor in range(OLDEST_PYTHON_MINOR, 15))
_EXACT = re.compile(r"[^<>=!~]+===?(?P<version>[\w.+!-]+)")


class Ask(Protocol):
    """The newest (or oldest) version that fits ``requirement`` and has a wheel, for another Python where one is named."""

    def __call__(self, requirement: str, *, oldest: bool = False, python_version: str | None = None) -> str | None: ...


def with_what_fits(problem: EnvironmentUnsolvable, requirements: Iterable[str], ask: Ask) -> EnvironmentUnsolvable:
    """``problem`` with the versions that would do, where it is about a version or about wheels; else as it came."""
    kind = problem.fields.get("kind")
    if kind == "wheel":
        return _all_without_wheels(problem, list(requirements)[:_ASKED_AT_MOST], ask)
    if kind == "clash":
        # A pin that is too old for this Python as well: then no other choice of the two would help.
        asked = list(requirements)[:_ASKED_AT_MOST]
        return _all_without_wheels(problem, asked, ask) if any(_EXACT.fullmatch(one) for one in asked) else problem
    if kind == "version":
        near = _nearest(str(problem.fields["requirement"]), ask)
        return _said(problem, near) if near else problem
    return problem


def _all_without_wheels(problem: EnvironmentUnsolvable, requirements: list[str], ask: Ask) -> EnvironmentUnsolvable:
    """uv stops at the first; whoever must change requirements wants to know all."""
    lacking = [requirement for requirement in requirements if ask(requirement) is None]
    if not lacking and problem.fields["kind"] != "wheel":
        return problem
    problem = EnvironmentUnsolvable(**{**problem.fields, "lacking": lacking or [str(problem.fields["requirement"])]})
    words = [words for requirement in lacking[:5] if (words := _would_do(requirement, ask))]
    near = f"What has one: {', '.join(words)}." if words else ""
    if len(lacking) == 1:
        near = f"{_other_pythons(lacking[0], ask)} {near}".strip()
    if any(requirement in RUNTIME_REQUIREMENTS for requirement in lacking):
        near = (
            f"The scoring server needs some of them itself: use a package index that has them for {problem.fields['platform']}."
        )
    if problem.fields["kind"] != "wheel":
        lacks = "has no wheel that fits" if len(lacking) == 1 else "have no wheels that fit"
        return _said(problem, near, f"{problem.fields['problem']}, and {_listed(lacking)} {lacks}")
    if len(lacking) < 2:
        return _said(problem, near) if near else problem
    return _said(problem, near, f"{_listed(lacking)} have no wheels that fit")


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if names[1:] else names[0]


def _would_do(requirement: str, ask: Ask) -> str:
    """Of an exact version the one that follows: whoever saved a model with it wants to stay near. Empty for none."""
    name, exact = name_of(requirement), _EXACT.fullmatch(requirement)
    above = ask(f"{name}>{exact['version'].partition('+')[0]}", oldest=True) if exact else None
    if above:
        return f"{name} {above} and newer"
    newest = ask(name)
    return f"{name} {newest}" if newest else ""


def _other_pythons(requirement: str, ask: Ask) -> str:
    """Often a Python is too new or too old; of the asked one it is known that there is none."""
    fitting = [version for version in _PYTHONS if ask(requirement, python_version=version)]
    return f"{requirement} has wheels for Python {', '.join(fitting)}." if fitting else ""


def _nearest(requirement: str, ask: Ask) -> str:
    name = name_of(requirement)
    exact = _EXACT.fullmatch(requirement)
    if exact is None:
        newest = ask(name)
        return f"The newest with a wheel that fits is {newest}." if newest else ""
    public = exact["version"].partition("+")[0]
    # `2.1.0+cpu` is missing while 2.1.0 is there: the version itself counts as near.
    below = ask(f"{name}<={public}")
    above = ask(f"{name}>{public}", oldest=True)
    near = list(dict.fromkeys(version for version in (below, above) if version))
    return f"The nearest with a wheel that fits: {' and '.join(near)}." if near else ""


def _said(problem: EnvironmentUnsolvable, near: str, text: str = "") -> EnvironmentUnsolvable:
    fields = dict(problem.fields)
    fields["problem"] = text or fields["problem"]
    fields["advice"] = f"{near} {fields['advice']}".strip()
    return EnvironmentUnsolvable(**fields)
