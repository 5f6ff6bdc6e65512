"""The KFP interface of the generate step."""

from kfp import dsl

from components.images import image_uri


@dsl.component(base_image=image_uri("generate"), install_kfp_package=False)
def generate(
    ratings: dsl.Input[dsl.Dataset],
    min_ratings: int,
    protocols: list[str],
    num_shards: int,
    eval_prebatch_size: int,
    seed: int,
    examples: dsl.Output[dsl.Dataset],
) -> None:
    """Holds items out, draws the evaluation candidates and writes the records, with Apache Beam.

    Args:
        ratings: What download wrote.
        min_ratings: Users with fewer distinct items are dropped.
        protocols: The evaluation protocols to draw candidates for: "loo-99", "loo-999-masked".
        num_shards: Files of the training positives.
        eval_prebatch_size: Rows in one record of the evaluation files, a multiple of 1,000.
        seed: Seed of the shuffle, the ties and the candidates.
        examples: positives/, validation/, eval/ (loo-999-masked), eval_loo-99/, eval_fixed/ record files,
            users.parquet, items.parquet, held_out.parquet, manifest.json.
    """
    from pathlib import Path

    from components.generate.config import GenerateConfig
    from components.generate.generate import generate as run
    from components.ncf.step import running_step

    with running_step("generate"):
        config = GenerateConfig(min_ratings, tuple(protocols), num_shards, eval_prebatch_size, seed)
        run(config, Path(ratings.path), Path(examples.path))
