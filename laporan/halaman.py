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
    SAME, TIME, Finding, Row, failed, findings, noise_floor, remarks, table_rows, text, typed_rows)

HEADS = ("Nomor", "Operasi", "Volume", "Jumlah client worker pool", "Jumlah server worker pool",
         "Waktu total per client (detik)", "Throughput per client (byte/detik)",
         "Jumlah worker client yang sukses dan gagal", "Jumlah worker server yang sukses dan gagal")
FINDING_HEADS = ("Perbandingan", "Kelompok", "Pasangan", "Rasio waktu", "Kesimpulan (interval 95 %)")
TEMPLATE = Path(__file__).with_name("templat.html")


def cells(row: Row) -> list[str]:
    """Return the texts of the assignment's nine columns."""
    low, high, idle = row["waktu_rendah_s"], row["waktu_tinggi_s"], row["server_menganggur"]
    interval = f" ({text(low, 3)}–{text(high, 3)})" if low and high else ""
    client, server = ("-" if row[f"{side}_sukses"] is None else
                      f"{text(row[f'{side}_sukses'])} sukses, {text(row[f'{side}_gagal'])} gagal"
                      for side in ("client", "server"))
    return [text(row["nomor"]), text(row["operasi"]),
            f"{text(row['volume_mb'])} MB" if row["volume_mb"] else "-",
            text(row["client_worker_pool"]), text(row["server_worker_pool"]), text(row[TIME], 3) + interval,
            text(row["throughput_per_client_byte_per_s"], 0), client,
            server + (f", {text(idle)} menganggur" if idle else "")]


def markdown(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown; nothing in a cell can end it."""
    safe = ([" ".join(one.replace("|", "\\|").replace("<", "&lt;").split()) for one in row] for row in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *safe))


def compose(environment: Row, rows: list[Row], author: str) -> dict[str, str]:
    """Return the contents of the three files by their names."""
    table, found = table_rows(rows), findings(rows)
    planned, repeats = environment.get("baris_direncanakan") or 0, max(row["ulangan"] for row in table)
    facts = {name: sum(row[name] or 0 for row in rows) for name in ("client_sukses", "client_gagal")}
    facts |= {"baris": len(table), "rencana": planned, "kurang": max(0, planned - len(table)),
              "gagal": sum(map(failed, table)), "ulangan": repeats if repeats > 1 else 0,
              "banding": len(found), "beda": sum(not one.kesimpulan.startswith(SAME) for one in found),
              "derau": round(100 * (noise_floor(rows) or 0))}  # a sentence that needs one which is 0 goes
    notes = list(remarks(environment, table))
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
    data = {"lingkungan": environment, "isi": facts | {"penulis": author}, "kepala": HEADS, "tabel": tables,
            "kepala_temuan": FINDING_HEADS, "temuan": judged, "sama": SAME, "catatan": notes}
    safe = json.dumps(data, allow_nan=False).replace("<", "\\u003c")  # ASCII, and no way out of its <script>
    return {"temuan.csv": file.getvalue(), "rekap.md": "\n\n".join(filter(None, recap)) + "\n",
            "laporan.html": TEMPLATE.read_text(encoding="utf-8").replace("{{data}}", safe)}


def write_report(directory: Path, penulis: str | None = None) -> list[Path]:
    """Write the files into a run's folder; raise ValueError, with one line, if it holds no run with rows."""
    try:
        environment = json.loads((directory / "lingkungan.json").read_text(encoding="utf-8"))
        with open(directory / "rekap.csv", newline="", encoding="utf-8") as lines:
            rows = typed_rows(csv.DictReader(lines))
        if not rows:
            raise ValueError("rekap.csv belum memuat satu baris pun")
        contents = compose(environment, rows, penulis or environment.get("penulis") or "")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, csv.Error) as error:
        raise ValueError(f"{directory} bukan hasil run_for_test.py: {' '.join(str(error).split())}") from None
    for name, content in contents.items():
        (directory / name).write_text(content, encoding="utf-8", newline="")
    return [directory / name for name in contents]
