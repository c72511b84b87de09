"""Properties of the application beside each telemetry message."""

import sqlalchemy as sa
from alembic import op

revision = "series_0002"
down_revision = "series_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Frozen here: later changes to the code must not change this step."""
    op.add_column("messages", sa.Column("properties", sa.Text(), nullable=True))
