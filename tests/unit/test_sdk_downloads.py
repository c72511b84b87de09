"""The unfinished part of a large file, when several processes fetch the same file to the same place."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from hedgerow.sdk.downloads import _open_part


def test_nobody_holds_a_part_that_another_has_finished(tmp_path: Path) -> None:
    part, wrong = tmp_path / ".m.part", list[str]()

    def fetch() -> None:
        for _ in range(3000):
            fd = _open_part(part)
            if fd is None:
                continue
            try:
                if not part.exists() or not os.path.samestat(part.stat(), os.fstat(fd)):
                    wrong.append("it would be written into the finished file")
                    continue
                part.replace(tmp_path / "m")
            finally:
                os.close(fd)

    threads = [threading.Thread(target=fetch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
