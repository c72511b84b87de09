"""The Python face of Hedgerow: one code path, an HTTP client on the REST API."""
