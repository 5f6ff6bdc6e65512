"""A small pipeline for the tests of `neumf submit`."""

from collections.abc import Mapping
from pathlib import Path

from kfp import compiler, dsl

_REGISTRY = "europe-docker.pkg.dev/my-project/neumf"
IMAGES = {"data": f"{_REGISTRY}/data@sha256:{'a' * 64}", "train": f"{_REGISTRY}/train@sha256:{'b' * 64}"}
STEPS = ("download", "train", "evaluate")


def make_template(folder: Path, images: Mapping[str, str] = IMAGES, is_train_cached: bool = True) -> Path:
    """Compiles three steps in a row, with the real pipeline's names of parameters, so that --set reaches them."""

    @dsl.component(base_image=images["data"], install_kfp_package=False)
    def download(seed: int, ratings: dsl.Output[dsl.Dataset]) -> None: ...

    @dsl.component(base_image=images["train"], install_kfp_package=False)
    def train(ratings: dsl.Input[dsl.Dataset], num_epochs: int, model: dsl.Output[dsl.Model]) -> None: ...

    @dsl.component(base_image=images["data"], install_kfp_package=False)
    def evaluate(
        model: dsl.Input[dsl.Model], ratings: dsl.Input[dsl.Dataset], metrics: dsl.Output[dsl.Metrics]
    ) -> None: ...

    @dsl.pipeline(name="neumf")
    def pipeline(download_seed: int = 1, train_num_epochs: int = 20) -> None:
        ratings = download(seed=download_seed).outputs["ratings"]
        trained = train(ratings=ratings, num_epochs=train_num_epochs).set_caching_options(is_train_cached)
        model = trained.outputs["model"]
        evaluate(model=model, ratings=ratings)

    path = folder / "pipeline.yaml"
    compiler.Compiler().compile(pipeline, str(path))
    return path
