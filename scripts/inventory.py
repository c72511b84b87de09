"""What the five packages hold: modules, errors, settings tables, documents. For golden files and architecture tests."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from pathlib import Path
from types import ModuleType

import msgspec

from hedgerow import errors
from hedgerow.contracts.document import Document
from hedgerow.errors import HedgerowError

TOP = Path(__file__).resolve().parent.parent
PACKAGES = ("hedgerow", "registry", "packager", "runtime", "edge_agent")
# Families have no words of their own: each says whose fault it is, and the errors below them say what happened.
FAMILIES: tuple[type[HedgerowError], ...] = (
    errors.UserError,
    errors.NotFoundError,
    errors.AccessError,
    errors.ForbiddenError,
    errors.ConflictError,
    errors.UnavailableError,
    errors.ScriptError,
)

# Pass on an error that another process reported, which has a family, words and a remedy already.
RELAYS = frozenset({"hedgerow.sdk.errors.ApiError", "hedgerow.sdk.errors.ActivityFailed", "registry.controller.errors.Reported"})


def source_files() -> list[Path]:
    """Every Python file of the five packages."""
    return sorted(path for package in PACKAGES for path in (TOP / package).rglob("*.py"))


def _is_library(path: Path) -> bool:
    """Composition roots, Alembic's migrations and the quickstart's training script are run, never imported."""
    return path.name != "__main__.py" and "migrations" not in path.parts and (path.parent / "__init__.py").exists()


def module_names() -> list[str]:
    """Every module that may be imported."""
    relative = [path.relative_to(TOP) for path in source_files() if _is_library(path)]
    return [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in relative]


def _own_classes(below: tuple[str, ...] = PACKAGES) -> list[type]:
    """Classes by the module that defines them, so that each counts once."""
    names = [name for name in module_names() if any(name == top or name.startswith(f"{top}.") for top in below)]
    modules = [importlib.import_module(name) for name in names]
    found = [value for module in modules for value in vars(module).values() if _is_own_class(value, module)]
    return sorted(found, key=lambda kind: (kind.__module__, kind.__qualname__))


def _is_own_class(value: object, module: ModuleType) -> bool:
    return inspect.isclass(value) and value.__module__ == module.__name__


def error_classes() -> list[type[HedgerowError]]:
    """Every error that Hedgerow raises on purpose; not the families."""
    return [kind for kind in _own_classes() if issubclass(kind, HedgerowError) and kind not in (*FAMILIES, HedgerowError)]


def settings_tables() -> list[type]:
    """Every dataclass whose fields were made with :func:`hedgerow.settings.setting`."""
    return [kind for kind in _own_classes() if _is_settings_table(kind)]


def _is_settings_table(kind: type) -> bool:
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    return bool(fields) and all("env" in field.metadata for field in fields)


def document_classes() -> list[type[msgspec.Struct]]:
    """What crosses a border by itself: every Document, every request of the REST API, the signed envelope, the error answer."""
    return [kind for kind in _own_classes(("hedgerow.contracts",)) if issubclass(kind, msgspec.Struct) and _crosses_alone(kind)]


def _crosses_alone(kind: type[msgspec.Struct]) -> bool:
    if kind.__name__ in {"SignedEnvelope", "ProblemAnswer", "ProgressLine"}:
        return True
    is_request = kind.__module__.startswith("hedgerow.contracts.api") and kind.__struct_config__.forbid_unknown_fields
    return kind is not Document and (issubclass(kind, Document) or is_request)
