"""Settings of layers, which may be changed after a layer is made, and how files come to hold those that were."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

from emroute.errors import InputError
from emroute.nn.sizes import check_activation, em_options, entry_pair, place_tuples
from emroute.validate import check_count

__all__ = ["Configurable", "changed_settings", "check_kinds", "configure", "plain"]

# on what a network finds in evaluation, or as Flax' dtype only on its digits
_NO_EFFECT = {"arguments", "dtype", "training", "use_running_average"}


class Configurable:
    """A layer with settings beside its weights: attributes that may be set at any time, and that files hold."""

    settings: ClassVar[tuple[str, ...]] = ()
    """Their names."""

    def check_setting(self, name: str, value: Any) -> Any:
        """Return a value that a setting can have, or raise an error."""
        match name:
            case "options":
                return em_options(**value)
            case "n_iter" | "stride":
                return check_count(name, value)
            case "padding":
                return check_count(name, value, 0)
            case "entries":
                return entry_pair(value, self.transforms.shape[-1])  # pyright: ignore[reportAttributeAccessIssue]
            case "coordinates":
                return place_tuples(value)
            case "activation":
                return check_activation(name, value)
            case _:
                return bool(value)


def plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's, sequences as tuples."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    return tuple(map(plain, value)) if isinstance(value, list | tuple) else value


def changed_settings(modules: Mapping[str, Any], fresh: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what was set after a network was made, by modules' names, so that `configure` sets it again.

    Parameters
    ----------
    modules
        Of the network, by name.
    fresh
        Of another one, made by the same arguments.

    Raises
    ------
    InputError
        If a file cannot hold what differs: a function, or an attribute that is no setting.
    """
    changed: dict[str, dict[str, Any]] = {}
    for name, made in fresh.items():
        module, settings = modules.get(name), getattr(made, "settings", ())
        if type(module) is not type(made):  # for `check_kinds`, after the weights
            continue
        seen = {attribute for attribute, value in vars(made).items() if attribute in settings or _is_data(value)}
        for attribute in sorted(seen - _NO_EFFECT):
            expected = vars(made)[attribute]
            value, place = plain(vars(module).get(attribute, expected)), f"{name}.{attribute}".lstrip(".")
            if attribute.startswith("_") or value == plain(expected):
                continue
            if attribute in settings:
                changed.setdefault(name, {})[attribute] = _checked(module, attribute, value, place)
            else:
                raise InputError(
                    f"{place} is {value!r} but was made as {expected!r}, and a file holds only what the arguments make"
                    " and the layers' settings: make the network with it"
                )
    return {name: dict(sorted(values.items())) for name, values in sorted(changed.items())}


def check_kinds(modules: Mapping[str, Any], fresh: Mapping[str, Any]) -> None:
    """Raise `InputError` if a layer was replaced by one of another kind."""
    for name, made in fresh.items():
        found, expected = type(modules.get(name)), type(made)
        if found is not expected:
            raise InputError(f"{name} is a {found.__name__}, expected the {expected.__name__} that load would make")


def _checked(module: Any, attribute: str, value: Any, place: str) -> Any:
    for name, part in value.items() if isinstance(value, dict) else [(attribute, value)]:
        if callable(part):
            raise InputError(f"{name} is a function, which cannot be saved: give its values as a sequence ({place})")
    try:
        return module.check_setting(attribute, value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{place} is {value!r}, which the layer cannot have: {error}") from None


def _is_data(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_data, value))
    return value is None or isinstance(value, bool | int | float | str)


def configure(path: str | os.PathLike[str], modules: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Set what `changed_settings` found, as a file tells it, or raise `InputError`."""
    for name, values in settings.items():
        module = modules.get(name)
        for attribute, value in values.items():
            if attribute not in getattr(module, "settings", ()):
                raise InputError(f"{path} sets {name}.{attribute}, which this network does not have")
            setattr(module, attribute, _checked(module, attribute, plain(value), f"{name}.{attribute} in {path}"))
