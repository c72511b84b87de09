"""What a command loads before it does anything: nothing of what it does not use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import sys
from hedgerow.cli.main import main
sys.argv = ["hedgerow", "--workspace", sys.argv[1], "image", "list"]
try:
    main()
except SystemExit as end:
    print(end.code, *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_a_command_that_asks_a_server_loads_its_client_and_no_drawing(tmp_path: Path) -> None:
    argv = [sys.executable, "-P", "-c", _PROGRAM, "http://127.0.0.1:9"]  # port 9: nobody answers there
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    code, *loaded = done.stdout.split()
    assert (code, "httpx" in loaded) == ("1", True), done.stderr
    assert "127.0.0.1:9" in done.stderr
    assert {"pygments", "sqlalchemy", "onnx"}.isdisjoint(loaded)
