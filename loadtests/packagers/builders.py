"""Those who build: mlflow and bentoml as their manuals say, and the packager without and with its test of the image.

All of them get the same model (a file) and the same base. A builder is given a model, which is not timed (it is what a registry's
``register`` is here), and then builds; every command is a process of its own, its start included.
"""

from __future__ import annotations

import json
import os
import shutil
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from hedgerow.contracts.build import BuildModel, BuildResult
from hedgerow.contracts.document import convert
from hedgerow.contracts.image import ModelRef
from loadtests.bench_blobs import seconds
from loadtests.bench_packager import Ran, Yard
from loadtests.packagers.engine import Docker, Pushed, Scoring, blobs_of, run
from loadtests.packagers.forest import FILE, REQUIREMENTS, Forest
from loadtests.scoring.peers import LeftOut, environment_of
from packager.oci.blobs import BlobFolder
from packager.oci.export import export_image
from packager.oci.layout import find_manifest
from tests.packager_builders import digest_of_folder, layout_manifest

# Versions as measured in docs/benchmarks.md.
MLFLOW = ("mlflow==3.17.2", "pip==26.3", *REQUIREMENTS)
BENTOML = ("bentoml==1.4.39", "uv==0.13.9", *REQUIREMENTS)
_SILENT = {"BENTOML_DO_NOT_TRACK": "True", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}

_SAVE_MLFLOW = f"""
    import sys
    import joblib
    import mlflow
    model = joblib.load(sys.argv[1])
    mlflow.sklearn.save_model(model, sys.argv[2], serialization_format="cloudpickle", pip_requirements={list(REQUIREMENTS)!r})
"""
_SAVE_BENTOML = f"""
    import shutil, sys
    import bentoml
    with bentoml.models.create("forest") as model:
        shutil.copy(sys.argv[1], model.path_of("{FILE}"))
"""
_SERVICE = f"""
    import bentoml
    import joblib
    import numpy as np

    @bentoml.service
    class Forest:
        stored = bentoml.models.BentoModel("forest:latest")

        def __init__(self):
            self.model = joblib.load(self.stored.path_of("{FILE}"))

        @bentoml.api
        def predict(self, data: list[list[float]]) -> list[int]:
            return self.model.predict(np.array(data)).tolist()
"""
_BENTOFILE = {"service": "service:Forest", "include": ["service.py"], "python": {"packages": list(REQUIREMENTS)}}
_SCORE = f"""
    import json, os
    import joblib
    import numpy as np

    def init():
        global model
        model = joblib.load(os.path.join(os.environ["AZUREML_MODEL_DIR"], "{FILE}"))

    def run(raw_data):
        return model.predict(np.array(json.loads(raw_data)["data"])).tolist()
"""


@dataclass(frozen=True)
class Built:
    """``took`` are seconds by column of the table; ``parts`` what they are made of. ``digest`` names all that was built."""

    took: Mapping[str, float]
    digest: str
    parts: Mapping[str, float] = field(default_factory=dict)


class Builder(Protocol):
    """``columns`` are the keys of Built.took. After ``forget`` nothing of an image is left, only what is kept of packages."""

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def image(self) -> str | None:
        """The name of what was built last, in the engine; None if it is not left there."""
        ...

    def give(self, model: Forest) -> None: ...

    def warm_up(self) -> None:
        """Fill what is kept of packages, by a build of the model given; not timed."""
        ...

    def build(self) -> Built: ...

    def forget(self) -> None: ...

    def scoring(self, model: Forest) -> Scoring: ...

    def push(self, registry: str) -> Pushed:
        """What a registry holds of the image that was built last."""
        ...


class Mlflow:
    """``mlflow models build-docker`` in its two halves, since only the second can be told which network builds have."""

    columns = ("mlflow",)
    image = "bench-mlflow:1"

    def __init__(self, docker: Docker, folder: Path) -> None:
        self._docker, self._folder = docker, folder
        self._bin = environment_of("mlflow", MLFLOW) / "bin"
        folder.mkdir()

    def give(self, model: Forest) -> None:
        shutil.rmtree(self._folder / "model", ignore_errors=True)
        save: list[str | Path] = [self._bin / "python", "-c", textwrap.dedent(_SAVE_MLFLOW), model.file, self._folder / "model"]
        run(save, self._folder, {**self._docker.variables, **_SILENT})

    def warm_up(self) -> None:
        """Nothing of its packages is kept from one image to the next; only its own start is made quicker."""
        self._generate(self._folder / "unused")

    def build(self) -> Built:
        context = self._folder / "context"
        shutil.rmtree(context, ignore_errors=True)
        made = seconds(lambda: self._generate(context))
        words = ["docker", "build", "-t", self.image, "-f", "Dockerfile", "--platform", "linux/amd64", "--network", "host", "."]
        built = seconds(lambda: run(words, self._folder, self._docker.variables, cwd=context))
        parts = {"generate-dockerfile": made, "docker build": built}
        return Built({"mlflow": made + built}, self._docker.image_id(self.image), parts)

    def _generate(self, context: Path) -> None:
        words: list[str | Path] = [
            self._bin / "mlflow",
            "models",
            "generate-dockerfile",
            "-m",
            self._folder / "model",
            "-d",
            context,
        ]
        run(words, self._folder, {**self._docker.variables, **_SILENT})

    def forget(self) -> None:
        self._docker.forget(self.image)

    def scoring(self, model: Forest) -> Scoring:
        return Scoring(8080, "/invocations", json.dumps({"inputs": model.rows}).encode(), lambda said: said["predictions"])

    def push(self, registry: str) -> Pushed:
        return self._docker.push(self.image, registry)


class Bentoml:
    """``bentoml build`` and ``bentoml containerize``: a bento holds its model, so both are needed when that has changed."""

    columns = ("bentoml",)
    image = "bench-bentoml:1"

    def __init__(self, docker: Docker, folder: Path) -> None:
        self._docker, self._folder = docker, folder
        self._bin = environment_of("bentoml", BENTOML) / "bin"
        path = f"{self._bin}{os.pathsep}{docker.variables['PATH']}"
        self._variables = {**docker.variables, **_SILENT, "PATH": path, "BENTOML_HOME": str(folder / "home")}
        source = folder / "source"
        source.mkdir(parents=True)
        (source / "service.py").write_text(textwrap.dedent(_SERVICE))
        (source / "bentofile.yaml").write_text(json.dumps(_BENTOFILE))

    def give(self, model: Forest) -> None:
        run([self._bin / "python", "-c", textwrap.dedent(_SAVE_BENTOML), model.file], self._folder, self._variables)

    def warm_up(self) -> None:
        """uv's cache is a mount that the engine keeps."""
        self.build()

    def build(self) -> Built:
        made = seconds(lambda: self._bentoml("build"))
        built = seconds(lambda: self._bentoml("containerize", "forest:latest", "-t", self.image, "--opt", "network=host"))
        parts = {"bentoml build": made, "containerize": built}
        return Built({"bentoml": made + built}, self._docker.image_id(self.image), parts)

    def _bentoml(self, *words: str) -> None:
        run([self._bin / "bentoml", *words], self._folder, self._variables, cwd=self._folder / "source")

    def forget(self) -> None:
        self._docker.forget(self.image)

    def scoring(self, model: Forest) -> Scoring:
        return Scoring(3000, "/predict", json.dumps({"data": model.rows}).encode(), lambda said: said)

    def push(self, registry: str) -> Pushed:
        return self._docker.push(self.image, registry)


class Hedgerow:
    """The packager as the controller runs it, and without its test also the loading of what it wrote into the engine."""

    image: str | None

    def __init__(self, docker: Docker, yard: Yard, *, tested: bool) -> None:
        self._docker, self._yard, self._tested = docker, yard, tested
        self._cache = yard.folder / ("cache-tested" if tested else "cache")
        self._name = f"image{'-tested' if tested else ''}"
        self._source = yard.folder / "source"
        self._source.mkdir(parents=True, exist_ok=True)
        (self._source / "score.py").write_text(textwrap.dedent(_SCORE))
        self.columns = ("hedgerow, tested",) if tested else ("hedgerow", "hedgerow, loaded")
        self.image = None if tested else "bench-hedgerow:1"

    def give(self, model: Forest) -> None:
        sample = self._yard.folder / f"sample-{model.number}.json"
        sample.write_text(json.dumps({"data": model.rows}))
        ref = ModelRef(name="forest", version=model.number + 1, digest=digest_of_folder(model.file.parent))
        self._model = BuildModel(ref=ref, folder=str(model.file.parent), sample_input=str(sample))

    def warm_up(self) -> None:
        self._run(self._yard.warm, verify=False)

    def build(self) -> Built:
        ran = self._run(self._cache, verify=self._tested)
        result = convert(ran.result, BuildResult)
        if self._tested:
            if result.verification.state != "passed" or result.verification.how != "container":
                raise LeftOut(f"the image was not tested in a container: {result.verification.reason}")
            # An equal build that is known brings its test along: no container was started.
            ready = {} if result.reused else {"start of its container": result.verification.started_in_s or 0.0}
            return Built({"hedgerow, tested": ran.seconds}, result.digest, ready)
        loaded = seconds(self._load)
        took = {"hedgerow": ran.seconds, "hedgerow, loaded": ran.seconds + loaded}
        return Built(took, result.digest, {"build": ran.seconds, "docker load": loaded})

    def _run(self, cache: Path, *, verify: bool) -> Ran:
        script = {"script": "score.py", "source": str(self._source)}
        return self._yard.build(self._model, cache, out=self._name, verify=verify, **script)

    @property
    def _layout(self) -> Path:
        return self._yard.folder / self._name / "image"

    def _load(self) -> None:
        self._docker.load(export_image(BlobFolder(self._layout), find_manifest(self._layout, None), self.image))

    def forget(self) -> None:
        shutil.rmtree(self._cache, ignore_errors=True)
        self._yard.fresh_cache(locks=False).rename(self._cache)
        if self.image:
            self._docker.forget(self.image)

    def scoring(self, model: Forest) -> Scoring:
        return Scoring(5001, "/score", json.dumps({"data": model.rows}).encode(), lambda said: said)

    def push(self, registry: str) -> Pushed:
        return blobs_of(layout_manifest(self._layout))
