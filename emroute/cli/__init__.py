"""The command line, ``python -m emroute`` (``pip install 'emroute[cli]'``).

A command is a function in a module of its own, added to `app` below. What goes wrong is told in one line on
stderr, with exit status 2; see `Group`.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

import emroute
from emroute.cli import check, demo, fit, predict
from emroute.cli.show import is_terminal
from emroute.errors import EmrouteError

__all__ = ["Group", "app"]

# the base of wrong options and arguments: click's own class under older typers, typer's copy of it under newer ones
_UsageError: Any = typer.BadParameter.__mro__[1]


class Group(TyperGroup):
    """Commands whose errors are one line on stderr and exit status 2, never a box or a traceback."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the command line and leave the process, whatever `standalone_mode` was asked for."""
        options["standalone_mode"] = False
        try:
            status = super().main(*args, **options)
        except _UsageError as error:
            context = error.ctx.command_path if error.ctx else "emroute"
            message = error.format_message().replace("Value error, ", "").rstrip(".")
            _fail(f"{message}; see `{context} --help`")
        except OSError as error:
            _fail(_reason(error))  # of help on a full disk
        sys.exit(status if isinstance(status, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Run a command, and tell what stopped it."""
        try:
            return super().invoke(ctx)
        except EmrouteError as error:
            _fail(str(error))
        except BrokenPipeError:
            raise  # `emroute ... | head`: typer ends quietly
        except OSError as error:
            _fail(_reason(error))
        except MemoryError as error:
            _fail(f"out of memory; fit in float32, or from a .npy file, which is read in chunks ({error})")
        except KeyboardInterrupt:
            _fail("interrupted")


def _reason(error: OSError) -> str:
    return ": ".join(str(part) for part in (error.filename, error.strerror) if part) or str(error)


def _fail(message: str) -> NoReturn:
    line = " ".join(message.split())
    if is_terminal():
        typer.echo(err=True)  # a progress bar may hold the line
    typer.echo(f"emroute: {line}", err=True)
    sys.exit(2)


app = typer.Typer(
    cls=Group,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its boxes cut names of options at 80 columns
    context_settings={"help_option_names": ["-h", "--help"]},
)
"""The command line: its commands are added below."""


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"emroute {emroute.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Fit Gaussian mixtures, mixtures of counts and k-means, on any array library."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command()(check.check)
app.command()(demo.demo)
app.command()(fit.fit)
app.command()(predict.predict)
