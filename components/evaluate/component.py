"""The KFP interface of the evaluate step."""

from kfp import dsl

from components.images import image_uri


@dsl.component(base_image=image_uri("train"), install_kfp_package=False)
def evaluate(
    examples: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    baseline: dsl.Input[dsl.Model],
    champion: str,
    protocols: list[str],
    cutoffs: list[int],
    num_bootstrap_samples: int,
    num_example_users: int,
    seed: int,
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
) -> None:
    """Ranks the held-out items with the model, the baselines and the champion, and writes the report.

    Args:
        examples: What generate wrote.
        model: What train wrote.
        baseline: What baseline wrote.
        champion: Another run's `model` folder to rank beside this one; empty for none.
        protocols: The protocols to evaluate; empty for all that the examples have candidates for, and loo-full.
        cutoffs: The k of HR@k and NDCG@k; they must include 10.
        num_bootstrap_samples: Resamplings of the users behind each 95 % interval.
        num_example_users: Users whose history and top ten the report shows.
        seed: Seed of the bootstrap and of the choice of example users.
        evaluation: per_user.parquet (rank of the held-out item per user, protocol and system), metrics.json,
            breakdowns.json, report.html, summary.md, manifest.json.
        metrics: Every metric, named <protocol>/<metric>; those of other systems than the model end in their names.
        report: The report as one HTML file.
        summary: Its tables in Markdown: every system under every protocol, with intervals.
    """
    from pathlib import Path

    from components.evaluate.config import EvaluateConfig
    from components.evaluate.evaluate import evaluate as run
    from components.ncf.step import running_step

    with running_step("evaluate"):
        config = EvaluateConfig(
            protocols=tuple(protocols),
            champion=champion,
            cutoffs=tuple(int(cutoff) for cutoff in cutoffs),
            num_bootstrap_samples=num_bootstrap_samples,
            num_example_users=num_example_users,
            seed=seed,
        )
        flat_metrics = run(config, Path(examples.path), Path(model.path), Path(baseline.path), Path(evaluation.path))
        for name, value in flat_metrics.items():
            metrics.log_metric(name, value)
        Path(report.path).write_bytes((Path(evaluation.path) / "report.html").read_bytes())
        Path(summary.path).write_bytes((Path(evaluation.path) / "summary.md").read_bytes())
