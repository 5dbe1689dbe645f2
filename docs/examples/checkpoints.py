"""What a run keeps in its folder, and how it goes on from there."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from emroute import EmrouteError

if TYPE_CHECKING:
    from training import Learner, Settings

KEY = "emroute.training"
CHECKPOINT, BEST, LOG, RESULT, LOCK = "checkpoint.safetensors", "best.safetensors", "log.csv", "result.json", ".lock"


class TrainingError(EmrouteError):
    """A run that cannot start, go on or be kept."""


def adopt(learner: Learner, path: Path, what: str) -> None:
    """Give a learner the weights of a file, or raise an error that says what the file holds instead."""
    try:
        learner.adopt(path)
    except (EmrouteError, OSError, RuntimeError, SafetensorError) as error:
        raise TrainingError(f"{path} is not {what} ({_content(path) or error})") from None


def _content(path: Path) -> str:
    """Which network a file holds, or that it is a checkpoint; nothing if that cannot be told."""
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
        if KEY in metadata:
            return f"it is a checkpoint: {BEST} beside it has the weights"
        found = json.loads(metadata["emroute.network"])
        arguments = ", ".join(f"{name}={value!r}" for name, value in found["arguments"].items())
        return f"it holds a {found['kind']} with {arguments}"
    except (AttributeError, LookupError, OSError, SafetensorError, TypeError, ValueError):
        return ""


def size(path: Path) -> int:
    """Count the parameters of a network that was kept, moments of batches aside."""
    with safe_open(path, "numpy") as file:
        learned = [name for name in file.keys() if ".running_" not in name]  # noqa: SIM118, it is no mapping
        return sum(math.prod(file.get_slice(name).get_shape()) for name in learned)


def score(row: dict[str, float]) -> tuple[float, float]:
    """What the best epoch has most of: accuracy in validation, where there is one; the later of equals."""
    return row.get("validation", 0.0), row["epoch"]


def fresh(out: Path) -> list[dict]:
    """Return the empty log of a run that begins, where none was."""
    if (out / CHECKPOINT).exists():
        raise TrainingError(f"{out} holds a run: go on with --resume, or choose another folder with --out")
    return []


def resumed(path: Path, settings: Settings, learner: Learner) -> list[dict]:
    """Restore a learner from a checkpoint and return the log so far."""
    if not path.exists():
        print(f"there is no {path}: this run begins anew")
        return []
    there, rows = _described(path)
    here = json.loads(json.dumps(asdict(settings)))
    if differing := [name for name in here if there.get(name) != here[name]]:
        told = "; ".join(f"{name}: {there.get(name)!r} there, {here[name]!r} now" for name in differing)
        raise TrainingError(f"{path} is of another run ({told})")
    with safe_open(path, "numpy") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    found, mine = ({name: x.shape for name, x in each.items()} for each in (state, learner.state()))
    for name in mine:
        if found.get(name) != mine[name]:
            told = f"{name} is {found.get(name, 'missing')} there, {mine[name]} here"
            raise TrainingError(f"{path} is of another network, perhaps for other images ({told})")
    learner.restore(state)
    print(f"going on after epoch {len(rows)}")
    return rows


def _described(path: Path) -> tuple[dict[str, Any], list[dict]]:
    """Return the settings of a checkpoint and its log so far."""
    try:
        with safe_open(path, "numpy") as file:
            found = json.loads((file.metadata() or {})[KEY])
        return dict(found["settings"]), list(found["rows"])
    except SafetensorError as error:
        raise TrainingError(f"{path} is damaged ({error}): move it away to start anew") from None
    except (LookupError, RecursionError, TypeError, ValueError):
        raise TrainingError(f"{path} is no checkpoint of these examples: choose another folder with --out") from None


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Make the folder of a run and keep other runs out of it; what is in the way is told before the first epoch."""
    lock = FileLock(out / LOCK, timeout=0)  # the system opens it when a run is killed
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise TrainingError(f"another run writes to {out}: choose another folder with --out") from None
    except OSError as error:
        raise TrainingError(f"{out} cannot be written to ({error}): choose another folder with --out") from None
    try:
        yield
    finally:
        lock.release()


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file whole, or not at all."""
    draft = path.with_name(f"{path.name}.part")
    try:
        write(draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())  # on the disk before it takes another's place
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def keep(out: Path, settings: Settings, learner: Learner, rows: list[dict]) -> None:
    """Write the log, the best network and the checkpoint, in this order, each whole or not at all."""
    text = json.dumps({"settings": asdict(settings), "rows": rows})
    log = io.StringIO(newline="")
    table = csv.DictWriter(log, rows[-1])
    table.writeheader()
    table.writerows(rows)
    try:
        if rows[-1] is max(rows, key=score):
            learner.save(out / BEST)
        write_whole(out / LOG, lambda draft: draft.write_text(log.getvalue(), newline=""))
        write_whole(out / CHECKPOINT, lambda draft: save_file(learner.state(), draft, {KEY: text}))
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"epoch {len(rows)} could not be kept in {out} ({error}): make room, then --resume"
        ) from error
