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
    offline_epochs: int,
    num_offline_negatives: int,
    train_prebatch_size: int,
    beam_runner: str,
    beam_options: list[str],
    seed: int,
    examples: dsl.Output[dsl.Dataset],
) -> None:
    """Holds items out, draws the evaluation candidates and writes the records, with Apache Beam.

    Args:
        ratings: What download wrote.
        min_ratings: Users with fewer distinct items are dropped.
        protocols: The evaluation protocols to draw candidates for: "loo-99", "loo-999-masked".
        num_shards: Files of each kind of record; more when they would get too large.
        eval_prebatch_size: Rows in one record of the evaluation files, a multiple of 1,000.
        offline_epochs: Training epochs to write with their negatives, for trainers that do not draw their own.
        num_offline_negatives: Negatives of each positive in them.
        train_prebatch_size: Rows in one record of them.
        beam_runner: Where Beam runs: "in_memory", "flink" or "dataflow".
        beam_options: Options of that runner, each "name=value".
        seed: Seed of the shuffle, the ties and the candidates.
        examples: positives/, validation/, eval/ (loo-999-masked), eval_loo-99/, eval_fixed/ record files,
            training_cycle_<epoch>/ record files, users.parquet/, items.parquet, held_out.parquet/, card.html,
            manifest.json.
    """
    from components.generate.config import GenerateConfig
    from components.generate.generate import generate as run
    from components.generate.runner_options import choose_place
    from components.ncf.step import running_step

    with running_step("generate"):
        config = GenerateConfig(
            min_ratings=min_ratings,
            protocols=tuple(protocols),
            num_shards=num_shards,
            eval_prebatch_size=eval_prebatch_size,
            offline_epochs=offline_epochs,
            num_offline_negatives=num_offline_negatives,
            train_prebatch_size=train_prebatch_size,
            beam_runner=beam_runner,
            beam_options=tuple(beam_options),
            seed=seed,
        )
        run(
            config,
            choose_place(beam_runner, ratings.path, ratings.uri),
            choose_place(beam_runner, examples.path, examples.uri),
        )
