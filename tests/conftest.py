"""Loads the real parts (tests/fixtures), and makes a skipped test fail the session: what cannot run is not proven."""

from __future__ import annotations

import os

import hypothesis
import pytest

# Two cores are shared with brokers and engines: how long an example takes says nothing. In CI the same examples each time.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
hypothesis.settings.load_profile("patient")

pytest_plugins = [
    "tests.fixtures.base_image",
    "tests.fixtures.arm64",  # uses the one before, which pytest wants to load itself
    "tests.fixtures.brokers",
    "tests.fixtures.browser",
    "tests.fixtures.control_plane",
    "tests.fixtures.docker_engine",
    "tests.fixtures.local_hub",
    "tests.fixtures.local_port",
    "tests.fixtures.oci_registry",
    "tests.fixtures.postgres",
    "tests.fixtures.postgres_shelf",
    "tests.fixtures.programs",
    "tests.fixtures.registry_server",
    "tests.fixtures.s3_server",
    "tests.fixtures.scoring_images",
    "tests.fixtures.small_hub",
]

_skipped = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_skipped] = []


class _SkipWatch:
    def __init__(self, found: list[str]) -> None:
        self.found = found

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.found.append(f"{report.nodeid}: {reason}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.found.append(f"{report.nodeid}: {report.longrepr}")


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.pluginmanager.register(_SkipWatch(session.config.stash[_skipped]), "skip-watch")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if session.config.stash[_skipped] and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash[_skipped]
    if found:
        terminalreporter.section("skipped, which counts as failed")
        for line in found:
            terminalreporter.line(line)
