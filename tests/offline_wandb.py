"""Reads back what Weights & Biases wrote offline."""

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32768


@dataclass
class OfflineRun:
    """One offline folder."""

    folder: Path
    id: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def logged(self) -> set[str]:
        """Every key that was ever logged."""
        return {key for row in self.history for key in row}

    @property
    def images(self) -> list[str]:
        """Paths of the pictures that were stored."""
        media = self.folder / "files" / "media" / "images"
        return sorted(str(file.relative_to(media)) for file in media.rglob("*.png"))


def offline_runs(folder: Path) -> list[OfflineRun]:
    """Return the runs under a folder, oldest first; W&B's service is stopped, which completes the files."""
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()
    runs = []
    for file in sorted(folder.rglob("*.wandb"), key=lambda file: file.stat().st_mtime_ns):
        run = OfflineRun(file.parent)
        for content in _records(file.read_bytes()):
            record = Record()
            record.ParseFromString(content)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                run.id = record.run.run_id
                _update(run.config, record.run.config.update)
            elif kind == "config":
                _update(run.config, record.config.update)
            elif kind == "history":
                row: dict[str, Any] = {}
                _update(row, record.history.item)
                run.history.append(row)
        runs.append(run)
    return runs


def _records(content: bytes):
    """Yield the records of a LevelDB log: blocks of pieces with a header of checksum, length and kind."""
    position, record = 7, b""  # after the header of the file
    while position + 7 <= len(content):
        left = BLOCK - position % BLOCK
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or last of several
            yield record
            record = b""


def _update(into: dict[str, Any], items: Any) -> None:
    for item in items:
        into["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
