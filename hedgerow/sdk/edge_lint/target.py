"""Traps of a target condition."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hedgerow.contracts.edge import EdgeDeployment
from hedgerow.contracts.edge_finding import Finding, error, note, warning
from hedgerow.contracts.status import ModuleStatus, StatusReport
from registry.hub.errors import TargetInvalid
from registry.hub.target import Everything, Nothing, parse_target, uses_reported

_REPORTED = re.compile(r"properties\.reported\.([\w$-]+)(?:\.[\w$-]+)*?(?:\.([\w$-]+))?(?![\w.$-])", re.IGNORECASE)


def target_findings(deployment: EdgeDeployment, said: bool) -> Iterator[Finding]:
    """``said``: the target stands in the manifest or was given; otherwise it comes with the command that deploys."""
    if not said and not deployment.target:
        yield note("$.target", "no target is given", "Write target in the manifest, or give --target.")
        return
    try:
        condition = parse_target(deployment.target)
    except TargetInvalid as problem:
        yield error("$.target", str(problem), problem.advice)
        return
    if isinstance(condition, Nothing):
        yield warning("$.target", "an empty target is for no device", "Write * for all of them.")
    if isinstance(condition, Everything) and not deployment.layered and deployment.priority > 0:
        yield note("$.target", "it is for every device, also those to come")
    if uses_reported(condition):
        yield note("$.target", "what devices report counts within half a minute, and may change back by what is deployed")
        yield from _unreported(deployment.target)


def _unreported(target: str) -> Iterator[Finding]:
    known = set(StatusReport.__struct_fields__)
    for found in _REPORTED.finditer(target):
        head, last = found[1], found[2]
        if head not in known or (head == "modules" and last is not None and last not in ModuleStatus.__struct_fields__):
            text = f"devices report nothing called {found[0].partition('reported.')[2]}"
            yield warning("$.target", text, "There are agent_version, desired.code, modules.NAME.state and others.")
