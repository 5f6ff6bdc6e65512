"""Parameters on their way from presets and `--set` to the steps' own, checked configurations."""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from components.ncf.errors import InputError
from components.ncf.manifest import read_manifest
from pipelines.places import PLACES
from pipelines.presets import DEFAULTS, PRESETS, SHARED, Parameters


def resolve_parameters(preset: str, overrides: Iterable[str]) -> Parameters:
    """Returns every parameter of every step. Relative paths become absolute.

    Args:
        preset: A preset's name.
        overrides: Texts of the form "step.parameter=value"; later ones win.

    Raises:
        InputError: A name is unknown or a value has the wrong type.
    """
    if preset not in PRESETS:
        raise InputError(f"The preset {preset!r} is unknown{_nearest(preset, PRESETS)}; `neumf presets` lists them.")
    parameters = PRESETS[preset].parameters()
    for override in overrides:
        key, separator, text = override.partition("=")
        step, dot, name = key.strip().partition(".")
        if not (separator and dot):
            raise InputError(f"--set {override!r} is not of the form step.parameter=value, as train.num_epochs=5.")
        if step not in parameters:
            raise InputError(f"--set {override!r} names no step: use one of {', '.join(parameters)}.")
        if name not in parameters[step]:
            raise InputError(
                f"--set {override!r}: {step} has no parameter {name!r}{_nearest(name, parameters[step])}; it has "
                f"{', '.join(parameters[step])}."
            )
        parameters[step][name] = _parse(f"{step}.{name}", text.strip(), parameters[step][name])
    chosen, preset_values = parameters["generate"], PRESETS[preset].parameters()["generate"]
    is_preset = {name: chosen[name] == preset_values[name] for name in ("beam_runner", "beam_options")}
    if is_preset["beam_options"] and not is_preset["beam_runner"]:
        # The preset's options are those of the preset's runner.
        chosen["beam_options"] = []
    _complete_paths(parameters)
    return parameters


def check_parameters(parameters: Mapping[str, Mapping[str, Any]]) -> None:
    """Builds every step's configuration, so that a mistake is found before the first step runs.

    Raises:
        InputError: A value is out of range; the first, if several are.
    """
    for mistake in parameter_mistakes(parameters):
        raise InputError(mistake)


def parameter_mistakes(parameters: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yields a sentence for each value that is out of range, or that does not fit another step's."""
    for step, values in parameters.items():
        yield from _step_mistakes(step, {**values, **_shared(step, parameters)})
    available = {*parameters["generate"]["protocols"], "fixed", "loo-full"}
    yield from _gate_mistakes(parameters, available)
    place = parameters["train"]["checkpoint_dir"]
    if "://" in place:
        yield f"train.checkpoint_dir {place} is no folder: name a mounted one, such as /gcs/BUCKET/FOLDER on Vertex AI."
    missing = [name for name in parameters["evaluate"]["protocols"] if name not in available]
    if missing:
        yield (
            f"evaluate.protocols names {', '.join(missing)}, which generate.protocols "
            f"{parameters['generate']['protocols']} lacks: add it there."
        )


def type_mistakes(parameters: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yields a sentence for each value that is missing or of another type than its step's."""
    from pipelines.neumf import COMPONENTS, step_parameters

    for step in COMPONENTS:
        for name, kind in step_parameters(step).items():
            value = parameters.get(step, {}).get(name)
            if value is None:
                yield f"{step}.{name} has no value: set it to a {name_of_type(kind)}."
            elif not is_of_type(value, kind):
                yield f"{step}.{name} is {value!r}: it must be a {name_of_type(kind)}."


def is_of_type(value: Any, kind: Any) -> bool:
    """Whether a parameter may have a value; a whole number is a number, and true is none."""
    origin = getattr(kind, "__origin__", kind)
    if origin is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if not isinstance(value, origin):
        return False
    return all(is_of_type(element, inner) for inner in getattr(kind, "__args__", ()) for element in value)


def name_of_type(kind: Any) -> str:
    """Returns what people call a parameter's type."""
    if getattr(kind, "__args__", None):
        return f"list of {kind.__args__[0].__name__}"
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}.get(kind, str(kind.__name__))


def _step_mistakes(step: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Yields one mistake after another: a configuration stops at its first, which is mended to ask again."""
    mended: Mapping[str, Any] | None = values
    while mended is not None and (mistake := _step_mistake(step, mended)) is not None:
        yield mistake
        mended = _mended(step, mended, mistake)


def _mended(step: str, values: Mapping[str, Any], mistake: str) -> Mapping[str, Any] | None:
    """Returns the values with the default of the one that a mistake is about; None if no single default mends it."""
    defaults = {**DEFAULTS[step], **_shared(step, DEFAULTS)}
    changed = [name for name in values if values[name] != defaults[name]]
    for name in sorted(changed, key=lambda name: name not in mistake):
        mended = {**values, name: defaults[name]}
        left = _step_mistake(step, mended)
        # What is still about this name is the same mistake in other words.
        if left is None or (left != mistake and name not in left):
            return mended
    return None


def _step_mistake(step: str, values: Mapping[str, Any]) -> str | None:
    try:
        step_config(step, values)
    except InputError as mistake:
        return str(mistake)
    return None


def _gate_mistakes(parameters: Mapping[str, Mapping[str, Any]], available: set[str]) -> Iterator[str]:
    """Finds before hours of training what the gate would find after them."""
    from components.gate.config import cutoff_mistake
    from components.generate.protocols import SAMPLED_PROTOCOLS

    gate = parameters["gate"]
    evaluated = set(parameters["evaluate"]["protocols"]) or available
    if gate["protocol"] and gate["protocol"] not in evaluated:
        yield (
            f"gate.protocol {gate['protocol']!r} is not evaluated, only {', '.join(sorted(evaluated))}: name one of "
            "them."
        )
    in_order = [gate["protocol"], *parameters["evaluate"]["protocols"], *parameters["generate"]["protocols"]]
    decides = next(filter(None, in_order), "")
    if decides in SAMPLED_PROTOCOLS:
        mistake = cutoff_mistake(gate["metric"], decides, SAMPLED_PROTOCOLS[decides].num_candidates)
        yield from [mistake] if mistake is not None else []
    unknown = [name for name in gate["must_beat"] if name not in ("popularity", "als")]
    if unknown:
        yield f"gate.must_beat names {unknown[0]!r}: the baselines are popularity and als."


def check_champion(parameters: Mapping[str, Mapping[str, Any]]) -> None:
    """Finds before hours of training what evaluate would say of a champion after them; for runs on this machine.

    Raises:
        InputError: It is no model, or was selected by another item.
    """
    champion = parameters["evaluate"]["champion"]
    if champion and "://" not in champion:
        selection = read_manifest(Path(champion), "model")["model_selection"]
        if selection != parameters["train"]["model_selection"]:
            raise InputError(
                f"The champion {champion} was selected by {selection!r} and train.model_selection is "
                f"{parameters['train']['model_selection']!r}: they could not be compared, set it to the champion's."
            )


def _shared(step: str, parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {name: parameters[source][of] for (to, name), (source, of) in SHARED.items() if to == step}


def step_config(step: str, values: Mapping[str, Any]) -> Any:
    """Returns a step's frozen configuration.

    Args:
        step: The step's name.
        values: Its parameters; "checkpoint_dir" is a place and no part of the configuration.

    Raises:
        InputError: A value is out of range.
    """
    from components.baseline.config import BaselineConfig
    from components.download.config import DownloadConfig
    from components.evaluate.config import EvaluateConfig
    from components.gate.config import GateConfig
    from components.generate.config import GenerateConfig
    from components.publish.config import PublishConfig
    from components.recommend.config import RecommendConfig
    from components.train.config import TrainConfig

    config = {
        "download": DownloadConfig,
        "generate": GenerateConfig,
        "train": TrainConfig,
        "baseline": BaselineConfig,
        "evaluate": EvaluateConfig,
        "gate": GateConfig,
        "recommend": RecommendConfig,
        "publish": PublishConfig,
    }[step]
    as_tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    as_tuples.pop("checkpoint_dir", None)
    return config(**as_tuples)


def _complete_paths(parameters: Parameters) -> None:
    """A step may run in another working directory, and what repeats a run is started from any."""
    download = parameters["download"]
    kind, separator, place = download["dataset"].partition(":")
    if kind in ("csv", "ncf"):
        download["dataset"] = f"{kind}{separator}{_absolute(place)}"
    for step, name in PLACES:
        if (step, name) != ("download", "mirror"):  # always a URI
            parameters[step][name] = _absolute(parameters[step][name])


def _absolute(place: str) -> str:
    return place if "://" in place or not place else str(Path(place).expanduser().absolute())


def _parse(name: str, text: str, current: Any) -> Any:
    if isinstance(current, str):
        return text
    if isinstance(current, list):
        return _parse_list(name, text, current)
    if isinstance(current, bool):
        if text.lower() not in ("true", "false"):
            raise InputError(f"--set {name}={text}: {text!r} is neither true nor false.")
        return text.lower() == "true"
    kind = type(current)
    try:
        return kind(text)
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        raise InputError(f"--set {name}={text}: {text!r} is not {expected}, such as {current}.") from None


def _parse_list(name: str, text: str, current: list[Any]) -> list[Any]:
    try:
        values = (
            json.loads(text) if text.startswith("[") else [part.strip() for part in text.split(",") if part.strip()]
        )
        if any(isinstance(value, float) for value in current) or name.endswith("regularization"):
            return [float(value) for value in values]
        if name.endswith(("protocols", "options", "users", "must_beat", "aliases")):
            return [str(value) for value in values]
        if any(isinstance(value, bool) or int(value) != float(value) for value in values):
            raise ValueError("not whole numbers")
        return [int(value) for value in values]
    except (ValueError, TypeError):
        raise InputError(f"--set {name}={text}: {text!r} is not a list such as {json.dumps(current)}.") from None


def _nearest(name: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(name, list(known), n=2)
    return f" (did you mean {' or '.join(matches)}?)" if matches else ""
