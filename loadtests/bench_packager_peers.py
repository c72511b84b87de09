"""Images of one scikit-learn model, built in turn by the packager, by mlflow and by bentoml: how long, how large, how alike.

    python -m loadtests.bench_packager_peers [--rounds 2] [--only mlflow,bentoml] [--json FILE] [--folder DIR]

Runs an engine of its own (root, Debian's ``docker.io``), which goes at the end with everything in it: no other engine's images
are seen or touched. mlflow and bentoml get environments of their own, kept in the user's cache. The base is the one that tests
make, given pip and tagged as the public images that the peers ask for; builds in containers use this machine's network, with
the certificates, index and proxies of the environment (SSL_CERT_FILE, UV_DEFAULT_INDEX or PIP_INDEX_URL, HTTPS_PROXY). What a
round is: everything forgotten but the packages that each tool can keep; a first build; another model; nothing changed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from loadtests.bench_packager import Yard
from loadtests.packagers import figures
from loadtests.packagers.base_image import CallersNetwork, make_base, names
from loadtests.packagers.builders import BENTOML, MLFLOW, Bentoml, Builder, Built, Hedgerow, Mlflow
from loadtests.packagers.engine import Docker, Pushed, blobs_of
from loadtests.packagers.figures import Column
from loadtests.packagers.forest import REQUIREMENTS, Forest, grow
from loadtests.scoring.peers import LeftOut
from tests.fixtures.docker_engine import own_engine
from tests.fixtures.oci_registry import running_registry
from tests.packager_builders import layout_manifest

# mlflow builds for no other.
_PLATFORM = "linux/amd64"
BUILDERS = ("hedgerow", "tested", "mlflow", "bentoml")
Columns = dict[str, Column]


@dataclass(frozen=True)
class Site:
    """One run: the engine, where files may go, and the models; the first one is what every round begins with."""

    docker: Docker
    folder: Path
    models: Sequence[Forest]
    registry: str


def make_builders(site: Site, base: str, wanted: Sequence[str]) -> dict[str, Builder]:
    """Those of ``wanted`` that can be had here."""
    yard = Yard(site.folder / "yard", {_PLATFORM: base}, 0, list(REQUIREMENTS))
    yard.folder.mkdir()
    makers: dict[str, Callable[[], Builder]] = {
        "hedgerow": lambda: Hedgerow(site.docker, yard, tested=False),
        "tested": lambda: Hedgerow(site.docker, yard, tested=True),
        "mlflow": lambda: Mlflow(site.docker, site.folder / "mlflow"),
        "bentoml": lambda: Bentoml(site.docker, site.folder / "bentoml"),
    }
    found = {}
    for name in wanted:
        with leaving_out(name):
            found[name] = makers[name]()
    return found


@contextmanager
def leaving_out(name: str) -> Iterator[None]:
    """What cannot be had here is named with its reason, and the rest goes on."""
    try:
        yield
    except LeftOut as reason:
        print(f"left out: {name}: {reason}", flush=True)


def hold_round(site: Site, builder: Builder, columns: Columns, number: int, *, weigh: bool) -> None:
    """One round of one builder; with ``weigh`` sizes are taken too."""
    builder.give(site.models[0])
    builder.forget()
    first = builder.build()
    note(columns, "first", first)
    main = columns[builder.columns[0]]
    main.digests.append(first.digest)
    if builder.image:
        main.started.append(site.docker.first_score(builder.image, builder.scoring(site.models[0]), site.models[0].answer))
    before = weighed(site, builder, main) if weigh and builder.image else None
    builder.give(site.models[number])
    changed = builder.build()
    note(columns, "model", changed)
    if before:
        main.again_bytes = builder.push(site.registry).beyond(before)
    same = builder.build()
    note(columns, "same", same)
    main.unchanged.append(same.digest == changed.digest)
    builder.forget()


def weighed(site: Site, builder: Builder, main: Column) -> Pushed:
    """Sizes of what was built last, into ``main``."""
    pushed = builder.push(site.registry)
    main.packed_bytes = pushed.size_bytes
    main.stored_bytes = site.docker.stored_bytes(builder.image) if builder.image else None
    return pushed


def note(columns: Columns, phase: str, built: Built) -> None:
    for name, took in built.took.items():
        columns[name].add(phase, took)
    columns[next(iter(built.took))].add_parts(phase, built.parts)
    print(f"  {phase}: {', '.join(f'{name} {took:.2f} s' for name, took in built.took.items())}", flush=True)


def compare(site: Site, builders: dict[str, Builder], rounds: int) -> list[Column]:
    """Builders in turn, round after round; who fails has no further round."""
    columns = {name: Column(name) for builder in builders.values() for name in builder.columns}
    going = dict(builders)
    for number in range(rounds + 1):
        for name in list(going):
            builder = going.pop(name)
            with leaving_out(name):
                if number == 0:
                    print(f"{name}, not timed", flush=True)
                    builder.give(site.models[0])
                    builder.warm_up()
                else:
                    print(f"{name}, round {number} of {rounds}", flush=True)
                    hold_round(site, builder, columns, number, weigh=number == rounds)
                going[name] = builder
    return [column for column in columns.values() if column.took]


def words_about(docker: Docker, base: str) -> str:
    packed = blobs_of(layout_manifest(Path(base.removeprefix("oci:")))).size_bytes
    stored = docker.stored_bytes(names(platform.python_version())[0])
    return f"base {packed / 1e6:.1f} MB compressed, {stored / 1e6:.0f} MB as the engine keeps it"


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default=",".join(BUILDERS), help="of %(default)s, comma separated")
    parser.add_argument("--json", type=Path, help="every round's figures")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder if absent")
    options = parser.parse_args()
    options.only = options.only.split(",")
    if unknown := set(options.only) - set(BUILDERS):
        parser.error(f"--only knows {', '.join(BUILDERS)}, not {', '.join(sorted(unknown))}")
    return options


def main() -> None:
    options = read_options()
    if platform.machine() != "x86_64":
        raise SystemExit("mlflow builds for linux/amd64 only, so the comparison needs such a machine")
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {datetime.now(UTC):%Y-%m-%d}, {options.rounds} rounds")
    print(f"peers: {MLFLOW[0]}, {BENTOML[0]}; all of them with {', '.join(REQUIREMENTS)}", flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.folder)))
        # A test of an image as a process is made by a user of its own, who must be able to come here.
        folder.chmod(0o755)
        docker = Docker.at(stack.enter_context(own_engine()), folder)
        os.environ["DOCKER_HOST"] = docker.variables["DOCKER_HOST"]
        # A peer's own start would take many times as long in every round: their environments are made without bytecode.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        base = make_base(docker, folder, CallersNetwork.of(os.environ))
        models = [grow(folder, number) for number in range(options.rounds + 1)]
        print(f"model {models[0].file.stat().st_size / 1e6:.1f} MB; {words_about(docker, base)}", flush=True)
        site = Site(docker, folder, models, stack.enter_context(running_registry(folder)).address)
        columns = compare(site, make_builders(site, base, options.only), options.rounds)
    print(f"\n{figures.table(columns)}\n\n{figures.parts_of(columns)}")
    if options.json:
        options.json.write_text(json.dumps(figures.plain(columns), indent=1))


if __name__ == "__main__":
    main()
