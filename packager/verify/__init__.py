"""The test that an image must pass before it is called built."""
