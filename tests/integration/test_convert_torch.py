"""PyTorch modules, opened with a torch of their own that uv fetches. Gigabytes on x86-64, where wheels carry CUDA: soak only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.convert_builders import run_convert

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]
_VERSION = "2.9.1"
_MAKE = """
import numpy, torch, sys
from torch import nn
torch.manual_seed(0)
net = nn.Sequential(nn.Conv1d(6, 8, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(32, 4)).eval()
rows = torch.randn(20, 6, 100)
numpy.savez(sys.argv[1] + '/sample.npz', signal=rows.numpy())
torch.save(net, sys.argv[1] + '/module.pt')
torch.jit.trace(net, rows[:2]).save(sys.argv[1] + '/script.pt')
program = torch.export.export(net, (rows[:2],), dynamic_shapes=({0: torch.export.Dim('rows')},))
torch.export.save(program, sys.argv[1] + '/program.pt2')
torch.save(net.state_dict(), sys.argv[1] + '/weights.pt')
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network in every form that torch saves, made by that torch."""
    folder = tmp_path_factory.mktemp("torch")
    uv = Path(sys.executable).parent / "uv"
    python = folder / "venv" / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, f"torch=={_VERSION}", "numpy"], check=True)
    subprocess.run([python, "-c", _MAKE, str(folder)], check=True, env={"HOME": str(folder), "PATH": os.defpath})
    return folder


@pytest.mark.parametrize(("file", "quantize"), [("module.pt", "static"), ("script.pt", "none"), ("program.pt2", "dynamic")])
def test_a_network_is_converted_from_every_form(saved: Path, file: str, quantize: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / file).write_bytes((saved / file).read_bytes())
    told = {"framework": "torch", "framework_version": _VERSION, "sample_input": str(saved / "sample.npz")}
    inherited = {name: value for name, value in os.environ.items() if name.startswith(("UV_", "SSL_", "PIP_"))}
    done = run_convert(
        folder, tmp_path, inherited, timeout_s=1800, quantize=quantize, accuracy_loss_max=0.1, cache=str(saved / "cache"), **told
    )
    assert done.result.agreement.max_abs_error < 1e-4
    assert (done.result.quantized is None) == (quantize == "none")
    with np.load(done.out / "parity.npz", allow_pickle=False) as arrays:
        assert arrays["input_0"].shape[1:] == (6, 100)


@pytest.mark.parametrize(
    ("file", "sampled", "code"), [("weights.pt", True, "only_weights"), ("module.pt", False, "sample_needed")]
)
def test_what_is_missing_is_said(saved: Path, file: str, sampled: bool, code: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / file).write_bytes((saved / file).read_bytes())
    sample = str(saved / "sample.npz") if sampled else None
    told: dict[str, Any] = {
        "framework": "torch",
        "framework_version": _VERSION,
        "sample_input": sample,
        "cache": str(saved / "cache"),
    }
    inherited = {name: value for name, value in os.environ.items() if name.startswith(("UV_", "SSL_", "PIP_"))}
    assert run_convert(folder, tmp_path, inherited, timeout_s=1800, **told).problem_code == code
