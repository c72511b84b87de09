"""Packs an installed package into a wheel again, so that what an engine built is used like any other wheel.

The bytes depend on the content alone: sorted, without times, not compressed (compressors differ between machines).
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from packager.environment.wheels import is_host_file
from packager.errors import SourceBuildFailed

_DATE = (1980, 1, 1, 0, 0, 0)
_REGULAR, _EXECUTABLE = 0o100644 << 16, 0o100755 << 16


@dataclass(frozen=True)
class PackedWheel:
    """A wheel as a file name and its bytes."""

    name: str
    version: str
    file_name: str
    content: bytes


def pack_wheels(site: Path) -> list[PackedWheel]:
    """One wheel for each package that is installed in ``site``. Raises SourceBuildFailed for one that is damaged."""
    return [_pack(site, info) for info in sorted(site.glob("*.dist-info"))]


def _pack(site: Path, info: Path) -> PackedWheel:
    try:
        name, _, version = info.name.removesuffix(".dist-info").rpartition("-")
        with (info / "RECORD").open(newline="", encoding="utf-8") as record:
            paths = sorted({row[0] for row in csv.reader(record) if row and not is_host_file(row[0], info.name)})
        tags = _tags((info / "WHEEL").read_text(encoding="utf-8"))
        files = {path: (_inside(site, path).read_bytes(), _is_executable(site / path)) for path in paths}
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise SourceBuildFailed(packages=info.name, problem=f"what was installed cannot be read ({problem})") from problem
    return PackedWheel(name, version, f"{name}-{version}-{tags}.whl", _zipped(files, info.name))


def _zipped(files: dict[str, tuple[bytes, bool]], info: str) -> bytes:
    record = "".join(f"{_quoted(path)},sha256={_digest(data)},{len(data)}\n" for path, (data, _) in files.items())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as wheel:
        for path, (data, executable) in [*files.items(), (f"{info}/RECORD", (f"{record}{info}/RECORD,,\n".encode(), False))]:
            entry = zipfile.ZipInfo(path, _DATE)
            entry.external_attr = _EXECUTABLE if executable else _REGULAR
            entry.create_system = 3  # Unix, wherever this runs
            wheel.writestr(entry, data)
    return packed.getvalue()


def _tags(wheel: str) -> str:
    """`py2.py3-none-any` of `Tag: py2-none-any` and `Tag: py3-none-any`."""
    tags = [tag.split("-") for tag in re.findall(r"^Tag: *([\w.]+-[\w.]+-[\w.]+) *$", wheel, re.M)]
    if not tags:
        return "py3-none-any"
    return "-".join(".".join(sorted({part for tag in tags for part in tag[place].split(".")})) for place in range(3))


def _inside(site: Path, path: str) -> Path:
    target = site / path
    if ".." in Path(path).parts or target.is_symlink():
        raise OSError(f"{path} leads out of it")
    return target


def _is_executable(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o100)


def _quoted(path: str) -> str:
    return f'"{path}"' if "," in path else path


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
