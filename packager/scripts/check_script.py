"""Judges a scoring script before an image is built: can it be read, has it what the server calls, is there what it imports?

Nothing is run and nothing is opened: the texts come as a mapping, and of them only those are read that the script reaches
through its imports. What cannot be known without running it is let through; the test of the image finds the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from packager.errors import ImportsMissing, ScriptBroken, ScriptIncomplete
from packager.scripts.module_names import gone, left_standard_library, package_of, stand_in_has, standard_modules
from packager.scripts.read_imports import FileFacts, Import, NotPython, read_file
from packager.source_files import RESERVED_MODULES


@dataclass(frozen=True)
class ImportProblem:
    """An import for which nothing was found. Not ``certain``: it runs later (in a function) or under a condition, if at all."""

    module: str
    file: str
    line: int
    package: str
    certain: bool
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.module} ({self.file}:{self.line}{'; ' if self.reason else ''}{self.reason})"


def check_script(
    source: Mapping[str, str | bytes], script: str, available: frozenset[str], python_version: str
) -> list[ImportProblem]:
    """The imports for which there is nothing, in the order of reading.

    ``source`` has the files of the source folder by their '/'-separated paths (`source_texts.py`), ``script`` is one of them,
    ``available`` are the top-level modules of environment and base image (`module_names.py`). Raises ScriptBroken,
    ScriptIncomplete, and what ``source`` raises.
    """
    reading = _Reading(source, script, available, python_version)
    reading.read_all()
    facts = reading.facts.get(script)
    if facts is not None:
        _check_functions(script, facts)
    return reading.problems


def imports_missing(problems: Iterable[ImportProblem]) -> ImportsMissing | None:
    """The error that names all that is certain, or None."""
    certain = list({problem.module.split(".")[0]: problem for problem in reversed(list(problems)) if problem.certain}.values())[
        ::-1
    ]
    if not certain:
        return None
    packages = ", ".join(dict.fromkeys(problem.package for problem in certain if problem.package))
    # No name is looked up: one's own `utils` may also be somebody's package on the index.
    advice = (
        f"Add to the environment: {packages}. Modules of your own belong into the source folder (--source)."
        if packages
        else "Put the missing files into the source folder, or correct the imports."
    )
    return ImportsMissing(
        imports=", ".join(map(str, certain)),
        advice=f"{advice} Imports that the script can do without belong into try/except ImportError.",
    )


def _check_functions(script: str, facts: FileFacts) -> None:
    if facts.undecidable:
        return
    # As the runtime has it: `driver_module.run` may stand for `run`, and nothing may stand for `init`.
    missing = [] if facts.names & {"run", "driver_module"} else ["run()"]
    missing += [] if "init" in facts.names else ["init()"]
    if missing:
        raise ScriptIncomplete(script=script, functions=" and no ".join(missing))


class _Reading:
    """Walks from the script through the modules of its source folder."""

    def __init__(self, source: Mapping[str, str | bytes], script: str, available: frozenset[str], python_version: str) -> None:
        self._source, self._script, self._python_version = source, script, python_version
        self._available = available | standard_modules(python_version) | RESERVED_MODULES
        # The folder itself comes first on sys.path; a script that lies deeper may be served with its own folder there too.
        self._roots = tuple(dict.fromkeys(("", _folder_of(script))))
        self._folders = {str(parent) for path in source for parent in PurePosixPath(path).parents if str(parent) != "."}
        self._compiled = {path.partition(".")[0] for path in source if path.endswith((".so", ".pyc"))}
        self._waiting = [(script, True)]
        self.facts: dict[str, FileFacts | None] = {}
        self.problems: list[ImportProblem] = []

    def read_all(self) -> None:
        seen: dict[str, bool] = {}
        while self._waiting:
            # Certain ones first: what is imported for sure must not count as perhaps because that was met earlier.
            at = next((i for i, (_, certain) in enumerate(self._waiting) if certain), 0)
            path, certain = self._waiting.pop(at)
            if path not in seen:
                seen[path] = certain
                self._read(path, certain=certain)

    def _read(self, path: str, *, certain: bool) -> None:
        try:
            facts = read_file(self._source[path], self._python_version)
        except NotPython as problem:
            if not certain:
                return  # it may never be imported
            raise ScriptBroken(
                file=path, line=problem.line, problem=problem.problem, python_version=self._python_version
            ) from None
        self.facts[path] = facts
        for found in facts.imports if facts else ():
            sure = certain and found.when == "always"
            reason = self._follow(found, path, certain=sure)
            if reason is not None and found.when != "guarded":
                module = "." * found.level + found.module
                package = "" if found.level or reason else package_of(_full_name(found))
                self.problems.append(ImportProblem(module, path, found.line, package, sure, reason or self._why(found.module)))

    def _follow(self, found: Import, path: str, *, certain: bool) -> str | None:
        """None when there is something to import; else why not, which may be empty."""
        if found.level:
            return self._follow_relative(found, path, certain=certain)
        top = found.module.split(".")[0]
        for root in self._roots:
            place = _join(root, top)
            # A folder without __init__.py comes behind everything that is installed.
            if self._is_module(place) or (place in self._folders and top not in self._available):
                return self._follow_local(root, found, certain=certain)
        if top in self._available:
            return gone(found.module, found.names) or None
        return None if stand_in_has(found.module, found.names) else ""

    def _follow_relative(self, found: Import, path: str, *, certain: bool) -> str | None:
        if path == self._script:
            return "a scoring script is no part of a package: leave the dot out"
        folder = PurePosixPath(path).parent
        for _ in range(found.level - 1):
            folder = folder.parent
        base = "" if str(folder) == "." else str(folder)
        if not found.module:
            self._enqueue(f"{base}/__init__.py", certain)
            self._enqueue_names(base, found.names, certain)
            return None
        if not self._is_local(_join(base, found.module.split(".")[0])):
            return "no such file in the source folder"
        return self._follow_local(base, found, certain=certain)

    def _follow_local(self, root: str, found: Import, *, certain: bool) -> str | None:
        place = root
        for part in found.module.split("."):
            inside = place
            place = _join(place, part)
            if not self._is_local(place):
                # Only of a plain package is it known that nothing else adds to it.
                return "no such file in the source folder" if f"{inside}/__init__.py" in self._source else None
            self._enqueue(f"{place}/__init__.py", certain)
            if f"{place}/__init__.py" not in self._source:
                self._enqueue(f"{place}.py", certain)
        self._enqueue_names(place, found.names, certain)
        return None

    def _enqueue_names(self, place: str, names: Iterable[str], certain: bool) -> None:
        """`from package import name`: the name may be a module of it."""
        for name in names:
            for file in (_join(place, f"{name}/__init__.py"), _join(place, f"{name}.py")):
                self._enqueue(file, certain)

    def _enqueue(self, path: str, certain: bool) -> None:
        if path in self._source:
            self._waiting.append((path, certain))

    def _is_local(self, place: str) -> bool:
        return self._is_module(place) or place in self._folders

    def _is_module(self, place: str) -> bool:
        return f"{place}.py" in self._source or f"{place}/__init__.py" in self._source or place in self._compiled

    def _why(self, module: str) -> str:
        since = left_standard_library(module.partition(".")[0], self._python_version)
        return f"not part of Python since {since}" if since else ""


def _full_name(found: Import) -> str:
    """`google.cloud.storage` of `from google.cloud import storage`: what tells packages of one namespace apart."""
    return f"{found.module}.{found.names[0]}" if found.names and found.names[0] != "*" else found.module


def _folder_of(path: str) -> str:
    parent = str(PurePosixPath(path).parent)
    return "" if parent == "." else parent


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
