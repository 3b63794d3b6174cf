"""docs/coverage.md from the records of the coverage sweep."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from statistics import median
from typing import Any

from coverage_network import RATIO
from coverage_records import failures

Record = dict[str, Any]

_INTRO = """# Coverage

Written by `python benchmarks/coverage.py` from docs/coverage.json; do not edit.

Every network with random weights, at its default input size, one image, one thread. *Prunable*:
share of the MACs that prunable channels take part in. *Lowest*: ratio of the MACs that remain with
every group at 10 % of its width (`min_keep=0.1`), cut in the module / in the emitted graph
(`as_graph=True`; not run where nothing but the classifier is frozen in the module). *Error*: the
largest relative difference between cut and masked dense network at three random configurations
(one for networks that are not on the list), at 50 % of the MACs or at the lowest reachable ratio.
*Cost*: largest difference between the cost polynomials and what torch's FLOP counter and `numel`
say, in MACs and parameters; products inside fused attention, which the counter does not see, are a
cost of their own.
A cut network also reloads from its file in a fresh process, without pickle and with the same
output to the last bit, trains for a step, and is traced again. *Memory*: growth of the resident set
during the trace. Times were measured beside other work on a shared machine.

*Torch-Pruning 1.6.1*: uniform 50 % of the channels by magnitude, the classifier ignored, then a
forward pass, within 300 s and 8 GiB; the ratio of the MACs that remains, where it runs. Exit code
-9: ended by the system for its memory. Whether its result computes what the dense network computes
without those channels is not checked.
"""

_HEAD = (
    "| network | groups | prunable | lowest | trace | memory | error | cost | Torch-Pruning |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|---|\n"
)


def render(records: Sequence[Record], listed: Sequence[str]) -> str:
    """The page: summary, the list's table, further networks, and what is frozen and why."""
    by_name = {record["model"]: record for record in records}
    on_list = [by_name[name] for name in listed if name in by_name]
    others = [record for record in records if record["model"] not in set(listed)]
    parts = [_INTRO, "\n## The list\n\n", _summary(on_list, len(listed)), "\n", _table(on_list)]
    if others:
        parts += ["\n## Further networks\n\n", _summary(others, len(others)), "\n", _table(others)]
    below = [r for r in [*on_list, *others] if not failures(r) and reachable(r) > RATIO]
    if below:
        parts.append(f"\n## Not down to {RATIO:.0%} of the MACs\n\n")
        parts += [f"- **{r['model']}** ({reachable(r):.0%}): {_main_reasons(r)}\n" for r in below]
    parts.append("\n## What is frozen, and why\n\n")
    parts += [_details(record) for record in [*on_list, *others]]
    return "".join(parts)


def reachable(record: Record) -> float:
    """The lowest ratio of the MACs that either mode reaches."""
    modes = [record.get(mode) for mode in ("module", "graph")]
    return min((m["lowest"] for m in modes if m and "lowest" in m), default=1.0)


def _summary(records: Sequence[Record], expected: int) -> str:
    traced = [r for r in records if "lowest" in r.get("module", {})]
    held = [r for r in records if not failures(r)]
    low = [r for r in traced if reachable(r) <= RATIO]
    seconds = sorted(r["module"]["trace_seconds"] for r in traced)
    lines = [
        f"- {len(traced)} of {expected} networks trace; {len(held)} hold in everything checked.",
        f"- {len(low)} of {expected} reach {RATIO:.0%} of the MACs or less.",
    ]
    if seconds:
        memory = max(r["module"]["trace_mib"] for r in traced)
        lines.append(
            f"- Trace: median {median(seconds):.1f} s, longest {seconds[-1]:.1f} s; "
            f"at most {memory} MiB beyond the loaded network."
        )
    peers = [r["torch_pruning"] for r in records if "outcome" in r.get("torch_pruning", {})]
    if peers:
        outcomes = [peer["outcome"] for peer in peers]
        counts = ", ".join(
            f"{outcomes.count(kind)} {kind}"
            for kind in ("ok", "crashes", "wrong", "nothing")
            if kind in outcomes
        )
        lines.append(f"- Torch-Pruning on the same {len(peers)}: {counts}.")
    return "\n".join(lines) + "\n"


def _table(records: Sequence[Record]) -> str:
    return _HEAD + "".join(_row(record) for record in records)


def _row(record: Record) -> str:
    module, graph = record.get("module", {}), record.get("graph")
    if "lowest" not in module:
        why = module.get("error") or record.get("error", "no record")
        return f"| {record['model']} | {_cell(why)} | | | | | | | {_peer(record)} |\n"
    modes = [m for m in (module, graph) if m is not None and "lowest" in m]
    lowest = " / ".join(f"{m['lowest']:.2f}" for m in modes)
    problems = failures(record)
    error = max(m.get("verify_error", float("nan")) for m in modes)
    cost = max(m.get("cost_error", float("nan")) for m in modes)
    cells = [
        record["model"],
        " / ".join(str(m["groups"]) for m in modes),
        f"{max(m['prunable_macs'] for m in modes):.0%}",
        lowest,
        f"{module['trace_seconds']:.1f} s",
        f"{module['trace_mib']} MiB",
        f"{error:.0e}" if not problems else f"**{_cell('; '.join(problems))}**",
        f"{cost:g}",
        _peer(record),
    ]
    return "| " + " | ".join(cells) + " |\n"


def _peer(record: Record) -> str:
    peer = record.get("torch_pruning")
    if peer is None:
        return ""
    if "outcome" not in peer:
        return _cell(f"no result: {peer.get('error', '')}"[:120])
    if peer["outcome"] == "ok":
        return f"ok, {peer['macs_ratio']:.2f}"
    return _cell(f"{peer['outcome']}: {peer.get('why', '')}"[:120])


def _cell(text: str) -> str:
    return escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


def _main_reasons(record: Record) -> str:
    mode = record.get("graph") or record["module"]
    reasons = [entry for entry in mode["frozen"] if "the network's output" not in entry[0]]
    reasons.sort(key=lambda entry: -entry[1])
    shown = [
        f"{escape(reason, quote=False)} ({count} channels)" for reason, count, _ in reasons[:4]
    ]
    return "; ".join(shown) or "all of it is the output"


def _details(record: Record) -> str:
    lines = [f"<details><summary>{record['model']}</summary>\n\n"]
    for mode in ("module", "graph"):
        found = record.get(mode)
        if not found or "frozen" not in found:
            continue
        lines.append(f"{mode}:\n\n")
        for reason, count, layers in found["frozen"]:
            shown = ", ".join(layers[:6]) + (f" and {len(layers) - 6} more" if layers[6:] else "")
            lines.append(f"- {_cell(reason)}: {count} channels of {_cell(shown)}\n")
        lines.append("\n")
    lines.append("</details>\n\n")
    return "".join(lines)
