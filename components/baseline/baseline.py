"""Fits a matrix factorization to an `examples` folder and writes a `baseline` folder.

The model is that of Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets" (ICDM 2008),
fitted by the library implicit.
"""

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.baseline.als import Positives, fit, library_name
from components.baseline.config import BaselineConfig, Setting
from components.ncf.examples import Candidates, read_candidates, read_positives, read_table
from components.ncf.factorization import Factorization
from components.ncf.manifest import Manifest, read_manifest, write_manifest, writing_artifact
from components.ncf.metrics import hit_rate_at_k, ndcg_at_k
from components.ncf.ranking import num_processors, rank_held_out_items

_LOG = logging.getLogger(__name__)
_VALIDATION = "validation"
_CUTOFF = 10


@dataclass(frozen=True)
class Trial:
    """One setting and what it is worth on the validation item.

    Attributes:
        setting: The point of the grid.
        factors: What was fitted.
        hit_rate: HR@10.
        ndcg: NDCG@10, by which the best is chosen.
    """

    setting: Setting
    factors: Factorization
    hit_rate: float
    ndcg: float

    def as_dict(self) -> dict[str, Any]:
        """Returns it without the tables, as JSON-serializable values."""
        return {**vars(self.setting), f"hr@{_CUTOFF}": self.hit_rate, f"ndcg@{_CUTOFF}": self.ndcg}


def baseline(config: BaselineConfig, examples: Path, output: Path) -> Trial:
    """Fits every setting, keeps the best on the validation item and, unless that item has to stay out, refits it.

    Args:
        config: The parameters.
        examples: An `examples` folder.
        output: The `baseline` folder to write: user_factors.npy and item_factors.npy, float32 [num_users or num_items,
            num_factors], whose products are the scores; tuning.json with each setting's metrics; manifest.json.

    Returns:
        The setting that was chosen, as it was fitted for the choice.

    Raises:
        InputError: The folder is incomplete, the library is missing, or a fit diverged.
    """
    manifest = read_manifest(examples, "examples")
    with writing_artifact(output) as partial:
        positives = _read_positives(examples, manifest)
        best, table = _tune(config, positives, read_candidates(examples, manifest, _VALIDATION))
        factors = best.factors
        if config.model_selection != _VALIDATION:
            started = time.perf_counter()
            with_validation = positives.with_one_more(_read_validation_items(examples))
            factors = fit(best.setting, config.num_iterations, config.seed, with_validation)
            _LOG.info("fitted again with the validation items in %.1f s", time.perf_counter() - started)
        np.save(partial / "user_factors.npy", factors.user_factors)
        np.save(partial / "item_factors.npy", factors.item_factors)
        tuning = {"protocol": _VALIDATION, "chosen_by": f"ndcg@{_CUTOFF}", "chosen": best.as_dict(), "settings": table}
        (partial / "tuning.json").write_text(json.dumps(tuning, indent=2) + "\n", encoding="utf-8")
        write_manifest(
            partial,
            "baseline",
            {
                "name": "als",
                "library": library_name(),
                "parameters": config.parameters_of(best.setting),
                "dataset": manifest["dataset"],
                "examples_digest": manifest["digest"],
                "model_selection": config.model_selection,
                "num_users": manifest["num_users"],
                "num_items": manifest["num_items"],
            },
        )
    return best


def _tune(config: BaselineConfig, positives: Positives, candidates: Candidates) -> tuple[Trial, list[dict[str, Any]]]:
    """Returns the best trial, the first among equals, and all of them without their tables."""
    settings = config.settings()
    best: Trial | None = None
    table = []
    for number, setting in enumerate(settings, start=1):
        started = time.perf_counter()
        trial = _try(setting, config, positives, candidates)
        _LOG.info(
            "setting %d of %d, %d factors, regularization %g, alpha %g: validation HR@%d %.4f, NDCG@%d %.4f in %.1f s",
            number, len(settings), setting.num_factors, setting.regularization, setting.alpha,
            _CUTOFF, trial.hit_rate, _CUTOFF, trial.ndcg, time.perf_counter() - started,
        )  # fmt: skip
        table.append(trial.as_dict())
        if best is None or trial.ndcg > best.ndcg:
            best = trial
    assert best is not None, "a configuration has at least one setting"
    return best, table


def _try(setting: Setting, config: BaselineConfig, positives: Positives, candidates: Candidates) -> Trial:
    factors = fit(setting, config.num_iterations, config.seed, positives)
    ranks = rank_held_out_items(factors.score_candidates, candidates, num_processors())
    return Trial(setting, factors, hit_rate_at_k(ranks, _CUTOFF), ndcg_at_k(ranks, _CUTOFF))


def _read_positives(examples: Path, manifest: Manifest) -> Positives:
    users, items = read_positives(examples, manifest).values()
    return Positives(users, items, manifest["num_users"], manifest["num_items"])


def _read_validation_items(examples: Path) -> NDArray[np.int32]:
    """Returns int32 [num_users], in the order of the dense users."""
    items: NDArray[np.int32] = read_table(examples, "held_out", pq.read_table)["validation_item_id"].to_numpy()
    return items.astype(np.int32)
