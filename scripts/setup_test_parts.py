"""Installs the real programs that tests run (tests/parts.toml) through apt: says first which, and starts none of their services.

    setup_test_parts.py               all parts; ends with 1 and one sentence when one is missing and cannot be installed
    setup_test_parts.py --quickstart  only what `make quickstart` profits from; says so and ends with 0 when it cannot

HEDGEROW_NO_INSTALL=1 only checks. Needs nothing but the standard library.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PARTS_TABLE = Path(__file__).resolve().parent.parent / "tests" / "parts.toml"
POLICY = Path("/usr/sbin/policy-rc.d")
POLICY_TEXT = "#!/bin/sh\n# Hedgerow's scripts/setup_test_parts.py: installing test parts starts no service.\nexit 101\n"


@dataclass(frozen=True)
class Part:
    """A row of the table."""

    program: str
    package: str
    use: str
    quickstart: bool = False


def read_parts(path: Path = PARTS_TABLE) -> list[Part]:
    return [Part(**row) for row in tomllib.loads(path.read_text(encoding="utf-8"))["part"]]


def missing(parts: Sequence[Part]) -> list[Part]:
    """Those whose program stands nowhere that tests look (tests/fixtures/parts.py looks in the same places)."""
    postgres = [str(folder) for folder in Path("/usr/lib/postgresql").glob("*/bin")]
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin", *postgres])
    return [part for part in parts if shutil.which(part.program, path=path) is None]


def root_prefix(*, may_ask: bool) -> list[str] | None:
    """What to write before a command so that it runs as root; None when there is no way."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is None:
        return None
    if subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0:
        return ["sudo", "-n"]
    return ["sudo"] if may_ask and sys.stdin.isatty() else None


@contextlib.contextmanager
def no_service_starts(prefix: Sequence[str], policy: Path = POLICY) -> Iterator[None]:
    """A policy-rc.d that forbids starts while apt works; whatever stood there before comes back, also after a kill."""

    def run(*argv: str, text: str | None = None) -> None:
        subprocess.run([*prefix, *argv], input=text, text=True, check=True, stdout=subprocess.DEVNULL)

    before = policy.with_name(f"{policy.name}.before-hedgerow")
    if before.exists():
        run("mv", str(before), str(policy))
    elif policy.exists() and policy.read_text(errors="replace") == POLICY_TEXT:
        run("rm", str(policy))
    if policy.exists():
        run("mv", str(policy), str(before))
    run("tee", str(policy), text=POLICY_TEXT)
    run("chmod", "755", str(policy))
    try:
        yield
    finally:
        if before.exists():
            run("mv", str(before), str(policy))
        else:
            run("rm", str(policy))


def apt(prefix: Sequence[str], *arguments: str) -> bool:
    """Run apt-get without questions; whether it worked. Its own words go to the terminal only when it did not."""
    argv = [
        *prefix,
        *("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y"),
        *("-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=2", "-o", "Dpkg::Use-Pty=0"),
        *arguments,
    ]
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        print(done.stdout[-3000:], file=sys.stderr)
    return done.returncode == 0


def lists_know(packages: Sequence[str]) -> bool:
    """Whether apt's package lists were ever fetched and name all of ``packages``."""
    shown = subprocess.run(["apt-cache", "show", "--no-all-versions", *packages], capture_output=True, text=True, check=False)
    return shown.returncode == 0 and all(f"Package: {package}\n" in shown.stdout for package in packages)


def disable_services(prefix: Sequence[str], packages: Sequence[str]) -> None:
    """Not at the next boot either: these packages came for tests."""
    if shutil.which("systemctl") is None:
        return
    listed = subprocess.run(["dpkg", "-L", *packages], capture_output=True, text=True, check=False).stdout.split()
    units = [Path(path).name for path in listed if "/systemd/system/" in path and path.endswith((".service", ".socket"))]
    units = [unit for unit in units if "@" not in unit]
    if units:
        subprocess.run([*prefix, "systemctl", "disable", *units], capture_output=True, check=False)


def install(prefix: Sequence[str], parts: Sequence[Part]) -> bool:
    """Whether apt installed all packages of ``parts``."""
    packages = sorted({part.package for part in parts})
    arguments = ("install", "--no-install-recommends", *packages)
    with no_service_starts(prefix):
        if not lists_know(packages):
            apt(prefix, "update")
        # A second try with fresh lists: old lists name versions that the mirror no longer has.
        done = apt(prefix, *arguments) or (apt(prefix, "update") and apt(prefix, *arguments))
    if done:
        disable_services(prefix, packages)
    return done


def problem_with(absent: Sequence[Part], *, may_ask: bool) -> str | None:
    """Install ``absent``; None when all is well, else the sentence for the user."""
    packages = " ".join(sorted({part.package for part in absent}))
    command = f"sudo apt-get install --no-install-recommends {packages}"
    if os.environ.get("HEDGEROW_NO_INSTALL", "0") not in ("", "0"):
        return f"missing, and HEDGEROW_NO_INSTALL is set: {packages}. Install them with: {command}"
    if shutil.which("apt-get") is None:
        return f"missing, and there is no apt-get here: {packages}. Install them in this system's own way."
    prefix = root_prefix(may_ask=may_ask)
    if prefix is None:
        return f"missing, and this user may not install packages: {packages}. Have them installed with: {command}"
    print("test parts: installing through apt (no service is started):", flush=True)
    for part in absent:
        print(f"  {part.package:16} {part.use}", flush=True)
    if not install(prefix, absent):
        return f"apt could not install all of {packages}; its reason stands above. Try: {command}"
    still = [part.program for part in missing(absent)]
    return f"installed, but these programs are not there: {', '.join(still)}." if still else None


def main() -> int:
    parser = argparse.ArgumentParser(description="Install the real programs that tests run.")
    parser.add_argument("--quickstart", action="store_true", help="only what `make quickstart` profits from; never fails")
    options = parser.parse_args()
    parts = [part for part in read_parts() if part.quickstart or not options.quickstart]
    absent = missing(parts)
    problem = problem_with(absent, may_ask=not options.quickstart) if absent else None
    if problem and options.quickstart:
        print(f"quickstart: goes on without {', '.join(part.use for part in absent)}: {problem}")
        return 0
    if problem:
        print(f"test parts: {problem}", file=sys.stderr)
        return 1
    if not options.quickstart:
        print(f"test parts: all {len(parts)} are there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
