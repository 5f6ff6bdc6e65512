"""The shapes that trainers are measured in. Needs the standard library only: other environments import it, too."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Sizes of a data set and of the NeuMF that is trained on it, with Adam's parameters.

    Attributes:
        name: What `--shapes` takes.
        preset: The preset of `neumf train` that it starts from.
        num_users, num_items: Rows of the tables.
        num_factors: Width of the factorization tower.
        mlp_layers: Widths of the perceptron; the first one is its input, half of the user and half of the item.
        learning_rate, beta1, beta2, epsilon: Of Adam.
        num_train_negatives: Negatives for each positive.
    """

    name: str
    preset: str
    num_users: int
    num_items: int
    num_factors: int
    mlp_layers: tuple[int, ...]
    learning_rate: float
    beta1: float
    beta2: float
    epsilon: float
    num_train_negatives: int = 4


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("ml-1m", "default", 6_040, 3_706, 8, (64, 32, 16, 8), 0.002, 0.9, 0.999, 1e-8),
        Shape("ml-20m", "default", 138_493, 26_744, 8, (64, 32, 16, 8), 0.002, 0.9, 0.999, 1e-8),
        # What TensorFlow's official models ran for MLPerf v0.5 on ml-20m.
        Shape("mlperf", "mlperf", 138_493, 26_744, 64, (256, 256, 128, 64), 0.00382059, 0.783529, 0.909003, 1.45439e-7),
    )
}
