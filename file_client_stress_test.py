"""The stress client: one row of the table, measured against any running server.

A row is N clients at once, each with a connection and a worker of its own, of an engine: a thread pool, a
process pool, or any other Executor. Once all is prepared, they wait for one moment on the wall clock. A
client succeeds when the whole file went over, with the right size and CRC-32, and the reply said OK. The
server's columns come from its own counts, asked for before and after.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from statistics import fmean, mode, quantiles
from typing import Any, BinaryIO

from file_client_cli import (
    RemoteError, Server, Transfer, interrupt_on_signals, knows_raw, number_text, printable, read_back,
    remote_delete, remote_get, remote_list, remote_stats, remote_upload,
)
from file_protocol import DEFAULT_HOST, DEFAULT_PORT, crc32_of, os_error_text, prepare_streams, say
from file_server import START_METHOD as START_METHOD, make_pool

MB = 1024 * 1024  # as the course counts it
OPERATIONS = ("download", "upload", "list")
ENCODINGS = ("base64", "raw")
EXECUTORS = ("thread", "process")
START_TIMEOUT_S = 60.0  # for an engine to come up
LEAD_S = 0.03  # from handing out the jobs to the common start, besides what the warm-up round took
MARGIN_S = 5.0  # how much longer than a client's time-out its outcome is waited for
SETTLE_S = 5.0  # for a server to answer what is not measured, and to notice that failed clients are gone
COLUMNS = (
    "nomor", "model_server", "model_client", "operasi", "volume_mb", "client_worker_pool",
    "server_worker_pool", "waktu_total_per_client_s", "throughput_per_client_byte_per_s", "client_sukses",
    "client_gagal", "server_sukses", "server_gagal", "server_menganggur", "permintaan_sukses",
    "permintaan_gagal", "waktu_dinding_s", "throughput_total_byte_per_s", "galat", "ulangan", "waktu_mulai",
    "koneksi_rata_s", "antre_rata_s", "byte_pertama_rata_s", "transfer_rata_s", "total_min_s", "total_p50_s",
    "total_p95_s", "total_maks_s", "selisih_mulai_maks_s", "cpu_server_s", "cpu_client_s",
    "memori_server_byte", "memori_puncak_server_byte", "memori_client_byte", "memori_puncak_client_byte",
    "catatan", "encoding",
)


def error_text(error: BaseException) -> str:
    """Return an error for people, in one line."""
    text = os_error_text(error) if isinstance(error, OSError) else str(error)
    file = f"{name}: " if (name := getattr(error, "filename", None)) else ""
    return printable(" ".join(f"{file}{text or type(error).__name__}".split()))


def make_executor(name: str, workers: int) -> Any:
    """Return a new pool of ours, or the Executor that MODULE:CALLABLE returns, of that size if it takes one.
    Raises ValueError if there is none, and RuntimeError where the system gives too little."""
    if name in EXECUTORS:
        return make_pool(name, workers)
    try:
        module, _, attribute = name.partition(":")
        sys.path.append(os.getcwd())  # last: nothing there hides a module that is needed
        make = getattr(import_module(module), attribute)
        try:
            executor = make(max_workers=workers)
        except TypeError:  # it does not let one choose, or fails once more
            executor = make()
        if not isinstance(executor, Executor):
            raise TypeError(f"hasilnya {type(executor).__name__}, bukan Executor")
        return executor
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise ValueError(f"mesin beban {name} tidak dapat dipakai: {type(error).__name__}: "
                         f"{error_text(error)} ({place.filename}:{place.lineno})") from error


@dataclass(frozen=True)
class Row:
    """What is to be measured, and with what measure() adds, what one client has to do. Raises ValueError."""

    server: Server
    operasi: str
    volume_mb: int  # 0 for list
    client_worker_pool: int
    model_client: str  # or another engine
    encoding: str = "base64"
    name: str = ""  # of the file on the server; given if the test file is there already
    client: int = 0
    crc32: int = 0  # of the test file
    path: str = os.devnull  # of the file to send; its name is the seed to make it where it is not

    def __post_init__(self) -> None:
        is_valid = 1 <= self.volume_mb <= 100_000 or self.operasi not in ("download", "upload")
        if not (is_valid and 1 <= self.client_worker_pool <= 10_000):
            raise ValueError("volume harus 1 sampai 100000 MB, dan jumlah client 1 sampai 10000")


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


def open_file(row: Row) -> BinaryIO:
    """Open the file to send; on a host that has none, make one that is gone when it is closed."""
    if os.path.exists(row.path):
        return open(row.path, "rb", buffering=0)
    file = tempfile.TemporaryFile(buffering=0)
    file.writelines(random_blocks(Path(row.path).name, row.volume_mb * MB))
    file.seek(0)
    return file


def run_client(row: Row, start_at: float, lead_s: float) -> Outcome:
    """Run one client and return its outcome. It begins at `start_at` by time.time(), but waits for no longer
    than `lead_s`, whatever the clock of this host says."""
    cause, message, transfer = "", "", None
    with open_file(row) as file:
        time.sleep(max(0.0, min(start_at - time.time(), lead_s)))
        late_s, cpu_from_s, begun_at = time.time() - start_at, time.process_time(), time.perf_counter()
        try:
            if row.operasi == "list":
                remote_list(row.server)
            elif row.operasi == "download":
                transfer = remote_get(row.server, row.name, lambda piece: None, row.encoding == "raw")
            elif row.operasi == "upload":
                transfer = remote_upload(row.server, file, row.name, row.encoding == "raw", row.crc32)
            if transfer and (transfer.size_bytes, transfer.crc32) != (row.volume_mb * MB, row.crc32):
                raise RemoteError("integritas", f"bukan file yang diuji: CRC-32 {transfer.crc32:08x}")
        except RemoteError as error:
            cause, message, transfer = error.cause, error_text(error), None
        total_s = transfer.total_s if transfer else time.perf_counter() - begun_at
    names = ("size_bytes", "connect_s", "queue_s", "first_byte_s", "checked") if transfer else ()
    return Outcome(cause, message, late_s, total_s, f"{socket.gethostname()}/{os.getpid()}", cpu_from_s,
                   time.process_time(), **{name: getattr(transfer, name) for name in names})


@contextmanager
def measure(row: Row, folder: Path, find_port: Callable[[], int]) -> Iterator[dict[str, Any]]:
    """Run one row and give its raw data, from which summarise() makes the columns; then clean up. `find_port`
    is asked for the server's port once the pool is there. Raises RemoteError or OSError if the server or this
    host cannot be prepared, and as make_executor()."""
    executor, ours = make_executor(row.model_client, row.client_worker_pool), set[str]()
    try:
        path = make_test_file(folder, row.volume_mb)
        with open(path, "rb", buffering=0) as file:
            row = replace(row, crc32=crc32_of(file, row.volume_mb * MB))
            row = replace(row, server=replace(row.server, port=find_port()))
            quick = replace(row.server, timeout_s=min(row.server.timeout_s, SETTLE_S))
            if row.encoding == "raw" and not knows_raw(quick):
                raise RemoteError("server", "baris raw tidak dapat diukur: server ini tidak mengenal GET_RAW")
            name = f"uji-{os.urandom(4).hex()}"
            jobs = [replace(row, client=number, name=row.name or f"{name}.bin")
                    for number in range(row.client_worker_pool)]
            if row.operasi == "upload":
                jobs = [replace(job, name=f"{name}-{job.client}.bin", path=str(path)) for job in jobs]
            ours = {job.name for job in jobs if row.volume_mb} - {row.name}
            if row.operasi == "download" and ours:
                file.seek(0)
                remote_upload(row.server, file, jobs[0].name, row.encoding == "raw", row.crc32)
        before = _stats(quick)
        outcomes = _run_clients(executor, jobs)
        after = before and _stats(quick, settled=any(outcome.cause for outcome in outcomes))
        outcomes = list(map(_read_back, outcomes, jobs))
        memory = executor.memory() if hasattr(executor, "memory") else (None, None)
        here = row.model_client in EXECUTORS and row.server.host.startswith(("127.", "localhost", "::1"))
        yield {name: value for name, value in asdict(row).items() if name in COLUMNS} | {
            "memori_client_byte": memory[0], "memori_puncak_client_byte": memory[1],
            "cores": os.cpu_count() if here else None,  # None: other machines work as well
            "before": before, "after": after, "outcomes": list(map(asdict, outcomes))}
    finally:
        if row.model_client == "process":
            executor.stop()
        else:
            executor.shutdown(wait=False)  # a thread that hangs cannot be ended
        if ours:
            _stats(quick, settled=True)  # an upload that was broken off may be under way
            with suppress(RemoteError):
                for name in ours.intersection(remote_list(quick)):
                    remote_delete(quick, name)


def _run_clients(executor: Executor, jobs: list[Row]) -> list[Outcome]:
    """Return the outcomes of all clients, which begin at one moment; one that dies or hangs has failed."""
    futures: list[Future[Outcome]] = []
    try:
        begun_at = time.monotonic()
        wait([executor.submit(run_client, replace(job, operasi=""), 0.0, 0.0) for job in jobs],
             START_TIMEOUT_S)
        lead_s = LEAD_S + time.monotonic() - begun_at
        start_at = time.time() + lead_s
        futures = [executor.submit(run_client, job, start_at, lead_s) for job in jobs]
        done, _ = wait(futures, lead_s + jobs[0].server.timeout_s + MARGIN_S)
        errors = [TimeoutError("mesin beban tidak menjawab") if future not in done or future.cancelled()
                  else future.exception() for future in futures]
        return [Outcome("client", error_text(error)) if error else future.result()
                for future, error in zip(futures, errors, strict=True)]
    except KeyboardInterrupt:
        with suppress(OSError):  # an upload in a thread cannot be ended but by its file
            os.truncate(jobs[0].path, 0)
        wait(futures, 1.0)
        raise


def _read_back(outcome: Outcome, job: Row) -> Outcome:
    """Look at what a server has stored that says OK but not what of: it may be less than was sent."""
    if outcome.cause or outcome.checked or job.operasi != "upload":
        return outcome
    try:
        sent = Transfer(job.name, job.volume_mb * MB, job.crc32, 0.0, None, None, 0.0, checked=False)
        return replace(outcome, checked=read_back(job.server, sent).checked)
    except RemoteError as error:
        return replace(outcome, cause=error.cause, message=error_text(error), size_bytes=0)


def _stats(server: Server, settled: bool = False) -> dict[str, Any] | None:
    """Return the server's counts, or None if it keeps none, once it has `settled`: all clients are gone."""
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


def summarise(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the row of the table, by column; None is a blank. Columns that `raw` has stay as they are."""
    outcomes = [Outcome(**outcome) for outcome in raw["outcomes"]]
    messages, spans_s = defaultdict[str, list[str]](list), defaultdict[str, list[float]](list)
    for one in outcomes:
        messages[one.cause].append(one.message)
        spans_s[one.process] += one.cpu_from_s, one.cpu_to_s
    good = [one for one in outcomes if not one.cause]
    totals_s = [one.total_s for one in good]
    wall_s = max(max(one.late_s, 0.0) + one.total_s for one in outcomes)
    row: dict[str, Any] = dict.fromkeys(COLUMNS) | {
        "ulangan": 1, "client_sukses": len(good), "client_gagal": len(outcomes) - len(good),
        "galat": "; ".join(f"{cause}:{len(told)} ({mode(told)})"
                           for cause, told in sorted(messages.items()) if cause),
        "waktu_dinding_s": round(wall_s, 6),
        "selisih_mulai_maks_s": round(max(abs(one.late_s) for one in outcomes), 6),
        "cpu_client_s": round(sum(max(span_s) - min(span_s) for span_s in spans_s.values()), 3)}
    for column, field in (("waktu_total_per_client_s", "total_s"), ("koneksi_rata_s", "connect_s"),
                          ("antre_rata_s", "queue_s"), ("byte_pertama_rata_s", "first_byte_s")):
        values = [getattr(one, field) for one in good]
        if values and None not in values:
            row[column] = round(fmean(values), 6)
    if good:
        centiles_s = quantiles(totals_s * 2 if len(good) == 1 else totals_s, n=100, method="inclusive")
        row |= {"total_min_s": round(min(totals_s), 6), "total_p50_s": round(centiles_s[49], 6),
                "total_p95_s": round(centiles_s[94], 6), "total_maks_s": round(max(totals_s), 6)}
        if None not in (row["antre_rata_s"], row["koneksi_rata_s"]):
            rest_s = fmean(totals_s) - row["antre_rata_s"] - row["koneksi_rata_s"]
            row["transfer_rata_s"] = round(max(rest_s, 0.0), 6)  # it may wait before connect() returns
    if size_bytes := sum(one.size_bytes for one in good):
        row |= {"throughput_per_client_byte_per_s": round(size_bytes / sum(totals_s), 1),
                "throughput_total_byte_per_s": round(size_bytes / wall_s, 1)}
    if raw["after"]:
        row |= _server_columns(raw["before"], raw["after"])
    row |= {name: value for name, value in raw.items() if name in COLUMNS}
    return row | {"catatan": "; ".join(_remarks(row, raw))}


def _server_columns(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return what the server has counted; a worker that is still busy has failed."""
    counts = Counter[str]()
    for now, then in zip_longest(after["per_worker"], before["per_worker"], fillvalue=Counter[str]()):
        bad = now["failed"] > then["failed"] or now["died"] > then["died"] or now.get("busy")
        counts["gagal" if bad else "sukses" if now["succeeded"] > then["succeeded"] else "menganggur"] += 1
    return {f"server_{word}": counts[word] for word in ("sukses", "gagal", "menganggur")} | {
        "model_server": after.get("mode"), "server_worker_pool": after.get("workers"),
        "permintaan_sukses": after["succeeded"] - before["succeeded"],
        "permintaan_gagal": after["failed"] - before["failed"],
        "cpu_server_s": round(after["cpu_s"] - before["cpu_s"], 3),
        "memori_server_byte": after.get("memory_bytes"),
        "memori_puncak_server_byte": after.get("peak_memory_bytes")}


def _remarks(row: dict[str, Any], raw: dict[str, Any]) -> Iterator[str]:
    """Yield what a reader should know of a row, from its columns and its raw data."""
    clients, served, wall_s = row["client_worker_pool"], row["permintaan_sukses"], row["waktu_dinding_s"]
    if row["operasi"] == "upload" and not all(one["checked"] or one["cause"] for one in raw["outcomes"]):
        yield "tidak diperiksa"
    if served is not None:
        if served != row["client_sukses"] or row["permintaan_gagal"] > row["client_gagal"]:
            yield (f"hitungan berbeda: client {row['client_sukses']} sukses {row['client_gagal']} gagal, "
                   f"server {served} sukses {row['permintaan_gagal']} gagal")
        if busy := sum(bool(worker.get("busy")) for worker in raw["after"]["per_worker"]):
            yield f"{busy} worker masih sibuk di akhir"
        at_once = min(clients, row["server_worker_pool"] or clients)  # threads of one process share one core
        usable = sum(at_once if row[model] == "process" else 1 for model in ("model_server", "model_client"))
        if raw["cores"] and clients >= 5 and row["encoding"] == "base64" and row["volume_mb"] and (
                row["cpu_server_s"] + row["cpu_client_s"] < 0.5 * min(raw["cores"], usable) * wall_s):
            yield "mesin dipakai pihak lain"
    if row["selisih_mulai_maks_s"] > max(0.05, 0.1 * wall_s):
        yield "mulai tidak serempak"


def append_csv(path: Path, row: dict[str, Any]) -> None:
    """Append a row to a CSV file, with the heads first if it is new; the system has it on return."""
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


def row_text(row: dict[str, Any]) -> str:
    """Return the result of a row for people, in a few words: the time, or who failed and why."""
    if row["client_gagal"]:
        why = row["galat"].partition("(")[2]
        text = f"client gagal: {row['client_gagal']} dari {row['client_worker_pool']} ({why}"
    else:
        text = f"{number_text(row['waktu_total_per_client_s'], 3)} detik"
    if row["server_gagal"]:
        text += f", worker server gagal: {row['server_gagal']} dari {row['server_worker_pool']}"
    return text


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description="Stress test: satu baris tabel terhadap server yang sedang berjalan.",
        epilog="contoh: python3 file_client_stress_test.py --operation upload --clients 50")
    add = parser.add_argument
    add("--host", default=DEFAULT_HOST, help="alamat server (bawaan: %(default)s)")
    add("--port", default=DEFAULT_PORT, type=int, help="port server (bawaan: %(default)s); 0: dari stdin")
    add("--operation", required=True, choices=OPERATIONS, help="apa yang diukur")
    add("--volume", default=10, type=int, metavar="MB", help="ukuran file (bawaan: 10); MB: 1.048.576 byte")
    add("--clients", default=1, type=int, metavar="N", help="jumlah client worker (bawaan: 1)")
    add("--executor", "--pool", default="thread", metavar="MESIN", help="thread, process, atau MODUL:FUNGSI")
    add("--encoding", default="base64", choices=ENCODINGS, help="cara mengirim isi file (bawaan: base64)")
    add("--timeout", default=600.0, type=float, metavar="DETIK", help="batas waktu satu client (bawaan: 600)")
    add("--folder", type=Path, metavar="DIR", help="tempat file uji (bawaan: folder sementara)")
    add("--served", default="", metavar="NAMA", help="nama file uji yang sudah ada di server (download)")
    add("--output", type=Path, metavar="CSV", help="tambahkan baris ke file ini")
    add("--json", action="store_true", help="tulis data mentah ke stdout sebagai satu objek JSON")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 all succeeded, 1 some failed, 2 wrong usage, 3 no server or client, 130."""
    prepare_streams()
    options = parse(argv)
    interrupt_on_signals(signal.SIGINT)
    try:
        row = Row(Server(options.host, timeout_s=options.timeout), options.operation,
                  options.volume if options.operation != "list" else 0, options.clients, options.executor,
                  options.encoding, options.served)
        with tempfile.TemporaryDirectory(prefix="uji-") as temporary, measure(
                row, options.folder or Path(temporary),
                lambda: options.port or int("0" + sys.stdin.readline())) as raw:
            result = summarise(raw)
            counts = [f"{name} {number_text(result[name])}" for name in COLUMNS[8:14]
                      if result[name] is not None]
            told = "; ".join(filter(None, [row_text(result), *counts, result["catatan"]]))
            say(json.dumps(raw) if options.json else told, sys.stdout)
        if options.output:
            append_csv(options.output, result)
        return 1 if result["client_gagal"] or result["server_gagal"] else 0
    except KeyboardInterrupt:
        return 130
    except (RemoteError, OSError, ValueError, RuntimeError, MemoryError) as error:
        say(f"galat: {error_text(error)}")
        return 2 if isinstance(error, ValueError) else 3


if __name__ == "__main__":
    import file_client_stress_test  # what is sent to a worker must be of this module, not of __main__

    code = file_client_stress_test.main()
    if code and any(not thread.daemon for thread in threading.enumerate()[1:]):
        os._exit(code)  # a thread that hangs would be waited for
    sys.exit(code)
