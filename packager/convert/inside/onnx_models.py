"""ONNX itself: nothing to convert; the original is the file as it came, run without any optimisation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .agreement import Array, rows_stand_alone
from .failures import Failure
from .graphs import fixed_batch, plain_session, refuse_outside_files, run_session, tidy
from .opened import Attempt, Job, Opened
from .rows import SEED
from .samples import MATRIX

_ROWS = 48
_ROW_BYTES_MAX = 16 << 20
# Lengths to try for axes that have none, beside rows: words, samples of a sound.
_LENGTHS = (16, 128, 16_000)
_WORDS = np.array(["a", "b", "yes", "no", "", "two words", "7", "\u00e4\u00f6"])
_KINDS = {"float": "float32", "double": "float64", "float16": "float16", "bool": "bool", "string": "str"}
_KINDS |= {f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}


def open_onnx(path: Path, sample: dict[str, Array] | None, job: Job) -> Opened:
    """Raises Failure `unpickle` (damaged), `outside_files`, `sample_needed`, `sample_unfit`."""
    import onnx

    try:
        model = onnx.load_model(path, load_external_data=False)
        refuse_outside_files(model)
        model = tidy(model, {})  # also a version of the format that is as old as its operators allow
        session = plain_session(model.SerializeToString(deterministic=True))
    except Failure:
        raise
    except Exception as problem:
        raise Failure("unpickle", file=path.name, problem=str(problem)) from problem

    if not session.get_inputs():
        raise Failure("unsupported", what="a model without inputs", problem="it says the same to everything")

    def answer(given: dict[str, Array]) -> list[Array]:
        return run_session(session, given)

    rows, answers = _first_that_runs(session.get_inputs(), sample, answer)
    has_rows = _has_rows(session.get_inputs(), rows, answers)
    if has_rows and not fixed_batch(session.get_inputs()):
        by_number = partial(_ask_some, answer, rows)
        has_rows = rows_stand_alone(by_number, answers, len(answers[0]))
    return Opened("ONNX", rows, len(answers[0]) if has_rows else 1, answer, [Attempt("", lambda: model)], has_rows=has_rows)


def _first_that_runs(
    inputs: list[Any],
    sample: dict[str, Array] | None,
    answer: Callable[[dict[str, Array]], list[Array]],
) -> tuple[dict[str, Array], list[Array]]:
    offers = [partial(_made, inputs, count, length) for count in (_ROWS, 1) for length in _LENGTHS]
    if sample is not None:
        offers = [partial(_given, inputs, sample)]
    first: Exception | None = None
    for offer in offers:
        try:
            rows = offer()
            return rows, answer(rows)
        except Failure:
            raise
        except Exception as problem:  # noqa: BLE001 - whatever onnxruntime says of an input that does not suit it
            first = first or problem
    if sample is not None:
        raise Failure("sample_unfit", problem=str(first)[:500])
    raise Failure("sample_needed", why=f"made-up inputs do not suit it ({str(first)[:300]})")


def _has_rows(inputs: list[Any], rows: dict[str, Array], answers: list[Array]) -> bool:
    """Whether the first axis of all inputs and outputs counts rows, freely or in the model's own fixed batch."""
    free = all(one.shape and not isinstance(one.shape[0], int) for one in inputs)
    count = {len(values) if values.ndim else 0 for values in (*rows.values(), *answers)}
    return (free or fixed_batch(inputs) > 0) and len(count) == 1 and count != {0}


def _ask_some(answer: Callable[[dict[str, Array]], list[Array]], rows: dict[str, Array], numbers: Array) -> list[Array]:
    return answer({name: values[numbers] for name, values in rows.items()})


def _given(inputs: list[Any], sample: dict[str, Array]) -> dict[str, Array]:
    if len(inputs) == len(sample) == 1:
        sample = {inputs[0].name: next(iter(sample.values()))}
    elif len(inputs) == 1 and len(sample) > 1 and inputs[0].name not in sample:
        sample = {inputs[0].name: np.column_stack([values.reshape(-1) for values in sample.values()])}
    missing = [one.name for one in inputs if one.name not in sample]
    if missing:
        raise Failure("sample_unfit", problem=f"the model takes {missing[0]!r}, the sample has {', '.join(sample) or MATRIX}")
    rows = {one.name: np.asarray(sample[one.name]) for one in inputs}
    for one in inputs:
        if len(one.shape) == rows[one.name].ndim + 1:
            rows[one.name] = rows[one.name][None]
    return rows


def _made(inputs: list[Any], count: int, length: int) -> dict[str, Array]:
    random = np.random.default_rng(SEED)
    batch = fixed_batch(inputs)
    size = sum(int(np.prod([part if isinstance(part, int) else length for part in one.shape[1:]])) * 8 for one in inputs)
    count = max(1, min(count, _ROW_BYTES_MAX // max(size, 1)))
    if batch:
        count = max(batch, count // batch * batch)
    rows = {}
    for one in inputs:
        kind = one.type[7:-1]
        if kind not in _KINDS:
            raise Failure("sample_needed", why=f"its input {one.name!r} is {one.type} of shape {one.shape}")
        shape = [part if isinstance(part, int) else length for part in one.shape]
        if shape and (batch or not isinstance(one.shape[0], int)):
            shape[0] = count
        if kind == "string":
            rows[one.name] = random.choice(_WORDS, shape)
        elif kind.startswith(("float", "double")):
            rows[one.name] = random.standard_normal(shape).astype(_KINDS[kind])
        else:
            rows[one.name] = random.integers(0, 2, shape).astype(_KINDS[kind])
    return rows
