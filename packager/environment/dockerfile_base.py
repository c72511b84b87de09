"""Plans how a container engine builds wheels of packages that are there as source only. Pure: settings in, files out.

Foreign build scripts run there and nowhere else: in a container of the chosen base image, which is thrown away with everything
but the folder of what was built. Where all packages come from folders of this machine, it has no network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LABEL = "io.hedgerow.engine-build"
MADE_FOLDER = "/hedgerow-made"
_PLACE = "/hedgerow-build"
_CERTIFICATES = "certificates.pem"
# A base with compilers keeps its own; without any, only what needs none can be built, and uv says which does.
_COMPILERS = (
    "command -v cc >/dev/null && command -v c++ >/dev/null || ! command -v apt-get >/dev/null"
    " || { apt-get -q update && apt-get -q install -y --no-install-recommends gcc g++ make libc6-dev python3-dev; }"
    " || echo 'No compilers could be installed: only packages without native code can be built.'"
)
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@dataclass(frozen=True)
class IndexPlan:
    """Where packages come from inside the container. Without a ``url`` it is uv's usual index, unless there is ``no_index``.

    ``folders`` of this machine are copied in; ``network`` is whether any is needed; ``certificates`` is a file of this machine.
    """

    url: str | None
    no_index: bool
    more: tuple[str, ...]
    links: tuple[str, ...]
    folders: tuple[str, ...]
    network: bool
    certificates: str | None
    proxies: Mapping[str, str]


@dataclass(frozen=True)
class ContextFile:
    """A small file of the context."""

    path: str
    content: bytes


def plan_index(environment: Mapping[str, str]) -> IndexPlan:
    """uv's settings for this machine, as they hold inside a container."""
    url = _addresses(environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL") or "")
    more = [*_addresses(environment.get("UV_INDEX", "")), *_addresses(environment.get("UV_EXTRA_INDEX_URL", ""))]
    given = [link.strip() for link in environment.get("UV_FIND_LINKS", "").split(",") if link.strip()]
    links = [link for link in given if "://" in link and not link.startswith("file:")]
    closed = bool(environment.get("UV_NO_INDEX") or environment.get("UV_OFFLINE"))
    # An index in a folder cannot be asked from inside; what it has must be offered by UV_FIND_LINKS too.
    closed = closed or bool(url and not _is_remote(url[0]))
    more = [] if closed else [address for address in more if _is_remote(address)]
    by_name = {name.upper(): value for name, value in environment.items()}
    return IndexPlan(
        url=url[0] if url and not closed else None,
        no_index=closed,
        more=tuple(more),
        links=() if closed else tuple(links),
        folders=tuple(link.removeprefix("file://") for link in given if link not in links),
        network=not closed,
        certificates=environment.get("SSL_CERT_FILE"),
        proxies={name: by_name[name] for name in _PROXIES if name in by_name} if not closed else {},
    )


def plan_context(requirements: Sequence[str], index: IndexPlan, token: str) -> list[ContextFile]:
    """What stands in the context beside uv itself (`uv`), the files of ``index.folders`` (`links/`) and `certificates.pem`."""
    return [
        ContextFile("Dockerfile", _dockerfile(index, token).encode()),
        ContextFile("requirements.txt", "".join(f"{line}\n" for line in requirements).encode()),
        ContextFile("uv.toml", _uv_settings(index).encode()),
    ]


def _dockerfile(index: IndexPlan, token: str) -> str:
    install = [
        *(f"{_PLACE}/uv", "pip", "install", "--config-file", f"{_PLACE}/uv.toml", "--python", "python3"),
        *("--target", MADE_FOLDER, "--no-deps", "--no-compile", "--no-progress", "--color", "never"),
        *("-r", f"{_PLACE}/requirements.txt"),
    ]
    lines = [
        "ARG BASE",
        "FROM ${BASE}",
        f"LABEL {LABEL}={token}",
        "USER 0",
        "ENV UV_CACHE_DIR=/tmp/hedgerow-uv UV_PYTHON_DOWNLOADS=never PYTHONDONTWRITEBYTECODE=1 SOURCE_DATE_EPOCH=315532800",
        *([f"RUN {_COMPILERS}"] if index.network else []),
        f"COPY . {_PLACE}",
        *([f"ENV SSL_CERT_FILE={_PLACE}/{_CERTIFICATES}"] if index.certificates else []),
        f"RUN {json.dumps(install)}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _uv_settings(index: IndexPlan) -> str:
    links = [*index.links, *([f"{_PLACE}/links"] if index.folders else [])]
    settings: dict[str, object] = {"link-mode": "copy", "find-links": links}
    if index.no_index:
        settings["no-index"] = True
    if index.url:
        settings["index-url"] = index.url
    if index.more:
        settings["extra-index-url"] = list(index.more)
    # JSON's strings, lists and booleans are TOML too.
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())


def _is_remote(address: str) -> bool:
    return address.startswith(("http://", "https://"))


def _addresses(setting: str) -> list[str]:
    """`NAME=https://…` and plain addresses, as uv takes them."""
    words = setting.split()
    return [word.partition("=")[2] if "=" in word.partition("://")[0] else word for word in words]
