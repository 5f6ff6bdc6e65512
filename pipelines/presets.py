"""The only home of default values: what each parameter of each step is, preset by preset."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Parameters = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Preset:
    """A named choice of parameters.

    Attributes:
        name: What `--preset` takes.
        description: One sentence for `neumf presets`.
        changes: What differs from `DEFAULTS`, by step and parameter.
    """

    name: str
    description: str
    changes: Mapping[str, Mapping[str, Any]]

    def parameters(self) -> Parameters:
        """Returns every parameter of every step."""
        return {step: {**values, **self.changes.get(step, {})} for step, values in DEFAULTS.items()}


DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "download": {
        "dataset": "synthetic",
        "mirror": "",
        "titles": "",
        "columns": "",
        "max_rejected_fraction": 0.0,
        "data_digest": "",
        "seed": 1,
    },
    "generate": {
        "min_ratings": 20,  # what MovieLens itself guarantees
        "protocols": ["loo-99", "loo-999-masked"],
        "num_shards": 4,
        "eval_prebatch_size": 50_000,
        "offline_epochs": 0,
        "num_offline_negatives": 4,
        "train_prebatch_size": 99_000,  # of TensorFlow's official models
        "beam_runner": "in_memory",
        "beam_options": ["direct_running_mode=multi_threading", "direct_num_workers=0"],  # a thread for each core
        "seed": 1,
    },
    "train": {
        "strategy": "auto",
        "num_factors": 8,
        "mlp_layers": [64, 32, 16, 8],
        "num_train_negatives": 4,
        "recency_decay": 0.0,
        "recency_floor": 0.0,
        "global_batch_size": 4_000,
        "precision": "float32",
        "embedding_stddev": 0.01,  # He et al. (2017), section 4.1
        "optimizer": "adam",
        "learning_rate": 0.002,
        "learning_rate_decay_start": 1.0,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-8,
        "mf_regularization": 0.0,
        "row_regularization": 0.0,
        "mlp_regularization": [0.0, 0.0, 0.0, 0.0],
        "pretraining_epochs": 0,
        "pretraining_learning_rate": 0.001,  # He et al. (2017), section 4.1
        "num_epochs": 20,
        "early_stopping_patience": 3,
        "model_selection": "validation",
        "training_records": "positives",
        "device_data_limit_mb": 1_000,
        "steps_per_loop": 10_000,
        "checkpoint_every_steps": 0,
        "max_checkpoints": 2,
        "profile": False,
        "seed": 1,
        "checkpoint_dir": "",
    },
    "baseline": {
        # Six settings: on MovieLens 1M, the best of them ranks the validation item as well as the best of 24 did.
        "num_factors": [64],
        "regularization": [3.0, 10.0, 30.0],
        "alpha": [2.0, 6.0],
        "num_iterations": 15,
        "seed": 1,
    },
    "evaluate": {
        "champion": "",
        "protocols": [],
        "cutoffs": [5, 10, 20],
        "num_bootstrap_samples": 1_000,
        "num_example_users": 5,
        "seed": 1,
    },
    "gate": {
        "protocol": "",
        "metric": "ndcg@10",
        "margin": 0.0,
        "min_value": 0.0,
        "must_beat": ["popularity"],
        "num_bootstrap_samples": 10_000,
        "confidence": 0.95,
        "seed": 1,
    },
    "recommend": {
        "num_recommendations": 10,
        "users": [],
        "num_shards": 4,
    },
    "publish": {
        "project": "",  # empty: nothing is published
        "location": "",
        "endpoint": "",
        "model_name": "neumf",
        "aliases": ["candidate"],
        "serving_image": "",
        "serving_predict_route": "",
        "serving_health_route": "",
        "staging_bucket": "",
    },
}

# Parameters of a step that are always those of another step: what is compared has to learn from the same data.
SHARED = {("baseline", "model_selection"): ("train", "model_selection")}

DEFAULT_PRESET = "default"

PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "default",
            "NeuMF with 8 factors, the epoch chosen by the validation item; for real data on a laptop.",
            {},
        ),
        Preset(
            "demo",
            "The default on the embedded synthetic data set.",
            {"download": {"dataset": "synthetic"}, "train": {"global_batch_size": 1_000}},
        ),
        Preset(
            "smoke",
            "As little as a test needs: a small synthetic set, two epochs.",
            {
                "download": {"dataset": "synthetic:num_users=200,num_items=300"},
                "generate": {"protocols": ["loo-99"], "num_shards": 2, "eval_prebatch_size": 5_000},
                "train": {
                    "num_epochs": 2,
                    "global_batch_size": 500,
                    # Two hidden layers: a smaller model leaves parts of the code untried.
                    "mlp_layers": [16, 8, 4],
                    "mlp_regularization": [0.0, 0.0, 0.0],
                },
                "evaluate": {"num_bootstrap_samples": 200},
                "baseline": {"num_factors": [8], "regularization": [10.0], "alpha": [2.0], "num_iterations": 5},
                # Two epochs beat nothing, and the step behind the gate has to run.
                "gate": {"must_beat": []},
            },
        ),
        # He et al., "Neural collaborative filtering", WWW 2017, and the defaults of its published code, but for three
        # numbers that are ours: that code takes batches of 256 at a learning rate of 0.001 and no regularization.
        Preset(
            "he2017",
            "The published practice: 8 factors, 20 epochs, trained on all but the test item, the best epoch "
            "picked on the test item.",
            {
                "train": {
                    "global_batch_size": 500,
                    "learning_rate": 0.0005,
                    "mf_regularization": 2e-7,
                    "model_selection": "test",
                    "early_stopping_patience": 0,
                }
            },
        ),
        # Section 3.4.1 of He et al. (2017): Adam for each tower, then plain descent, at the lowest of the rates that
        # their section 4.1 searched. 64 factors are the best NeuMF of their table 2. Ours, chosen on the validation
        # item: batch and learning rate of the towers, and the numbers of epochs.
        Preset(
            "he2017-pretrained",
            "NeuMF of 64 factors that starts from its two towers, each trained by itself before; trained and picked "
            "as in he2017.",
            {
                "train": {
                    "num_factors": 64,
                    "mlp_layers": [512, 256, 128, 64],
                    "global_batch_size": 500,
                    "pretraining_epochs": 9,
                    "pretraining_learning_rate": 0.0005,
                    "optimizer": "sgd",
                    "learning_rate": 0.0001,
                    "num_epochs": 2,
                    "model_selection": "test",
                    "early_stopping_patience": 0,
                }
            },
        ),
        # Matrix factorization after Rendle et al., "Neural collaborative filtering vs. matrix factorization revisited"
        # (RecSys 2020): their loss, initial values, negatives and L2 of 0.005 (here 0.0025, as an L2 of f is f times a
        # square). Ours, chosen on the validation item: the weights by recency, the batch, the learning rate (0.005 an
        # example) and its decay, 128 factors and 40 epochs.
        Preset(
            "ml-1m-best",
            "The best on MovieLens 1M: matrix factorization of 128 factors with recent interactions weighing more, "
            "trained on all but the test item, which is looked at once.",
            {
                "train": {
                    "num_factors": 128,
                    "mlp_layers": [],
                    "mlp_regularization": [],
                    "num_train_negatives": 8,
                    "recency_decay": 10.0,
                    "recency_floor": 0.05,
                    "global_batch_size": 1_800,
                    "embedding_stddev": 0.1,
                    "optimizer": "sgd",
                    "learning_rate": 9.0,
                    "learning_rate_decay_start": 0.5,
                    "row_regularization": 0.0025,
                    "num_epochs": 40,
                    "early_stopping_patience": 0,
                    "model_selection": "last",
                }
            },
        ),
        # The hyper-parameters of the MLPerf v0.5 reference as TensorFlow's official models ran it on ml-20m.
        Preset(
            "mlperf",
            "The MLPerf v0.5 shape: 64 factors, layers 256-256-128-64, global batch 99,000.",
            {
                "generate": {"protocols": ["loo-999-masked"], "eval_prebatch_size": 99_000},
                # What was best on MovieLens 1M: a setting takes about a minute with the ratings of ml-20m.
                "baseline": {"regularization": [30.0], "alpha": [6.0]},
                # The whole catalogue of ml-20m has 3.7 billion pairs.
                "evaluate": {"protocols": ["loo-999-masked"]},
                "train": {
                    "num_factors": 64,
                    "mlp_layers": [256, 256, 128, 64],
                    "global_batch_size": 99_000,
                    "learning_rate": 0.00382059,
                    "beta1": 0.783529,
                    "beta2": 0.909003,
                    "epsilon": 1.45439e-7,
                    "num_epochs": 14,
                },
            },
        ),
    )
}
