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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .agreement import Array, Compared, compare, rows_stand_alone
from .boosters import open_lightgbm, open_xgboost
from .failures import Failure
from .graphs import fixed_batch, plain_session, run_session
from .onnx_models import open_onnx
from .opened import Attempt, Job, Opened
from .samples import read_sample
from .sklearn_models import open_sklearn
from .torch_models import load_torch, open_torch

CANDIDATE, ROWS, FACTS = "candidate.onnx", "rows.npz", "facts.json"
_NAMED = ("sklearn", "skl2onnx", "onnxmltools", "xgboost", "lightgbm", "torch", "onnxscript", "numpy", "onnx", "onnxruntime")
_ONLY_GAPS = "only rows with missing values (NaN) differ: a sample input without any says that none will come"
_GAPS_DIFFER = (
    "Rows with missing values (NaN) are answered otherwise than by the original, or not at all: "
    "the sample input has none, send none."
)


@dataclass(frozen=True)
class Tried:
    """One attempt that produced a model: how far it is from the original."""

    remedy: str
    model: bytes
    rows: dict[str, Array]
    found: list[Array]
    wanted: list[Array]
    compared: Compared
    output_names: list[str]


def open_and_convert(job: Job, folder: Path) -> None:
    """Write candidate, rows with the original's answers, and facts into ``folder``. Raises Failure."""
    sample = read_sample(job.sample) if job.sample else None
    opened = open_entry(job, sample)
    wanted = _ask(opened)
    best, errors = convert_opened(opened, wanted, job)
    write_candidate(folder, opened, best, errors)


def convert_opened(opened: Opened, wanted: list[Array], job: Job) -> tuple[Tried, list[str]]:
    """A conversion that agrees, and what went wrong with those before it. Raises Failure `wrong`, `unsupported`."""
    best, errors = _convert(opened, wanted, job)
    if best.compared.agrees:
        return best, errors
    gaps = _gaps(opened, best)
    if best.compared.differing[~gaps].any() or gaps.all():
        raise _wrong(opened, best, errors)
    if opened.gaps_named:
        raise _wrong(opened, best, [*errors, _ONLY_GAPS])
    opened.notes.append(_GAPS_DIFFER)
    return _without(best, gaps, job), errors


def _without(best: Tried, marked: Array, job: Job) -> Tried:
    kept = ~marked
    rows = {name: values[kept] for name, values in best.rows.items()}
    found, wanted = [one[kept] for one in best.found], [one[kept] for one in best.wanted]
    return replace(best, rows=rows, found=found, wanted=wanted, compared=compare(wanted, found, job.atol, job.rtol))


def _gaps(opened: Opened, tried: Tried) -> Array:
    """A mark for each row with a missing number."""
    if not opened.has_rows:
        return np.zeros(tried.compared.rows, dtype=bool)
    return _has_gaps(tried.rows)


def _has_gaps(rows: dict[str, Array]) -> Array:
    marks = [np.isnan(values.reshape(len(values), -1)).any(axis=1) for values in rows.values() if values.dtype.kind == "f"]
    return np.logical_or.reduce(marks) if marks else np.zeros(len(next(iter(rows.values()))), dtype=bool)


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
    _refuse_unfitted(model)
    if job.kind == "torch" or library == "torch":
        return open_torch(model, sample, job)
    if library == "xgboost":
        return open_xgboost(model, sample, job)
    if library == "lightgbm":
        return open_lightgbm(model, sample, job)
    return open_sklearn(model, sample, job)


def _refuse_unfitted(model: Any) -> None:  # noqa: ANN401 - any model
    """Raises Failure `no_predict` for an estimator that has learned nothing yet."""
    if not hasattr(model, "fit") or not hasattr(model, "get_params"):
        return
    exceptions, validation = (importlib.import_module(f"sklearn.{name}") for name in ("exceptions", "utils.validation"))
    try:
        validation.check_is_fitted(model)
    except exceptions.NotFittedError as problem:
        raise Failure("no_predict", found=f"{type(model).__name__} as it is before fit") from problem
    except Exception:  # noqa: BLE001 - foreign code; what it does not say is not known
        return


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


def _ask(opened: Opened, rows: dict[str, Array] | None = None) -> list[Array]:
    try:
        with np.errstate(all="ignore"):
            given = opened.answer(opened.rows if rows is None else rows)
        return as_rows([_plain(answer) for answer in given], has_rows=opened.has_rows)
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
        if nearest is None or _distance(opened, tried) < _distance(opened, nearest):
            nearest = tried
    if nearest is None:
        raise Failure("unsupported", what=opened.estimator, problem="; ".join(errors))
    return nearest, errors


def _distance(opened: Opened, tried: Tried) -> tuple[int, int]:
    differing = tried.compared.differing
    return int(differing[~_gaps(opened, tried)].sum()), int(differing.sum())


def try_one(opened: Opened, attempt: Attempt, wanted: list[Array], job: Job) -> Tried:
    rows = opened.rows
    if attempt.narrow:
        rows = {name: _rounded(values) for name, values in rows.items()}
        wanted = _asked_rounded(opened, rows, wanted, job)
    model = attempt.make().SerializeToString(deterministic=True)
    session = plain_session(model)
    found = as_rows(run_session(session, rows), has_rows=opened.has_rows)
    wanted = [_two_sided(theirs, ours) for theirs, ours in zip(wanted, found, strict=False)]
    compared = compare(wanted, found, job.atol, job.rtol)
    if opened.has_rows and compared.agrees and not fixed_batch(session.get_inputs()):
        _check_alone(session, rows, found)
    return Tried(attempt.remedy, model, rows, found, wanted, compared, [one.name for one in session.get_outputs()])


def _check_alone(session: Any, rows: dict[str, Array], together: list[Array]) -> None:  # noqa: ANN401 - an InferenceSession
    """Raises Failure `unsupported` where a row alone is refused, or answered otherwise than among others."""

    def ask(numbers: Array) -> list[Array]:
        return run_session(session, {name: values[numbers] for name, values in rows.items()})

    if not rows_stand_alone(ask, together, len(together[0])):
        raise Failure(
            "unsupported", what="rows in calls of their own", problem="a row alone is answered otherwise than among others"
        )


def _rounded(values: Array) -> Array:
    if values.dtype.kind != "f":
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32).astype(np.float64)


def _asked_rounded(opened: Opened, rows: dict[str, Array], wanted: list[Array], job: Job) -> list[Array]:
    """The original's answers to rounded rows. Raises Failure `unsupported` where rounding changes those to ordinary rows."""
    rounded = _ask(opened, rows)
    usual = slice(0, opened.ordinary)
    compared = compare([one[usual] for one in wanted], [one[usual] for one in rounded], job.atol, job.rtol)
    if not compared.agrees:
        problem = f"{int(compared.differing.sum())} of {compared.rows} ordinary rows are answered otherwise once rounded to FP32"
        raise Failure("unsupported", what="input in FP32", problem=problem)
    return rounded


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
        for name, values in best.rows.items()
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
    arrays = {f"input_{number}": values for number, values in enumerate(best.rows.values())}
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
