"""The parameter type for pandas data frames."""

from __future__ import annotations

import json
import warnings
from io import StringIO
from typing import Any

import pandas as pd

from runtime.scripts.shims.schema_types import AbstractParameterType, Schema, schema_of

__all__ = ["AbstractParameterType", "PandasParameterType"]

_ORIENTS = ("split", "records", "index", "columns", "values", "table")


class PandasParameterType(AbstractParameterType):
    """A frame like the sample: its columns' types and their number, unless told otherwise. ``orient`` is how JSON writes it."""

    def __init__(
        self,
        sample_input: pd.DataFrame,
        enforce_column_type: bool = True,
        enforce_shape: bool = True,
        apply_column_names: bool = False,
        orient: str = "records",
    ) -> None:
        if not isinstance(sample_input, pd.DataFrame):
            raise TypeError("Invalid sample input provided, must provide a sample Pandas Dataframe.")
        if orient not in _ORIENTS:
            raise ValueError(f"Invalid orient provided, must be one of {_ORIENTS}")
        super().__init__(sample_input)
        self.enforce_column_type, self.enforce_shape = enforce_column_type, enforce_shape
        self.apply_column_names, self.orient = apply_column_names, orient
        if apply_column_names:
            text = "apply_column_names is a deprecated parameter and will be removed in a future update"
            warnings.warn(text, DeprecationWarning, stacklevel=2)

    def deserialize_input(self, input_data: Any) -> pd.DataFrame:  # noqa: ANN401 - from JSON
        if isinstance(input_data, pd.DataFrame):
            return input_data
        if not isinstance(input_data, list | dict):
            raise TypeError(f"Error, unable to convert input of type {type(input_data)} into Pandas Dataframe")
        frame = pd.read_json(StringIO(json.dumps(input_data)), orient=self.orient, dtype=False)
        if self.apply_column_names:
            frame.columns = self.sample_input.columns.copy()
        if self.enforce_column_type:
            frame = self._typed(frame)
        wanted = self.sample_input.shape[1]
        if self.enforce_shape and frame.shape[1] != wanted:
            text = f"Invalid input data frame: data frame has size {frame.shape[1]} on dimension #1"
            raise ValueError(f"{text}, while expected value is {wanted}")
        return frame

    def input_to_swagger(self) -> Schema:
        sample = json.loads(self.sample_input.to_json(orient=self.orient, date_format="iso"))
        schema = schema_of(sample)
        for properties in self._rows_of(schema):
            for column, dtype in self.sample_input.dtypes.items():
                form = {"M": "date-time", "m": "timedelta"}.get(getattr(dtype, "kind", ""))
                if form is not None:
                    properties[str(column)]["format"] = form
        return {**schema, "format": f"pandas.DataFrame:{self.orient}"}

    def _typed(self, frame: pd.DataFrame) -> pd.DataFrame:
        types = {column: self.sample_input.dtypes.to_dict().get(column, object) for column in frame.columns}
        for column, dtype in types.items():
            if getattr(dtype, "kind", "") == "m":
                frame[column] = pd.to_timedelta(frame[column])
        return frame.astype(dtype=types)

    def _rows_of(self, schema: Schema) -> list[dict[str, Schema]]:
        """The properties that are columns: of each row that the schema describes."""
        if self.orient == "records":
            return [schema["items"].get("properties", {})] if len(self.sample_input) else []
        if self.orient == "index":
            return [row["properties"] for row in schema["properties"].values()]
        if self.orient == "table":
            return [schema["properties"]["data"]["items"]["properties"]]
        if self.orient == "columns":
            cells = {column: part["properties"] for column, part in schema["properties"].items()}
            return [{column: rows[row] for column, rows in cells.items()} for row in next(iter(cells.values()), {})]
        return []
