"""The KFP interface of the train step."""

from kfp import dsl

from components.images import image_uri


@dsl.component(base_image=image_uri("train"), install_kfp_package=False)
def train(
    examples: dsl.Input[dsl.Dataset],
    strategy: str,
    num_factors: int,
    mlp_layers: list[int],
    num_train_negatives: int,
    global_batch_size: int,
    learning_rate: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    mf_regularization: float,
    mlp_regularization: list[float],
    num_epochs: int,
    early_stopping_patience: int,
    model_selection: str,
    steps_per_loop: int,
    max_checkpoints: int,
    seed: int,
    checkpoint_dir: str,
    model: dsl.Output[dsl.Model],
) -> None:
    """Trains NeuMF and exports its best epoch.

    Args:
        examples: What generate wrote.
        strategy: "one_device" or "mirrored".
        num_factors: Width of the matrix factorization tower.
        mlp_layers: Widths of the perceptron; the first is its input, half from each table, and must be even.
        num_train_negatives: Sampled negatives beside each positive.
        global_batch_size: Examples in one step over all replicas.
        learning_rate: Adam's step size.
        beta1: Adam's decay of the first moment.
        beta2: Adam's decay of the second moment.
        epsilon: Adam's epsilon.
        mf_regularization: L2 factor of the embedding tables.
        mlp_regularization: L2 factors of the perceptron's kernels, one for each of mlp_layers, the first of them 0.
        num_epochs: Upper bound of passes over the positives.
        early_stopping_patience: Epochs without a better HR@10 before training ends; 0 never stops early.
        model_selection: "validation", or "test" for the published practice (everything but the test item is
            trained on and the test item chooses the epoch).
        steps_per_loop: Training steps in one call of the compiled loop.
        max_checkpoints: Epoch checkpoints that are kept.
        seed: Seed of the initial weights, the order and the negatives.
        checkpoint_dir: Where epochs are saved and a killed run resumes; empty for a folder beside the model.
        model: saved_model/, training.json, tensorboard/, manifest.json.
    """
    from pathlib import Path

    from components.ncf.step import running_step
    from components.train.config import TrainConfig
    from components.train.train import train as run

    with running_step("train"):
        config = TrainConfig(
            strategy=strategy,
            num_factors=num_factors,
            mlp_layers=tuple(int(width) for width in mlp_layers),
            num_train_negatives=num_train_negatives,
            global_batch_size=global_batch_size,
            learning_rate=learning_rate,
            beta1=beta1,
            beta2=beta2,
            epsilon=epsilon,
            mf_regularization=mf_regularization,
            mlp_regularization=tuple(float(factor) for factor in mlp_regularization),
            num_epochs=num_epochs,
            early_stopping_patience=early_stopping_patience,
            model_selection=model_selection,
            steps_per_loop=steps_per_loop,
            max_checkpoints=max_checkpoints,
            seed=seed,
        )
        run(config, Path(examples.path), Path(model.path), Path(checkpoint_dir) if checkpoint_dir else None)
