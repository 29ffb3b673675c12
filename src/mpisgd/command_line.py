"""The command line: one parser a command; training's options are the settings, declared in `config.py`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from mpisgd import __version__
from mpisgd.config import PRESETS, Declaration, declarations
from mpisgd.errors import UsageError
from mpisgd.settings import suggest

COMMANDS = ("train", "prepare", "evaluate", "predict", "info")
SPLITS_HELP = "which split of an HDF5 file; svmlight text is one split"


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, through the project's own errors, and never by abbreviation."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(f"command line: {message}")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse, naming the nearest option for one that is not known."""
        namespace, unknown = self.parse_known_args(arguments)
        if unknown:
            options = [option for action in self._actions for option in action.option_strings]
            raise UsageError(f"command line: {unknown[0]}: unknown option{suggest(unknown[0], options)}")
        return namespace


def split_command(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Return the command and its arguments; no command, or options first, means train."""
    if not arguments or arguments[0].startswith("-"):
        return "train", list(arguments)
    command, *rest = arguments
    if command not in COMMANDS:
        raise UsageError(
            f"command line: found command '{command}', expected {', '.join(COMMANDS)}{suggest(command, COMMANDS)}"
        )
    return command, rest


def training_values(arguments: Sequence[str]) -> dict[str, str | bool]:
    """Return what the user typed for training: raw values by setting name."""
    return vars(training_parser().parse(arguments))


def training_parser() -> Parser:
    """Return the parser of the train command, every setting an option."""
    parser = Parser(
        prog="mpirun -n RANKS python -m mpisgd",
        usage="mpirun -n RANKS python -m mpisgd [train] [--data FILE] [options]\n"
        "       mpisgd {prepare,evaluate,predict,info} --help",
        description="Train a linear classifier on sparse rows: rank 0 serves the weights, the other ranks learn.",
        epilog="Every setting can also stand in the TOML file, under the option's name with '_' for '-', and in the"
        " environment as MPISGD_NAME; the command line wins over the environment, that over the file,"
        " that over the preset.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--version", action="version", version=f"mpisgd {__version__}")
    parser.add_argument("--config", metavar="FILE", help="TOML file of settings")
    parser.add_argument("--preset", metavar="NAME", help=f"a named set of settings: {', '.join(PRESETS)}")
    for declared in declarations().values():
        _add_setting(parser, declared)
    return parser


def _add_setting(parser: Parser, declared: Declaration) -> None:
    option = "--" + declared.name.replace("_", "-")
    default = "none" if declared.default is None else str(declared.default).lower()
    if declared.kind is bool:
        help_text = f"{declared.meaning} (default {default})"
        parser.add_argument(option, action=argparse.BooleanOptionalAction, help=help_text)
        return
    unit = f" {declared.unit}" if declared.unit else ""
    help_text = f"{declared.meaning} ({declared.expected}; default {default}{unit})".replace("%", "%%")
    metavar = "{" + ",".join(declared.choices) + "}" if declared.choices else declared.name.split("_")[-1].upper()
    parser.add_argument(option, metavar=metavar, help=help_text)


def prepare_parser() -> Parser:
    """Return the parser of `mpisgd prepare`."""
    parser = Parser(prog="mpisgd prepare", description="Turn svmlight text into one checked HDF5 file.")
    parser.add_argument("train", metavar="TRAIN", help="svmlight text, plain, .gz or .bz2")
    parser.add_argument("--test", metavar="TEST", help="the same for the test rows")
    parser.add_argument("--out", metavar="FILE.h5", required=True, help="the file to write")
    parser.add_argument("--force", action="store_true", help="overwrite it")
    return parser


def evaluate_parser() -> Parser:
    """Return the parser of `mpisgd evaluate`."""
    parser = Parser(prog="mpisgd evaluate", description="Score a model on labelled rows.")
    _add_model_and_data(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def predict_parser() -> Parser:
    """Return the parser of `mpisgd predict`."""
    parser = Parser(prog="mpisgd predict", description="Write the predicted label of every row, one a line.")
    _add_model_and_data(parser)
    parser.add_argument("--out", metavar="FILE", required=True, help="the file to write")
    parser.add_argument("--margins", action="store_true", help="write x.w + bias instead of labels")
    parser.add_argument("--force", action="store_true", help="overwrite it")
    return parser


def info_parser() -> Parser:
    """Return the parser of `mpisgd info`."""
    parser = Parser(prog="mpisgd info", description="Say what is in a data set or a model.")
    parser.add_argument("file", metavar="FILE", help="a data set (HDF5 or svmlight text) or a model")
    return parser


def _add_model_and_data(parser: Parser) -> None:
    parser.add_argument("model", metavar="MODEL", help="model.h5 of a run")
    parser.add_argument("data", metavar="DATA", help="HDF5 made by 'mpisgd prepare', or svmlight text")
    parser.add_argument("--split", default="test", help=f"{SPLITS_HELP} (default test)")
