"""``python -m emroute``, and the ``emroute`` command."""

import sys


def main() -> None:
    """Run the command line, or say in one line what it needs."""
    try:
        from emroute.cli import app
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("typer", "rich"):
            raise
        print(f"emroute: the command line needs {package}; pip install 'emroute[cli]'", file=sys.stderr)
        sys.exit(2)
    app(prog_name="emroute")


if __name__ == "__main__":
    main()
