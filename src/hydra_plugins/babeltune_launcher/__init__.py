"""The Hydra launcher behind `-m`: hands every cell of a multirun to `babeltune.grid` at once."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class BabeltuneLauncher(Launcher):
    """Composes the cells and runs none itself: a grid is one list, so that one process can watch over all of it.

    Its options say where cells run (`babeltune.launchers`); whoever runs them reads them from the composed config.
    """

    def __init__(self, **options: Any) -> None:
        """Hydra gives every option of `hydra.launcher`."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from babeltune.door import launch

        launch(self.config, job_overrides, self._cell)
        return []

    def _cell(self, overrides: Sequence[str]) -> DictConfig:
        cell = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(cell):
            cell.pop("hydra")
        return cell
