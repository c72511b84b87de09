"""Parts of ``loadtests.bench_packager_peers``: one model, one base, one engine, and those that build images of them."""
