"""The options that all training scripts have."""

from __future__ import annotations

import argparse
import math
from functools import partial
from pathlib import Path
from typing import Any

from emroute.nn.sizes import ACTIVATIONS
from images import NAMES


def count(text: str, least: int = 1) -> int:
    """Read an option that is a number of something."""
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected an integer of at least {least}")
    return number


def positive(text: str) -> float:
    """Read an option that is a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a finite number above 0")
    return number


def parser(
    description: str,
    name: str,
    data: tuple[str, ...] = NAMES,
    libraries: tuple[str, ...] = ("torch", "jax"),
    **defaults: Any,
) -> argparse.ArgumentParser:
    """Return the options that all networks have, with the defaults of one, and what it can be trained on and by."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add, count_or_0 = options.add_argument, partial(count, least=0)
    add("--data", choices=data, default="mnist", help="which images")
    add("--folder", type=Path, help="where their files are; fetched into ./data where this is not given")
    add("--out", type=Path, default=Path("runs") / name, help="where log, checkpoint and network go")
    add("--library", choices=libraries, default="torch", help="what computes")
    add("--start", type=Path, help="weights to begin with, that either library kept; drawn by default")
    add("--resume", action="store_true", help="go on from the checkpoint in --out, if there is one")
    add("--epochs", type=count, default=30, help="how many in all, those before --resume among them")
    add("--train", type=count, help="how many training images; all that validation leaves by default")
    add("--validation", type=count_or_0, default=5000, help="training images held out to choose the best epoch")
    add("--test", type=count, help="how many test images; all by default")
    add("--batch-size", type=count, default=128, help="images a step")
    add("--learning-rate", type=positive, default=1e-3, help="of Adam, in the first epoch")
    add("--decay", type=positive, default=0.9, help="by what the learning rate is multiplied after each epoch")
    add("--clip", type=positive, default=5.0, help="longest gradient")
    add("--shift", type=count_or_0, default=2, help="most pixels by which training images are moved")
    add("--seed", type=count_or_0, default=0, help="of all that is random")
    options.set_defaults(**defaults)
    return options


def add_decoder_activation(options: argparse.ArgumentParser) -> None:
    """Add the option of networks that have a decoder."""
    help = "what the decoder ends in; linear for smallnorb, whose images are standardized, else sigmoid"
    options.add_argument("--decoder-activation", choices=tuple(ACTIVATIONS), help=help)


def decoder_activation(given: argparse.Namespace) -> str:
    """Return what the decoder ends in, by default such that it can draw the images."""
    return given.decoder_activation or ("linear" if given.data == "smallnorb" else "sigmoid")
