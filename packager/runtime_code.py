"""Our own code as it goes into a docker image: the packages `hedgerow` and `runtime`, from where they are installed."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from hedgerow.contracts.secret_files import LEFT_OUT_SUFFIXES
from packager.errors import UnreadableFile
from packager.oci.tar_layer import DataEntry, Entry, content_digest
from packager.source_files import list_files

PACKAGES = ("hedgerow", "runtime")
# For people at a terminal: an image would be rebuilt for each new help text.
_COMMAND_LINE = "cli/"


@dataclass(frozen=True)
class Code:
    """Our code below the folder ``prefix`` of an image; ``digest`` is of its files, ``name`` is `hedgerow VERSION`."""

    name: str
    prefix: str
    digest: str
    entries: tuple[Entry, ...]


def installed_code(prefix: str, tool_version: str) -> Code:
    """The code of this installation. Raises UnreadableFile, PackedFileChanged."""
    entries = code_entries(package_folders(), prefix, tool_version)
    return Code(f"hedgerow {tool_version}", prefix, content_digest(entries, f"{prefix}/"), entries)


def package_folders() -> dict[str, Path]:
    """Where the packages are; nothing of them is run to find out. Raises UnreadableFile."""
    folders = {}
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise UnreadableFile(path=name, problem="the package is not installed")
        folders[name] = Path(spec.submodule_search_locations[0])
    return folders


def code_entries(folders: dict[str, Path], prefix: str, tool_version: str) -> tuple[Entry, ...]:
    """The files of the packages, and the little metadata by which code can ask for Hedgerow's version.

    Read here and now (about 3 MB): what is hashed for the plan is then what is packed, though somebody upgrades meanwhile.
    """
    entries: list[Entry] = [
        DataEntry(f"{prefix}/{name}/{file.path}", _read(file.source))
        for name, folder in folders.items()
        for file in list_files(folder)
        if not file.path.endswith(LEFT_OUT_SUFFIXES) and not (name == "hedgerow" and file.path.startswith(_COMMAND_LINE))
    ]
    metadata = f"Metadata-Version: 2.1\nName: hedgerow\nVersion: {tool_version}\n"
    entries.append(DataEntry(f"{prefix}/hedgerow-{tool_version}.dist-info/METADATA", metadata.encode()))
    return tuple(entries)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise UnreadableFile(path=path, problem=problem.strerror) from problem
