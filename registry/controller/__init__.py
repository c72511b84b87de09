"""The controller: works activities off (builds, runs) and keeps services as they are wanted.

Read ``controller.py`` first. Long work is done by processes (``jobs.py`` drives them, ``builds.py`` and ``runs.py`` are their
stories, ``file_work`` is the process that moves files); ``services/`` reconciles replicas, ``balancer/`` routes to them.
"""
