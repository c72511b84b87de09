"""How the controller runs Python of its own as another process."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hedgerow.process import ProcessSpec

# What our own helpers have no business with: the database, the broker, somebody's token.
_KEPT_BACK = re.compile(r"HEDGEROW_(DATABASE|BROKER|BROKER_URL|TOKEN|URL|WORKSPACE)")
# Where contents are and what opens that place: for helpers that read and write blobs, not for a packager that tries user code.
_OF_CONTENTS = re.compile(r"AWS_.*|GOOGLE_.*|AZURE_.*|HEDGEROW_BLOBS.*")
_WITH_CONTENTS = ("registry.controller.file_work", "registry.controller.garbage_work")
_LOG_BYTES = 8_000_000


@dataclass(frozen=True)
class OwnPython:
    """``environment`` is the controller's own, read by its composition root."""

    environment: Mapping[str, str]

    def spec(self, module: str, arguments: list[str], cwd: Path) -> ProcessSpec:
        """``python -P -m MODULE ARGUMENTS`` that ends when the controller does."""
        passed = {name: value for name, value in self.environment.items() if not _KEPT_BACK.fullmatch(name)}
        if module not in _WITH_CONTENTS:
            passed = {name: value for name, value in passed.items() if not _OF_CONTENTS.fullmatch(name)}
        return ProcessSpec(
            argv=[sys.executable, "-P", "-m", module, *arguments],
            cwd=str(cwd),
            environment=passed,
            log_bytes_max=_LOG_BYTES,
            exit_with_starter=True,
        )

    def installation(self) -> list[Path]:
        """The folders that this Python runs from; whoever shall run it must be able to enter them."""
        packages = Path(__file__).parents[2]
        return [Path(sys.executable).parent, Path(sys.executable).resolve().parent, Path(sys.prefix), packages]
