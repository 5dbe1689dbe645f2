"""What the commands leave in a folder: files of which none is lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from emroute._files import whole
from emroute.errors import InputError

__all__ = ["check_free", "drafts"]


def check_free(out: Path, names: Sequence[str], force: bool, source: Path | None = None) -> None:
    """Raise `InputError` if files of these names are there and may not be replaced; what is read never may."""
    there = [out / name for name in names if (out / name).exists()]
    if source is not None and source.exists() and any(path.samefile(source) for path in there):
        raise InputError(f"{source} is what is fitted, and would be replaced; choose another folder with --out")
    if there and not force:
        raise InputError(
            f"{', '.join(map(str, there))} would be replaced; choose another folder with --out, or add --force"
        )


@contextmanager
def drafts(out: Path, names: Sequence[str]) -> Iterator[list[Path]]:
    """Give drafts to write, which take the places of the files of a folder once all are on the disk."""
    with ExitStack() as stack:
        yield [stack.enter_context(whole(out / name)) for name in names]
