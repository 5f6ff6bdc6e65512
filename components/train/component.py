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
    recency_decay: float,
    recency_floor: float,
    global_batch_size: int,
    precision: str,
    embedding_stddev: float,
    optimizer: str,
    learning_rate: float,
    learning_rate_decay_start: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    mf_regularization: float,
    row_regularization: float,
    mlp_regularization: list[float],
    pretraining_epochs: int,
    pretraining_learning_rate: float,
    num_epochs: int,
    early_stopping_patience: int,
    model_selection: str,
    training_records: str,
    device_data_limit_mb: int,
    steps_per_loop: int,
    checkpoint_every_steps: int,
    max_checkpoints: int,
    profile: bool,
    seed: int,
    checkpoint_dir: str,
    model: dsl.Output[dsl.Model],
) -> None:
    """Trains NeuMF and exports its best epoch.

    Args:
        examples: What generate wrote.
        strategy: "one_device", "mirrored", "multi_worker_mirrored", "parameter_server", "tpu", or "auto" to choose by
            TF_CONFIG and the devices that are there.
        num_factors: Width of the matrix factorization tower.
        mlp_layers: Widths of the perceptron; the first is its input, half from each table, and must be even. Empty for
            plain matrix factorization.
        num_train_negatives: Sampled negatives beside each positive.
        recency_decay: Interactions back from a user's latest after which a positive's weight falls to 1/e; 0 for none.
        recency_floor: What is added to that weight.
        global_batch_size: Examples in one step over all replicas.
        precision: "float32", or "bfloat16" for the inputs of matrix products.
        embedding_stddev: Standard deviation of the tables' initial values.
        optimizer: "adam" or "sgd".
        learning_rate: Of the loss's mean over the global batch.
        learning_rate_decay_start: Share of the epochs after which it falls linearly to 0; 1 for never.
        beta1: Adam's decay of the first moment.
        beta2: Adam's decay of the second moment.
        epsilon: Adam's epsilon.
        mf_regularization: L2 factor of the embedding tables.
        row_regularization: L2 factor of the table rows of each example.
        mlp_regularization: L2 factors of the perceptron's kernels, one for each of mlp_layers, the first of them 0.
        pretraining_epochs: Epochs that each tower is trained by itself before, with Adam; 0 for none.
        pretraining_learning_rate: Adam's in those.
        num_epochs: Upper bound of passes over the positives.
        early_stopping_patience: Epochs without a better HR@10 before training ends; 0 never stops early.
        model_selection: "validation"; "test" for the published practice (everything but the test item is
            trained on and the test item chooses the epoch); or "last" (the same data, nothing is chosen).
        training_records: "positives", whose negatives are drawn while training, or "offline" for the whole epochs that
            generate wrote.
        device_data_limit_mb: Positives that take more than this are read window by window in every epoch.
        steps_per_loop: Upper bound of the training steps in one call of the compiled loop.
        checkpoint_every_steps: Steps between checkpoints, beside those after each epoch; 0 for none.
        max_checkpoints: Checkpoints that are kept.
        profile: Whether one epoch is traced for TensorBoard's profiler.
        seed: Seed of the initial weights, the order and the negatives.
        checkpoint_dir: Where the run is saved and a killed one resumes; empty for a folder beside the model.
        model: saved_model/, neumf.keras, training.json, tensorboard/, manifest.json.
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
            recency_decay=recency_decay,
            recency_floor=recency_floor,
            global_batch_size=global_batch_size,
            precision=precision,
            embedding_stddev=embedding_stddev,
            optimizer=optimizer,
            learning_rate=learning_rate,
            learning_rate_decay_start=learning_rate_decay_start,
            beta1=beta1,
            beta2=beta2,
            epsilon=epsilon,
            mf_regularization=mf_regularization,
            row_regularization=row_regularization,
            mlp_regularization=tuple(float(factor) for factor in mlp_regularization),
            pretraining_epochs=pretraining_epochs,
            pretraining_learning_rate=pretraining_learning_rate,
            num_epochs=num_epochs,
            early_stopping_patience=early_stopping_patience,
            model_selection=model_selection,
            training_records=training_records,
            device_data_limit_mb=device_data_limit_mb,
            steps_per_loop=steps_per_loop,
            checkpoint_every_steps=checkpoint_every_steps,
            max_checkpoints=max_checkpoints,
            profile=profile,
            seed=seed,
        )
        run(config, Path(examples.path), Path(model.path), Path(checkpoint_dir) if checkpoint_dir else None)
