"""Every table of a workspace, as SQLAlchemy Core metadata; migrations in ``migrations/`` must lead to exactly this.

Documents are kept as canonical JSON text; columns beside them exist to be searched, joined or constrained. Times are
RFC 3339 text in UTC, which sorts; series use integer milliseconds.
"""

from __future__ import annotations

from registry.store.tables.assets import (
    environment_names,
    environment_versions,
    image_blobs,
    image_environments,
    image_models,
    image_names,
    image_referrers,
    image_versions,
    model_aliases,
    model_conversions,
    model_data,
    model_files,
    model_labels,
    model_names,
    model_packs,
    model_samples,
    model_versions,
    model_words,
    pushed_blobs,
)
from registry.store.tables.enrollment import device_certificates, enrollment_keys, enrollments
from registry.store.tables.fleet import (
    desired_images,
    device_sessions,
    devices,
    edge_deployments,
    edge_images,
    edge_revisions,
    edge_rollout_devices,
    edge_rollouts,
    edge_wheels,
    fleet_events,
    module_twins,
    twins,
)
from registry.store.tables.happenings import events, idempotency_keys, secrets, webhook_deliveries, webhooks
from registry.store.tables.metadata import RECORDS, SERIES
from registry.store.tables.methods import method_calls, method_parts
from registry.store.tables.series import gaps, messages, metric_points, quarantine, watermarks
from registry.store.tables.serving import deployments, endpoints
from registry.store.tables.training import run_blobs, run_data, runs
from registry.store.tables.workspace import activities, activity_blobs, activity_events, blob_chunks, blobs, facts, leases, tokens

__all__ = [
    "RECORDS",
    "SERIES",
    "activities",
    "activity_blobs",
    "activity_events",
    "blob_chunks",
    "blobs",
    "deployments",
    "desired_images",
    "device_certificates",
    "device_sessions",
    "devices",
    "edge_deployments",
    "edge_images",
    "edge_revisions",
    "edge_rollout_devices",
    "edge_rollouts",
    "edge_wheels",
    "endpoints",
    "enrollment_keys",
    "enrollments",
    "environment_names",
    "environment_versions",
    "events",
    "facts",
    "fleet_events",
    "gaps",
    "idempotency_keys",
    "image_blobs",
    "image_environments",
    "image_models",
    "image_names",
    "image_referrers",
    "image_versions",
    "leases",
    "messages",
    "method_calls",
    "method_parts",
    "metric_points",
    "model_aliases",
    "model_conversions",
    "model_data",
    "model_files",
    "model_labels",
    "model_names",
    "model_packs",
    "model_samples",
    "model_versions",
    "model_words",
    "module_twins",
    "pushed_blobs",
    "quarantine",
    "run_blobs",
    "run_data",
    "runs",
    "secrets",
    "tokens",
    "twins",
    "watermarks",
    "webhook_deliveries",
    "webhooks",
]
