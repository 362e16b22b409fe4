"""Timings, by hand: ``python3 tests/benchmark.py``. No tests: a time says as much of the machine.

What is compared is measured alternately; what counts are ratios of medians. The bare references are the least
that the standard library can do for the same bytes, with CRC-32 unless they never enter Python (sendfile).
"""

from __future__ import annotations

import argparse
import binascii
import csv
import ftplib
import importlib.util
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from file_client_cli import Server, remote_delete, remote_get, remote_list, remote_upload
from file_protocol import BUFFER_BYTES, END, FILE_PIECE_BYTES, Connection, encode_request, read_reply
from tests.support import ServerProcess, run_script, wait_until

MB = 1024 * 1024  # as the course counts it
MODES = ("thread", "process")


class Bars:
    """What was promised, and whether it holds."""

    missed = 0

    def __call__(self, text: str, value: float, low: float | None = None, high: float | None = None) -> None:
        """Print a value and the bar that it must reach (`low`) or stay under (`high`)."""
        good = (low is None or value >= low) and (high is None or value <= high)
        bar = f"bar {low if high is None else high:g}" + ("" if good else ", MISSED")
        print(f"  {text}: {value:.2f} ({bar})", flush=True)
        self.missed += not good


def seconds_of(function: Callable[..., object], *arguments: object) -> float:
    """Return how long one call takes."""
    begun_at = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - begun_at


def alternately(repeats: int, **functions: Callable[[], float]) -> dict[str, float]:
    """Call the functions in turn, `repeats` times; return the median of what each returned, by name."""
    found: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats):
        for name in list(functions)[::1 if repeat % 2 else -1]:
            found[name].append(functions[name]())
    return {name: statistics.median(values) for name, values in found.items()}


def send(connection: socket.socket, path: Path, encoded: bool) -> None:
    """Read, check, encode, send; or send without looking."""
    with open(path, "rb", buffering=0) as file:
        if not encoded:
            connection.sendfile(file)
            return
        buffer = memoryview(bytearray(FILE_PIECE_BYTES))
        crc32 = 0
        while count := file.readinto(buffer):
            crc32 = zlib.crc32(buffer[:count], crc32)
            connection.sendall(binascii.b2a_base64(buffer[:count], newline=False))


def receive(connection: socket.socket, target: Path | None, encoded: bool) -> None:
    """Receive to the end, decode if `encoded`, check and, if there is a `target`, write."""
    buffer = memoryview(bytearray(BUFFER_BYTES))
    crc32 = have = 0
    with connection, open(target or os.devnull, "wb", buffering=0) as out:
        while count := connection.recv_into(buffer[have:]):
            have += count
            whole = have & ~3 if encoded else have
            piece = binascii.a2b_base64(buffer[:whole]) if encoded else buffer[:whole]
            crc32 = zlib.crc32(piece, crc32)
            if target:
                out.write(piece)
            buffer[:have - whole] = buffer[whole:have]
            have -= whole


def bare(encoded: bool, path: Path, *targets: Path | None) -> float:
    """Return the seconds in which plain threads of another process send a file to as many plain threads here,
    one for each target."""
    def client(_: object) -> None:
        with socket.create_connection(listener.getsockname()) as connection:
            connection.recv(1)
            send(connection, path, encoded)

    for target in filter(None, targets):  # as for upload(): every upload makes a new file
        target.unlink(missing_ok=True)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener, ThreadPoolExecutor(50) as pool:
        child = os.fork()  # no threads are about here
        if not child:
            list(pool.map(client, targets))
            os._exit(0)
        connections = [listener.accept()[0] for _ in targets]
        begun_at = time.perf_counter()
        for connection in connections:
            connection.sendall(b"x")
        list(pool.map(receive, connections, targets, [encoded] * len(targets)))
        time_s = time.perf_counter() - begun_at
    os.waitpid(child, 0)
    return time_s


def upload(server: Server, path: Path, raw: bool) -> float:
    """Return the seconds that our client takes to upload a new file; for raw it knows the CRC-32 before.

    To replace a file costs ext4 up to 70 ms for 100 MB: it allocates what is new before it renames.
    """
    if "uploaded" in remote_list(server):
        remote_delete(server, "uploaded")
    crc32 = zlib.crc32(path.read_bytes()) if raw else None
    with open(path, "rb", buffering=0) as file:
        return seconds_of(remote_upload, server, file, "uploaded", raw, crc32)


def rows_of(script: str, output: str, *arguments: object) -> list[dict[str, str]]:
    """Return the rows that a script leaves in rekap.csv, being told `output`. Exits if it failed."""
    with tempfile.TemporaryDirectory() as folder:
        done = run_script(script, *arguments, "--output", Path(folder, output), timeout_s=600.0)
        if done.returncode:
            raise SystemExit(f"{script} has failed: {done.stderr}")
        with open(Path(folder, "rekap.csv"), newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))


def stress(server: Server, operation: str, volume_mb: int) -> dict[str, str]:
    """Return the row that the stress client measures with 50 threads."""
    row, = rows_of("file_client_stress_test.py", "rekap.csv", "--port", server.port, "--operation", operation,
                   "--volume", volume_mb, "--clients", 50, "--pool", "thread")
    return row


def one_client(bars: Bars, options: argparse.Namespace) -> None:
    """One client's download and upload, base64 and raw, against the bare reference; and how time grows."""
    with tempfile.TemporaryDirectory() as folder:
        path, small, target = Path(folder, "source"), Path(folder, "small"), Path(folder, "target")
        path.write_bytes(os.urandom(options.volume * MB))
        small.write_bytes(path.read_bytes()[:options.volume * MB // 10])
        for encoding, low in (("base64", 0.90), ("raw", 0.85)):
            raw = encoding == "raw"
            print(f"\none client, {options.volume} MB, {encoding}: bare reference's time over ours")
            for mode in MODES:
                with closing(ServerProcess(1, mode)) as server:
                    for source in (path, small):
                        shutil.copy(source, server.directory)
                    times_s = alternately(
                        options.repeats, bare_download=partial(bare, not raw, path, None),
                        download=partial(seconds_of, remote_get, server.client, "source", len, raw),
                        bare_upload=partial(bare, not raw, path, target),
                        upload=partial(upload, server.client, path, raw),
                        small=partial(seconds_of, remote_get, server.client, "small", len, raw))
                for operation in ("download", "upload"):
                    reference_s, ours_s = times_s[f"bare_{operation}"], times_s[operation]
                    bars(f"{mode:8}{operation:9}{ours_s:7.3f} s = {options.volume / ours_s:5.0f} MiB/s, "
                         f"bare {reference_s:.3f} s, ratio", reference_s / ours_s, low)
                if not raw:
                    bars(f"{mode:8}download of 10 times the volume takes so many times as long",
                         times_s["download"] / times_s["small"], high=10.5)


def fifty_threads(bars: Bars, options: argparse.Namespace) -> None:
    """50 threads that upload 10 MB each to a pool of 50 threads, against the barest program that does so."""
    print("\n50 threads upload 10 MB each to 50 threads")
    with tempfile.TemporaryDirectory() as folder, closing(ServerProcess(50, "thread")) as server:
        path = Path(folder, "source")
        path.write_bytes(os.urandom(10 * MB))
        targets = [Path(folder, f"bare-{number}") for number in range(50)]
        times_s = alternately(
            options.repeats, bare=partial(bare, True, path, *targets),
            ours=lambda: float(stress(server.client, "upload", 10)["waktu_dinding_s"]))
    bars(f"{500 / times_s['ours']:.0f} MiB/s in all, bare {500 / times_s['bare']:.0f}, ratio",
         times_s["bare"] / times_s["ours"], 0.90)


def small_requests(bars: Bars, options: argparse.Namespace) -> None:
    """LIST per second, over new connections and over one."""
    def many(server: Server) -> None:
        for _ in range(count):
            remote_list(server)

    def one(server: Server) -> None:
        with socket.create_connection((server.host, server.port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(sock, 60, 60)
            for _ in range(count):
                connection.send(encode_request("LIST") + END)
                read_reply(connection)

    count = 1000
    print("\nLIST: microseconds each, one after the other")
    fresh_us = {}
    for mode in MODES:
        with closing(ServerProcess(5, mode)) as server:
            times_s = alternately(options.repeats, new=partial(seconds_of, many, server.client),
                                  same=partial(seconds_of, one, server.client))
        new_us, same_us = (times_s[name] / count * 1e6 for name in ("new", "same"))
        fresh_us[mode] = new_us - same_us
        print(f"  {mode:8}new connection each {new_us:5.0f} us = {1e6 / new_us:5.0f}/s; "
              f"one connection {same_us:5.0f} us = {1e6 / same_us:5.0f}/s")
    thread_us, process_us = fresh_us.values()
    print(f"  so a connection costs {thread_us:.0f} us with a thread, {process_us:.0f} us with a process: "
          f"handing it over to a process costs {process_us - thread_us:.0f} us more")


def start(bars: Bars, options: argparse.Namespace) -> None:
    """The time until a pool of 50 is ready."""
    print("\na pool of 50, from starting Python to its ready line")

    def until_ready(mode: str) -> float:
        begun_at = time.perf_counter()
        with closing(ServerProcess(50, mode)):
            return time.perf_counter() - begun_at

    times_s = alternately(options.repeats, **{mode: partial(until_ready, mode) for mode in MODES})
    bars("50 threads, seconds", times_s["thread"], high=0.5)
    bars("50 processes, seconds", times_s["process"], high=3.0)


def memory(bars: Bars, options: argparse.Namespace) -> None:
    """Peak resident memory of 50 clients and 50 workers."""
    print(f"\npeak memory of one process, MiB, 50 clients x {options.volume} MB up and down, 50 workers")
    for mode, high, text in (("thread", 64.0, "server with 50 threads"),
                             ("process", 30.0, "the largest of 50 processes")):
        with closing(ServerProcess(50, mode)) as server:
            rows = [stress(server.client, operation, options.volume) for operation in ("download", "upload")]
        if not rows[-1]["memori_puncak_server_byte"]:
            print("  this system does not tell")
            return
        bars(text, int(rows[-1]["memori_puncak_server_byte"]) / MB, high=high)
        peak_bytes = max(int(row["memori_puncak_client_byte"]) for row in rows)
        bars("stress client with 50 threads", peak_bytes / MB, high=128.0)


def fixed_cost(bars: Bars, options: argparse.Namespace) -> None:
    """What a row costs besides its transfers: start, warm-up, test file, end."""
    print("\nthe cost of a row beyond its transfers, seconds, over all pairs of models")
    for pools, high in (("1,5", 0.6), ("50", 1.0)):
        costs_s = []
        for _ in range(max(1, options.repeats // 2)):
            begun_at = time.perf_counter()
            rows = rows_of("run_for_test.py", "", "--volumes", 10, "--client-workers", pools,
                           "--server-workers", pools)
            rest_s = time.perf_counter() - begun_at - sum(float(row["waktu_dinding_s"]) for row in rows)
            costs_s.append(rest_s / len(rows))
        bars(f"pools of {pools}, mean of {len(rows)} rows", statistics.median(costs_s), high=high)


def others(bars: Bars, options: argparse.Namespace) -> None:
    """Raw transfers by pyftpdlib, if it is installed, and by ours."""
    def by_ftp(command: str, move: Callable[..., None], local: Path | None) -> float:
        Path(folder, "stored").unlink(missing_ok=True)  # as for upload(): every upload makes a new file
        begun_at = time.perf_counter()
        ftp.voidcmd("TYPE I")
        with ftp.transfercmd(command) as connection:
            move(connection, local, False)
        ftp.voidresp()
        return time.perf_counter() - begun_at

    print(f"\none client, {options.volume} MB of raw bytes by pyftpdlib, MiB/s (CRC-32 in all but STOR)")
    if not importlib.util.find_spec("pyftpdlib"):
        print("  not installed here: skipped")
        return
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, closing(ServerProcess(1, "thread")) as server, \
            socket.socket() as probe, ftplib.FTP() as ftp, subprocess.Popen(
                [sys.executable, "-m", "pyftpdlib", "-i", "127.0.0.1", "-p", str(port), "-w", "-d", folder],
                stderr=subprocess.DEVNULL) as process:
        path = Path(folder, "source")
        path.write_bytes(os.urandom(options.volume * MB))
        shutil.copy(path, server.directory)
        try:
            wait_until(lambda: probe.connect_ex(("127.0.0.1", port)) == 0, "pyftpdlib listens")
            ftp.connect("127.0.0.1", port)
            ftp.login()
            times_s = alternately(
                options.repeats, get=partial(seconds_of, remote_get, server.client, "source", len, True),
                retr=partial(by_ftp, "RETR source", receive, None),
                put=partial(upload, server.client, path, True),
                stor=partial(by_ftp, "STOR stored", send, path))
        finally:
            process.terminate()
    for ours, theirs in (("get", "retr"), ("put", "stor")):
        rates = [options.volume / times_s[name] for name in (ours, theirs)]
        bars(f"{ours} {rates[0]:.0f}, {theirs} {rates[1]:.0f}, ratio", rates[0] / rates[1], 0.95)


PARTS = (one_client, fifty_threads, small_requests, start, memory, fixed_cost, others)


def main() -> int:
    """Run the timings; return 1 if a bar is missed."""
    parts = {part.__name__: part for part in PARTS}
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: benchmark.py start --repeats 9")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts) + " (default: all)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--volume", type=int, default=100, help="MB")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(parts):
        parser.error(f"no such part: {', '.join(unknown)}")
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.platform()}, "
          f"{os.cpu_count()} cores, load {' '.join(f'{load:.1f}' for load in os.getloadavg())}, "
          f"median of {options.repeats}")
    bars = Bars()
    for name in options.parts or parts:
        parts[name](bars, options)
    print(f"\n{bars.missed} bars missed" if bars.missed else "\nall bars reached")
    return 1 if bars.missed else 0


if __name__ == "__main__":
    sys.exit(main())
