"""Write the report of a run: temuan.csv, rekap.md and laporan.html, from lingkungan.json and rekap.csv."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from laporan.temuan import (
    KEY, SAME, Finding, Row, failed, findings, noise_floor, remarks, table_rows, text, typed_rows)

HEADS = ("Nomor", "Operasi", "Volume", "Jumlah client worker pool", "Jumlah server worker pool",
         "Waktu total per client (detik)", "Throughput per client (byte/detik)",
         "Jumlah worker client yang sukses dan gagal", "Jumlah worker server yang sukses dan gagal")
FINDING_HEADS = ("Perbandingan", "Kelompok", "Pasangan", "Rasio waktu", "Kesimpulan (interval 95 %)")


def cells(row: Row) -> list[str]:
    """Return the texts of the assignment's nine columns."""
    low, high, idle = row["waktu_rendah_s"], row["waktu_tinggi_s"], row["server_menganggur"]
    interval = f" ({text(low, 3)}–{text(high, 3)})" if low and high else ""
    client, server = ("-" if row[f"{side}_sukses"] is None else
                      f"{text(row[f'{side}_sukses'])} sukses, {text(row[f'{side}_gagal'])} gagal"
                      for side in ("client", "server"))
    volume, rate = row["volume_mb"], row["throughput_per_client_byte_per_s"]
    return [text(row["nomor"]), text(row["operasi"]), f"{text(volume)} MB" if volume else "-",
            text(row["client_worker_pool"]), text(row["server_worker_pool"]),
            text(row["waktu_total_per_client_s"], 3) + interval, text(rate, 0),
            client, server + (f", {text(idle)} menganggur" if idle else "")]


def facts(environment: Row, rows: list[Row], table: list[Row], found: list[Finding]) -> dict[str, str]:
    """Return what the template fills in. A sentence that needs a name which is not here does not apply."""
    planned, repeats = environment.get("baris_direncanakan") or 0, max(row["ulangan"] for row in table)
    named = {key: ", ".join(map(text, dict.fromkeys(row[key] for row in table if row[key]))) for key in KEY}
    words = {key: " dan ".join(names.rsplit(", ", 1)) for key, names in named.items()}  # 1, 5 dan 50
    words |= {name: text(number) for name, number in {
        "client_sukses": sum(row["client_sukses"] or 0 for row in rows),
        "client_gagal": sum(row["client_gagal"] or 0 for row in rows),
        "baris": len(table), "rencana": planned, "kurang": max(0, planned - len(table)),
        "gagal": sum(map(failed, table)), "ulangan": repeats if repeats > 1 else 0, "banding": len(found),
        "derau": round(100 * (noise_floor(rows) or 0)),
        "beda": sum(not one.kesimpulan.startswith(SAME) for one in found)}.items()}
    return {name: word for name, word in words.items() if word not in ("", "0")}


def markdown(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown; nothing in a cell can end it."""
    marks = str.maketrans({"|": "\\|", "<": "&lt;"})
    safe = ([" ".join(cell.translate(marks).split()) for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *safe))


def compose(directory: Path, penulis: str | None, template: str) -> dict[str, str]:
    """Return the contents of the three files by their names."""
    environment = json.loads((directory / "lingkungan.json").read_text(encoding="utf-8"))
    with open(directory / "rekap.csv", newline="", encoding="utf-8") as lines:
        rows = typed_rows(csv.DictReader(lines))
    if not rows:
        raise ValueError("rekap.csv belum memuat satu baris pun")
    found, notes, table = findings(rows), remarks(environment, rows), table_rows(rows)
    author = penulis or environment.get("penulis") or ""
    judged = [[*map(text, one[:3]), text(one.rasio, 2), one.kesimpulan + bool(one.rasio_rendah) *
               f" ({text(one.rasio_rendah, 2)}–{text(one.rasio_tinggi, 2)})"] for one in found]
    tables: list[dict[str, Any]] = []
    recap = ["# Rekap stress test", author]
    for key, group in groupby(table, itemgetter("model_server", "model_client", "encoding")):
        title = "Tabel {}: server pool {}, client pool {}".format(len(tables) + 1, *map(text, key))
        title += " (raw)" * (key[2] == "raw")
        members = [row | {"sel": cells(row), "gagal": failed(row)} for row in group]
        tables.append({"judul": title, "baris": members})
        recap += [f"## {title}", markdown(HEADS, (row["sel"] for row in members))]
    recap += ["## Temuan", markdown(FINDING_HEADS, judged)] * bool(found)
    recap += ["## Catatan", "\n".join(f"- {note}" for note in notes)] * bool(notes)
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([Finding._fields, *(
        [f"{cell:.4g}" if isinstance(cell, float) else cell for cell in one] for one in found)])
    data = {"lingkungan": environment, "isi": facts(environment, rows, table, found) | {"penulis": author},
            "kepala": HEADS, "tabel": tables, "kepala_temuan": FINDING_HEADS, "temuan": judged, "sama": SAME,
            "catatan": notes}
    safe = json.dumps(data, allow_nan=False).replace("<", "\\u003c")  # ASCII, and no way out of its <script>
    return {"temuan.csv": file.getvalue(), "rekap.md": "\n\n".join(filter(None, recap)) + "\n",
            "laporan.html": template.replace("{{data}}", safe)}


def write_report(directory: Path, penulis: str | None = None) -> list[Path]:
    """Write the files into a run's folder; raise ValueError, with one line, if it holds no run with rows."""
    template = Path(__file__).with_name("templat.html").read_text(encoding="utf-8")
    try:
        contents = compose(directory, penulis, template)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, csv.Error) as error:
        raise ValueError(f"{directory} bukan hasil run_for_test.py: {' '.join(str(error).split())}") from None
    for name, content in contents.items():
        (directory / name).write_text(content, encoding="utf-8", newline="")
    return [directory / name for name in contents]
