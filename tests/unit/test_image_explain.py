"""Why a layer was made anew: two build reports compared."""

from __future__ import annotations

from collections import Counter

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.contracts.build_report import BuildReport, LayerReport
from hedgerow.contracts.names import MEDIA_OCI_LAYER_ZSTD
from hedgerow.sdk.explain import Change, LayerExplained, explain, headline, match_layers
from tests.report_builders import (
    digest_of_words,
    file_of,
    layer_of,
    model_layer,
    platform_of,
    report_of,
    small_wheels,
    wheel_layer,
)

BASE = layer_of("base", salt="bookworm", size_bytes=30_000)


def layers(new: BuildReport, old: BuildReport | None) -> list[LayerExplained]:
    (platform,) = explain(new, old).platforms
    return platform.layers


def only(new: LayerReport, old: LayerReport) -> LayerExplained:
    (layer,) = layers(report_of(new), report_of(old))
    return layer


def test_only_the_model_changed() -> None:
    old = report_of(BASE, wheel_layer("numpy", "2.4.6"), model_layer("churn", 3, "old", 1_000), inputs={"model churn": "3 x"})
    new = report_of(BASE, wheel_layer("numpy", "2.4.6"), model_layer("churn", 4, "newer", 1_100), inputs={"model churn": "4 y"})
    found = explain(new, old)
    assert found.inputs == [Change(name="model churn", before="3 x", now="4 y")]
    assert (found.shared_bytes, found.fetch_bytes, found.identical) == (30_100, 1_100, False)
    (platform,) = found.platforms
    assert [layer.state for layer in platform.layers] == ["same", "same", "rebuilt"]
    assert [layer.number for layer in platform.layers] == [1, 2, 3]
    model = platform.layers[2]
    assert headline(model) == "model churn:3 → 4"
    assert [change.name for change in model.because] == ["model churn"]
    assert {file.path.rpartition("/")[2]: (file.state, file.size_bytes, file.size_before) for file in model.files} == {
        "model.onnx": ("changed", 5, 3),
        "labels.txt": ("moved", 5, None),
    }
    assert model.files[1].path_before == "opt/hedgerow/models/churn/3/labels.txt"


def test_a_wheels_new_version() -> None:
    layer = only(wheel_layer("numpy", "2.4.6"), wheel_layer("numpy", "2.4.5"))
    assert headline(layer) == "wheel numpy 2.4.5 → 2.4.6"
    assert layer.because == [Change(name="numpy", before="2.4.5", now="2.4.6")]
    assert [file.state for file in layer.files] == ["changed", "same", "changed"]
    assert layer.unpacked_bytes == sum(file.size_bytes for file in layer.files)


def test_the_small_wheels_say_which_of_them() -> None:
    layer = only(small_wheels({"click": "8.2", "flask": "3.1", "six": "1.17"}), small_wheels({"click": "8.1", "flask": "3.1"}))
    assert headline(layer) == "2 → 3 small wheels"
    assert layer.because == [Change(name="click", before="8.1", now="8.2"), Change(name="six", before=None, now="1.17")]


def test_origins_say_it_where_nothing_else_does() -> None:
    old, new = (msgspec.structs.replace(wheel_layer("numpy", version), made_of={}) for version in ("1", "2"))
    assert only(new, old).because == [Change(name="numpy", before="1", now="2")]


def test_packed_in_another_way() -> None:
    old = wheel_layer("numpy", "2")
    new = msgspec.structs.replace(old, digest=digest_of_words("zstd"), media_type=MEDIA_OCI_LAYER_ZSTD)
    layer = only(new, old)
    assert (layer.state, [change.name for change in layer.because]) == ("rebuilt", ["packing"])
    assert {file.state for file in layer.files} == {"same"}


def test_what_comes_and_goes() -> None:
    old = report_of(BASE, wheel_layer("scipy", "1.15", size_bytes=7), model_layer("a", 1, "x"))
    new = report_of(BASE, wheel_layer("torch", "2.6", size_bytes=9), model_layer("a", 1, "x"))
    found = layers(new, old)
    assert [(layer.purpose, layer.state) for layer in found[1:]] == [
        ("wheel torch 2.6", "new"),
        ("model a:1", "same"),
        ("wheel scipy 1.15", "dropped"),
    ]
    assert {file.state for file in found[-1].files} == {"removed"}
    assert explain(new, old).fetch_bytes == 9, "what is gone need not be fetched"


def test_two_models_are_not_taken_for_each_other() -> None:
    old = report_of(model_layer("a", 1, "a1"), model_layer("b", 1, "b1"))
    new = report_of(model_layer("b", 2, "b2"), model_layer("a", 1, "a1"))
    assert [headline(layer) for layer in layers(new, old)] == ["model b:1 → 2", "model a:1"]


def test_layers_of_a_base_belong_together_in_their_order() -> None:
    def base(*contents: str) -> BuildReport:
        named = [layer_of(f"base layer {number}") for number, _ in enumerate(contents, 1)]
        pairs = zip(named, contents, strict=True)
        return report_of(*(msgspec.structs.replace(layer, digest=digest_of_words(content)) for layer, content in pairs))

    found = layers(base("1", "two", "inserted", "3"), base("1", "2", "3"))
    assert [layer.state for layer in found] == ["same", "rebuilt", "new", "same"]
    assert [headline(layer) for layer in found] == [f"base layer {number}" for number in (1, 2, 3, 4)]
    assert found[3].was == "base layer 3"


def test_alone_everything_is_new_and_weighed() -> None:
    new = report_of(BASE, model_layer("a", 1, "x"))
    found = explain(new, None)
    assert (found.inputs, found.identical, found.shared_bytes, found.fetch_bytes) == ([], False, 0, 30_100)
    assert [(layer.state, layer.because, layer.unpacked_bytes) for layer in found.platforms[0].layers] == [
        ("new", [], None),
        ("new", [], 6),
    ]


def test_a_device_has_only_what_its_own_platform_had() -> None:
    shared = layer_of("hedgerow runtime", size_bytes=50)
    old = report_of(shared)
    new = report_of(shared, more=[platform_of("linux/arm64", shared)])
    amd64, arm64 = explain(new, old).platforms
    assert (amd64.fetch_bytes, amd64.shared_bytes) == (0, 50)
    assert (arm64.fetch_bytes, arm64.shared_bytes) == (50, 0)
    assert explain(new, old).fetch_bytes == 0, "whoever has the old image has all of it"


def test_a_layer_that_stands_twice_is_fetched_once() -> None:
    empty = layer_of("base", salt="empty", size_bytes=32)
    assert explain(report_of(empty, empty), None).platforms[0].fetch_bytes == 32


def test_the_same_files_packed_by_another_compressor() -> None:
    old, new = (layer_of("source", file_of("s/a.py", "1", "source"), salt=salt) for salt in ("level 5", "level 6"))
    (change,) = only(new, old).because
    assert (change.name, change.before, change.now) == ("packing", old.digest[:19], new.digest[:19])


def test_files_that_come_go_and_move() -> None:
    old = layer_of("source", file_of("s/a.py", "1", "source"), file_of("s/b.py", "2", "source"), file_of("s/c.py", "3", "source"))
    new = layer_of(
        "source", file_of("s/a.py", "1", "source"), file_of("s/b.py", "two", "source"), file_of("s/d.py", "4", "source")
    )
    assert [(file.path, file.state, file.size_bytes, file.size_before) for file in only(new, old).files] == [
        ("s/a.py", "same", 1, None),
        ("s/b.py", "changed", 3, 1),
        ("s/d.py", "new", 1, None),
        ("s/c.py", "removed", 0, 1),
    ]


_WHEELS = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["1", "2", "3"]), max_size=6)
_REPORTS = st.builds(
    lambda large, small, models: report_of(
        BASE,
        *(wheel_layer(name, version) for name, version in large.items()),
        small_wheels(small),
        *(model_layer(name, int(version), version) for name, version in models.items()),
    ),
    _WHEELS,
    _WHEELS,
    _WHEELS,
)


@given(_REPORTS, _REPORTS)
def test_every_layer_and_every_byte_is_told_once(new: BuildReport, old: BuildReport) -> None:
    found = explain(new, old)
    (platform,) = found.platforms
    there = [layer for layer in platform.layers if layer.state != "dropped"]
    assert [layer.digest for layer in there] == [layer.digest for layer in new.platforms[0].layers]
    assert platform.shared_bytes + platform.fetch_bytes == sum({layer.digest: layer.size_bytes for layer in there}.values())
    before = {layer.digest for layer in old.platforms[0].layers}
    for layer in there:
        assert (layer.state == "same") == (layer.digest in before)
        assert layer.state != "rebuilt" or layer.because
    counted = Counter(layer.state for layer in platform.layers)
    assert counted["same"] + counted["rebuilt"] + counted["dropped"] == len(before)
    assert found.identical == (new.platforms[0].manifest == old.platforms[0].manifest)


@given(_REPORTS)
def test_against_itself_nothing_differs(report: BuildReport) -> None:
    found = explain(report, report)
    assert (found.fetch_bytes, found.inputs, found.identical) == (0, [], True)
    assert {(layer.state, layer.was, len(layer.because)) for layer in found.platforms[0].layers} == {("same", None, 0)}
    assert {file.state for layer in found.platforms[0].layers for file in layer.files} <= {"same"}


@given(_REPORTS, _REPORTS)
def test_the_way_back_drops_what_was_new(new: BuildReport, old: BuildReport) -> None:
    there, back = layers(new, old), layers(old, new)
    assert {layer.digest for layer in there if layer.state == "new"} == {
        layer.digest for layer in back if layer.state == "dropped"
    }
    assert all(mate is not None for mate in match_layers(new.platforms[0].layers, new.platforms[0].layers))
