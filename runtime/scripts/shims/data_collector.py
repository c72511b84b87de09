"""``azureml.monitoring.ModelDataCollector``: what a script hands it goes to the server's collection folder.

The names, designations and correlation columns are azureml-monitoring's, whose package holds a native library for one platform
and installs on no Python of today. Its CSV files in a storage account become records of runtime/observing/collected_files.py.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from hedgerow.clock import Clock, SystemClock
from hedgerow.settings import load_settings
from runtime.observing.collected_files import CollectedFiles, CollectLimits, Record, collected_files
from runtime.observing.collecting import Origin
from runtime.observing.outbox import Outbox
from runtime.settings import RuntimeSettings
from runtime.timestamps import utc_text

_log = logging.getLogger("hedgerow.runtime.scripts")

DESIGNATIONS = ("inputs", "predictions", "labels", "signals", "general")
_MOST_WAITING = 4096
_NO_REQUEST = "00000000-0000-0000-0000-000000000000"


class _Store:
    """The one writer of this process; its thread begins with the first record."""

    def __init__(self, environment: Mapping[str, str], clock: Clock) -> None:
        settings = load_settings(RuntimeSettings, environment)
        self.on = settings.collect
        self.clock = clock
        self.origin = Origin.here(environment.get("WORKSPACE_NAME", ""), environment.get("SERVICE_NAME", ""))
        self._files: CollectedFiles | None = None
        self._dropped = 0
        if self.on:
            self._files = collected_files(CollectLimits.of(settings), "script", clock)
            self._outbox: Outbox[Record] = Outbox("model-data", self._write, self._drop, most_items=_MOST_WAITING)
            self._outbox.start()
            atexit.register(self.close)

    def put(self, record: Record) -> None:
        self._outbox.put(record)

    def close(self) -> None:
        self._outbox.stop()
        if self._files is not None:
            self._files.flush()

    def _write(self, records: list[Record]) -> None:
        if self._files is not None:
            self._files.write(records)

    def _drop(self) -> None:
        self._dropped += 1
        if self._dropped == 1:
            _log.warning("ModelDataCollector gets more than the disk takes; records are dropped")


_stores: list[_Store] = []
# Models of one script may be loaded by threads, each with a collector of its own.
_making = threading.Lock()


def _store() -> _Store:
    """Made with the first collector: importing this does nothing."""
    with _making:
        if not _stores:
            _stores.append(_Store(os.environ, SystemClock()))  # noqa: TID251 - the script's own process
        return _stores[0]


class ModelDataCollector:
    """One model's data of one designation."""

    AML_DC_CORRELATION_HEADER = "$aml_dc_correlation_id"
    AML_DC_SCORING_TIMESTAMP_HEADER = "$aml_dc_scoring_timestamp"
    AML_DC_BOUNDARY_HEADER = "$aml_dc_boundary"
    AML_WORKSPACE_HEADER = "$aml_workspace"
    AML_SERVICE_NAME_HEADER = "$aml_service_name"
    AML_MODEL_NAME_HEADER = "$aml_model_name"
    AML_MODEL_VERSION_HEADER = "$aml_model_version"
    AML_REQUEST_ID_HEADER = "$aml_request_id"

    def __init__(
        self,
        model_name: str,
        designation: str = "default",
        feature_names: Sequence[str] | None = None,
        workspace: str = "default/default/default",
        webservice_name: str = "default",
        model_version: str = "default",
        collection_name: str = "default",
        identifier: str | None = None,
    ) -> None:
        # ``identifier`` is what early versions called the designation.
        wanted = identifier or designation
        self.designation = "general" if wanted == "default" else wanted
        self.model_name, self.model_version = model_name, str(model_version)
        self.workspace, self.service_name, self.collection_name = workspace.lower(), webservice_name, collection_name
        self._feature_names = list(feature_names) if feature_names is not None else None
        self._store = _store()
        if self.designation not in DESIGNATIONS:
            _log.warning("ModelDataCollector: designation %r is none of %s", wanted, ", ".join(("default", *DESIGNATIONS)))
        if not self._store.on:
            _log.info("data is not collected: start the server with --collect, or set AML_MODEL_DC_STORAGE_ENABLED=true")

    def collect(self, input_data: Any, user_correlation_id: str = "") -> dict[str, object] | None:  # noqa: ANN401 - rows of any kind
        """Keep rows (a list, a numpy array or a DataFrame). For inputs: what ``add_correlations`` takes; otherwise None."""
        if not self._store.on or self.designation not in DESIGNATIONS:
            return None
        correlations = self._correlations(user_correlation_id) if self.designation == "inputs" else None
        data = input_data if correlations is None else self.add_correlations(input_data, correlations)
        rows, names = _rows(data)
        if rows is None:
            _log.warning("ModelDataCollector: a %s is neither list, array nor DataFrame", type(input_data).__name__)
            return None
        if names is None and self._feature_names is not None:
            names = [*self._feature_names, *(correlations or ())]
        origin = self._store.origin
        self._store.put(
            {
                "Timestamp": _iso(self._store.clock),
                "Container Id": origin.container,
                "Workspace Name": origin.workspace or self.workspace,
                "Service Name": origin.service or self.service_name,
                "Models": [f"{self.model_name}:{self.model_version}"],
                "Designation": self.designation,
                "Collection": self.collection_name,
                "Correlation Id": str((correlations or {}).get(self.AML_DC_CORRELATION_HEADER, user_correlation_id)),
                "Feature Names": names,
                "Data": rows,
            }
        )
        return correlations

    def add_correlations(self, input_data: Any, correlations: Mapping[str, object] | None) -> Any:  # noqa: ANN401 - as it came
        """The same rows with the correlation columns behind them."""
        if correlations is None:
            return input_data
        values = [correlations[name] for name in self._correlation_names()]
        if isinstance(input_data, list):
            return [*input_data, *values]
        if _is_frame(input_data):
            return input_data.assign(**dict(zip(self._correlation_names(), values, strict=True)))
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(input_data, numpy.ndarray):
            rows = input_data.reshape(1, -1) if input_data.ndim == 1 else input_data
            return numpy.append(rows.astype(object), numpy.array([values] * len(rows), dtype=object), axis=1)
        return input_data

    def _correlation_names(self) -> list[str]:
        return [
            self.AML_DC_CORRELATION_HEADER,
            self.AML_DC_SCORING_TIMESTAMP_HEADER,
            self.AML_DC_BOUNDARY_HEADER,
            self.AML_WORKSPACE_HEADER,
            self.AML_SERVICE_NAME_HEADER,
            self.AML_MODEL_NAME_HEADER,
            self.AML_MODEL_VERSION_HEADER,
            self.AML_REQUEST_ID_HEADER,
        ]

    def _correlations(self, user_id: str) -> dict[str, object]:
        made = str(uuid.uuid4())
        return {
            self.AML_DC_CORRELATION_HEADER: f"{user_id}-{made}" if user_id else made,
            self.AML_DC_SCORING_TIMESTAMP_HEADER: _iso(self._store.clock),
            self.AML_DC_BOUNDARY_HEADER: 1440,
            self.AML_WORKSPACE_HEADER: self.workspace,
            self.AML_SERVICE_NAME_HEADER: self.service_name,
            self.AML_MODEL_NAME_HEADER: self.model_name,
            self.AML_MODEL_VERSION_HEADER: self.model_version,
            self.AML_REQUEST_ID_HEADER: _NO_REQUEST,
        }


def _rows(data: Any) -> tuple[list[list[object]] | None, list[str] | None]:  # noqa: ANN401 - rows of any kind
    """Rows as plain values, and column names where the data has them; no rows for what is no table."""
    if isinstance(data, list):
        return ([[*row] for row in data] if data and all(isinstance(row, list | tuple) for row in data) else [data]), None
    if _is_frame(data):
        return data.values.tolist(), [str(name) for name in data.columns]
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(data, numpy.ndarray):
        return (data.reshape(1, -1) if data.ndim < 2 else data).tolist(), None
    return None, None


def _is_frame(data: object) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(data, pandas.DataFrame)


def _iso(clock: Clock) -> str:
    return utc_text(clock.now().timestamp())
