"""``hedgerow agent install``, ``uninstall`` and ``upgrade``: arguments in, lines for people out. What is done is in
``install.py`` and ``upgrade.py``.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.device_config import default_state_dir, read_device_config
from edge_agent.errors import ServiceRefused, UpgradeRefused
from edge_agent.service import launch
from edge_agent.service.install import carry_out, installing, removing, unit_path
from edge_agent.service.unit import Service, unit_text
from edge_agent.service.upgrade import Wish, begin_trial, build, launch_argv
from edge_agent.settings import AgentSettings
from edge_agent.state_store import StateStore
from hedgerow.contracts.status import StatusReport
from hedgerow.process.lock import lock_holder


@dataclass(frozen=True)
class Caller:
    """Who asks: their home, and whether they are root."""

    home: Path
    is_root: bool


def add_parsers(commands: Any) -> None:  # noqa: ANN401 - argparse's own class for it is private
    """``install`` and ``uninstall`` below ``hedgerow agent``."""
    texts = {
        "install": "make the agent a systemd service that starts with this machine",
        "uninstall": "end the service and remove its unit; modules run on",
    }
    for name, text in texts.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--user", action="store_true", help="a service of this user, not of the machine (no root needed)")
        command.add_argument("--dry-run", action="store_true", help="only show what would be done")
        if name == "install":
            command.add_argument("--config", help="the device.toml of this device")
            command.add_argument("--state-dir", help="folder of everything the agent keeps")
            command.add_argument("--no-start", action="store_true", help="enable it, but do not start it now")
            command.add_argument("options", nargs="*", help="after --: further options of `hedgerow agent run`")


def add_upgrade_parser(commands: Any) -> None:  # noqa: ANN401 - argparse's own class for it is private
    """``upgrade`` below ``hedgerow agent``."""
    text = "put another release of the agent in place, on trial: when it is not well the one before comes back by itself"
    command = commands.add_parser("upgrade", help=text, description=text)
    command.add_argument("--wheel", type=Path, help="the wheel file of the release")
    command.add_argument("--version", help="a version that the package index has")
    command.add_argument("--sha256", help="what the wheel must hash to")
    command.add_argument("--index-url", help="the package index (default: the one of this machine)")
    command.add_argument("--find-links", type=Path, help="a folder of wheels, instead of any index")
    command.add_argument("--config", help="the device.toml of this device")
    command.add_argument("--state-dir", help="folder of everything the agent keeps")
    command.add_argument("--releases", help="folder of the agent's releases (default: 'releases' beside device.toml)")
    command.add_argument("--dry-run", action="store_true", help="only show what would be done")


def releases_of(settings: AgentSettings) -> Path:
    """The folder of releases, whether it is there or not."""
    return (settings.releases or settings.config.absolute().parent / "releases").absolute()


def release_line(settings: AgentSettings) -> str | None:
    """Which release is current, and whether it is on trial; None where there are no releases."""
    releases = releases_of(settings)
    name, trial = launch.current(releases), launch.read(releases / launch.TRIAL)
    if not name:
        return None
    on_trial = f", on trial (start {trial.get('starts')}, before it: {trial.get('previous')})" if trial else ""
    return f"release: {name}{on_trial}"


def upgrade(options: argparse.Namespace, settings: AgentSettings, signal_agent: Callable[[int], None]) -> Sequence[str]:
    """Build, switch, and tell the agent that runs (``signal_agent`` gets its pid). Raises UpgradeRefused, StateUnusable."""
    releases = releases_of(settings)
    wish = Wish(options.wheel, options.version, options.sha256, options.index_url, options.find_links)
    if wish.wheel is not None and not wish.wheel.is_file():
        raise UpgradeRefused(release=wish.wheel.name, problem=f"there is no file {wish.wheel}")
    if options.dry_run:
        before = launch.current(releases) or "none"
        return [f"build release {wish.name} in {releases}, now current: {before}", "switch to it, on trial", "restart the agent"]
    store = StateStore(default_state_dir(settings))
    report = store.load("report.json", StatusReport) if store.report.exists() else None
    name = build(releases, wish)
    begin_trial(releases, name, had_session=bool(report and report.session))
    pid = lock_holder(store.lock)
    if pid is not None and b"--releases" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
        signal_agent(pid)
        return [f"release {name} is on trial: the agent (pid {pid}) starts again as it; `hedgerow agent status` says how it goes"]
    start = shlex.join(launch_argv(releases, ["run", "--config", str(settings.config.absolute())]))
    return [f"release {name} is current", f"start it with: {start}", "or as a service: hedgerow agent install"]


def install(options: argparse.Namespace, settings: AgentSettings, caller: Caller) -> Sequence[str]:
    """Lines about what was (or would be) done. Raises ServiceRefused, and what a bad device.toml raises."""
    config = settings.config.absolute()
    enrolls = not config.exists() and any(option.partition("=")[0] == "--enroll-url" for option in options.options)
    device = "the one that it enrols as" if enrolls else f"device {read_device_config(config).name}"
    releases = releases_of(settings)
    run = ["run", *options.options]
    launched = bool(launch.current(releases))
    argv = launch_argv(releases, run) if launched else [sys.executable, "-P", "-m", "edge_agent", *run]
    state_dir = default_state_dir(settings).absolute()
    text = unit_text(Service(argv, config, state_dir, options.user, releases if launched else None, enrolls))
    unit = unit_path(user=options.user, home=caller.home)
    change = installing(unit, text, user=options.user, start=not options.no_start)
    if options.dry_run:
        return change.lines()
    _check_rights(options, caller, unit)
    carry_out(change)
    done = [f"{unit} is enabled{'' if options.no_start else ' and started'} for {device}"]
    if options.user:
        done.append("to have it run while you are not logged in: loginctl enable-linger")
    return done


def uninstall(options: argparse.Namespace, caller: Caller) -> Sequence[str]:
    """The way back."""
    unit = unit_path(user=options.user, home=caller.home)
    change = removing(unit, user=options.user)
    if options.dry_run:
        return change.lines()
    _check_rights(options, caller, unit)
    if not unit.exists():
        raise ServiceRefused(unit=unit, problem="it is not installed")
    carry_out(change)
    return [f"{unit} is gone; modules that ran still do"]


def _check_rights(options: argparse.Namespace, caller: Caller, unit: Path) -> None:
    if not options.user and not caller.is_root:
        raise ServiceRefused(unit=unit, problem="only root may")
