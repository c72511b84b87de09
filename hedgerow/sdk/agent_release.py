"""A wheel of Hedgerow as a release of the agent: looked into before it is uploaded, so that no device has to find out."""

from __future__ import annotations

import zipfile
from email.parser import HeaderParser
from pathlib import Path

from hedgerow.contracts.document import convert
from hedgerow.contracts.edge import AgentRelease
from hedgerow.errors import InvalidDocument
from hedgerow.sdk.errors import AgentWheelInvalid
from hedgerow.sdk.files import LocalFile, collect

_METADATA_BYTES_MAX = 1 << 20
_BEGIN, _END = "hedgerow-", "-py3-none-any.whl"


def read_release(path: Path) -> tuple[AgentRelease, LocalFile]:
    """What the wheel at ``path`` is, and the file as it is uploaded. Raises AgentWheelInvalid, FileChanged, OSError."""
    if not (path.name.startswith(_BEGIN) and path.name.endswith(_END)):
        raise AgentWheelInvalid(path=path, problem=f"its name is not {_BEGIN}VERSION{_END}")
    version = path.name.removeprefix(_BEGIN).removesuffix(_END)
    (file,) = collect([path])
    found = _metadata_of(path, version)
    if found != ("hedgerow", version):
        raise AgentWheelInvalid(path=path, problem=f"it says that it is {found[0]} {found[1]}")
    try:
        return convert({"version": version, "wheel": file.entry.digest}, AgentRelease), file
    except InvalidDocument as problem:
        raise AgentWheelInvalid(path=path, problem=str(problem.fields["problem"])) from None


def _metadata_of(path: Path, version: str) -> tuple[str, str]:
    """Name and version that the wheel itself gives."""
    name = f"{_BEGIN}{version}.dist-info/METADATA"
    try:
        with zipfile.ZipFile(path) as archive:
            if "edge_agent/__main__.py" not in archive.namelist():
                raise AgentWheelInvalid(path=path, problem="there is no agent in it")
            if archive.getinfo(name).file_size > _METADATA_BYTES_MAX:
                raise AgentWheelInvalid(path=path, problem=f"its {name} is too large")
            headers = HeaderParser().parsestr(archive.read(name).decode())
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError, RuntimeError) as problem:
        raise AgentWheelInvalid(path=path, problem=f"it is no wheel: {problem}") from None
    return str(headers["Name"]), str(headers["Version"])
