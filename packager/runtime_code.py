"""Our own code as it goes into a docker image: the packages `hedgerow` and `runtime`, from where they are installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from packager.errors import UnreadableFile
from packager.source_files import LEFT_OUT_SUFFIXES, list_files
from packager.tar_layer import DataEntry, DiskEntry, Entry

PACKAGES = ("hedgerow", "runtime")


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
    """The files of the packages, and the little metadata by which code can ask for Hedgerow's version."""
    entries: list[Entry] = [
        DiskEntry(f"{prefix}/{name}/{file.path}", file.source, file.size_bytes)
        for name, folder in folders.items()
        for file in list_files(folder)
        if not file.path.endswith(LEFT_OUT_SUFFIXES)
    ]
    metadata = f"Metadata-Version: 2.1\nName: hedgerow\nVersion: {tool_version}\n"
    entries.append(DataEntry(f"{prefix}/hedgerow-{tool_version}.dist-info/METADATA", metadata.encode()))
    return tuple(entries)
