"""Lightning's strategy of trainer=fsdp: DDP of the trained parameters over frozen weights that are spread."""

import logging
from typing import Any

from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from emotion_lightning.models import spread

log = logging.getLogger(__name__)


class SpreadStrategy(DDPStrategy):
    """DDP, except that each process keeps only a part of the frozen weights.

    Gradients, optimizer, clipping and checkpoints concern trained parameters, which are whole in each process, so all
    of these are those of DDP. `docs/decisions/sharding.md` says why Lightning's own FSDP strategies are not used.
    """

    strategy_name = "fsdp"

    def setup(self, trainer: Any) -> None:
        """Spread the frozen weights once, then set up DDP for the others."""
        module: Any = self.lightning_module
        if not spread.is_spread(module.network):
            spread.spread_frozen(module.network, device=self.root_device)
            if self.is_global_zero:
                kept, whole = spread.kept_bytes(module.network)
                log.info(
                    "The frozen weights are spread over %d processes, each of which keeps %.1f of %.1f MB.",
                    self.world_size, kept / 1e6, whole / 1e6,
                )  # fmt: skip
        # DDP would send the parts of the first process to the others.
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, spread.spread_names(module))
        super().setup(trainer)

    def teardown(self) -> None:
        """End as DDP does, but leave the network where it is: Lightning would move it to main memory."""
        module = self._lightning_module
        self.model, self._lightning_module = module, None
        try:
            super().teardown()
        finally:
            self._lightning_module = module
