"""The KFP interface of the baseline step."""

from kfp import dsl

from components.images import image_uri


@dsl.component(base_image=image_uri("baseline"), install_kfp_package=False)
def baseline(
    examples: dsl.Input[dsl.Dataset],
    num_factors: list[int],
    regularization: list[float],
    alpha: list[float],
    num_iterations: int,
    model_selection: str,
    seed: int,
    baseline: dsl.Output[dsl.Model],
) -> None:
    """Fits a matrix factorization by alternating least squares, the best of a grid on the validation item.

    Args:
        examples: What generate wrote.
        num_factors: Widths of the two tables to try.
        regularization: L2 factors of the tables to try.
        alpha: Weights of a positive to try; that of a pair without interaction is 1.
        num_iterations: How often each table is solved for.
        model_selection: That of train: unless it is "validation", the best is fitted again with the validation items.
        seed: Seed of the initial tables.
        baseline: user_factors.npy, item_factors.npy, tuning.json, manifest.json.
    """
    from pathlib import Path

    from components.baseline.baseline import baseline as run
    from components.baseline.config import BaselineConfig
    from components.ncf.step import running_step

    with running_step("baseline"):
        config = BaselineConfig(
            num_factors=tuple(int(width) for width in num_factors),
            regularization=tuple(float(factor) for factor in regularization),
            alpha=tuple(float(weight) for weight in alpha),
            num_iterations=num_iterations,
            model_selection=model_selection,
            seed=seed,
        )
        run(config, Path(examples.path), Path(baseline.path))
