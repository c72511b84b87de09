"""An image that was started for its test, however that was done: the one port between the test and what it tests."""

from __future__ import annotations

from typing import Protocol

from hedgerow.contracts.proof import ProofReport


class StartedImage(Protocol):
    """A scoring server that runs foreign code. Nothing that it says is believed without a check."""

    def address(self) -> tuple[str, int] | None:
        """Host and port that it listens on, or None as long as that is not known."""
        ...

    def ended(self) -> str | None:
        """How it ended (`exit code 3`), or None while it runs."""
        ...

    def log_tail(self) -> str:
        """The last lines that it wrote, at most some 200."""
        ...

    def peak_memory_bytes(self) -> int | None:
        """The most memory that it had so far, or None where nobody counts."""
        ...

    def prove(self) -> list[ProofReport]:
        """What `runtime.prove` measures of its ONNX models, in the same surroundings. Raises VerificationFailed."""
        ...

    def stop(self) -> None:
        """End it and everything that it started; nothing stays behind. May be called again."""
        ...
