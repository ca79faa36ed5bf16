"""Names of the files of an evaluation: those of other data do not replace those of the run's own."""

import json
from pathlib import Path


def of_data(name: str, run_dir: Path, dataset: str, split: str) -> str:
    """Return the name of a file for an evaluation: as it is on the run's own split, else with the data's.

    Args:
        name: without a suffix.
        run_dir: whose ``split.json`` has the run's own split; without one, every split is its own.
        dataset: name of the data set.
        split: its sha256.
    """
    record = run_dir / "split.json"
    if not record.exists() or json.loads(record.read_text(encoding="utf-8"))["sha256"] == split:
        return name
    return f"{name}-{dataset}-{split[:8]}"
