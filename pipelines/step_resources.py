"""What the container of each step may use, and what a cluster keeps for it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from components.ncf.errors import InputError

# Not \d, which takes digits of every script.
_CPU = re.compile(r"([0-9]+)m|([0-9]+|[0-9]*\.[0-9]+)")
_MEMORY = re.compile(r"([0-9]+)([KMGT]i?)?")
# With less Python does not start, and no machine has more: a slip of the hand, or a unit left out.
_CPU_RANGE = Decimal("0.1"), Decimal(1000)
_MEMORY_RANGE = Decimal(64 * 1000**2), Decimal(32 * 1000**4)
_BYTES = {"": 1, **{unit: 1000**power for power, unit in enumerate("KMGT", 1)},
          **{f"{unit}i": 1024**power for power, unit in enumerate("KMGT", 1)}}  # fmt: skip


def _processors(text: str) -> Decimal:
    found = _CPU.fullmatch(text)
    number = (Decimal(found[2]) if found[2] else Decimal(found[1]) / 1000) if found else Decimal(0)
    if not number:
        raise InputError(f"{text!r} is no number of processors: write 4, 0.5 or 500m.")
    return _in_range(text, number, _CPU_RANGE, "100m to 1000 processors")


def _bytes(text: str) -> Decimal:
    found = _MEMORY.fullmatch(text)
    number = Decimal(found[1]) * _BYTES[found[2] or ""] if found else Decimal(0)
    if not number:
        raise InputError(f"{text!r} is no amount of memory: write 16G, 16Gi or 512M.")
    return _in_range(text, number, _MEMORY_RANGE, "64M to 32T, with the unit")


def _in_range(text: str, number: Decimal, bounds: tuple[Decimal, Decimal], words: str) -> Decimal:
    if not bounds[0] <= number <= bounds[1]:
        raise InputError(f"{text} is outside what a container of a step can have: give {words}.")
    return number


_AMOUNTS = {"cpu": _processors, "memory": _bytes}


@dataclass(frozen=True)
class Resources:
    """What the container of one step may use.

    Attributes:
        cpu_limit: Virtual processors that it has at most; on Vertex AI the machine is chosen by the limits.
        memory_limit: Memory at which it is ended, with its unit, as "16G".
        cpu_request, memory_request: What Kubernetes keeps for it: a node that has as much free is large enough. Without
            them Kubernetes keeps the limits.
        num_retries: How often the step is run again after a failure.

    Raises:
        InputError: A quantity is not Kubernetes', is nothing, or a request is more than its limit.
    """

    cpu_limit: str
    memory_limit: str
    cpu_request: str
    memory_request: str
    num_retries: int

    def __post_init__(self) -> None:
        for kind, amount in _AMOUNTS.items():
            limit, request = getattr(self, f"{kind}_limit"), getattr(self, f"{kind}_request")
            if amount(request) > amount(limit):
                raise InputError(f"{kind}_request {request} is more than {kind}_limit {limit}: lower it.")

    @property
    def memory_limit_bytes(self) -> int:
        """The memory at which it is ended."""
        return int(_bytes(self.memory_limit))


QUANTITIES = ("cpu_limit", "memory_limit", "cpu_request", "memory_request")
STANDARD = Resources("4", "16G", "1", "4G", 1)
RESOURCES: Mapping[str, Resources] = {
    "download": Resources("4", "16G", "1", "4G", 3),  # servers and networks recover
    "generate": Resources("16", "64G", "2", "8G", 1),
    "train": Resources("16", "64G", "2", "8G", 2),  # resumes its checkpoints
    "baseline": Resources("16", "32G", "2", "8G", 1),
    "evaluate": Resources("16", "64G", "2", "8G", 1),
    "gate": Resources("2", "4G", "500m", "1G", 1),
    "recommend": Resources("16", "64G", "2", "8G", 1),
    "publish": Resources("2", "8G", "500m", "2G", 1),
}
# Where other machines do the work and the container waits for them.
WAITING = Resources("2", "8G", "500m", "2G", 1)


def check_quantity(name: str, value: str) -> None:
    """Checks a value by itself.

    Args:
        name: "step.quantity", as "train.memory_limit".
        value: The quantity, as Kubernetes writes it.

    Raises:
        InputError: The step or the quantity does not exist, or the value is none.
    """
    step, _, quantity = name.partition(".")
    if step not in RESOURCES or quantity not in QUANTITIES:
        raise InputError(
            f"--resources {name}={value}: {name!r} must be a step ({', '.join(RESOURCES)}), a dot and one of "
            f"{', '.join(QUANTITIES)}."
        )
    try:
        _AMOUNTS[quantity.partition("_")[0]](value)
    except InputError as mistake:
        raise InputError(f"--resources of {step}: {mistake}") from None


def changed_resources(pairs: Iterable[tuple[str, str]]) -> dict[str, Resources]:
    """Returns the resources of the steps that somebody changes.

    Args:
        pairs: Names "step.quantity", as "train.memory_limit", with their values; later ones win.

    Raises:
        InputError: A step or a quantity does not exist, or a value does not fit.
    """
    changes: dict[str, dict[str, str]] = {}
    for name, value in pairs:
        check_quantity(name, value)
        step, _, quantity = name.partition(".")
        changes.setdefault(step, {})[quantity] = value
    return {step: _changed(step, given) for step, given in changes.items()}


def _changed(step: str, given: Mapping[str, str]) -> Resources:
    own = RESOURCES[step]
    try:
        for kind, amount in _AMOUNTS.items():
            limit = given.get(f"{kind}_limit")
            if limit is not None and amount(limit) < amount(getattr(own, f"{kind}_request")):
                # Whoever lowers a limit need not know what is kept below it.
                given = {f"{kind}_request": limit, **given}
        return replace(own, **given)  # type: ignore[arg-type]  # the names were looked up
    except InputError as mistake:
        raise InputError(f"--resources of {step}: {mistake}") from None
