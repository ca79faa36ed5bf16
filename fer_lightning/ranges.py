"""Types of options with a range: the program refuses what is outside, ``--help`` shows it, Python checks it.

To a type checker they are ``int`` and ``float``. The program's parser checks them by itself; a class that is
built in Python calls ``check_ranges`` once.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, get_args, get_type_hints

from jsonargparse import typing as ranges

from fer_lightning.errors import InputError

if TYPE_CHECKING:
    PositiveInt: TypeAlias = int
    NonNegativeInt: TypeAlias = int
    PositiveFloat: TypeAlias = float
    NonNegativeFloat: TypeAlias = float
    Share: TypeAlias = float
    OpenShare: TypeAlias = float
    Momentum: TypeAlias = float
    OverOne: TypeAlias = float
else:
    PositiveInt = ranges.PositiveInt
    NonNegativeInt = ranges.NonNegativeInt
    PositiveFloat = ranges.PositiveFloat
    NonNegativeFloat = ranges.NonNegativeFloat
    Share = ranges.ClosedUnitInterval
    OpenShare = ranges.OpenUnitInterval
    Momentum = ranges.restricted_number_type("FloatFrom0Below1", float, [(">=", 0), ("<", 1)])
    OverOne = ranges.restricted_number_type("FloatAbove1", float, (">", 1))

RANGE_WORDS: dict[type, str] = {
    PositiveInt: "a whole number above 0",
    NonNegativeInt: "a whole number of at least 0",
    PositiveFloat: "a number above 0",
    NonNegativeFloat: "a number of at least 0",
    Share: "a number from 0 to 1",
    OpenShare: "a number between 0 and 1, both excluded",
    Momentum: "a number from 0 to 1, 1 excluded",
    OverOne: "a number above 1",
}


def check_ranges(built: type, values: Mapping[str, Any], section: str | None = None) -> None:
    """Check values against the ranges that the constructors of a class and of its bases declare.

    Args:
        built: class whose ``__init__`` (or a base's) declares the parameters.
        values: by the name of the parameter; those without a range, and None, are left alone.
        section: of the command line that holds the options: ``model`` or ``data``.

    Raises:
        InputError: for a value outside its range, naming the parameter.
    """
    for cls in built.__mro__:
        if not cls.__module__.startswith(("lightning.", "torch.", "builtins")) and "__init__" in vars(cls):
            for name, hint in get_type_hints(vars(cls)["__init__"]).items():
                for number in {hint, *get_args(hint)} & RANGE_WORDS.keys():
                    _check(number, name, values.get(name), section)


def plain_numbers(value: Any) -> Any:
    """Return a value, or nested lists, tuples and mappings, with plain ``int`` and ``float`` as numbers.

    The parser's numbers are instances of the types above, which a checkpoint could not be read with.
    """
    if isinstance(value, Mapping):
        return {key: plain_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        plain = [plain_numbers(inner) for inner in value]
        return tuple(plain) if isinstance(value, tuple) else plain
    for kind in (float, int):
        if isinstance(value, kind) and not isinstance(value, bool):
            return kind(value)
    return value


def _check(number: type, name: str, value: Any, section: str | None) -> None:
    if value is None or isinstance(value, str | dict):
        return
    if isinstance(value, list | tuple):
        for each in value:
            _check(number, name, each, section)
        return
    try:
        number(value)
    except (TypeError, ValueError) as error:
        option = f"{section}.{name}" if section else None
        raise InputError(f"{name} is {value!r}; it must be {RANGE_WORDS[number]}", option=option) from error
