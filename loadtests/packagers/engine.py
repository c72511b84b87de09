"""The engine that the peers need: a ``docker`` command that can use BuildKit, containers, and what a registry is sent.

Every command's output goes to a log; a command that fails ends as LeftOut with the last line that it said.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from loadtests.scoring.peers import LeftOut
from tests.waiting import wait_for

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_WAIT_S = 180.0


@dataclass(frozen=True)
class Scoring:
    """How to ask a container: its port inside, the path, the body, and where in the answer the predictions stand."""

    port: int
    path: str
    body: bytes
    answer: Callable[[Any], Any]


@dataclass(frozen=True)
class Pushed:
    """What a registry holds of an image: size in bytes by digest, configuration included."""

    blobs: Mapping[str, int]

    @property
    def size_bytes(self) -> int:
        return sum(self.blobs.values())

    def beyond(self, before: Pushed) -> int:
        """Bytes that must be sent when the image ``before`` is there."""
        return sum(size for digest, size in self.blobs.items() if digest not in before.blobs)


def has_build_kit(version: str, buildx_answers: Callable[[], bool]) -> bool:
    """Whether a ``docker`` command of this version builds with BuildKit: by itself up to 22, through buildx from 23 on."""
    major = version.partition(".")[0]
    return major.isdigit() and (int(major) < 23 or buildx_answers())


def find_docker(search: Iterable[str]) -> Path:
    """The first ``docker`` in these folders that has BuildKit. Raises LeftOut."""
    for folder in search:
        command = Path(folder, "docker")
        if os.access(command, os.X_OK) and has_build_kit(_client_version(command), partial(_buildx_answers, command)):
            return command
    raise LeftOut("no docker command with BuildKit: from version 23 on it needs the plugin buildx")


def _client_version(command: Path) -> str:
    done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.removeprefix("Docker version ")


def _buildx_answers(command: Path) -> bool:
    return subprocess.run([command, "buildx", "version"], capture_output=True, timeout=30, check=False).returncode == 0


@dataclass(frozen=True)
class Docker:
    """One engine, for us and for the peers (``variables``: what their processes need to find it, and the same command)."""

    folder: Path
    variables: Mapping[str, str]

    @classmethod
    def at(cls, host: str, folder: Path) -> Docker:
        """Raises LeftOut without a command that can build."""
        own = folder / "bin"
        own.mkdir()
        search = os.environ.get("PATH", os.defpath)
        (own / "docker").symlink_to(find_docker(search.split(os.pathsep)))
        (folder / "docker-config").mkdir()
        config = str(folder / "docker-config")
        path = f"{own}{os.pathsep}{search}"
        return cls(folder, {"PATH": path, "DOCKER_HOST": host, "DOCKER_CONFIG": config, "DOCKER_BUILDKIT": "1"})

    def tell(self, *words: str) -> str:
        """A short command; what it says."""
        return run(["docker", *words], self.folder, self.variables)

    def load(self, archive: Iterator[bytes]) -> None:
        argv = [str(self.folder / "bin" / "docker"), "load", "--quiet"]
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=os.environ | dict(self.variables)
        ) as loading:
            assert loading.stdin is not None
            for chunk in archive:
                loading.stdin.write(chunk)
        if loading.returncode:
            raise LeftOut(f"docker load ended with {loading.returncode}")

    def forget(self, image: str) -> None:
        """Remove an image and every layer that a build left, but not what builds keep of packages (cache mounts)."""
        if self.tell("images", "--quiet", image):
            self.tell("rmi", "--force", image)
        # A tag that was given to a newer image leaves the older one, and all of its layers, without a name.
        self.tell("image", "prune", "--force")
        self.tell("builder", "prune", "--all", "--force", "--filter", "type=regular")

    def stored_bytes(self, image: str) -> int:
        return int(self.tell("image", "inspect", "--format", "{{.Size}}", image))

    def image_id(self, image: str) -> str:
        return self.tell("image", "inspect", "--format", "{{.Id}}", image)

    def push(self, image: str, registry: str) -> Pushed:
        """To a registry on loopback."""
        name, target = image.partition(":")[0], f"{registry}/{image}"
        self.tell("tag", image, target)
        self.tell("push", "--quiet", target)
        self.tell("rmi", target)
        asked = urllib.request.Request(
            f"http://{registry}/v2/{name}/manifests/{image.partition(':')[2]}", headers={"Accept": _MANIFEST}
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return blobs_of(json.load(answer))

    def first_score(self, image: str, scoring: Scoring, expected: Any) -> float:
        """Seconds from ``docker run`` to the first right answer. Raises LeftOut when none comes."""
        began = time.perf_counter()
        with self._running(image, scoring.port) as (container, port):
            try:
                given = wait_for(lambda: _ask(port, scoring), timeout_s=_WAIT_S, what=f"{image} to answer")
            except AssertionError as problem:
                raise LeftOut(f"{problem}: {self.tell('logs', '--tail', '20', container)[-500:]}") from None
            took = time.perf_counter() - began
        if scoring.answer(json.loads(given)) != expected:
            raise LeftOut(f"{image} gave another answer than scikit-learn here: {given[:200]!r}")
        return took

    @contextmanager
    def _running(self, image: str, port: int) -> Iterator[tuple[str, int]]:
        container = self.tell("run", "--detach", "--publish", f"127.0.0.1::{port}", image)
        try:
            yield container, int(self.tell("port", container, str(port)).rpartition(":")[2])
        finally:
            self.tell("rm", "--force", "--volumes", container)


def blobs_of(manifest: Mapping[str, Any]) -> Pushed:
    """Of an image manifest, Docker's or OCI's."""
    return Pushed({blob["digest"]: blob["size"] for blob in (manifest["config"], *manifest["layers"])})


def _ask(port: int, scoring: Scoring) -> bytes:
    """The answer, or nothing while there is none."""
    asking = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        asking.request("POST", scoring.path, scoring.body, {"Content-Type": "application/json"})
        answer = asking.getresponse()
        said = answer.read()
    except (OSError, http.client.HTTPException):
        return b""
    finally:
        asking.close()
    return said if answer.status == 200 else b""


def run(argv: Sequence[str | Path], folder: Path, variables: Mapping[str, str], *, cwd: Path | None = None) -> str:
    """What a command says. All of its output is added to ``folder/log``. Raises LeftOut when it fails."""
    environment = os.environ | dict(variables)
    program = shutil.which(argv[0], path=environment["PATH"]) or argv[0]
    with (folder / "log").open("a") as log:
        log.write(f"\n# {' '.join(map(str, argv))}\n")
        log.flush()
        done = subprocess.run(
            [program, *argv[1:]], stdout=subprocess.PIPE, stderr=log, text=True, cwd=cwd, env=environment, check=False
        )
        log.write(done.stdout)
    if done.returncode:
        words = " ".join(str(word) for word in argv[:3])
        said = [line for line in (folder / "log").read_text(errors="replace").splitlines() if line.strip()]
        raise LeftOut(f"{words} ended with {done.returncode}: {' | '.join(said[-3:])[-400:]}")
    return done.stdout.strip()
