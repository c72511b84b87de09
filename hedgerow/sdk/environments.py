"""Environments: the Python packages that a scoring script needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from hedgerow.contracts.api import CreateEnvironment, Page
from hedgerow.contracts.environment import Environment
from hedgerow.contracts.model import AskedEnvironment, ModelManifest
from hedgerow.sdk.addresses import address
from hedgerow.sdk.errors import NoEnvironmentAsked
from hedgerow.sdk.pages import PAGE_ITEMS, WALK_ITEMS, walk
from hedgerow.sdk.requirement_files import read_conda_text, read_lines
from hedgerow.sdk.transport import Transport

_PATH = "/api/v1/environments"


class Environments:
    """``client.environments``. References are ``name``, ``name:version`` or ``name@sha256:…``.

    A name never has the same content twice: asked for again, the version that has it is the answer.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        name: str,
        requirements: Sequence[str],
        *,
        python_version: str | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> Environment:
        """A version of ``name``; ``requirements`` are lines as in requirements.txt, ``python_version`` 3.N (3.11 if None)."""
        if isinstance(requirements, str):
            raise TypeError("requirements is a list of lines, not one text; a file is read by create_from_requirements")
        return self._create(
            CreateEnvironment(
                name=name, requirements=list(requirements), python_version=python_version, variables=dict(variables or {})
            )
        )

    def create_from_requirements(
        self, name: str, path: str | Path, *, python_version: str | None = None, variables: Mapping[str, str] | None = None
    ) -> Environment:
        """From a requirements.txt; files that it names by ``-r`` are read with it.

        Raises RequirementsUnreadable, OSError, ApiError (``environment_refused``, with the line).
        """
        return self.create(name, read_lines(Path(path)), python_version=python_version, variables=variables)

    def create_from_conda(
        self, name: str, path: str | Path, *, python_version: str | None = None, variables: Mapping[str, str] | None = None
    ) -> Environment:
        """From a conda YAML file; files that it names by ``-r`` below ``pip:`` are read with it.

        ``python_version`` and ``variables`` win over those of the file.
        Raises RequirementsUnreadable, OSError, ApiError (``environment_refused``, with the line).
        """
        return self._create(
            CreateEnvironment(
                name=name, conda_file=read_conda_text(Path(path)), python_version=python_version, variables=dict(variables or {})
            )
        )

    def create_from_model(
        self, name: str, model: str, *, python_version: str | None = None, variables: Mapping[str, str] | None = None
    ) -> Environment:
        """What the model version ``model`` asks for (an MLflow folder brings that along). Raises NoEnvironmentAsked."""
        manifest = self._transport.call("GET", address("/api/v1/models", model), ModelManifest)
        if manifest.environment is None:
            raise NoEnvironmentAsked(model=f"{manifest.name}:{manifest.version}")
        return self._create(
            CreateEnvironment(
                name=name,
                conda_file=_conda_text(manifest.environment),
                python_version=python_version,
                variables=dict(variables or {}),
            )
        )

    def get(self, reference: str) -> Environment:
        return self._transport.call("GET", address(_PATH, reference), Environment)

    def list(
        self,
        limit: int = PAGE_ITEMS,
        after: str | None = None,
        *,
        name: str | None = None,
        python: str | None = None,
        digest: str | None = None,
        package: str | None = None,
    ) -> Page[Environment]:
        """Newest first. ``python`` is 3.N or 3.N.P, ``package`` one that is asked for, from pip or conda."""
        query = {"limit": limit, "after": after, "name": name, "python": python, "digest": digest, "package": package}
        return self._transport.call("GET", _PATH, Page[Environment], query=query)

    def iterate(
        self,
        *,
        name: str | None = None,
        python: str | None = None,
        digest: str | None = None,
        package: str | None = None,
    ) -> Iterator[Environment]:
        """Every version that fits, newest first, read page by page.

        >>> _ = client.environments.create("walked", ["numpy"])
        >>> _ = client.environments.create("walked", ["scipy"])
        >>> [environment.version for environment in client.environments.iterate(name="walked")]
        [2, 1]
        """
        return walk(lambda after: self.list(WALK_ITEMS, after, name=name, python=python, digest=digest, package=package))

    def delete(self, reference: str, *, force: bool = False) -> None:
        """Refused (``in_use``) while an image was built in it, unless an owner forces it."""
        self._transport.delete(address(_PATH, reference), query={"force": True} if force else None)

    def _create(self, request: CreateEnvironment) -> Environment:
        return self._transport.call("POST", _PATH, Environment, body=request)


def _conda_text(asked: AskedEnvironment) -> str:
    """As a conda file: JSON is YAML too."""
    python = [f"python={asked.python_version}"] if asked.python_version else []
    pip = [{"pip": asked.requirements}] if asked.requirements else []
    file = {"channels": asked.channels, "dependencies": [*python, *asked.conda_packages, *pip]}
    return msgspec.json.encode(file).decode()
