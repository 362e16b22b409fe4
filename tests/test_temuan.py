"""The findings: what they claim of simulated runs whose truth is known, and how rows become tables."""

from __future__ import annotations

import csv
import io
import itertools
import math
import random
import statistics
import unittest
from collections.abc import Callable, Iterator
from typing import Any

from laporan.temuan import (KEY, SAME, TIME, Finding, Row, findings, noise_floor, remarks, student_t_p,
                            student_t_quantile, table_rows, typed_rows)

Noise = Callable[[random.Random, int], Iterator[float]]  # logarithms, for so many measurements in a row


def independent(spread: float) -> Noise:
    return lambda chance, count: (chance.gauss(0, spread) for _ in range(count))


def drifting(chance: random.Random, count: int) -> Iterator[float]:
    return (math.log(1 + 0.2 * place / count) + chance.gauss(0, 0.05) for place in range(count))


def stepping(chance: random.Random, count: int) -> Iterator[float]:
    level = 0.0
    for _ in range(count):
        level = chance.choice((math.log(0.8), 0.0, math.log(1.2))) if chance.random() < 0.03 else level
        yield level + chance.gauss(0, 0.05)


def autocorrelated(chance: random.Random, count: int) -> Iterator[float]:
    value = chance.gauss(0, 0.17)
    for _ in range(count):
        value = 0.9 * value + chance.gauss(0, 0.17 * math.sqrt(1 - 0.9 ** 2))
        yield value


def simulated(noise: Noise, chance: random.Random, repeats: int = 1, slower: float = 1.0,
              power: float = 1.0) -> list[Row]:
    """Return a run of 54 x 4 rows, measured in blocks. Servers of threads are `slower`, and times grow with
    the volume to `power`."""
    blocks = list(itertools.product(("download", "upload"), (10, 50, 100), (1, 5, 50), (1, 5, 50)))
    models = list(itertools.product(("thread", "process"), repeat=2))
    order: list[tuple[Any, ...]] = []
    for repeat in range(1, repeats + 1):
        if repeats > 1:
            chance.shuffle(blocks)
        for number, block in enumerate(blocks):
            order += [(*block, *pair, "base64", repeat) for pair in models[::-1 if number % 2 else 1]]
    rows = []
    for place, (values, log) in enumerate(zip(order, noise(chance, len(order)), strict=True)):
        row: Row = dict(zip((*KEY, "ulangan"), values, strict=True))
        time_s = 0.01 * row["volume_mb"] ** power * math.exp(log)
        time_s *= slower if row["model_server"] == "thread" else 1
        rows.append(row | {TIME: time_s, "waktu_dinding_s": time_s, "client_gagal": 0,
                           "waktu_mulai": f"2026-01-02T{place // 60:02}:{place % 60:02}:00.5+00:00"})
    return rows


def claims(rows: list[Row], *names: str) -> int:
    return sum(not finding.kesimpulan.startswith(SAME) for finding in findings(rows)
               if not names or finding.perbandingan in names)


class SimulationTest(unittest.TestCase):
    def test_where_nothing_differs_at_most_5_percent_of_the_runs_claim_something(self) -> None:
        noises = {"5 %": independent(0.05), "17 %": independent(0.17), "drift": drifting, "steps": stepping,
                  "autocorrelated": autocorrelated}
        for name, noise in noises.items():
            for repeats, runs, most in (1, 80, 9), (3, 25, 4):  # more happens by chance in 1 % of such tests
                with self.subTest(name, repeats=repeats):
                    chance = random.Random(f"{name} {repeats}")
                    false = sum(claims(simulated(noise, chance, repeats)) > 0 for _ in range(runs))
                    self.assertLessEqual(false, most)

    def test_differences_are_found_and_more_of_them_with_more_repeats(self) -> None:
        chance = random.Random(2)
        for _ in range(10):
            self.assertEqual(claims(simulated(independent(0.05), chance, slower=1.25), "model server"), 12)
        for spread, slower, expected in ((0.05, 1.1, {1: 4, 3: 11, 5: 11.8}),
                                         (0.17, 1.25, {1: 1, 3: 7, 5: 10.2})):
            found = {}
            for repeats, fewest in expected.items():
                runs = [claims(simulated(independent(spread), chance, repeats, slower), "model server")
                        for _ in range(16)]
                found[repeats] = sum(runs) / len(runs)
                self.assertGreaterEqual(found[repeats], fewest, (spread, repeats))
            self.assertEqual(list(found.values()), sorted(found.values()))

    def test_intervals_hold_the_truth_in_95_percent(self) -> None:
        chance, held = random.Random(3), []
        for repeats in (1, 2) * 30:
            for finding in findings(simulated(independent(0.1), chance, repeats, slower=1.5, power=0.9)):
                truth = {"model server": 1.5, "volume": 10 ** 0.9}.get(finding.perbandingan, 1.0)
                held.append((finding.rasio_rendah or math.nan) <= truth <= (finding.rasio_tinggi or math.nan))
        self.assertEqual(len(held), 60 * 28)
        self.assertAlmostEqual(sum(held) / len(held), 0.95, delta=0.02)


class FindingsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.rows = simulated(independent(0.02), random.Random(4), slower=1.5)

    def found(self, name: str, rows: list[Row] | None = None) -> dict[str, Finding]:
        return {one.kelompok: one for one in findings(rows or self.rows) if one.perbandingan == name}

    def test_words_name_the_faster_side_and_the_ratio(self) -> None:
        finding = self.found("model server")["upload, 50 client process, thread/process"]
        self.assertRegex(finding.kesimpulan, r"^process 1,[45]\d kali lebih cepat$")
        self.assertAlmostEqual(finding.rasio, 1.5, delta=0.05)
        self.assertEqual(finding.pasangan, 9)
        for row in self.rows:  # the other way round, for the sizes of the pool
            row["waktu_dinding_s"] *= 0.8 if row["server_worker_pool"] == 1 else 1.0
        self.rows += [row | {"operasi": "list", "waktu_dinding_s": 1.0} for row in self.rows]  # no transfers
        finding = self.found("ukuran pool")["50 client, server thread, 50/1 worker"]
        self.assertRegex(finding.kesimpulan, r"^1 worker 1,2\d kali lebih cepat$")
        self.assertEqual(finding.pasangan, 6)

    def test_volumes_are_proportional_or_not_and_only_if_chance_decided_the_order(self) -> None:
        for power, words in ((1.0, f"{SAME} dari sebanding"), (0.8, "kurang dari sebanding"),
                             (1.2, "lebih dari sebanding")):
            rows = simulated(independent(0.05), random.Random(5), 2, power=power)
            self.assertEqual([one.kesimpulan for one in self.found("volume", rows).values()], [words] * 2)
            rows = simulated(independent(0.05), random.Random(5), power=power)
            for one in self.found("volume", rows).values():
                self.assertEqual(one.kesimpulan, f"{SAME} dari sebanding (urutan ukur tidak diacak)")
                self.assertAlmostEqual(one.rasio, 10 ** power, delta=1)

    def test_encodings_are_compared_and_never_mixed(self) -> None:
        rows = self.rows + [row | {"encoding": "raw", TIME: row[TIME] / 4} for row in self.rows]
        found = self.found("encoding", rows)
        self.assertEqual({one.kesimpulan for one in found.values()}, {"raw 4,00 kali lebih cepat"})
        self.assertIn("upload, 50 client thread, server process, base64/raw", found)
        found = self.found("model server", rows)
        self.assertIn("upload, 50 client thread, raw, thread/process", found)
        self.assertEqual((len(found), {one.pasangan for one in found.values()}), (24, {9}))

    def test_a_row_with_a_failure_takes_part_in_none_in_any_repeat(self) -> None:
        rows = simulated(independent(0.02), random.Random(6), 2)
        self.assertEqual({one.pasangan for one in self.found("model client", rows).values()}, {9})
        for column in ("client_gagal", "server_gagal"):
            rows[300] |= {column: 1}
            pairs = sorted(one.pasangan for one in self.found("model client", rows).values())
            self.assertEqual(pairs[:2], [8, 9])
            rows[300] |= {column: None}

    def test_fewer_than_3_pairs_claim_nothing(self) -> None:
        for few, interval in (((1,), False), ((1, 5), True)):
            rows = [row for row in self.rows if row["volume_mb"] == 10 and row["server_worker_pool"] in few]
            for one in self.found("model server", rows).values():
                self.assertEqual((one.pasangan, one.kesimpulan), (len(few), SAME))
                self.assertAlmostEqual(one.rasio, 1.5, delta=0.1)
                self.assertEqual(one.rasio_rendah is not None, interval)
        self.assertEqual(findings([]), [])


class RowsTest(unittest.TestCase):
    def test_student_t(self) -> None:
        table = ((0.975, 1, 12.7062), (0.975, 2, 4.3027), (0.999, 3, 10.2145), (0.9995, 4, 8.6103),
                 (0.95, 10, 1.8125), (0.975, 30, 2.0423), (0.995, 120, 2.6174), (0.975, 1000, 1.9623))
        for p, df, value in table:
            self.assertAlmostEqual(student_t_quantile(p, df), value, places=4)
            self.assertAlmostEqual(student_t_p(-value, df), 2 - 2 * p, places=4)
        self.assertEqual(student_t_p(0, 5), 1)

    def test_a_csv_made_by_hand_and_medians_of_its_repeats(self) -> None:
        text = f"operasi,client_worker_pool,nomor,ulangan,{TIME},client_gagal,galat,catatan\n"
        for line in ("2,1,4,0,,a; b", "2,2,1,0,,a", "2,3,99,0,,", "2,3,3,0,,", "2,4,2,0,,"):
            text += f"upload,5,{line}\n"
        for line in ("1,1,1,0,,", "1,2,2,0,,", "1,3,9,3,putus:3,"):
            text += f"upload,1,{line}\n"
        rows = typed_rows(csv.DictReader(io.StringIO(text)))
        self.assertEqual((rows[0][TIME], rows[0]["catatan"]), (4, "a; b"))
        self.assertIsNone(rows[0]["model_server"])
        bad, four = table_rows(rows)
        self.assertEqual([four[key] for key in ("ulangan", TIME, "catatan", "client_gagal")],
                         [4, 2.5, "a; b", 0])  # a repeat that was measured again replaces the first try
        self.assertEqual([bad[key] for key in ("ulangan", TIME, "galat", "client_gagal")],
                         [3, 1.5, "putus:3", 3])
        logs = [math.log(value) for value in (4, 1, 3, 2)]
        self.assertAlmostEqual(four["waktu_tinggi_s"], math.exp(
            statistics.fmean(logs) + 3.18245 * statistics.stdev(logs) / 2), places=3)
        self.assertIsNone(table_rows(rows[:1])[0]["waktu_rendah_s"])
        self.assertEqual(findings(rows), [])
        with self.assertRaisesRegex(ValueError, "nomor bukan bilangan"):
            typed_rows([{"nomor": "satu"}])

    def test_noise_floor_and_remarks(self) -> None:
        rows = simulated(independent(0), random.Random(7))
        for row in rows:  # logarithms that differ by -0.17, 0 and 0.17; more, where they do not count
            sign = {1: -1, 5: 0, 50: 1}[row["server_worker_pool"]]
            row[TIME] *= math.exp(0.17 * sign * row["client_worker_pool"])
        self.assertAlmostEqual(noise_floor(rows) or 0, 0.17)
        self.assertIsNone(noise_floor(rows[:1]))
        rows[0] |= {"catatan": "x; mesin dipakai pihak lain", "nomor": 7}
        busy = remarks({"beban_awal": [1.5, 0, 0], "inti_cpu": 2}, rows)
        self.assertRegex(busy[0], "sibuk.*1,5")
        self.assertRegex(busy[1], "thread/thread 7")
        self.assertEqual(remarks({"beban_awal": [1.0, 9, 9], "inti_cpu": 2}, rows[1:]), [])
        models = [(row["model_server"], row["model_client"]) for row in table_rows(rows[::-1])]
        self.assertEqual([models[place] for place in (0, 53, 54, 108, 162)], [
            ("thread", "thread"), ("thread", "thread"), ("thread", "process"), ("process", "thread"),
            ("process", "process")])
        self.assertEqual(remarks({}, rows[1:]), [])
