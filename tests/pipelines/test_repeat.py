"""The command in a report repeats its run."""

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest


def digests(page: str) -> list[str]:
    return re.findall(r"<dd class=\"digest\">(\w+)</dd>", page)


@pytest.mark.slow
def test_the_command_in_a_report_gives_the_same_digests(
    smoke_run: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    run_dir, _ = smoke_run
    summary = json.loads((run_dir / "summary.json").read_text())
    page = Path(summary["report"]).read_text()
    (command,) = (html.unescape(text) for text in re.findall(r"<pre[^>]*><code>(.*?)</code></pre>", page, re.S))
    assert len(digests(page)) == 3
    program = Path(sys.executable).parent / "neumf"
    script = f"neumf() {{ '{program}' \"$@\" --run-dir '{tmp_path / 'again'}'; }}\n{command}"
    finished = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, cwd=tmp_path)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    again = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert again["metrics"] == summary["metrics"]
    repeated = Path(again["report"]).read_text()
    assert digests(repeated) == digests(page)
    assert f"<code>{html.escape(command, quote=False)}</code>" in html.unescape(repeated)


def test_a_report_reaches_kfp_as_markdown_too(smoke_run: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    run_dir, _ = smoke_run
    (shown,) = run_dir.glob("artifacts/*/evaluate/summary")
    (kept,) = run_dir.glob("artifacts/*/evaluate/evaluation/summary.md")
    assert shown.read_bytes() == kept.read_bytes()
    metrics = json.loads((run_dir / "summary.json").read_text())["metrics"]
    row = next(line for line in shown.read_text().splitlines() if line.startswith("| NeuMF |"))
    assert f" {metrics['loo-99']['hr@10']:.3f} (" in row
