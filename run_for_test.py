"""The whole table: every combination, a fresh server for each, the results in a CSV, a recap and a report.

For each row it starts ``file_thread_pool.py``, waits for its ready line, has ``file_client_stress_test.py``
measure the row in a process of its own, and stops the server. So no row inherits anything from the one before:
no warm worker, no memory, no file, no failure.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple, dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from file_client_cli import Server, duration_text, size_text
from file_client_stress_test import (
    ENCODINGS, EXECUTORS, MB, OPERATIONS, EngineError, Row, append_csv, engine, executor_named, failed_outcome,
    measured_from, row_text, summarise,
)
from file_protocol import (
    DEFAULT_HOST, CommandLine, default_start_method, has_gil, one_of, reason, seconds, whole_number,
)

HERE = Path(__file__).resolve().parent
START_TIMEOUT_S = 120.0  # for a server to say that it is ready
STOP_TIMEOUT_S = 30.0  # for a server to end after being told to
NEWEST = Path()  # for --resume and report without a folder
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
    """A server would not start, or an engine is gone; the text is for people, in Indonesian."""


def combinations(options: argparse.Namespace) -> list[Combination]:
    """Return all rows in the order of the table: each pair of models has its own, numbered from 1."""
    return [
        Combination(nomor, model_server, model_client, *row, encoding)
        for encoding, model_server, model_client in itertools.product(
            options.encodings, options.server_models, options.client_models)
        for nomor, row in enumerate((
            row for row in itertools.product(
                options.operations, options.volumes, options.client_workers, options.server_workers)
            if row[0] != "list" or row[1] == options.volumes[0]  # a LIST moves no file: one volume is enough
        ), start=1)
    ]


# ---- one row


@contextmanager
def running_server(row: Combination, directory: Path, host: str,
                   log: IO[str]) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Run a server for one row; yield its port and process. Raises ServerFailed."""
    command = [sys.executable, str(HERE / "file_thread_pool.py"), str(row.workers), row.model_server,
               "--host", host, "--port", "0", "--files", str(directory), "--stop-with-stdin"]
    process = subprocess.Popen(command, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
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


def run_row(row: Combination, options: argparse.Namespace, log: IO[str]) -> dict[str, Any]:
    """Run one row; return its raw data, from which result_of() makes the columns. Raises ServerFailed."""
    with tempfile.TemporaryDirectory(prefix="files-", dir=options.output) as directory, \
            tempfile.TemporaryDirectory(prefix="files-", dir=options.output) as client_directory, \
            running_server(row, Path(directory), options.host, log) as (port, server):
        command = [sys.executable, str(HERE / "file_client_stress_test.py"), "--json",
                   "--host", options.host, "--port", str(port), "--timeout", str(options.timeout),
                   "--operation", row.operation, "--volume", str(row.volume_mb), "--clients", str(row.clients),
                   "--executor", row.model_client, "--encoding", row.encoding]
        # Its test file goes where we can remove it, however it ends.
        places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), client_directory)
        try:
            # Processes start faster from HERE; the module of an engine may be where the user is.
            client = subprocess.run(command, cwd=HERE if row.model_client in EXECUTORS else None,
                                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
                                    env=os.environ | places, timeout=2 * options.timeout + START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            client = subprocess.CompletedProcess(command, -1)
        if client.returncode == 2 and row.model_client not in EXECUTORS:  # no other row would fare better
            raise ServerFailed(f"mesin beban {row.model_client} tidak dapat dipakai; sebabnya ada di {log.name}")
        if client.returncode in (0, 1) and client.stdout:
            raw: dict[str, Any] = json.loads(client.stdout)
        else:
            cause = "ditolak" if client.returncode == 3 else "client"
            raw = {"before": None, "after": None, "outcomes": [
                asdict(failed_outcome(number, cause, "baris tidak dapat dijalankan")) for number in range(row.clients)]}
        raw["server_mati"] = server.poll()  # None while it lives
    return raw


def result_of(row: Combination, raw: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of a row from its raw data."""
    result = summarise(measured_from(
        Row(Server(), row.operation, row.volume_mb, row.clients, row.model_client, row.encoding), raw))
    if raw["server_mati"] is not None:  # in the middle, and all its workers with it
        result |= {"server_sukses": 0, "server_gagal": row.workers, "server_menganggur": 0}
        result["catatan"] = "; ".join(filter(None, (result["catatan"], f"server mati ({raw['server_mati']})")))
    return result | {"nomor": row.nomor, "model_server": row.model_server, "server_worker_pool": row.workers}


def median_of(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of the table for the repeats of a row: the one with the median time, as it was measured,
    so that its numbers belong together; or if any failed, the one that failed most."""
    worst = max(results, key=lambda result: (result["client_gagal"], result["server_gagal"] or 0))
    times_s = [result["waktu_total_per_client_s"] for result in results]
    if not succeeded(worst) or None in times_s:
        failed = sum(not succeeded(result) for result in results)
        note = f"{failed} dari {len(results)} ulangan gagal" if len(results) > 1 else ""
        return worst | {"ulangan": len(results), "catatan": "; ".join(filter(None, (worst["catatan"], note)))}
    middle = sorted(results, key=lambda result: float(result["waktu_total_per_client_s"]))[(len(results) - 1) // 2]
    return middle | {"ulangan": len(results), "sebaran_waktu_s": round(max(times_s) - min(times_s), 6)}


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
    width = max([8, *(len(result["model_client"]) for result in results)])
    print(f"{'server':<8} {'client':<{width}} {'worker':>6} {'baris':>6} {'berhasil':>8}   "
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
        print(f"{server:<8} {client:<{width}} {workers:>6} {len(rows):>6} {sum(map(succeeded, rows)):>8}   "
              f"{rates[0]:>12} {rates[1]:>12}")


# ---- the journal: what came of each row, from which everything else can be made again

Key = tuple[Combination, int]  # a row, and which repeat of it


def append_journal(path: Path, row: Combination, repeat: int, raw: dict[str, Any]) -> None:
    """Append a row: a line for each client, and last the line that makes it count. The system has it on return."""
    key = asdict(row) | {"ulangan": repeat}
    lines = [{"jenis": "client"} | key | outcome for outcome in raw["outcomes"]]
    lines.append({"jenis": "baris"} | key | {name: raw[name] for name in ("before", "after", "server_mati")})
    with open(path, "a", encoding="utf-8") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


def read_journal(path: Path) -> tuple[dict[Key, dict[str, Any]], int]:
    """Return the raw data of each row that is whole, and how many bytes of the file that is."""
    found: dict[Key, dict[str, Any]] = {}
    outcomes: list[dict[str, Any]] = []
    whole_bytes = position = 0
    with open(path, "rb") as file:
        for line in file:
            position += len(line)
            if not line.endswith(b"\n"):
                break  # cut in the middle of a write
            fields = json.loads(line)
            kind, repeat = fields.pop("jenis"), fields.pop("ulangan")
            row = Combination(**{name: fields.pop(name) for name in Combination.__dataclass_fields__})
            if kind == "client":
                outcomes.append(fields)
            else:
                found[row, repeat] = fields | {"outcomes": outcomes}
                outcomes, whole_bytes = [], position
    return found, whole_bytes


def table_of(journal: dict[Key, dict[str, Any]], rows: list[Combination], repeats: int) -> list[dict[str, Any]]:
    """Return the rows of the table that are complete, in the order of the table."""
    return [
        median_of([result_of(row, journal[row, repeat]) for repeat in range(1, repeats + 1)])
        for row in rows if all((row, repeat) in journal for repeat in range(1, repeats + 1))
    ]


# ---- the report


def write_report(directory: Path) -> Path:
    """Write laporan.html from what a run has left in its folder: the template with the data in it.

    The rows come from the journal, or where a folder was kept without it, from the CSV. Raises ValueError if it
    holds no run, OSError if the template cannot be read or the report not be written.
    """
    template = (HERE / "laporan" / "laporan.html").read_text(encoding="utf-8")
    messages: Counter[tuple[Any, ...]] = Counter()
    try:
        then = json.loads((directory / "lingkungan.json").read_text(encoding="utf-8"))
        options = argparse.Namespace(**then["opsi"])
        planned = combinations(options)
        if (directory / "mentah.jsonl").exists():
            journal, _ = read_journal(directory / "mentah.jsonl")
            results = table_of(journal, planned, options.repeat)
            messages.update((row.encoding, row.model_server, row.model_client, row.nomor, one["cause"], one["message"])
                            for (row, _), raw in journal.items() for one in raw["outcomes"] if one["cause"])
        else:
            with open(directory / "rekap.csv", newline="", encoding="utf-8") as file:
                results = [{name: _typed(text) for name, text in row.items()} for row in csv.DictReader(file)]
        data = json.dumps({
            "lingkungan": then, "rencana": [astuple(row) for row in planned], "baris": results,
            "pesan": [[*key, count] for key, count in messages.items()],
        }, allow_nan=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # whatever may be wrong with someone's files
        raise ValueError(f"{directory} bukan hasil run_for_test.py yang utuh") from None
    page = template.replace("{{data}}", data.replace("<", r"\u003c"))  # so that no </script> in it ends the script
    path = directory / "laporan.html"
    path.write_text(page, encoding="utf-8")
    return path


def _typed(text: str) -> int | float | str | None:
    """Return what a field of the CSV stood for."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text or None


# ---- what it ran on

SAME_TO_RESUME = ("host", "sistem", "cpu", "inti_cpu", "memori_byte", "python", "implementasi", "gil", "start_method")


def environment(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the numbers depend on: this machine, this Python, this code, these options."""
    git = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"], cwd=HERE,
                         capture_output=True, text=True, check=False) if shutil.which("git") else None
    cpu = platform.processor()
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        cpu = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), cpu)
    names = getattr(os, "sysconf_names", {})
    return {
        "waktu_mulai": datetime.now().astimezone().isoformat(timespec="seconds"),
        "host": platform.node(),
        "sistem": platform.platform(),
        "cpu": cpu,
        "inti_cpu": os.cpu_count(),
        "memori_byte": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if "SC_PHYS_PAGES" in names else None,
        "beban_awal": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "implementasi": platform.python_implementation(),
        "gil": has_gil(),
        "start_method": default_start_method(),
        "commit": git.stdout.strip() or None if git else None,
        # What was run, not where to: a folder of results may be moved, or shown to others.
        "opsi": {name: value for name, value in vars(options).items() if name not in ("output", "resume")},
    }


def run_folder(directory: Path) -> Path:
    """Return the folder of a run: the one that was named, or the newest. Raises ValueError."""
    if directory is not NEWEST:
        return directory
    runs = sorted(path.parent for path in (HERE / "hasil").glob("[0-9]*/lingkungan.json"))
    if not runs:
        raise ValueError(f"belum ada hasil di {HERE / 'hasil'}")
    return runs[-1]


def resume(options: argparse.Namespace) -> None:
    """Make `options` those of the interrupted run, and its folder fit to go on in. Raises ValueError."""
    directory = run_folder(options.resume)
    try:
        then = json.loads((directory / "lingkungan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ValueError(f"{directory} bukan hasil yang dapat dilanjutkan") from None
    now = environment(options)
    for name in SAME_TO_RESUME:
        if then[name] != now[name]:
            raise ValueError(f"tidak dapat dilanjutkan di sini: {name} dulu {then[name]}, sekarang {now[name]}")
    vars(options).update(then["opsi"], output=directory.absolute(), resume=directory)
    for leftover in directory.glob("files-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    journal = directory / "mentah.jsonl"
    if journal.exists():
        os.truncate(journal, read_journal(journal)[1])


# ---- the run


def run_all(rows: list[Combination], options: argparse.Namespace) -> None:
    """Run what the journal does not have yet; each row is on the disk before the next. Raises ServerFailed."""
    path = options.output / "mentah.jsonl"
    path.touch()
    journal, _ = read_journal(path)
    recap = options.output / "rekap.csv"
    recap.unlink(missing_ok=True)
    for result in table_of(journal, rows, options.repeat):
        append_csv(recap, result)
    keys = [(row, repeat) for repeat in range(1, options.repeat + 1) for row in rows]
    if options.repeat > 1:
        random.Random(options.seed).shuffle(keys)  # so that a machine that slows down favours no model
    keys = [key for key in keys if key not in journal]
    total_cost = sum(row.volume_bytes + ROW_COST_BYTES for row, _ in keys)
    done_cost, begun_at = 0, time.perf_counter()
    with open(options.output / "log.txt", "a", encoding="utf-8") as log:
        for number, (row, repeat) in enumerate(keys, start=1):
            again = f" (ulangan {repeat})" if options.repeat > 1 else ""
            print(f"[{number}/{len(keys)}] {row}{again} ...", file=sys.stderr, flush=True)
            raw = run_row(row, options, log)
            append_journal(path, row, repeat, raw)
            journal[row, repeat] = raw
            for result in table_of(journal, [row], options.repeat):
                append_csv(recap, result)
            done_cost += row.volume_bytes + ROW_COST_BYTES
            left_s = (time.perf_counter() - begun_at) / done_cost * (total_cost - done_cost)
            print(f"    {row_text(result_of(row, raw))} | sisa {duration_text(left_s)}", file=sys.stderr, flush=True)


# ---- the command line


def _comma_list(parse: Any) -> Any:
    """Return a type for argparse: values that `parse` accepts, with commas between them."""
    return lambda text: [parse(part) for part in text.split(",")]


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = CommandLine(description="Seluruh tabel: 54 baris untuk tiap pasangan model server dan model client.",
                         epilog="contoh: python3 run_for_test.py --server-models process --client-models thread")
    pools = _comma_list(whole_number(1, 1000))
    parser.add_argument("--server-models", type=_comma_list(one_of(EXECUTORS)), default=["thread", "process"],
                        metavar="DAFTAR", help="thread, process (bawaan: keduanya)")
    parser.add_argument("--client-models", "--executor", type=_comma_list(engine), default=["thread", "process"],
                        metavar="DAFTAR", help="thread, process, MODUL:FUNGSI (bawaan: dua yang pertama)")
    parser.add_argument("--host", default=DEFAULT_HOST, metavar="ALAMAT",
                        help="alamat mesin ini, tempat server mendengarkan dan dihubungi (bawaan: %(default)s)")
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
    parser.add_argument("--repeat", type=whole_number(1, 1000), default=1, metavar="N",
                        help="ukur tiap baris N kali, dalam urutan acak; tabel memuat mediannya (bawaan: 1)")
    parser.add_argument("--seed", type=whole_number(0, 999_999_999), default=random.randrange(10**9),
                        help="benih urutan acak itu (bawaan: acak, dicatat)")
    parser.add_argument("--output", type=Path, metavar="DIR",
                        help="folder hasil (bawaan: hasil/<tanggal-jam>/ di samping skrip ini)")
    parser.add_argument("--resume", type=Path, nargs="?", const=NEWEST, metavar="DIR",
                        help="lanjutkan hasil yang terputus (bawaan: yang terbaru), dengan pilihan yang sama")
    report = parser.add_subparsers(dest="command", metavar="report", title="tanpa pengukuran").add_parser(
        "report", help="tulis ulang laporan.html dari hasil yang sudah ada: report [DIR] (bawaan: yang terbaru)")
    report.add_argument("directory", type=Path, nargs="?", default=NEWEST, metavar="DIR")
    options = parser.parse_args(argv)
    if options.command:
        try:
            print(write_report(run_folder(options.directory)))
        except (OSError, ValueError) as error:
            parser.error(_why(error))
        parser.exit()
    del options.command
    if options.resume is not None:
        try:
            resume(options)
            for name in options.client_models:
                executor_named(name)
        except (ValueError, EngineError) as error:
            parser.error(str(error))
        return options
    options.volumes = options.volumes or ([1] if options.quick else [10, 50, 100])
    options.client_workers = options.client_workers or ([1, 5] if options.quick else [1, 5, 50])
    options.server_workers = options.server_workers or ([1, 5] if options.quick else [1, 5, 50])
    options.output = (options.output or HERE / "hasil" / datetime.now().strftime("%Y-%m-%d-%H%M%S")).absolute()
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"folder hasil tidak dapat dibuat: {options.output} ({reason(error)})")
    if (options.output / "lingkungan.json").exists():
        parser.error(f"{options.output} sudah berisi hasil; pilih folder lain, atau lanjutkan dengan --resume")
    largest_bytes = max(options.volumes) * MB * (2 + max(options.client_workers))
    free_bytes = shutil.disk_usage(options.output).free
    if free_bytes < largest_bytes:
        parser.error(f"ruang disk kurang: baris terbesar perlu {size_text(largest_bytes)}, di {options.output} "
                     f"tinggal {size_text(free_bytes)}; kurangi --volumes atau --client-workers")
    with open(options.output / "lingkungan.json", "w", encoding="utf-8") as file:
        json.dump(environment(options), file, indent=2)
    return options


def _why(error: Exception) -> str:
    return f"{error.filename or 'folder hasil'}: {reason(error)}" if isinstance(error, OSError) else str(error)


def main(argv: list[str] | None = None) -> int:
    """Run the table; return the exit code: 0 all succeeded, 1 some failed, 2 wrong usage, 3 no server, 130."""
    options = _parse(argv)
    rows = combinations(options)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the same way as Ctrl-C
    code = 0
    try:
        run_all(rows, options)
    except ServerFailed as error:
        print(f"galat: {error}", file=sys.stderr)
        code = 3
    except OSError as error:
        print(f"galat: {_why(error)}", file=sys.stderr)
        code = 3
    except KeyboardInterrupt:
        print(f"dihentikan; lanjutkan dengan: python3 run_for_test.py --resume {options.output}", file=sys.stderr)
        code = 130
    results = table_of(read_journal(options.output / "mentah.jsonl")[0], rows, options.repeat)
    write_recap(options.output, results)
    try:
        write_report(options.output)
    except (OSError, ValueError) as error:
        print(f"laporan.html tidak dapat ditulis: {_why(error)}", file=sys.stderr)
    print_summary(results)
    print(f"{len(results)} dari {len(rows)} baris, {sum(map(succeeded, results))} tanpa kegagalan: {options.output}")
    return code or (0 if all(map(succeeded, results)) else 1)


if __name__ == "__main__":
    sys.exit(main())
