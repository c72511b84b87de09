"""Imports the modules named as arguments and prints, as the last line, a JSON list of what that did besides defining.

Run by test_arch_imports.py in a process of its own with an empty environment: audit hooks cannot be taken back.
What a library does while it is imported is its own affair; what our code makes it do counts.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, MutableMapping
from pathlib import Path

_FORBIDDEN_EVENTS = {"socket.bind", "socket.connect", "subprocess.Popen", "os.system", "os.fork", "os.exec", "os.posix_spawn"}
_FORBIDDEN_CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.symlink", "os.chmod", "os.chdir", "shutil.rmtree"}
# gettext looks at these whenever click or argparse is asked for a text.
_LOCALE = {"LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"}
_WRITING_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND


class _Watch:
    """Collects findings under the name of the module that is being imported."""

    def __init__(self, ours: tuple[str, ...]) -> None:
        self.findings: list[str] = []
        self.importing = ""
        self.ours = ours

    def report(self, what: str) -> None:
        if self.importing and self._caused_by_us():
            self.findings.append(f"importing {self.importing} {what}")

    def _caused_by_us(self) -> bool:
        """Walking outwards, our own code comes before an import: a library that we import may look around by itself."""
        frame = sys._getframe(2)
        while frame.f_back:
            name = frame.f_code.co_filename
            if name.startswith("<frozen importlib"):
                return False
            if name.startswith(self.ours) and name != __file__ and "site-packages" not in name:
                return True
            frame = frame.f_back
        return False

    def audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in _FORBIDDEN_EVENTS or event in _FORBIDDEN_CHANGES:
            self.report(f"does {event} {arguments!r:.100}")
        elif event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITING_FLAGS and path != os.devnull:
                self.report(f"writes {path}")


class _WatchedEnvironment(MutableMapping[str, str]):
    def __init__(self, real: MutableMapping[str, str], watch: _Watch) -> None:
        self._real, self._watch = real, watch

    def _look(self, key: object) -> None:
        if key not in _LOCALE:
            self._watch.report(f"reads the environment variable {key}")

    def __getitem__(self, key: str) -> str:
        self._look(key)
        return self._real[key]

    def __contains__(self, key: object) -> bool:
        self._look(key)
        return key in self._real

    def __iter__(self) -> Iterator[str]:
        self._look("(all)")
        return iter(self._real)

    def __len__(self) -> int:
        return len(self._real)

    def __setitem__(self, key: str, value: str) -> None:
        self._watch.report(f"sets the environment variable {key}")
        self._real[key] = value

    def __delitem__(self, key: str) -> None:
        del self._real[key]

    def copy(self) -> dict[str, str]:
        return dict(self)


def _process_state() -> dict[str, object]:
    """What of the process itself an import must leave alone."""
    return {
        "starts a thread": sorted(thread.name for thread in threading.enumerate()),
        "sets up logging": list(logging.getLogger().handlers),
        "changes a signal handler": [signal.getsignal(number) for number in (*range(1, 32),)],
        "changes sys.path": list(sys.path),
    }


def main(arguments: list[str]) -> None:
    top = Path(__file__).resolve().parents[2]
    if arguments[0] == "--path":
        top, arguments = Path(arguments[1]), arguments[2:]
    sys.path.insert(0, str(top))
    watch = _Watch((f"{top}/",))
    os.environ = _WatchedEnvironment(os.environ, watch)  # type: ignore[assignment]  # noqa: B003 - a spy is the point
    sys.addaudithook(watch.audit)
    for name in arguments:
        before = _process_state()
        watch.importing = name
        importlib.import_module(name)
        watch.importing = ""
        after = _process_state()
        watch.findings += [f"importing {name} {what}" for what in before if before[what] != after[what]]
    print(json.dumps(watch.findings))


if __name__ == "__main__":
    main(sys.argv[1:])
