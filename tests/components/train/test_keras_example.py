"""Runs the script of docs/train.md as a reader would."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from components.train.config import TrainConfig
from components.train.train import train

PAGE = Path(__file__).parents[3] / "docs" / "train.md"


@pytest.mark.slow
def test_the_exported_model_goes_on_in_plain_keras(
    make_config: Callable[..., TrainConfig], examples: Path, tmp_path: Path
) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert "components" not in script
    assert "pipelines" not in script
    train(make_config(num_epochs=2), examples, tmp_path / "model", None)
    (tmp_path / "examples").symlink_to(examples)
    output = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    losses = [float(loss) for loss in re.findall(r"- loss: ([\d.]+)\s*$", output, flags=re.MULTILINE)]
    assert losses[0] > losses[-1], output
    before, after = (keras.saving.load_model(tmp_path / name) for name in ("model/neumf.keras", "tuned.keras"))
    for a, b in zip(before.get_weights(), after.get_weights(), strict=True):
        assert not np.array_equal(a, b)
