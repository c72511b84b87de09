"""MLflow model folders: what real ones say (tests/fixtures/mlflow holds what MLflow 3.17 and 1.30 wrote), and broken ones."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from hedgerow.contracts.model import AskedEnvironment, FileEntry, TensorSpec
from registry.blobs import BlobStore, FolderStore
from registry.blobs.errors import BlobMissing
from registry.errors import MlmodelInvalid
from registry.mlmodel import MlmodelReading, read_mlmodel
from tests.registry_stores import digest_of_text

REAL = Path(__file__).parent.parent / "fixtures" / "mlflow"
NAMES = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
COLUMNS = [TensorSpec(name=name, datatype="FP64", shape=[-1]) for name in NAMES]
LABELS = [TensorSpec(name="output_0", datatype="INT64", shape=[-1])]


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return FolderStore(tmp_path / "blobs")


def store(blobs: BlobStore, path: str, content: bytes) -> FileEntry:
    digest, size = blobs.put(io.BytesIO(content))
    return FileEntry(path=path, digest=digest, size_bytes=size)


def read(blobs: BlobStore, **files: str | bytes) -> MlmodelReading | None:
    """Read a folder of these files; ``__`` in a name stands for a dot."""
    entries = [
        store(blobs, name.replace("__", "."), text.encode() if isinstance(text, str) else text) for name, text in files.items()
    ]
    return read_mlmodel(entries, blobs)


def real(blobs: BlobStore, name: str) -> MlmodelReading:
    folder = REAL / name
    found = read_mlmodel([store(blobs, path.name, path.read_bytes()) for path in sorted(folder.iterdir())], blobs)
    assert found is not None
    return found


def test_sklearn(blobs: BlobStore) -> None:
    found = real(blobs, "sklearn")
    assert (found.framework, found.framework_version) == ("sklearn", "1.9.1")
    assert (found.inputs, found.outputs) == (COLUMNS, LABELS)
    assert found.environment == AskedEnvironment(
        python_version="3.11.7",
        requirements=["mlflow==3.17.2", "pandas==3.1.1", "scikit-learn==1.9.1", "skops==0.16.0"],
        channels=["conda-forge"],
    )
    assert found.mlflow.mlflow_version == "3.17.2"
    assert found.mlflow.model_uuid == "ed59f5fbbc674dcd84a667ecd7083e42"
    assert found.mlflow.run_id is None
    assert found.mlflow.flavors == {
        "python_function": {
            "env.conda": "conda.yaml",
            "env.virtualenv": "python_env.yaml",
            "loader_module": "mlflow.sklearn",
            "model_path": "model.skops",
            "predict_fn": "predict",
            "python_version": "3.11.7",
        },
        "sklearn": {"pickled_model": "model.skops", "serialization_format": "skops", "sklearn_version": "1.9.1"},
    }
    assert found.mlflow.not_read == []


def test_onnx_with_a_tensor_signature(blobs: BlobStore) -> None:
    found = real(blobs, "onnx")
    assert (found.framework, found.framework_version) == ("onnx", "1.23.2")
    assert found.inputs == [TensorSpec(name="input_0", datatype="FP32", shape=[-1, 4])]
    assert found.outputs == [
        TensorSpec(name="label", datatype="INT64", shape=[-1]),
        TensorSpec(name="probabilities", datatype="FP32", shape=[-1, 3]),
    ]
    assert found.mlflow.flavors["onnx"]["providers"] == "CUDAExecutionProvider, CPUExecutionProvider"


def test_xgboost(blobs: BlobStore) -> None:
    found = real(blobs, "xgboost")
    assert (found.framework, found.framework_version, found.inputs) == ("xgboost", "3.2.0", COLUMNS)


def test_python_code_with_every_type_of_column(blobs: BlobStore) -> None:
    found = real(blobs, "pyfunc")
    assert (found.framework, found.framework_version) == ("mlflow", "3.17.2")
    assert [(spec.name, spec.datatype, spec.shape) for spec in found.inputs] == [
        ("flag", "BOOL", [-1]),
        ("count", "INT32", [-1]),
        ("big", "INT64", [-1]),
        ("f", "FP32", [-1]),
        ("d", "FP64", [-1]),
        ("text", "BYTES", [-1]),
        ("raw", "BYTES", [-1]),
        ("vector", "FP64", [-1, -1]),
    ]
    assert found.outputs == [TensorSpec(name="output_0", datatype="BYTES", shape=[-1])]
    assert found.environment == AskedEnvironment(
        python_version="3.10.14",
        requirements=["mlflow==3.17.2", "cloudpickle==3.0.0"],
        conda_packages=["numpy=1.26"],
        channels=["conda-forge"],
    )
    assert [note.split(" is left out")[0] for note in found.mlflow.not_read] == [
        "The input 'when'",
        "The input 'thing'",
        "The input 'counts'",
        "The input 'anything'",
    ]


def test_without_a_signature(blobs: BlobStore) -> None:
    found = real(blobs, "no_signature")
    assert (found.framework, found.inputs, found.outputs) == ("sklearn", [], [])


def test_a_folder_of_mlflow_1(blobs: BlobStore) -> None:
    found = real(blobs, "mlflow_1")
    assert (found.framework, found.framework_version) == ("sklearn", "1.2.2")
    assert (found.inputs, found.outputs) == (COLUMNS, LABELS)
    assert found.environment == AskedEnvironment(
        python_version="3.11.7", requirements=["mlflow", "cloudpickle==2.2.1", "scikit-learn==1.2.2"], channels=["conda-forge"]
    )


def test_another_folder_is_none_of_mlflows(blobs: BlobStore) -> None:
    assert read(blobs, model__onnx=b"weights") is None
    below = store(blobs, "inner/MLmodel", b"flavors: broken")
    assert read_mlmodel([below], blobs) is None, "only what stands at the top counts"


MINIMAL = "flavors:\n  python_function:\n    loader_module: mine\n"


def with_signature(**sides: object) -> str:
    # A JSON string is a YAML string.
    return MINIMAL + "signature:\n" + "".join(f"  {side}: {json.dumps(text)}\n" for side, text in sides.items())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no list of names and values"),
        ("- a\n", "no list of names and values"),
        ("\t", "line 1"),
        ("a: &x 1\n", "anchors"),
        ("flavors: !!python/object:os.system {}\n", "tag"),
        ("artifact_path: x\n", "names no flavors"),
        ("flavors: {}\n", "names no flavors"),
        ("flavors: onnx\n", "names no flavors"),
        ("flavors:\n  onnx: yes\n", "line 2: the flavor onnx has no facts"),
        ("flavors:\n  'a b': {}\n", "no flavor"),
        (f"flavors:\n  {'n' * 10_000}: {{}}\n", "line 2"),
        ("flavors:\n" + "".join(f"  f{number}: {{}}\n" for number in range(51)), "more than 50 flavors"),
        ("flavors: {a: {}}\nflavors: {b: {}}\n", "given twice"),
        (MINIMAL + "signature: [1]\n", "line 4: its signature"),
        (with_signature(inputs="{"), "line 5: the signature's inputs: it is no JSON text"),
        (with_signature(inputs="{}"), "no list"),
        (with_signature(outputs="[1]"), "outputs: an entry has no type"),
        (with_signature(inputs='[{"name": "x"}]'), "no type"),
        (with_signature(inputs='[{"type": "double", "name": ["x"]}]'), "name is no text"),
        (with_signature(inputs='[{"type": "tensor"}]'), "no tensor-spec"),
        (with_signature(inputs='[{"type": "tensor", "tensor-spec": {"dtype": "int8"}}]'), "no dtype, or no shape"),
        (with_signature(inputs='[{"type": "tensor", "tensor-spec": {"dtype": "int8", "shape": [-2]}}]'), "list of sizes"),
        (with_signature(inputs='[{"type": "tensor", "tensor-spec": {"dtype": "int8", "shape": [true]}}]'), "list of sizes"),
        (with_signature(inputs="[" * 100_000), "no JSON text"),
        (with_signature(inputs=[1]), "no JSON text"),
        (b"\xff\xfe", "not UTF-8"),
        (b"a" * (1024 * 1024 + 1), "more than 1048576 bytes"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_broken_mlmodel_is_refused(blobs: BlobStore, text: str | bytes, words: str) -> None:
    with pytest.raises(MlmodelInvalid, match=words) as refused:
        read(blobs, MLmodel=text)
    assert len(refused.value.sentence()) < 600


def test_content_that_is_not_there(blobs: BlobStore) -> None:
    entry = FileEntry(path="MLmodel", digest=digest_of_text("absent"), size_bytes=6)
    with pytest.raises(BlobMissing, match="MLmodel"):
        read_mlmodel([entry], blobs)


def test_tensors_of_text_and_what_has_no_counterpart(blobs: BlobStore) -> None:
    dtypes = ["<U12", "object", "|S5", "complex64", "datetime64[ns]", "float16"]
    tensors = [
        {"type": "tensor", "name": f"t{number}", "tensor-spec": {"dtype": dtype, "shape": [2]}}
        for number, dtype in enumerate(dtypes)
    ]
    columns = [
        {"type": "array", "items": {"type": "array", "items": {"type": "long"}}, "name": "nested"},
        {"type": "array", "items": {"type": "object", "properties": {}}, "name": "objects"},
        {"type": "long", "name": "nested"},
        {"type": "sparkml-vector", "name": "v"},
        {"type": "string", "name": 0},
    ]
    found = read(blobs, MLmodel=with_signature(inputs=json.dumps(tensors), outputs=json.dumps(columns)))
    assert found is not None
    assert [(spec.name, spec.datatype) for spec in found.inputs] == [
        ("t0", "BYTES"),
        ("t1", "BYTES"),
        ("t2", "BYTES"),
        ("t5", "FP16"),
    ]
    assert [(spec.name, spec.datatype, spec.shape) for spec in found.outputs] == [
        ("nested", "INT64", [-1, -1, -1]),
        ("0", "BYTES", [-1]),
    ]
    assert len(found.mlflow.not_read) == 5
    assert "it is there twice" in found.mlflow.not_read[3]


def test_an_environment_that_cannot_be_read_is_left_out_and_said(blobs: BlobStore) -> None:
    odd = "dependencies:\n- python=3.10\n- pip:\n  - --extra-index-url https://example.org\n  - torch\n"
    found = read(blobs, MLmodel=MINIMAL, conda__yaml=odd)
    assert found is not None
    assert found.environment is None
    assert "Line 4 of conda.yaml" in found.mlflow.not_read[0]
    # requirements.txt and python_env.yaml say the same thing in other words.
    found = read(blobs, MLmodel=MINIMAL, conda__yaml=odd, requirements__txt="torch==2.1\n", python_env__yaml="python: 3.10\n")
    assert found is not None
    assert found.environment == AskedEnvironment(python_version="3.10", requirements=["torch==2.1"])
    found = read(blobs, MLmodel=MINIMAL, conda__yaml=b"\xff", requirements__txt="-e .\n", python_env__yaml="python: 2.7\n")
    assert found is not None
    assert found.environment is None
    assert len(found.mlflow.not_read) == 3


def test_facts_are_bounded_text(blobs: BlobStore) -> None:
    text = MINIMAL + f'  deep: {{a: {{b: {{c: {{d: {{e: f}}}}}}}}, long: {"x" * 10_000}, lines: "a\\nb", none: null}}\n'
    found = read(blobs, MLmodel=text + "run_id: abc\nmodel_uuid: ~\n")
    assert found is not None
    facts = found.mlflow.flavors["deep"]
    assert facts == {"long": "x" * 500, "lines": "a b"}
    assert (found.framework, found.framework_version) == ("deep", None)
    assert (found.mlflow.run_id, found.mlflow.model_uuid) == ("abc", None)
