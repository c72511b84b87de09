"""A client of other people's registries (OCI distribution API): pulls bases, pushes images."""
