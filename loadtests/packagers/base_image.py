"""The base that every packager gets: Debian with Python and pip, under the names of the public images that the peers ask for.

The root file system is the tests' (debootstrap); its Python is Debian's. Apt is set as in Debian's own images for containers.
Builds reach package indexes as the caller does: with the caller's certificates, index and proxies, taken from the environment.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from loadtests.packagers.engine import Docker, run
from tests.fixtures.base_image import base_tar
from tests.fixtures.parts import program

_CERTIFICATES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")
_INDEXES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
_IN_IMAGE = "/etc/callers-certificates.pem"
_ROOT = "bench-root:1"
_CLEAN = "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"
_APT = f"""\
Acquire::Languages "none";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
DPkg::Post-Invoke {{ "{_CLEAN}"; }};
APT::Update::Post-Invoke {{ "{_CLEAN}"; }};
"""
_PIP = """\
COPY apt.conf /etc/apt/apt.conf.d/docker-clean
RUN apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends python3-pip \\
 && rm -rf /var/lib/apt/lists/* /usr/lib/python3*/EXTERNALLY-MANAGED && ln -s python3 /usr/bin/python
"""


@dataclass(frozen=True)
class CallersNetwork:
    """How the caller's own pip and uv reach an index; ``certificates`` is a file."""

    certificates: Path | None
    variables: Mapping[str, str]

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> CallersNetwork:
        file = next((Path(environment[name]) for name in _CERTIFICATES if environment.get(name)), None)
        given = {name: environment[name] for name in _PROXIES if environment.get(name)}
        index = next((environment[name] for name in _INDEXES if environment.get(name)), None)
        if index is not None:
            given |= {"PIP_INDEX_URL": index, "UV_DEFAULT_INDEX": index}
        if file is not None:
            given |= dict.fromkeys(_CERTIFICATES, _IN_IMAGE)
        return cls(file, given)


def dockerfile(network: CallersNetwork) -> str:
    """For a folder with ``apt.conf`` and, if there are any, the caller's certificates as ``certificates.pem``."""
    copied = f"COPY certificates.pem {_IN_IMAGE}\n" if network.certificates else ""
    said = "".join(f'ENV {name}="{value}"\n' for name, value in sorted(network.variables.items()))
    return f"FROM {_ROOT}\n{copied}{said}{_PIP}"


def names(python_version: str) -> tuple[str, ...]:
    """What the peers write behind FROM for this Python: ``3.11.7`` gives ``python:3.11.7-slim`` and ``python:3.11-slim``."""
    return f"python:{python_version}-slim", f"python:{python_version.rpartition('.')[0]}-slim"


def make_base(docker: Docker, folder: Path, network: CallersNetwork) -> str:
    """Put the base into the engine under its names, and as an OCI layout into ``folder/base``; the reference of that."""
    place = folder / "base-context"
    place.mkdir()
    (place / "apt.conf").write_text(_APT)
    (place / "Dockerfile").write_text(dockerfile(network))
    if network.certificates:
        shutil.copyfile(network.certificates, place / "certificates.pem")
    docker.tell("import", "--change", 'CMD ["python3"]', str(base_tar()), _ROOT)
    tags = [word for name in names(platform.python_version()) for word in ("--tag", name)]
    docker.tell("build", "--network", "host", *tags, str(place))
    archive = folder / "base.tar"
    docker.tell("save", "--output", str(archive), names(platform.python_version())[1])
    skopeo = [program("skopeo"), "--insecure-policy", "copy", "--quiet", f"docker-archive:{archive}", f"oci:{folder}/base"]
    run(skopeo, folder, docker.variables)
    archive.unlink()
    return f"oci:{folder}/base"
