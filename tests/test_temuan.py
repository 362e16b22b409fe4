"""The findings: what they claim of simulated runs whose truth is known, and how rows become tables."""

from __future__ import annotations

import csv
import math
import random
import statistics
import unittest
from argparse import Namespace
from collections.abc import Iterator
from functools import lru_cache
from itertools import product

from laporan.temuan import (
    COLUMNS, SAME, TIME, WALL, Finding, Row, findings, noise_floor, remarks, student_t_p, student_t_quantile,
    table_rows, typed_rows)
from run_for_test import checked, measuring_order, parse

OPTIONS = checked(parse([]))


def noise(kind: float | str, chance: random.Random, count: int) -> Iterator[float]:
    """Yield what is added to the logarithms of `count` times in a row; a number is an independent spread."""
    spread = kind if isinstance(kind, float) else 0.05
    level = chance.gauss(0, 0.17) if kind == "autocorrelated" else 0.0
    for place in range(count):
        if kind == "autocorrelated":
            level, spread = 0.9 * level + chance.gauss(0, 0.17 * math.sqrt(1 - 0.9 ** 2)), 0.0
        elif kind == "drift":
            level = math.log(1 + 0.2 * place / count)
        elif kind == "steps" and chance.random() < 0.03:
            level = chance.choice((math.log(0.8), 0.0, math.log(1.2)))
        yield level + chance.gauss(0, spread)


@lru_cache(maxsize=1)
def measured(repeats: int, seed: float) -> list[Row]:
    """Return a run of 54 x 4 rows in the order in which they are measured, without their times."""
    order = measuring_order(Namespace(**vars(OPTIONS) | {"repeat": repeats, "seed": seed}))
    return [dict.fromkeys(COLUMNS) | row._asdict() | {"ulangan": repeat, "waktu_mulai": f"{place:04}"}
            for place, (row, repeat) in enumerate(order)]


def simulated(kind: float | str, chance: random.Random, repeats: int = 1, slower: float = 1.0,
              power: float = 1.0) -> list[Row]:
    """Return such a run: servers of threads are `slower`, times grow with the volume to `power`."""
    rows = measured(repeats, chance.random() * (repeats > 1))  # without repeats, nothing is shuffled
    times_s = [0.01 * row["volume_mb"] ** power * (slower if row["model_server"] == "thread" else 1)
               * math.exp(log) for row, log in zip(rows, noise(kind, chance, len(rows)), strict=True)]
    return [row | {TIME: time_s, WALL: time_s} for row, time_s in zip(rows, times_s, strict=True)]


ROWS = simulated(1e-4, random.Random(4), slower=1.5)


def found(name: str, rows: list[Row]) -> dict[str, Finding]:
    """Return the findings of one comparison, by their groups."""
    return {one.kelompok: one for one in findings(rows) if one.perbandingan == name}


def claims(rows: list[Row], name: str = "") -> int:
    """Return how many findings claim a difference, of one comparison or of all."""
    return sum(not one.kesimpulan.startswith(SAME) for one in findings(rows) if name in one.perbandingan)


class FindingsTest(unittest.TestCase):
    def test_where_nothing_differs_at_most_5_percent_of_the_runs_claim_something(self) -> None:
        kinds: list[float | str] = [0.05, 0.17, "drift", "steps", "autocorrelated"]
        for kind, (repeats, runs, most) in product(kinds, ((1, 80, 9), (3, 25, 4))):
            with self.subTest(kind, repeats=repeats):  # more than `most` happen by chance in 1 %
                chance = random.Random(f"{kind} {repeats}")
                false = sum(claims(simulated(kind, chance, repeats)) > 0 for _ in range(runs))
                self.assertLessEqual(false, most)

    def test_differences_are_found_and_more_of_them_with_more_repeats(self) -> None:
        chance = random.Random(2)
        for spread, slower, fewest in ((0.05, 1.25, {1: 12}), (0.05, 1.1, {1: 4, 3: 11, 5: 11.8}),
                                       (0.17, 1.25, {1: 1, 3: 7, 5: 10.2})):
            means = [statistics.fmean([claims(simulated(spread, chance, repeats, slower), "model server")
                                       for _ in range(16)]) for repeats in fewest]
            enough = [mean >= least for mean, least in zip(means, fewest.values(), strict=True)]
            self.assertTrue(all(enough) and means == sorted(means), (spread, means))

    def test_intervals_hold_the_truth_in_95_percent(self) -> None:
        chance, held = random.Random(3), []
        for repeats in (1, 2) * 30:
            for one in findings(simulated(0.1, chance, repeats, slower=1.5, power=0.9)):
                truth = {"model server": 1.5, "volume": 10 ** 0.9}.get(one.perbandingan, 1.0)
                held.append((one.rasio_rendah or math.nan) <= truth <= (one.rasio_tinggi or math.nan))
        self.assertEqual(len(held), 60 * 28)
        self.assertAlmostEqual(sum(held) / len(held), 0.95, delta=0.02)

    def test_words_name_the_faster_side_and_encodings_are_never_mixed(self) -> None:
        rows = [row | {WALL: row[WALL] * (0.8 if row["server_worker_pool"] == 1 else 1)} for row in ROWS]
        rows += [row | {"operasi": "list", WALL: 1.0} for row in ROWS]  # no transfers
        both = rows + [row | {"encoding": "raw", TIME: row[TIME] / 4} for row in rows]
        for some, name, group, words, pairs in (
                (rows, "model server", "upload, 50 client process, thread/process", "process 1,50", 9),
                (rows, "ukuran pool", "50 client, server thread, 50/1 worker", "1 worker 1,25", 6),
                (both, "model server", "upload, 50 client thread, raw, thread/process", "process 1,50", 9),
                (both, "encoding", "upload, 50 client thread, server process, base64/raw", "raw 4,00", 9)):
            one = found(name, some)[group]
            self.assertEqual((one.kesimpulan, one.pasangan), (f"{words} kali lebih cepat", pairs))
            self.assertIn(f"{one.rasio:.2f}".replace(".", ","), one.kesimpulan)
        self.assertEqual([one.pasangan for one in found("model server", both).values()], [9] * 36)

    def test_volumes_are_proportional_or_not_and_only_if_chance_decided_the_order(self) -> None:
        for power, word in ((1.0, SAME), (0.8, "kurang"), (1.2, "lebih")):
            for repeats, said in ((2, f"{word} dari sebanding"),
                                  (1, f"{SAME} dari sebanding (urutan ukur tidak diacak)")):
                volumes = found("volume", simulated(0.05, random.Random(5), repeats, power=power)).values()
                self.assertEqual([one.kesimpulan for one in volumes], [said] * 2)
                for one in volumes:
                    self.assertAlmostEqual(one.rasio, 10 ** power, delta=1)

    def test_a_row_with_a_failure_takes_part_in_none_in_any_repeat(self) -> None:
        rows = simulated(0.02, random.Random(6), 2)
        for failure, fewest in (({}, 9), ({"client_gagal": 1}, 8), ({"server_gagal": 1}, 8)):
            mended = [*rows[:300], rows[300] | failure, *rows[301:]]
            clients = found("model client", mended).values()
            self.assertEqual(sorted(one.pasangan for one in clients)[:2], [fewest, 9])

    def test_fewer_than_3_pairs_claim_nothing(self) -> None:
        for few in ((1,), (1, 5)):
            rows = [row for row in ROWS if row["volume_mb"] == 10 and row["server_worker_pool"] in few]
            for one in found("model server", rows).values():
                self.assertEqual((one.pasangan, one.kesimpulan), (len(few), SAME))
                self.assertEqual((round(one.rasio, 2), one.rasio_rendah is None), (1.5, len(few) == 1))
        self.assertEqual(findings([]), [])

    def test_student_t(self) -> None:
        for p, df, value in ((0.975, 1, 12.7062), (0.975, 2, 4.3027), (0.999, 3, 10.2145), (0.95, 10, 1.8125),
                             (0.975, 30, 2.0423), (0.995, 120, 2.6174), (0.975, 1000, 1.9623)):
            self.assertAlmostEqual(student_t_quantile(p, df), value, places=4)
            self.assertAlmostEqual(student_t_p(-value, df), 2 - 2 * p, places=4)
        self.assertEqual(student_t_p(0, 5), 1)

    def test_a_csv_made_by_hand_and_medians_of_its_repeats(self) -> None:
        rows = typed_rows(csv.DictReader([
            f"operasi,client_worker_pool,nomor,ulangan,{TIME},client_gagal,galat,catatan",
            "upload,5,2,1,4,0,,a; b", "upload,5,2,2,1,0,,a", "upload,5,2,3,3,0,,", "upload,5,2,4,2,0,,",
            "upload,1,1,1,1,0,,", "upload,1,1,2,2,0,,", "upload,1,1,3,9,3,putus:3,"]))
        self.assertEqual([rows[0][column] for column in (TIME, "catatan", "model_server")], [4, "a; b", None])
        columns = ("ulangan", TIME, "client_gagal", "galat", "catatan", "waktu_tinggi_s")
        bad, four = ([row[column] for column in columns] for row in table_rows(rows))
        logs = [math.log(value) for value in (4, 1, 3, 2)]
        high_s = math.exp(statistics.fmean(logs) + 3.18245 * statistics.stdev(logs) / 2)
        self.assertAlmostEqual(four.pop(), high_s, places=3)
        self.assertEqual((four, bad[:5]), ([4, 2.5, 0, None, "a; b"], [3, 1.5, 3, "putus:3", None]))
        self.assertIsNone(table_rows(rows[:1])[0]["waktu_rendah_s"])
        self.assertEqual(findings(rows), [])
        with self.assertRaisesRegex(ValueError, "nomor bukan bilangan"):
            typed_rows([{"nomor": "satu"}])

    def test_noise_floor_remarks_and_the_order_of_the_table(self) -> None:
        rows = simulated(0.0, random.Random(7))
        for row in rows:  # logarithms that differ by -0.17, 0 and 0.17; more, where they do not count
            sign = {1: -1, 5: 0, 50: 1}[row["server_worker_pool"]]
            row[TIME] *= math.exp(0.17 * sign * row["client_worker_pool"])
        self.assertAlmostEqual(noise_floor(rows) or 0, 0.17)
        self.assertIsNone(noise_floor(rows[:1]))
        models = [(row["model_server"], row["model_client"]) for row in table_rows(rows[::-1])]
        self.assertEqual(models, [pair for pair in product(*[("thread", "process")] * 2) for _ in range(54)])
        rows[0]["catatan"] = "x; mesin dipakai pihak lain"
        for environment, some, said in (
                ({"beban_awal": [1.5, 0, 0], "inti_cpu": 2}, rows, r".*sibuk.*1,5.*\n.*thread/thread 1\."),
                ({"beban_awal": [1.0, 9, 9], "inti_cpu": 2}, rows[1:], ""), ({}, rows[1:], "")):
            self.assertRegex("\n".join(remarks(environment, some)), rf"\A{said}\Z")
