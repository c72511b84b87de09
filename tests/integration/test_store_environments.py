"""Environments in the store: equal content is one version, digests stay what they were, what images need stays."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from hedgerow.contracts.api import CreateEnvironment
from hedgerow.contracts.api_images import BuildImage
from hedgerow.contracts.environment import Environment
from hedgerow.contracts.events import Actor
from hedgerow.contracts.names import Reference
from registry.errors import EnvironmentRefused, InUse, InvalidPage, RecordDeleted, RecordNotFound
from registry.store import activities, environments
from registry.store.database import Database
from registry.store.environments import Wanted
from registry.store.tables import environment_versions, image_environments, image_versions
from tests.registry_stores import BACKENDS, NOW, add_image, after, ready_database

OWNER = Actor(id="t", name="ann", role="owner")
CONDA = "channels: [conda-forge]\ndependencies: [python=3.10, numpy=1.26, {pip: [requests]}]\nvariables: {A: '1'}\n"


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    with ready_database(tmp_path / "workspace", url) as opened:
        yield opened


def make(database: Database, name: str = "e", *requirements: str, seconds: float = 0, **facts: Any) -> Environment:
    with database.write() as connection:
        request = CreateEnvironment(name=name, requirements=list(requirements), **facts)
        return environments.create(connection, request, after(seconds)).environment


def build_in(database: Database, environment: Environment, name: str = "built") -> None:
    """An image that was built in ``environment``."""
    with database.write() as connection:
        image = add_image(connection, name)
        connection.execute(
            image_environments.insert().values(
                image_name=image.name,
                image_version=image.version,
                environment_name=environment.name,
                environment_version=environment.version,
            )
        )


def test_a_name_never_has_the_same_content_twice(database: Database) -> None:
    first = make(database, "e", "numpy==1.26")
    second = make(database, "e", "numpy==1.27", seconds=1)
    again = make(database, "e", "  numpy==1.26  # the same", "", seconds=2)
    assert [first.version, second.version, again.version] == [1, 2, 1]
    assert again == first
    # No number was lost on the way.
    assert make(database, "e", "scipy", seconds=3).version == 3
    # Another order is another content, and so is another name.
    assert make(database, "e", "b", "a").digest != make(database, "e", "a", "b").digest
    assert make(database, "f", "numpy==1.26").version == 1


def test_digests_are_those_of_the_first_release(database: Database) -> None:
    """Recorded from the code before conda: what was registered then is still recognised."""
    plain = make(database, "e", "numpy==1.26", python_version="3.11", variables={"A": "1"})
    assert plain.digest == "sha256:7080e4988f5b2de112055a84007aed2b2b32bfc29621afb26e89fcbdc2cdb35e"
    assert make(database, "e", "numpy==1.26", variables={"A": "1"}) == plain
    of_file = make(database, "e", conda_file="dependencies: [{pip: [numpy==1.26]}]\nvariables: {A: 1}\n")
    assert of_file == plain, "a conda file without conda packages asks for the same"


def test_a_conda_file_is_taken_apart(database: Database) -> None:
    made = make(database, conda_file=CONDA)
    assert (made.python_version, made.requirements, made.conda_packages, made.channels, made.variables) == (
        "3.10",
        ["requests"],
        ["numpy=1.26"],
        ["conda-forge"],
        {"A": "1"},
    )
    other = make(database, conda_file=CONDA, python_version="3.12", variables={"A": "2", "B": "3"})
    assert (other.python_version, other.variables) == ("3.12", {"A": "2", "B": "3"}), "what was asked for beside the file wins"
    assert len({made.digest, other.digest, make(database, conda_file=CONDA.replace("conda-forge", "defaults")).digest}) == 3
    with pytest.raises(EnvironmentRefused, match="beside a conda file"):
        make(database, "e", "numpy", conda_file=CONDA)
    with pytest.raises(EnvironmentRefused, match="Python version"):
        make(database, python_version="2.7")


def test_what_was_refused_leaves_no_number_behind(database: Database) -> None:
    with pytest.raises(EnvironmentRefused):
        make(database, "e", "numpy=1")
    assert make(database, "e", "numpy").version == 1


def test_two_at_once_agree_on_one_version(database: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: make(database, "e", f"numpy=={number % 2}"), range(16)))
    assert {environment.version for environment in made} == {1, 2}
    assert len({(environment.version, environment.digest) for environment in made}) == 2


def test_filters_and_pages(database: Database) -> None:
    for number in range(6):
        make(database, f"e{number % 2}", f"Scikit_Learn=={number}", seconds=number, python_version=f"3.{10 + number % 3}.1")
    make(database, "other", "scikit-learn-intelex", 'scipy; python_version < "3.11"', seconds=7)
    made = make(database, "conda", conda_file="dependencies: [conda-forge::scikit-learn=1.4]", seconds=8)

    def found(limit: int = 100, at: str | None = None, **wanted: Any) -> tuple[list[str], str | None]:
        with database.read() as connection:
            page, following = environments.newest(connection, limit, at, wanted=Wanted(**wanted))
        return [f"{environment.name}:{environment.version}" for environment in page], following

    assert found(name="e0")[0] == ["e0:3", "e0:2", "e0:1"]
    assert found(name="e*", python="3.12")[0] == ["e1:3", "e0:2"]
    assert found(python="3.12")[0] == ["e1:3", "e0:2"]
    assert found(python="3.12.1")[0] == ["e1:3", "e0:2"]
    assert found(python="3.12.2")[0] == []
    assert found(digest=made.digest) == (["conda:1"], None)
    everything = ["conda:1", "e1:3", "e0:3", "e1:2", "e0:2", "e1:1", "e0:1"]
    assert found(package="scikit.LEARN")[0] == everything
    assert found(package="scikit-learn-intelex")[0] == ["other:1"]
    assert found(package="learn")[0] == []
    paged, at = [], None
    while True:
        some, at = found(2, at, package="scikit-learn")
        paged += some
        if at is None:
            break
    assert paged == everything
    with database.read() as connection:
        for wrong in ("", "a b", "a==1", "x::y", "%", "n" * 300):
            with pytest.raises(EnvironmentRefused):
                environments.newest(connection, 1, wanted=Wanted(package=wrong))
        with pytest.raises(EnvironmentRefused):
            environments.newest(connection, 1, wanted=Wanted(python="3.11%"))
        with pytest.raises(InvalidPage):
            environments.newest(connection, 1, "x")


def test_an_environment_that_an_image_needs_stays(database: Database) -> None:
    environment = make(database, "e", "numpy")
    build_in(database, environment)
    reference = Reference("e", 1)
    with database.write() as connection, pytest.raises(InUse, match=r"Environment e:1 is used by image built:1"):
        environments.delete_version(connection, reference, OWNER, NOW)
    with database.write() as connection:
        deleted = environments.force_delete(connection, reference, OWNER, NOW)
    assert deleted.users == ["image built:1"]
    with database.read() as connection:
        for gone in (reference, Reference("e", 1, environment.digest)):
            with pytest.raises(RecordDeleted, match="environment e:1 was deleted by ann at 2026-11-21"):
                environments.get(connection, gone)
        for gone in (Reference("e"), Reference("e", digest=environment.digest)):
            with pytest.raises(RecordNotFound, match="There is no environment"):
                environments.get(connection, gone)
        assert environments.newest(connection, 10) == ([], None)
        row = connection.execute(select(environment_versions.c.deleted_by)).one()
        assert row.deleted_by == OWNER.text()
    # The content comes back under a number of its own.
    assert make(database, "e", "numpy").version == 2


def test_numbers_of_the_deleted_are_not_used_again(database: Database) -> None:
    make(database, "e", "a")
    make(database, "e", "b")
    with database.write() as connection:
        environments.delete_version(connection, Reference("e", 2), OWNER, NOW)
        assert environments.force_delete(connection, Reference("e", 1), OWNER, NOW).users == []
        assert connection.execute(select(environment_versions)).all() == [], "what nothing names leaves nothing"
        with pytest.raises(RecordNotFound):
            environments.delete_version(connection, Reference("e", 2), OWNER, NOW)
    assert make(database, "e", "b").version == 3


def test_an_image_that_is_gone_itself_holds_nothing_but_its_row(database: Database) -> None:
    environment = make(database, "e", "a")
    build_in(database, environment)
    with database.write() as connection:
        connection.execute(image_versions.update().values(deleted_at="2026-11-21T00:00:00Z", deleted_by="x"))
        environments.delete_version(connection, Reference("e", 1), OWNER, NOW)
    with database.read() as connection, pytest.raises(RecordDeleted, match="deleted by ann at 2026-11-21T08:00:00"):
        environments.get(connection, Reference("e", 1))


def test_aliases_are_for_models(database: Database) -> None:
    make(database, "e", "a")
    with database.read() as connection, pytest.raises(RecordNotFound):
        environments.get(connection, Reference("e", alias="champion"))


def test_an_environment_that_a_waiting_build_needs_stays(database: Database) -> None:
    make(database, "e", "a")
    make(database, "e", "b")
    request = BuildImage(name="soon", models=["m:1"], environment="e:1")
    with database.write() as connection:
        made = activities.create(connection, kind="image.build", subject="soon", request=request, now=NOW)
        with pytest.raises(InUse, match=f"the build of image soon \\(activity {made}\\)"):
            environments.delete_version(connection, Reference("e", 1), OWNER, NOW)
        environments.delete_version(connection, Reference("e", 2), OWNER, NOW)


def test_many_users_are_not_all_named(database: Database) -> None:
    environment = make(database, "e", "a")
    for number in range(22):
        build_in(database, environment, f"image-{number:02}")
    with database.read() as connection:
        users = environments.users_of(connection, "e", 1)
    assert (len(users), users[0], users[-1]) == (21, "image image-00:1", "and 2 more")
