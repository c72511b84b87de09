"""Users' scoring scripts, each in processes of its own: pool.py and link.py in the scoring server, host.py in the process."""
