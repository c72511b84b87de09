"""How an image is run without a container engine: its own entry point, word for word but for where things stand. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from packager.errors import VerificationFailed
from packager.settings import IMAGE_ROOT, SITE_FOLDER

# What an image's environment says about code and libraries. PATH and HOME are this machine's own, the rest belongs to a base
# that is not here.
_OF_THE_IMAGE = ("LANG", "LC_ALL", "TZ", "ORT_DISABLE_TELEMETRY", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH")
_LOCAL = {"--host": "127.0.0.1", "--port": "0"}
# What a script did wrong is read from the log.
READABLE_LOG = {"HEDGEROW_LOG_FORMAT": "text"}
_OWN_FOLDERS = (f"/{IMAGE_ROOT}", f"/{SITE_FOLDER}")


@dataclass(frozen=True)
class Command:
    """What to run; ``environment`` is all that it gets to see besides PATH and HOME."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]


def local_command(config: Mapping[str, Any], root: Path, python: Path, ready_file: Path) -> Command:
    """The entry point of a docker image whose own layers were unpacked below ``root``. ``config`` is the `config` of its config.

    `-S`: without the site-packages of the Python that happens to be here, so that a library that the image lacks is missing
    here too. It listens on a loopback port that the kernel picks, so nobody can take that first, and writes it into
    ``ready_file``. Raises VerificationFailed when the entry point is none of ours.
    """
    words = [str(word) for word in config.get("Entrypoint") or []]
    if words[:1] != ["python3"]:
        raise VerificationFailed(problem=f"its entry point {words} cannot be run without a container engine")
    argv = [str(python), "-S"]
    for before, word in pairwise(words):
        argv.append(_LOCAL.get(before, _here(word, root)))
    given = dict(line.partition("=")[::2] for line in config.get("Env") or [])
    environment = {name: value for name, value in given.items() if name in _OF_THE_IMAGE}
    if "PYTHONPATH" in environment:
        folders = environment["PYTHONPATH"].split(":")
        environment["PYTHONPATH"] = ":".join(_here(folder, root) for folder in folders if folder.startswith(_OWN_FOLDERS))
    return Command((*argv, "--ready-file", str(ready_file)), {**environment, **READABLE_LOG})


def installed_command(image: Path, python: Path, environment: Mapping[str, str], ready_file: Path) -> Command:
    """How the runtime that is installed here serves an artifact that brings no runtime of its own."""
    local = [word for pair in _LOCAL.items() for word in pair]
    argv = (str(python), "-P", "-m", "runtime", "--image", str(image), *local, "--ready-file", str(ready_file))
    return Command(argv, {**environment, **READABLE_LOG, "PYTHONDONTWRITEBYTECODE": "1"})


def proof_command(server: Command, image: Path) -> Command:
    """`runtime.prove` with the Python, the libraries and the environment of ``server``."""
    flags = server.argv[1 : server.argv.index("-m")]
    return Command((server.argv[0], *flags, "-m", "runtime.prove", "--image", str(image)), server.environment)


def _here(word: str, root: Path) -> str:
    return str(root / word.removeprefix("/")) if word.startswith(_OWN_FOLDERS) else word
