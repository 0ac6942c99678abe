"""What a grid's table shows, in Weights & Biases too: a run of the grid's own, and a report over the runs of its cells.

    python -m babeltune.dashboards demo

The report is made by W&B's own library, the extra `report`. Without it, or without a server, the command says what it would make.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from babeltune import comparison, mirroring, reporting
from babeltune.errors import BabelTuneError, ConfigError, EvalError, ModelError, nearest, problem
from babeltune.identity import digest
from babeltune.options import LoggerConfig
from babeltune.results import read_json, write_json
from babeltune.tables import Table, render

log = logging.getLogger(__name__)

FIGURES = ("ablation", "scores", "languages", "losses")
"""Of those that `babeltune figure` draws."""


def mirror(manifest: Path, config: LoggerConfig) -> None:
    """Put a noted grid's table and figures into a W&B run of its own, whose id is the manifest's digest.

    The same grid is the same run: asked again it goes on, and nothing is sent when the table is the one that was sent last.
    What W&B cannot take costs this mirror only, and the log says so.
    """
    if config.kind != "wandb":
        return
    tree, made = read_json(manifest), comparison.table(manifest)
    folder = manifest.with_suffix("")
    run_id, online = digest(tree)[:16], mirroring.is_online(config.mode)
    state = {"run_id": run_id, "content": digest([made.title, made.columns, made.rows, made.notes]), "online": online}
    record = folder / "mirrored.json"
    if record.exists() and read_json(record) == state:
        return
    folder.mkdir(parents=True, exist_ok=True)
    grid = tree["name"]
    run = mirroring.open_run(folder, config, run_id=run_id, name=f"{grid}: table", group=grid, kind="grid", settings=tree)
    if run is None:
        return
    try:
        run.log(_media(made, dict(_figures(grid, manifest.parents[1]))))
        run.summary.update(asdict(made) | {"marks": {}, "links": {}})
        run.finish()
    except Exception as error:  # whatever W&B raises, the table is on disk and printed
        log.warning("W&B has not taken the table of %s (%s); babeltune table %s prints it", grid, error, grid)
        return
    write_json(record, state)


def _media(made: Table, figures: Mapping[str, bytes]) -> dict[str, Any]:
    import wandb

    names = [*made.columns, "notes"]
    notes = "\n".join(made.notes)
    rows = [[*row, notes if place == 0 else ""] for place, row in enumerate(made.rows)]
    found: dict[str, Any] = {"comparison": wandb.Table(columns=names, data=rows)}
    found["comparison_page"] = wandb.Html(render(made, "html"), inject=False)
    return found | {f"figures/{name}": wandb.Html(svg.decode(), inject=False) for name, svg in figures.items()}


def _figures(grid: str, outputs: Path) -> Iterator[tuple[str, bytes]]:
    """The grid's figures as SVG; none where matplotlib is not installed."""
    for name in FIGURES:
        try:
            yield name, reporting.figure(name, [grid], outputs, "svg").data
        except (ConfigError, EvalError, ModelError) as error:  # no library to draw with, or too little to draw
            log.info("no figure %s: %s", name, error)


@dataclass(frozen=True, slots=True)
class Panel:
    """One part of a report."""

    kind: str
    """words, lines (over steps), bars (a score of every run) or table (one that runs have logged)."""
    title: str
    keys: tuple[str, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A report before it is one: what W&B is asked to show of a grid."""

    grid: str
    project: str
    title: str
    num_runs: int
    panels: tuple[Panel, ...]

    def lines(self) -> list[str]:
        """What it shows, in words."""
        head = f'a report "{self.title}" in the project {self.project}, of {self.num_runs} runs in the group {self.grid}:'
        return [head, *(f"  {panel.kind}: {panel.title}" for panel in self.panels)]


def dashboard(manifest: Path) -> Dashboard:
    """The report of a noted grid. Raises EvalError when no cell has finished."""
    tree, rows = read_json(manifest), comparison.read_rows(manifest)
    results = [result for row in rows for result in row.results]
    if not results:
        raise EvalError(problem(f"the grid {tree['name']}", "no finished cell", "something to report on", "running it first"))
    scores = list(dict.fromkeys(name for row in rows for run in row.scores for name in run))
    sources = dict.fromkeys(name for result in results for name in result.config["data"]["sources"])
    panels = [
        Panel("words", "the table, its intervals and notes", text=render(comparison.table(manifest), "md")),
        Panel("table", "the same table as rows", ("comparison",)),
        *(Panel("bars", f"{name} of every run", (f"score/{name}",)) for name in scores),
        Panel("lines", "loss of each run over its steps", ("train/loss",)),
        *(Panel("lines", f"loss on {name} over the steps", (f"train/loss_{name}",)) for name in sources),
        Panel("table", "every item with its reply and score", ("replies",)),
    ]
    title = tree["title"] or tree["name"]
    return Dashboard(tree["name"], results[0].config["logger"]["project"], title, len(results), tuple(panels))


def obstacle() -> str | None:
    """Why no report can be made here; None when one can."""
    try:
        import wandb_workspaces.reports.v2  # noqa: F401
    except ImportError:
        return "wandb-workspaces is not installed (pip install '.[report]')"
    return None if mirroring.is_online() else "no server: WANDB_API_KEY is not set, or WANDB_MODE is not online"


def publish(made: Dashboard) -> str:
    """Make the report on the server and return its address. Raises whatever W&B raises."""
    import wandb

    report = assembled(made, str(wandb.Api().default_entity))
    report.save()
    return str(report.url)


def assembled(made: Dashboard, entity: str) -> Any:
    """The report in the classes of W&B's library; nothing is sent."""
    import wandb_workspaces.reports.v2 as wr

    def block(panel: Panel) -> Any:
        match panel.kind:
            case "lines":
                return wr.LinePlot(title=panel.title, x="Step", y=list(panel.keys))
            case "bars":
                return wr.BarPlot(title=panel.title, metrics=list(panel.keys))
            case kind:
                assert kind == "table", kind
                return wr.WeavePanelSummaryTable(table_name=panel.keys[0])

    words = [wr.MarkdownBlock(text=panel.text) for panel in made.panels if panel.kind == "words"]
    runs = wr.Runset(project=made.project, entity=entity, name=made.grid, filters=f"Group = '{made.grid}'")
    grid = wr.PanelGrid(runsets=[runs], panels=[block(panel) for panel in made.panels if panel.kind != "words"])
    return wr.Report(project=made.project, entity=entity, title=made.title, blocks=[*words, grid])


def main(arguments: list[str] | None = None) -> int:
    """Make the report, or say what it would be. Returns the exit code: 2 for a grid that there is not."""
    parser = argparse.ArgumentParser(prog="python -m babeltune.dashboards", description="A Weights & Biases report on a grid.")
    parser.add_argument("name", help="the grid's name, as its run printed it")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="the folder of results")
    asked = parser.parse_args(arguments)
    try:
        manifest = asked.outputs / "grids" / f"{asked.name}.json"
        if not manifest.exists():
            known = [path.stem for path in sorted(manifest.parent.glob("*.json"))]
            hint = nearest(asked.name, known) if known else "python train.py sweeps=demo"
            raise ConfigError(problem("wandb-report", repr(asked.name), f"a grid in {manifest.parent}", hint))
        made = dashboard(manifest)
    except BabelTuneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    reason = obstacle()
    if reason is None:
        try:
            print(f"made: {publish(made)}")
            return 0
        except Exception as error:  # a server that is away or a bad key: say what would have been made
            reason = " ".join(str(error).split())[:200] or type(error).__name__
    print("\n".join([f"nothing is made: {reason}. It would be", *made.lines()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
