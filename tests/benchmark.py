"""Timings, by hand: ``python3 tests/benchmark.py``. Not part of the tests: a time says as much of the machine.

What is compared is measured alternately in one run, several times; what counts are the medians and their ratios.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import os
import platform
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from file_client_cli import Server, remote_get, remote_upload
from file_protocol import BUFFER_BYTES, FILE_PIECE_BYTES, Request, RequestReader, Wire
from tests.support import ServerProcess

MB = 1024 * 1024


def seconds_of(function: Callable[[], object]) -> float:
    """Return how long one call takes."""
    begun_at = time.perf_counter()
    function()
    return time.perf_counter() - begun_at


class Pieces:
    """Looks like a socket that brings bytes in small pieces of random length."""

    def __init__(self, content: bytes, most: int) -> None:
        self._content = memoryview(content)
        self._rng = random.Random(1)
        self._most = most

    def setblocking(self, flag: bool) -> None:
        """Nothing here waits."""

    def recv_into(self, view: memoryview) -> int:
        count = min(self._rng.randint(1, self._most), len(view), len(self._content))
        view[:count] = self._content[:count]
        self._content = self._content[count:]
        return count


def framing(repeats: int) -> None:
    """Print the time to read an UPLOAD that comes in pieces of 1 to 1,460 bytes, against its size."""
    print("an UPLOAD in pieces of 1 to 1,460 bytes:")
    for size_mb in (5, 10, 20):
        sent = b"UPLOAD a " + base64.b64encode(os.urandom(size_mb * MB)) + b"\r\n\r\n"

        def read(sent: bytes = sent) -> None:
            wire = Wire(cast(socket.socket, Pieces(sent, 1460)), 60, 60)
            for _ in cast(Request, RequestReader(wire).next()).body:
                pass

        time_s = statistics.median(seconds_of(read) for _ in range(repeats))
        print(f"  {size_mb:3} MB: {time_s:.3f} s, {time_s / size_mb * 1000:.1f} ms/MB")


def bare_pipeline(path: Path, target: Path | None) -> float:
    """Return the time of the least that base64 over TCP takes: one process reads, checks, encodes and sends;
    the other receives, decodes, checks and, if there is a `target`, writes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = os.fork()  # no threads are about here
        if not child:
            with socket.create_connection(listener.getsockname()) as connection, open(path, "rb", buffering=0) as file:
                buffer = memoryview(bytearray(FILE_PIECE_BYTES))
                crc32 = 0
                while count := file.readinto(buffer):
                    crc32 = zlib.crc32(buffer[:count], crc32)
                    connection.sendall(binascii.b2a_base64(buffer[:count], newline=False))
            os._exit(0)
        connection, _ = listener.accept()
    begun_at = time.perf_counter()
    with connection, open(target or os.devnull, "wb") as out:
        buffer = memoryview(bytearray(BUFFER_BYTES))
        crc32 = have = 0
        while count := connection.recv_into(buffer[have:]):
            have += count
            whole = have & ~3
            piece = binascii.a2b_base64(buffer[:whole])
            crc32 = zlib.crc32(piece, crc32)
            if target:
                out.write(piece)
            buffer[:have - whole] = buffer[whole:have]
            have -= whole
    time_s = time.perf_counter() - begun_at
    os.waitpid(child, 0)
    return time_s


def one_client(repeats: int, size_mb: int) -> None:
    """Print one client's download and upload against the bare pipeline, for both models."""
    print(f"one client, {size_mb} MB, base64, median of {repeats} (ratio: bare pipeline's time over ours):")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "source")
        path.write_bytes(os.urandom(size_mb * MB))
        for mode in ("thread", "process"):
            for operation in ("download", "upload"):
                bare_s, ours_s = [], []
                for _ in range(repeats):
                    bare_s.append(bare_pipeline(path, Path(folder, "target") if operation == "upload" else None))
                    server = ServerProcess(1, mode)
                    try:
                        (server.directory / "file").write_bytes(path.read_bytes())
                        ours_s.append(seconds_of(lambda: transfer(server.client, operation, path)))
                    finally:
                        server.close()
                bare, ours = statistics.median(bare_s), statistics.median(ours_s)
                print(f"  {mode:8} {operation:9} {ours:.3f} s, bare {bare:.3f} s, ratio {bare / ours:.2f}")


def transfer(server: Server, operation: str, path: Path) -> None:
    """Do one transfer."""
    if operation == "download":
        remote_get(server, "file", lambda piece: None)
    else:
        with open(path, "rb", buffering=0) as file:
            remote_upload(server, file, "uploaded")


def main() -> int:
    """Run the timings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--volume", type=int, default=100, help="MB")
    options = parser.parse_args()
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.platform()}, "
          f"{os.cpu_count()} cores, {threading.active_count()} thread")
    framing(options.repeats)
    one_client(options.repeats, options.volume)
    return 0


if __name__ == "__main__":
    sys.exit(main())
