"""Where a script is and what belongs to it, as one argument of its process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec


@dataclass(frozen=True)
class ScriptPlace:
    """``root`` is the app's root and the script's working folder; ``folders`` go first on sys.path, in this order."""

    file: Path
    root: Path
    folders: tuple[Path, ...]

    def text(self) -> str:
        """For a command line."""
        return msgspec.json.encode([str(self.file), str(self.root), *map(str, self.folders)]).decode()

    @classmethod
    def parse(cls, text: str) -> ScriptPlace:
        file, root, *folders = msgspec.json.decode(text, type=list[str])
        return cls(Path(file), Path(root), tuple(map(Path, folders)))
