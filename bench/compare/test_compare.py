"""Tests of what compare.sh computes: python3 -m unittest discover --start-directory bench/compare."""

import unittest

import cells as c
import figures as f
import limits
import machine
import markdown
import report
import rounds

LISTED = """\
openmpi5-shm:lat:2\t/p/mpirun -np 2 /p/bin/mpibench.openmpi5 {op}
openmpi5-shm:allreduce:2\t/p/mpirun -np 2 /p/bin/mpibench.openmpi5 {op}
openmpi5-shm:allreduce:4\t/p/mpirun --map-by :OVERSUBSCRIBE -np 4 /p/bin/mpibench.openmpi5 allreduce
mpich4-shm:allreduce:2\tmpirun.mpich -bind-to core -np 2 /p/bin/mpibench.mpich4 {op}
gloo-tcp/ring:allreduce:2\tranks.sh {ranks} gloobench ar_ring
phys:memcpy:2\tcd /p && ./phys {op}
"""


def line(impl, size, value, number=0, op="lat", unit="us", section="shm", ranks=2):
    return {"round": number, "impl": impl, "op": op, "ranks": ranks, "size": size, "value": value, "unit": unit,
            "set": section}


def one_table(*lines):
    tables = f.tables(lines)
    assert len(tables) == 1, tables
    return tables[0]


class Cells(unittest.TestCase):
    def test_the_list_of_the_peers_is_read(self):
        cells = c.parse_list(LISTED)
        self.assertEqual(cells[0], c.Cell("openmpi5-shm", "lat", 2, "/p/mpirun -np 2 /p/bin/mpibench.openmpi5 {op}"))
        self.assertEqual([cell.op for cell in cells if cell.impl == c.LIMITS], c.LIMIT_TESTS)
        self.assertEqual([cell.transport for cell in cells[:5]], ["shm"] * 4 + ["tcp"])

    def test_a_list_of_another_form_is_refused(self):
        for text in ("openmpi5-shm lat 2\tx", "openmpi5-shm:lat:2 x", "openmpi5-shm:lat:two\tx"):
            with self.assertRaises(ValueError):
                c.parse_list(text)

    def test_collectives_are_started_as_their_library_is(self):
        peers = c.parse_list(LISTED)
        cells = c.mpi_collectives(peers, "/f", ["openmpi5", "mpich4"], [2, 4], processors=2)
        found = {str(cell): cell.command for cell in cells}
        self.assertEqual(found["openmpi5-shm:allgather:2"], "/p/mpirun -np {ranks} /f/mpi_collectives.openmpi5 {op}")
        self.assertEqual(found["openmpi5-shm:broadcast:4"],
                         "/p/mpirun --map-by :OVERSUBSCRIBE -np {ranks} /f/mpi_collectives.openmpi5 {op}")
        self.assertIn("mpich4-shm:allgather:2", found)
        # It does not yield, and this the peers' script measures itself.
        self.assertNotIn("mpich4-shm:allgather:4", found)
        self.assertNotIn("openmpi5-shm:allreduce:4", found)
        self.assertEqual(c.mpi_collectives(peers, "/f", [], [2, 4], processors=2), [])

    def test_ours_are_checked_and_bound(self):
        cells = c.ours("/mw", [2, 4], ["registered"])
        self.assertEqual(len(cells), 2 * 2 * (7 + 4))
        self.assertEqual({cell.op for cell in cells if cell.ranks == 4}, set(c.COLLECTIVES))
        self.assertTrue(all("--results --check --pin" in cell.command for cell in cells))
        self.assertEqual(cells[11].impl, "multiworld-shm/registered")

    def test_what_is_compared_runs_together(self):
        cells = c.ours("/mw", [2], []) + c.parse_list(LISTED)
        groups = c.groups(cells)
        for group in groups:
            self.assertEqual(len({(cell.transport, cell.ranks) for cell in group}), 1)
        self.assertEqual(sum(map(len, groups)), len(cells))
        latency = next(group for group in groups if group[0].transport == "shm" and group[0].op == "lat")
        self.assertEqual([cell.impl for cell in latency], ["multiworld-shm", "openmpi5-shm"])
        self.assertEqual([cell.impl for cell in c.rotated(latency, 3)], ["openmpi5-shm", "multiworld-shm"])

    def test_result_lines_are_found(self):
        text = "warning\nRESULT lat 8 1.5 us\nRESULT lat 4096 2e3 us\nRESULT lat\n"
        cell = c.Cell("openmpi5-shm", "lat", 2, "")
        self.assertEqual([(r["size"], r["value"]) for r in rounds.results(cell, text)], [(8, 1.5), (4096, 2000.0)])
        # Gloo calls an operation by its algorithm, a test of limits is named by what it prints.
        for impl, op in (("gloo-tcp/ring", "allreduce"), (c.LIMITS, "ar_ring")):
            found = rounds.results(c.Cell(impl, "allreduce", 2, ""), "RESULT ar_ring 8 1.5 us")
            self.assertEqual([r["op"] for r in found], [op])


class Figures(unittest.TestCase):
    def test_medians_over_rounds_and_the_best_at_each_size(self):
        table = one_table(*(line("multiworld-shm", 8, value, i) for i, value in enumerate((3.0, 1.0, 2.0))),
                          line("a-shm", 8, 4.0), line("b-shm", 8, 2.5), line("a-shm", 4096, 5.0),
                          line("multiworld-shm", 4096, 10.0))
        self.assertEqual(table.rows[0].ours, f.Spread(2.0, 1.0, 3.0, 3))
        self.assertEqual([row.peer for row in table.rows], ["b-shm", "a-shm"])
        self.assertEqual([row.ratio() for row in table.rows], [0.8, 2.0])
        self.assertAlmostEqual(table.mean_ratio(), 1.6 ** 0.5)
        self.assertEqual([row.size for row in table.behind()], [4096])

    def test_more_bandwidth_is_better(self):
        lines = [line(impl, 8, value, op="bw", unit="MB/s")
                 for impl, value in (("multiworld-shm", 90.0), ("a-shm", 100.0), ("b-shm", 80.0))]
        table = one_table(*lines)
        self.assertEqual((table.rows[0].peer, table.rows[0].ratio()), ("a-shm", 0.9))
        self.assertTrue(table.behind())

    def test_noise_is_no_lead(self):
        for ours, ahead in ((104.0, 0), (106.0, 1), (90.0, 0)):
            table = one_table(line("multiworld-shm", 8, ours), line("a-shm", 8, 100.0))
            self.assertEqual(len(table.behind()), ahead, ours)

    def test_limits_are_the_best_of_what_counts(self):
        table = one_table(line("multiworld-shm", 8, 2.0), line("multiworld-shm/registered", 8, 1.5),
                          line("phys", 8, 0.5, op="flag_spin", section="limit"),
                          line("phys", 8, 1.0, op="cma_lat", section="limit"),
                          line("phys", 8, 0.1, op="ar_shm", section="limit"))
        self.assertEqual((table.rows[0].limit, table.rows[0].registered_limit), (0.5, 0.5))
        self.assertEqual(table.rows[0].registered.median, 1.5)
        self.assertEqual(limits.tests("shm", "allreduce", 4), ())

    def test_what_is_missing_stays_empty(self):
        only_ours = one_table(line("multiworld-shm", 8, 2.0))
        self.assertEqual((only_ours.rows[0].ratio(), only_ours.mean_ratio(), only_ours.behind()), (None, None, []))
        only_peer = one_table(line("a-shm", 8, 2.0))
        self.assertEqual((only_peer.rows[0].ratio(), only_peer.behind()), (None, []))
        self.assertEqual(f.tables([]), [])

    def test_sections_are_apart_and_in_order(self):
        lines = [line("multiworld-tcp", 8, 5.0, section="tcp"), line("multiworld-tcp", 8, 4.0, section="tcp, reno"),
                 line("multiworld-shm", 8, 1.0, ranks=4, op="allreduce"), line("multiworld-shm", 8, 1.0)]
        self.assertEqual([(table.section, table.ranks) for table in f.tables(lines)],
                         [("shm", 2), ("shm", 4), ("tcp", 2), ("tcp, reno", 2)])

    def test_gloo_is_named_apart(self):
        values = {"multiworld-tcp": 5.0, "gloo-tcp/ring": 50.0, "gloo-tcp/hd": 40.0, "a-tcp": 4.0}
        lines = [line(impl, 8, value, section="tcp") for impl, value in values.items()]
        row = one_table(*lines).rows[0]
        self.assertEqual((row.gloo, row.peer), (40.0, "a-tcp"))

    def test_failures_are_counted(self):
        failed = {"round": 0, "impl": "a-shm", "op": "lat", "ranks": 2, "set": "shm", "error": "x"}
        self.assertEqual(f.failures([failed, {**failed, "error": "y"}]), {("shm", "a-shm:lat:2"): (2, "y")})
        self.assertEqual(f.tables([failed]), [])


class Text(unittest.TestCase):
    def test_numbers_have_three_digits(self):
        for value, text in ((0.1834, "0.18"), (3.456, "3.46"), (12.34, "12.3"), (12345.6, "12346"), (None, "")):
            self.assertEqual(markdown.number(value), text)

    def test_sizes_are_named(self):
        for size, text in ((8, "8 B"), (4096, "4 KiB"), (40000, "40 KB"), (64000000, "64 MB"), (12, "12 B")):
            self.assertEqual(markdown.size(size), text)

    def test_a_peer_that_is_ahead_is_bold_and_listed(self):
        table = one_table(line("multiworld-shm", 8, 3.0), line("a-shm", 8, 2.0),
                          line("multiworld-shm", 4096, 1.0), line("a-shm", 4096, 2.0))
        text = "\n".join(markdown.one(table))
        self.assertIn("| 8 B | 3.00 (3.00–3.00) | **2.00 (2.00–2.00)** | **a-shm** | **1.50** |", text)
        self.assertIn("| 4 KiB | 1.00 (1.00–1.00) | 2.00 (2.00–2.00) | a-shm | 0.50 |", text)
        self.assertIn("| shm | Latency, 2 ranks | 8 B | **a-shm** | 3.00 | 2.00 | 1.50 |",
                      markdown.behind([table]))
        self.assertEqual(markdown.behind([]), ["None, beyond the 5% that are noise."])

    def test_columns_come_with_what_they_show(self):
        table = one_table(line("multiworld-shm", 8, 3.0), line("a-shm", 8, 2.0))
        self.assertNotIn("limit", "\n".join(markdown.one(table)))
        table = one_table(line("multiworld-shm", 8, 3.0), line("phys", 8, 0.5, op="flag_spin", section="limit"))
        text = "\n".join(markdown.one(table))
        self.assertIn("| 0.50 | 6.00 |", text)
        self.assertNotIn("mwMemAlloc", text)

    def test_every_row_has_a_cell_for_each_column(self):
        table = one_table(line("multiworld-shm", 8, 3.0), line("a-shm", 4096, 2.0), line("b-shm", 8, 2.0),
                          line("phys", 8, 0.5, op="flag_spin", section="limit"))
        lines = report.text([table], {("shm", "a-shm:lat:2"): (1, "a | b\nc")}, [("command", "a|b")], {})
        columns = None
        for text in lines:
            if not text.startswith("|"):
                columns = None
                continue
            count = text.replace("\\|", "").count("|")
            columns = columns or count
            self.assertEqual(count, columns, text)

    def test_plots_are_linked_where_there_are_any(self):
        table = one_table(line("multiworld-tcp", 8, 3.0, section="tcp, reno"))
        self.assertEqual(markdown.slug(table), "tcp-reno-lat-2")
        self.assertIn("![Latency, 2 ranks, over size](n/tcp-reno-lat-2.svg)",
                      report.text([table], {}, [], {"tcp-reno-lat-2": "n/tcp-reno-lat-2.svg"}))


class Machine(unittest.TestCase):
    def test_fields_and_versions_are_found(self):
        self.assertEqual(machine.field("model name\t: A CPU\nmodel name\t: B\n", "model name"), "A CPU")
        self.assertEqual(machine.field("x: 1", "model name"), "")
        self.assertEqual(machine.field("Details:\n    Version:     4.0.2\n", "Version"), "4.0.2")
        self.assertEqual(machine.first_version("mpirun (Open MPI) 5.0.11\n"), "5.0.11")
        self.assertEqual(machine.first_version("none"), "")
        self.assertEqual(machine.output("/does/not/exist"), "")
        self.assertRegex(machine.name(), r"^[a-z0-9-]+-cores$")


if __name__ == "__main__":
    unittest.main()
