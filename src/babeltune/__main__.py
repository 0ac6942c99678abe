"""`babeltune table GRID` and `babeltune paper TABLE`: print again what is on disk."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from babeltune.errors import BabelTuneError, ConfigError, nearest, problem


def main() -> int:
    parser = argparse.ArgumentParser(prog="babeltune", description="Print the tables of finished cells.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, about, what in (
        ("table", "the comparison of a grid", "the grid's name, as its run printed it"),
        ("paper", "a table of a paper beside our own numbers", "the table: belle-table2"),
    ):
        command = commands.add_parser(name, help=about)
        command.add_argument("name", help=what)
        command.add_argument("--format", default="text", help="text, md, latex or csv")
        command.add_argument("--outputs", type=Path, default=Path("outputs"), help="the folder of results")
    arguments = parser.parse_args()
    try:
        print(_print(arguments.command, arguments.name, arguments.outputs, arguments.format))
    except BabelTuneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _print(command: str, name: str, outputs: Path, form: str) -> str:
    from babeltune import comparison, papers
    from babeltune.tables import render

    if command == "paper":
        return render(papers.table(name, outputs), form)
    manifest = outputs / "grids" / f"{name}.json"
    if not manifest.exists():
        known = [path.stem for path in sorted(manifest.parent.glob("*.json"))]
        hint = nearest(name, known) if known else "python train.py sweeps=demo"
        raise ConfigError(problem("table", repr(name), f"a grid in {manifest.parent}", hint))
    return render(comparison.table(manifest), form)


if __name__ == "__main__":
    sys.exit(main())
