"""How to get the same result again: the part of a page that every kind of run has."""

from __future__ import annotations

import json
from collections.abc import Sequence

from randprune.report.document import Block, Code, Facts
from randprune.report.format import elapsed, moment, seconds, size
from randprune.store import Reproduce, RunInfo, Session


def reproduce(
    info: RunInfo, how: Reproduce | None, sessions: Sequence[Session]
) -> tuple[Block, ...]:
    """Command, recipe, hashes, and what the run was made with."""
    blocks: list[Block] = []
    if how is not None:
        blocks.append(Code("Command", how.command))
    if how is not None and how.recipe:
        blocks.append(Code(f"Recipe ({how.recipe_file})", how.recipe))
    else:
        recipe = json.dumps(info.recipe, indent=2, ensure_ascii=False)
        blocks.append(Code("Recipe (JSON)", recipe))
    blocks.append(
        Facts(
            "Hashes",
            {
                "Recipe": info.recipe_hash,
                "Seed": str(info.seed),
                "Channel groups": info.fingerprint or "not recorded",
                "Base weights": info.weights_hash or "not recorded",
                "Data": info.data_fingerprint or "not recorded",
            },
        )
    )
    blocks.append(Facts("Made with", _provenance_facts(info)))
    if len(sessions) > 1:
        facts = {}
        for i, session in enumerate(sessions, 1):
            lasted = elapsed(session.started, session.ended)
            how_long = seconds(lasted) if lasted is not None else (session.ended or "not ended")
            versions = ", ".join(f"{k} {v}" for k, v in _versions(session.provenance).items())
            facts[f"Session {i}"] = f"{moment(session.started)}, {how_long}. {versions}"
        blocks.append(Facts("Sessions", facts))
    return tuple(blocks)


def _provenance_facts(info: RunInfo) -> dict[str, str]:
    made = info.provenance
    cpu, git = made.get("cpu"), made.get("git")
    facts = {
        "Started": moment(info.started),
        "Ended": moment(info.finished),
        "Command line": str(made.get("command", "")),
        "Versions": ", ".join(f"{k} {v}" for k, v in _versions(made).items()),
        "Platform": str(made.get("platform", "")),
        "GPU": ", ".join(map(str, made.get("gpus") or ())),
    }
    if isinstance(cpu, dict):
        features = ", ".join(map(str, cpu.get("features") or ()))
        facts["CPU"] = f"{cpu.get('model', '')}, {cpu.get('cores', '?')} cores"
        facts["CPU features"] = features
        facts["Threads"] = str(cpu.get("threads") or "")
    if isinstance(made.get("memory_bytes"), int):
        facts["Memory"] = size(made["memory_bytes"])
    if isinstance(git, dict):
        changed = " with uncommitted changes" if git.get("dirty") else ""
        facts["Source"] = f"commit {git.get('commit', '')}{changed}"
    return {name: value for name, value in facts.items() if value}


def _versions(made: object) -> dict[str, str]:
    versions = made.get("versions") if isinstance(made, dict) else None
    return {str(k): str(v) for k, v in versions.items()} if isinstance(versions, dict) else {}


def versions_used(sessions: Sequence[Session]) -> set[str]:
    """The sets of versions that the sessions of a run used, as text; more than one is a remark."""
    return {json.dumps(_versions(session.provenance), sort_keys=True) for session in sessions}


def footer(info: RunInfo, of_how_many: str = "") -> str:
    """The line at the end of every page: what wrote it, from what, and how to read numbers."""
    made_by = _versions(info.provenance).get("randprune", "")
    return (
        f"Written by randprune {made_by} from run {info.id}{of_how_many} in its folder "
        f"(recipe {info.recipe_hash}). One MAC is one multiply-add; FLOPs are twice the MACs. "
        "Ratios say what remains."
    )
