"""Writes what rounds.py has measured as tables and plots: FOLDER/NAME.md and FOLDER/NAME/*.svg."""

import argparse
import json
import os
import sys

import figures
import machine
import markdown

INTRODUCTION = """\
Ours with all that makes it fault-tolerant switched on (watchdog, deadlines, authentication), and with
contents checked in iterations that are not timed. Limits are the best of small reference programs that move the
same bytes between two processes; except for memcpy they prove nothing.

The best peer is chosen for each size by its median. `ours / best`: of a time, less than 1 is ahead, of a
bandwidth more than 1. **Bold** is where a peer is ahead by more than what is noise.
""".split("\n")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lines", help="the JSON lines of rounds.py")
    parser.add_argument("--folder", required=True)
    parser.add_argument("--name", help="default: the date and the kind of machine")
    parser.add_argument("--plots", action="store_true", help="needs matplotlib")
    return parser.parse_args()


def plots(tables, folder, name):
    """Draws them in an empty folder. The paths, as the text beside the folder refers to them."""
    import plot

    os.makedirs(os.path.join(folder, name), exist_ok=True)
    paths = {}
    for table in tables:
        path = f"{name}/{markdown.slug(table)}.svg"
        plot.draw(table, os.path.join(folder, path))
        paths[markdown.slug(table)] = path
    return paths


def text(tables, failed, head, paths):
    """The whole report, as lines."""
    out = ["# Measured side by side", "", *markdown.lines_of(["what", "which"], head), ""]
    out += [*INTRODUCTION, *markdown.means(tables), ""]
    section = None
    for table in tables:
        if table.section != section:
            section = table.section
            out += [f"## {section}", ""]
        out += markdown.one(table, paths.get(markdown.slug(table)))
    out += ["## Where a peer is ahead", "", *markdown.behind(tables), ""]
    if failed:
        out += ["## Runs that failed", "", *markdown.failures(failed), ""]
    return out


def main():
    args = arguments()
    with open(args.lines, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    tables = figures.tables(lines)
    if not tables:
        print(f"{args.lines}: no results", file=sys.stderr)
        return 1
    about = [tuple(pair) for pair in next((line["about"] for line in lines if "about" in line), [])]
    date = dict(about).get("date", "undated")
    name = args.name or f"{date}-{machine.name()}"
    rounds = max(line.get("round", 0) for line in lines) + 1
    head = [*about, ("rounds", str(rounds))]
    os.makedirs(args.folder, exist_ok=True)
    paths = plots(tables, args.folder, name) if args.plots else {}
    path = os.path.join(args.folder, f"{name}.md")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(text(tables, figures.failures(lines), head, paths)))
    print(f"{path}, {len(paths)} plots")
    return 0


if __name__ == "__main__":
    sys.exit(main())
