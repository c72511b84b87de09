"""Reads a sample input: .npy, .npz, .csv, or JSON in the forms that scoring takes (rows, records, AML's data, OIP's inputs)."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from .agreement import Array
from .failures import Failure

MATRIX = ""
_KINDS = {"BOOL": "bool", "BYTES": "str", "FP16": "float16", "FP32": "float32", "FP64": "float64"}
_WRAPPERS = ("data", "instances", "dataframe_split", "dataframe_records", "input_data", "inputs")


def read_sample(path: Path) -> dict[str, Array]:
    """Arrays by name; one that has no name under ``MATRIX``. Raises Failure `sample_unfit`."""
    try:
        if path.suffix == ".npy":
            return {MATRIX: np.load(path, allow_pickle=False)}
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        if path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8") as file:
                return _table(list(csv.reader(file)))
        return _json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as problem:
        raise Failure("sample_unfit", problem=f"{type(problem).__name__}: {problem}") from problem


def _table(lines: list[list[str]]) -> dict[str, Array]:
    lines = [line for line in lines if line]
    header = None if all(_number(cell) is not None for cell in lines[0]) else lines[0]
    body = lines if header is None else lines[1:]
    columns = [_column(list(cells)) for cells in zip(*body, strict=True)]
    if header is not None:
        return dict(zip(header, columns, strict=True))
    return {MATRIX: np.column_stack(columns)}


def _column(cells: list[str]) -> Array:
    numbers = [_number(cell) for cell in cells]
    if all(number is not None for number in numbers):
        return np.array(numbers, dtype=np.float64)
    return np.array(cells)


def _number(cell: str) -> float | None:
    if cell.strip() == "":
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        return None


def _json(value: object) -> dict[str, Array]:
    if isinstance(value, dict):
        if "columns" in value and "data" in value:
            return _columns(value["columns"], value["data"])
        for name in _WRAPPERS:
            if name in value and (len(value) == 1 or name in ("inputs", "data")) and not _is_flat(value[name]):
                return _json(value[name])
        return {str(name): _array(part) for name, part in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        if {"name", "datatype"} <= set(value[0]):
            return {str(part["name"]): _tensor(part) for part in value}
        names = list(value[0])
        return {str(name): _array([record.get(name) for record in value]) for name in names}
    return {MATRIX: _array(value)}


def _is_flat(value: object) -> bool:
    return isinstance(value, list) and bool(value) and not isinstance(value[0], list | dict)


def _columns(names: list[object], rows: list[list[object]]) -> dict[str, Array]:
    return {str(name): _array([row[index] for row in rows]) for index, name in enumerate(names)}


def _tensor(part: dict[str, Any]) -> Array:
    kind = _KINDS.get(str(part["datatype"]), str(part["datatype"]).lower())
    return np.array(part["data"], dtype=kind).reshape(part["shape"])


def _array(value: object) -> Array:
    array = np.array(value)
    if array.dtype.kind == "O":
        array = np.array(value, dtype=np.float64)  # null stands for a number that is not there
    return array


def matrix_of(sample: dict[str, Array], features: int, names: list[str] | None) -> Array:
    """The sample as rows of numbers, [n, features] FP64. Raises Failure `sample_unfit`."""
    if len(sample) == 1:
        array = np.asarray(next(iter(sample.values())))
        array = array.reshape(1, -1) if array.ndim == 1 and array.size == features else array
        array = array.reshape(-1, 1) if array.ndim == 1 else array
    else:
        order = names if names and set(names) <= set(sample) else list(sample)
        array = np.column_stack([np.asarray(sample[name]).reshape(-1) for name in order])
    if array.ndim != 2 or array.shape[1] != features or array.dtype.kind not in "biuf":
        problem = f"the model takes rows of {features} numbers, the sample has shape {list(array.shape)} of {array.dtype}"
        raise Failure("sample_unfit", problem=problem)
    return array.astype(np.float64)
