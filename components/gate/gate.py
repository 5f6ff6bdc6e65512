"""Decides from an `evaluation` folder whether its model is promoted, and writes a `decision` folder."""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.gate.config import GateConfig, cutoff_mistake
from components.ncf.errors import InputError
from components.ncf.manifest import Manifest, read_manifest, write_manifest, writing_artifact
from components.ncf.paired import PairedDifference, paired_bootstrap
from components.ncf.rank_metrics import per_user_values

_LOG = logging.getLogger(__name__)
_CHAMPION = "champion"
# A difference that is the margin itself must not exceed it by the last bits of a sum.
_ROUNDING = 1e-9
_NUM_DECIMALS = 4
# With so many, numbers that differ by more than the rounding differ in print.
_MAX_DECIMALS = 9
# Of users whom two systems serve differently. With fewer, chance alone puts them all on one side more often than the
# interval says: 1 in 32 for five.
_LEAST_DIFFERENT = 6


@dataclass(frozen=True)
class Check:
    """One condition of being promoted.

    Attributes:
        name: "threshold", or the system that the model was held against.
        passed: Whether it holds.
        needed: What the value, or the low end of the paired interval, has to reach or exceed.
        value: The model's, or the other system's.
        paired: The model minus the other system, where there is one.
    """

    name: str
    passed: bool
    needed: float
    value: float
    paired: PairedDifference | None = None

    @property
    def num_decimals(self) -> int:
        """How many decimals tell apart what was held against each other."""
        reached = self.value if self.paired is None else self.paired.low
        # As numbers, since -0.0000 is 0.0000, too.
        different = (n for n in range(_NUM_DECIMALS, _MAX_DECIMALS) if round(reached, n) != round(self.needed, n))
        return next(different, _MAX_DECIMALS) if abs(reached - self.needed) > _ROUNDING else _NUM_DECIMALS

    def describe(self) -> str:
        """Says in a few words what came of it."""
        n, paired = self.num_decimals, self.paired
        if paired is None:
            verb = "reaches" if self.passed else "falls short of"
            return f"its {self.value:.{n}f} {verb} the threshold of {self.needed:.{n}f}"
        verb = "beats" if self.passed else "does not clearly beat"
        margin = f" by more than {self.needed:.{n}f}" if self.needed else ""
        too_few = (
            f", from {paired.num_different} users whom the two serve differently, of {_LEAST_DIFFERENT} that it takes"
        )
        return (
            f"it {verb} {self.name} ({self.value:.{n}f}){margin}: {paired.difference:+.{n}f}, "
            f"{paired.low:+.{n}f} to {paired.high:+.{n}f}{too_few if paired.num_different < _LEAST_DIFFERENT else ''}"
        )


@dataclass(frozen=True)
class Decision:
    """Whether the model is promoted, and why.

    Attributes:
        promoted: Whether every check passed.
        protocol: The protocol that decided.
        metric: Its name.
        value: The model's metric under it.
        model_selection: What chose the model's epoch: "validation", "test" or "last".
        checks: In the order in which they were made.
    """

    promoted: bool
    protocol: str
    metric: str
    value: float
    model_selection: str
    checks: tuple[Check, ...]

    @property
    def reason(self) -> str:
        """One sentence: what failed, or all that holds; and what to bear in mind."""
        told = [check for check in self.checks if check.passed == self.promoted]
        because = [check.describe() for check in told] or ["nothing was asked of it"]
        if self.model_selection == "test":
            because.append("the test item chose its epoch, which flatters it")
        outcome = "promoted" if self.promoted else "not promoted"
        digits = max((check.num_decimals for check in told if check.paired is None), default=_NUM_DECIMALS)
        return (
            f"The model ({self.metric} {self.value:.{digits}f} under {self.protocol}) is {outcome}: "
            f"{'; '.join(because)}."
        )


def gate(config: GateConfig, evaluation: Path, output: Path) -> Decision:
    """Decides, and writes the decision.

    Args:
        config: The parameters.
        evaluation: An `evaluation` folder.
        output: The `decision` folder to write: decision.json, decision.md, manifest.json.

    Raises:
        InputError: The folder is incomplete or lacks what the parameters name, the metric is 1 for every model, or the
            champion learned from, or was selected by, other data than the model.
    """
    manifest = read_manifest(evaluation, "evaluation")
    protocol = config.protocol or manifest["protocols"][0]
    _check_names(config, protocol, evaluation, manifest)
    mistake = cutoff_mistake(config.metric, protocol, manifest.get("num_candidates", {}).get(protocol))
    if mistake is not None:
        raise InputError(mistake)
    _check_champion(manifest)
    with writing_artifact(output) as partial:
        values = _read_values(config, protocol, evaluation, manifest)
        decision = decide(config, protocol, values, manifest["model_selection"])
        _LOG.info("%s", decision.reason)
        content = {
            "promoted": decision.promoted,
            "reason": decision.reason,
            "protocol": protocol,
            "metric": config.metric,
            "value": decision.value,
            "checks": [asdict(check) for check in decision.checks],
            "parameters": config.as_dict(),
            "dataset": manifest["dataset"],
            "examples_digest": manifest["examples_digest"],
            "model_selection": manifest["model_selection"],
            "champion": manifest.get("champion"),
        }
        (partial / "decision.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        (partial / "decision.md").write_text(_markdown(decision), encoding="utf-8")
        write_manifest(partial, "decision", {"promoted": decision.promoted, "reason": decision.reason})
    return decision


def decide(config: GateConfig, protocol: str, values: dict[str, NDArray[np.float64]], model_selection: str) -> Decision:
    """Makes every check.

    Args:
        config: The parameters.
        protocol: Its name.
        values: By system, the metric's value for each user, float64 [num_users]; "model" among them.
        model_selection: What chose the model's epoch: "validation", "test" or "last".
    """
    model = values["model"]
    value = float(model.mean())
    is_reached = value >= config.min_value - _ROUNDING
    checks = [Check("threshold", is_reached, config.min_value, value)] if config.min_value else []
    margins = dict.fromkeys(config.must_beat, 0.0)
    if _CHAMPION in values:
        margins[_CHAMPION] = config.margin
    for name, margin in margins.items():
        paired = paired_bootstrap(model, values[name], config.num_bootstrap_samples, config.seed, config.confidence)
        passed = paired.low > margin + _ROUNDING and paired.num_different >= _LEAST_DIFFERENT
        checks.append(Check(name, passed, margin, float(values[name].mean()), paired))
    promoted = all(check.passed for check in checks)
    return Decision(promoted, protocol, config.metric, value, model_selection, tuple(checks))


def _check_names(config: GateConfig, protocol: str, evaluation: Path, manifest: Manifest) -> None:
    if protocol not in manifest["protocols"]:
        raise InputError(
            f"gate.protocol is {protocol!r}, but {evaluation} has {', '.join(manifest['protocols'])}: name one of "
            "them, or evaluate by it."
        )
    for name in config.must_beat:
        if name not in manifest["systems"]:
            raise InputError(
                f"gate.must_beat names {name!r}, but {evaluation} ranks {', '.join(manifest['systems'])}: name one of "
                "them, or evaluate with it."
            )


def _check_champion(manifest: Manifest) -> None:
    """Holds the two against each other once more: an evaluation may come from elsewhere."""
    champion = manifest.get("champion")
    if champion is None:
        return
    for name, what in (("examples_digest", "trained on the examples"), ("model_selection", "selected by")):
        if champion[name] != manifest[name]:
            raise InputError(
                f"The champion {champion['path']} was {what} {champion[name]!r} and the model by or on "
                f"{manifest[name]!r}: they cannot be compared, train one of them again."
            )


def _read_values(
    config: GateConfig, protocol: str, evaluation: Path, manifest: Manifest
) -> dict[str, NDArray[np.float64]]:
    columns = {
        system: f"rank_{protocol}" + ("" if system == "model" else f"_{system}") for system in manifest["systems"]
    }
    path = evaluation / "per_user.parquet"
    try:
        table = pq.read_table(path, columns=list(columns.values()))
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} cannot be read ({reason}): run evaluate again.") from error
    # A protocol from a file may leave users out.
    is_ranked = {system: table[column].is_valid().to_numpy() for system, column in columns.items()}
    for system, ranked in is_ranked.items():
        if not ranked.any() or not np.array_equal(ranked, is_ranked["model"]):
            raise InputError(f"{path} does not rank the same users by {protocol} for {system}: run evaluate again.")
    return {
        system: per_user_values(config.metric, table[column].drop_null().to_numpy())
        for system, column in columns.items()
    }


def _markdown(decision: Decision) -> str:
    lines = [
        f"# {'Promoted' if decision.promoted else 'Not promoted'}",
        "",
        decision.reason,
        "",
        f"| check | {decision.metric} | difference | interval | needed | passed |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for check in decision.checks:
        n, paired = check.num_decimals, check.paired
        difference = f"{paired.difference:+.{n}f} | {paired.low:+.{n}f} to {paired.high:+.{n}f}" if paired else " | "
        passed = "yes" if check.passed else "**no**"
        lines.append(f"| {check.name} | {check.value:.{n}f} | {difference} | {check.needed:.{n}f} | {passed} |")
    return "\n".join(lines) + "\n"
