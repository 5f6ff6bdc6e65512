"""The KFP interface of the recommend step."""

from kfp import dsl

from components.images import image_uri


@dsl.component(base_image=image_uri("train"), install_kfp_package=False)
def recommend(
    examples: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    num_recommendations: int,
    users: list[str],
    num_shards: int,
    recommendations: dsl.Output[dsl.Dataset],
) -> None:
    """Writes the best items that each user has not had yet.

    Args:
        examples: What generate wrote.
        model: What train wrote.
        num_recommendations: Items for each user.
        users: Raw ids of the users; empty for all.
        num_shards: Files to spread them over.
        recommendations: parquet/recommendations-*.parquet (raw_user_id, is_known_user, rank from 1, raw_item_id, title,
            score), manifest.json.
    """
    from pathlib import Path

    from components.ncf.step import running_step
    from components.recommend.config import RecommendConfig
    from components.recommend.recommend import recommend as run

    with running_step("recommend"):
        config = RecommendConfig(num_recommendations, tuple(users), num_shards)
        run(config, Path(examples.path), Path(model.path), Path(recommendations.path))
