"""Base images, from wherever they are, into the cache."""
