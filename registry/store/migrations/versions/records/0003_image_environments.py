"""Images that 0.1.0 built name the environment that they were built with, as later ones do: it stands in their builds' requests."""

import json
import re

import sqlalchemy as sa
from alembic import op

revision = "records_0003"
down_revision = "records_0002"
branch_labels = None
depends_on = None

_KEY = ("image_name", "image_version", "environment_name", "environment_version")


def upgrade() -> None:
    """Frozen here: later changes to the code must not change this step."""
    connection = op.get_bind()
    activities = sa.table("activities", *map(sa.column, ("id", "kind", "state", "request", "result")))
    # The request was pinned to versions before it was queued, and a number is never given twice: nothing is guessed.
    builds = sa.select(activities.c.request, activities.c.result).where(
        activities.c.kind == "image.build", activities.c.state == "succeeded"
    )
    for build in connection.execute(builds.order_by(activities.c.id)).all():
        made, used = _exact(json.loads(build.result).get("image")), _exact(json.loads(build.request).get("environment"))
        if made is not None and used is not None:
            _link(connection, made, used)


def _exact(reference: str | None) -> tuple[str, int] | None:
    pinned = re.fullmatch(r"([^:@]+):([0-9]{1,9})", reference or "")
    return None if pinned is None else (pinned[1], int(pinned[2]))


def _link(connection: sa.Connection, image: tuple[str, int], environment: tuple[str, int]) -> None:
    images = sa.table("image_versions", *map(sa.column, ("name", "version", "record")))
    environments = sa.table("environment_versions", *map(sa.column, ("name", "version")))
    links = sa.table("image_environments", *map(sa.column, _KEY))
    this_image = (images.c.name == image[0]) & (images.c.version == image[1])
    stored = connection.execute(sa.select(images.c.record).where(this_image)).scalar_one_or_none()
    this_environment = (environments.c.name == environment[0]) & (environments.c.version == environment[1])
    known = connection.execute(sa.select(environments.c.name).where(this_environment)).first()
    if stored is None or known is None:
        return
    record = json.loads(stored)
    if record.get("environment") is not None:
        return
    record["environment"] = f"{environment[0]}:{environment[1]}"
    text = json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    connection.execute(images.update().where(this_image).values(record=text))
    connection.execute(links.insert().values(dict(zip(_KEY, (*image, *environment), strict=True))))
