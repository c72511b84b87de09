"""Releases of the agent for tests: virtual environments with this tree's agent, and wheels that an installer takes."""

from __future__ import annotations

import base64
import hashlib
import site
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path

from edge_agent.service import launch
from edge_agent.service.upgrade import COMPLETE, LAUNCHER, launch_argv
from scripts.inventory import TOP

# What this machine's packages lie in, for environments that have none.
_SITES = [f"import site; site.addsitedir({path!r})" for path in site.getsitepackages()]


def make_release(releases: Path, name: str, main: str | None = None) -> None:
    """A real virtual environment with this tree's agent, or with another program under its name."""
    folder = releases / name
    base = launch_argv(releases, [])[0]
    subprocess.run([base, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "tree.pth").write_text("\n".join([str(TOP), *_SITES]) + "\n")
    if main is not None:
        (packages / "edge_agent").mkdir()
        (packages / "edge_agent/__init__.py").touch()
        (packages / "edge_agent/__main__.py").write_text(main)
    (folder / COMPLETE).touch()


def first_release(releases: Path) -> None:
    """The folder with one release, called "1", that is current, and the launcher."""
    releases.mkdir()
    make_release(releases, "1")
    (releases / LAUNCHER).write_bytes(Path(launch.__file__).read_bytes())
    launch.switch(releases, "1")


def wheel(folder: Path, main: str, *, version: str = "9.9.9") -> Path:
    """A wheel named hedgerow with nothing but an ``edge_agent``."""
    return _written(folder, version, {"edge_agent/__init__.py": "", "edge_agent/__main__.py": main})


def tree_wheel(folder: Path, *, version: str = "9.9.9") -> Path:
    """A wheel with this tree's agent; what it needs it finds where this tree finds it."""
    files = {"needs.pth": "\n".join(_SITES) + "\n"}
    for package in ("edge_agent", "hedgerow"):
        files |= {path.relative_to(TOP).as_posix(): path.read_text("utf-8") for path in (TOP / package).rglob("*.py")}
    return _written(folder, version, files)


def _written(folder: Path, version: str, content: Mapping[str, str]) -> Path:
    path = folder / f"hedgerow-{version}-py3-none-any.whl"
    info = f"hedgerow-{version}.dist-info"
    files = {
        **content,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: hedgerow\nVersion: {version}\nProvides-Extra: edge\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},sha256={_record_digest(text)},{len(text.encode())}\n" for name, text in files.items())
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return path


def _record_digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
