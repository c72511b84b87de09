"""Composition root of ``hedgerow restore`` (``python -P -m registry.backup``)."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from hedgerow.clock import SystemClock
from hedgerow.contracts.backup import RestoreReport
from hedgerow.contracts.document import encode
from hedgerow.errors import HedgerowError, InvalidSetting
from hedgerow.settings import load_settings, rows
from registry.backup.restore import Order, restore
from registry.backup.settings import RestoreSettings


def main(arguments: Sequence[str]) -> int:
    """Exit codes: 0 restored, 1 refused (nothing was changed), 2 wrong options."""
    parser = argparse.ArgumentParser(prog="hedgerow restore", allow_abbrev=False, description=RestoreSettings.__doc__)
    parser.add_argument("file", type=Path, help="the backup")
    for row in rows(RestoreSettings):
        option = f"--{row.name.replace('_', '-')}"
        if row.type_name == "bool":
            parser.add_argument(option, action="store_const", const=True, help=row.help)
        else:
            parser.add_argument(option, help=f"{row.help} [{row.env}]")
    given = vars(parser.parse_args(arguments))
    file: Path = given.pop("file")
    try:
        settings = load_settings(RestoreSettings, os.environ, given)
        report = restore(_order(file, settings), SystemClock().now())
    except HedgerowError as problem:
        print(f"hedgerow: {problem.sentence()}", file=sys.stderr)
        return 2 if isinstance(problem, InvalidSetting) else 1
    print(encode(report).decode() if settings.json else _told(report, settings))
    return 0


def _order(file: Path, settings: RestoreSettings) -> Order:
    return Order(
        file=file,
        target=settings.workspace,
        database_url=settings.database,
        blobs_url=settings.blobs,
        blobs_endpoint=settings.blobs_endpoint,
        keys=settings.keys,
        new_identity=settings.new_identity,
        revoke_tokens=settings.revoke_tokens,
        accept_lost=settings.accept_lost,
    )


def _told(report: RestoreReport, settings: RestoreSettings) -> str:
    lines = [
        f"Restored workspace {report.workspace_id} into {settings.workspace}:"
        f" {sum(report.rows.values())} rows, {report.blobs} blobs ({report.blob_bytes} bytes)."
    ]
    if report.interrupted:
        lines.append(f"{report.interrupted} activities were under way when the backup was made; they are recorded as failed.")
    if report.tokens_revoked:
        lines.append(f"{report.tokens_revoked} tokens were revoked.")
    if not report.keys_restored:
        lines.append("It has a new identity: enrol every device again, and set every secret again; the old ones cannot be read.")
    lines += [f"Lost: {blob.digest}: {blob.problem}" for blob in report.lost]
    lines.append(f"Start it with: hedgerow up --workspace {settings.workspace}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
