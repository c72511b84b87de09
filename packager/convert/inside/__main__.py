"""`python -P -m inside open|finish JOB.json`: one step inside the sandbox. What it has to say stands in files, not on stdout."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from .failures import Failure, write_failure


def main(step: str, job_file: Path) -> int:
    """Exit code 0: done, 3: a failure was written."""
    told = json.loads(job_file.read_text(encoding="utf-8"))
    result = Path(told.pop("result"))
    try:
        _run(step, told, result)
    except Failure as failure:
        write_failure(result, failure)
        return 3
    except MemoryError:
        write_failure(result, Failure("memory"))
        return 3
    except ModuleNotFoundError as problem:
        write_failure(result, Failure("missing_module", module=problem.name, problem=problem))
        return 3
    return 0


def _run(step: str, told: dict[str, object], result: Path) -> None:
    if step == "finish":
        from .finish import finish
        from .finish_material import FinishJob

        opened = Path(str(told.pop("opened")))
        finish(FinishJob(**told), opened, result)  # type: ignore[arg-type]  # written by the packager
        return
    from .open_model import open_and_convert
    from .opened import Job

    sample = told.pop("sample")
    entry, names = Path(str(told.pop("entry"))), told.pop("input_names")
    job = Job(
        entry=entry,
        sample=Path(str(sample)) if sample else None,
        input_names=tuple(names),  # type: ignore[arg-type]  # written by the packager
        **told,  # type: ignore[arg-type]  # written by the packager
    )
    open_and_convert(job, result)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
