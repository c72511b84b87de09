"""What is found out about a scoring script by reading it: nothing of it ever runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from packager.errors import ScriptBroken, ScriptIncomplete, UnreadableFile
from packager.scripts.check_script import ImportProblem, check_script, imports_missing
from packager.scripts.module_names import (
    STAND_INS,
    left_standard_library,
    modules_of_base,
    package_of,
    standard_modules,
    top_level_modules,
)
from packager.scripts.source_texts import SourceTexts
from packager.source_files import list_files
from runtime.scripts.shims.finder import MODULES

CALLED = "def init(): ...\ndef run(data): ...\n"


def problems(script: str, available: str = "", python_version: str = "3.11", **others: str) -> list[ImportProblem]:
    """``others``: further modules of the folder."""
    files = {f"{name}.py": text for name, text in others.items()}
    return check_script({"score.py": script + "\n" + CALLED, **files}, "score.py", frozenset(available.split()), python_version)


def missing(script: str, available: str = "", python_version: str = "3.11", **files: str) -> list[str]:
    return [problem.module for problem in problems(script, available, python_version, **files) if problem.certain]


# What is imported --------------------------------------------------------------------------------------------------------


def test_what_neither_python_nor_environment_nor_folder_has_is_missing() -> None:
    script = "import os.path, json\nimport numpy as np\nimport helper\nimport sklearn.svm\nfrom PIL import Image"
    found = problems(script, "numpy", helper="import cv2")
    assert [(p.module, p.file, p.line, p.package, p.certain) for p in found] == [
        ("sklearn.svm", "score.py", 4, "scikit-learn", True),
        ("PIL", "score.py", 5, "pillow", True),
        ("cv2", "helper.py", 1, "opencv-python-headless", True),
    ]


def test_one_sentence_names_them_all() -> None:
    error = imports_missing(problems("import sklearn.svm\nimport sklearn.tree\nimport yaml", helper="import cv2"))
    assert (
        str(error) == "The scoring script imports what its environment does not have: sklearn.svm (score.py:1), yaml (score.py:3)"
    )
    assert error is not None
    assert error.advice.startswith("Add to the environment: scikit-learn, pyyaml.")
    assert imports_missing([]) is None


@pytest.mark.parametrize(
    "script",
    [
        "try:\n    import nowhere\nexcept ImportError:\n    nowhere = None",
        "try:\n    import nowhere\nexcept (ValueError, ModuleNotFoundError):\n    import simplejson",
        "try:\n    import nowhere\nexcept:\n    pass",
        "import contextlib\nwith contextlib.suppress(ImportError):\n    import nowhere",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import nowhere",
        "import typing\nif typing.TYPE_CHECKING:\n    from nowhere import X\nelse:\n    X = None",
        "if __name__ == '__main__':\n    import nowhere",
        "text = 'import nowhere'",
        "import importlib\nnowhere = importlib.import_module('nowhere')",
    ],
)
def test_what_a_script_can_do_without_is_no_problem(script: str) -> None:
    assert problems(script) == []


@pytest.mark.parametrize(
    "script",
    [
        "def later():\n    import nowhere",
        "async def later():\n    from nowhere import x",
        "class A:\n    def f(self):\n        import nowhere",
        "import sys\nif sys.platform == 'win32':\n    import nowhere",
        "for _ in range(0):\n    import nowhere",
    ],
)
def test_what_may_never_be_imported_is_only_noted(script: str) -> None:
    found = problems(script)
    assert [(problem.module, problem.certain) for problem in found] == [("nowhere", False)]
    assert imports_missing(found) is None


@pytest.mark.parametrize(
    "script",
    [
        "class A:\n    import nowhere",
        "try:\n    import nowhere\nfinally:\n    pass",
        "try:\n    import nowhere\nexcept ValueError:\n    pass",
        "try:\n    pass\nexcept ImportError:\n    pass\nelse:\n    import nowhere",
        "with open('x') as f:\n    import nowhere",
    ],
)
def test_what_runs_at_the_import_is_certain(script: str) -> None:
    assert missing(script) == ["nowhere"]


def test_the_files_of_the_folder_are_followed_once_and_only_where_they_are_reached() -> None:
    files = {
        "score.py": "import a\nfrom lib import tools, CONSTANT\nfrom lib.deep.er import thing\n" + CALLED,
        "a.py": "import b\nimport missing_a",
        "b.py": "import a\nimport missing_b",
        "lib/__init__.py": "from . import inner\nCONSTANT = 1",
        "lib/inner.py": "import missing_inner",
        "lib/tools.py": "from .inner import x\nfrom ..up import y\nimport missing_tools",
        "lib/deep/er.py": "import missing_deep",
        "unused.py": "import missing_unused\nthis is no python",
    }
    found = [problem.module for problem in check_script(files, "score.py", frozenset(), "3.11")]
    assert sorted(found) == ["..up", "missing_a", "missing_b", "missing_deep", "missing_inner", "missing_tools"]


def test_a_file_that_is_imported_later_only_makes_nothing_certain() -> None:
    script = "def f():\n    import helper"
    assert [p.certain for p in problems(script, helper="import nowhere")] == [False]
    assert [p.certain for p in problems(script + "\nimport helper", helper="import nowhere")] == [True]
    assert problems(script, helper="no python at all") == []


def test_a_file_that_a_package_lacks_is_missing() -> None:
    files = {"score.py": "import lib.other\nimport space.other\n" + CALLED, "lib/__init__.py": "", "space/real.py": ""}
    found = check_script(files, "score.py", frozenset(), "3.11")
    assert [(p.module, p.reason) for p in found] == [("lib.other", "no such file in the source folder")]
    error = imports_missing(found)
    assert error is not None
    assert "Put the missing files into the source folder" in error.advice


def test_a_dot_in_the_script_itself_is_a_mistake() -> None:
    assert problems("from .helper import x", helper="")[0].reason.startswith("a scoring script is no part of a package")


def test_compiled_modules_and_the_scripts_own_folder_count() -> None:
    files: dict[str, str | bytes] = {
        "deep/score.py": "import beside, fast\n" + CALLED,
        "deep/beside.py": "",
        "fast.cpython-311-x86_64-linux-gnu.so": b"",
    }
    assert check_script(files, "deep/score.py", frozenset(), "3.11") == []


def test_a_plain_folder_comes_behind_what_is_installed() -> None:
    files = {"score.py": "import data\nimport numpy.linalg\n" + CALLED, "data/rows.csv": "", "numpy/notes.py": "import nowhere"}
    assert check_script(files, "score.py", frozenset({"numpy"}), "3.11") == []


def test_azure_mls_own_names_are_there_as_far_as_the_runtime_has_them() -> None:
    there = (
        "from azureml.core.model import Model\nfrom inference_schema.schema_decorators import *\nfrom azureml.core import model"
    )
    assert missing(there) == []
    absent = "from azureml.core import Workspace\nimport azureml.train.automl\nfrom inference_schema import nothing"
    assert [(p.module, p.package) for p in problems(absent)] == [
        ("azureml.core", "azureml-core"),
        ("azureml.train.automl", "azureml-train-core"),
        ("inference_schema", "inference-schema"),
    ]
    assert missing(absent, "azureml inference_schema") == []


def test_the_stand_ins_are_those_of_the_runtime() -> None:
    assert dict(STAND_INS) == {module: names for module, (_, names) in MODULES.items()}


def test_our_own_packages_are_in_every_image() -> None:
    assert missing("import hedgerow\nfrom runtime.x import y") == []


def test_what_a_newer_python_lacks_is_said() -> None:
    assert missing("import distutils.core\nimport cgi\nimport tomllib", python_version="3.11") == []
    found = problems("import distutils.core\nimport cgi", python_version="3.13")
    assert [problem.reason for problem in found] == ["not part of Python since 3.12", "not part of Python since 3.13"]
    assert missing("import tomllib", python_version="3.10") == ["tomllib"]


# What it defines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        CALLED,
        "from handlers import run, init",
        "from handlers import handle as run\nfrom handlers import start as init",
        "import run\ninit = lambda: None",
        "run = init = print",
        "(run, init) = functions()",
        "run: object = print\ninit: object = print",
        "async def run(data): ...\nclass init: ...",
        "if True:\n    def run(x): ...\nelse:\n    run = 1\ndef init(): ...",
        "try:\n    from fast import run\nexcept ImportError:\n    from slow import run\ndef init(): ...",
        "def make():\n    global run\n    run = print\ndef init(): ...",
        "import driver as driver_module\ndef init(): ...",
        "from handlers import *",
        "globals()['run'] = globals()['init'] = print",
        "exec(text)",
        "with open('x') as run:\n    pass\nfor init in (): pass",
    ],
)
def test_functions_may_come_by_any_way(text: str) -> None:
    others = {f"{name}.py": "" for name in ("handlers", "run", "fast", "slow", "driver")}
    check_script({"score.py": text, **others}, "score.py", frozenset(), "3.11")


@pytest.mark.parametrize(
    ("text", "functions"),
    [
        ("", "run() and no init()"),
        ("def init(): ...", "run()"),
        ("def run(data): ...", "init()"),
        ("class A:\n    def run(self): ...\ndef init(): ...", "run()"),
        ("def f():\n    run = 1\ndef init(): ...", "run()"),
        ("def Run(data): ...\ndef init(): ...", "run()"),
    ],
)
def test_a_script_without_its_functions_is_refused(text: str, functions: str) -> None:
    with pytest.raises(ScriptIncomplete) as refused:
        check_script({"score.py": text}, "score.py", frozenset(), "3.11")
    assert str(refused.value) == f"The scoring script score.py has no function {functions}"


# What cannot be read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [("x = 1\ndef run(:\n", 2), ("print 'hello'", 1), ("x = 1\x00", 1), (b"# coding: nosuch\n", 1), ("(" * 9999, 1)],
)
def test_what_is_no_python_is_refused_with_its_line(text: str | bytes, line: int) -> None:
    with pytest.raises(ScriptBroken) as refused:
        check_script({"score.py": text}, "score.py", frozenset(), "3.11")
    assert f"score.py, line {line}:" in str(refused.value)


def test_a_broken_file_of_the_folder_is_named() -> None:
    with pytest.raises(ScriptBroken, match=r"helper\.py, line 1"):
        problems("import helper", helper="def")


def test_a_script_is_read_as_its_own_python_reads_it() -> None:
    match = "def f(x):\n    match x:\n        case 1: pass\n"
    problems(match, python_version="3.10")
    with pytest.raises(ScriptBroken):
        problems(match, python_version="3.9")
    # This Python cannot know the grammar of one that is newer.
    assert check_script({"score.py": "def broken(:"}, "score.py", frozenset(), "3.99") == []


def test_odd_escapes_and_other_encodings_are_fine() -> None:
    text = "# -*- coding: latin-1 -*-\nname = 'Gr\xfc\xdfe'\npattern = '\\d'\n".encode("latin-1") + CALLED.encode()
    assert check_script({"score.py": text}, "score.py", frozenset(), "3.11") == []


def test_nothing_runs() -> None:
    problems("raise SystemExit('never run')")


# Tables ------------------------------------------------------------------------------------------------------------------


def test_modules_of_installed_files() -> None:
    files = [
        *(
            "numpy/__init__.py",
            "numpy.libs/libx.so",
            "six.py",
            "_cffi_backend.cpython-311-x86_64-linux-gnu.so",
            "google/cloud/x.py",
        ),
        *(
            "numpy-1.0.dist-info/METADATA",
            "numpy-1.0.dist-info/x.py",
            "share/man/x.1",
            "a-b/c.py",
            "data.txt",
            "distutils-precedence.pth",
        ),
    ]
    assert top_level_modules(files) == {"numpy", "six", "_cffi_backend", "google"}


def test_modules_of_a_base_image() -> None:
    files = [
        "usr/lib/python3/dist-packages/apt/__init__.py",
        "usr/local/lib/python3.11/site-packages/pip/__init__.py",
        "usr/x.py",
    ]
    assert modules_of_base(files) == {"apt", "pip"}


def test_packages_of_modules() -> None:
    modules = ["cv2", "sklearn.svm", "PIL", "google.cloud.storage", "google.protobuf.message", "my_module.x", "Crypto.Cipher"]
    assert [package_of(module) for module in modules] == [
        *("opencv-python-headless", "scikit-learn", "pillow", "google-cloud-storage", "protobuf", "my-module", "pycryptodome"),
    ]


def test_the_standard_library_of_each_python() -> None:
    assert {"zoneinfo", "distutils", "asyncore"} <= standard_modules("3.9")
    assert "distutils" not in standard_modules("3.12")
    assert ("cgi" in standard_modules("3.12"), "cgi" in standard_modules("3.13")) == (True, False)
    assert left_standard_library("imp", "3.11") is None


def test_texts_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text("x")
    (tmp_path / "gone.py").write_text("x")
    texts = SourceTexts(list_files(tmp_path))
    (tmp_path / "gone.py").unlink()
    assert (list(texts), len(texts), texts["score.py"]) == (["gone.py", "score.py"], 2, b"x")
    with pytest.raises(UnreadableFile, match=r"gone\.py"):
        texts["gone.py"]


@pytest.mark.parametrize(
    "script",
    ["from sklearn.externals import joblib", "import sklearn.externals.joblib as j", "from sklearn.externals.joblib import load"],
)
def test_what_old_examples_import_comes_with_what_to_write_instead(script: str) -> None:
    (found,) = problems(script, "sklearn")
    assert found.reason == "gone since scikit-learn 0.23: write `import joblib`"
    assert found.package == ""
    assert problems(f"try:\n    {script}\nexcept ImportError:\n    import joblib", "sklearn joblib") == []
    assert problems("from sklearn.externals import conftest", "sklearn") == []
