"""Recorded training runs: submit a script, look at its metrics, fetch its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from hedgerow.contracts.api import Page, SubmitRun
from hedgerow.contracts.model import SourceCommit
from hedgerow.contracts.work import MetricPoint, Run
from hedgerow.sdk import files
from hedgerow.sdk.addresses import address, file_address
from hedgerow.sdk.blobs import upload_missing
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

    def list(self, experiment: str | None = None, limit: int = 50, after: str | None = None) -> Page[Run]:
        """Newest first."""
        query = {"experiment": experiment, "limit": limit, "after": after}
        return self._transport.call("GET", _PATH, Page[Run], query=query)

    def metrics(self, run_id: str) -> Sequence[MetricPoint]:
        """Every logged point, oldest first."""
        return self._transport.call("GET", address(_PATH, run_id, "metrics"), Page[MetricPoint]).items

    def download(self, run_id: str, folder: str | Path) -> Sequence[Path]:
        """Write the run's outputs below ``folder``."""
        outputs = self.get(run_id).outputs
        root = address(_PATH, run_id, "outputs")
        return [files.save(self._transport.download(file_address(root, entry.path)), entry, Path(folder)) for entry in outputs]
