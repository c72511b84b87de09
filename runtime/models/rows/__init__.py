"""Which axis carries the rows of a request, followed through a model's graph without running it.

`verdict.py` (the story) reads the graph (`graph.py`), and takes a `Flow` (`flows.py`: where the rows are, and lengths as
formulas, `lengths.py`) through each node by the rule of its operator (`operators.py`, and the files that hold the rules).
"""
