"""What ``hedgerow image explain`` shows of an Explanation."""

from __future__ import annotations

import click
import msgspec
import pytest

from hedgerow.cli.image_explain import change_words, chosen, layer_row, print_explanation, why
from hedgerow.sdk.explain import Change, Explanation, explain
from tests.report_builders import digest_of_words, layer_of, model_layer, report_of, wheel_layer

BASE = layer_of("base 1", size_bytes=30_000_000)
OLD = report_of(BASE, wheel_layer("numpy", "2.4.5"), model_layer("churn", 3, "old"), inputs={"model churn": "3"})
NEW = report_of(BASE, wheel_layer("numpy", "2.4.6"), model_layer("churn", 4, "newer"), inputs={"model churn": "4"})


def compared() -> Explanation:
    return msgspec.structs.replace(explain(NEW, OLD), image="churn:4", against="churn:3")


def test_a_layer_is_told_in_one_row() -> None:
    base, numpy, model = compared().platforms[0].layers
    assert layer_row(base, compared=True) == [1, "base 1", "30.0 MB", "", "", "same"]
    assert layer_row(numpy, compared=True) == [
        2,
        "wheel numpy 2.4.5 → 2.4.6",
        "100 B",
        "26 B",
        3,
        "rebuilt",
    ]
    assert why(numpy) == "numpy 2.4.5 → 2.4.6; files: 2 changed"
    assert layer_row(model, compared=False)[:3] == [3, "model churn:3 → 4", "100 B"]
    assert "files: 1 changed, 1 moved" in why(model)


def test_changes_in_words() -> None:
    digest = digest_of_words("x")
    assert change_words(Change(name="lock", before=f"3 {digest}", now="4")) == f"lock 3 {digest[7:19]} → 4"
    assert change_words(Change(name="six", before=None, now="1")) == "six 1 added"
    assert change_words(Change(name="six", before="1", now=None)) == "six 1 gone"


def test_many_reasons_are_cut_short() -> None:
    made_of = dict.fromkeys("abcdef", "1")
    old = report_of(layer_of("6 small wheels", made_of=made_of, salt="1"))
    new = report_of(layer_of("6 small wheels", made_of=dict.fromkeys(made_of, "2"), salt="2"))
    (layer,) = explain(new, old).platforms[0].layers
    assert why(layer) == "a 1 → 2; b 1 → 2; c 1 → 2; and 3 more"
    assert why(layer, at_length=True).endswith("e 1 → 2; f 1 → 2")


@pytest.mark.parametrize(
    ("wanted", "numbers"), [(None, [1, 2, 3]), ("2", [2]), ("numpy", [2]), ("wheel", [2]), ("model churn", [3])]
)
def test_layers_are_named_by_number_or_words(wanted: str | None, numbers: list[int]) -> None:
    assert [layer.number for layer in chosen(compared(), wanted, all_files=False).platforms[0].layers] == numbers


@pytest.mark.parametrize("wanted", ["4", "0", "scipy", "²"])
def test_a_layer_that_is_not_there_is_refused(wanted: str) -> None:
    with pytest.raises(click.UsageError, match=r"1 \(base 1\), 2 \(wheel numpy 2.4.6\)"):
        chosen(compared(), wanted, all_files=False)


def test_files_that_differ_or_all() -> None:
    numpy = chosen(compared(), "2", all_files=False).platforms[0].layers[0]
    assert ([file.state for file in numpy.files], numpy.file_count) == (["changed", "changed"], 3)
    assert len(chosen(compared(), "2", all_files=True).platforms[0].layers[0].files) == 3


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_explanation(chosen(compared(), "2", all_files=True), with_files=True)
    assert capsys.readouterr().out == (
        "churn:4 (docker, built by Hedgerow 0.1.0) against churn:3\n"
        "  model churn 3 → 4\n"
        "\n"
        "linux/amd64: 200 B to fetch, 30.0 MB shared\n"
        "#  LAYER                      STORED  UNPACKED  FILES  STATE\n"
        "2  wheel numpy 2.4.5 → 2.4.6  100 B   26 B      3      rebuilt\n"
        "2  numpy 2.4.5 → 2.4.6; files: 2 changed\n"
        "\n"
        "wheel numpy 2.4.6\n"
        "FILE                                              SIZE  STATE    FROM\n"
        "opt/hedgerow-site/numpy/__init__.py               5 B   changed  numpy 2.4.6\n"
        "opt/hedgerow-site/numpy/same.py                   7 B   same     numpy 2.4.6\n"
        "opt/hedgerow-site/numpy-2.4.6.dist-info/METADATA  14 B  changed  numpy 2.4.6\n"
    )


def test_alone_there_is_no_talk_of_states(capsys: pytest.CaptureFixture[str]) -> None:
    print_explanation(explain(NEW, None), with_files=False)
    told = capsys.readouterr().out
    assert "nothing to compare" in told
    assert "30.0 MB in layers" in told
    assert "STATE" not in told
    assert "new" not in told


def test_the_same_is_said_to_be_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    print_explanation(msgspec.structs.replace(explain(NEW, NEW), image="churn:4", against="churn:4"), with_files=False)
    assert "They are the same, byte for byte." in capsys.readouterr().out
