"""What a container engine is told to do is planned as text; what it built is packed without a trace of when and where."""

from __future__ import annotations

import base64
import hashlib
import json
import tomllib
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from packager.environment.dockerfile_base import IndexPlan, plan_context, plan_index
from packager.environment.repack import pack_wheels
from packager.errors import SourceBuildFailed


def context(environment: dict[str, str], *requirements: str) -> dict[str, str]:
    return {file.path: file.content.decode() for file in plan_context(requirements, plan_index(environment), "token")}


def test_requirements_stand_in_a_file_and_never_in_a_command() -> None:
    hostile = 'x; rm -rf / "$(id)" `id`'
    files = context({}, hostile)
    assert files["requirements.txt"] == hostile + "\n"
    assert "rm -rf" not in files["Dockerfile"] + files["uv.toml"]
    run = files["Dockerfile"].splitlines()[-1]
    assert json.loads(run.removeprefix("RUN "))[:3] == ["/hedgerow-build/uv", "pip", "install"]
    assert "LABEL io.hedgerow.engine-build=token" in files["Dockerfile"]


def test_the_index_of_this_machine_holds_in_the_container() -> None:
    settings = {
        "UV_DEFAULT_INDEX": "main=https://user:secret@a.example/simple",
        "UV_INDEX": "https://b.example/simple second=https://c.example/simple",
        "UV_FIND_LINKS": "/wheels,https://d.example/links",
        "https_proxy": "http://proxy:3128",
        "SSL_CERT_FILE": "/etc/ca.pem",
    }
    assert plan_index(settings) == IndexPlan(
        url="https://user:secret@a.example/simple",
        no_index=False,
        more=("https://b.example/simple", "https://c.example/simple"),
        links=("https://d.example/links",),
        folders=("/wheels",),
        network=True,
        certificates="/etc/ca.pem",
        proxies={"HTTPS_PROXY": "http://proxy:3128"},
    )
    files = context(settings)
    assert tomllib.loads(files["uv.toml"]) == {
        "link-mode": "copy",
        "find-links": ["https://d.example/links", "/hedgerow-build/links"],
        "index-url": "https://user:secret@a.example/simple",
        "extra-index-url": ["https://b.example/simple", "https://c.example/simple"],
    }
    assert "secret" not in files["Dockerfile"]
    assert "apt-get" in files["Dockerfile"]


@pytest.mark.parametrize(
    "settings",
    [
        {"UV_DEFAULT_INDEX": "file:///srv/index", "UV_FIND_LINKS": "/wheels"},
        {"UV_NO_INDEX": "1", "UV_FIND_LINKS": "/wheels,https://d.example/links"},
        {"UV_OFFLINE": "1", "UV_FIND_LINKS": "file:///wheels"},
    ],
)
def test_folders_of_this_machine_need_no_network(settings: dict[str, str]) -> None:
    index = plan_index(settings)
    assert (index.network, index.folders, index.url) == (False, ("/wheels",), None)
    files = context(settings)
    assert tomllib.loads(files["uv.toml"])["no-index"] is True
    assert "apt-get" not in files["Dockerfile"]


def test_without_settings_it_is_uvs_usual_index() -> None:
    index = plan_index({})
    assert (index.url, index.no_index, index.network) == (None, False, True)
    assert tomllib.loads(context({})["uv.toml"]) == {"link-mode": "copy", "find-links": []}


def installed(site: Path, *, tags: str = "Tag: py3-none-any\n", extra: str = "") -> None:
    info = site / "my_pkg-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "my_pkg").mkdir()
    (site / "my_pkg" / "__init__.py").write_text("x = 1\n")
    (site / "my_pkg" / "run.sh").write_text("#!/bin/sh\n")
    (site / "my_pkg" / "run.sh").chmod(0o755)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-pkg\nVersion: 1.0\n")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\n" + tags)
    (info / "INSTALLER").write_text("uv")
    own = ("METADATA", "WHEEL", "INSTALLER", "RECORD")
    lines = ["my_pkg/run.sh,,", "my_pkg/__init__.py,,", "bin/tool,,", *(f"{info.name}/{name},," for name in own)]
    (info / "RECORD").write_text("\n".join(lines) + "\n" + extra)


def test_a_package_is_packed_as_a_wheel_with_a_record_of_its_own(tmp_path: Path) -> None:
    installed(tmp_path, tags="Tag: py2-none-any\nTag: py3-none-any\n")
    (wheel,) = pack_wheels(tmp_path)
    assert (wheel.name, wheel.version, wheel.file_name) == ("my_pkg", "1.0", "my_pkg-1.0-py2.py3-none-any.whl")
    with zipfile.ZipFile(BytesIO(wheel.content)) as packed:
        info = "my_pkg-1.0.dist-info"
        assert packed.namelist() == [
            *(f"{info}/METADATA", f"{info}/WHEEL", "my_pkg/__init__.py", "my_pkg/run.sh"),
            f"{info}/RECORD",
        ]
        digest = base64.urlsafe_b64encode(hashlib.sha256(b"x = 1\n").digest()).decode().rstrip("=")
        assert f"my_pkg/__init__.py,sha256={digest},6" in packed.read(f"{info}/RECORD").decode().splitlines()
        modes = {entry.filename: entry.external_attr >> 16 for entry in packed.infolist()}
    assert (modes["my_pkg/run.sh"], modes["my_pkg/__init__.py"]) == (0o100755, 0o100644)


def test_equal_content_is_an_equal_wheel(tmp_path: Path) -> None:
    for place in ("a", "b"):
        installed(tmp_path / place)
    assert pack_wheels(tmp_path / "a") == pack_wheels(tmp_path / "b")


def test_a_record_that_names_what_is_not_there_is_refused(tmp_path: Path) -> None:
    installed(tmp_path / "a", extra="my_pkg/gone.py,,\n")
    with pytest.raises(SourceBuildFailed, match=r"gone\.py"):
        pack_wheels(tmp_path / "a")
    installed(tmp_path / "b")
    (tmp_path / "b" / "my_pkg" / "__init__.py").unlink()
    (tmp_path / "b" / "my_pkg" / "__init__.py").symlink_to("/etc/hostname")
    with pytest.raises(SourceBuildFailed, match="leads out"):
        pack_wheels(tmp_path / "b")


def test_what_stands_outside_is_left_out(tmp_path: Path) -> None:
    installed(tmp_path, extra="../../etc/passwd,,\n/etc/passwd,,\n")
    (wheel,) = pack_wheels(tmp_path)
    assert b"passwd" not in wheel.content
