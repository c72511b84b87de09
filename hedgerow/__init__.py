"""Hedgerow: from a trained model to a scoring endpoint or a fleet of edge devices, on machines you own.

    import hedgerow

    workspace = hedgerow.connect()                 # the workspace in use, see hedgerow.sdk.connect
    workspace.models.register("churn", "model.onnx")

Inside a training script::

    run = hedgerow.current_run()
    run.log("auc", 0.998)

Names resolve when they are first used, so ``import hedgerow`` and ``hedgerow --help`` cost next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hedgerow.sdk.client import Client as Client
    from hedgerow.sdk.connect import connect as connect
    from hedgerow.sdk.current_run import CurrentRun as CurrentRun
    from hedgerow.sdk.current_run import current_run as current_run

__version__ = "0.1.0"
__all__ = ["Client", "CurrentRun", "__version__", "connect", "current_run"]

_WHERE = {
    "Client": "hedgerow.sdk.client",
    "connect": "hedgerow.sdk.connect",
    "CurrentRun": "hedgerow.sdk.current_run",
    "current_run": "hedgerow.sdk.current_run",
}


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'hedgerow' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)
