"""Facts and dangers of an ONNX file, read without loading it."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from hedgerow.errors import UserError
from runtime.models.errors import ModelUnsafe, ModelUnusable
from runtime.models.onnx_file import check_safe, read_facts


def tensor_elsewhere(location: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def model(*nodes: onnx.NodeProto, initializers: tuple[TensorProto, ...] = ()) -> onnx.ModelProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    graph = helper.make_graph(list(nodes), "g", [value], [value], list(initializers))
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)], ir_version=8
    )


def saved(folder: Path, document: onnx.ModelProto) -> Path:
    file = folder / "model.onnx"
    file.write_bytes(document.SerializeToString())
    return file


def test_versions_are_read_as_onnx_itself_reads_them(tmp_path: Path) -> None:
    facts = read_facts(saved(tmp_path, model(helper.make_node("Relu", ["x"], ["y"]))), "m")
    assert (facts.ir_version, facts.opsets) == (8, {"": 17, "ai.onnx.ml": 3})
    assert not facts.external
    assert not facts.compiled


@pytest.mark.parametrize(
    "content", [b"", b"not onnx at all", b"\x08\x08", b"\x08" * 40, b"\xff" * 40, b"\x0a\xff\xff\xff\xff\x0fabc"]
)
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    with pytest.raises(ModelUnusable, match=r"Model m cannot be loaded from .*model\.onnx: it is not an ONNX file"):
        read_facts(file, "m")


def test_every_cut_of_a_good_file_is_refused_or_read_but_never_crashes(tmp_path: Path) -> None:
    whole = model(helper.make_node("Relu", ["x"], ["y"]), initializers=(tensor_elsewhere("data.bin"),)).SerializeToString()
    file = tmp_path / "model.onnx"
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        try:
            read_facts(file, "m")
        except UserError:
            continue


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "a/../../secret.bin", "link"])
def test_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "secret.bin").write_bytes(b"x" * 8)
    (home / "link").symlink_to(tmp_path / "secret.bin")
    file = saved(home, model(helper.make_node("Relu", ["x"], ["y"]), initializers=(tensor_elsewhere(location),)))
    with pytest.raises(ModelUnsafe, match="outside its folder"):
        check_safe(read_facts(file, "m"), file, "m")


def test_data_beside_the_model_is_fine(tmp_path: Path) -> None:
    document = model(helper.make_node("Relu", ["x"], ["y"]), initializers=(tensor_elsewhere("weights/a.bin"),))
    file = saved(tmp_path, document)
    facts = read_facts(file, "m")
    check_safe(facts, file, "m")
    assert facts.external == {"weights/a.bin"}


def hidden_in_constant(location: str) -> onnx.ModelProto:
    return model(helper.make_node("Constant", [], ["c"], value=tensor_elsewhere(location)))


def hidden_in_branch(location: str) -> onnx.ModelProto:
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "b", [], [], [tensor_elsewhere(location)])
    return model(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))


def hidden_in_function(location: str) -> onnx.ModelProto:
    document = model(helper.make_node("F", ["x"], ["y"], domain="local"))
    node = helper.make_node("Constant", [], ["y"], value=tensor_elsewhere(location))
    document.functions.append(helper.make_function("local", "F", ["x"], ["y"], [node], [helper.make_opsetid("", 17)]))
    return document


def hidden_in_sparse(location: str) -> onnx.ModelProto:
    document = model(helper.make_node("Relu", ["x"], ["y"]))
    document.graph.sparse_initializer.add(values=tensor_elsewhere(location), dims=[2])
    return document


def hidden_in_training(location: str) -> onnx.ModelProto:
    document = model(helper.make_node("Relu", ["x"], ["y"]))
    document.training_info.add().algorithm.initializer.append(tensor_elsewhere(location))
    return document


@pytest.mark.parametrize("hide", [hidden_in_constant, hidden_in_branch, hidden_in_function, hidden_in_sparse, hidden_in_training])
def test_a_path_is_found_wherever_a_tensor_can_hide(tmp_path: Path, hide: object) -> None:
    file = saved(tmp_path, hide("../secret"))  # type: ignore[operator]  # one of the functions above
    assert read_facts(file, "m").external == {"../secret"}


def test_compiled_blobs_are_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, model(helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")))
    with pytest.raises(ModelUnsafe, match="EPContext"):
        check_safe(read_facts(file, "m"), file, "m")


def test_the_operators_of_the_graph_are_listed_with_their_domain(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    nodes.append(helper.make_node("Normalizer", ["b"], ["c"], domain="ai.onnx.ml"))
    nodes.append(helper.make_node("Gelu", ["c"], ["y"], domain="com.microsoft"))
    facts = read_facts(saved(tmp_path, model(*nodes)), "m")
    assert set(facts.operators or ()) == {"Relu", "Normalizer", "com.microsoft::Gelu"}


def test_functions_and_very_many_nodes_are_not_listed(tmp_path: Path) -> None:
    many = [helper.make_node("Relu", [f"v{number}"], [f"v{number + 1}"]) for number in range(501)]
    assert read_facts(saved(tmp_path, model(*many)), "m").operators is None
    document = model(helper.make_node("Own", ["x"], ["y"], domain="own"))
    body = [helper.make_node("Loop", ["a"], ["b"])]
    document.functions.append(helper.make_function("own", "Own", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
    assert read_facts(saved(tmp_path, document), "m").operators is None
