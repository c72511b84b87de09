"""Reads one Python file as a tree, never running it: what it imports and where, and which names it defines at its top. Pure."""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

# `always`: the import runs when the file is imported. `perhaps`: in a function, or under a condition that is not known here.
# `guarded`: the file itself says what happens without it.
When = Literal["always", "perhaps", "guarded"]
_CATCHES_IMPORT_ERRORS = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})
_DYNAMIC = frozenset({"exec", "globals", "vars", "setattr"})
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class NotPython(Exception):
    """``line`` and ``problem`` of a file that cannot be read as Python."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line, self.problem = line, problem


@dataclass(frozen=True)
class Import:
    """``module`` as written, without its leading dots, of which there were ``level``; ``names`` are those of a from-import."""

    module: str
    line: int
    when: When = "always"
    level: int = 0
    names: tuple[str, ...] = ()


@dataclass
class FileFacts:
    """``undecidable``: names may come from a star import or are made in a way that only running it shows."""

    imports: list[Import] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    undecidable: bool = False


def read_file(content: str | bytes, python_version: str) -> FileFacts | None:
    """What stands in a file. None when this Python is older than the target and cannot judge. Raises NotPython."""
    minor = int(python_version.split(".")[1])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in strings are the author's business
            tree = ast.parse(content, feature_version=(3, minor))
    except SyntaxError as problem:
        if minor > sys.version_info.minor:
            return None
        raise NotPython(problem.lineno or 1, problem.msg) from None
    except (ValueError, RecursionError, MemoryError) as problem:
        raise NotPython(1, str(problem) or "it is nested too deeply") from None
    facts = FileFacts()
    _Reader(facts).statements(tree.body, "always", at_top=True)
    return facts


class _Reader:
    def __init__(self, facts: FileFacts) -> None:
        self._facts = facts

    def statements(self, body: Iterable[ast.AST], when: When, *, at_top: bool) -> None:
        for statement in body:
            self._statement(statement, when, at_top=at_top)

    def _statement(self, node: ast.AST, when: When, *, at_top: bool) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            self._import(node, when, at_top=at_top)
        elif isinstance(node, _FUNCTIONS):
            self._define(getattr(node, "name", ""), at_top=at_top)
            self.statements(ast.iter_child_nodes(node), _at_least(when, "perhaps"), at_top=False)
        elif isinstance(node, ast.ClassDef):
            self._define(node.name, at_top=at_top)
            self.statements(ast.iter_child_nodes(node), when, at_top=False)
        elif isinstance(node, ast.Try | ast.TryStar):
            guarded: When = "guarded" if any(map(_catches, node.handlers)) else when
            self.statements(node.body, guarded, at_top=at_top)
            # What stands in a handler runs only when something is missing, and is a second choice.
            self.statements(node.handlers, guarded if guarded == "guarded" else _at_least(when, "perhaps"), at_top=at_top)
            self.statements([*node.orelse, *node.finalbody], when, at_top=at_top)
        elif isinstance(node, ast.If):
            self._if(node, when, at_top=at_top)
        elif isinstance(node, ast.With | ast.AsyncWith):
            inside: When = "guarded" if any(_suppresses(item.context_expr) for item in node.items) else when
            self.statements(node.items, when, at_top=at_top)
            self.statements(node.body, inside, at_top=at_top)
        elif isinstance(node, ast.For | ast.AsyncFor | ast.While | ast.match_case):
            self.statements(ast.iter_child_nodes(node), _at_least(when, "perhaps"), at_top=at_top)
        else:
            self._anything_else(node, when, at_top=at_top)

    def _anything_else(self, node: ast.AST, when: When, *, at_top: bool) -> None:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            self._define(node.id, at_top=at_top)
        elif isinstance(node, ast.Global):
            self._facts.names.update(node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _DYNAMIC:
            self._facts.undecidable = True
        self.statements(ast.iter_child_nodes(node), when, at_top=at_top)

    def _if(self, node: ast.If, when: When, *, at_top: bool) -> None:
        self._statement(node.test, when, at_top=at_top)
        asked = ast.unparse(node.test)
        if asked.split(".")[-1] == "TYPE_CHECKING":
            self.statements(node.orelse, when, at_top=at_top)
        elif asked in ("__name__ == '__main__'", "'__main__' == __name__"):
            # A scoring script is imported under another name.
            self.statements(node.orelse, when, at_top=at_top)
        else:
            self.statements([*node.body, *node.orelse], _at_least(when, "perhaps"), at_top=at_top)

    def _import(self, node: ast.Import | ast.ImportFrom, when: When, *, at_top: bool) -> None:
        if isinstance(node, ast.Import):
            self._facts.imports += [Import(alias.name, node.lineno, when) for alias in node.names]
            bound = [alias.asname or alias.name.split(".")[0] for alias in node.names]
        else:
            names = tuple(alias.name for alias in node.names)
            self._facts.imports.append(Import(node.module or "", node.lineno, when, node.level, names))
            bound = [alias.asname or alias.name for alias in node.names]
            self._facts.undecidable |= at_top and "*" in names
        for name in bound:
            self._define(name, at_top=at_top)

    def _define(self, name: str, *, at_top: bool) -> None:
        if at_top and name:
            self._facts.names.add(name)


def _at_least(when: When, other: When) -> When:
    return when if when == "guarded" else other


def _catches(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(ast.unparse(name).split(".")[-1] in _CATCHES_IMPORT_ERRORS for name in caught)


def _suppresses(context: ast.expr) -> bool:
    if not isinstance(context, ast.Call) or ast.unparse(context.func).split(".")[-1] != "suppress":
        return False
    return any(ast.unparse(name).split(".")[-1] in _CATCHES_IMPORT_ERRORS for name in context.args)
