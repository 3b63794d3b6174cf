"""What finalists may get beyond the default: exchanged channels, and a short distillation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pruning_jobs import SETTINGS, job

from randprune.cli.app import main
from randprune.lineage import selection_of
from randprune.store import RANDOM_CHANNELS, SEARCHED, UNIFORM, Store


def with_finalists(**keys: Any) -> dict[str, Any]:
    return {**SETTINGS, "finalists": {**SETTINGS["finalists"], **keys}}


def test_a_distilled_network_is_not_called_untrained(tmp_path: Path, capsys: Any) -> None:
    settings = with_finalists(recovery="least_squares+distill")
    result = job(tmp_path, settings=settings, finetune=None)
    assert result.network(SEARCHED).recovery == "least_squares+distill"
    with Store.open(tmp_path) as store:
        ledger = [entry for run in store.runs() for entry in run.ledger()]
    of_finalists = [entry for entry in ledger if entry.phase == "finalists"]
    assert all(entry.images_backward == 300 * 64 for entry in of_finalists)
    assert not any(e.images_backward for e in ledger if e.phase != "finalists")
    capsys.readouterr()
    assert main(["report", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "shortly distilled" in " ".join(shown.split())
    assert "after a short distillation" in " ".join(shown.split())
    assert "no training" not in shown
    assert "without any training" not in " ".join(shown.split())


def test_exchanges_give_other_channels_of_the_same_widths() -> None:
    """L1 chooses; whoever is exchanged is chosen by the error of the layers behind."""
    plain = job(None, settings=SETTINGS, finetune=None, criterion="l1")
    swapped = job(None, settings=with_finalists(swaps=8), finetune=None, criterion="l1")
    for role in (SEARCHED, UNIFORM, RANDOM_CHANNELS):
        assert swapped.network(role).stage == "repaired"
    assert np.array_equal(plain.network(UNIFORM).widths, swapped.network(UNIFORM).widths)
    random = RANDOM_CHANNELS
    assert plain.value(random) == swapped.value(random)  # it has no say in a chance choice
    assert plain.value(UNIFORM) != swapped.value(UNIFORM)
    # What is called "cut" has the channels that the repaired network has.
    assert selection_of(swapped.model).widths.tolist() == list(swapped.network(SEARCHED).widths)
