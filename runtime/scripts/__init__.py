"""Users' scoring scripts, each in processes of its own.

In the scoring server: pool.py (which process gets a call), link.py (one process). In the process: __main__.py, script.py (the
story: load it, call it), calling.py (how run() wants to be called), flask_calls.py, script_log.py, shims/.
"""
