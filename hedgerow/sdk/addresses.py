"""Names in the path of a request: each is one segment of it, whatever it holds, so that none can lead to another noun."""

from __future__ import annotations

from urllib.parse import quote

from hedgerow.errors import InvalidReference

# What references are written with; everything else that is no letter or digit is percent-encoded.
_PLAIN = ":@"


def address(root: str, *names: str) -> str:
    """``root/name/…``. Raises InvalidReference for what can name nothing: empty, ``..``, with a slash, or no Unicode text."""
    return "/".join([root, *(_segment(name) for name in names)])


def file_address(root: str, path: str) -> str:
    """``root/path`` for the '/'-separated path of a file. Raises InvalidReference as above, for each part."""
    return address(root, *path.split("/"))


def _segment(name: str) -> str:
    try:
        if name not in ("", ".", "..") and "/" not in name:
            return quote(name, safe=_PLAIN)
    except UnicodeEncodeError:
        pass
    raise InvalidReference(value=name if len(name) <= 80 else name[:77] + "...")
