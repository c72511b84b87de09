"""What is held against what: the parts of ``bench_scoring``, each a few contests."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from loadtests.scoring import models, observing, peers
from loadtests.scoring.heads import WORDS, HeadKind
from loadtests.scoring.models import Sent
from loadtests.scoring.peers import INFER, Site
from loadtests.scoring.rounds import Beside, Contender, Contest

_ROWS = 1000
_IMAGES = 16
BARE = "bare session.run"


def tiny(folder: Path) -> Iterator[Contest]:
    """The tree model: the AML contract beside azmlinfsrv, the Open Inference Protocol beside MLServer and PyTriton."""
    site, rows, expected = _tiny(folder)
    score = [models.as_score(row) for row in rows]
    azml = [_azmlinfsrv(site, workers, score) for workers in (1, 2)]
    own = Contender("hedgerow", partial(peers.ours, site), score)
    yield Contest("Tiny model, JSON /score", [*azml, own], expected, (32, 1), ("azmlinfsrv w1",))
    v2, binary = [models.as_v2(row, "X") for row in rows], [models.as_v2_binary(row, "X") for row in rows]
    infer = partial(peers.ours, site, path=INFER)
    contenders = [
        Contender("mlserver", partial(peers.mlserver, site), v2),
        Contender("pytriton json", partial(peers.pytriton, site), v2),
        Contender("pytriton binary", partial(peers.pytriton, site), binary),
        Contender("hedgerow v2 json", infer, v2),
        Contender("hedgerow v2 binary", infer, binary),
    ]
    bases = ("mlserver", "pytriton json", "pytriton binary")
    yield Contest("Tiny model, Open Inference Protocol", contenders, expected, (32, 1), bases)


def heads(folder: Path) -> Iterator[Contest]:
    """The same requests as different callers write them."""
    site, rows, expected = _tiny(folder)
    score = [models.as_score(row) for row in rows]
    kinds: tuple[HeadKind, ...] = ("same", "ids", "proxy", "requests", "go")
    contenders = [Contender(WORDS[kind], partial(peers.ours, site), score, heads=kind) for kind in kinds]
    yield Contest("Heads of different callers, tiny model, JSON /score", contenders, expected, (32, 1), (WORDS["same"],))


def script(folder: Path) -> Iterator[Contest]:
    """One score.py under azmlinfsrv and under ours."""
    site, rows, expected = _tiny(folder)
    score = [models.as_score(row) for row in rows]
    own = [
        Contender(f"hedgerow script w{workers}", partial(peers.ours_with_script, site, workers=workers), score)
        for workers in (1, 2)
    ]
    azml = [_azmlinfsrv(site, workers, score) for workers in (1, 2)]
    yield Contest("The same score.py", [*azml, *own], expected, (32, 1), ("azmlinfsrv w1", "azmlinfsrv w2"))


def cnn(folder: Path) -> Iterator[Contest]:
    """The convolutional net: JSON beside azmlinfsrv at its best, binary tensors beside nothing but runs of the model."""
    site = Site(models.cnn(folder), folder)
    pictures = list(models.images(_IMAGES))
    expected = answers(site.model, pictures)
    score = [models.as_score(picture) for picture in pictures]
    own = Contender("hedgerow", partial(peers.ours, site), score)
    yield Contest("Convolutional net, JSON /score", [_azmlinfsrv(site, 2, score), own], expected, (8, 1), ("azmlinfsrv w2",))
    binary = [models.as_v2_binary(picture, "image") for picture in pictures]
    infer = Contender("hedgerow v2 binary", partial(peers.ours, site, path=INFER), binary)
    limit = Beside(BARE, partial(bare, site.model, pictures, len(os.sched_getaffinity(0))))
    yield Contest("Convolutional net, binary tensors", [infer], expected, (8, 1), (), limit)


def observed(folder: Path) -> Iterator[Contest]:
    """What the access log, traces and collected data cost."""
    site, rows, expected = _tiny(folder)
    yield from observing.contests(site, [models.as_score(row) for row in rows], expected)


PARTS: dict[str, Callable[[Path], Iterator[Contest]]] = {
    "tiny": tiny,
    "heads": heads,
    "script": script,
    "cnn": cnn,
    "observing": observed,
}


def _tiny(folder: Path) -> tuple[Site, list[Any], list[Any]]:
    site = Site(models.tiny(folder), folder)
    rows = list(models.tiny_rows(_ROWS))
    return site, rows, answers(site.model, rows)


def _azmlinfsrv(site: Site, workers: int, sent: Sequence[Sent]) -> Contender:
    return Contender(f"azmlinfsrv w{workers}", partial(peers.azmlinfsrv, site, workers=workers), sent)


def answers(model: Path, rows: Sequence[Any]) -> list[Any]:
    """onnxruntime's own."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return [session.run(None, {name: one})[0] for one in rows]


def bare(model: Path, rows: Sequence[Any], threads: int, seconds: float) -> float:
    """Runs a second of nothing but ``session.run``: ``threads`` Python threads, one thread inside each run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    counts = [0] * threads
    until = time.perf_counter() + seconds

    def work(place: int) -> None:
        while time.perf_counter() < until:
            session.run(None, {name: rows[counts[place] % len(rows)]})
            counts[place] += 1

    workers = [threading.Thread(target=work, args=(place,)) for place in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / seconds
