"""The rooms of ``bench_scoring`` and ``soak_scoring``: servers in turn under load, and what is told of it."""
