"""Tables as markdown. No I/O."""

import re

import figures as f

TITLES = {"lat": "Latency", "bw": "Bandwidth, one buffer re-used", "bwd": "Bandwidth, a buffer for each message",
          "allreduce": "AllReduce", "allgather": "AllGather", "reducescatter": "ReduceScatter",
          "broadcast": "Broadcast"}


def size(n):
    for unit, factor in (("MB", 1_000_000), ("KB", 1000)):
        if n >= factor and n % factor == 0:
            return f"{n // factor} {unit}"
    return f"{n // 1024} KiB" if n >= 1024 and n % 1024 == 0 else f"{n} B"


def number(value):
    """Three digits that count, without an exponent."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio(value):
    return "" if value is None else f"{value:.2f}"


def spread(value):
    return "" if value is None else f"{number(value.median)} ({number(value.least)}–{number(value.most)})"


def title(table):
    return f"{TITLES[table.op]}, {table.ranks} ranks"


def slug(table):
    """Its name in names of files."""
    return "-".join([*re.findall(r"[\w.]+", table.section), table.op, str(table.ranks)])


def lines_of(head, rows):
    """A table. Line breaks and bars of cells would end them."""
    def line(cells):
        return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"

    return [line(head), "|" + "---|" * len(head), *map(line, rows)]


def one(table, plot=None):
    """A table with its heading, mean, plot and, folded, everybody's medians."""
    limits = any(row.limit for row in table.rows)
    registered = any(row.registered for row in table.rows)
    gloo = any(row.gloo for row in table.rows)
    head = ["size", "ours", "best peer", "which", "ours / best"]
    head += ["limit", "ours / limit"] * limits + ["ours, mwMemAlloc", "its limit", "ours / its limit"] * registered
    head += ["ours / Gloo"] * gloo
    rows = []
    for row in table.rows:
        ahead = row.peer_is_ahead(table.is_time)
        mark = (lambda text, ahead=ahead: f"**{text}**" if ahead and text else text)
        cells = [size(row.size), spread(row.ours), mark(spread(row.best)), mark(row.peer or ""),
                 mark(ratio(row.ratio()))]
        if limits:
            cells += [number(row.limit), ratio(f.quotient(row.ours, row.limit))]
        if registered:
            cells += [spread(row.registered), number(row.registered_limit),
                      ratio(f.quotient(row.registered, row.registered_limit))]
        if gloo:
            cells += [ratio(f.quotient(row.ours, row.gloo))]
        rows.append(cells)
    unit = {"us": "µs"}.get(table.unit, table.unit)
    better = "less" if table.is_time else "more"
    out = [f"### {title(table)}", "", f"{unit}, median (least–most); {better} is better.", ""]
    out += lines_of(head, rows)
    mean = table.mean_ratio()
    if mean is not None:
        out += ["", f"Geometric mean of ours / best: {mean:.3f}"]
    if plot:
        out += ["", f"![{title(table)}, over size]({plot})"]
    return out + ["", *everybody(table), ""]


def everybody(table):
    sizes = [row.size for row in table.rows]
    rows = []
    for impl, found in table.everybody.items():
        medians = [number(found[n].median) if n in found else "" for n in sizes]
        rows.append([impl, *medians, str(max(spread.runs for spread in found.values()))])
    head = ["median", *map(size, sizes), "runs"]
    return ["<details><summary>Everybody</summary>", "", *lines_of(head, rows), "", "</details>"]


def behind(tables):
    """The cells in which a peer is ahead, named as such."""
    found = [(table, row) for table in tables for row in table.behind()]
    if not found:
        return [f"None, beyond the {f.NOISE:.0%} that are noise."]
    rows = [[table.section, title(table), size(row.size), f"**{row.peer}**", number(row.ours.median),
             number(row.best.median), ratio(row.ratio())] for table, row in found]
    return lines_of(["over", "operation", "size", "ahead", "ours", "it", "ours / it"], rows)


def means(tables):
    """The geometric means of all tables, one line each."""
    rows = [[table.section, title(table), "time" if table.is_time else "bandwidth", ratio(table.mean_ratio()),
             f"{len(table.behind())} of {len(table.rows)}"] for table in tables if table.mean_ratio() is not None]
    return lines_of(["over", "operation", "of", "geometric mean of ours / best", "sizes where a peer is ahead"], rows)


def failures(found):
    rows = [[section, name, str(times), error] for (section, name), (times, error) in found.items()]
    return lines_of(["over", "cell", "times", "the last time"], rows)
