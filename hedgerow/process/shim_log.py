"""The shim's hand on ``log``, ``log.1``, …: bytes in, files out, whatever the disk does."""

import os


class Log:
    """``log`` and its older generations: everything the process wrote, byte for byte, until the disk is full.

    What cannot be written is counted, and said in the log when writing works again: the process never waits for a disk.
    """

    def __init__(self, bytes_max: int, files: int) -> None:
        self.bytes_max = bytes_max
        self.files = files
        self.fd = -1
        self.size = 0
        self.at_line_start = True
        self.lost_bytes = 0
        self.lost_lines = 0
        self.problem = 0

    def write(self, data: bytes) -> None:
        """Append, moving on to a new file where a line would cross the size limit."""
        if self.lost_bytes and not (self._open() and self._say_what_was_lost()):
            return self._lose(data)
        while data:
            if not self._open():
                return self._lose(data)
            part = self._fitting(data)
            done = self._put(part)
            data = data[done:]
            if done < len(part) or (data and not self._rotate()):
                return self._lose(data)
        return None

    def _fitting(self, data: bytes) -> bytes:
        room = max(0, self.bytes_max - self.size)
        if len(data) <= room:
            return data
        whole_lines = data.rfind(b"\n", 0, room) + 1
        if whole_lines:
            return data[:whole_lines]
        # Inside a line that is too long for what is left: only a line of its own file is cut.
        return b"" if self.at_line_start and self.size else data[:room]

    def _open(self) -> bool:
        if self.fd < 0:
            try:
                self.fd = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as problem:
                self.problem = problem.errno or 0
                return False
            self.size = os.fstat(self.fd).st_size
        return True

    def _put(self, data: bytes) -> int:
        done = 0
        try:
            while done < len(data):
                written = os.write(self.fd, data[done:])
                done += written
                self.size += written
        except OSError as problem:
            self.problem = problem.errno or 0
        if done:
            self.at_line_start = data[done - 1 : done] == b"\n"
        return done

    def _rotate(self) -> bool:
        try:
            for older in range(self.files - 1, 0, -1):
                newer = f"log.{older - 1}" if older > 1 else "log"
                try:
                    os.replace(newer, f"log.{older}")  # noqa: PTH105 - pathlib costs each shim 2 MB
                except FileNotFoundError:
                    continue
            if self.files == 1:
                os.truncate("log", 0)
            fd, self.fd = self.fd, -1
            os.close(fd)
        except OSError as problem:
            self.problem = problem.errno or 0
            return False
        self.size, self.at_line_start = 0, True
        return True

    def _lose(self, data: bytes) -> None:
        self.lost_bytes += len(data)
        self.lost_lines += data.count(b"\n")

    def _say_what_was_lost(self) -> bool:
        line = f"[hedgerow] {self.lost_lines} lines ({self.lost_bytes} bytes) are missing here: {os.strerror(self.problem)}\n"
        notice = (b"" if self.at_line_start else b"\n") + line.encode()
        before, at_line_start = self.size, self.at_line_start
        if self._put(notice) == len(notice):
            self.lost_bytes = self.lost_lines = 0
            return True
        try:
            os.ftruncate(self.fd, before)
            self.size, self.at_line_start = before, at_line_start
        except OSError as problem:  # half a notice stays then
            self.problem = problem.errno or 0
        return False
