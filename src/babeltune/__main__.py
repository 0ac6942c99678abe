"""`babeltune table GRID`, `paper TABLE`, `report GRID` and `figure NAME GRID`: show again what is on disk."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from babeltune.errors import BabelTuneError, ConfigError, nearest, problem
from babeltune.results import write_bytes, write_text
from babeltune.tables import render


def main() -> int:
    parser = argparse.ArgumentParser(prog="babeltune", description="Show what finished cells have to say.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, about, what in (
        ("table", "the comparison of a grid", "the grid's name, as its run printed it"),
        ("paper", "a table of a paper beside our own numbers", "the table, as belle-table2, or all"),
        ("explain", "what differs between two finished cells, and in their scores", "a cell: folder or beginning of its identity"),
    ):
        command = commands.add_parser(name, help=about)
        command.add_argument("name", help=what)
        if name == "explain":
            command.add_argument("other", help="the cell to compare it with")
        command.add_argument("--format", default="text", help="text, md, latex, csv or html")
        command.add_argument("--outputs", type=Path, default=Path("outputs"), help="the folder of results")
        command.add_argument("--to", type=Path, help="a file to write, in place of the terminal")
    _add_pictures(commands)
    arguments = parser.parse_args()
    try:
        if arguments.command in ("report", "figure"):
            _picture(arguments)
            return 0
        if arguments.command == "explain":
            text = _explained(arguments.name, arguments.other, arguments.outputs, arguments.format)
        else:
            text = _text(arguments.command, arguments.name, arguments.outputs, arguments.format, arguments.to)
        if arguments.to is None:
            print(text)
        else:
            write_text(arguments.to, f"{text}\n")
            print(f"written: {arguments.to}")
    except BabelTuneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _add_pictures(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    report = commands.add_parser("report", help="everything there is to see of a grid, or of some cells, in one HTML page")
    figure = commands.add_parser("figure", help="one figure of a grid, or of some cells, as SVG or PNG")
    figure.add_argument("name", help="scores, languages, losses, ablation, vocabulary, categories or lengths")
    for command, output in ((report, "report.html"), (figure, "a file that ends in .svg or .png")):
        command.add_argument("cells", nargs="+", metavar="GRID", help="a grid's name, or folders of finished cells")
        command.add_argument("--output", type=Path, required=True, metavar="FILE", help=output)
        command.add_argument("--outputs", type=Path, default=Path("outputs"), help="the folder of results")


def _picture(arguments: argparse.Namespace) -> None:
    from babeltune import reporting

    path, cells, outputs = arguments.output, arguments.cells, arguments.outputs
    if arguments.command == "report":
        write_text(path, reporting.page(cells, outputs))
        print(f"written: {path}")
        return
    drawn = reporting.figure(arguments.name, cells, outputs, path.suffix.removeprefix("."))
    write_bytes(path, drawn.data)
    print("\n".join([f"written: {path}", *drawn.notes]))


def _explained(one: str, other: str, outputs: Path, form: str) -> str:
    from babeltune import explaining

    return "\n\n".join(render(table, form) for table in explaining.explain(one, other, outputs))


def _text(command: str, name: str, outputs: Path, form: str, to: Path | None) -> str:
    """What is printed, or written to the file `to`, from whose folder its links then lead."""
    if command == "paper":
        from babeltune import papers

        near = None if to is None else to.parent
        return "\n\n".join(render(table, form) for table in papers.tables(name, outputs, near))
    from babeltune import comparison

    manifest = outputs / "grids" / f"{name}.json"
    if not manifest.exists():
        known = [path.stem for path in sorted(manifest.parent.glob("*.json"))]
        hint = nearest(name, known) if known else "python train.py sweeps=demo"
        raise ConfigError(problem("table", repr(name), f"a grid in {manifest.parent}", hint))
    return render(comparison.table(manifest), form)


if __name__ == "__main__":
    sys.exit(main())
