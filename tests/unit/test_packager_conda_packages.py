"""Conda's packages become requirements of a package index, or a sentence."""

from __future__ import annotations

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from packager.environment.conda_names import LONGER_VERSIONS, MACHINERY, ONLY_CONDA, RENAMED, is_library, is_only_conda
from packager.environment.conda_packages import conda_only, conda_requirements
from packager.environment.lock import tidy_requirements
from packager.environment.package_names import normal_name
from packager.errors import CondaSpecRefused


def one(spec: str) -> str:
    mapping = conda_requirements([spec], "3.11")
    assert (len(mapping.requirements), mapping.refused) == (1, ())
    return mapping.requirements[0]


@pytest.mark.parametrize(
    ("spec", "requirement"),
    [
        ("numpy", "numpy"),
        ("numpy=1.26", "numpy==1.26.*"),
        ("numpy==1.26", "numpy==1.26"),
        ("numpy==1.26.*", "numpy==1.26.*"),
        ("numpy=1.26.*", "numpy==1.26.*"),
        ("numpy=1.26*", "numpy==1.26.*"),
        ("numpy 1.26", "numpy==1.26"),
        ("numpy 1.26.*", "numpy==1.26.*"),
        ("numpy=*", "numpy"),
        ("numpy=1.26.4=py311h64a7726_0", "numpy==1.26.4"),
        ("numpy 1.26.4 py311h64a7726_0", "numpy==1.26.4"),
        ("numpy[version='>=1.2']", "numpy>=1.2"),
        ("numpy[version='>=1.2,<2', build=py3*]", "numpy>=1.2,<2"),
        ('conda-forge::numpy[version="1.26.4"]', "numpy==1.26.4"),
        ("scikit-learn>=1.2,<1.4", "scikit-learn>=1.2,<1.4"),
        ("scikit-learn >=1.2, <1.4", "scikit-learn>=1.2,<1.4"),
        ("scikit-learn=>=1.2", "scikit-learn>=1.2"),
        ("scipy!=1.9.*,>=1.8", "scipy!=1.9.*,>=1.8"),
        ("scipy!=1.9.1", "scipy!=1.9.1"),
        ("scipy~=1.9", "scipy~=1.9"),
        ("scipy>=1.9.*", "scipy>=1.9"),
        ("pandas=2.0rc1", "pandas==2.0rc1"),
        ("conda-forge::lightgbm", "lightgbm"),
        ("pytorch::torchvision", "torchvision"),
        ("pytorch=2.1", "torch==2.1.*"),
        ("py-xgboost-gpu", "xgboost"),
        ("psycopg2>=2.9", "psycopg2-binary>=2.9"),
        ("opencv=4.8.1=py311h", "opencv-python-headless==4.8.1.*"),
        ("opencv==4.8.1", "opencv-python-headless==4.8.1.*"),
        ("opencv>=4.8", "opencv-python-headless>=4.8"),
        ("msgpack-python", "msgpack"),
        ("pytables", "tables"),
        ("python-dateutil", "python-dateutil"),
        ("Typing_Extensions", "typing-extensions"),
        ("ruamel.yaml=0.17", "ruamel-yaml==0.17.*"),
        ("setuptools=68", "setuptools==68.*"),
        ("libcst", "libcst"),
    ],
)
def test_a_match_spec_becomes_a_requirement(spec: str, requirement: str) -> None:
    assert one(spec) == requirement
    assert tidy_requirements([requirement]) == [requirement]


def test_a_single_equals_sign_takes_every_version_below_it_as_conda_does() -> None:
    specifier = Requirement(one("numpy=1.26")).specifier
    assert [text for text in ("1.25.9", "1.26", "1.26.4", "1.27") if Version(text) in specifier] == ["1.26", "1.26.4"]


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("foo=1.2|1.3", "no 'or'"),
        ("jpeglike=9e", "9e"),
        ("foo>=", "ends in the middle"),
        ("foo bar baz qux", "no version"),
        ("foo=1.2; import os", "no version"),
        ("--index-url http://x", "no conda package"),
        ("foo @ https://example.org/x.whl", "no version"),
    ],
)
def test_what_a_package_index_has_no_form_for_is_named(spec: str, problem: str) -> None:
    with pytest.raises(CondaSpecRefused, match=problem) as refused:
        conda_requirements([spec], "3.11")
    assert spec in str(refused.value)


def test_libraries_are_left_out_and_said_in_one_sentence() -> None:
    exported = [
        "_libgcc_mutex=0.1=main",
        "openssl=1.1.1w=h7f8727e_0",
        "mkl",
        "libblas",
        "cudatoolkit=11.3",
        "ld_impl_linux-64=2.38",
    ]
    mapping = conda_requirements([*exported, "numpy"], "3.11")
    assert (mapping.requirements, mapping.refused) == (("numpy",), ())
    assert mapping.notes == (
        "Left out, because wheels bring the shared libraries that they need: "
        "_libgcc_mutex, cudatoolkit, ld_impl_linux-64, libblas, mkl, openssl.",
    )


def test_conda_itself_and_what_python_has_are_left_out_with_a_note() -> None:
    mapping = conda_requirements(["pip=23", "wheel", "dataclasses", "python=3.10", "python=3.11.4"], "3.11")
    assert mapping.requirements == ()
    assert [note.split(" is left out")[0] for note in mapping.notes] == ["pip", "wheel", "dataclasses", "python=3.10"]


def test_everything_that_only_conda_has_is_named_at_once() -> None:
    mapping = conda_requirements(
        ["git", "numpy", "conda-forge::graphviz=2.50", "r-base=4.1", "openjdk", "libgdal", "ffmpeg"], "3.11"
    )
    assert mapping.requirements == ("numpy",)
    problem = conda_only(mapping.refused)
    for name in ("git", "conda-forge::graphviz=2.50", "r-base=4.1", "openjdk", "libgdal", "ffmpeg"):
        assert name in str(problem)
    assert "apt-get install default-jre-headless ffmpeg gdal-bin git graphviz)" in problem.advice
    assert "apt-get" not in conda_only(conda_requirements(["r-base"], "3.11").refused).advice


def test_a_name_of_an_unknown_channel_may_mean_something_else() -> None:
    assert conda_requirements(["https://conda.anaconda.org/conda-forge::numpy", "pytorch::pytorch"], "3.11").notes == ()
    assert "acme::tool" in conda_requirements(["acme::tool"], "3.11").notes[0]


def test_the_same_package_twice_is_asked_for_once() -> None:
    assert conda_requirements(["opencv", "py-opencv"], "3.11").requirements == ("opencv-python-headless",)


def test_the_tables_do_not_contradict_each_other() -> None:
    for name in RENAMED:
        assert normal_name(name) == name
        assert not is_library(name), name
        assert not is_only_conda(name), name
    for name in ONLY_CONDA:
        assert not is_library(name), name
        assert name not in MACHINERY
    assert set(RENAMED.values()) >= LONGER_VERSIONS
    assert not any(map(is_library, ("azure-core", "libclang", "cuda-python", "librosa", "python-snappy", "pyzmq", "h5py")))
