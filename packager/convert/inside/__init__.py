"""What runs inside the sandbox. Imports nothing of Hedgerow: the interpreter may be another one, with the libraries of the model.

`open_model.py` (foreign code: open, convert, compare) → `finish.py` (our libraries: check again, optimise, quantise, record).
"""
