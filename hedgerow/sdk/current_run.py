"""What a training script says about itself while it runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from hedgerow.contracts.api import LoggedMetric, LogToRun
from hedgerow.contracts.names import ENV_OUTPUTS, ENV_RUN_ID, ENV_TOKEN, ENV_URL
from hedgerow.contracts.work import Run
from hedgerow.sdk.addresses import address
from hedgerow.sdk.transport import Transport

_Log = Callable[[LogToRun], None]


class CurrentRun:
    """The run that this script is; outside a recorded run it prints what it would have recorded.

    Each call is stored before it returns, so that a killed script loses nothing it logged.
    """

    def __init__(self, run_id: str | None, outputs: Path, log: _Log) -> None:
        self.id = run_id
        self.outputs = outputs
        self._log = log

    def log(self, name: str, value: float, step: int = 0) -> None:
        """Record one metric value; the last one logged is what lists show."""
        self._log(LogToRun(metrics=[LoggedMetric(name=name, value=float(value), step=step)]))

    def parameter(self, name: str, value: object) -> None:
        """Record something the run was given or chose, as text."""
        self._log(LogToRun(parameters={name: str(value)}))


def current_run() -> CurrentRun:
    """The run that this process was started as (``hedgerow run submit``)."""
    environment = os.environ  # noqa: TID251 - a user's script has no composition root of ours
    run_id, url = environment.get(ENV_RUN_ID), environment.get(ENV_URL)
    outputs = Path(environment.get(ENV_OUTPUTS, "outputs"))
    outputs.mkdir(parents=True, exist_ok=True)
    if run_id is None or url is None:
        return CurrentRun(None, outputs, _print)
    transport = Transport(url, environment.get(ENV_TOKEN))

    def log(entry: LogToRun) -> None:
        transport.call("POST", address("/api/v1/runs", run_id, "log"), Run, body=entry)

    return CurrentRun(run_id, outputs, log)


def _print(entry: LogToRun) -> None:
    for metric in entry.metrics:
        print(f"{metric.name} = {metric.value:g} (step {metric.step})")  # noqa: T201 - that is what it is for
    for name, value in entry.parameters.items():
        print(f"{name} = {value}")  # noqa: T201 - that is what it is for
