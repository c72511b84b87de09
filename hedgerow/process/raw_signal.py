"""``signal`` without its Python half, whose enums cost 0.8 MB of memory in each shim. Same functions, plain numbers."""

TYPE_CHECKING = False  # `typing` is 1 MB more; type checkers know this name by itself

if TYPE_CHECKING:
    import signal as raw_signal
else:
    import _signal as raw_signal

__all__ = ["raw_signal"]
