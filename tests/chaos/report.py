"""The table of faults in docs/operations.md, written from what a run saw."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from chaos.client import Verdict
from chaos.faults import FAULTS
from chaos.scenario import Record

MANUAL: Final = Path(__file__).parents[2] / "docs" / "operations.md"
BEGIN: Final = "<!-- chaos: begin (`make chaos` writes what is between these lines) -->"
END: Final = "<!-- chaos: end -->"
_HEAD: Final = "| both registries | a cold tag | a known tag | a blob | afterwards |\n|---|---|---|---|---|\n"

Records = dict[str, Record]


def table(records: Records) -> str:
    """Return the table and the sums under it."""
    rows = "".join(f"{records[fault.name].row}\n" for fault in FAULTS)
    answers = [seen for record in records.values() for seen in (*record.during, *record.after)]
    served = [seen for record in records.values() for seen in record.known]
    right = sum(seen.verdict is Verdict.RIGHT for seen in served)
    wrong, parts, shrunken, hung = (
        sum(seen.verdict is verdict for seen in answers)
        for verdict in (Verdict.WRONG, Verdict.UNCHECKED, Verdict.SHRUNKEN, Verdict.HUNG)
    )
    sums = (
        f"{len(records)} faults, {len(answers)} answers compared with what was pushed. Wrong bytes: {wrong}, and "
        f"{parts} in parts of a blob, which only\ntheir client can check. Shrunken indexes: {shrunken}. Hung: {hung}. "
        f"Known tags served: {right} of {len(served)} requests.\n"
    )
    return f"{_HEAD}{rows}\n{sums}"


def write(records: Records) -> None:
    """Write the table into the manual, if every fault was played."""
    if set(records) != {fault.name for fault in FAULTS}:
        return
    text = MANUAL.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    MANUAL.write_text(f"{before}{BEGIN}\n\n{table(records)}\n{END}{after}")
