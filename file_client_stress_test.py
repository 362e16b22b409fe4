"""The stress client: one row of the table, measured against any running server.

A row is N clients at once, each on its own connection, each in its own worker of some engine: a thread pool, a
process pool, or whatever else is an Executor, on as many hosts as it has. What is not to be measured comes first:
the test file, its copy on the server, the pool at full size. Then all clients wait for one moment, announced on the
wall clock (the only clock that several hosts share) and say how late they began; how far the hosts' clocks differ
is told by when a job went out and came back. Durations come from time.perf_counter().

A client succeeds when the whole file went over, with the right size and CRC-32, and the reply said OK. The
server's columns come from the server's own counts, asked for before and after.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import inspect
import itertools
import json
import multiprocessing
import os
import secrets
import socket
import statistics
import sys
import tempfile
import threading
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

from file_client_cli import (
    RemoteError, Server, remote_delete, remote_get, remote_list, remote_stats, remote_upload, size_text,
)
from file_protocol import (
    DEFAULT_PORT, SWITCH_INTERVAL_S, CommandLine, default_start_method, depend_on_parent, forget_main_file, one_of,
    peak_rss_bytes, reason, seconds, whole_number,
)

MB = 1024 * 1024  # as the course counts it
OPERATIONS = ("download", "upload", "list")
ENCODINGS = ("base64", "raw")
START_TIMEOUT_S = 60.0  # for the whole pool of clients to come up
LEAD_S = 0.1  # from handing out the jobs to the common start,
LEAD_PER_CLIENT_S = 0.004  # and this for each: 50 processes take a quarter of a second to get theirs
TOGETHER_S = 0.05  # starts, and clocks, that are no further apart are not remarked on
SETTLE_S = 5.0  # for a server to notice that failed clients are gone

COLUMNS = (
    "nomor", "model_server", "model_client", "operasi", "volume_mb", "client_worker_pool", "server_worker_pool",
    "waktu_total_per_client_s", "throughput_per_client_byte_per_s", "client_sukses", "client_gagal",
    "server_sukses", "server_gagal", "server_menganggur", "permintaan_sukses", "permintaan_gagal",
    "waktu_dinding_s", "throughput_total_byte_per_s", "galat",
    "ulangan", "sebaran_waktu_s", "koneksi_rata_s", "antre_rata_s", "transfer_rata_s",
    "total_min_s", "total_p50_s", "total_p95_s", "total_maks_s", "selisih_mulai_maks_s", "selisih_jam_maks_s",
    "cpu_server_s", "cpu_client_s", "memori_server_byte", "memori_client_byte", "catatan", "encoding",
)


# ---- the engines that run the clients: from a name to an executor


class EngineError(Exception):
    """An engine cannot be had or does not work; the text is for people, in Indonesian."""


def thread_pool(max_workers: int) -> Executor:
    """Return a pool of threads, none of which does anything before all are there."""
    barrier = threading.Barrier(max_workers, timeout=START_TIMEOUT_S)
    return ThreadPoolExecutor(max_workers, initializer=barrier.wait)


def process_pool(max_workers: int) -> Executor:
    """Return a pool of processes, none of which does anything before all are there."""
    context = multiprocessing.get_context(default_start_method())
    context.set_forkserver_preload(["file_client_stress_test"])  # imported once and not by each process
    barrier = context.Barrier(max_workers, timeout=START_TIMEOUT_S)
    return ProcessPoolExecutor(max_workers, context, _enter_process, (barrier,))


def _enter_process(barrier: Any) -> None:
    depend_on_parent()
    barrier.wait()


EXECUTORS: dict[str, Callable[..., Executor]] = {"thread": thread_pool, "process": process_pool}


def executor_named(name: str) -> Callable[..., Executor]:
    """Return what `name` stands for: an entry of EXECUTORS, or MODULE:CALLABLE, anything that returns an Executor.

    The module may also be in the current directory. Raises EngineError.
    """
    if name in EXECUTORS:
        return EXECUTORS[name]
    module, _, attribute = name.partition(":")
    if not (module and attribute):
        raise EngineError(f"{name!r} bukan salah satu dari: {', '.join(EXECUTORS)}, MODUL:FUNGSI")
    with _blaming(name):
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # last: nothing there hides a module that is needed
        found: Callable[..., Executor] = attrgetter(attribute)(import_module(module))
        if not callable(found):
            raise TypeError(f"{attribute} bukan fungsi")
        return found


def make_executor(name: str, max_workers: int) -> Executor:
    """Return a new executor of the engine `name`, of that size where it lets one choose. Raises EngineError."""
    make = executor_named(name)
    options = {"max_workers": max_workers}
    try:
        inspect.signature(make).bind(**options)
    except (TypeError, ValueError):  # it does not take that, or does not tell
        options = {}
    with _blaming(name):
        executor = make(**options)
        if not isinstance(executor, Executor):
            raise TypeError(f"hasilnya {type(executor).__name__}, bukan Executor")
        return executor


@contextmanager
def _blaming(name: str) -> Iterator[None]:
    """Turn whatever fails inside into an EngineError: one line, with the place if that is in other people's code."""
    try:
        yield
    except Exception as error:
        places = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)
                  if frame.filename != __file__ and "importlib" not in frame.filename]
        told = " ".join([f"{type(error).__name__}:", *str(error).split(), *(f"({place})" for place in places[-1:])])
        raise EngineError(f"mesin beban {name} tidak dapat dipakai: {told}") from error


# ---- one client: what travels to a worker, and back


@dataclass(frozen=True)
class Job:
    """What one client has to do; plain data."""

    client: int
    server: Server
    operation: str
    name: str  # of the file on the server
    volume_bytes: int
    crc32: int
    path: str  # the test file, on the host that made it
    seed: str  # to make it anywhere else
    raw: bool
    start_at: float  # time.time()
    sent_at: float  # the same clock: when this job was handed to the engine


@dataclass(frozen=True)
class Outcome:
    """What one client did; plain data. Times in seconds."""

    client: int
    cause: str  # "" for success, else RemoteError.cause, or "client" where the client itself broke
    message: str
    file_bytes: int
    crc32: str
    checked: bool  # whether the server told the CRC-32 of the file
    late_s: float  # from the common start to this client's own
    connect_s: float | None
    wait_s: float | None
    total_s: float
    process: str  # host and pid
    cpu_from_s: float  # time.process_time() of that process before and after
    cpu_to_s: float
    peak_rss_bytes: int | None
    sent_at: float = 0.0  # time.time() of the one who sent the job,
    taken_at: float = 0.0  # of the worker that took it,
    done_at: float = 0.0  # of the same when it was done,
    back_at: float = 0.0  # and of the sender when this had come back

    @property
    def skew_s(self) -> float:
        """How far at least the worker's clock is ahead of the sender's (or behind, if negative): no job is taken
        before it was sent, and none is back before it was done. Less than its way took stays unseen."""
        return max(self.done_at - self.back_at, 0.0) or min(self.taken_at - self.sent_at, 0.0)


def get_ready(path: str, number: int) -> tuple[str, bool]:
    """Be a first task in a worker, which imports this module; return its host, and whether that has the test file.

    `number` makes each call another: some engines run equal calls once.
    """
    return socket.gethostname(), os.path.exists(path)


def test_blocks(seed: str, volume_bytes: int) -> Iterator[bytes]:
    """Yield `volume_bytes` of random bytes, the same for the same seed, no block like another."""
    for index in range(-(-volume_bytes // MB)):
        yield hashlib.shake_128(f"{seed}/{index}".encode()).digest(min(MB, volume_bytes - index * MB))


@contextmanager
def _test_file(job: Job) -> Iterator[BinaryIO | None]:
    """Open the test file if this client sends it; on a host that has none, make it."""
    if job.operation != "upload":
        yield None
    elif os.path.exists(job.path):
        with open(job.path, "rb", buffering=0) as file:
            yield file
    else:
        with tempfile.TemporaryFile(buffering=0) as file:
            for block in test_blocks(job.seed, job.volume_bytes):
                file.write(block)
            file.seek(0)
            yield file


def run_client(job: Job) -> Outcome:
    """Be one client, in a worker: get ready, wait for the common start, do it, tell what happened."""
    taken_at = time.time()
    with _test_file(job) as file:
        # Never longer than from sending to start, whatever the clock of this host believes.
        time.sleep(max(0.0, min(job.start_at - time.time(), job.start_at - job.sent_at)))
        late_s = time.time() - job.start_at
        cpu_from_s = time.process_time()
        begun_at = time.perf_counter()
        cause = message = ""
        transfer = None
        try:
            if job.operation == "list":
                remote_list(job.server)
            elif file is None:
                transfer = remote_get(job.server, job.name, lambda piece: None, job.raw)
            else:
                transfer = remote_upload(job.server, file, job.name, job.raw, job.crc32)
            if transfer and (transfer.size_bytes, transfer.crc32) != (job.volume_bytes, job.crc32):
                raise RemoteError("integritas", f"bukan file yang diuji: {transfer.size_bytes} byte, "
                                  f"CRC-32 {transfer.crc32:08x} dan bukan {job.crc32:08x}")
        except RemoteError as error:
            cause, message = error.cause, str(error)
        total_s = time.perf_counter() - begun_at
    return Outcome(
        job.client, cause, message, transfer.size_bytes if transfer else 0,
        f"{transfer.crc32:08x}" if transfer else "", bool(transfer and transfer.checked),
        late_s, transfer.connect_s if transfer else None, transfer.wait_s if transfer else None,
        transfer.total_s if transfer else total_s,
        f"{socket.gethostname()}/{os.getpid()}", cpu_from_s, time.process_time(), peak_rss_bytes([os.getpid()]),
        job.sent_at, taken_at, time.time(),
    )


# ---- a row


@dataclass(frozen=True)
class Row:
    """What is to be measured."""

    server: Server
    operation: str
    volume_mb: int
    clients: int
    pool: str
    encoding: str = "base64"

    @property
    def volume_bytes(self) -> int:
        """What each client moves."""
        return 0 if self.operation == "list" else self.volume_mb * MB


@dataclass(frozen=True)
class Measured:
    """What came of it: the outcome of each client, and what STATS said before and after (None: nothing)."""

    row: Row
    outcomes: list[Outcome]
    before: dict[str, Any] | None
    after: dict[str, Any] | None


def measured_from(row: Row, raw: dict[str, Any]) -> Measured:
    """Return what --json told of a row."""
    return Measured(row, [Outcome(**outcome) for outcome in raw["outcomes"]], raw["before"], raw["after"])


def measure(row: Row) -> Measured:
    """Run one row. Raises RemoteError if the server cannot be prepared for it, OSError if this host cannot,
    EngineError if there is nothing to run the clients."""
    token = secrets.token_hex(4)
    names = [f"uji-{token}-{client}.bin" for client in range(row.clients)]
    if row.operation == "download":
        names = [f"uji-{token}.bin"] * row.clients
    executor = make_executor(row.pool, row.clients)
    try:
        with tempfile.TemporaryDirectory(prefix="uji-") as folder:
            path = Path(folder, "uji.bin")
            _meet(row, executor, path, range(row.clients))  # the pool is at full size
            return _measure(row, executor, path, token, names)
    finally:  # what hangs, or is still under way when a person gives up, is not waited for
        executor.shutdown(wait=sys.exc_info()[0] not in (KeyboardInterrupt, EngineError))


def _meet(row: Row, executor: Executor, path: Path, numbers: range) -> list[tuple[str, bool]]:
    """Have a task run for each client, wait for all, and return what they told."""
    with _blaming(row.pool):
        futures = [executor.submit(get_ready, str(path), number) for number in numbers]
        if wait(futures, START_TIMEOUT_S).not_done:
            raise TimeoutError(f"tidak siap dalam {START_TIMEOUT_S:g} detik")
        return [future.result() for future in futures]


def _measure(row: Row, executor: Executor, path: Path, token: str, names: list[str]) -> Measured:
    crc32 = 0
    begun_at = time.perf_counter()
    with open(path, "wb") as file:
        for block in test_blocks(token, row.volume_bytes):
            crc32 = zlib.crc32(block, crc32)
            file.write(block)
    making_s = time.perf_counter() - begun_at
    if row.operation == "download":
        with open(path, "rb", buffering=0) as source:
            remote_upload(row.server, source, names[0], raw=True, crc32=crc32)
    try:
        before = _stats(row.server)
        begun_at = time.perf_counter()
        met = _meet(row, executor, path, range(row.clients, 2 * row.clients))
        lead_s = LEAD_S + row.clients * LEAD_PER_CLIENT_S + time.perf_counter() - begun_at
        if row.operation == "upload":  # where the file is not, each client makes its own, in each other's way
            lead_s += 2 * making_s * max(Counter(host for host, has_file in met if not has_file).values(), default=0)
        start_at = time.time() + lead_s
        back_at: dict[int, float] = {}
        with _blaming(row.pool):
            futures = [
                _submit(executor, back_at, Job(client, row.server, row.operation, name, row.volume_bytes, crc32,
                                               str(path), token, row.encoding == "raw", start_at, time.time()))
                for client, name in enumerate(names)
            ]
        outcomes = [_outcome(client, future) for client, future in enumerate(futures)]
        outcomes = [replace(outcome, back_at=back_at.get(outcome.client, time.time())) for outcome in outcomes]
        after = _stats_after(row.server, failed=any(outcome.cause for outcome in outcomes))
        if row.operation == "upload":
            outcomes = [_read_back(row, outcome, names[outcome.client], crc32) for outcome in outcomes]
    finally:
        if row.operation != "list":
            _delete(_patient(row.server), names)
    return Measured(row, outcomes, before, after)


def _submit(executor: Executor, back_at: dict[int, float], job: Job) -> Future[Outcome]:
    """Hand a job to the engine; once it is back, `back_at` has when that was."""
    future = executor.submit(run_client, job)
    future.add_done_callback(lambda _: back_at.setdefault(job.client, time.time()))
    return future


def _outcome(client: int, future: Future[Outcome]) -> Outcome:
    """Return what a client sent back; if its worker died or has a bug, that is a failure too, and a loud one."""
    try:
        return future.result()
    except Exception as error:
        if not isinstance(error, BrokenExecutor):
            traceback.print_exc()
        return failed_outcome(client, "client", f"{type(error).__name__}: {error}")


def failed_outcome(client: int, cause: str, message: str) -> Outcome:
    """Return the outcome of a client that could tell nothing itself."""
    return Outcome(client, cause, message, 0, "", False, 0.0, None, None, 0.0, "", 0.0, 0.0, None)


def _read_back(row: Row, outcome: Outcome, name: str, crc32: int) -> Outcome:
    """Look at what a server has stored that says OK but not what of: it may be less than was sent."""
    if outcome.cause or outcome.checked:
        return outcome
    try:
        stored = remote_get(row.server, name, lambda piece: None)
        if (stored.size_bytes, stored.crc32) == (row.volume_bytes, crc32):
            return outcome
        message = f"server berkata OK, tetapi yang tersimpan {stored.size_bytes} byte, CRC-32 {stored.crc32:08x}"
    except RemoteError as error:
        message = f"server berkata OK, tetapi filenya tidak dapat dibaca kembali ({error})"
    return replace(outcome, cause="integritas", message=message)


def _stats(server: Server) -> dict[str, Any] | None:
    """Return the server's counts, or None if it does not keep any, as the course's server does not."""
    try:
        return remote_stats(server)
    except RemoteError as error:
        if error.cause in ("server", "protokol"):
            return None
        raise


def _patient(server: Server) -> Server:
    """Return the server for requests that are not measured, and for which nobody waits long."""
    return replace(server, timeout_s=min(server.timeout_s, 2 * SETTLE_S))


def _delete(server: Server, names: list[str]) -> None:
    """Delete what a row may have left on the server; give up if it is not there any more."""
    for name in dict.fromkeys(names):
        try:
            remote_delete(server, name)
        except RemoteError as error:
            if error.cause != "server":  # that one only says that a failed upload left nothing
                return


def _stats_after(server: Server, failed: bool) -> dict[str, Any] | None:
    """Return the server's counts after a row, or None if it cannot tell any more.

    What succeeded is in them already. Of a client that gave up, the server may not have noticed yet.
    """
    give_up_at = time.monotonic() + SETTLE_S
    try:
        while (stats := _stats(_patient(server))) and failed and time.monotonic() < give_up_at:
            if stats["active"] + stats["waiting"] <= 1:  # the one is this question
                break
            time.sleep(0.05)  # another process on perhaps another host: there is nothing to wait on
        return stats
    except RemoteError:
        return None


# ---- the arithmetic


def summarise(measured: Measured) -> dict[str, Any]:
    """Return the row of the table, by column; None is a blank. `nomor` is the caller's."""
    row, outcomes = measured.row, measured.outcomes
    before, after = measured.before, measured.after
    good = [outcome for outcome in outcomes if not outcome.cause]
    totals_s = [outcome.total_s for outcome in good]
    file_bytes = sum(outcome.file_bytes for outcome in good)
    lates_s = [outcome.late_s - outcome.skew_s for outcome in outcomes]  # all by one clock
    wall_s = max(max(late_s, 0.0) + outcome.total_s for late_s, outcome in zip(lates_s, outcomes, strict=True))
    waits_s = [outcome.wait_s for outcome in good if outcome.wait_s is not None]
    connects_s = [outcome.connect_s for outcome in good if outcome.connect_s is not None]
    causes = Counter(outcome.cause for outcome in outcomes if outcome.cause)
    client_cpu_s, client_memory_bytes = _client_cost(outcomes)
    late_s = max(map(abs, lates_s))
    workers = _worker_outcomes(before, after)
    delta = {key: after[key] - before[key] for key in ("succeeded", "failed", "cpu_s")} if before and after else {}
    antre_s = _mean(waits_s) if len(waits_s) == len(good) else None
    koneksi_s = _mean(connects_s)
    result = {
        "nomor": None,
        "model_server": after and after["mode"],
        "model_client": row.pool,
        "operasi": row.operation,
        "volume_mb": row.volume_bytes // MB,
        "client_worker_pool": row.clients,
        "server_worker_pool": after and after["workers"],
        "waktu_total_per_client_s": _mean(totals_s),
        "throughput_per_client_byte_per_s": round(file_bytes / sum(totals_s), 1) if good and file_bytes else None,
        "client_sukses": len(good),
        "client_gagal": len(outcomes) - len(good),
        "server_sukses": workers["sukses"],
        "server_gagal": workers["gagal"],
        "server_menganggur": workers["menganggur"],
        "permintaan_sukses": delta.get("succeeded"),
        "permintaan_gagal": delta.get("failed"),
        "waktu_dinding_s": round(wall_s, 6),
        "throughput_total_byte_per_s": round(file_bytes / wall_s, 1) if good and file_bytes else None,
        "galat": " ".join(f"{cause}:{count}" for cause, count in sorted(causes.items())),
        "ulangan": 1,
        "sebaran_waktu_s": None,
        "koneksi_rata_s": koneksi_s,
        "antre_rata_s": antre_s,
        "transfer_rata_s": None,
        "total_min_s": None, "total_p50_s": None, "total_p95_s": None, "total_maks_s": None,
        "selisih_mulai_maks_s": round(late_s, 6),
        "selisih_jam_maks_s": round(max(abs(outcome.skew_s) for outcome in outcomes), 6),
        "cpu_server_s": round(delta["cpu_s"], 3) if delta else None,
        "cpu_client_s": round(client_cpu_s, 3),
        "memori_server_byte": after and after["peak_rss_bytes"],
        "memori_client_byte": client_memory_bytes,
        "catatan": "; ".join(_remarks(outcomes, wall_s, client_cpu_s, late_s)),
        "encoding": row.encoding,
    }
    if totals_s:
        ordered = sorted(totals_s)
        centiles = statistics.quantiles(ordered, n=100, method="inclusive") if len(ordered) > 1 else ordered * 99
        result |= {"total_min_s": round(ordered[0], 6), "total_p50_s": round(centiles[49], 6),
                   "total_p95_s": round(centiles[94], 6), "total_maks_s": round(ordered[-1], 6)}
        if antre_s is not None and koneksi_s is not None:
            result["transfer_rata_s"] = round(statistics.fmean(totals_s) - antre_s - koneksi_s, 6)
    return result


def _mean(values: list[float]) -> float | None:
    return round(statistics.fmean(values), 6) if values else None


def _worker_outcomes(before: dict[str, Any] | None, after: dict[str, Any] | None) -> dict[str, int | None]:
    """Count the server's workers: all it served succeeded, some failed or it died, it served none."""
    if before is None or after is None:
        return dict.fromkeys(("sukses", "gagal", "menganggur"))
    counts = Counter({"sukses": 0, "gagal": 0, "menganggur": 0})
    nothing = {"succeeded": 0, "failed": 0, "died": 0}
    for now, then in itertools.zip_longest(after["per_worker"], before["per_worker"], fillvalue=nothing):
        if now["failed"] > then["failed"] or now["died"] > then["died"]:
            counts["gagal"] += 1
        elif now["succeeded"] > then["succeeded"]:
            counts["sukses"] += 1
        else:
            counts["menganggur"] += 1
    return dict(counts)


def _client_cost(outcomes: list[Outcome]) -> tuple[float, int | None]:
    """Return the CPU seconds and the peak memory of the clients' processes, each process counted once."""
    processes: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        processes.setdefault(outcome.process, []).append(outcome)
    cpu_s = sum(max(one.cpu_to_s for one in group) - min(one.cpu_from_s for one in group)
                for group in processes.values())
    peaks = [max(one.peak_rss_bytes or 0 for one in group) for group in processes.values()]
    return cpu_s, sum(peaks) or None


def _remarks(outcomes: list[Outcome], wall_s: float, client_cpu_s: float, late_s: float) -> Iterator[str]:
    ran = [outcome for outcome in outcomes if outcome.process]
    hosts = Counter(process.partition("/")[0] for process in {outcome.process for outcome in ran})
    cores = sum(min(count, os.cpu_count() or 1) for count in hosts.values())  # as if all hosts were like this one
    if client_cpu_s > 0.9 * cores * wall_s:
        yield "CPU client menjadi batas"
    if late_s > max(TOGETHER_S, 0.1 * wall_s):
        yield "mulai tidak serempak"
    first_end = min((outcome.done_at - outcome.skew_s for outcome in ran), default=0.0)
    if waited := sum(outcome.taken_at - outcome.skew_s > first_end for outcome in ran):
        yield f"{waited} client baru mendapat tempat di mesin beban setelah client lain selesai"
    skew_s = max((abs(outcome.skew_s) for outcome in ran), default=0.0)
    if skew_s > TOGETHER_S:
        yield f"jam host berbeda sedikitnya {skew_s:.2f} s"


# ---- the CSV and the command line


def append_csv(path: Path, row: dict[str, Any]) -> None:
    """Append a row to a CSV file, with the heads first if it is new; the system has it on return."""
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


def row_text(row: dict[str, Any]) -> str:
    """Return the result of a row in one line, for people."""
    time_s = row["waktu_total_per_client_s"]
    rate = row["throughput_per_client_byte_per_s"]
    text = "" if time_s is None else f"{time_s:.3f} detik/client"
    text += "" if rate is None else f", {size_text(rate)}/detik/client"
    server = "?" if row["server_sukses"] is None else (
        f"{row['server_sukses']} sukses {row['server_gagal']} gagal {row['server_menganggur']} menganggur")
    failed = f" ({row['galat']})" if row["galat"] else ""
    return (f"{text or 'tidak ada yang berhasil'} | client {row['client_sukses']} sukses {row['client_gagal']} gagal"
            f"{failed} | server {server}" + f" | {row['catatan']}" * bool(row["catatan"]))


def engine(text: str) -> str:
    """A type for argparse: the name of an engine that can be found."""
    try:
        executor_named(text)
    except EngineError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def main(argv: list[str] | None = None) -> int:
    """Measure one row; return the exit code: 0 all succeeded, 1 some failed, 2 wrong usage or engine, 3 no server."""
    parser = CommandLine(description="Stress test: satu baris tabel terhadap server yang sedang berjalan.",
                         epilog="contoh: python3 file_client_stress_test.py --operation upload --clients 50")
    parser.add_address(DEFAULT_PORT)
    parser.add_argument("--operation", required=True, type=one_of(OPERATIONS), help=" | ".join(OPERATIONS))
    parser.add_argument("--volume", default=10, type=whole_number(1, 100_000), metavar="MB",
                        help="ukuran file, 1 MB = 1.048.576 byte (bawaan: %(default)s)")
    parser.add_argument("--clients", default=1, type=whole_number(1, 10_000), metavar="N",
                        help="jumlah client worker (bawaan: %(default)s)")
    parser.add_argument("--executor", "--pool", default="thread", type=engine, metavar="MESIN",
                        help=f"{' | '.join(EXECUTORS)} | MODUL:FUNGSI yang mengembalikan Executor (bawaan: thread)")
    parser.add_argument("--encoding", default="base64", type=one_of(ENCODINGS), help=" | ".join(ENCODINGS))
    parser.add_argument("--timeout", default=Server.timeout_s, type=seconds, metavar="DETIK",
                        help="batas waktu satu client (bawaan: %(default)g)")
    parser.add_argument("--output", type=Path, metavar="CSV", help="tambahkan baris ke file ini")
    parser.add_argument("--json", action="store_true", help="tulis data mentah ke stdout, satu objek JSON per baris")
    options = parser.parse_args(argv)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    if options.executor == "process":  # some other engines need it
        forget_main_file()
    if options.output:
        try:
            open(options.output, "a").close()
        except OSError as error:
            parser.error(f"{options.output} tidak dapat ditulis ({reason(error)})")
    row = Row(Server(options.host, options.port, options.timeout), options.operation, options.volume,
              options.clients, options.executor, options.encoding)
    try:
        measured = measure(row)
    except RemoteError as error:
        print(f"galat ({error.cause}): {error}", file=sys.stderr)
        return 3
    except OSError as error:
        print(f"galat: {error.filename or ''} {reason(error)}", file=sys.stderr)
        return 3
    except EngineError as error:
        print(f"galat: {error}", file=sys.stderr, flush=True)
        os._exit(2)  # threads of an engine that hangs are not waited for
    except KeyboardInterrupt:
        os._exit(130)  # what the clients are in the middle of is not waited for
    result = summarise(measured)
    if options.json:
        print(json.dumps(asdict(measured)))
    else:
        print(row_text(result))
    for message, count in Counter(outcome.message for outcome in measured.outcomes if outcome.cause).items():
        print(f"{count} client gagal: {message}", file=sys.stderr)
    if options.output:
        append_csv(options.output, result)
    return 1 if result["client_gagal"] or result["server_gagal"] else 0


if __name__ == "__main__":
    import file_client_stress_test  # what is sent to a worker process must be this module's, not __main__'s
    sys.exit(file_client_stress_test.main())
