"""The whole table: every combination, a fresh server for each, the results in a CSV and a recap.

For each row it starts ``file_thread_pool.py``, waits for its ready line, has ``file_client_stress_test.py``
measure the row in a process of its own, and stops the server. So no row inherits anything from the one before:
no warm worker, no memory, no file, no failure.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from file_client_cli import Server, size_text
from file_client_stress_test import COLUMNS, ENCODINGS, EXECUTORS, MB, OPERATIONS, append_csv, row_text
from file_protocol import CommandLine, one_of, reason, seconds, whole_number

HERE = Path(__file__).resolve().parent
START_TIMEOUT_S = 120.0  # for a server to say that it is ready
STOP_TIMEOUT_S = 30.0  # for a server to end after being told to
ROW_COST_BYTES = 300 * MB  # what the fixed part of a row takes, in bytes moved: for the estimate of time left


@dataclass(frozen=True)
class Combination:
    """One row: what is to be run."""

    nomor: int  # within the table of its pair of models, from 1
    model_server: str
    model_client: str
    operation: str
    volume_mb: int
    clients: int
    workers: int
    encoding: str

    def __str__(self) -> str:
        return (f"server {self.model_server}, client {self.model_client}: {self.operation} {self.volume_mb} MB, "
                f"{self.clients} client, {self.workers} worker" + " (raw)" * (self.encoding == "raw"))

    @property
    def volume_bytes(self) -> int:
        """What all clients of the row move together."""
        return self.volume_mb * MB * self.clients


class ServerFailed(Exception):
    """A server would not start; the text is for people, in Indonesian."""


def combinations(options: argparse.Namespace) -> list[Combination]:
    """Return all rows in the order of the table: each pair of models has its own, numbered from 1."""
    return [
        Combination(nomor, model_server, model_client, *row, encoding)
        for encoding, model_server, model_client in itertools.product(
            options.encodings, options.server_models, options.client_models)
        for nomor, row in enumerate(itertools.product(
            options.operations, options.volumes, options.client_workers, options.server_workers), start=1)
    ]


# ---- one row


@contextmanager
def running_server(row: Combination, directory: Path, log: IO[str]) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Run a server for one row; yield its port and process. Raises ServerFailed."""
    command = [sys.executable, str(HERE / "file_thread_pool.py"), str(row.workers), row.model_server,
               "--port", "0", "--files", str(directory)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True)
    give_up = threading.Timer(START_TIMEOUT_S, process.kill)
    give_up.start()
    try:
        assert process.stdout
        line = process.stdout.readline()  # blocks until it is ready, or has ended
        give_up.cancel()
        if not line:
            raise ServerFailed(f"server tidak mau mulai (kode {process.wait()}); sebabnya ada di {log.name}")
        yield json.loads(line)["port"], process
    finally:
        give_up.cancel()
        process.terminate()
        try:
            process.communicate(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def run_row(row: Combination, options: argparse.Namespace, log: IO[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run one row; return its columns, and the raw data they came from. Raises ServerFailed."""
    with tempfile.TemporaryDirectory(prefix="files-", dir=options.output) as directory, \
            running_server(row, Path(directory), log) as (port, server):
        command = [sys.executable, str(HERE / "file_client_stress_test.py"), "--port", str(port), "--json",
                   "--operation", row.operation, "--volume", str(row.volume_mb), "--clients", str(row.clients),
                   "--pool", row.model_client, "--encoding", row.encoding, "--timeout", str(options.timeout)]
        client = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True)
        raw = json.loads(client.stdout) if client.returncode in (0, 1) and client.stdout else {}
        result = raw.pop("result", None) or dict.fromkeys(COLUMNS) | {
            "client_sukses": 0, "client_gagal": row.clients,
            "galat": f"{'ditolak' if client.returncode == 3 else 'client'}:{row.clients}", "catatan": "",
        }
        if server.poll() is not None:  # it died in the middle, and all its workers with it
            result |= {"server_sukses": 0, "server_gagal": row.workers, "server_menganggur": 0}
            result["catatan"] = "; ".join(filter(None, (result["catatan"], f"server mati ({server.returncode})")))
    return result | {
        "nomor": row.nomor, "model_server": row.model_server, "model_client": row.model_client,
        "operasi": row.operation, "volume_mb": row.volume_mb, "client_worker_pool": row.clients,
        "server_worker_pool": row.workers, "encoding": row.encoding, "ulangan": 1,
    }, raw


def succeeded(result: dict[str, Any]) -> bool:
    """Whether nothing failed in a row, on either side."""
    return not result["client_gagal"] and result["server_gagal"] == 0


# ---- what is left of a run


def write_recap(directory: Path, results: list[dict[str, Any]]) -> None:
    """Write rekap.md: a table with the assignment's nine columns for each pair of models."""
    lines = ["# Rekap stress test", ""]
    for (encoding, server, client), group in itertools.groupby(results, key=_table_of):
        lines += [
            f"## Server pool {server}, client pool {client}" + f" ({encoding})" * (encoding != "base64"), "",
            "| Nomor | Operasi | Volume | Jumlah client worker pool | Jumlah server worker pool "
            "| Waktu total per client (detik) | Throughput per client (byte/detik) "
            "| Jumlah worker client yang sukses dan gagal | Jumlah worker server yang sukses dan gagal |",
            "|---:|---|---:|---:|---:|---:|---:|---|---|",
        ]
        for row in group:
            time_s, rate = row["waktu_total_per_client_s"], row["throughput_per_client_byte_per_s"]
            idle = f", {row['server_menganggur']} menganggur" if row["server_menganggur"] else ""
            cells = [
                row["nomor"], row["operasi"], f"{row['volume_mb']} MB", row["client_worker_pool"],
                row["server_worker_pool"], "-" if time_s is None else f"{time_s:.3f}",
                "-" if rate is None else f"{rate:.0f}",
                f"{row['client_sukses']} sukses, {row['client_gagal']} gagal",
                "?" if row["server_sukses"] is None else
                f"{row['server_sukses']} sukses, {row['server_gagal']} gagal{idle}",
            ]
            lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
        lines.append("")
    (directory / "rekap.md").write_text("\n".join(lines), encoding="utf-8")


def _table_of(result: dict[str, Any]) -> tuple[str, str, str]:
    return result["encoding"], result["model_server"], result["model_client"]


def print_summary(results: list[dict[str, Any]]) -> None:
    """Print what each server configuration did, over all its rows."""
    print(f"{'server':<8} {'client':<8} {'worker':>6} {'baris':>6} {'berhasil':>8}   "
          f"{'download':>12} {'upload':>12}   (median throughput total)")
    key = ("encoding", "model_server", "model_client", "server_worker_pool")
    ordered = sorted(results, key=lambda row: [row[column] for column in key])
    for (_, server, client, workers), group in itertools.groupby(ordered, lambda row: [row[column] for column in key]):
        rows = list(group)
        rates = []
        for operation in ("download", "upload"):
            found = [row["throughput_total_byte_per_s"] for row in rows
                     if row["operasi"] == operation and row["throughput_total_byte_per_s"]]
            rates.append(size_text(statistics.median(found)) + "/dtk" if found else "-")
        print(f"{server:<8} {client:<8} {workers:>6} {len(rows):>6} {sum(map(succeeded, rows)):>8}   "
              f"{rates[0]:>12} {rates[1]:>12}")


# ---- the run


def run_all(rows: list[Combination], options: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    """Run the rows and append to `results`; each is on disk before the next begins. Raises ServerFailed."""
    total_cost = sum(row.volume_bytes + ROW_COST_BYTES for row in rows)
    done_cost, begun_at = 0, time.perf_counter()
    with open(options.output / "log.txt", "a", encoding="utf-8") as log, \
            open(options.output / "mentah.jsonl", "a", encoding="utf-8") as raw_file:
        for number, row in enumerate(rows, start=1):
            print(f"[{number}/{len(rows)}] {row} ...", file=sys.stderr, flush=True)
            result, raw = run_row(row, options, log)
            raw_file.write(json.dumps({"baris": result, "mentah": raw}) + "\n")
            raw_file.flush()
            append_csv(options.output / "rekap.csv", result)
            results.append(result)
            done_cost += row.volume_bytes + ROW_COST_BYTES
            left_s = (time.perf_counter() - begun_at) / done_cost * (total_cost - done_cost)
            print(f"    {row_text(result)} | sisa {left_s / 60:.0f} menit {left_s % 60:.0f} detik",
                  file=sys.stderr, flush=True)


def _comma_list(parse: Any) -> Any:
    """Return a type for argparse: values that `parse` accepts, with commas between them."""
    return lambda text: [parse(part) for part in text.split(",")]


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = CommandLine(description="Seluruh tabel: 54 baris untuk tiap pasangan model server dan model client.")
    pools = _comma_list(whole_number(1, 1000))
    models = _comma_list(one_of(EXECUTORS))
    parser.add_argument("--server-models", type=models, default=["thread", "process"], metavar="DAFTAR")
    parser.add_argument("--client-models", type=models, default=["thread", "process"], metavar="DAFTAR")
    parser.add_argument("--operations", type=_comma_list(one_of(OPERATIONS)), default=["download", "upload"],
                        metavar="DAFTAR", help=", ".join(OPERATIONS))
    parser.add_argument("--volumes", type=_comma_list(whole_number(1, 100_000)), metavar="DAFTAR",
                        help="ukuran file dalam MB (bawaan: 10,50,100)")
    parser.add_argument("--client-workers", type=pools, metavar="DAFTAR", help="bawaan: 1,5,50")
    parser.add_argument("--server-workers", type=pools, metavar="DAFTAR", help="bawaan: 1,5,50")
    parser.add_argument("--encodings", type=_comma_list(one_of(ENCODINGS)), default=["base64"], metavar="DAFTAR",
                        help="base64, raw (bawaan: base64)")
    parser.add_argument("--quick", action="store_true", help="percobaan singkat: 1 MB, pool 1 dan 5")
    parser.add_argument("--timeout", type=seconds, default=Server.timeout_s, metavar="DETIK",
                        help="batas waktu satu client (bawaan: %(default)g)")
    parser.add_argument("--output", type=Path, metavar="DIR",
                        help="folder hasil (bawaan: hasil/<tanggal-jam>/ di samping skrip ini)")
    options = parser.parse_args(argv)
    options.volumes = options.volumes or ([1] if options.quick else [10, 50, 100])
    options.client_workers = options.client_workers or ([1, 5] if options.quick else [1, 5, 50])
    options.server_workers = options.server_workers or ([1, 5] if options.quick else [1, 5, 50])
    options.output = options.output or HERE / "hasil" / datetime.now().strftime("%Y-%m-%d-%H%M%S")
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"folder hasil tidak dapat dibuat: {options.output} ({reason(error)})")
    largest_bytes = max(options.volumes) * MB * (2 + max(options.client_workers))
    free_bytes = shutil.disk_usage(options.output).free
    if free_bytes < largest_bytes:
        parser.error(f"ruang disk kurang: baris terbesar perlu {size_text(largest_bytes)}, di {options.output} "
                     f"tinggal {size_text(free_bytes)}; kurangi --volumes atau --client-workers")
    return options


def main(argv: list[str] | None = None) -> int:
    """Run the table; return the exit code: 0 all succeeded, 1 some failed, 2 wrong usage, 3 no server, 130."""
    options = _parse(argv)
    rows = combinations(options)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the same way as Ctrl-C
    results: list[dict[str, Any]] = []
    code = 0
    try:
        run_all(rows, options, results)
        code = 0 if all(map(succeeded, results)) else 1
    except ServerFailed as error:
        print(f"galat: {error}", file=sys.stderr)
        code = 3
    except KeyboardInterrupt:
        print("dihentikan; baris yang sudah selesai tersimpan", file=sys.stderr)
        code = 130
    write_recap(options.output, results)
    print_summary(results)
    print(f"{len(results)} dari {len(rows)} baris, {sum(map(succeeded, results))} tanpa kegagalan: {options.output}")
    return code


if __name__ == "__main__":
    sys.exit(main())
