"""A log line says which room of the scoring server it comes from, by one rule."""

from __future__ import annotations

import re
from pathlib import Path

RUNTIME = Path(__file__).parents[2] / "runtime"


def test_loggers_of_the_scoring_server_are_named_after_their_rooms() -> None:
    found = {}
    for file in RUNTIME.rglob("*.py"):
        for name in re.findall(r'getLogger\("(hedgerow[^"]*)"\)', file.read_text()):
            found[str(file.relative_to(RUNTIME))] = name
    assert len(found) > 10, "loggers are made in another way"
    # A room is a folder; prove/ and azmlinfsrv/ are programs of their own.
    wanted = {file: ".".join(("hedgerow.runtime", *Path(file).parent.parts[:1])) for file in found}
    assert found == wanted
