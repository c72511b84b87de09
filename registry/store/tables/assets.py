"""Models, environments, images and how they point at each other."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, ForeignKeyConstraint, Index, Integer, Table, Text

from registry.store.tables.metadata import RECORDS, states

model_names = Table(
    "model_names",
    RECORDS,
    Column("name", Text, primary_key=True),
    Column("last_version", Integer, nullable=False),  # never goes down: a deleted number is never used again
)

model_versions = Table(
    "model_versions",
    RECORDS,
    Column("name", Text, ForeignKey("model_names.name"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("digest", Text, nullable=False, index=True),
    Column("framework", Text, nullable=False),
    Column("run_id", Text, ForeignKey("runs.id"), index=True),
    Column("manifest", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("revision", Integer, nullable=False, server_default="1"),
    Column("source_commit", Text, index=True),
    # Set by a forced deletion: the files are gone, the row stays so that what was made from it can say so.
    Column("deleted_at", Text),
    Column("deleted_by", Text),
    Index(None, "created_at", "name", "version"),
    Index(None, "name", "created_at", "version"),
    Index(None, "framework", "created_at", "name", "version"),
)
_DELETED = model_versions.c.deleted_at.is_not(None)
# Tombstones are few: this finds them, and costs the others nothing.
Index(None, model_versions.c.deleted_at, sqlite_where=_DELETED, postgresql_where=_DELETED)

model_files = Table(
    "model_files",
    RECORDS,
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("digest", Text, ForeignKey("blobs.digest"), nullable=False, index=True),
    ForeignKeyConstraint(["name", "version"], ["model_versions.name", "model_versions.version"], ondelete="CASCADE"),
)

model_samples = Table(
    "model_samples",
    RECORDS,
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("digest", Text, ForeignKey("blobs.digest"), nullable=False, index=True),
    ForeignKeyConstraint(["name", "version"], ["model_versions.name", "model_versions.version"], ondelete="CASCADE"),
)
"""The sample input of a model version."""

model_labels = Table(
    "model_labels",
    RECORDS,
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("lookup", Text, nullable=False),  # the value, or its digest when it is long: an index entry must stay small
    Column("created_at", Text, nullable=False),  # the version's, so that one index finds and sorts
    ForeignKeyConstraint(["name", "version"], ["model_versions.name", "model_versions.version"], ondelete="CASCADE"),
    states("kind", "tag", "property"),
    Index(None, "kind", "key", "lookup", "created_at", "name", "version"),
)

model_words = Table(
    "model_words",
    RECORDS,
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    # By code point, whatever the database's own order is: the words that begin alike must stand together.
    Column("word", Text().with_variant(Text(collation="C"), "postgresql"), primary_key=True),
    Column("created_at", Text, nullable=False),
    ForeignKeyConstraint(["name", "version"], ["model_versions.name", "model_versions.version"], ondelete="CASCADE"),
    Index(None, "word", "created_at", "name", "version"),
)
"""The words of a version's name, description, framework and tags: text search with one index, on either database."""

model_aliases = Table(
    "model_aliases",
    RECORDS,
    Column("name", Text, primary_key=True),
    Column("alias", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("protected", Integer, nullable=False, server_default="0"),
    Column("revision", Integer, nullable=False, server_default="1"),
    Column("updated_at", Text, nullable=False),
    Column("updated_by", Text, nullable=False, server_default=""),
    # No cascade: a version that an alias names cannot be dropped.
    ForeignKeyConstraint(["name", "version"], ["model_versions.name", "model_versions.version"]),
    Index(None, "name", "version"),
    Index(None, "alias", "name", "version"),
)

model_data = Table(
    "model_data",
    RECORDS,
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("data_name", Text, primary_key=True),
    Column("digest", Text, nullable=False, index=True),
    ForeignKeyConstraint(["name", "version"], ["model_versions.name", "model_versions.version"], ondelete="CASCADE"),
    Index(None, "data_name", "digest"),
)
"""Data sets that a version was made from, by digest; their content lies elsewhere."""

model_packs = Table(
    "model_packs",
    RECORDS,
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("manifest_digest", Text, ForeignKey("blobs.digest"), nullable=False, index=True),
    Column("config_digest", Text, ForeignKey("blobs.digest"), nullable=False, index=True),
    ForeignKeyConstraint(["name", "version"], ["model_versions.name", "model_versions.version"], ondelete="CASCADE"),
)
"""A version as an OCI artifact, written at its first pull and never again."""

model_conversions = Table(
    "model_conversions",
    RECORDS,
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("source_name", Text, primary_key=True),
    Column("source_version", Integer, primary_key=True),
    # Of the converter: everything that decided what it made. Of the request: so that it need not be asked again.
    Column("conversion_key", Text, nullable=False, index=True),
    Column("asked", Text, nullable=False, index=True),
    ForeignKeyConstraint(["name", "version"], ["model_versions.name", "model_versions.version"], ondelete="CASCADE"),
    # No cascade: the database itself refuses to drop a model that another was made from.
    ForeignKeyConstraint(
        ["source_name", "source_version"],
        ["model_versions.name", "model_versions.version"],
        name="fk_model_conversions_source",  # the made-up name is too long for PostgreSQL
    ),
    Index(None, "source_name", "source_version"),
)
"""Which version was converted from which: a conversion is made once, for every version with the same content."""

environment_names = Table(
    "environment_names", RECORDS, Column("name", Text, primary_key=True), Column("last_version", Integer, nullable=False)
)

environment_versions = Table(
    "environment_versions",
    RECORDS,
    Column("name", Text, ForeignKey("environment_names.name"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("deleted_at", Text),
    Column("deleted_by", Text),
    Index(None, "name", "digest"),
    Index(None, "created_at", "name", "version"),
)

image_names = Table(
    "image_names", RECORDS, Column("name", Text, primary_key=True), Column("last_version", Integer, nullable=False)
)

image_versions = Table(
    "image_versions",
    RECORDS,
    Column("name", Text, ForeignKey("image_names.name"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("digest", Text, nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("record", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("revision", Integer, nullable=False, server_default="1"),
    Column("deleted_at", Text),
    Column("deleted_by", Text),
    states("kind", "onnx", "docker", "fpga"),
    Index(None, "created_at", "name", "version"),
)

image_models = Table(
    "image_models",
    RECORDS,
    Column("image_name", Text, primary_key=True),
    Column("image_version", Integer, primary_key=True),
    Column("model_name", Text, primary_key=True),
    Column("model_version", Integer, primary_key=True),
    ForeignKeyConstraint(["image_name", "image_version"], ["image_versions.name", "image_versions.version"], ondelete="CASCADE"),
    # No cascade: the database itself refuses to drop a model that an image is made of.
    ForeignKeyConstraint(["model_name", "model_version"], ["model_versions.name", "model_versions.version"]),
    Index(None, "model_name", "model_version"),
)

image_blobs = Table(
    "image_blobs",
    RECORDS,
    Column("image_name", Text, primary_key=True),
    Column("image_version", Integer, primary_key=True),
    Column("digest", Text, ForeignKey("blobs.digest"), primary_key=True),
    Column("media_type", Text, nullable=False),
    ForeignKeyConstraint(["image_name", "image_version"], ["image_versions.name", "image_versions.version"], ondelete="CASCADE"),
    Index(None, "digest"),
)

image_environments = Table(
    "image_environments",
    RECORDS,
    Column("image_name", Text, primary_key=True),
    Column("image_version", Integer, primary_key=True),
    Column("environment_name", Text, nullable=False),
    Column("environment_version", Integer, nullable=False),
    ForeignKeyConstraint(["image_name", "image_version"], ["image_versions.name", "image_versions.version"], ondelete="CASCADE"),
    ForeignKeyConstraint(
        ["environment_name", "environment_version"],
        ["environment_versions.name", "environment_versions.version"],
        name="fk_image_environments_environment",  # the made-up name is too long for PostgreSQL
    ),
    Index(None, "environment_name", "environment_version"),
)

image_referrers = Table(
    "image_referrers",
    RECORDS,
    Column("image_name", Text, primary_key=True),
    Column("image_version", Integer, primary_key=True),
    Column("digest", Text, primary_key=True),  # also in image_blobs, with everything that it leads to
    Column("subject", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("artifact_type", Text, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("annotations", Text, nullable=False, server_default="{}"),
    ForeignKeyConstraint(["image_name", "image_version"], ["image_versions.name", "image_versions.version"], ondelete="CASCADE"),
    Index(None, "image_name", "subject"),
)

# What was pushed into a repository and is no image's yet; it goes with its blob, whose lease alone holds it.
pushed_blobs = Table(
    "pushed_blobs",
    RECORDS,
    Column("repository", Text, primary_key=True),
    Column("digest", Text, ForeignKey("blobs.digest", ondelete="CASCADE"), primary_key=True),
    Column("media_type", Text, nullable=False),
    Column("subject", Text),
    Column("referrer", Text),
    Column("expires_at", Text, nullable=False, index=True),
    Index(None, "digest"),
    Index(None, "repository", "subject"),
)
