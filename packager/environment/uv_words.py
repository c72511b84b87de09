"""What uv says when it finds no solution, made short: which package, which version, which two requirements. Pure: text to words.

uv proves its refusals step by step, in sentences that have kept their form through its versions: `A depends on B`, `you require
C`, `there is no version of D`, `E has no usable wheels`. What is not understood is passed on as it came.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from packager.environment.package_names import NAME, name_of

Kind = Literal["unknown", "unnamed", "version", "wheel", "clash"]

_ONE = r"[<>=!~]=?=?[\w.*+!-]*[\w*]"
_SPEC = rf"{NAME}(?:\[[\w,.-]*\])?(?:{_ONE}(?:,{_ONE})*)?"
_DEPENDS = re.compile(rf"(?P<who>{_SPEC}) depends on (?P<needs>{_SPEC})(?=,? |\.|,|$)")
_REQUIRED = re.compile(rf"(?<!conclude that )you require (?P<first>{_SPEC})(?: and (?P<second>{_SPEC})(?= |,|\.|$))?")
_NO_VERSION = re.compile(rf"there (?:is|are) no versions? of (?P<what>{_SPEC})")
_ONLY = re.compile(rf"only (?P<there>{_SPEC}) (?:is|are) available")
_NO_NAME = re.compile(rf"(?P<what>{NAME}) was not found in the (?:package registry|provided package locations)")
_NO_WHEELS = re.compile(rf"(?P<what>{_SPEC}) ha(?:s|ve) no (?:usable wheels|wheels with a matching)")
_NO_WHEELS_LISTED = re.compile(rf"all of: (?P<first>{_SPEC})[^,]*?(?: {_SPEC})* have no (?:usable wheels|wheels with a matching)")
_YANKED = re.compile(rf"(?P<what>{_SPEC}) was yanked(?: \(reason: (?P<reason>.*?)\)(?= and | you |,|$))?")
_ONLY_SOURCE = re.compile(rf"Wheels are required for `(?P<name>{NAME})`")
_OTHER_PYTHONS = re.compile(rf"only found wheels for `(?P<name>{NAME})` .*?Python (?:ABI|implementation) tags?: (?P<tags>.*)")
_OTHER_PLATFORMS = re.compile(rf"Wheels are available for `(?P<name>{NAME})` .*?platforms?: (?P<tags>.*)")
_CREDENTIALS = re.compile(r"(?<=://)[^/\s]+@")  # up to the last "@": passwords have some, too
_NETWORK = re.compile(
    r"failed to fetch|error sending request|dns error|could not connect|timed? out|connection refused|request failed after", re.I
)
_REFUSED_ACCESS = re.compile(
    r"^\s*hint: (?P<words>An index (?:URL )?\(.*\) (?:could not be queried|returned) .*|Packages were unavailable because .*)$",
    re.M,
)
_MORE_AT_MOST = 2000
_OWN = "(of the scoring server)"


@dataclass(frozen=True)
class Explained:
    """Why there is no solution. ``package`` and ``requirement`` say of what a version or a wheel is missing."""

    kind: Kind
    problem: str
    package: str = ""
    requirement: str = ""


def said(stderr: str) -> str:
    """uv's explanation as one line, without passwords of index addresses."""
    lines = [line.strip(" ×╰─▶│·├") for line in stderr.splitlines()]
    kept = [line for line in lines if line and not line.startswith(("Using ", "Resolved ", "warning:", "hint:"))]
    plain = [re.sub(r"^(?:error|cause): ", "", line) for line in kept]
    return _CREDENTIALS.sub("***@", " ".join(plain))[:_MORE_AT_MOST] or "uv gave no reason"


def unreachable(stderr: str) -> str | None:
    """Of a failed request: its address and the last thing that went wrong. None: the index was not the trouble."""
    text = _CREDENTIALS.sub("***@", stderr)
    if hint := _REFUSED_ACCESS.search(text):
        return hint.group("words")
    if not _NETWORK.search(text):
        return None
    address = re.search(r"https?://[^\s`()]+", text)
    causes = [line.strip(" ×╰─▶│·├").removeprefix("cause: ") for line in text.splitlines()]
    last = next((line for line in reversed(causes) if line and not line.startswith(("hint:", "For more"))), "")
    if address is None or not last:
        return said(stderr)
    return last if address.group() in last else f"{address.group()}: {last}"


def explain(stderr: str, own: Iterable[str] = ()) -> Explained:
    """What is wrong. ``own`` are the requirements of the scoring server, which the user did not write."""
    whole, hints = said(stderr), [line.strip() for line in stderr.splitlines() if line.strip().startswith("hint:")]
    # `numpy{python_full_version < '3.14'}>=1.26`: the condition says nothing that is not known here.
    reasons = re.sub(r"\{[^{}]*\}|`", "", whole.partition("Because ")[2].replace("And because ", ""))
    if not reasons:
        return Explained("unknown", whole)
    proof = _Proof(reasons, hints, frozenset(own))
    found = proof.unnamed() or proof.yanked() or proof.without_wheel() or proof.without_version() or proof.clash()
    return found or Explained("unknown", whole)


def advice(explained: Explained) -> str:
    """What to do about it."""
    if explained.kind == "unnamed":
        return "Check its spelling: a package's name on the index is not always that of the module which is imported."
    if explained.kind == "version":
        return "Ask for a version that is there, or leave the version open."
    if explained.kind == "wheel":
        return (
            "Ask for a version that has one, use another Python, or leave it out; "
            "what is there as source can be built by a container engine (--dockerfile)."
        )
    if explained.kind == "clash" and re.search(r"\bazureml-(?:defaults|inference-server-http|core)\b", explained.problem):
        return "Leave azureml-defaults and its like out: an image has a scoring server and Azure ML's own imports without them."
    if explained.kind == "clash" and _OWN in explained.problem:
        return "What the scoring server needs stays: ask for a version that fits it, or leave yours open."
    if explained.kind == "clash":
        return "Change one of the two, or leave its version open."
    return "Change the requirements; packages without a wheel for that platform cannot be used."


class _Proof:
    """uv's steps: ``needs`` are the edges of the dependency graph that it mentions, ``asked`` what the user asked for."""

    def __init__(self, reasons: str, hints: list[str], own: frozenset[str]) -> None:
        self._reasons, self._hints, self._own = reasons, hints, own
        self._needs = list(dict.fromkeys((match["who"], match["needs"]) for match in _DEPENDS.finditer(reasons)))
        given = (part for match in _REQUIRED.finditer(reasons) for part in match.group("first", "second") if part)
        self._asked = list(dict.fromkeys(given))

    def unnamed(self) -> Explained | None:
        match = _NO_NAME.search(self._reasons)
        if match is None:
            return None
        return Explained(
            "unnamed", f"{self._way(match['what'])} is not on the package index", name_of(match["what"]), match["what"]
        )

    def yanked(self) -> Explained | None:
        found = list(_YANKED.finditer(self._reasons))
        if not found:
            return None
        name = name_of(found[-1]["what"])
        withdrawn = [
            f"{match['what']} ({match['reason'] or 'no reason given'})" for match in found if name_of(match["what"]) == name
        ]
        wanted = self._wanted(name) or found[-1]["what"]
        return Explained(
            "version", f"{self._way(wanted)} means versions that were withdrawn: {', '.join(withdrawn)}", name, wanted
        )

    def without_wheel(self) -> Explained | None:
        lacking = [match["what"] for match in _NO_WHEELS.finditer(self._reasons)]
        lacking += [match["first"] for match in _NO_WHEELS_LISTED.finditer(self._reasons)]
        if not lacking:
            return None
        hinted = [match["name"] for hint in self._hints if (match := _ONLY_SOURCE.search(hint) or _OTHER_PYTHONS.search(hint))]
        name = name_of(next((what for what in lacking if name_of(what) in map(name_of, hinted)), lacking[-1]))
        wanted = self._wanted(name) or next(what for what in lacking if name_of(what) == name)
        return Explained("wheel", f"{self._way(wanted)} has no wheel that fits{self._what_there_is(name)}", name, wanted)

    def without_version(self) -> Explained | None:
        if match := _NO_VERSION.search(self._reasons):
            wanted = self._wanted(name_of(match["what"])) or match["what"]
            return Explained("version", f"{self._way(wanted)} is not on the package index", name_of(wanted), wanted)
        if (match := _ONLY.search(self._reasons)) and not self._needs_of(name_of(match["there"]))[1:]:
            name = name_of(match["there"])
            wanted = self._wanted(name)
            if wanted:
                problem = f"{self._way(wanted)} is not on the package index, which has {match['there']}"
                return Explained("version", problem, name, wanted)
        return None

    def clash(self) -> Explained | None:
        """The two that name the same package: both asked for, one asked for and one needed, or both needed."""
        for wanted in reversed(self._asked):
            name = name_of(wanted)
            twice = [other for other in self._asked if name_of(other) == name]
            if len(twice) > 1:
                return Explained("clash", f"{self._title(twice[0])} and {self._title(twice[1])} are both asked for", name)
            if needs := self._needs_of(name):
                return Explained("clash", f"{self._chain(needs[-1])}, but {self._title(wanted)} is asked for", name)
        for _, target in self._needs:
            needs = self._needs_of(name_of(target))
            if len(needs) > 1 and name_of(needs[0][0]) != name_of(needs[1][0]):
                return Explained("clash", f"{self._chain(needs[0])}, but {self._chain(needs[1])}", name_of(target))
        return None

    def _needs_of(self, name: str) -> list[tuple[str, str]]:
        return [edge for edge in self._needs if name_of(edge[1]) == name]

    def _wanted(self, name: str) -> str:
        """The requirement on ``name``: the user's, else that of another package."""
        asked = [requirement for requirement in self._asked if name_of(requirement) == name]
        needed = [target for _, target in self._needs_of(name)]
        return (asked or needed or [""])[0]

    def _way(self, requirement: str) -> str:
        """``requirement`` with who needs it, when it was not asked for itself."""
        name = name_of(requirement)
        needs = self._needs_of(name)
        if any(name_of(asked) == name for asked in self._asked) or not needs:
            return self._title(requirement)
        return f"{self._chain(needs[0])}, which"

    def _chain(self, edge: tuple[str, str]) -> str:
        """`A needs B, which needs C`, from a package that was asked for down to ``edge``."""
        above = list(self._above(edge[0]))
        words = f"{edge[0]} needs {edge[1]}"
        for who, needs in above:
            words = f"{who} needs {needs}, which needs {edge[1]}" if name_of(needs) == name_of(edge[0]) else words
        return words

    def _above(self, who: str) -> Iterator[tuple[str, str]]:
        if not any(name_of(asked) == name_of(who) for asked in self._asked):
            yield from self._needs_of(name_of(who))[:1]

    def _title(self, requirement: str) -> str:
        return f"{requirement} {_OWN}" if requirement in self._own else requirement

    def _what_there_is(self, name: str) -> str:
        there = []
        for hint in self._hints:
            if (match := _ONLY_SOURCE.search(hint)) and name_of(match["name"]) == name:
                there.append("its source")
            if (match := _OTHER_PYTHONS.search(hint)) and name_of(match["name"]) == name:
                there.append("wheels for " + _pythons(match["tags"]))
            if (match := _OTHER_PLATFORMS.search(hint)) and name_of(match["name"]) == name:
                there.append("wheels for " + _platforms(match["tags"]))
        return f" (there is only: {', '.join(there)})" if there else ""


def _pythons(tags: str) -> str:
    """`Python 3.7, 3.8` of "`cp37m`, `cp38`"."""
    found = dict.fromkeys(f"{major}.{minor}" for major, minor in re.findall(r"`cp(\d)(\d+)\w*`", tags))
    return f"Python {', '.join(found)}" if found else tags.replace("`", "")


def _platforms(tags: str) -> str:
    systems = {"manylinux": "Linux", "musllinux": "musl Linux", "linux": "Linux", "macosx": "macOS", "win": "Windows"}
    found: dict[str, None] = {}
    for tag in re.findall(r"`(\w+)`", tags):
        system = next((title for start, title in systems.items() if tag.startswith(start)), tag)
        machine = re.search(r"(x86_64|amd64|aarch64|arm64|armv7l|i686|win32|ppc64le|s390x|riscv64|universal2)$", tag)
        found[f"{system} {machine.group()}" if machine else system] = None
    return ", ".join(found) or tags.replace("`", "")
