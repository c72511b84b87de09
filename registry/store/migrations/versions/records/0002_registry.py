"""The registry in full: labels and words to search by, aliases, samples, packs, data sets, chunk hashes, upload leases,
events, webhooks, secrets, idempotency keys, tombstones of forced deletions."""

import hashlib
import json
import re
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "records_0002"
down_revision = "records_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('events',
    sa.Column('number', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
    sa.Column('transaction_id', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('at', sa.Text(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('subject', sa.Text(), nullable=False),
    sa.Column('actor', sa.Text(), nullable=False),
    sa.Column('details', sa.Text(), server_default='{}', nullable=False),
    sa.PrimaryKeyConstraint('number', name='pk_events')
    )
    op.create_index('ix_events_actor_transaction_id_number', 'events', ['actor', 'transaction_id', 'number'], unique=False)
    op.create_index('ix_events_kind_transaction_id_number', 'events', ['kind', 'transaction_id', 'number'], unique=False)
    op.create_index('ix_events_subject_transaction_id_number', 'events', ['subject', 'transaction_id', 'number'], unique=False)
    op.create_index('ix_events_transaction_id_number', 'events', ['transaction_id', 'number'], unique=False)
    op.create_table('idempotency_keys',
    sa.Column('token_id', sa.Text(), nullable=False),
    sa.Column('key', sa.Text(), nullable=False),
    sa.Column('request_digest', sa.Text(), nullable=False),
    sa.Column('status', sa.Integer(), nullable=False),
    sa.Column('answer', sa.Text(), nullable=False),
    sa.Column('created_at', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('token_id', 'key', name='pk_idempotency_keys')
    )
    op.create_index('ix_idempotency_keys_created_at', 'idempotency_keys', ['created_at'], unique=False)
    op.create_table('secrets',
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('key_id', sa.Text(), nullable=False),
    sa.Column('sealed', sa.LargeBinary(), nullable=False),
    sa.Column('revision', sa.Integer(), server_default='1', nullable=False),
    sa.Column('created_at', sa.Text(), nullable=False),
    sa.Column('updated_at', sa.Text(), nullable=False),
    sa.Column('updated_by', sa.Text(), server_default='', nullable=False),
    sa.PrimaryKeyConstraint('name', name='pk_secrets')
    )
    op.create_table('webhooks',
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('url', sa.Text(), nullable=False),
    sa.Column('kinds', sa.Text(), server_default='[]', nullable=False),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('key_id', sa.Text(), nullable=False),
    sa.Column('sealed_secret', sa.LargeBinary(), nullable=False),
    sa.Column('after_transaction', sa.BigInteger(), nullable=False),
    sa.Column('after_number', sa.BigInteger(), nullable=False),
    sa.Column('failing_since', sa.Text(), nullable=True),
    sa.Column('revision', sa.Integer(), server_default='1', nullable=False),
    sa.Column('created_at', sa.Text(), nullable=False),
    sa.Column('created_by', sa.Text(), server_default='', nullable=False),
    sa.CheckConstraint("state IN ('active', 'paused')", name='ck_webhooks_state'),
    sa.PrimaryKeyConstraint('name', name='pk_webhooks')
    )
    op.create_table('activity_blobs',
    sa.Column('activity_id', sa.Text(), nullable=False),
    sa.Column('digest', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['activity_id'], ['activities.id'], name='fk_activity_blobs_activity_id_activities', ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['digest'], ['blobs.digest'], name='fk_activity_blobs_digest_blobs'),
    sa.PrimaryKeyConstraint('activity_id', 'digest', name='pk_activity_blobs')
    )
    op.create_index('ix_activity_blobs_digest', 'activity_blobs', ['digest'], unique=False)
    op.create_table('blob_chunks',
    sa.Column('digest', sa.Text(), nullable=False),
    sa.Column('chunk_bytes', sa.Integer(), nullable=False),
    sa.Column('hashes', sa.LargeBinary(), nullable=False),
    sa.ForeignKeyConstraint(['digest'], ['blobs.digest'], name='fk_blob_chunks_digest_blobs', ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('digest', name='pk_blob_chunks')
    )
    op.create_table('webhook_deliveries',
    sa.Column('webhook', sa.Text(), nullable=False),
    sa.Column('event_number', sa.BigInteger(), nullable=False),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('attempts', sa.Integer(), server_default='0', nullable=False),
    sa.Column('next_at', sa.Text(), nullable=False),
    sa.Column('status_code', sa.Integer(), nullable=True),
    sa.Column('problem', sa.Text(), server_default='', nullable=False),
    sa.Column('ended_at', sa.Text(), nullable=True),
    sa.CheckConstraint("state IN ('waiting', 'delivered', 'dead')", name='ck_webhook_deliveries_state'),
    sa.ForeignKeyConstraint(['event_number'], ['events.number'], name='fk_webhook_deliveries_event_number_events', ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['webhook'], ['webhooks.name'], name='fk_webhook_deliveries_webhook_webhooks', ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('webhook', 'event_number', name='pk_webhook_deliveries')
    )
    op.create_index('ix_webhook_deliveries_event_number', 'webhook_deliveries', ['event_number'], unique=False)
    op.create_index('ix_webhook_deliveries_webhook_state_event_number', 'webhook_deliveries', ['webhook', 'state', 'event_number'], unique=False)
    op.create_table('edge_images',
    sa.Column('edge_deployment', sa.Text(), nullable=False),
    sa.Column('module', sa.Text(), nullable=False),
    sa.Column('image_name', sa.Text(), nullable=False),
    sa.Column('image_version', sa.Integer(), nullable=False),
    sa.ForeignKeyConstraint(['edge_deployment'], ['edge_deployments.name'], name='fk_edge_images_edge_deployment_edge_deployments', ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['image_name', 'image_version'], ['image_versions.name', 'image_versions.version'], name='fk_edge_images_image_name_image_version_image_versions'),
    sa.PrimaryKeyConstraint('edge_deployment', 'module', name='pk_edge_images')
    )
    op.create_index('ix_edge_images_image_name_image_version', 'edge_images', ['image_name', 'image_version'], unique=False)
    op.create_table('image_environments',
    sa.Column('image_name', sa.Text(), nullable=False),
    sa.Column('image_version', sa.Integer(), nullable=False),
    sa.Column('environment_name', sa.Text(), nullable=False),
    sa.Column('environment_version', sa.Integer(), nullable=False),
    sa.ForeignKeyConstraint(['environment_name', 'environment_version'], ['environment_versions.name', 'environment_versions.version'], name='fk_image_environments_environment'),
    sa.ForeignKeyConstraint(['image_name', 'image_version'], ['image_versions.name', 'image_versions.version'], name='fk_image_environments_image_name_image_version_image_versions', ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('image_name', 'image_version', name='pk_image_environments')
    )
    op.create_index('ix_image_environments_environment_name_environment_version', 'image_environments', ['environment_name', 'environment_version'], unique=False)
    op.create_table('run_data',
    sa.Column('run_id', sa.Text(), nullable=False),
    sa.Column('data_name', sa.Text(), nullable=False),
    sa.Column('digest', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['run_id'], ['runs.id'], name='fk_run_data_run_id_runs', ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('run_id', 'data_name', name='pk_run_data')
    )
    op.create_index('ix_run_data_digest', 'run_data', ['digest'], unique=False)
    op.create_index('ix_run_data_data_name_digest', 'run_data', ['data_name', 'digest'], unique=False)
    op.create_table('model_aliases',
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('alias', sa.Text(), nullable=False),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.Column('protected', sa.Integer(), server_default='0', nullable=False),
    sa.Column('revision', sa.Integer(), server_default='1', nullable=False),
    sa.Column('updated_at', sa.Text(), nullable=False),
    sa.Column('updated_by', sa.Text(), server_default='', nullable=False),
    sa.ForeignKeyConstraint(['name', 'version'], ['model_versions.name', 'model_versions.version'], name='fk_model_aliases_name_version_model_versions'),
    sa.PrimaryKeyConstraint('name', 'alias', name='pk_model_aliases')
    )
    op.create_index('ix_model_aliases_name_version', 'model_aliases', ['name', 'version'], unique=False)
    op.create_index('ix_model_aliases_alias_name_version', 'model_aliases', ['alias', 'name', 'version'], unique=False)
    op.create_table('model_data',
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.Column('data_name', sa.Text(), nullable=False),
    sa.Column('digest', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['name', 'version'], ['model_versions.name', 'model_versions.version'], name='fk_model_data_name_version_model_versions', ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('name', 'version', 'data_name', name='pk_model_data')
    )
    op.create_index('ix_model_data_digest', 'model_data', ['digest'], unique=False)
    op.create_index('ix_model_data_data_name_digest', 'model_data', ['data_name', 'digest'], unique=False)
    op.create_table('model_labels',
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('key', sa.Text(), nullable=False),
    sa.Column('lookup', sa.Text(), nullable=False),
    sa.Column('created_at', sa.Text(), nullable=False),
    sa.CheckConstraint("kind IN ('tag', 'property')", name='ck_model_labels_kind'),
    sa.ForeignKeyConstraint(['name', 'version'], ['model_versions.name', 'model_versions.version'], name='fk_model_labels_name_version_model_versions', ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('name', 'version', 'kind', 'key', name='pk_model_labels')
    )
    op.create_index('ix_model_labels_kind_key_lookup_created_at_name_version', 'model_labels', ['kind', 'key', 'lookup', 'created_at', 'name', 'version'], unique=False)
    op.create_table('model_packs',
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.Column('manifest_digest', sa.Text(), nullable=False),
    sa.Column('config_digest', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['config_digest'], ['blobs.digest'], name='fk_model_packs_config_digest_blobs'),
    sa.ForeignKeyConstraint(['manifest_digest'], ['blobs.digest'], name='fk_model_packs_manifest_digest_blobs'),
    sa.ForeignKeyConstraint(['name', 'version'], ['model_versions.name', 'model_versions.version'], name='fk_model_packs_name_version_model_versions', ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('name', 'version', name='pk_model_packs')
    )
    op.create_index('ix_model_packs_config_digest', 'model_packs', ['config_digest'], unique=False)
    op.create_index('ix_model_packs_manifest_digest', 'model_packs', ['manifest_digest'], unique=False)
    op.create_table('model_samples',
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.Column('digest', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['digest'], ['blobs.digest'], name='fk_model_samples_digest_blobs'),
    sa.ForeignKeyConstraint(['name', 'version'], ['model_versions.name', 'model_versions.version'], name='fk_model_samples_name_version_model_versions', ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('name', 'version', name='pk_model_samples')
    )
    op.create_index('ix_model_samples_digest', 'model_samples', ['digest'], unique=False)
    op.create_table('model_words',
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.Column('word', sa.Text().with_variant(sa.Text(collation='C'), 'postgresql'), nullable=False),
    sa.Column('created_at', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['name', 'version'], ['model_versions.name', 'model_versions.version'], name='fk_model_words_name_version_model_versions', ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('name', 'version', 'word', name='pk_model_words')
    )
    op.create_index('ix_model_words_word_created_at_name_version', 'model_words', ['word', 'created_at', 'name', 'version'], unique=False)
    op.add_column('blobs', sa.Column('leased_until', sa.Text(), server_default='', nullable=False))
    op.add_column('device_sessions', sa.Column('told_offline', sa.Integer(), server_default='0', nullable=False))
    op.add_column('environment_versions', sa.Column('deleted_at', sa.Text(), nullable=True))
    op.add_column('environment_versions', sa.Column('deleted_by', sa.Text(), nullable=True))
    op.create_index('ix_environment_versions_created_at_name_version', 'environment_versions', ['created_at', 'name', 'version'], unique=False)
    op.create_index('ix_environment_versions_name_digest', 'environment_versions', ['name', 'digest'], unique=False)
    op.add_column('image_versions', sa.Column('revision', sa.Integer(), server_default='1', nullable=False))
    op.add_column('image_versions', sa.Column('deleted_at', sa.Text(), nullable=True))
    op.add_column('image_versions', sa.Column('deleted_by', sa.Text(), nullable=True))
    op.drop_index('ix_image_versions_created_at', table_name='image_versions')
    op.create_index('ix_image_versions_created_at_name_version', 'image_versions', ['created_at', 'name', 'version'], unique=False)
    op.add_column('model_versions', sa.Column('revision', sa.Integer(), server_default='1', nullable=False))
    op.add_column('model_versions', sa.Column('source_commit', sa.Text(), nullable=True))
    op.add_column('model_versions', sa.Column('deleted_at', sa.Text(), nullable=True))
    op.add_column('model_versions', sa.Column('deleted_by', sa.Text(), nullable=True))
    deleted = sa.text('deleted_at IS NOT NULL')
    op.create_index('ix_model_versions_deleted_at', 'model_versions', ['deleted_at'], unique=False, sqlite_where=deleted, postgresql_where=deleted)
    op.drop_index('ix_model_versions_created_at', table_name='model_versions')
    op.create_index('ix_model_versions_created_at_name_version', 'model_versions', ['created_at', 'name', 'version'], unique=False)
    op.create_index('ix_model_versions_framework_created_at_name_version', 'model_versions', ['framework', 'created_at', 'name', 'version'], unique=False)
    op.create_index('ix_model_versions_name_created_at_version', 'model_versions', ['name', 'created_at', 'version'], unique=False)
    op.create_index('ix_model_versions_source_commit', 'model_versions', ['source_commit'], unique=False)
    op.add_column('runs', sa.Column('source_commit', sa.Text(), nullable=True))
    op.create_index('ix_runs_source_commit', 'runs', ['source_commit'], unique=False)
    op.create_index('ix_twins_edge_deployment', 'twins', ['edge_deployment'], unique=False)
    op.add_column('tokens', sa.Column('scopes', sa.Text(), server_default='[]', nullable=False))
    op.add_column('tokens', sa.Column('created_by', sa.Text(), server_default='', nullable=False))

    _index_models()
    _hold_images_of_manifests()


def _index_models() -> None:
    """Labels and words of the versions that are there. Frozen here: later changes to the code must not change this step."""
    connection = op.get_bind()
    model_versions = sa.table(
        "model_versions", sa.column("name"), sa.column("version"), sa.column("manifest"), sa.column("created_at")
    )
    labels = sa.table("model_labels", *map(sa.column, ("name", "version", "kind", "key", "lookup", "created_at")))
    words = sa.table("model_words", *map(sa.column, ("name", "version", "word", "created_at")))
    for row in connection.execute(sa.select(model_versions)).all():
        manifest = json.loads(row.manifest)
        key = {"name": row.name, "version": row.version, "created_at": row.created_at}
        found = [
            {**key, "kind": kind, "key": label, "lookup": _lookup(value)}
            for kind, field in (("tag", "tags"), ("property", "properties"))
            for label, value in manifest.get(field, {}).items()
        ]
        if found:
            connection.execute(labels.insert(), found)
        connection.execute(words.insert(), [{**key, "word": word} for word in _words(manifest)])


def _hold_images_of_manifests() -> None:
    """An image that a manifest names is in use, also when no device matches the manifest."""
    connection = op.get_bind()
    manifests = sa.table("edge_deployments", sa.column("name"), sa.column("document"))
    images = sa.table("image_versions", *map(sa.column, ("name", "version", "digest")))
    held = sa.table("edge_images", *map(sa.column, ("edge_deployment", "module", "image_name", "image_version")))
    for row in connection.execute(sa.select(manifests)).all():
        for module, spec in json.loads(row.document)["modules"].items():
            pinned = re.fullmatch(r"([^:@]+)(?::(\d+)|@(sha256:[0-9a-f]{64}))", spec.get("image") or "")
            if pinned is None:
                continue
            name, version, digest = pinned.groups()
            meant = images.c.version == int(version) if version else images.c.digest == digest
            query = sa.select(sa.func.max(images.c.version)).where(images.c.name == name, meant)
            found = connection.execute(query).scalar_one()
            if found is not None:
                values = {"edge_deployment": row.name, "module": module, "image_name": name, "image_version": found}
                connection.execute(held.insert().values(values))


def _lookup(value: str) -> str:
    return value if len(value) <= 100 else "sha256:" + hashlib.sha256(value.encode()).hexdigest()


def _words(manifest: dict[str, Any]) -> list[str]:
    tags = manifest.get("tags", {})
    texts = [manifest["name"], manifest.get("framework", ""), *tags.keys(), *tags.values(), manifest.get("description", "")]
    return list(dict.fromkeys(word[:64] for text in texts for word in re.findall(r"[^\W_]+", text.casefold())))[:200]
