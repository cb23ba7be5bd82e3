"""How long before a fire does the controller know? Lead times per fault and chemistry, of the trials in `fires.toml`.

Run with `python bench/leads.py` (half a minute); `--write` puts the table into docs/runaway.md, section "Detection".
Only trials count in which nothing but the fire is wrong. A lead is from the first fatal row to what burnt.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from bms.trial import case, lead, pool

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "runaway.md"
BEGIN, END = "<!-- leads -->", "<!-- end of leads -->"


def measured() -> list[lead.Lead]:
    """The lead times of the library's fires."""
    fires = next(path for path in case.library() if path.name == "fires.toml")
    jobs = [(trial, None) for trial in case.load(fires)]
    outcomes = pool.run_all(jobs, processes=os.cpu_count() or 1, curves=False)
    return lead.alone(outcome.lead for outcome in outcomes if outcome.lead is not None)


def written(page: str, table: list[str]) -> str:
    """The page with `table` between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{chr(10).join(table)}\n{END}{after}"


def main() -> int:
    """Print the table, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"put it into {PAGE.relative_to(ROOT)}")
    args = parser.parse_args()
    leads = measured()
    print("\n".join(lead.text(leads)))
    if args.write:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), lead.markdown(leads)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
