"""Conda files and requirements as people write them, and what is refused of them with line and remedy."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.environment_files import (
    CondaFile,
    check_python,
    check_variables,
    read_conda,
    read_requirements,
)
from registry.errors import EnvironmentRefused

HASH = "--hash=sha256:" + "a" * 64


def test_requirements_as_pip_reads_them() -> None:
    text = f"""
# a comment
numpy==1.26.4  # why this one
scikit-learn>=1.4,<2 ; python_version >= "3.9"

uvicorn[standard] \\
    ==0.30 \\
    ; sys_platform == 'linux'
pinned==1.0 \\
    {HASH} \\
    --hash=sha512:{"b" * 128}
mine @ https://example.org/mine-1.0-py3-none-any.whl#sha256=1234
forked @ git+https://git@example.org/forked.git@main
    indented
"""
    assert [re.sub(r"\s+", " ", line) for line in read_requirements(text.split("\n"))] == [
        "numpy==1.26.4",
        'scikit-learn>=1.4,<2 ; python_version >= "3.9"',
        "uvicorn[standard] ==0.30 ; sys_platform == 'linux'",
        f"pinned==1.0 {HASH} --hash=sha512:{'b' * 128}",
        "mine @ https://example.org/mine-1.0-py3-none-any.whl#sha256=1234",
        "forked @ git+https://git@example.org/forked.git@main",
        "indented",
    ]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_line_endings_are_no_part_of_a_line(ending: str) -> None:
    assert read_requirements([f"a==1{ending}", f"b==2{ending}"]) == ["a==1", "b==2"]


@pytest.mark.parametrize(
    ("line", "problem", "remedy"),
    [
        ("-r more.txt", "the option '-r' is not taken", "Put the lines of that file here"),
        ("-rmore.txt", "the option '-r' is not taken", "Put the lines of that file here"),
        ("--requirement=more.txt", "the option '--requirement'", "Put the lines of that file here"),
        ("-c pins.txt", "the option '-c'", "pinned versions"),
        ("--constraint pins.txt", "the option '--constraint'", "pinned versions"),
        ("-e .", "the option '-e'", "Build a wheel"),
        ("--editable=git+https://x/y", "the option '--editable'", "Build a wheel"),
        ("-i https://index", "the option '-i'", "Configure the index"),
        ("--index-url=https://u:p@index", "the option '--index-url'", "Configure the index"),
        ("--extra-index-url https://index", "the option '--extra-index-url'", "Configure the index"),
        ("--find-links ./wheels", "the option '--find-links'", "package index"),
        ("--pre", "the option '--pre'", "Leave it out"),
        ("numpy=1.26", "is no requirement", "two equals signs"),
        ("numpy==", "is no requirement", "Write it as in requirements.txt"),
        ("numpy scipy", "is no requirement", "Write it as"),
        ("./wheels/x.whl", "has no name", "Write NAME @ URL"),
        ("/etc/passwd", "has no name", "Write NAME @ URL"),
        ("https://example.org/x.whl", "has no name", "Write NAME @ URL"),
        ("x @ file:///etc/passwd", "not git\\+https, http, https", "Use one of those"),
        ("x @ https://me:secret@example.org/x.whl", "password", "Take it out"),
        ("x @ https://token@example.org/x.whl", "password", "Take it out"),
        ("x @ https://[::1/x.whl", "its address is none|is no requirement", "Write"),
        ("a==1 --hash=md5:00", "is no hash", "sha256"),
        ("a==1 --global-option=x", "is no hash", "Leave it out"),
        ("a==1\n--index-url https://evil", "holds a line break", "a line of its own"),
        ("a==1\r--pre", "holds a line break", "a line of its own"),
        ("a==1\u2028b==1", "holds a line break", "a line of its own"),
        ("a\x07==1", "cannot be seen", "a line of its own"),
        ("n" * 10_000, "longer than|is no requirement", "Shorten it"),
        ("a==1; import os", "is no requirement", "Write it as"),
        ("a @ https://evil/${UV_INDEX_PASSWORD}/a.whl", "asks for an environment variable", "Write the value out"),
        ("a; " + "(" * 1900, "nested too deeply", "Take the parentheses out"),
    ],
    ids=lambda value: value[:30],
)
def test_what_is_no_requirement_is_refused_with_its_line(line: str, problem: str, remedy: str) -> None:
    with pytest.raises(EnvironmentRefused, match=problem) as refused:
        read_requirements(["fine==1", "", line])
    assert str(refused.value).startswith("Line 3 of the requirements"), str(refused.value)
    assert remedy in refused.value.advice
    assert "secret" not in refused.value.sentence()


def test_a_continued_line_is_refused_by_the_line_that_it_begins_on() -> None:
    with pytest.raises(EnvironmentRefused, match=r"Line 2 of the requirements"):
        read_requirements(["fine", "two words \\", "  and more"])


def test_very_many_lines_are_refused() -> None:
    with pytest.raises(EnvironmentRefused, match="10000 lines"):
        read_requirements(["a"] * 10_001)


CONDA = """
name: project
channels:
  - conda-forge
  - https://conda.example.org/ours
dependencies:
  - python=3.10
  - numpy=1.26
  - conda-forge::scikit-learn>=1.4,<2
  - pytorch=2.1=py3.10_cuda12_0
  - libblas=*=*openblas
  - pip
  - pip:
      - onnxruntime==1.20.0  # pinned
      - requests
  - blas
prefix: /opt/conda/envs/project
variables:
  THREADS: 4
  FLAG: true
  EMPTY: ""
"""


def test_a_conda_file() -> None:
    assert read_conda(CONDA) == CondaFile(
        name="project",
        python_version="3.10",
        requirements=["onnxruntime==1.20.0", "requests"],
        conda_packages=[
            "numpy=1.26",
            "conda-forge::scikit-learn>=1.4,<2",
            "pytorch=2.1=py3.10_cuda12_0",
            "libblas=*=*openblas",
            "blas",
        ],
        channels=["conda-forge", "https://conda.example.org/ours"],
        variables={"THREADS": "4", "FLAG": "true", "EMPTY": ""},
    )


@pytest.mark.parametrize(
    ("asked", "python"),
    [
        ("python", None),
        ("python=3.10", "3.10"),
        ("python==3.10.4", "3.10.4"),
        ("python=3.10.4", "3.10.4"),
        ("python=3.10.*", "3.10"),
        ("python=3.10*", "3.10"),
        ("python 3.10", "3.10"),
        ("python 3.10.*", "3.10"),
        ("python=3.10.4=h12debc_0", "3.10.4"),
        ("python =3.9", "3.9"),
        ("python = 3.9", "3.9"),
        ("conda-forge::python=3.12", "3.12"),
        ("python>=3.9,<3.11", "3.10"),
        ("python >=3.9, <3.11", "3.10"),
        ("python>=3.8", "3.11"),
        ("python<3.10", "3.9"),
        ("python<=3.10", "3.10"),
        ("python>3.11", "3.11"),
        ("python!=3.11.*", "3.14"),
        ("python>=3.9.2,<3.9.8", "3.9.2"),
        ("python~=3.12", "3.14"),
        ("python=3.8|3.9", "3.8"),
        ("python=3", "3.11"),
        ("python=3.*", "3.11"),
        ("Python=3.10", "3.10"),
    ],
)
def test_python_in_a_conda_file(asked: str, python: str | None) -> None:
    assert read_conda(f"dependencies: ['{asked}']").python_version == python


@pytest.mark.parametrize(
    "asked", ["python=2.7", "python=3.7", "python=3.15", "python<3.8", "python=4", "python>=3.15", "python=x"]
)
def test_a_python_that_images_cannot_have(asked: str) -> None:
    with pytest.raises(EnvironmentRefused, match=r"Line 3 of the conda file"):
        read_conda(f"name: x\ndependencies:\n- {asked}\n")


def test_a_file_for_an_old_python_is_read_for_another_one() -> None:
    text = "dependencies:\n- python=3.6.2\n- numpy\n- pip: [azureml-defaults]\n"
    with pytest.raises(EnvironmentRefused, match=r"Line 2 of the conda file.*Python 3\.6\.2 is too old") as refused:
        read_conda(text)
    assert "--conda FILE --python 3.11" in refused.value.advice
    found = read_conda(text, python_version="3.11")
    assert (found.python_version, found.conda_packages, found.requirements) == ("3.11", ["numpy"], ["azureml-defaults"])
    assert read_conda("dependencies: [numpy]", python_version="3.12").python_version is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- python=3.10\n- numpy\n", "Line 1 of the conda file cannot be used: it is no conda file"),
        ("just words", "it is no conda file"),
        ("", "it is no conda file"),
        ("name: x\n", "it has no section dependencies"),
        ("name: x\ndependecies: [a]\n", "Line 2 .*there is no section 'dependecies'"),
        ("dependencies: numpy\n", "dependencies is no list"),
        ("dependencies:\n  numpy: 1\n", "Line 2 .*dependencies is no list"),
        ("dependencies:\n- pip:\n    numpy: 1\n", "Line 3 .*pip is no list"),
        ("dependencies:\n- pip: numpy\n", "pip is no list"),
        ("dependencies:\n- npm: [left-pad]\n", "'npm' is no section"),
        ("dependencies:\n- [a, b]\n", "not plain text"),
        ("dependencies:\n- ~\n", "a value is missing"),
        ("dependencies:\n- a\n- pip:\n  - b\n  - -r requirements.txt\n", "Line 5 .*the option '-r'"),
        ("dependencies:\n- pip:\n  - '--extra-index-url https://x'\n", "Line 3 .*the option '--extra-index-url'"),
        ('dependencies:\n- pip:\n  - "a==1\\n--pre"\n', "Line 3 .*line break"),
        ("dependencies:\n- pip:\n  - b=1\n", "Line 3 .*is no requirement"),
        ("dependencies:\n- pip:\n  - [b]\n", "Line 3 .*plain text"),
        ("dependencies:\n- numpy; rm\n", "is no conda package"),
        ("dependencies:\n- '$(ls)'\n", "is no conda package"),
        ('dependencies:\n- "a\\nb"\n', "line break"),
        (f"dependencies:\n- {'n' * 10_000}\n", "is no conda package"),
        ("dependencies: []\nchannels: conda-forge\n", "channels is no list"),
        ("dependencies: []\nchannels:\n- https://ann:pw@host/c\n", "Line 3 .*token"),
        ("dependencies: []\nchannels:\n- https://host/t/ab-12/c\n", "Line 3 .*token"),
        ("dependencies: []\nchannels:\n- a b\n", "is no channel"),
        ("dependencies: []\nvariables: [a]\n", "variables is no list of NAME: VALUE"),
        ("dependencies: []\nvariables:\n  A-B: 1\n", "Line 3 .*'A-B'.* that is no name"),
        ("dependencies: []\nvariables:\n  A:\n", "has no value"),
        ("dependencies: []\nvariables:\n  A: [1]\n", "has no value"),
        ("dependencies: []\ndependencies: []\n", "Line 2 .*given twice"),
        ("dependencies: &a []\nname: *a\n", "anchors"),
        ("dependencies:\n\t- a\n", "Line 2 .*tab"),
        ("dependencies: " + "[" * 50, "nested"),
    ],
    ids=lambda value: value[:30],
)
def test_what_is_no_conda_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(EnvironmentRefused, match=message) as refused:
        read_conda(text)
    assert refused.value.advice
    assert len(refused.value.sentence()) < 600


def test_sections_that_conda_ignores_are_ignored() -> None:
    assert read_conda("dependencies: [a]\nplatforms: [linux-64]\n").conda_packages == ["a"]
    assert read_conda("dependencies: [pip, pip<=23, {pip: }]\nname:\n").requirements == []


def test_python_versions() -> None:
    for version in ("3.8", "3.14", "3.11.9", "3.9.21"):
        assert check_python(version) == version
    for version in (
        "",
        "3",
        "3.7",
        "3.15",
        "2.7",
        "3.1",
        "3.08",
        "3.11.",
        "3.11.1.1",
        "3.11 ",
        "3.11\n",
        "٣.١١",
        "3.11rc1",
        "3" * 9999,
    ):
        with pytest.raises(EnvironmentRefused, match="Python version"):
            check_python(version)


def test_variables() -> None:
    good = {"A": "", "_x1": "a\nb", "Z" * 250: "ü"}
    assert check_variables(good) == good
    for name, value in [
        *product(["", "1A", "A-B", "A B", "Ä", "A=B", "A\n", "A" * 251], ["x"]),
        ("A", "\0"),
        ("A", "x" * 32_001),
    ]:
        with pytest.raises(EnvironmentRefused):
            check_variables({name: value})
    with pytest.raises(EnvironmentRefused, match="more than 1000"):
        check_variables({f"V{number}": "" for number in range(1001)})


# What YAML, conda and pip give a meaning to, in any order.
_PIECES = st.sampled_from(
    [
        "dependencies:",
        "\n",
        "\n- ",
        "\n  - ",
        "pip:",
        "python",
        "=",
        ">=3.9",
        "3.10",
        ",",
        "<3.11",
        "name",
        ": ",
        "[",
        "]",
        "{",
        "}",
        "'",
        '"',
        "&a",
        "*a",
        "!x",
        "#",
        "\t",
        "\\\n",
        "-r ",
        "--hash=",
        "@",
        "https://",
        "a",
        "b==1",
        "::",
        "\r",
        "\x85",
        "\ufeff",
        "channels:",
        "variables:",
        "---",
        "%",
        "?",
    ]
)
_TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(_PIECES, max_size=25).map("".join),
    st.lists(_PIECES, max_size=25).map(lambda pieces: "dependencies:\n" + "".join(pieces)),
)


@settings(max_examples=400, deadline=None)
@given(_TEXTS)
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    for read in (read_conda, lambda text: read_requirements(text.split("\n")), lambda text: read_requirements([text])):
        try:
            found = read(text)
        except EnvironmentRefused:
            continue
        lines = found.requirements + found.conda_packages if isinstance(found, CondaFile) else found
        assert all(line.strip() == line and len(line.splitlines()) == 1 for line in lines)
