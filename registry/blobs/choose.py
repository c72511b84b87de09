"""From settings to a store: the workspace's own folder, another folder, or an object store by URL."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from hedgerow.errors import InvalidSetting, MissingExtra
from registry.blobs.folder import FolderStore
from registry.blobs.port import BlobStore

_SOURCE = "--blobs or the environment variable HEDGEROW_BLOBS"
_LOCAL = ("file", "local")
# What these keep is gone with the process, or is somebody's cache of something else.
_REFUSED = ("memory", "http", "https", "data", "simplecache", "filecache", "blockcache", "cached")
_S3 = ("s3", "s3a")
# With two attempts of each of the two libraries: an endpoint that cannot be reached is told of within 20 s, one that takes
# requests and never answers within about a minute.
_S3_CONFIG = {"connect_timeout": 4, "read_timeout": 15, "retries": {"total_max_attempts": 2, "mode": "standard"}}
_S3_RETRIES = 2


def open_store(folder: Path, url: str | None = None, endpoint: str | None = None) -> BlobStore:
    """The store at ``url``, or ``folder`` (the workspace's ``blobs``) itself when it is None; opens nothing yet.

    With an object store ``folder`` holds uploads under way. ``endpoint`` is the address of an S3 server that is not Amazon's;
    credentials come from where every S3 program looks (``AWS_ACCESS_KEY_ID``, profiles, the machine's role).
    Raises InvalidSetting, MissingExtra.
    """
    if url is None:
        return FolderStore(folder)
    parts = urlsplit(url)
    if parts.scheme in _LOCAL:
        path = Path(unquote(parts.path))
        if parts.netloc or not path.is_absolute():
            raise _refused(url, "it is no absolute path; write file:///absolute/path")
        return FolderStore(path)
    if not parts.scheme or "::" in url:
        raise _refused(url, "it is not a URL; write s3://bucket/prefix or file:///absolute/path")
    if parts.scheme in _REFUSED:
        raise _refused(url, f"{parts.scheme} keeps nothing for good")
    if parts.username or parts.query:
        raise _refused("***", "credentials belong into the environment, not into the URL")
    return _object_store(folder, url, endpoint)


def _object_store(folder: Path, url: str, endpoint: str | None) -> BlobStore:
    import fsspec

    from registry.blobs.object_store import ObjectStore

    scheme, root = urlsplit(url).scheme, url.partition("://")[2]
    try:
        kind = fsspec.get_filesystem_class(scheme)
    except ValueError:
        raise _refused(url, f"there is no file system named {scheme}") from None
    except ImportError as problem:
        extra = "s3" if scheme in _S3 else scheme
        raise MissingExtra(what=f"{scheme}:// storage", module=problem.name or scheme, extra=extra) from None
    if not root.strip("/"):
        raise _refused(url, "it names no bucket")
    # Listings are never remembered: other processes write, too.
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if scheme in _S3:
        options |= {"client_kwargs": {"endpoint_url": endpoint} if endpoint else {}, "config_kwargs": _S3_CONFIG}
    elif endpoint:
        raise InvalidSetting(
            name="blobs_endpoint",
            value=endpoint,
            problem="only s3:// has one",
            source="--blobs-endpoint (HEDGEROW_BLOBS_ENDPOINT)",
        )

    def make() -> Any:  # noqa: ANN401 - fsspec has no types
        made = kind(**options)
        if scheme in _S3:
            # Its own attempts are multiplied with those of the library below it; there is no option for them.
            made.retries = _S3_RETRIES
        return made

    return ObjectStore(make, root, folder)


def _refused(url: str, problem: str) -> InvalidSetting:
    return InvalidSetting(name="blobs", value=url[:200], problem=problem, source=_SOURCE)
