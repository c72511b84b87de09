"""Endpoints and deployments: what people asked for, and what the controller last saw of it.

The server writes what is wanted (image, settings, traffic), the controller what is (state, reason, replicas, scoring URL);
neither touches the other's columns. An endpoint lives as long as it has a deployment: whoever removes the last one
removes it too. A deployment that shall go is ``deleting`` until its last replica is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, delete, select, update

from hedgerow.contracts.api import DeployImage, SetTraffic
from hedgerow.contracts.document import encode
from hedgerow.contracts.image import ImageRecord
from hedgerow.contracts.names import Reference, check_known_name, check_name
from hedgerow.contracts.service import Deployment, DeploymentSettings, DeploymentState, Endpoint, ImagePin, ReplicaStatus
from registry.errors import DeploymentRefused, RecordNotFound, RevisionConflict, StillServing, TrafficRefused
from registry.store import activities, images
from registry.store.leases import Lease
from registry.store.leases import check as check_lease
from registry.store.matching import name_matches
from registry.store.tables import deployments, endpoints, image_versions
from registry.store.time_text import from_text, to_text
from registry.store.upsert import insert

DEPLOY = "service.deploy"
_ALL_PERCENT = 100


class DeployTask(msgspec.Struct, frozen=True, kw_only=True):
    """The request of a ``service.deploy`` activity: which revision of which deployment it waits for."""

    endpoint: str
    deployment: str
    revision: int


@dataclass(frozen=True)
class Progress:
    """What the controller has to say about one deployment."""

    state: DeploymentState
    reason: str
    replicas: tuple[ReplicaStatus, ...]


def deploy(connection: Connection, endpoint: str, name: str, wanted: DeployImage, now: datetime) -> str:
    """Put ``wanted`` under ``endpoint``; returns the id of the activity that follows it. Both are made where missing.

    The first deployment of an endpoint gets all traffic. Raises RecordNotFound (the image), DeploymentRefused, InvalidName.
    """
    check_known_name(endpoint, "endpoint")
    check_known_name(name, "deployment")
    image = images.hold(connection, Reference.parse(wanted.image))
    _check_can_run(endpoint, name, image, wanted.settings)
    _put_endpoint(connection, endpoint, name, now)
    revision = _put_deployment(connection, endpoint, name, image, wanted.settings, now)
    task = DeployTask(endpoint=endpoint, deployment=name, revision=revision)
    return activities.create(connection, kind=DEPLOY, subject=f"{endpoint}/{name}", request=task, now=now)


def get(connection: Connection, name: str) -> Endpoint:
    """Raises RecordNotFound, also for an endpoint that is going; InvalidName."""
    check_known_name(name, "endpoint")
    row = connection.execute(select(endpoints).where(endpoints.c.name == name)).one_or_none()
    found = None if row is None else _endpoint(row, _deployments_of(connection, [name]))
    if found is None or _going(found):
        raise RecordNotFound(kind="endpoint", name=name[:128], command="service")
    return found


def find_deployment(connection: Connection, endpoint: str, name: str) -> Deployment | None:
    """None when it is not there, or going. Raises InvalidName."""
    check_known_name(endpoint, "endpoint")
    check_known_name(name, "deployment")
    here = (deployments.c.endpoint == endpoint) & (deployments.c.name == name) & (deployments.c.state != "deleting")
    row = connection.execute(_deployment_query().where(here)).one_or_none()
    return None if row is None else _deployment(row)


def lock(connection: Connection, name: str) -> None:
    """Nobody else changes this endpoint, or what is below it, before this transaction ends. Raises InvalidName."""
    _lock_endpoint(connection, name)


def newest(
    connection: Connection, limit: int, after: str | None = None, *, name: str | None = None, state: str | None = None
) -> tuple[list[Endpoint], str | None]:
    """By name, with the ``after`` of the following page (None at the end). ``state`` is that of any deployment."""
    staying = deployments.c.state == state if state is not None else deployments.c.state != "deleting"
    there = select(deployments.c.name).where(deployments.c.endpoint == endpoints.c.name, staying)
    query = select(endpoints).where(there.exists()).order_by(endpoints.c.name).limit(limit + 1)
    if name is not None:
        query = query.where(name_matches(endpoints.c.name, name, "endpoint"))
    if after is not None:
        query = query.where(endpoints.c.name > check_known_name(after, "endpoint"))
    rows = list(connection.execute(query))
    page = rows[:limit]
    below = _deployments_of(connection, [row.name for row in page])
    return [_endpoint(row, below) for row in page], page[-1].name if len(rows) > limit else None


def set_traffic(connection: Connection, name: str, wanted: SetTraffic) -> Endpoint:
    """Split the traffic anew. Raises RecordNotFound, RevisionConflict (somebody was quicker), TrafficRefused."""
    _lock_endpoint(connection, name)
    endpoint = get(connection, name)
    if endpoint.revision != wanted.revision:
        raise RevisionConflict(kind="endpoint", name=name, found=endpoint.revision, expected=wanted.revision)
    check_traffic(endpoint, wanted.traffic)
    traffic = {deployment: percent for deployment, percent in wanted.traffic.items() if percent}
    _write_traffic(connection, endpoint.name, traffic, endpoint.revision + 1)
    return get(connection, name)


def check_traffic(endpoint: Endpoint, traffic: Mapping[str, int]) -> None:
    """Raises TrafficRefused unless ``traffic`` sums to 100 over deployments that stay."""
    there = {deployment.name for deployment in endpoint.deployments if deployment.state != "deleting"}
    for name, percent in traffic.items():
        if percent and name not in there:
            raise TrafficRefused(endpoint=endpoint.name, problem=f"it has no deployment {name[:128]!r}")
    total = sum(traffic.values())
    if total != _ALL_PERCENT:
        raise TrafficRefused(endpoint=endpoint.name, problem=f"the percentages sum to {total}, not to 100")


def delete_endpoint(connection: Connection, name: str) -> None:
    """Let the endpoint and everything below it go. Raises RecordNotFound."""
    _lock_endpoint(connection, name)
    endpoint = get(connection, name)
    _write_traffic(connection, name, {}, endpoint.revision + 1)
    connection.execute(
        update(deployments)
        .where(deployments.c.endpoint == name)
        .values(state="deleting", reason="", revision=deployments.c.revision + 1)
    )


def delete_deployment(connection: Connection, endpoint: str, name: str) -> None:
    """Let one deployment go; with the last one goes the endpoint. Raises RecordNotFound, StillServing."""
    _lock_endpoint(connection, endpoint)
    found = get(connection, endpoint)
    staying = {deployment.name for deployment in found.deployments if deployment.state != "deleting"}
    if name not in staying:
        raise RecordNotFound(kind="deployment", name=f"{endpoint}/{name[:128]}", command="service")
    if staying == {name}:
        return delete_endpoint(connection, endpoint)
    if percent := found.traffic.get(name, 0):
        raise StillServing(endpoint=endpoint, name=name, percent=percent)
    here = (deployments.c.endpoint == endpoint) & (deployments.c.name == name)
    connection.execute(update(deployments).where(here).values(state="deleting", reason="", revision=deployments.c.revision + 1))
    return _write_traffic(connection, endpoint, found.traffic, found.revision + 1)


# --- the controller's half ---------------------------------------------------------------------------------------------


def everything(connection: Connection) -> list[Endpoint]:
    """Every endpoint with every deployment, those that are going included."""
    rows = list(connection.execute(select(endpoints).order_by(endpoints.c.name)))
    below = _group(connection.execute(_deployment_query()))
    return [_endpoint(row, below) for row in rows]


def report(connection: Connection, lease: Lease, seen: Deployment, progress: Progress) -> bool:
    """Write what the controller sees, unless somebody changed the deployment meanwhile (False). Raises LeaseLost."""
    check_lease(connection, lease)
    here = (deployments.c.endpoint == seen.endpoint) & (deployments.c.name == seen.name)
    done = connection.execute(
        update(deployments)
        .where(here, deployments.c.revision == seen.revision)
        .values(state=progress.state, reason=progress.reason, replicas=msgspec.json.encode(progress.replicas).decode())
    )
    return done.rowcount > 0


def report_url(connection: Connection, lease: Lease, endpoint: str, scoring_url: str | None) -> None:
    """Write under which URL the endpoint can be scored. Raises LeaseLost."""
    check_lease(connection, lease)
    connection.execute(update(endpoints).where(endpoints.c.name == endpoint).values(scoring_url=scoring_url))


def remove(connection: Connection, lease: Lease, seen: Deployment) -> bool:
    """Forget a deployment whose last replica is gone, and an endpoint with its last deployment. Raises LeaseLost.

    False when somebody wants it again.
    """
    check_lease(connection, lease)
    _lock_endpoint(connection, seen.endpoint)
    here = (deployments.c.endpoint == seen.endpoint) & (deployments.c.name == seen.name)
    gone = connection.execute(delete(deployments).where(here, deployments.c.revision == seen.revision)).rowcount
    left = connection.execute(select(deployments.c.name).where(deployments.c.endpoint == seen.endpoint).limit(1)).first()
    if left is None:
        connection.execute(delete(endpoints).where(endpoints.c.name == seen.endpoint))
    return gone > 0


# --- below -------------------------------------------------------------------------------------------------------------


def _check_can_run(endpoint: str, name: str, image: ImageRecord, settings: DeploymentSettings) -> None:
    if settings.target != "process":
        problem = f"this version runs replicas as processes of its own machine, not on target {settings.target}"
        advice = "Use target process with an image of kind onnx."
    elif image.kind not in ("onnx", "fpga"):
        problem = f"target process runs images of kind onnx or fpga, and {image.name}:{image.version} is of kind {image.kind}"
        advice = f"Build the same models with --kind onnx, or run it yourself: docker run {image.name}:{image.version}"
    else:
        return
    raise DeploymentRefused(endpoint=endpoint, name=name, problem=problem, advice=advice)


def _put_endpoint(connection: Connection, endpoint: str, deployment: str, now: datetime) -> None:
    row = _lock_endpoint(connection, endpoint)
    if row is None:
        check_name(endpoint, "endpoint")
    while row is None:
        traffic = msgspec.json.encode({deployment: _ALL_PERCENT}).decode()
        first = insert(connection, endpoints).values(name=endpoint, revision=1, traffic=traffic, created_at=to_text(now))
        added = first.on_conflict_do_nothing(index_elements=[endpoints.c.name]).returning(endpoints.c.name)
        if connection.execute(added).one_or_none() is not None:
            return
        # Somebody else made it just now; it may be gone again before it is held here.
        row = _lock_endpoint(connection, endpoint)
    traffic_now = msgspec.json.decode(row.traffic, type=dict[str, int])
    _write_traffic(connection, endpoint, traffic_now or {deployment: _ALL_PERCENT}, row.revision + 1)


def _put_deployment(
    connection: Connection, endpoint: str, name: str, image: ImageRecord, settings: DeploymentSettings, now: datetime
) -> int:
    here = (deployments.c.endpoint == endpoint) & (deployments.c.name == name)
    row = connection.execute(select(deployments).where(here).with_for_update()).one_or_none()
    if row is None:
        check_name(name, "deployment")
    values = {
        "image_name": image.name,
        "image_version": image.version,
        "settings": encode(settings).decode(),
        "state": "starting",
        "reason": "",
    }
    if row is None:
        values |= {"endpoint": endpoint, "name": name, "created_at": to_text(now)}
        connection.execute(deployments.insert().values(revision=1, **values))
        return 1
    connection.execute(update(deployments).where(here).values(revision=row.revision + 1, **values))
    return int(row.revision) + 1


def _write_traffic(connection: Connection, endpoint: str, traffic: Mapping[str, int], revision: int) -> None:
    text = msgspec.json.encode(traffic, order="sorted").decode()
    connection.execute(update(endpoints).where(endpoints.c.name == endpoint).values(traffic=text, revision=revision))


def _lock_endpoint(connection: Connection, name: str) -> Row[Any] | None:
    """The endpoint's row orders everybody who changes it or what is below it."""
    check_known_name(name, "endpoint")
    return connection.execute(select(endpoints).where(endpoints.c.name == name).with_for_update()).one_or_none()


def _going(endpoint: Endpoint) -> bool:
    return all(deployment.state == "deleting" for deployment in endpoint.deployments)


def _deployment_query() -> Select[Any]:
    pinned = (image_versions.c.name == deployments.c.image_name) & (image_versions.c.version == deployments.c.image_version)
    return (
        select(deployments, image_versions.c.digest, image_versions.c.kind)
        .join(image_versions, pinned)
        .order_by(deployments.c.endpoint, deployments.c.created_at, deployments.c.name)
    )


def _deployments_of(connection: Connection, names: list[str]) -> dict[str, list[Deployment]]:
    if not names:
        return {}
    return _group(connection.execute(_deployment_query().where(deployments.c.endpoint.in_(names))))


def _group(rows: Iterable[Row[Any]]) -> dict[str, list[Deployment]]:
    found: dict[str, list[Deployment]] = {}
    for row in rows:
        found.setdefault(row.endpoint, []).append(_deployment(row))
    return found


def _deployment(row: Row[Any]) -> Deployment:
    return Deployment(
        endpoint=row.endpoint,
        name=row.name,
        revision=row.revision,
        image=ImagePin(name=row.image_name, version=row.image_version, digest=row.digest, kind=row.kind),
        settings=msgspec.json.decode(row.settings, type=DeploymentSettings),
        state=row.state,
        reason=row.reason,
        replicas=msgspec.json.decode(row.replicas, type=list[ReplicaStatus]),
        created_at=from_text(row.created_at),
    )


def _endpoint(row: Row[Any], below: Mapping[str, list[Deployment]]) -> Endpoint:
    return Endpoint(
        name=row.name,
        revision=row.revision,
        traffic=msgspec.json.decode(row.traffic, type=dict[str, int]),
        scoring_url=row.scoring_url,
        deployments=below.get(row.name, []),
        created_at=from_text(row.created_at),
    )
