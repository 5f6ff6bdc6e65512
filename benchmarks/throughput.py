"""What a measured trainer reports. Needs the standard library only: other environments import it, too."""

import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Throughput:
    """The figures of one run of one program.

    Attributes:
        shape: Name of the shape.
        global_batch_size: Examples in a step, positives and negatives.
        num_examples: Examples in one interval of the clock: an epoch or some steps.
        durations_s: What each interval took; none of them holds imports or compilation.
        versions: Of the libraries, by name.
    """

    shape: str
    global_batch_size: int
    num_examples: int
    durations_s: list[float]
    versions: dict[str, str]

    @property
    def examples_per_s(self) -> float:
        """Examples trained on in a second of the median interval, so that a burst of other work does not count."""
        return self.num_examples / statistics.median(self.durations_s)

    def write(self, path: Path) -> None:
        """Writes the figures as a JSON object."""
        content = asdict(self) | {"examples_per_s": self.examples_per_s}
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_throughput(path: Path) -> Throughput:
    """Reads what `Throughput.write` wrote."""
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["examples_per_s"]
    return Throughput(**content)
