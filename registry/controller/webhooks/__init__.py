"""Sends events to webhooks. Read ``dispatch.py`` first: one thread gives events out, one more for each webhook that is being
sent to. ``verdict.py`` decides what becomes of an attempt, ``post.py`` makes it.
"""
