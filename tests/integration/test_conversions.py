"""Conversions in the control plane, with the real converter: made once, registered with what was measured, seen in lineage."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
import sklearn
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from hedgerow.contracts.edge import EdgeDeployment, ModuleSpec
from hedgerow.contracts.model import DataRef, ModelManifest
from hedgerow.sdk.client import Client
from hedgerow.sdk.errors import ApiError
from tests.controller_process import Plane, add_model, ended, plane
from tests.fixtures.parts import search_path
from tests.staged_models import by_hand, pixels, write_stages
from tests.waiting import wait_for

DATA = DataRef(name="measurements", digest="sha256:" + "7" * 64)
_PROGRAM = "import sys; sys.argv[0] = 'hedgerow'; from hedgerow.cli.main import main; main()"
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with plane(tmp_path_factory.mktemp("conversions")) as started:
        yield started


@pytest.fixture
def client(made: Plane) -> Client:
    return made.client


@pytest.fixture(scope="module")
def iris(made: Plane, tmp_path_factory: pytest.TempPathFactory) -> ModelManifest:
    """A pickled classifier, registered with its sample input and data; converted by the first test that asks."""
    return register_iris(made.client, "iris", tmp_path_factory.mktemp("iris"))


@pytest.fixture(scope="module")
def converted(made: Plane, iris: ModelManifest) -> ModelManifest:
    activity = made.client.activities.wait(made.client.models.convert("iris:1", tags={"by": "test"}).id)
    assert activity.result["reused"] == "false"
    assert activity.result["model"] == "iris-onnx:1"
    manifest = made.client.models.get("iris-onnx:1")
    assert activity.result["digest"] == manifest.digest
    assert iris.name == "iris"
    return manifest


@pytest.fixture
def hedgerow(made: Plane, tmp_path: Path) -> Cli:
    def run(*arguments: str, **asked: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": search_path(), "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
        environment |= {"HEDGEROW_WORKSPACE": str(made.folder), **asked}
        argv = [sys.executable, "-c", _PROGRAM, *arguments]
        done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


def rows() -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = load_iris().data.astype(np.float32)
    return found


def classifier(strength: float = 1.0) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=500).fit(rows(), load_iris().target)


def register_iris(client: Client, name: str, folder: Path, strength: float = 1.0) -> ModelManifest:
    (folder / "model.pkl").write_bytes(pickle.dumps(classifier(strength)))
    np.save(folder / "sample.npy", rows()[:20])
    return client.models.register(
        name,
        folder / "model.pkl",
        framework="sklearn",
        framework_version=sklearn.__version__,
        sample_input=folder / "sample.npy",
        data={DATA.name: DATA.digest},
    )


def steps(client: Client, activity_id: str) -> list[str]:
    return [event.step for event in client.activities.follow(activity_id)]


def nothing_left(made: Plane) -> bool:
    return not [*(made.folder / "work").glob("conversions/*"), *(made.folder / "work").glob("builds/*")]


def test_the_conversion_answers_as_the_original(converted: ModelManifest, client: Client, tmp_path: Path) -> None:
    client.models.download("iris-onnx:1", tmp_path)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    label = session.run([session.get_outputs()[0].name], {session.get_inputs()[0].name: rows()})[0]
    np.testing.assert_array_equal(label.ravel(), classifier().predict(rows()))
    assert {"model.onnx", "parity.npz", "parity.json"} <= {entry.path for entry in converted.files}


def test_the_version_says_where_it_comes_from_and_what_was_measured(iris: ModelManifest, converted: ModelManifest) -> None:
    assert (converted.framework, converted.tags) == ("onnx", {"by": "test"})
    assert converted.inputs
    assert converted.outputs
    assert (converted.data, converted.sample_input) == ([DATA], iris.sample_input)
    said = converted.properties
    assert said["hedgerow.converted-from"] == "iris:1"
    assert said["hedgerow.quantized"] == "none"
    assert said["hedgerow.conversion-key"].startswith("sha256:")
    assert int(said["hedgerow.agreement.rows"]) >= 20
    assert float(said["hedgerow.agreement.max-abs-error"]) < 1e-4
    assert said["hedgerow.agreement.labels-changed"] == "0"
    assert "ai.onnx.ml" in said["hedgerow.opset"]
    assert "skl2onnx" in said["hedgerow.conversion-tools"]


def test_lineage_leads_from_the_conversion_to_its_source_and_data(converted: ModelManifest, client: Client) -> None:
    up = client.lineage.of(f"model:{converted.name}:1", "up")
    edges = {(edge.source, edge.target) for edge in up.edges}
    assert ("model:iris:1", "model:iris-onnx:1") in edges
    assert (f"data:{DATA.digest}", "model:iris-onnx:1") in edges
    down = client.lineage.of("model:iris:1", "down")
    assert "model:iris-onnx:1" in {node.id for node in down.nodes}


def test_the_same_again_is_answered_at_once(converted: ModelManifest, client: Client) -> None:
    again = client.models.convert("iris")
    assert "converting iris:1" not in steps(client, again.id), "the converter was not started"
    result = client.activities.get(again.id).result
    assert result == {"model": "iris-onnx:1", "digest": converted.digest, "reused": "true"}


def test_another_version_with_the_same_content_gets_the_same_conversion(
    converted: ModelManifest, client: Client, tmp_path: Path
) -> None:
    second = register_iris(client, "iris", tmp_path)
    assert second.version > 1
    result = client.activities.wait(client.models.convert(f"iris:{second.version}").id).result
    assert (result["model"], result["reused"]) == ("iris-onnx:1", "true")
    up = {node.id for node in client.lineage.of(f"model:{converted.name}:1", "up").nodes}
    assert {"model:iris:1", f"model:iris:{second.version}"} <= up


def test_a_source_is_kept_for_its_conversion(converted: ModelManifest, client: Client) -> None:
    with pytest.raises(ApiError, match="iris-onnx:1, which was converted from it"):
        client.models.delete("iris:1")
    assert client.models.get("iris:1").name in converted.properties["hedgerow.converted-from"]


def test_an_image_of_a_pickle_is_one_of_its_conversion(made: Plane, client: Client, tmp_path: Path) -> None:
    register_iris(client, "flowers", tmp_path, strength=0.5)
    build = client.images.build("flowers-image", ["flowers"])
    events = list(client.activities.follow(build.id))
    found = [event.step for event in events]
    assert found.index("converting flowers:1") < found.index("building")
    assert [event.progress for event in events] == sorted(event.progress for event in events)
    activity = client.activities.get(build.id)
    assert activity.problem is None
    image = client.images.get(activity.result["image"])
    assert [(one.name, one.version) for one in image.models] == [("flowers-onnx", 1)]
    assert image.verification is not None
    assert (image.verification.state, image.verification.rows > 0) == ("passed", True), "on the trained model's answers"
    up = {node.id for node in client.lineage.of("image:flowers-image:1", "up").nodes}
    assert {"model:flowers-onnx:1", "model:flowers:1"} <= up
    again = client.activities.wait(client.images.build("flowers-image", ["flowers"]).id)
    assert again.result["digest"] == image.digest
    assert [one.version for one in client.models.list("flowers-onnx").items] == [1]
    assert nothing_left(made)


def test_what_cannot_be_converted_says_so_and_leaves_nothing(made: Plane, client: Client, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(b"no pickle at all")
    client.models.register("broken", tmp_path / "model.pkl", framework="sklearn")
    activity = ended(client, client.models.convert("broken").id, timeout_s=60)
    assert activity.state == "failed"
    assert activity.problem is not None
    assert "model.pkl" in activity.problem.message
    assert activity.problem.remedy
    assert not client.models.list("broken-onnx").items
    assert client.activities.list(kind="model.convert", subject="broken").items[0].id == activity.id
    built = ended(client, client.images.build("broken", ["broken"]).id, timeout_s=60)
    assert built.problem is not None
    assert built.problem.code == activity.problem.code
    assert nothing_left(made)
    client.models.delete("broken:1")


def test_a_conversion_can_be_cancelled(made: Plane, client: Client, tmp_path: Path) -> None:
    register_iris(client, "cancelled", tmp_path, strength=0.7)
    activity = client.models.convert("cancelled")
    made.one_running("job-")
    client.activities.cancel(activity.id)
    assert ended(client, activity.id).state == "cancelled"
    assert not client.models.list("cancelled-onnx").items
    wait_for(lambda: nothing_left(made), what="its files to be gone")


@pytest.mark.parametrize(
    ("reference", "wanted", "code"),
    [
        ("none:1", {}, "not_found"),
        ("iris:1", {"name": "Not A Name"}, "invalid_document"),
        ("iris:1", {"quantize": "int4"}, "invalid_document"),
        ("iris:1", {"opset": 0}, "invalid_document"),
        ("iris:1", {"accuracy_loss_max": -1}, "invalid_document"),
        ("iris:1", {"unknown": 1}, "invalid_document"),
    ],
)
def test_wrong_requests_are_refused(
    iris: ModelManifest, made: Plane, client: Client, reference: str, wanted: dict[str, Any], code: str
) -> None:
    headers = {"authorization": f"Bearer {client.transport.token}"}
    where = f"{client.info().url}/api/v1/models/{reference}/convert"
    answered = httpx.post(where, json=wanted, headers=headers)
    assert answered.status_code in (400, 404), f"{iris.name}: {answered.text}"
    assert answered.json()["error"]["code"] == code
    assert made.folder.exists()


def test_the_name_that_is_made_must_be_in_the_scopes_too(client: Client, tmp_path: Path) -> None:
    # A model of its own: what is begun here goes on, and others count on being the first to convert theirs.
    scoped = register_iris(client, "scoped", tmp_path, strength=0.9)

    def asked(*scopes: str) -> int:
        token = client.tokens.create("scoped", "contributor", scopes=list(scopes)).secret
        headers = {"authorization": f"Bearer {token}"}
        base = f"{client.info().url}/api/v1"
        build = {"name": "scoped", "models": [scoped.name]}
        answers = [
            httpx.post(f"{base}/models/{scoped.name}/convert", json={}, headers=headers).status_code,
            httpx.post(f"{base}/images", json=build, headers=headers).status_code,
        ]
        assert answers[0] == answers[1]
        return answers[0]

    assert asked("models:scoped", "images:*") == 403
    assert asked("models:scoped*", "images:*") == 202


def test_the_command_line_shows_what_was_measured(iris: ModelManifest, converted: ModelManifest, hedgerow: Cli) -> None:
    done = hedgerow("model", "convert", f"{iris.name}:1")
    assert done.returncode == 0, done.stderr
    assert "iris:1 was converted before: iris-onnx:1" in done.stdout
    assert "against the original" in done.stdout
    assert "0 labels changed" in done.stdout
    done = hedgerow("model", "convert", "iris:1", "--name", "elsewhere", "--tag", "a=b", "--json")
    document = json.loads(done.stdout)
    assert (document["name"], document["tags"]) == ("elsewhere", {"a": "b"})
    assert document["digest"] == converted.digest
    done = hedgerow("model", "convert", "none:1")
    assert (done.returncode, "none:1" in done.stderr) == (1, True)
    assert hedgerow("model", "convert", "iris:1", "--quantize", "int4").returncode == 2


def test_an_fpga_image_from_the_command_line(hedgerow: Cli, client: Client, tmp_path: Path) -> None:
    folders = write_stages(tmp_path / "stages")
    for name, folder in (("scale", folders.pre), ("net", folders.accelerated), ("best", folders.post)):
        client.models.register(name, folder / "model.onnx", framework="onnx")
    stages = [option for stage in ("post=best", "accelerated=net", "pre=scale:1") for option in ("--stage", stage)]
    done = hedgerow("image", "build", "vision", "--kind", "fpga", *stages)
    assert done.returncode == 0, done.stderr
    assert "Built vision:1 (fpga" in done.stdout
    record = client.images.get("vision:1")
    assert {(one.name, one.version) for one in record.models} == {("scale", 1), ("net", 1), ("best", 1)}
    assert [one.name for one in client.images.list(kind="fpga").items] == ["vision"]
    client.activities.wait(client.services.deploy("eyes", "vision:1").id)
    images = pixels(2, seed=9)
    answered = httpx.post(str(client.services.get("eyes").scoring_url), json={"data": images.tolist()}, timeout=20)
    assert answered.status_code == 200, answered.text
    np.testing.assert_array_equal(answered.json()["label"], by_hand(folders, images)["label"])
    client.services.delete("eyes")
    module = ModuleSpec(image="vision")
    pinned = client.edge.deploy(EdgeDeployment(name="cameras", target="tags.site='north'", modules={"eyes": module}))
    assert pinned.modules["eyes"].image == "vision:1", "devices run it as a process, as they do those of kind onnx"
    with pytest.raises(ApiError, match="of kind fpga"):
        client.edge.deploy(EdgeDeployment(name="boxes", target="*", modules={"eyes": ModuleSpec(kind="docker", image="vision")}))


def test_a_net_that_was_quantised_here_is_an_accelerated_stage(client: Client, tmp_path: Path) -> None:
    folders = write_stages(tmp_path / "stages")
    np.save(tmp_path / "sample.npy", pixels(64, seed=1).transpose(0, 3, 1, 2).astype(np.float32) / 255)
    client.models.register("defects", folders.float_net / "model.onnx", framework="onnx", sample_input=tmp_path / "sample.npy")
    wish = client.models.convert("defects", name="defects-int8", quantize="static", accuracy_loss_max=0.2)
    made = client.models.get(client.activities.wait(wish.id).result["model"])
    assert made.properties["hedgerow.quantized"] == "static"
    assert int(made.properties["hedgerow.quantization.rows"]) > 0
    refused = ended(client, client.images.build("defects", kind="fpga", stages={"accelerated": "defects"}).id)
    assert refused.problem is not None
    assert refused.problem.code == "stage_not_quantized"
    built = client.activities.wait(client.images.build("defects", kind="fpga", stages={"accelerated": "defects-int8"}).id)
    verification = client.images.get(built.result["image"]).verification
    assert verification is not None
    assert (verification.state, verification.rows > 0) == ("passed", True), "a single stage brings its own vectors"
    assert "CPUExecutionProvider" in verification.reason


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("hedgerow image build x --stage ", ["pre=", "accelerated=", "post="]),
        ("hedgerow image build x --stage acc", ["accelerated="]),
        ("hedgerow image build x --stage pre=iri", ["pre=iris"]),
        ("hedgerow model convert iri", ["iris"]),
        ("hedgerow model convert iris --entry mod", ["model.pkl"]),
        ("hedgerow model convert iris --quantize st", ["static"]),
    ],
)
def test_what_the_shell_completes(iris: ModelManifest, hedgerow: Cli, line: str, offers: list[str]) -> None:
    asked = {"_HEDGEROW_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    done = hedgerow(**asked)
    assert done.stderr == "", iris.name
    offered = [text.partition(",")[2] for text in done.stdout.splitlines() if text]
    assert set(offers) <= set(offered)
    assert len(offered) == len(offers) or line.endswith("iri")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--kind", "fpga"), "--stage accelerated=REF"),
        (("--kind", "fpga", "--model", "iris"), "--stage accelerated=REF"),
        (("--kind", "fpga", "--stage", "middle=iris"), "There is no stage 'middle'"),
        (("--stage", "pre=iris"), "--stage goes with --kind fpga"),
        ((), "Give at least one --model REF"),
    ],
)
def test_stages_that_the_command_line_refuses(hedgerow: Cli, options: tuple[str, ...], says: str) -> None:
    done = hedgerow("image", "build", "x", *options)
    assert done.returncode == 2
    assert says in done.stderr


def test_stages_that_the_server_refuses(client: Client, tmp_path: Path) -> None:
    model = add_model(client, tmp_path / "m", name="stageless")
    with pytest.raises(ApiError, match="needs a stage for each of its models"):
        client.images.build("x", [model], kind="fpga")
    with pytest.raises(ApiError, match="only an image of kind fpga has stages"):
        client.images.build("x", stages={"pre": model})
