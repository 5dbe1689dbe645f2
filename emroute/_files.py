"""Files that are written whole, or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["whole"]


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a draft to write, beside `path`, whose place it takes once all of it is on the disk.

    Until then a file of that name stays as it is, whatever stops the writer: an error, a full disk, ``kill -9``. Only
    the last leaves a draft behind, a hidden file that ends as `path` does. Several files are exchanged together if
    all are written inside one `contextlib.ExitStack`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, whole(f"{folder}/rows.txt") as draft:
    ...     _ = draft.write_text("1 2 3")
    """
    target = Path(os.path.realpath(path))  # a link stays a link
    if target.exists() and not target.is_file():  # a device or a pipe: nothing can take its place
        yield target
        return
    draft = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")
    try:
        yield draft
        with draft.open("r+b") as file:
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, draft)
        draft.replace(target)
    except OSError as error:
        if error.filename == str(draft) or not error.filename:  # the user knows the file by its own name
            error.filename = str(path)
        raise
    finally:
        draft.unlink(missing_ok=True)
