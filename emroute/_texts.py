"""Docstrings of two parts: what several classes share, and what is a class's own."""

from __future__ import annotations

import inspect
import re

__all__ = ["joined"]


def joined(shared: str | None, own: str | None) -> str | None:
    """Return one docstring of two: the words of both, then the sections of both; none without docstrings."""
    if not shared or not own:  # python -OO
        return None
    parts = [re.split(r"(?:^|\n\n)(?=\w+\n---)", inspect.cleandoc(text), maxsplit=1) for text in (shared, own)]
    return "\n\n".join(part for pair in zip(*parts, strict=True) for part in pair if part)
