"""A run's config, read back: as a recipe's arguments, and as a command line."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from jaxmeta import checks
from jaxmeta.cli.options import Options
from jaxmeta.cli.run import read_config

# beside --resume
MAY_CHANGE = (
    *("resume", "steps", "progress", "no-progress", "tensorboard", "no-tensorboard"),
    *("devices", "distributed"),
)


def parts(config: dict[str, Any]) -> dict[str, Any]:
    """What `recipes.make` takes. Raises: ValueError for a config of another form."""
    known = {f.name for f in fields(Options)}
    try:
        for name in ("options", "arguments"):
            if not isinstance(config[name], dict):
                raise ValueError(
                    f"config.toml: {name}: expected a table, got {config[name]!r}"
                )
        options = dict(config["options"])
        if unknown := set(options) - known:
            raise ValueError(f"config.toml has unknown options: {sorted(unknown)}")
        if options.get("root") is not None:
            checks.check_names(root=options["root"])
            options["root"] = Path(options["root"])
        return {
            "name": config["learner"],
            "arguments": config["arguments"],
            "options": Options(**options),
        }
    except KeyError as error:
        raise ValueError(f"config.toml lacks {error}; is it a jaxmeta run?") from error


def spelled(argv: list[str]) -> list[str]:
    """A command line with `--config FILE` replaced by the flags in that file.

    What is given beside it comes later, and so wins.
    Raises: ValueError for a config of another form, or another learner than is given.
    """
    words = [part for word in argv for part in _split(word)]
    if words[:1] != ["train"] or "--config" not in words[:-1]:
        return argv
    at = words.index("--config")
    config = read_config(Path(words[at + 1]))
    parts(config)
    rest = words[1:at] + words[at + 2 :]
    named = rest[:1] if rest and not rest[0].startswith("-") else []
    if named and named != [config["learner"]]:
        raise ValueError(
            f"config: {words[at + 1]} is of {config['learner']}; expected that learner, "
            f"or none, got {named[0]}"
        )
    tables = config["options"] | config["arguments"]
    flags = [word for name, value in tables.items() for word in _flag(name, value)]
    return ["train", str(config["learner"]), *flags, *rest[len(named) :]]


def extended(config: dict[str, Any], steps: int) -> dict[str, Any]:
    """The config of a run that goes on to another number of steps."""
    parts(config)
    return config | {"options": config["options"] | {"steps": steps}}


def check_resumed(argv: list[str], config: dict[str, Any]) -> None:
    """Raise ValueError for a flag that says something else beside --resume."""
    words = [word for given in argv[1:] for word in _split(given)]
    flags = [word[2:] for word in words if word.startswith("--")]
    for flag in flags:
        if flag.replace("_", "-") not in MAY_CHANGE:
            raise ValueError(
                f"{flag}: a run goes on with its own config, where only --steps can be "
                "another number; leave it out, or begin another run with --config"
            )
    learner = words[0] if words and not words[0].startswith("-") else None
    if learner is not None and learner != config.get("learner"):
        raise ValueError(
            f"{learner}: the run is of {config.get('learner')}; leave the name out"
        )


def _split(word: str) -> list[str]:
    """A word of a command line, --name=value in two."""
    return word.split("=", 1) if word.startswith("--") else [word]


def _flag(name: str, value: Any) -> list[str]:
    """The words that give an option its value."""
    flag = name.replace("_", "-")
    field = Options.__dataclass_fields__.get(name)
    if field is not None and field.type is bool:
        return [f"--{flag}" if value else f"--no-{flag}"]
    values = value if isinstance(value, list) else [value]
    return [f"--{flag}", *map(str, values)]
