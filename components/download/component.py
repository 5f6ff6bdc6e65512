"""The KFP interface of the download step."""

from kfp import dsl

from components.images import image_uri


@dsl.component(base_image=image_uri("download"), install_kfp_package=False)
def download(
    dataset: str,
    mirror: str,
    titles: str,
    columns: str,
    max_rejected_fraction: float,
    data_digest: str,
    seed: int,
    ratings: dsl.Output[dsl.Dataset],
) -> None:
    """Downloads and parses the interactions.

    Args:
        dataset: A name of the catalogue ("synthetic", "ml-1m" ...), "csv:<uri>" or "ncf:<uri prefix>".
        mirror: Where to fetch <name>.zip and <name>.zip.md5 instead of the official host; empty for the latter.
        titles: URI of a CSV with the items' titles, for "csv:" data sets; empty for none.
        columns: The columns of a "csv:" data set, as "user=...,item=...,rating=...,timestamp=..."; empty to
            recognise them by their names.
        max_rejected_fraction: Share of unreadable lines above which the step fails.
        data_digest: The md5 that the archive or CSV must have; empty for any.
        seed: Seed of the synthetic data set.
        ratings: interactions-*.parquet (raw_user_id, raw_item_id, rating, timestamp in seconds), items.parquet,
            rejected.csv, manifest.json.
    """
    from pathlib import Path

    from components.download.download import DownloadConfig
    from components.download.download import download as run
    from components.ncf.step import running_step

    with running_step("download"):
        run(
            DownloadConfig(dataset, mirror, titles, columns, max_rejected_fraction, data_digest, seed),
            Path(ratings.path),
        )
