"""Timings, by hand: ``python3 tests/benchmark.py``. Not part of the tests: a time says as much of the machine.

What is compared is measured alternately in one run, several times; what counts are the medians and their ratios.
The bare references are the least that the standard library can do for the same bytes. Exits with 1 if a bar is
missed. CRC-32 is on in all of them, except where the sender's bytes never enter Python (sendfile).
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
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from file_client_cli import Server, remote_get, remote_list, remote_upload
from file_protocol import BUFFER_BYTES, END, FILE_PIECE_BYTES, Connection, encode_request, read_reply
from tests.support import ServerProcess, run_script, wait_until

MB = 1024 * 1024  # as the course counts it
MODES = ("thread", "process")
Function = Callable[[], object]


class Bars:
    """What was promised, and whether it holds."""

    def __init__(self) -> None:
        self.missed = 0

    def __call__(self, text: str, value: float, low: float | None = None, high: float | None = None) -> None:
        """Print a value and the bar that it must reach (`low`) or stay under (`high`)."""
        good = (low is None or value >= low) and (high is None or value <= high)
        bar = f"bar {low if high is None else high:g}" + ("" if good else ", MISSED")
        print(f"  {text}: {value:.2f} ({bar})", flush=True)
        self.missed += not good


def seconds_of(function: Function) -> float:
    """Return how long one call takes."""
    begun_at = time.perf_counter()
    function()
    return time.perf_counter() - begun_at


def alternately(repeats: int, **functions: Callable[[], float]) -> dict[str, float]:
    """Call the functions in turn, `repeats` times; return the median of what each returned, by name."""
    found: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats):
        for name in list(functions)[::1 if repeat % 2 else -1]:
            found[name].append(functions[name]())
    return {name: statistics.median(values) for name, values in found.items()}


# ---- one client, against the barest


def bare(send: Callable[[socket.socket, Path], object], receive: Callable[[socket.socket, Path | None], object],
         path: Path, target: Path | None) -> float:
    """Return the time that a file takes from one process that does `send` to this one, which does `receive`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = os.fork()  # no threads are about here
        if not child:
            with socket.create_connection(listener.getsockname()) as connection:
                connection.recv(1)
                send(connection, path)
            os._exit(0)
        connection, _ = listener.accept()
    with connection:
        begun_at = time.perf_counter()
        connection.sendall(b"x")
        receive(connection, target)
        time_s = time.perf_counter() - begun_at
    os.waitpid(child, 0)
    return time_s


def send_base64(connection: socket.socket, path: Path) -> None:
    """Read, check, encode, send."""
    buffer = memoryview(bytearray(FILE_PIECE_BYTES))
    crc32 = 0
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            crc32 = zlib.crc32(buffer[:count], crc32)
            connection.sendall(binascii.b2a_base64(buffer[:count], newline=False))


def receive_base64(connection: socket.socket, target: Path | None) -> None:
    """Receive, decode, check and, if there is a `target`, write."""
    buffer = memoryview(bytearray(BUFFER_BYTES))
    crc32 = have = 0
    with open(target or os.devnull, "wb", buffering=0) as out:
        while count := connection.recv_into(buffer[have:]):
            have += count
            whole = have & ~3
            piece = binascii.a2b_base64(buffer[:whole])
            crc32 = zlib.crc32(piece, crc32)
            if target:
                out.write(piece)
            buffer[:have - whole] = buffer[whole:have]
            have -= whole


def send_raw(connection: socket.socket, path: Path) -> None:
    """Send without looking."""
    with open(path, "rb", buffering=0) as file:
        connection.sendfile(file)


def receive_raw(connection: socket.socket, target: Path | None) -> None:
    """Receive, check and, if there is a `target`, write."""
    buffer = memoryview(bytearray(BUFFER_BYTES))
    crc32 = 0
    with open(target or os.devnull, "wb", buffering=0) as out:
        while count := connection.recv_into(buffer):
            crc32 = zlib.crc32(buffer[:count], crc32)
            if target:
                out.write(buffer[:count])


def one_client(bars: Bars, options: argparse.Namespace) -> None:
    """One client's download and upload, base64 and raw, against the bare reference; and how time grows."""
    with tempfile.TemporaryDirectory() as folder:
        path, small, target = Path(folder, "source"), Path(folder, "small"), Path(folder, "target")
        path.write_bytes(os.urandom(options.volume * MB))
        small.write_bytes(path.read_bytes()[:options.volume * MB // 10])
        crc32 = zlib.crc32(path.read_bytes())
        for encoding, low in (("base64", 0.90), ("raw", 0.85)):
            raw = encoding == "raw"
            print(f"\none client, {options.volume} MB, {encoding}: bare reference's time over ours")
            for mode in MODES:
                server = ServerProcess(1, mode)
                try:
                    for source in (path, small):
                        shutil.copy(source, server.directory / source.name)

                    def download(name: str, server: Server = server.client, raw: bool = raw) -> float:
                        return seconds_of(lambda: remote_get(server, name, lambda piece: None, raw))

                    def upload(source: Path, server: Server = server.client, raw: bool = raw) -> float:
                        with open(source, "rb", buffering=0) as file:
                            return seconds_of(lambda: remote_upload(
                                server, file, "uploaded", raw, crc32 if raw else None))

                    send, receive = (send_raw, receive_raw) if raw else (send_base64, receive_base64)
                    times_s = alternately(
                        options.repeats,
                        bare_download=lambda: bare(send, receive, path, None), download=lambda: download("source"),
                        bare_upload=lambda: bare(send, receive, path, target), upload=lambda: upload(path),
                        small=lambda: download("small"))
                finally:
                    server.close()
                for operation in ("download", "upload"):
                    reference_s, ours_s = times_s[f"bare_{operation}"], times_s[operation]
                    bars(f"{mode:8}{operation:9}{ours_s:7.3f} s = {options.volume / ours_s:5.0f} MiB/s, "
                         f"bare {reference_s:.3f} s, ratio", reference_s / ours_s, low)
                if not raw:
                    bars(f"{mode:8}download of 10 times the volume takes so many times as long",
                         times_s["download"] / times_s["small"], high=10.5)


# ---- 50 threads that upload to 50 threads


def fifty_bare(path: Path, folder: Path) -> float:
    """Return the seconds in which 50 plain threads of one process send a file and 50 plain threads of this one
    receive, decode, check and write it."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        child = os.fork()  # no threads are about here
        if not child:
            def client() -> None:
                with socket.create_connection(listener.getsockname()) as connection:
                    connection.recv(1)
                    send_base64(connection, path)

            run_threads([client] * 50)
            os._exit(0)
        connections = [listener.accept()[0] for _ in range(50)]
    begun_at = time.perf_counter()
    for connection in connections:
        connection.sendall(b"x")
    run_threads([partial(receive_base64, connection, folder / f"bare-{number}")
                 for number, connection in enumerate(connections)])
    time_s = time.perf_counter() - begun_at
    for connection in connections:
        connection.close()
    os.waitpid(child, 0)
    return time_s


def run_threads(functions: Sequence[Function]) -> None:
    """Run each function in a thread of its own, and return when all have ended."""
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def stress(server: Server, operation: str, volume_mb: int, clients: int, pool: str) -> dict[str, str]:
    """Return the row that the stress client measures, as its CSV has it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "row.csv")
        done = run_script("file_client_stress_test.py", "--port", server.port, "--operation", operation, "--volume",
                          volume_mb, "--clients", clients, "--pool", pool, "--output", path, timeout_s=600.0)
        with open(path, newline="", encoding="utf-8") as file:
            row, = csv.DictReader(file)
    if done.returncode:
        raise SystemExit(f"a row has failed: {row['galat']}")
    return row


def fifty_threads(bars: Bars, options: argparse.Namespace) -> None:
    """50 threads that upload 10 MB each to a pool of 50 threads, against the barest program that does so."""
    print("\n50 threads upload 10 MB each to 50 threads")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "source")
        path.write_bytes(os.urandom(10 * MB))
        server = ServerProcess(50, "thread")
        try:
            times_s = alternately(
                options.repeats, bare=lambda: fifty_bare(path, Path(folder)),
                ours=lambda: float(stress(server.client, "upload", 10, 50, "thread")["waktu_dinding_s"]))
        finally:
            server.close()
    bars(f"{500 / times_s['ours']:.0f} MiB/s in all, bare {500 / times_s['bare']:.0f}, ratio",
         times_s["bare"] / times_s["ours"], 0.90)


# ---- small requests


def small_requests(bars: Bars, options: argparse.Namespace) -> None:
    """LIST per second, over new connections and over one."""
    count = 1000
    print("\nLIST: microseconds each, one after the other")
    fresh_us = {}
    for mode in MODES:
        server = ServerProcess(5, mode)
        try:
            def many(server: Server = server.client) -> float:
                return seconds_of(lambda: [remote_list(server) for _ in range(count)]) / count * 1e6

            def one(server: Server = server.client) -> float:
                with socket.create_connection((server.host, server.port)) as connection:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    ours = Connection(connection, 60, 60)

                    def ask() -> object:
                        ours.send(encode_request("LIST") + END)
                        return read_reply(ours)

                    return seconds_of(lambda: [ask() for _ in range(count)]) / count * 1e6

            times_us = alternately(options.repeats, new=many, same=one)
        finally:
            server.close()
        fresh_us[mode] = times_us["new"] - times_us["same"]
        print(f"  {mode:8}new connection each {times_us['new']:5.0f} us = {1e6 / times_us['new']:5.0f}/s; "
              f"one connection {times_us['same']:5.0f} us = {1e6 / times_us['same']:5.0f}/s")
    print(f"  so a connection costs {fresh_us['thread']:.0f} us with a thread, {fresh_us['process']:.0f} us with a "
          f"process: handing it over to a process costs {fresh_us['process'] - fresh_us['thread']:.0f} us more")


# ---- start and memory


def start(bars: Bars, options: argparse.Namespace) -> None:
    """The time until a pool of 50 is ready."""
    print("\na pool of 50, from starting Python to its ready line")

    def until_ready(mode: str) -> float:
        begun_at = time.perf_counter()
        server = ServerProcess(50, mode, cwd=Path(__file__).resolve().parent.parent)
        time_s = time.perf_counter() - begun_at
        server.close()
        return time_s

    times_s = alternately(options.repeats, thread=lambda: until_ready("thread"),
                          process=lambda: until_ready("process"))
    bars("50 threads, seconds", times_s["thread"], high=0.5)
    bars("50 processes, seconds", times_s["process"], high=3.0)


def memory(bars: Bars, options: argparse.Namespace) -> None:
    """Peak resident memory of 50 clients and 50 workers."""
    print(f"\npeak resident memory of one process, MiB, 50 clients x {options.volume} MB up and down, 50 workers")
    for mode, high, text in (("thread", 64.0, "server with 50 threads"),
                             ("process", 30.0, "the largest of 50 processes")):
        server = ServerProcess(50, mode)
        try:
            rows = [stress(server.client, operation, options.volume, 50, "thread")
                    for operation in ("download", "upload")]
        finally:
            server.close()
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
            with tempfile.TemporaryDirectory() as folder:
                begun_at = time.perf_counter()
                done = run_script("run_for_test.py", "--volumes", 10, "--client-workers", pools,
                                  "--server-workers", pools, "--output", Path(folder, "run"), timeout_s=600.0)
                time_s = time.perf_counter() - begun_at
                with open(Path(folder, "run", "rekap.csv"), newline="", encoding="utf-8") as file:
                    rows = list(csv.DictReader(file))
            if done.returncode:
                raise SystemExit(f"the run has failed: {done.stderr}")
            costs_s.append((time_s - sum(float(row["waktu_dinding_s"]) for row in rows)) / len(rows))
        bars(f"pools of {pools}, mean of {len(rows)} rows", statistics.median(costs_s), high=high)


# ---- what others do with the same file


@contextmanager
def started(command: list[str], port: int) -> Iterator[None]:
    """Run a server until it listens, and end it afterwards."""
    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(listens, command[0])
        yield
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def received(connection: socket.socket) -> None:
    """Receive all, with CRC-32, as our client does with raw bytes."""
    receive_raw(connection, None)


def others(bars: Bars, options: argparse.Namespace) -> None:
    """Raw transfers by pyftpdlib and nginx, where they are installed; and by ours, for comparison."""
    print(f"\none client, {options.volume} MB of raw bytes by other servers, MiB/s (all receivers with CRC-32)")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)  # nginx's workers are somebody else
        path = Path(folder, "source")
        path.write_bytes(os.urandom(options.volume * MB))
        crc32 = zlib.crc32(path.read_bytes())
        server = ServerProcess(1, "thread")
        shutil.copy(path, server.directory / "source")

        def rate_of(function: Function) -> float:
            return float(options.volume) / seconds_of(function)

        def ours(operation: str) -> float:
            with open(path, "rb", buffering=0) as file:
                return rate_of(lambda: (
                    remote_upload(server.client, file, "uploaded", True, crc32) if operation == "upload" else
                    remote_get(server.client, "source", lambda piece: None, True)))

        functions: dict[str, Callable[[], float]] = {
            "ours_get": lambda: ours("download"), "ours_put": lambda: ours("upload")}
        try:
            if importlib.util.find_spec("pyftpdlib"):
                port = free_port()
                with started([sys.executable, "-m", "pyftpdlib", "-i", "127.0.0.1", "-p", str(port), "-w", "-d",
                              folder], port), ftplib.FTP() as ftp:
                    ftp.connect("127.0.0.1", port)
                    ftp.login()

                    def retrieve() -> float:
                        def run() -> None:
                            ftp.voidcmd("TYPE I")
                            with ftp.transfercmd("RETR source") as connection:
                                received(connection)
                            ftp.voidresp()
                        return rate_of(run)

                    def store() -> float:
                        def run() -> None:
                            ftp.voidcmd("TYPE I")
                            with ftp.transfercmd("STOR stored") as connection:
                                send_raw(connection, path)
                            ftp.voidresp()
                        return rate_of(run)

                    rates = alternately(options.repeats, retr=retrieve, stor=store, **functions)
                    show(rates)
                    bars("download over RETR", rates["ours_get"] / rates["retr"], 0.95)
                    bars("upload over STOR", rates["ours_put"] / rates["stor"], 0.95)
            else:
                print("  pyftpdlib is not installed here: skipped")
            if nginx := shutil.which("nginx"):
                port = free_port()
                Path(folder, "nginx.conf").write_text(
                    f"daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1;\n"
                    f"events {{}} http {{ access_log off; sendfile on; tcp_nopush on;\n"
                    f"server {{ listen 127.0.0.1:{port}; root {folder}; }} }}\n")
                with started([nginx, "-p", folder, "-c", f"{folder}/nginx.conf"], port):
                    def get() -> float:
                        def run() -> None:
                            with socket.create_connection(("127.0.0.1", port)) as connection:
                                connection.sendall(b"GET /source HTTP/1.0\r\n\r\n")
                                received(connection)
                        return rate_of(run)

                    show(alternately(options.repeats, nginx_get=get, **functions))
            else:
                print("  nginx is not installed here: skipped")
        finally:
            server.close()


def show(rates: dict[str, float]) -> None:
    """Print rates by name."""
    print("  " + ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items()))


PARTS = (one_client, fifty_threads, small_requests, start, memory, fixed_cost, others)


def main() -> int:
    """Run the timings; return 1 if a bar is missed."""
    names = [part.__name__ for part in PARTS]
    parser = argparse.ArgumentParser(description=__doc__, epilog=f"example: tests/benchmark.py {names[1]} --repeats 9")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(names) + " (default: all)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--volume", type=int, default=100, help="MB")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(names):
        parser.error(f"no such part: {', '.join(unknown)}")
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.platform()}, "
          f"{os.cpu_count()} cores, load {' '.join(f'{load:.1f}' for load in os.getloadavg())}, "
          f"median of {options.repeats}")
    bars = Bars()
    for part in PARTS:
        if not options.parts or part.__name__ in options.parts:
            part(bars, options)
    print(f"\n{bars.missed} bars missed" if bars.missed else "\nall bars reached")
    return 1 if bars.missed else 0


if __name__ == "__main__":
    sys.exit(main())
