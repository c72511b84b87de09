"""Entry of the supervising process: ``python -I -S shim.py FOLDER ANSWER_FD LOCK_FD STARTER_FD``, see ``shim_watch.py``.

Every import is resident memory for each supervised process, so the shim imports its own few modules (``shim_*.py``,
``procfs.py``) without running the ``__init__`` files of the packages above them, which load what only big processes need.
"""

import sys


def _bare_package(name: str, path: list[str]) -> None:
    package = type(sys)(name)
    package.__path__ = path
    sys.modules[name] = package


if __name__ == "__main__":
    _bare_package("hedgerow", [])
    _bare_package("hedgerow.process", [__file__.rpartition("/")[0]])
    from hedgerow.process.shim_watch import main

    # argv[1], the folder, is there for people who read the process list: it is already the working folder.
    main(*(int(fd) for fd in sys.argv[2:5]))
