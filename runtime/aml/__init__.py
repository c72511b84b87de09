"""The Azure ML contract: ``/score``, its documents, its settings."""
