"""``make bench``: every benchmark in turn, printed as tables for docs/benchmarks.md."""

from __future__ import annotations

from loadtests import bench_skeleton

if __name__ == "__main__":
    bench_skeleton.main()
