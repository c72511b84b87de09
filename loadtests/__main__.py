"""``make bench``: every benchmark in turn, printed as tables for docs/benchmarks.md. Each can be run by itself, with options."""

from __future__ import annotations

from loadtests import (
    bench_blobs,
    bench_edge_agent,
    bench_edge_mqtt,
    bench_edge_telemetry,
    bench_fleet,
    bench_image_builds,
    bench_packager,
    bench_registry,
    bench_scoring,
    bench_skeleton,
)

if __name__ == "__main__":
    for part in (
        bench_skeleton,
        bench_registry,
        bench_blobs,
        bench_packager,
        bench_image_builds,
        bench_scoring,
        bench_edge_agent,
        bench_edge_mqtt,
        bench_edge_telemetry,
        bench_fleet,
    ):
        part.main()
