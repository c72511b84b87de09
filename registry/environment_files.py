"""Environments as people write them: lines of a requirements.txt, or a conda YAML file. Pure: text in, facts or a sentence out.

What reaches beyond the package index (other files, other indexes, paths) is refused line by line with what to do instead:
an environment is a record that must mean the same on every machine.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from registry.errors import EnvironmentRefused
from registry.safe_yaml import Node, YamlRefused, read_yaml

DEFAULT_PYTHON = "3.11"
_OLDEST, _NEWEST = 8, 14
_PYTHONS = f"Use 3.{_OLDEST} to 3.{_NEWEST}, as 3.N or 3.N.P."
_OTHER_PYTHON = (
    "The file may stay as it is: hedgerow env create NAME --conda FILE --python 3.11. "
    "What is pinned to versions of that time may need newer ones."
)
_PYTHON = re.compile(r"3\.(\d{1,2})(?:\.\d{1,3})?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MOST_VARIABLES, _LONGEST_VALUE = 1000, 32_000
_MOST_LINES, _LONGEST_LINE = 10_000, 2000
_HASH = re.compile(r"(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})")
_SCHEMES = frozenset({"https", "http", "git+https"})
# `CHANNEL::NAME` and then whatever conda writes behind a name: versions, builds, brackets.
_CONDA = re.compile(
    r"(?:(?P<channel>[\w./:-]{1,300})::)?(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})(?P<rest>[ \w.+*=<>!~,|()\[\]'\"-]*)"
)
_CONDA_KEYS = ("name", "channels", "dependencies", "prefix", "variables")
_OPTIONS = {
    "-r": "Put the lines of that file here; the command line does it by itself: hedgerow env create NAME --requirements FILE",
    "-c": "Write the pinned versions into the requirements themselves.",
    "-e": "Build a wheel of that project and publish it in your package index, then name it here.",
    "-i": "Configure the index where images are built (UV_INDEX_URL of the controller); an environment names packages only.",
    "-f": "Publish those wheels in your package index; an environment names packages only.",
}
_LONG = {
    "--requirement": "-r",
    "--constraint": "-c",
    "--editable": "-e",
    "--index-url": "-i",
    "--extra-index-url": "-i",
    "--no-index": "-i",
    "--trusted-host": "-i",
    "--find-links": "-f",
}


@dataclass(frozen=True)
class CondaFile:
    """What a conda YAML file asks for. ``python_version`` is one version even where the file gives a range."""

    name: str | None = None
    python_version: str | None = None
    requirements: list[str] = field(default_factory=list)
    conda_packages: list[str] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)


def check_python(version: str) -> str:
    """``version`` as it is, if an image can be built for it. Raises EnvironmentRefused."""
    found = _PYTHON.fullmatch(version)
    if version.isascii() and found and int(found[1]) < _OLDEST:
        raise EnvironmentRefused(where="The Python version", problem=f"Python {version} is too old", advice=_PYTHONS)
    if not (version.isascii() and found and int(found[1]) <= _NEWEST and not found[1].startswith("0")):
        raise EnvironmentRefused(where="The Python version", problem=f"{_shown(version)} is none that there is", advice=_PYTHONS)
    return version


def check_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Names as POSIX has them, values without NUL. Raises EnvironmentRefused."""
    if len(variables) > _MOST_VARIABLES:
        raise _refused("The variables", f"there are more than {_MOST_VARIABLES}", "Give fewer.")
    for name, value in variables.items():
        if len(name) > 250 or not _VARIABLE.fullmatch(name):
            raise _refused(
                f"The variable {_shown(name)}", "that is no name", "Use letters, digits and _, not beginning with a digit."
            )
        if "\0" in value or len(value) > _LONGEST_VALUE:
            raise _refused(
                f"The variable {name}", f"its value holds NUL, or more than {_LONGEST_VALUE} characters", "Shorten it."
            )
    return dict(variables)


def read_requirements(lines: Iterable[str], where: str = "the requirements") -> list[str]:
    """The requirements in the lines of a requirements.txt: without comments, with continuation lines joined.

    Raises EnvironmentRefused with the number and the text of the line.
    """
    kept = []
    for number, line in _logical_lines(lines, where):
        kept.append(_requirement(line, f"Line {number} of {where}"))
    return kept


def _logical_lines(lines: Iterable[str], where: str) -> Iterable[tuple[int, str]]:
    """Non-empty lines as pip sees them, each with the number of its first physical line."""
    begun: tuple[int, str] | None = None
    for number, line in enumerate(lines, start=1):
        if number > _MOST_LINES:
            raise _refused(where.capitalize(), f"there are more than {_MOST_LINES} lines", "Split the environment.")
        text = line.removesuffix("\n").removesuffix("\r")
        if len(text.splitlines()) > 1 or not text.replace("\t", " ").isprintable():
            problem = f"{_shown(text)} holds a line break or another character that cannot be seen"
            raise _refused(f"Line {number} of {where}", problem, "Give each requirement a line of its own.")
        first, head = begun or (number, "")
        if begun is None and text.lstrip().startswith("#"):
            continue
        if text.endswith("\\") and not text.lstrip().startswith("#"):
            begun = (first, head + text[:-1])
            continue
        begun = None
        if joined := re.sub(r"(^|\s)#.*$", "", head + text).strip():
            yield first, joined
    if begun and begun[1].strip():
        yield begun[0], begun[1].strip()


def _requirement(line: str, where: str) -> str:
    if len(line) > _LONGEST_LINE:
        raise _refused(where, f"it is longer than {_LONGEST_LINE} characters", "Shorten it.")
    if line.startswith("-"):
        raise _option_refused(line, where)
    if "${" in line:
        # Whoever installs would fill it in from the environment of the machine that builds, passwords of indexes included.
        raise _refused(where, f"{_shown(line)} asks for an environment variable", "Write the value out.")
    words = re.split(r"\s+(?=--)", line)
    for option in words[1:]:
        name, _, value = option.replace("=", " ", 1).partition(" ")
        if name != "--hash" or not _HASH.fullmatch(value.strip()):
            raise _refused(where, f"{_shown(option)} is no hash", "Leave it out, or write --hash=sha256:… with 64 digits.")
    _check_requirement(words[0], where)
    return line


def _check_requirement(text: str, where: str) -> None:
    try:
        wanted = Requirement(text)
    except RecursionError:
        raise _refused(where, f"{_shown(text)} is nested too deeply", "Take the parentheses out.") from None
    except InvalidRequirement as problem:
        if re.match(r"[\w+]+://|\.{0,2}/|[A-Za-z]:\\", text):
            raise _refused(
                where, f"{_shown(text)} has no name", "Write NAME @ URL, or publish it in your package index."
            ) from None
        reason = str(problem).splitlines()[0][:200]
        advice = "Write it as in requirements.txt, for example numpy==1.26.4."
        if re.fullmatch(r"[\w.-]+=[^=].*", text):
            advice = "pip wants two equals signs (numpy==1.26.4); one is conda's way, which belongs into a conda file."
        raise _refused(where, f"{_shown(text)} is no requirement ({reason})", advice) from None
    if wanted.url is not None:
        _check_url(wanted.url, where)


def _check_url(url: str, where: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _SCHEMES and bool(parts.hostname)
    except ValueError:
        raise _refused(where, "its address is none", "Write NAME @ https://HOST/PATH.") from None
    if not usable:
        raise _refused(where, f"it asks for an address that is not {', '.join(sorted(_SCHEMES))}", "Use one of those.")
    if parts.password is not None or parts.username not in (None, "git"):
        raise _refused(where, "its address holds a password or token, which every reader would see", "Take it out.")


def _option_refused(line: str, where: str) -> EnvironmentRefused:
    word = re.split(r"[\s=]", line, maxsplit=1)[0]
    short = _LONG.get(word) or (word[:2] if not word.startswith("--") else "")
    advice = _OPTIONS.get(short, "Leave it out: it is an option of pip, and an environment names packages only.")
    shown = word if word.startswith("--") else word[:2]
    return _refused(where, f"the option {_shown(shown)} is not taken", advice)


def read_conda(text: str, where: str = "the conda file", *, python_version: str | None = None) -> CondaFile:
    """What the conda YAML file ``text`` asks for. ``prefix`` and conda's own ``pip`` are left out.

    ``python_version`` stands for the file's own, which is not looked at then: it may be older than what images can have.
    Raises EnvironmentRefused with the number of the line.
    """
    try:
        root = read_yaml(text)
    except YamlRefused as problem:
        raise _refused(f"Line {problem.line} of {where}", problem.problem, "Correct that line.") from None
    return _CondaReader(where, python_version).read(root)


class _CondaReader:
    """Walks one file's tree; ``where`` names the file in every refusal. ``python_version`` wins over the file's."""

    def __init__(self, where: str, python_version: str | None) -> None:
        self._where = where
        self._python_version = python_version

    def read(self, root: Node) -> CondaFile:
        sections = self._mapping(root, "it is no conda file: at its top stand name, channels and dependencies")
        for key, node in sections.items():
            near = difflib.get_close_matches(key[:80], _CONDA_KEYS, n=1, cutoff=0.75)
            if key not in _CONDA_KEYS and near:  # any other section is left alone, as conda does
                raise self._refuse(node, f"there is no section {_shown(key)}", f"Did you mean {near[0]}?")
        if "dependencies" not in sections:
            raise self._refuse(root, "it has no section dependencies", "List the packages below `dependencies:`.")
        python, packages, requirements = self._dependencies(sections["dependencies"])
        name = sections.get("name")
        return CondaFile(
            name=self._text(name) if name is not None and name.value is not None else None,
            python_version=python,
            requirements=requirements,
            conda_packages=packages,
            channels=self._channels(sections.get("channels")),
            variables=self._variables(sections.get("variables")),
        )

    def _dependencies(self, section: Node) -> tuple[str | None, list[str], list[str]]:
        python: str | None = None
        packages: list[str] = []
        requirements: list[str] = []
        for node in self._list(section, "dependencies"):
            if isinstance(node.value, dict):
                requirements += self._pip(node)
                continue
            spec = self._text(node)
            name, rest = self._match_spec(node, spec)
            if name == "python":
                python = self._python_version or self._python(node, rest) or python
            elif name != "pip":
                packages.append(spec)
        return python, packages, requirements

    def _pip(self, node: Node) -> list[str]:
        sections = self._mapping(node, "")
        if sections.keys() != {"pip"}:
            raise self._refuse(
                node, f"{_shown(', '.join(sections))} is no section of dependencies", "Only `pip:` may stand here."
            )
        found: list[str] = []
        for entry in self._list(sections["pip"], "pip"):
            place = f"Line {entry.line} of {self._where}"
            # One entry is one line, so that nothing can be smuggled in behind it.
            for _, line in _logical_lines([self._text(entry)], f"the entry on line {entry.line} of {self._where}"):
                found.append(_requirement(line, place))
        return found

    def _match_spec(self, node: Node, spec: str) -> tuple[str, str]:
        match = _CONDA.fullmatch(spec)
        if match is None or len(spec) > _LONGEST_LINE:
            raise self._refuse(node, f"{_shown(spec)} is no conda package", "Write NAME, NAME=VERSION or CHANNEL::NAME=VERSION.")
        if match["channel"]:
            self._check_channel(node, match["channel"])
        return match["name"].lower(), match["rest"].strip()

    def _python(self, node: Node, rest: str) -> str | None:
        """One version that fits ``rest`` (``=3.10``, ``>=3.9,<3.11``, ``3.10.*``, ``=3.10.4=h12debc_0``); None for any."""
        if not rest:
            return None
        exact = re.fullmatch(r"={0,2}\s*(3\.\d+(?:\.\d+)?)(?:\.\*|\*)?(?:[= ]\S*)?", rest)
        try:
            if exact:
                return check_python(exact[1])
            for wanted in rest.split("|"):
                if found := _fitting_python(wanted.strip()):
                    return found
        except InvalidSpecifier:
            raise self._refuse(
                node, f"{_shown(rest)} is no version of Python", "Write python=3.11 or python>=3.10,<3.12."
            ) from None
        except EnvironmentRefused as problem:
            raise self._refuse(node, str(problem.fields["problem"]), f"{problem.advice} {_OTHER_PYTHON}") from None
        raise self._refuse(node, f"no Python that there can be fits {_shown(rest)}", f"{_PYTHONS} {_OTHER_PYTHON}")

    def _channels(self, section: Node | None) -> list[str]:
        found = []
        for node in self._list(section, "channels") if section else []:
            channel = self._text(node)
            self._check_channel(node, channel)
            found.append(channel)
        return found

    def _check_channel(self, node: Node, channel: str) -> None:
        if len(channel) > 300 or not re.fullmatch(r"[\w./:@~+-]+", channel, re.ASCII):
            raise self._refuse(node, f"{_shown(channel)} is no channel", "Write a channel's name, or its https address.")
        if "@" in channel or re.search(r"/t/[^/]+", channel):
            raise self._refuse(node, "its channel's address holds a token, which every reader would see", "Take it out.")

    def _variables(self, section: Node | None) -> dict[str, str]:
        if section is None or section.value is None:
            return {}
        pairs = self._mapping(section, "variables is no list of NAME: VALUE")
        found: dict[str, str] = {}
        for name, node in pairs.items():
            if not isinstance(node.value, str):
                raise self._refuse(
                    node, f"the variable {_shown(name)} has no value", 'Write NAME: VALUE, or NAME: "" for an empty one.'
                )
            try:
                found |= check_variables({name: node.value})
            except EnvironmentRefused as problem:
                raise self._refuse(node, f"{problem.fields['where']}: {problem.fields['problem']}", problem.advice) from None
        return found

    def _mapping(self, node: Node, problem: str) -> Mapping[str, Node]:
        if not isinstance(node.value, dict):
            raise self._refuse(node, problem, "See how `conda env export` writes it.")
        return node.value

    def _list(self, node: Node, name: str) -> Sequence[Node]:
        if node.value is None:
            return []
        if not isinstance(node.value, list):
            raise self._refuse(node, f"{name} is no list", f"Write each one below `{name}:` after a dash.")
        return node.value

    def _text(self, node: Node) -> str:
        if not isinstance(node.value, str) or not node.value.strip():
            raise self._refuse(node, "a value is missing, or is not plain text", "Write one line of text there.")
        if "\n" in node.value or "\0" in node.value:
            raise self._refuse(node, f"{_shown(node.value)} holds a line break", "Write one line of text there.")
        return node.value.strip()

    def _refuse(self, node: Node, problem: str, advice: str) -> EnvironmentRefused:
        return _refused(f"Line {node.line} of {self._where}", problem, advice)


def _fitting_python(wanted: str) -> str | None:
    """The default if it fits, else the newest ``3.N`` of which some patch version does. Raises InvalidSpecifier."""
    if re.fullmatch(r"=?3(\.\*)?", wanted):
        return DEFAULT_PYTHON
    spec = SpecifierSet(re.sub(r"(^|,)\s*=(?!=)\s*([\d.]+?)(\.?\*)?(?=,|$)", r"\1==\2.*", wanted))
    for candidate in (DEFAULT_PYTHON, *(f"3.{minor}" for minor in range(_NEWEST, _OLDEST - 1, -1))):
        if any(spec.contains(f"{candidate}.{patch}") for patch in (0, 99)):
            return candidate
    exact = re.search(r"3\.(\d+)\.\d+", wanted)
    return exact[0] if exact and spec.contains(exact[0]) and _OLDEST <= int(exact[1]) <= _NEWEST else None


def _refused(where: str, problem: str, advice: str) -> EnvironmentRefused:
    return EnvironmentRefused(where=where, problem=problem, advice=advice)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
