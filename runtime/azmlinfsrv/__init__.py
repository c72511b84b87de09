"""``azmlinfsrv``: the scoring server under the name and with the flags of Azure ML's inference server."""
