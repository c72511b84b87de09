"""Backup while writing goes on (``write.py``) and restore into nothing (``restore.py``); both read from top to bottom."""
