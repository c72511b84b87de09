"""Keeps replicas as deployments want them; read ``reconcile.py`` first: look, ``plan.py``, ``hands.py``, route, ``judge.py``."""
