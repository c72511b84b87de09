"""Which libraries a model is opened with."""

from __future__ import annotations

import importlib.metadata
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hedgerow.contracts.convert import ConvertRequest
from hedgerow.contracts.image import ModelRef
from packager.cache.layers import LayerCache
from packager.convert.formats import Kind
from packager.convert.libraries import _complete, _wanted, drop_old_libraries, satisfied_here

_DIGEST = "sha256:" + "0" * 64


def _request(**changes: object) -> ConvertRequest:
    model = ModelRef(name="wine", version=1, digest=_DIGEST)
    plain = {"model": model, "folder": "/m", "out": "/o", "cache": "/c"}
    return ConvertRequest(**{**plain, **changes})  # type: ignore[arg-type]  # a test's own words


def test_ours_do_only_when_they_are_exactly_those() -> None:
    here = importlib.metadata.version("scikit-learn")
    assert satisfied_here([f"scikit-learn=={here}", "numpy"], "pickle")
    assert satisfied_here([], "onnx")
    assert not satisfied_here(["scikit-learn==1.0.2"], "pickle")
    assert not satisfied_here(["no-such-library-of-anybody"], "pickle")
    assert not satisfied_here(["not a requirement at all"], "pickle")


def test_a_framework_version_counts_where_no_requirement_names_it() -> None:
    told = {"framework": "sklearn", "framework_version": "1.5.2"}
    assert _wanted(_request(**told), "pickle") == ["scikit-learn==1.5.2"]
    asked = ["scikit-learn==1.4.0", "mlflow==2.9.0"]
    assert _wanted(_request(**told, requirements=asked), "pickle") == ["scikit-learn==1.4.0"]


@pytest.mark.parametrize("kind", ["onnx", "xgboost", "lightgbm"])
def test_formats_that_every_version_reads_need_none(kind: Kind) -> None:
    assert _wanted(_request(framework="xgboost", framework_version="1.7.0"), kind) == []


def test_converters_are_added_and_what_old_libraries_forgot_to_say() -> None:
    old = _complete(["scikit-learn==1.3.2"], "pickle")
    assert {"skl2onnx", "onnx", "onnxruntime", "protobuf<7", "numpy<2"} <= set(old)
    assert "numpy<2" not in _complete(["scikit-learn==1.5.2"], "pickle")
    assert "numpy<2" not in _complete(["numpy==1.24.4", "scikit-learn==1.3.2"], "pickle")
    assert "onnxmltools" in _complete(["lightgbm==4.5.0"], "pickle")


def test_libraries_that_nobody_used_lately_go(tmp_path: Path) -> None:
    now = datetime(2026, 1, 10, tzinfo=UTC)
    sites = tmp_path / "cache" / "convert-sites"
    for age_days in range(12):
        site = sites / f"{age_days:02}"
        site.mkdir(parents=True)
        os.utime(site, times=(now.timestamp() - age_days * 86_400 - 60,) * 2)
    (tmp_path / "scratch").mkdir()
    drop_old_libraries(LayerCache(tmp_path / "cache", tmp_path / "scratch"), now)
    assert sorted(site.name for site in sites.iterdir()) == [f"{age_days:02}" for age_days in range(8)]
    drop_old_libraries(LayerCache(tmp_path / "cache", tmp_path / "scratch"), now)


def test_what_was_used_today_stays_however_many_there_are(tmp_path: Path) -> None:
    now = datetime(2026, 1, 10, tzinfo=UTC)
    sites = tmp_path / "cache" / "convert-sites"
    for number in range(12):
        (sites / str(number)).mkdir(parents=True)
        os.utime(sites / str(number), times=(now.timestamp() - number * 60,) * 2)
    drop_old_libraries(LayerCache(tmp_path / "cache", tmp_path), now)
    assert len(list(sites.iterdir())) == 12
