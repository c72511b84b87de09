"""The story of opening: read the sample, open the model, ask it, convert until a conversion agrees, and write down both.

Everything here may be under the control of whoever made the model; the packager believes none of it.
"""

from __future__ import annotations

import importlib
import json
import pickle  # noqa: TID251 - this process is the sandbox that foreign pickles are opened in
import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .agreement import Array, Compared, compare
from .boosters import open_lightgbm, open_xgboost
from .failures import Failure
from .graphs import plain_session, run_session
from .onnx_models import open_onnx
from .opened import Attempt, Job, Opened
from .samples import read_sample
from .sklearn_models import open_sklearn
from .torch_models import load_torch, open_torch

CANDIDATE, ROWS, FACTS = "candidate.onnx", "rows.npz", "facts.json"
_NAMED = ("sklearn", "skl2onnx", "onnxmltools", "xgboost", "lightgbm", "torch", "onnxscript", "numpy", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Tried:
    """One attempt that produced a model: how far it is from the original."""

    remedy: str
    model: bytes
    found: list[Array]
    wanted: list[Array]
    compared: Compared
    output_names: list[str]


def open_and_convert(job: Job, folder: Path) -> None:
    """Write candidate, rows with the original's answers, and facts into ``folder``. Raises Failure."""
    sample = read_sample(job.sample) if job.sample else None
    opened = open_entry(job, sample)
    wanted = _ask(opened)
    best, errors = _convert(opened, wanted, job)
    if not best.compared.agrees:
        raise _wrong(opened, best, errors)
    write_candidate(folder, opened, best, errors)


def open_entry(job: Job, sample: dict[str, Array] | None) -> Opened:
    if job.kind == "onnx":
        return open_onnx(job.entry, sample, job)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = _load(job)
    _refuse_other_version(caught)
    warnings.simplefilter("ignore")
    return adapt(model, sample, job)


def adapt(model: Any, sample: dict[str, Array] | None, job: Job) -> Opened:  # noqa: ANN401 - any model
    """The adapter for the library that ``model`` comes from."""
    library = type(model).__module__.partition(".")[0]
    if job.kind == "torch" or library == "torch":
        return open_torch(model, sample, job)
    if library == "xgboost":
        return open_xgboost(model, sample, job)
    if library == "lightgbm":
        return open_lightgbm(model, sample, job)
    return open_sklearn(model, sample, job)


def _load(job: Job) -> Any:  # noqa: ANN401 - any model
    try:
        if job.kind == "xgboost":
            booster = importlib.import_module("xgboost").Booster()
            booster.load_model(str(job.entry))
            return booster
        if job.kind == "lightgbm":
            return importlib.import_module("lightgbm").Booster(model_file=str(job.entry))
        return load_torch(job.entry) if job.kind == "torch" else _unpickle(job.entry)
    except (Failure, MemoryError):
        raise
    except ModuleNotFoundError as problem:
        raise Failure("missing_module", module=problem.name, problem=problem) from problem
    except AttributeError as problem:
        raise Failure("missing_module", module=_whose(str(problem)), problem=problem) from problem
    except Exception as problem:
        raise Failure("unpickle", file=job.entry.name, problem=f"{type(problem).__name__}: {problem}") from problem


def _whose(problem: str) -> str:
    """A class that the pickle names and its module lacks: most often one of the user's own script (__main__)."""
    found = re.match(r"Can't get attribute '([^']+)' on <module '([^']+)'", problem)
    if found is None:
        return problem
    module = "__main__" if found[2].endswith("__main__") else found[2]
    return f"{module}.{found[1]}"


def _unpickle(path: Path) -> Any:  # noqa: ANN401 - any model
    try:
        return importlib.import_module("joblib").load(path)
    except ModuleNotFoundError as problem:
        if problem.name != "joblib":
            raise
    with path.open("rb") as file:
        return pickle.load(file)  # noqa: S301 - this process is the sandbox that foreign pickles are opened in


def _refuse_other_version(caught: list[warnings.WarningMessage]) -> None:
    for warning in caught:
        made_with = getattr(warning.message, "original_sklearn_version", None)
        if made_with is not None:
            here = getattr(warning.message, "current_sklearn_version", "")
            raise Failure("other_version", library="scikit-learn", made_with=made_with, opened_with=here)


def _ask(opened: Opened) -> list[Array]:
    try:
        with np.errstate(all="ignore"):
            return as_rows([_plain(answer) for answer in opened.answer(opened.rows)], has_rows=opened.has_rows)
    except (Failure, MemoryError):
        raise
    except Exception as problem:
        raise Failure("sample_unfit", problem=f"{type(problem).__name__}: {problem}") from problem


def as_rows(answers: list[Array], *, has_rows: bool) -> list[Array]:
    """Answers without rows are compared as one."""
    return answers if has_rows else [answer[None] for answer in answers]


def _plain(answer: Array) -> Array:
    answer = np.asarray(answer)
    return answer.astype(str) if answer.dtype.kind in "OSU" else answer


def _convert(opened: Opened, wanted: list[Array], job: Job) -> tuple[Tried, list[str]]:
    """The first attempt that agrees, else the nearest; and what went wrong with the others."""
    nearest: Tried | None = None
    errors: list[str] = []
    for attempt in opened.attempts:
        try:
            tried = try_one(opened, attempt, wanted, job)
        except MemoryError:
            raise
        except Exception as problem:  # noqa: BLE001 - converters raise anything; the reason is kept
            errors.append(_reason(attempt, problem))
            continue
        if tried.compared.agrees:
            return tried, errors
        errors.append(
            f"{attempt.remedy or 'as usual'}: {int(tried.compared.differing.sum())} of {tried.compared.rows} rows differ"
        )
        if nearest is None or tried.compared.differing.sum() < nearest.compared.differing.sum():
            nearest = tried
    if nearest is None:
        raise Failure("unsupported", what=opened.estimator, problem="; ".join(errors))
    return nearest, errors


def try_one(opened: Opened, attempt: Attempt, wanted: list[Array], job: Job) -> Tried:
    model = attempt.make().SerializeToString(deterministic=True)
    session = plain_session(model)
    found = as_rows(run_session(session, opened.rows), has_rows=opened.has_rows)
    wanted = [_two_sided(theirs, ours) for theirs, ours in zip(wanted, found, strict=False)]
    compared = compare(wanted, found, job.atol, job.rtol)
    return Tried(attempt.remedy, model, found, wanted, compared, [one.name for one in session.get_outputs()])


def _two_sided(theirs: Array, ours: Array) -> Array:
    """One score for two classes is written by converters as one for each class."""
    if theirs.dtype.kind == "f" and theirs.ndim == 1 and ours.shape == (len(theirs), 2):
        return np.column_stack([-theirs, theirs])
    return theirs


def _reason(attempt: Attempt, problem: Exception) -> str:
    words = problem.fields.get("problem", problem) if isinstance(problem, Failure) else problem
    first = str(words).strip().splitlines()[:1] or [""]
    return f"{attempt.remedy or 'as usual'}: {type(problem).__name__}: {first[0][:300]}"


def _wrong(opened: Opened, best: Tried, errors: list[str]) -> Failure:
    compared = best.compared
    row = int(np.flatnonzero(compared.differing)[0])
    shown = {
        name: np.round(np.ravel(values[row]).tolist(), 6).tolist() if values.dtype.kind == "f" else values[row].tolist()
        for name, values in opened.rows.items()
    }
    return Failure(
        "wrong",
        what=opened.estimator,
        rows=compared.rows,
        differing=int(compared.differing.sum()),
        largest=f"{compared.max_abs_error:g}",
        labels=compared.labels_changed,
        row=json.dumps(shown)[:300],
        original="; ".join(_shown(answer, row) for answer in best.wanted),
        converted="; ".join(_shown(answer, row) for answer in best.found),
        tried="; ".join(errors),
    )


def _shown(answer: Array, row: int) -> str:
    return str(np.ravel(answer[row]).tolist()[:4]) if len(answer) > row else "no answer"


def write_candidate(folder: Path, opened: Opened, best: Tried, errors: list[str]) -> None:
    count = len(best.wanted)
    arrays = {f"input_{number}": values for number, values in enumerate(opened.rows.values())}
    arrays.update({f"output_{number}": values for number, values in enumerate(best.wanted)})
    arrays["ties"] = best.compared.ties
    (folder / CANDIDATE).write_bytes(best.model)
    np.savez(folder / ROWS, **arrays)
    facts = {
        "estimator": opened.estimator,
        "inputs": list(opened.rows),
        "outputs": best.output_names[:count],
        "labels": opened.labels,
        "from_sample": opened.from_sample,
        "has_rows": opened.has_rows,
        "remedy": best.remedy,
        "tried": errors,
        "notes": opened.notes,
        "tools": {name: str(sys.modules[name].__version__) for name in _NAMED if hasattr(sys.modules.get(name), "__version__")},
    }
    (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")
