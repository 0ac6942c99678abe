"""What a file in `conf/paper/` says: a paper's table as printed, and which cells and scores of ours stand beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import yaml

from babeltune.config import CONF
from babeltune.errors import ConfigError, nearest, problem

T = TypeVar("T")
PLAIN: Mapping[Any, tuple[type, ...]] = {"str": (str,), "float": (int, float), "int": (int,)}
"""What YAML may give for a field of this type."""
KINDS = ("score", "ledger", "training", "config", "mean_of")
LEDGER = ("found", "usable", "taken", "tokens", "tokens_per_row")
"""What a `ledger` column may count, as in `records.LedgerRow`; the last is tokens over rows taken."""
CHECKS = ("row_mean", "row_product", "row_count", "column_sum", "column_mean")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of figures. Of `score`, `ledger`, `training`, `config` and `mean_of` one says what of ours stands beside it."""

    name: str
    score: str = ""
    """`suite/metric`, as evaluations have it. `row` for the `score` of each row."""
    ledger: str = ""
    """One of LEDGER, of the row's `source` in the ledger of its mix."""
    training: str = ""
    """A key of what is known of the training: `parameters.trainable`, `seconds`."""
    config: str = ""
    """`row`: the key of the composed recipe that each row's `key` names."""
    mean_of: tuple[str, ...] = ()
    """Names of other columns: their plain mean in each row, for scores of several suites."""
    times: float = 1.0
    """What of ours is multiplied by to be in the paper's unit."""
    digits: int = 1
    """Decimals, the paper's own."""
    macro_of: tuple[str, ...] = ()
    """Names of other columns, or of scores, of one suite that this score is the plain mean of: it gets its interval from theirs,
    and its value too where the suite has no score of its name."""
    signature: str = ""
    """Words that the score's signature must hold, where a suite can be asked in several ways."""
    cell: Mapping[str, Any] = field(default_factory=dict)
    """What its cells have that the rows do not say: for a table whose columns are models."""

    @property
    def kind(self) -> str:
        return next((kind for kind in KINDS if getattr(self, kind)), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    words: tuple[str, ...]
    """What stands in its text columns."""
    reported: tuple[float | str | None, ...] = ()
    """As printed, for each column; null where the paper prints nothing."""
    cell: Mapping[str, Any] = field(default_factory=dict)
    """What its cells have that the recipe does not say, as on a command line; empty where nothing of ours can stand."""
    experiment: str = ""
    """Its recipe, where the table's rows have several."""
    sweep: str = ""
    """The sweep that makes its cells, where it is not the table's."""
    score: str = ""
    source: str = ""
    """Of the mix's ledger: the name of a source; `all` for the whole mix."""
    key: str = ""
    marks: Mapping[str, str] = field(default_factory=dict)
    """Column to a footnote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What the printed figures must give when they are computed again."""

    kind: str
    """row_mean, row_product: `of` columns give the column `gives`. row_count: the listed words of the text column `of` are as many.
    column_sum, column_mean: the rows of its group before `total` give it, the mean weighted by the column `weights`."""
    of: tuple[str, ...]
    gives: str = ""
    total: str = ""
    """A word of the rows with totals."""
    weights: str = ""
    times: float = 1.0
    """What is recomputed is multiplied by, where columns have different units."""
    within: float = 0.0
    """How far rounding may take a printed figure from a recomputed one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One table."""

    title: str
    measure: str
    """What the paper measured, in words."""
    words: tuple[str, ...]
    """Headings of the text columns."""
    columns: tuple[Column, ...] = ()
    rows: tuple[Row, ...] = ()
    experiment: str = ""
    """The recipe of its cells."""
    same: tuple[str, ...] = ("model.name", "data.name")
    """Keys in which a finished cell must be as the row's; in others it may depart, and is labelled."""
    sweep: str = ""
    """The sweep that makes its cells."""
    stage: str = "tune"
    """`prepare` where the ledgers of mixes are enough."""
    main: tuple[str, ...] = ()
    """Columns with difference, interval, n and seeds; none named: the only one, or the last with a score."""
    compare: Literal["previous", "baseline", "columns", ""] = ""
    """Which differences are judged: of each row of ours to the one before it in its group, to the `baseline` of its group, or of
    neighbouring columns."""
    compare_in: tuple[str, ...] = ()
    """Columns whose differences are judged; none named: those of `main`."""
    baseline: str = ""
    """A word of the row that others are compared with; empty for the first of ours in the group."""
    group: str = ""
    """The text column whose words part the rows into groups; empty for one group."""
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()
    """Doubts and corrections about the whole table."""

    def column(self, name: str) -> int:
        return next(place for place, column in enumerate(self.columns) if column.name == name)

    def group_of(self, row: Row) -> str:
        return row.words[self.words.index(self.group)] if self.group else ""

    def where(self, row: Row, column: Column) -> dict[str, Any]:
        """The cell of a row and a column, as overrides; empty where nothing of ours can stand."""
        if (row.cell or row.experiment or column.cell) and column.kind:
            experiment = row.experiment or self.experiment
            return ({"experiment": experiment} if experiment else {}) | {**row.cell, **column.cell}
        return {}


def read(path: Path) -> tuple[Spec, str]:
    """A file's table, and the line that the file says of itself. Raises ConfigError with the first thing that is wrong."""
    from babeltune.help import first_comment

    where = f"conf/paper/{path.name}"
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 it is one of the two safe ones
    except yaml.YAMLError as error:
        raise ConfigError(problem(where, " ".join(str(error).split()), "YAML", "quotes around words with signs")) from error
    spec = _read(Spec, tree, where)
    parts = {
        "columns": tuple(_read(Column, one, f"{where}: columns[{place}]") for place, one in enumerate(spec.columns)),
        "rows": tuple(_read(Row, one, f"{where}: rows[{place}]") for place, one in enumerate(spec.rows)),
        "checks": tuple(_read(Check, one, f"{where}: checks[{place}]") for place, one in enumerate(spec.checks)),
    }
    spec = dataclasses.replace(spec, **cast(dict[str, Any], parts))
    _refuse(spec, where)
    return spec, first_comment(path)


def files() -> dict[str, Path]:
    """Every table there is: its name is its file's."""
    return {path.stem: path for path in sorted((CONF / "paper").glob("*.yaml"))}


def _read(kind: type[T], tree: Any, where: str) -> T:
    keys = {one.name: one for one in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if not isinstance(tree, Mapping):
        raise ConfigError(problem(where, repr(tree), f"a mapping with some of {', '.join(keys)}", "key: value"))
    for key in tree:
        if key not in keys:
            raise ConfigError(problem(where, repr(key), f"some of {', '.join(keys)}", nearest(str(key), keys, 1)))
    missing = [
        name
        for name, one in keys.items()
        if name not in tree and one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(problem(where, f"no {missing[0]}", ", ".join(missing), f"{missing[0]}: ..."))
    for name, one in keys.items():
        if name in tree and one.type in PLAIN and (type(tree[name]) is bool or not isinstance(tree[name], PLAIN[one.type])):
            raise ConfigError(
                problem(f"{where}.{name}", repr(tree[name]), f"a value of type {one.type}", "0.001 for 1e-3, words in quotes")
            )
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in tree.items()})


def _refuse(spec: Spec, where: str) -> None:
    """What would make a table that says something else than its file."""
    names = [column.name for column in spec.columns]
    for place, row in enumerate(spec.rows):
        here = f"{where}: rows[{place}]"
        _check_count(here, "words", row.words, spec.words)
        _check_count(here, "reported", row.reported, names)
        _check_names(f"{here}.marks", row.marks, [*names, *spec.words])
    for place, column in enumerate(spec.columns):
        if sum(bool(getattr(column, kind)) for kind in KINDS) > 1:
            raise ConfigError(problem(f"{where}: columns[{place}]", "several of ours", f"one of {', '.join(KINDS)}", "one of them"))
        _check_names(f"{where}: columns[{place}].mean_of", column.mean_of, names)
        if column.ledger:
            _check_names(f"{where}: columns[{place}].ledger", [column.ledger], LEDGER)
    _check_names(f"{where}: main", spec.main, names)
    _check_names(f"{where}: compare_in", spec.compare_in, names)
    _check_names(f"{where}: group", [spec.group] if spec.group else [], spec.words)
    _check_names(f"{where}: compare", [spec.compare] if spec.compare else [], ("previous", "baseline", "columns"))
    for place, check in enumerate(spec.checks):
        here = f"{where}: checks[{place}]"
        _check_names(f"{here}.kind", [check.kind], CHECKS)
        _check_names(here, [*check.of, *filter(None, (check.gives, check.weights))], [*names, *spec.words])


def _check_count(where: str, key: str, got: Sequence[object], wanted: Sequence[str]) -> None:
    if len(got) != len(wanted):
        words = f"{len(wanted)}: {', '.join(wanted)}" if wanted else "none, as the table has no columns of figures"
        raise ConfigError(problem(f"{where}.{key}", f"{len(got)} values", words, "null for one that is not printed"))


def _check_names(where: str, got: Sequence[str] | Mapping[str, str], known: Sequence[str]) -> None:
    for name in got:
        if name not in known:
            raise ConfigError(problem(where, repr(name), f"one of {', '.join(known)}", nearest(name, known, 1)))
