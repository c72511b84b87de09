"""Rollouts: a new revision of an edge deployment reaches its devices group by group (``hedgerow/contracts/rollout.py``)."""
