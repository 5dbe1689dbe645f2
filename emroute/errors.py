"""The errors of emroute: each says what was got, what was expected and what to do."""

__all__ = ["BackendError", "EmrouteError", "FitWarning", "InputError", "InputTypeError", "MissingDependencyError"]


class EmrouteError(Exception):
    """The base of every error that emroute raises on purpose."""


class InputError(EmrouteError, ValueError):
    """A value, a shape or an option that cannot be used."""


class InputTypeError(EmrouteError, TypeError):
    """A dtype, an array library or a device that cannot be used, or two that cannot be mixed."""


class BackendError(EmrouteError, LookupError):
    """No plug-in serves an array's library."""


class MissingDependencyError(EmrouteError, ImportError):
    """An optional package is needed and not installed."""


class FitWarning(UserWarning):
    """A fit that worked, but that its user should look at."""
