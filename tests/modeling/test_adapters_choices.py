"""What an adapter cannot go with is refused before anything is loaded, in one sentence."""

from __future__ import annotations

import pytest

from babeltune.config import compose
from babeltune.errors import ConfigError

REFUSED = {
    "adapter=prompt": "adapter=prompt with data.layout=packed: got several texts in a row; "
    "expected one text behind the trained tokens of its row; try data.layout=padded",
    "adapter=p_tuning": "adapter=p_tuning with data.layout=packed: got several texts in a row;",
    "adapter=prefix": "adapter=prefix with data.layout=packed: got several texts in a row;",
    "adapter=dora precision=int8": "adapter=dora with precision=int8: got 8-bit weights, whose lengths cannot be trained; "
    "expected weights that can be read; try adapter=lora or precision=nf4",
    "adapter=adalora trainer=fsdp": "adapter=adalora with trainer=fsdp: got parameters that must be whole on each device; "
    "expected one of adapter=none, lora, rslora, dora; try trainer=ddp",
    "adapter=sadapter_p trainer=fsdp": "adapter=sadapter_p with trainer=fsdp: got parameters that must be whole on each device;",
    "adapter=embeddings trainer=fsdp": "adapter=embeddings with trainer=fsdp: got parameters that must be whole on each device;",
    "adapter=adalora adapter.target_rank=12": "adapter.target_rank: got 12; expected less than adapter.initial_rank=12; "
    "try adapter.target_rank=8",
    "adapter=adalora adapter.beta1=0": "adapter.beta1: got 0.0; expected a share above zero; try adapter.beta1=0.85",
    "adapter=adalora adapter.beta2=1": "adapter.beta2: got 1.0; expected a share from 0 up to, not including, 1;",
    "adapter=adalora adapter.interval=0": "adapter.interval: got 0; expected a number above zero; try adapter.interval=1",
    "adapter=adalora adapter.last_steps=-1": "adapter.last_steps: got -1; expected 0 or more; try adapter.last_steps=0",
    "adapter=sadapter_h adapter.size=0": "adapter.size: got 0; expected a number above zero; try adapter.size=1",
    "adapter=prompt adapter.tokens=0 data.layout=padded": "adapter.tokens: got 0; expected a number above zero;",
    "adapter=prefix adapter.hidden=-1 data.layout=padded": "adapter.hidden: got -1; expected a number above zero;",
    "adapter=adalora model.lora_targets=[]": "adapter.targets: got []; expected names of linear modules;",
    "adapter=ia3 adapter.rank=4": "adapter.rank: got ",
}


@pytest.mark.parametrize("overrides", list(REFUSED))
def test_what_does_not_go_together_is_refused(overrides: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(overrides.split())
    assert REFUSED[overrides] in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        "adapter=prompt data=none",
        "adapter=sadapter_p model.lora_targets=[]",
        "adapter=embeddings precision=nf4",
        "adapter=dora precision=nf4",
        "adapter=ia3 precision=int8",
        "adapter=adalora trainer=ddp",
        "adapter=dora trainer=fsdp",
        "adapter=padapter_256 adapter.zero_start=true",
    ],
)
def test_what_goes_together_is_taken(overrides: str) -> None:
    compose(overrides.split())


def test_the_large_bottlenecks_are_of_256() -> None:
    for kind in ("sadapter_p", "sadapter_h", "padapter"):
        (small, large) = (vars(compose([f"adapter={name}"]).adapter) for name in (kind, f"{kind}_256"))
        assert (small["kind"], small["size"], large["kind"], large["size"]) == (kind, 32, kind, 256)
