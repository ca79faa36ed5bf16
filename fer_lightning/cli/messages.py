"""Errors of the command line in one line: the option, what it must be, the nearest name."""

import ast
import importlib
import inspect
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from difflib import SequenceMatcher

from fer_lightning.ranges import RANGE_WORDS

_KINDS = {
    "model": ("method", "fer_lightning.methods.base.SemiSupervised"),
    "data.dataset": ("data set", "fer_lightning.data.datasets.base.FaceDataset"),
    "dataset": ("data set", "fer_lightning.data.datasets.base.FaceDataset"),
}
"""Noun and base class of the options whose classes are named here."""
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "dict": "a mapping",
    "list": "a list",
}
_RANGES = {kind.__name__: words for kind, words in RANGE_WORDS.items()}
_TOP = (
    *("config", "print_config", "help_all", "seed_everything", "ckpt_path"),
    *("model", "model.help", "data.dataset", "data.dataset.help"),
)
_KEY = r'Parser key "([^"]+)"'
_CLASS = r"Problem with given class_path '([^']+)'"
_UNKNOWN_CLASS = (
    r"Expected a dot import path string: (\S+)",
    r"has no attribute '([^']+)'\s*$",
    r"No module named '([^']+)'",
)
_UNKNOWN_OPTION = (
    r"unrecognized arguments:.*?--([^\s=]+)",
    r"does not accept option '([^']+)'",
    r"Option '([^']+)' is not accepted",
)
_VALUES = (
    r"Not of type \w+: (\S.*?) does not conform",
    r"Got value: (.+)",
    r"(?:literal|string)\b.*: '(.*)'$",
    r"Given value: (?!NestedArg|\{)(.+)",
)


def explain(message: str, words: Sequence[str]) -> str:
    """Return what jsonargparse reports over several lines as one line that names the option, and a tip.

    A message of an unknown form is returned on one line as it is.

    Args:
        message: of the parser's ``ArgumentError``.
        words: the command line, verb first.
    """
    key = ".".join(_own(found, words) for found in re.findall(_KEY, message))
    classes = re.findall(_CLASS, message)
    if name := _first(_UNKNOWN_OPTION, message):
        return _unknown_option(".".join(filter(None, (key, name))), classes[-1:], words)
    if missing := re.search(r"arguments are required: (.+)", message):
        return _missing(key, missing[1].split(", "), words)
    if choice := re.search(r"invalid choice: '([^']*)' \(choose from (.+)\)", message):
        choices = [each.strip("'\" ") for each in choice[2].split(",")]
        return f"no {choice[1]!r} here; {_meant(choice[1], choices, 'there are')}"
    if "arguments: " in message:
        return f"{message.partition('arguments: ')[2]}: not understood{_tip(words)}"
    if name := _first(_UNKNOWN_CLASS, message):
        return _unknown_class(key, classes[-1] if classes else name, message, words)
    return _refused(key, message, words)


def parameters(cls: type) -> Iterator[str]:
    """Yield the parameters that a class is built from, with those of the bases that it forwards to."""
    for each in cls.__mro__:
        if "__init__" in vars(each):
            signature = inspect.signature(vars(each)["__init__"]).parameters.values()
            named = [p.name for p in signature if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
            yield from (name for name in named if name != "self")
            if all(p.kind != p.VAR_KEYWORD for p in signature):
                return


def nearest(word: str, names: Iterable[str]) -> str | None:
    """Return the name that is most like a word, compared whole or from its last dot on, None if none is."""

    def likeness(name: str) -> float:
        last = SequenceMatcher(None, _last(word), _last(name)).ratio()
        return max(SequenceMatcher(None, word.lower(), name.lower()).ratio(), 0.95 * last)

    best = max(names, key=likeness, default="")
    return best if best and likeness(best) >= 0.7 else None


def _unknown_option(option: str, built: Sequence[str], words: Sequence[str]) -> str:
    section, _, name = option.rpartition(".")
    if name == "class_path":
        return f"--{section}: the options beside class_path belong into init_args"
    if built and (cls := _load(built[0])):
        names = [f"{section}.{name}" for name in parameters(cls)]
        where, tip = f" of {cls.__name__}", f"\ntip: fer-lightning {words[0]} --{section}.help {cls.__name__}"
    else:
        names, where, tip = list(_options(words)), "", _tip(words)
    near = nearest(option, names)
    return f"no option --{option}{where}" + (f"; did you mean --{near}?" if near else "") + tip


def _missing(key: str, names: Iterable[str], words: Sequence[str]) -> str:
    dashes = "--" if words[0] in ("fit", "validate", "test", "predict", "splits") else ""
    options = [f"{dashes}{'.'.join(filter(None, (key, _own(name, words))))}" for name in names]
    return f"{' and '.join(options)} {'is' if len(options) == 1 else 'are'} missing{_tip(words)}"


def _unknown_class(key: str, name: str, message: str, words: Sequence[str]) -> str:
    noun, base = _KINDS.get(key, ("class", ""))
    bases = [base] if base else re.findall(r"class '([\w.]+)'", message)
    known = {each.__name__ for path in bases if (cls := _load(path)) for each in _subclasses(cls)}
    return f"no {noun} {name!r} for --{key}; {_meant(name, sorted(known), 'there are')}"


def _refused(key: str, message: str, words: Sequence[str]) -> str:
    lines = _innermost(message)
    wanted = list(dict.fromkeys(each for line in lines if (each := _wanted(line))))
    value = _first(_VALUES, "\n".join(lines))
    if key and wanted and value is not None:
        return f"--{key} must be {' or '.join(wanted)}, not {value}"
    text = " ".join(re.sub(_KEY + ":?", "", message).split())
    return f"--{key}: {text}" if key else text


def _innermost(message: str) -> list[str]:
    """Return the lines that belong to the last key of a message: those that are indented below it."""
    lines = message.splitlines()
    keys = [number for number, line in enumerate(lines) if re.search(_KEY, line)]
    if not keys:
        return lines
    start, depth = keys[-1], _depth(lines[keys[-1]])
    inner = [re.split(_KEY + ":?", lines[start])[-1]]
    for line in lines[start + 1 :]:
        if line.strip() and _depth(line) <= depth:
            break
        inner.append(line)
    return [line.strip().removeprefix("- ") for line in inner if line.strip()]


def _wanted(line: str) -> str | None:
    """Return in words what a line of a message would accept, None if it is about something else."""
    if found := re.match(r"Not of type (\w+)", line):
        return _RANGES.get(found[1], found[1])
    if found := re.match(r"Expected a typing\.Literal(\[.*?\])", line):
        choices = [str(each) for each in ast.literal_eval(found[1])]
        return ", ".join(choices[:-1]) + f" or {choices[-1]}" if len(choices) > 1 else choices[0]
    if found := re.match(r"Expected a <class '([\w.]+)'>", line):
        return _TYPES.get(found[1])
    if found := re.match(r"Expected (a \w+ with \d+ elements)", line):
        return found[1]
    return None


def _options(words: Sequence[str]) -> Iterator[str]:
    """Yield the options of a verb."""
    if words[0] == "splits":
        from fer_lightning.cli.splits import COMMANDS
        from fer_lightning.data.splits import SplitRequest

        for command in COMMANDS.values():
            yield from (name for name in inspect.signature(command).parameters if name != "request")
        yield from parameters(SplitRequest)
        return
    if words[0] not in ("fit", "validate", "test", "predict"):
        return
    yield from _TOP
    for section, path in (
        ("trainer", "lightning.pytorch.trainer.trainer.Trainer"),
        ("data", "fer_lightning.data.datamodule.SemiSupervisedFaces"),
        *((option, _KINDS[option][1]) for option in ("model", "data.dataset")),
    ):
        for cls in ((base := _load(path)) and (base, *_subclasses(base))) or ():
            yield from (f"{section}.{name}" for name in parameters(cls))


def _meant(name: str, known: Collection[str], otherwise: str) -> str:
    near = nearest(name, known)
    return f"did you mean {near}?" if near else f"{otherwise} {', '.join(known) or 'none'}"


def _subclasses(cls: type) -> Iterator[type]:
    each: type
    for each in cls.__subclasses__():
        if not inspect.isabstract(each) and not each.__name__.startswith("_"):
            yield each
        yield from _subclasses(each)


def _load(path: str) -> type | None:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return None
    return found if isinstance(found, type) else None


def _own(key: str, words: Sequence[str]) -> str:
    """Return a key without the verbs that jsonargparse puts before it."""
    first, dot, rest = key.partition(".")
    return _own(rest, words) if dot and first in words else key


def _first(patterns: Iterable[str], message: str) -> str | None:
    found = (re.search(pattern, message, re.MULTILINE) for pattern in patterns)
    return next((each[1] for each in found if each), None)


def _last(name: str) -> str:
    return name.lower().rpartition(".")[2]


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _tip(words: Sequence[str]) -> str:
    verb = " ".join(words[:2]) if words[0] == "splits" else words[0]
    return f"\ntip: fer-lightning {verb} --help lists the options"
