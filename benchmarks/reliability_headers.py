"""Artefacts whose header says anything: refused with one clear error, or an equal network."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings, strategies as st

from reliability import BENCHMARKS, Outcome, attack

sys.path.insert(0, str(BENCHMARKS.parent / "tests" / "artifact"))

from forgery import mutated, outcome, signed, sound_files


@attack(
    "headers",
    "files with a forged header under a valid checksum, loaded",
    count=10_000,
)
def headers(count: int, start: int) -> Outcome:
    """One to three changes anywhere in the header of a sound file of five kinds."""
    found = Outcome()
    with tempfile.TemporaryDirectory() as folder:
        sound = sound_files(Path(folder))

        @seed(start)
        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def one(drawn: st.DataObject) -> None:
            # Hypothesis tries the simplest change before it counts.
            if found.tried == count:
                return
            kind = drawn.draw(st.sampled_from(sorted(sound)))
            base = sound[kind]
            header = drawn.draw(mutated(base.header))
            path = signed(Path(folder) / "forged.safetensors", header, base.tensors)
            try:
                found.survived[outcome(path, base, header)] += 1
            except Exception as error:  # what this attack looks for
                first = (str(error).splitlines() or [""])[0][:200]
                changed = [key for key in base.header if header.get(key) != base.header[key]]
                found.lost.append(f"{kind}, {changed}: {type(error).__name__}: {first}")

        one()
    return found
