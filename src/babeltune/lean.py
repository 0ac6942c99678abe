"""Processes that train, in little memory: what they are started with, and their libraries without what those load for others.

torchmetrics, which Lightning imports, loads scipy.signal and matplotlib.pyplot where they are; transformers loads scipy.optimize
for the losses of object detection; peft loads bitsandbytes. That is 134 MB and 2.5 s of every process that trains. No torch.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, DistributionFinder, PackageNotFoundError

UNUSED = ("librosa", "matplotlib", "scipy", "sklearn")
"""Loaded by libraries as they are imported, where they are installed, for functions that are not called here."""
LIBRARIES = ("lightning.pytorch", "transformers.modeling_utils")
QUANTISING = "bitsandbytes"
ALLOCATOR = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
"""Small pieces that are kept for reuse lie between the tensors of past steps and keep that room in pieces: 5 % of the peak."""


def environment(threads: int) -> dict[str, str]:
    """What a process that trains is started with: this one's variables, its threads, the allocator's setting if it has none."""
    return ALLOCATOR | dict(os.environ) | {"OMP_NUM_THREADS": str(threads)}


def import_libraries(*, quantises: bool) -> None:
    """Import Lightning and transformers as if `UNUSED` were not installed; they are again afterwards, for all but those two.

    Without `quantises` this process does without bitsandbytes for good: peft looks for it whenever it adds an adapter.
    """
    if not quantises:
        sys.modules[QUANTISING] = None  # type: ignore[assignment]
    with contextlib.suppress(ImportError), hidden(UNUSED):
        _import()
    _import()  # what else is installed may not load without them: then they are all loaded


def _import() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)


@contextlib.contextmanager
def hidden(packages: Iterable[str]) -> Iterator[None]:
    """Within, those of the packages that nobody has loaded yet look as if they were not installed."""
    names = [name for name in packages if name not in sys.modules]
    finder = _NotInstalled(names)
    sys.modules |= dict.fromkeys(names)  # type: ignore[arg-type]  # None: an import raises, and no spec is found
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in names:
            del sys.modules[name]


class _NotInstalled:
    """Finds no module, and denies the versions of some packages."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        return None

    def find_distributions(self, context: DistributionFinder.Context) -> Iterator[Distribution]:
        if context.name in self._names:
            raise PackageNotFoundError(context.name)
        return iter(())
