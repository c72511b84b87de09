"""Recorded training runs: submit a script, look at its metrics, fetch its outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from hedgerow.contracts.api import Page, SubmitRun
from hedgerow.contracts.model import SourceCommit
from hedgerow.contracts.work import MetricPoint, Run, RunState
from hedgerow.sdk import files
from hedgerow.sdk.addresses import address, file_address
from hedgerow.sdk.blobs import upload_missing
from hedgerow.sdk.pages import PAGE_ITEMS, WALK_ITEMS, walk
from hedgerow.sdk.provenance import commit_of, data_refs
from hedgerow.sdk.transport import Transport

_PATH = "/api/v1/runs"


class Runs:
    """``client.runs``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def submit(
        self,
        experiment: str,
        source: str | Path,
        script: str,
        arguments: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        *,
        data: Mapping[str, str | Path] | None = None,
        commit: SourceCommit | Literal["git"] | None = "git",
    ) -> Run:
        """Snapshot the folder ``source`` and queue ``script`` in it; follow it by the run's ``activity_id``.

        ``variables`` are environment variables of the script; ``secret:NAME`` stands for the value of that secret.
        ``data`` names what the script reads: a file or folder here, which is hashed and not sent, or a ``sha256:…``. ``commit``
        is the version of the code; "git" looks into the folder for it. Both are what lineage shows.
        """
        made_at = commit_of(Path(source)) if commit == "git" else commit
        read = data_refs(data or {})
        found = files.collect([Path(source)])
        upload_missing(self._transport, found)
        request = SubmitRun(
            experiment=experiment,
            script=script,
            arguments=list(arguments),
            snapshot=[file.entry for file in found],
            variables=dict(variables or {}),
            source=made_at,
            data=read,
        )
        return self._transport.call("POST", _PATH, Run, body=request)

    def get(self, run_id: str) -> Run:
        return self._transport.call("GET", address(_PATH, run_id), Run)

    def list(
        self,
        experiment: str | None = None,
        limit: int = PAGE_ITEMS,
        after: str | None = None,
        *,
        state: RunState | None = None,
    ) -> Page[Run]:
        """Newest first; ``experiment`` may end with a star."""
        query = {"experiment": experiment, "limit": limit, "after": after, "state": state}
        return self._transport.call("GET", _PATH, Page[Run], query=query)

    def iterate(self, experiment: str | None = None, *, state: RunState | None = None) -> Iterator[Run]:
        """Every run that fits, newest first, read page by page."""
        return walk(lambda after: self.list(experiment, WALK_ITEMS, after, state=state))

    def metrics(self, run_id: str) -> Sequence[MetricPoint]:
        """Every logged point, oldest first."""
        where = address(_PATH, run_id, "metrics")
        return [*walk(lambda after: self._transport.call("GET", where, Page[MetricPoint], query={"after": after}))]

    def download(self, run_id: str, folder: str | Path) -> Sequence[Path]:
        """Write the run's outputs below ``folder``."""
        outputs = self.get(run_id).outputs
        root = address(_PATH, run_id, "outputs")
        return [files.save(self._transport.download(file_address(root, entry.path)), entry, Path(folder)) for entry in outputs]
