"""What a build asks of a container engine (`port.py`), and Docker's engine behind it."""
