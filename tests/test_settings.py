"""Settings: four sources and the defaults, every declared one from each, and what is said of a wrong one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpisgd.command_line import training_values
from mpisgd.config import PRESETS, Config, Declaration, declarations
from mpisgd.errors import UsageError
from mpisgd.settings import resolve, to_toml
from strategies import examples

DECLARED = declarations()


def from_command_line(*arguments: str) -> Config:
    return resolve(training_values(arguments), {})


def from_file(path: Path, text: str) -> Config:
    path.write_text(text, encoding="utf-8")
    return resolve({"config": str(path)}, {})


def message_of(call: Callable[[], object]) -> str:
    with pytest.raises(UsageError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def option(name: str) -> str:
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    return "MPISGD_" + name.upper()


# --- the sources


def test_without_sources_all_is_as_declared() -> None:
    assert resolve({}, {}) == Config()


def test_the_strongest_source_that_names_a_setting_wins(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("batch_size = 4\nmerge = 'sum'")
    named = {"preset": "paper"}
    assert resolve({}, {}).batch_size == 8
    assert resolve(named, {}).batch_size == 128
    named |= {"config": str(file)}
    assert resolve(named, {}).batch_size == 4
    environment = {"MPISGD_BATCH_SIZE": "3"}
    assert resolve(named, environment).batch_size == 3
    config = resolve({**named, "batch_size": "2"}, environment)
    assert (config.batch_size, config.merge, config.sharding) == (2, "sum", "sample")


def test_config_and_preset_may_be_named_by_the_environment(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("seed = 5")
    config = resolve({}, {"MPISGD_CONFIG": str(tmp_path / "run.toml"), "MPISGD_PRESET": "paper"})
    assert (config.seed, config.batch_size) == (5, 128)


def test_a_weaker_source_is_checked_as_well() -> None:
    message = message_of(lambda: resolve({"seed": "1"}, {"MPISGD_SEED": "many"}))
    assert message.startswith("environment: MPISGD_SEED: found 'many', expected an integer")


def test_the_paper_preset_gives_its_values() -> None:
    config = from_command_line("--preset=paper")
    assert {name: getattr(config, name) for name in PRESETS["paper"]} == PRESETS["paper"]
    assert from_command_line("--preset=paper", "--passes=3").passes == 3


def test_an_unknown_preset_is_told_with_the_nearest() -> None:
    message = message_of(lambda: from_command_line("--preset=papers"))
    assert "papers" in message
    assert "did you mean 'paper'" in message


def test_the_services_of_kubernetes_are_not_settings() -> None:
    links = {
        "MPISGD_SERVICE_HOST": "10.0.0.1",
        "MPISGD_SERVICE_PORT": "80",
        "MPISGD_PORT": "tcp://10.0.0.1:80",
        "MPISGD_PORT_80_TCP_ADDR": "10.0.0.1",
        "MPISGD_WORKER_SERVICE_PORT_SSH": "22",
        "PATH": "/bin",
    }
    assert resolve({}, links) == Config()


def test_no_rule_to_stop_by_is_refused() -> None:
    rules = ["passes", "max_seconds", "target_accuracy", "patience"]
    assert [rule in message_of(lambda: from_command_line("--passes=none", "--patience=none")) for rule in rules] == [
        True
    ] * 4
    assert from_command_line("--passes=none", "--patience=none", "--max-seconds=5").max_seconds == 5


def test_a_bound_on_staleness_is_refused_in_lock_step(tmp_path: Path) -> None:
    """Wherever the two come from, and whichever of them is the default."""
    expected = "max_staleness: found 3 with mode sync, expected mode async or none"
    for mode in ([], ["--mode=sync"]):
        assert message_of(lambda mode=mode: from_command_line("--max-staleness=3", *mode)) == expected
    assert message_of(lambda: resolve({}, {"MPISGD_MAX_STALENESS": "3"})) == expected
    assert message_of(lambda: from_file(tmp_path / "run.toml", "max_staleness = 3")) == expected
    assert from_command_line("--max-staleness=none").max_staleness is None
    assert from_command_line("--max-staleness=0", "--mode=async").max_staleness == 0


# --- every setting, from each source


def texts() -> st.SearchStrategy[str]:
    """Any text that an environment can hold, but for the word that means unset."""
    characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    return st.text(characters, max_size=12).filter(lambda text: text.lower() != "none")


def values_of(declared: Declaration) -> st.SearchStrategy[Any]:
    """Return every value that the declaration allows."""
    if declared.choices:
        return st.sampled_from(declared.choices)
    kinds = get_args(declared.kind) or (declared.kind,)
    low = declared.bounds.get("ge", declared.bounds.get("gt"))
    high = declared.bounds.get("le", declared.bounds.get("lt"))
    made: dict[type, Callable[[], st.SearchStrategy[Any]]] = {
        bool: st.booleans,
        str: texts,
        int: lambda: st.integers(None if low is None else int(low), None if high is None else int(high)),
        float: lambda: st.floats(
            low,
            high,
            exclude_min="gt" in declared.bounds,
            exclude_max="lt" in declared.bounds,
            allow_nan=False,
            allow_infinity=False,
        ),
    }
    values = made[kinds[0]]()
    return st.none() | values if declared.optional else values


configs = st.builds(Config, **{name: values_of(declared) for name, declared in DECLARED.items()}).filter(
    lambda config: (
        not (config.passes is config.max_seconds is config.target_accuracy is config.patience is None)
        and (config.mode == "async" or config.max_staleness is None)
    )
)
some_configs = settings(max_examples=20, deadline=None, phases=examples.phases)


def text_of(value: Any) -> str:
    return "none" if value is None else str(value)


@some_configs
@given(configs)
def test_every_setting_comes_back_from_toml(config: Config) -> None:
    with tempfile.TemporaryDirectory() as directory:
        assert from_file(Path(directory) / "run.toml", to_toml(config)) == config


@some_configs
@given(configs)
def test_every_setting_comes_from_the_environment(config: Config) -> None:
    environment = {variable(name): text_of(getattr(config, name)) for name in DECLARED}
    assert resolve({}, environment) == config


@some_configs
@given(configs)
def test_every_setting_comes_from_the_command_line(config: Config) -> None:
    arguments = []
    for name in DECLARED:
        value = getattr(config, name)
        if isinstance(value, bool):
            arguments.append(option(name) if value else option("no_" + name))
        else:
            arguments.append(f"{option(name)}={text_of(value)}")
    assert from_command_line(*arguments) == config


@some_configs
@given(configs)
def test_every_setting_travels_to_the_workers(config: Config) -> None:
    assert Config.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("learning_rate", ".5", 0.5),
        ("passes", " 20. ", 20.0),
        ("batch_size", "+3", 3),
        ("batch_size", "1_000", 1000),
        ("batch_size", "1e3", 1000),
        ("bias", "Off", False),
        ("force", "yes", True),
        ("data", "1", "1"),
    ],
)
def test_texts_are_read_as_users_write_them(name: str, text: str, value: object) -> None:
    assert getattr(resolve({}, {variable(name): text}), name) == value


@pytest.mark.parametrize("name", [name for name, declared in DECLARED.items() if declared.optional])
def test_none_unsets_what_is_optional(name: str) -> None:
    assert getattr(resolve({name: "None", "max_seconds" if name == "passes" else "passes": "1"}, {}), name) is None


@pytest.mark.parametrize("name", [n for n, d in DECLARED.items() if not d.optional and d.kind is not str])
def test_none_is_refused_where_a_value_is_needed(name: str) -> None:
    assert variable(name) in message_of(lambda: resolve({}, {variable(name): "none"}))


# --- what is said of wrong ones


def wrong_values() -> list[tuple[str, str]]:
    """Return (setting, text) just out of each declared bound, and of the wrong kind."""
    outside = {"ge": -1, "gt": 0, "le": 1, "lt": 0}
    cases = []
    for name, declared in DECLARED.items():
        cases += [(name, str(limit + outside[word])) for word, limit in declared.bounds.items()]
        kinds = get_args(declared.kind) or (declared.kind,)
        if str not in kinds:
            cases.append((name, "x"))
        if float in kinds:
            cases += [(name, "nan"), (name, "inf")]
        if int in kinds:
            cases.append((name, "1.5"))
    return cases


@pytest.mark.parametrize(("name", "text"), wrong_values())
def test_wrong_values_are_told_with_source_found_and_expected(name: str, text: str) -> None:
    message = message_of(lambda: resolve({}, {variable(name): text}))
    assert message == f"environment: {variable(name)}: found {text!r}, expected {DECLARED[name].expected}"


def test_what_is_expected_is_said_in_words() -> None:
    assert DECLARED["batch_size"].expected == "an integer, at least 1"
    assert DECLARED["target_accuracy"].expected == "a number, above 0, at most 1, or none"
    assert DECLARED["mode"].expected == "sync or async"


def test_each_source_is_named_as_the_user_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    assert message_of(lambda: from_command_line("--batch-size=0")).startswith("command line: --batch-size: found '0'")
    assert message_of(lambda: from_file(path, "batch_size = 0")).startswith(f"{path}: batch_size: found 0")


def test_unknown_names_suggest_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    on_the_command_line = message_of(lambda: from_command_line("--lerning-rate=1"))
    assert "--lerning-rate" in on_the_command_line
    assert "did you mean '--learning-rate'?" in on_the_command_line
    in_the_environment = message_of(lambda: resolve({}, {"MPISGD_LERNING_RATE": "1"}))
    assert "MPISGD_LERNING_RATE" in in_the_environment
    assert "did you mean 'MPISGD_LEARNING_RATE'?" in in_the_environment
    in_the_file = message_of(lambda: from_file(path, "lerning_rate = 1"))
    assert in_the_file == f"{path}: lerning_rate: unknown setting (did you mean 'learning_rate'?)"


def test_options_are_not_guessed_from_their_beginning() -> None:
    assert "--batch" in message_of(lambda: from_command_line("--batch=3"))


@pytest.mark.parametrize("line", ["batch_size = true", "passes = true", "learning_rate = false"])
def test_true_and_false_are_not_numbers(tmp_path: Path, line: str) -> None:
    assert line.split(maxsplit=1)[0] in message_of(lambda: from_file(tmp_path / "run.toml", line))


def test_a_config_file_may_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / "run{1}{name}.toml"
    assert from_file(path, "seed = 5").seed == 5
    assert message_of(lambda: from_file(path, "seed = -5")).startswith(f"{path}: seed: found -5")


def test_config_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    assert message_of(lambda: resolve({"config": str(path)}, {})).startswith(f"{path}: cannot read the config file")
    assert message_of(lambda: resolve({"config": str(tmp_path)}, {})).startswith(f"{tmp_path}: cannot read")
    assert message_of(lambda: from_file(path, "seed = ")).startswith(f"{path}: not a TOML file")
    path.write_bytes(b"seed = '\xff'")
    assert message_of(lambda: resolve({"config": str(path)}, {})).startswith(f"{path}: not a TOML file")
