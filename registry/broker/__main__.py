"""Composition root of the embedded broker (``python -P -m registry.broker``). Stays small: imports next to nothing."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from pathlib import Path

from hedgerow.atomic_write import atomic_write
from hedgerow.errors import HedgerowError, InvalidSetting
from hedgerow.process.errors import LockHeld
from hedgerow.process.lock import hold_lock
from registry.broker.errors import BrokerFailed
from registry.broker.rumqttd import Native, check_loopback, configuration, listening_port, native_broker
from registry.broker.settings import BrokerSettings
from registry.errors import NotAWorkspace, PortTaken, RoleTaken
from registry.settings import read_settings
from registry.stop_signals import StopSignals

_START_PATIENCE_S = 10.0
_LOOK_S = 0.01


def main(arguments: list[str]) -> int:
    """Exit codes: 0 stopped as asked, 1 could not start, 2 wrong options."""
    try:
        settings = read_settings(BrokerSettings, "python -P -m registry.broker", arguments, os.environ)
        logging.basicConfig(level=logging.WARNING)
        stop = StopSignals(watch_parent=settings.watch_parent)
        host = check_loopback(settings.host)
        # By path: opening the workspace as such would load cryptography, three times the size of this process.
        if not (settings.workspace / "format.json").is_file():
            raise NotAWorkspace(folder=settings.workspace)
        run = settings.workspace.absolute() / "run"
        run.mkdir(mode=0o700, exist_ok=True)
        try:
            lock = hold_lock(run / "broker.lock", "The broker")
        except LockHeld as held:
            raise RoleTaken(role="broker", folder=settings.workspace, pid=held.fields["pid"]) from None
        with lock:
            _serve(settings, host, run, stop)
    except HedgerowError as problem:
        print(f"hedgerow broker: {problem.sentence()}", file=sys.stderr, flush=True)
        return 2 if isinstance(problem, InvalidSetting) else 1
    return 0


def _serve(settings: BrokerSettings, host: str, run: Path, stop: StopSignals) -> None:
    toml, facts = run / "broker.toml", run / "broker.json"
    atomic_write(toml, configuration(host, settings.port).encode())
    broker = native_broker(toml)
    announced = [path for path in (facts, settings.ready_file) if path is not None]
    problems: list[OSError] = []
    try:
        broker.check_ports()
        threading.Thread(target=_listen, args=(broker, problems, stop), name="rumqttd", daemon=True).start()
        port = _wait_for_port(stop)
        if port is not None:
            content = json.dumps({"url": f"mqtt://{host}:{port}", "pid": os.getpid()}).encode()
            for path in announced:
                atomic_write(path, content)
            stop.wait(None)
    except OSError as problem:
        problems.append(problem)
    finally:
        for path in announced:
            path.unlink(missing_ok=True)
    if problems and "in use" in str(problems[0]):
        raise PortTaken(port=settings.port, host=settings.host, option="--port")
    if problems:
        raise BrokerFailed(problem=problems[0])


def _listen(broker: Native, problems: list[OSError], stop: StopSignals) -> None:
    try:
        broker.run_forever()
    except OSError as problem:
        problems.append(problem)
    else:
        problems.append(OSError("it ended by itself"))
    stop.request()


def _wait_for_port(stop: StopSignals) -> int | None:
    """None when this process should end before anybody listens."""
    for _ in range(int(_START_PATIENCE_S / _LOOK_S)):
        port = listening_port()
        if port is not None:
            return port
        if stop.wait(_LOOK_S):
            return None
    raise BrokerFailed(problem=f"it did not listen within {_START_PATIENCE_S:.0f} s")


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    # rumqttd cannot be stopped and its threads may be inside Python's logging: leave without taking the interpreter apart.
    os._exit(code)
