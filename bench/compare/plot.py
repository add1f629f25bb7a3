"""Plots of tables as SVG, with matplotlib."""

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt  # noqa: E402 (after the choice above)

import cells as c  # noqa: E402
import figures as f  # noqa: E402
import markdown  # noqa: E402

# The same picture gives the same file.
matplotlib.rcParams["svg.hashsalt"] = "multiworld"
matplotlib.rcParams["svg.fonttype"] = "none"
OURS, REGISTERED, PEER, LIMIT, FAINT = "#0b6e4f", "#5fb49c", "#c0392b", "#666666", "#dddddd"


def line(axes, points, **style):
    """Sizes against values, without those that were not measured."""
    points = [(size, value) for size, value in points if value is not None]
    if points:
        axes.plot(*zip(*points), **style)


def median(spread):
    return None if spread is None else spread.median


def draw(table, path):
    """Ours, the best peer at every size and the limit, over all others in grey."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    rows = table.rows
    for impl, found in table.everybody.items():
        if not impl.startswith(c.OURS):
            line(axes, [(n, found[n].median) for n in sorted(found)], color=FAINT, linewidth=1)
    line(axes, [(row.size, row.limit) for row in rows], color=LIMIT, linestyle=":", label="limit")
    line(axes, [(row.size, row.registered_limit) for row in rows if row.registered], color=LIMIT,
         linestyle="-.", label="limit, mwMemAlloc")
    line(axes, [(row.size, median(row.best)) for row in rows], color=PEER, marker="s", label="best peer")
    line(axes, [(row.size, median(row.registered)) for row in rows], color=REGISTERED, marker="^",
         label="ours, mwMemAlloc")
    line(axes, [(row.size, median(row.ours)) for row in rows], color=OURS, marker="o", label="ours")
    spread = [(row.size, row.ours) for row in rows if row.ours is not None]
    if spread:
        axes.fill_between([size for size, _ in spread], [ours.least for _, ours in spread],
                          [ours.most for _, ours in spread], color=OURS, alpha=0.15, linewidth=0)
    for row in rows:
        if row.peer and row.peer_is_ahead(f.is_time(table.unit)):
            axes.annotate(row.peer, (row.size, row.best.median), xytext=(0, -12 if table.is_time else 8),
                          textcoords="offset points", fontsize=7, ha="center", color=PEER)
    axes.set(xscale="log", yscale="log", title=f"{markdown.title(table)}, {table.section}",
             xlabel="bytes", ylabel={"us": "µs"}.get(table.unit, table.unit))
    axes.set_xticks([row.size for row in rows], [markdown.size(row.size) for row in rows])
    axes.minorticks_off()
    axes.grid(True, which="major", color=FAINT, linewidth=0.5)
    axes.legend()
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)
