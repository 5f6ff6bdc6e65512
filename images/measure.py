"""Measures images: python -m images.measure IMAGE… prints size over the base, layers over the base and cold starts.

A cold start is a container from nothing until the step's own module is imported, as KFP starts it; the median of five.
"""

import statistics
import sys
import time
from typing import Any

from images.engine import output_of
from images.table import read_images

_RUNS = 5
# What kfp imports to execute a component, and then the step's own work.
_START = "import os; os.environ['_KFP_RUNTIME'] = 'true'; import kfp.dsl.executor_main, {module}"
_MODULES = {
    "download": "components.download.download",
    "generate": "components.generate.generate",
    "baseline": "components.baseline.baseline",
    "publish": "components.publish.publish",
    "train": "components.train.train",
}


def added_layers(engine: Any, name: str) -> list[dict[str, Any]]:
    """Returns the layers that an image adds to its base, newest first, from the engine's history of it."""
    history: list[dict[str, Any]] = engine.images.get(name).history()
    (first,) = (number for number, layer in enumerate(history) if "libgomp1" in layer["CreatedBy"])
    return history[: first + 1]


def cold_start_s(engine: Any, name: str, module: str) -> float:
    """Returns the seconds of one container that imports a module and ends."""
    started = time.perf_counter()
    output_of(engine, name, ["python3", "-c", _START.format(module=module)])
    return time.perf_counter() - started


def main() -> None:
    """Prints a row for each image."""
    import docker

    engine = docker.from_env(timeout=600)
    known = read_images()
    for name in sys.argv[1:]:
        image = name.rsplit("/", 1)[-1].partition(":")[0]
        layers = [layer for layer in added_layers(engine, name) if layer["Size"]]
        times = [cold_start_s(engine, name, _MODULES[image.partition("-")[0]]) for _ in range(_RUNS)]
        sys.stdout.write(
            f"{image}: {sum(layer['Size'] for layer in layers) / 1e6:.0f} MB over the base (limit "
            f"{known[image].limit_mb}), {len(layers)} layers, cold start {statistics.median(times):.1f} s "
            f"({min(times):.1f} to {max(times):.1f})\n"
        )


if __name__ == "__main__":
    main()
