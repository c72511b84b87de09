"""The OCI image format: documents, layers, layouts, archives. Knows nothing of models."""
