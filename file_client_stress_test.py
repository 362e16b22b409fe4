"""The stress client: one row of the table, measured against any running server.

A row is N clients at once, each with a connection and a worker of its own, of an engine: a thread pool, a
process pool, or any other Executor. What is not to be measured comes first: the test file, its copy on the
server, the pool at full size, and a warm-up round. Then all clients wait for one moment on the wall clock.
A client succeeds when the whole file went over, with the right size and CRC-32, and the reply said OK. The
server's columns come from its own counts, asked for before and after.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import secrets
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from itertools import zip_longest
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

from file_client_cli import (
    RemoteError, Server, Transfer, interrupt_on_signals, knows_raw, number_text, printable, read_back,
    remote_delete, remote_get, remote_list, remote_stats, remote_upload, size_text,
)
from file_protocol import DEFAULT_HOST, DEFAULT_PORT, crc32_of, os_error_text, prepare_streams, say
from file_server import default_start_method as default_start_method
from file_server import make_pool

MB = 1024 * 1024  # as the course counts it
OPERATIONS = ("download", "upload", "list")
ENCODINGS = ("base64", "raw")
EXECUTORS = ("thread", "process")
START_TIMEOUT_S = 60.0  # for an engine to come up
LEAD_S = 0.03  # from handing out the jobs to the common start, besides what the warm-up round took
MARGIN_S = 5.0  # how much longer than a client's time-out its outcome is waited for
TOGETHER_S = 0.05  # starts that are no further apart are not remarked on
SETTLE_S = 5.0  # for a server to answer what is not measured, and to notice that failed clients are gone
NO_ANSWER = "mesin beban tidak menjawab"
COLUMNS = (
    "nomor", "model_server", "model_client", "operasi", "volume_mb", "client_worker_pool",
    "server_worker_pool", "waktu_total_per_client_s", "throughput_per_client_byte_per_s", "client_sukses",
    "client_gagal",
    "server_sukses", "server_gagal", "server_menganggur", "permintaan_sukses", "permintaan_gagal",
    "waktu_dinding_s", "throughput_total_byte_per_s", "galat", "ulangan", "waktu_mulai", "koneksi_rata_s",
    "antre_rata_s", "byte_pertama_rata_s", "transfer_rata_s", "total_min_s", "total_p50_s", "total_p95_s",
    "total_maks_s", "selisih_mulai_maks_s", "cpu_server_s", "cpu_client_s", "memori_server_byte",
    "memori_puncak_server_byte", "memori_client_byte", "memori_puncak_client_byte", "catatan", "encoding",
)


class EngineError(Exception):
    """An engine cannot be had or does not work; the text is for people, in Indonesian."""


@contextmanager
def engine_errors(name: str) -> Iterator[None]:
    """Turn what fails inside into an EngineError, in one line, with the place in other people's code."""
    try:
        yield
    except Exception as error:
        places = [f"({frame.filename}:{frame.lineno})" for frame in traceback.extract_tb(error.__traceback__)
                  if frame.filename != __file__ and "importlib" not in frame.filename]
        told = " ".join([f"{type(error).__name__}:", *str(error).split(), *places[-1:]])
        raise EngineError(f"mesin beban {name} tidak dapat dipakai: {told}") from error


def make_executor(name: str, workers: int) -> Executor:
    """Return a new pool of ours, or what MODULE:CALLABLE returns, of that size where it lets one choose.

    The module may be in the current directory. Raises EngineError, and RuntimeError where the system gives
    too little.
    """
    if name in EXECUTORS:
        return make_pool(name, workers)
    module, _, attribute = name.partition(":")
    with engine_errors(name):
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # last: nothing there hides a module that is needed
        make = attrgetter(attribute)(import_module(module))
        try:
            executor = make(max_workers=workers)
        except TypeError:  # it does not let one choose, or fails once more
            executor = make()
        if not isinstance(executor, Executor):
            raise TypeError(f"hasilnya {type(executor).__name__}, bukan Executor")
        return executor


@dataclass(frozen=True)
class Row:
    """What is to be measured. Raises ValueError if out of range."""

    server: Server
    operation: str
    volume_mb: int  # 0 for list
    clients: int
    pool: str  # or another engine
    encoding: str = "base64"
    served: str = ""  # the name of the test file on the server, if it is there

    def __post_init__(self) -> None:
        least_mb = int(self.operation != "list")  # a LIST moves no file
        if not (least_mb <= self.volume_mb <= 100_000 * least_mb and 1 <= self.clients <= 10_000):
            raise ValueError("volume harus 1 sampai 100000 MB, dan jumlah client 1 sampai 10000")


# ---- one client: what travels to a worker, and back


@dataclass(frozen=True)
class Job:
    """What one client has to do."""

    client: int
    row: Row
    name: str  # of the file on the server
    crc32: int
    path: str  # of the file to send; its name is the seed to make it where it is not


@dataclass(frozen=True)
class Outcome:
    """What one client did; plain data. Times in seconds, None for unknown; see Transfer."""

    cause: str  # "" for success, else RemoteError.cause, or "client" where the client itself broke
    message: str = ""
    late_s: float = 0.0  # from the common start to this client's own
    total_s: float = 0.0
    process: str = ""  # host and pid
    cpu_from_s: float = 0.0  # time.process_time() of that process before and after
    cpu_to_s: float = 0.0
    size_bytes: int = 0
    connect_s: float | None = None
    queue_s: float | None = None
    first_byte_s: float | None = None
    checked: bool = False


def random_blocks(seed: str, volume_bytes: int) -> Iterator[bytes]:
    """Yield `volume_bytes` of random bytes, the same for the same seed, no block like another."""
    for index in range(-(-volume_bytes // MB)):
        yield hashlib.shake_128(f"{seed}/{index}".encode()).digest(min(MB, volume_bytes - index * MB))


def make_test_file(folder: Path, volume_mb: int) -> Path:
    """Return the test file of a volume; make it if `folder` does not have it whole. Raises OSError."""
    path = folder / f"uji-{volume_mb}MB.bin"
    if not (path.exists() and path.stat().st_size == volume_mb * MB):
        with open(path, "wb") as file:
            file.writelines(random_blocks(path.name, volume_mb * MB))
    return path


def open_file(job: Job) -> BinaryIO:
    """Open the file to send; on a host that has none, make one that is gone when it is closed."""
    if os.path.exists(job.path):
        return open(job.path, "rb", buffering=0)
    file = tempfile.TemporaryFile(buffering=0)
    file.writelines(random_blocks(Path(job.path).name, job.row.volume_mb * MB))
    file.seek(0)
    return file


def get_ready(job: Job) -> None:
    """Warm-up task: do what a client does before the start, so that one knows how long that takes."""
    open_file(job).close()


def run_client(job: Job, start_at: float, lead_s: float) -> Outcome:
    """Run one client and return its outcome. It begins at `start_at` by time.time(), but waits for no longer
    than `lead_s`, whatever the clock of this host says."""
    row, cause, message, transfer = job.row, "", "", None
    with open_file(job) as file:
        time.sleep(max(0.0, min(start_at - time.time(), lead_s)))
        late_s, cpu_from_s, begun_at = time.time() - start_at, time.process_time(), time.perf_counter()
        try:
            if row.operation == "list":
                remote_list(row.server)
            elif row.operation == "download":
                transfer = remote_get(row.server, job.name, lambda piece: None, row.encoding == "raw")
            else:
                transfer = remote_upload(row.server, file, job.name, row.encoding == "raw", job.crc32)
            if transfer and (transfer.size_bytes, transfer.crc32) != (row.volume_mb * MB, job.crc32):
                raise RemoteError("integritas", f"bukan file yang diuji: {transfer.size_bytes} byte, "
                                  f"CRC-32 {transfer.crc32:08x} dan bukan {job.crc32:08x}")
        except RemoteError as error:
            cause, message, transfer = error.cause, str(error), None
        total_s = transfer.total_s if transfer else time.perf_counter() - begun_at
    names = ("size_bytes", "connect_s", "queue_s", "first_byte_s", "checked") if transfer else ()
    return Outcome(cause, message, late_s, total_s, f"{socket.gethostname()}/{os.getpid()}", cpu_from_s,
                   time.process_time(), **{name: getattr(transfer, name) for name in names})


def measure(row: Row, folder: Path | None = None, find_port: Callable[[], int] | None = None,
            tell: Callable[[dict[str, Any]], object] = lambda raw: None) -> dict[str, Any]:
    """Run one row and return its raw data, from which summarise() makes the columns.

    The test file is in `folder`, or a temporary one. `find_port` is asked for the server's port once the pool
    is there. `tell` gets the result before the pool, and what is on the server, is removed. Raises
    RemoteError or OSError if the server or this host cannot be prepared, and as make_executor().
    """
    executor, hangs = make_executor(row.pool, row.clients), True
    try:
        with tempfile.TemporaryDirectory(prefix="uji-") as temporary:
            path, crc32 = Path(os.devnull), 0
            if row.volume_mb:
                path = make_test_file(folder or Path(temporary), row.volume_mb)
                with open(path, "rb", buffering=0) as file:
                    crc32 = crc32_of(file, row.volume_mb * MB)
            if find_port:
                row = replace(row, server=replace(row.server, port=find_port()))
            raw = _measure(row, executor, path, crc32, tell)
        hangs = any(outcome["message"] == NO_ANSWER for outcome in raw["outcomes"])
        return raw
    finally:
        if hangs and hasattr(executor, "kill"):
            executor.kill()
        executor.shutdown(wait=not hangs or row.pool == "process")


def _measure(row: Row, executor: Executor, path: Path, crc32: int,
             tell: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    quick = replace(row.server, timeout_s=min(row.server.timeout_s, SETTLE_S))  # for what is not measured
    if row.encoding == "raw" and row.volume_mb and not knows_raw(quick):
        raise RemoteError("server", "baris raw tidak dapat diukur: server ini tidak mengenal GET_RAW")
    name = f"uji-{secrets.token_hex(4)}"
    jobs = [Job(client, row, row.served or f"{name}.bin", crc32, os.devnull) for client in range(row.clients)]
    if row.operation == "upload":
        jobs = [replace(job, name=f"{name}-{job.client}.bin", path=str(path)) for job in jobs]
    try:
        if row.operation == "download" and not row.served:
            with open(path, "rb", buffering=0) as source:
                remote_upload(row.server, source, jobs[0].name, row.encoding == "raw", crc32)
        before = _stats(quick)
        outcomes, elapsed_s = _run_clients(row, executor, jobs)
        after = before and _stats(quick, settled=any(outcome.cause for outcome in outcomes))
        if row.operation == "upload":
            outcomes = [_read_back(*pair) for pair in zip(outcomes, jobs, strict=True)]
        memory = executor.memory() if hasattr(executor, "memory") else (None, None)
        here = row.pool in EXECUTORS and row.server.host.startswith(("127.", "localhost", "::1"))
        raw = {"model_client": row.pool, "operasi": row.operation, "volume_mb": row.volume_mb,
               "client_worker_pool": row.clients, "encoding": row.encoding, "memori_client_byte": memory[0],
               "memori_puncak_client_byte": memory[1], "elapsed_s": elapsed_s,
               "cores": os.cpu_count() if here else None,  # None: other machines work as well
               "before": before, "after": after, "outcomes": [asdict(outcome) for outcome in outcomes]}
        tell(raw)
        return raw
    finally:
        if row.volume_mb and not row.served:
            _delete(quick, {job.name for job in jobs})


def _run_clients(row: Row, executor: Executor, jobs: list[Job]) -> tuple[list[Outcome], float]:
    """Return the outcomes of all clients, and how long after the common start the last of them was here."""
    futures: list[Future[Any]] = []
    try:
        with engine_errors(row.pool):
            begun_at = time.monotonic()
            futures = [executor.submit(get_ready, job) for job in jobs]
            if wait(futures, START_TIMEOUT_S).not_done:
                raise TimeoutError(f"tidak siap dalam {START_TIMEOUT_S:g} detik")
            for future in futures:
                future.result()
            lead_s = LEAD_S + time.monotonic() - begun_at
            start_at, started_at = time.time() + lead_s, time.monotonic() + lead_s
            futures = [executor.submit(run_client, job, start_at, lead_s) for job in jobs]
        wait(futures, lead_s + row.server.timeout_s + MARGIN_S)
        elapsed_s = time.monotonic() - started_at
        return [_outcome(future) for future in futures], elapsed_s
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):  # nothing is to interrupt the cleaning up
            signal.signal(number, signal.SIG_IGN)
        if row.operation == "upload":
            with suppress(OSError):  # an upload in a thread cannot be ended but by its file
                os.truncate(jobs[0].path, 0)
                os.unlink(jobs[0].path)
        wait(futures, 1.0)
        if hasattr(executor, "kill"):
            executor.kill()
        raise


def _outcome(future: Future[Outcome]) -> Outcome:
    """Return what a client sent back; if its worker died, hangs or has a bug, that is a failure too."""
    if not future.done():
        return Outcome("client", NO_ANSWER)
    try:
        return future.result()
    except OSError as error:
        return Outcome("client", error_text(error))
    except Exception as error:
        return Outcome("client", f"{type(error).__name__}: {error}")


def _read_back(outcome: Outcome, job: Job) -> Outcome:
    """Look at what a server has stored that says OK but not what of: it may be less than was sent."""
    if outcome.cause or outcome.checked:
        return outcome
    try:
        sent = Transfer(job.name, job.row.volume_mb * MB, job.crc32, 0.0, None, None, 0.0, checked=False)
        return replace(outcome, checked=read_back(job.row.server, sent).checked)
    except RemoteError as error:
        return replace(outcome, cause=error.cause, message=str(error), size_bytes=0)


def _stats(server: Server, settled: bool = False) -> dict[str, Any] | None:
    """Return the server's counts, or None if it keeps none; raises RemoteError if there is no server.

    `settled` waits up to SETTLE_S until it has noticed that all clients are gone.
    """
    give_up_at = time.monotonic() + SETTLE_S
    try:
        while "per_worker" in (stats := remote_stats(server)):
            if not settled or stats["active"] + stats["waiting"] <= 1 or time.monotonic() > give_up_at:
                return stats  # the one is this question
            time.sleep(0.05)  # another process on perhaps another host: there is nothing to wait on
    except RemoteError as error:
        if error.cause == "ditolak" and not settled:
            raise
    return None


def _delete(server: Server, names: set[str]) -> None:
    """Delete what a row has left on the server, as far as that is still there."""
    _stats(server, settled=True)  # an upload that was broken off may be under way
    for name in names:
        try:
            remote_delete(server, name)
        except RemoteError as error:
            if error.cause != "server":  # that one says that a failed upload left nothing
                return


# ---- the arithmetic


def summarise(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the row of the table, by column; None is a blank. Columns that `raw` has stay as they are."""
    outcomes, after = [Outcome(**outcome) for outcome in raw["outcomes"]], raw["after"] or {}
    good = [outcome for outcome in outcomes if not outcome.cause]
    totals_s, size_bytes = [one.total_s for one in good], sum(one.size_bytes for one in good)
    last_s = max(max(outcome.late_s, 0.0) + outcome.total_s for outcome in outcomes)
    wall_s = min(last_s, raw["elapsed_s"])  # the clock of another host may be wrong
    connect_s, queue_s = _mean([one.connect_s for one in good]), _mean([one.queue_s for one in good])
    row = dict.fromkeys(COLUMNS) | {
        "model_server": after.get("mode"), "server_worker_pool": after.get("workers"), "ulangan": 1,
        "waktu_total_per_client_s": _mean(totals_s), "waktu_dinding_s": round(wall_s, 6),
        "client_sukses": len(good), "client_gagal": len(outcomes) - len(good), "galat": _failures(outcomes),
        "koneksi_rata_s": connect_s, "antre_rata_s": queue_s,
        "byte_pertama_rata_s": _mean([one.first_byte_s for one in good]),
        "selisih_mulai_maks_s": round(max(abs(outcome.late_s) for outcome in outcomes), 6),
        "cpu_client_s": _cpu_s(outcomes),
    } | {name: value for name, value in raw.items() if name in COLUMNS}
    if totals_s:
        centiles_s = statistics.quantiles(totals_s * 2 if len(totals_s) == 1 else totals_s, n=100,
                                          method="inclusive")
        row |= {"total_min_s": round(min(totals_s), 6), "total_p50_s": round(centiles_s[49], 6),
                "total_p95_s": round(centiles_s[94], 6), "total_maks_s": round(max(totals_s), 6)}
        if connect_s is not None and queue_s is not None:
            row["transfer_rata_s"] = round(statistics.fmean(totals_s) - queue_s - connect_s, 6)
    if size_bytes:
        row |= {"throughput_per_client_byte_per_s": round(size_bytes / sum(totals_s), 1),
                "throughput_total_byte_per_s": round(size_bytes / wall_s, 1)}
    if after:
        row |= _server_columns(raw["before"], after)
    unchecked = row["operasi"] == "upload" and not all(outcome.checked for outcome in good)
    return row | {"catatan": "; ".join([*["tidak diperiksa"] * unchecked, *_remarks(row, raw)])}


def _mean(values: list[Any]) -> float | None:
    """Return the mean; None if there is nothing, or a value is not known."""
    return None if not values or None in values else round(statistics.fmean(values), 6)


def _failures(outcomes: list[Outcome]) -> str:
    """Return each cause with its count and its commonest message."""
    messages: dict[str, list[str]] = {}
    for outcome in outcomes:
        messages.setdefault(outcome.cause, []).append(printable(" ".join(outcome.message.split())))
    return "; ".join(f"{cause}:{len(told)} ({statistics.mode(told)})"
                     for cause, told in sorted(messages.items()) if cause)


def _cpu_s(outcomes: list[Outcome]) -> float:
    """Return the CPU seconds of the clients' processes, each process counted once."""
    spans: dict[str, list[float]] = {}
    for outcome in outcomes:
        spans.setdefault(outcome.process, []).extend((outcome.cpu_from_s, outcome.cpu_to_s))
    return round(sum(max(span) - min(span) for span in spans.values()), 3)


def _server_columns(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return what the server has counted. A worker failed if something failed, it died, or it is still busy;
    it succeeded if all it served did; else it was idle."""
    nothing = {"succeeded": 0, "failed": 0, "died": 0}
    counts = {"sukses": 0, "gagal": 0, "menganggur": 0}
    for now, then in zip_longest(after["per_worker"], before["per_worker"], fillvalue=nothing):
        bad = now["failed"] > then["failed"] or now["died"] > then["died"] or now.get("busy")
        counts["gagal" if bad else "sukses" if now["succeeded"] > then["succeeded"] else "menganggur"] += 1
    return {f"server_{word}": count for word, count in counts.items()} | {
        "permintaan_sukses": after["succeeded"] - before["succeeded"],
        "permintaan_gagal": after["failed"] - before["failed"],
        "cpu_server_s": round(after["cpu_s"] - before["cpu_s"], 3),
        "memori_server_byte": after.get("memory_bytes"),
        "memori_puncak_server_byte": after.get("peak_memory_bytes"),
    }


def _remarks(row: dict[str, Any], raw: dict[str, Any]) -> Iterator[str]:
    """Yield what a reader should know of a row, from its columns and its raw data."""
    clients, served, wall_s = row["client_worker_pool"], row["permintaan_sukses"], row["waktu_dinding_s"]
    if served is not None:
        if served != row["client_sukses"]:
            yield f"hitungan berbeda: client {row['client_sukses']}, server {served}"
        elif row["permintaan_gagal"] > row["client_gagal"]:
            yield f"hitungan berbeda: client {clients}, server {served + row['permintaan_gagal']}"
        if busy := sum(bool(worker.get("busy")) for worker in raw["after"]["per_worker"]):
            yield f"{busy} worker masih sibuk di akhir"
        at_once = min(clients, row["server_worker_pool"] or clients)  # threads of one process share one core
        usable = sum(at_once if row[model] == "process" else 1 for model in ("model_server", "model_client"))
        if raw["cores"] and clients >= 5 and row["encoding"] == "base64" and row["volume_mb"] and (
                row["cpu_server_s"] + row["cpu_client_s"] < 0.5 * min(raw["cores"], usable) * wall_s):
            yield "mesin dipakai pihak lain"
    if row["selisih_mulai_maks_s"] > max(TOGETHER_S, 0.1 * wall_s):
        yield "mulai tidak serempak"


# ---- the command line


def error_text(error: Exception) -> str:
    """Return an error for people, in one line."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError):
        text = f"{error.filename}: {os_error_text(error)}" if error.filename else os_error_text(error)
    return printable(" ".join(text.split()))


def append_csv(path: Path, row: dict[str, Any]) -> None:
    """Append a row to a CSV file, with the heads first if it is new; the system has it on return."""
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


def row_text(row: dict[str, Any]) -> str:
    """Return the result of a row for people, in a few words: the time, or who failed and why."""
    time_s, (_, _, why) = row["waktu_total_per_client_s"], row["galat"].partition("(")
    text = "" if time_s is None else f"{number_text(time_s, 3)} detik"
    if row["client_gagal"]:
        text = f"client gagal: {row['client_gagal']} dari {row['client_worker_pool']} ({why}"
    if row["server_gagal"]:
        text += f", worker server gagal: {row['server_gagal']} dari {row['server_worker_pool']}"
    return text


def details(row: dict[str, Any]) -> str:
    """Return the result of a row for people, in a long line."""
    parts = [row_text(row)]
    if rate := row["throughput_per_client_byte_per_s"]:
        parts.append(f"{size_text(rate)}/detik")
    for side, words in (("client", ("sukses", "gagal")), ("server", ("sukses", "gagal", "menganggur"))):
        if row[f"{side}_sukses"] is not None:
            parts.append(" ".join([side, *(f"{row[f'{side}_{word}']} {word}" for word in words)]))
    return "; ".join(filter(None, [*parts, row["catatan"]]))


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description="Stress test: satu baris tabel terhadap server yang sedang berjalan.",
        epilog="contoh: python3 file_client_stress_test.py --operation upload --clients 50")
    add = parser.add_argument
    add("--host", default=DEFAULT_HOST, help="alamat server (bawaan: %(default)s)")
    add("--port", default=DEFAULT_PORT, type=int,
        help="port server (bawaan: %(default)s); 0: dibaca dari satu baris stdin setelah semua client siap")
    add("--operation", required=True, choices=OPERATIONS, help="apa yang diukur")
    add("--volume", default=10, type=int, metavar="MB", help="ukuran file (bawaan: 10); MB: 1.048.576 byte")
    add("--clients", default=1, type=int, metavar="N", help="jumlah client worker (bawaan: 1)")
    add("--executor", "--pool", default="thread", metavar="MESIN",
        help="thread (bawaan), process, atau MODUL:FUNGSI yang mengembalikan Executor")
    add("--encoding", default="base64", choices=ENCODINGS, help="cara mengirim isi file (bawaan: base64)")
    add("--timeout", default=600.0, type=float, metavar="DETIK", help="batas waktu satu client (bawaan: 600)")
    add("--folder", type=Path, metavar="DIR",
        help="tempat file uji, uji-<volume>MB.bin, dipakai lagi bila sudah ada (bawaan: folder sementara)")
    add("--served", default="", metavar="NAMA", help="nama file uji yang sudah ada di server (download)")
    add("--output", type=Path, metavar="CSV", help="tambahkan baris ke file ini")
    add("--json", action="store_true", help="tulis data mentah ke stdout sebagai satu objek JSON")
    return parser.parse_args(argv)


def run(options: argparse.Namespace) -> int:
    """Measure a row and print the result; return the exit code. Raises ValueError, and as measure()."""
    volume_mb = options.volume if options.operation != "list" else 0
    server = Server(options.host, options.port or DEFAULT_PORT, options.timeout)
    row = Row(server, options.operation, volume_mb, options.clients, options.executor, options.encoding,
              options.served)
    if options.output:
        open(options.output, "a").close()  # better to know now
    result = summarise(measure(
        row, options.folder, None if options.port else lambda: int("0" + sys.stdin.readline().strip()),
        lambda raw: say(json.dumps(raw) if options.json else details(summarise(raw)), sys.stdout)))
    if result["galat"]:
        say(f"gagal: {result['galat']}")
    if options.output:
        append_csv(options.output, result)
    return 1 if result["client_gagal"] or result["server_gagal"] else 0


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 all succeeded, 1 some failed, 2 wrong usage or engine, 3 no server or no pool,
    130 interrupted."""
    prepare_streams()
    options = parse(argv)
    interrupt_on_signals()
    try:
        return run(options)
    except KeyboardInterrupt:
        return 130
    except (EngineError, RemoteError, OSError, ValueError, RuntimeError, MemoryError) as error:
        with suppress(KeyboardInterrupt):
            say(f"galat: {error_text(error)}")
        return 2 if isinstance(error, (EngineError, ValueError)) else 3


if __name__ == "__main__":
    import file_client_stress_test  # what is sent to a worker must be of this module, not of __main__

    code = file_client_stress_test.main()
    if code and any(not thread.daemon for thread in threading.enumerate()[1:]):
        os._exit(code)  # a thread that hangs would be waited for
    sys.exit(code)
