"""Composition root of ``hedgerow up`` (``python -P -m registry.up``)."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from hedgerow.atomic_write import atomic_write
from hedgerow.clock import SystemClock
from hedgerow.errors import HedgerowError, InvalidSetting
from hedgerow.process.errors import LockHeld
from hedgerow.process.lock import hold_lock
from hedgerow.settings import load_settings, rows
from registry.errors import RoleTaken
from registry.mosquitto.listening import device_url, parse_listen
from registry.up.ports import settle_ports
from registry.up.roles import MOST_HUBS, UpSettings, from_folder, listen_for_devices, plan_roles, role_environment
from registry.up.supervisor import Supervisor


def main(argv: list[str]) -> int:
    """Exit codes: 0 stopped as asked, 1 could not start, 2 wrong options."""
    parser = argparse.ArgumentParser(prog="hedgerow up")
    for row in rows(UpSettings):
        option = f"--{row.name.replace('_', '-')}"
        if row.type_name == "bool":
            parser.add_argument(option, action="store_const", const=True, help=row.help)
        else:
            default = f", default {row.shown_default}" if row.shown_default else ""
            parser.add_argument(option, help=f"{row.help} [{row.env}{default}]".replace("%", "%%"))
    clock = SystemClock()
    started_s = clock.monotonic_s()
    try:
        settings = load_settings(UpSettings, os.environ, vars(parser.parse_args(argv)))
        settings = from_folder(settings, Path.cwd())
        _expect_file("registry_logins", settings.registry_logins)
        _expect_file("egress_ca_file", settings.egress_ca_file)
        _expect_one_broker(settings)
        _expect_shareable(settings)
        return _up(settings, clock, started_s)
    except InvalidSetting as problem:
        _complain(problem.sentence())
        return 2
    except HedgerowError as problem:
        _complain(problem.sentence())
        return 1


def _expect_file(name: str, path: Path | None) -> None:
    """Else a slip of the pen shows only when the first build fails, hours later."""
    if path and not path.is_file():
        option = f"--{name.replace('_', '-')}"
        raise InvalidSetting(name=name, value=str(path), problem="there is no such file", source=option)


def _expect_one_broker(settings: UpSettings) -> None:
    """Else an option that nobody reads would be passed over in silence."""
    listeners = {"mosquitto": settings.mosquitto, "mosquitto_mtls": settings.mosquitto_mtls}
    given = {name: value for name, value in listeners.items() if value is not None}
    for name, value in given.items():
        option = name.replace("_", "-")
        if settings.broker:
            problem = "a broker of your own is named as well (--broker)"
            raise InvalidSetting(name=name, value=value, problem=problem, source=f"--{option}")
        parse_listen(value, option)
    if settings.mosquitto_mtls and settings.mosquitto_mtls == settings.mosquitto:
        problem = "devices with passwords are listened for there (--mosquitto); use another port"
        raise InvalidSetting(name="mosquitto_mtls", value=value, problem=problem, source="--mosquitto-mtls")
    if given:
        return
    for name in ("mosquitto_names", "mosquitto_cert", "mosquitto_key"):
        if value := getattr(settings, name):
            option = f"--{name.replace('_', '-')}"
            raise InvalidSetting(name=name, value=str(value), problem="it needs --mosquitto HOST:PORT", source=option)


def _expect_shareable(settings: UpSettings) -> None:
    problem = "" if settings.hubs <= MOST_HUBS else f"there are at most {MOST_HUBS}"
    if settings.hubs > 1 and settings.database is None:
        problem = "several hubs need a PostgreSQL database (--database)"
    if problem:
        raise InvalidSetting(name="hubs", value=settings.hubs, problem=problem, source="--hubs")


def _up(settings: UpSettings, clock: SystemClock, started_s: float) -> int:
    # Imported late: it brings cryptography, which this small process needs for the moment of making a workspace only.
    run = _prepare(settings.workspace)
    try:
        lock = hold_lock(run / "up.lock", "hedgerow up")
    except LockHeld as held:
        raise RoleTaken(role="control plane", folder=settings.workspace, pid=held.fields["pid"]) from None
    with lock:
        settings = settle_ports(settings)
        facts = {"port": settings.port, "broker_port": settings.broker_port, "balancer_port": settings.balancer_port}
        environment = dict(os.environ) | role_environment(settings)
        supervisor = Supervisor(plan_roles(settings, run), clock, environment, _complain)

        def ready() -> None:
            atomic_write(run / "up.json", json.dumps(facts | {"pid": os.getpid()}).encode())
            print(banner(settings, clock.monotonic_s() - started_s), flush=True)

        try:
            return supervisor.run(ready, sys.stdin.fileno() if settings.watch_parent else None)
        finally:
            (run / "up.json").unlink(missing_ok=True)


def _prepare(folder: Path) -> Path:
    """Make the workspace in a short-lived child, so that this long-lived parent stays small."""
    pid = os.fork()
    if pid == 0:
        try:
            from registry.workspace import open_workspace

            open_workspace(folder)
        except HedgerowError as problem:
            _complain(problem.sentence())
            os._exit(1)
        except OSError as problem:
            _complain(f"Workspace {folder} cannot be written: {problem.strerror}. Choose another folder or free some space.")
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise SystemExit(1)
    return folder / "run"


def _complain(text: str) -> None:
    print(f"hedgerow up: {text}", file=sys.stderr, flush=True)


def banner(settings: UpSettings, seconds: float) -> str:
    """What people see once everything runs."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return "\n".join(
        [
            f"Hedgerow is up ({seconds:.1f} s)",
            f"  pages and API  http://{host}:{settings.port}",
            f"  services       http://127.0.0.1:{settings.balancer_port}/services/NAME/score",
            f"  broker         {_shown_broker(settings)}",
            f"  workspace      {settings.workspace}",
            "  stop with Ctrl-C",
        ]
    )


def _shown_broker(settings: UpSettings) -> str:
    """As devices reach it."""
    if settings.broker:
        return _without_password(settings.broker)
    listen = listen_for_devices(settings)
    if listen is not None:
        return f"{device_url(listen, settings.mosquitto_names)} (Mosquitto)"
    return f"mqtt://127.0.0.1:{settings.broker_port} (embedded)"


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
