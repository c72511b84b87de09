"""The web pages: rendered on the server, read-only, without a line of JavaScript."""
