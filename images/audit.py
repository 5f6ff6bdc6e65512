"""Looks the locks of the images up among the known vulnerabilities: python -m images.audit [--required]

Ends with 1 where a package has one. Where pip-audit does not reach its data nothing is audited, and that is said: with
--required it is an error, as in Cloud Build.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from images.table import IMAGES

_SHOWN_CHARS = 300


def audit(lock: Path) -> tuple[list[str], int, int]:
    """Returns a sentence for each vulnerability, and how many packages were and were not looked up."""
    command = [str(Path(sys.executable).parent / "pip-audit"), "--no-deps", "--disable-pip", "--format", "json"]
    result = subprocess.run([*command, "--requirement", str(lock)], capture_output=True, text=True)
    try:
        packages = json.loads(result.stdout)["dependencies"]
    except ValueError:
        sys.stderr.write(f"{lock.name}: {result.stderr.strip()[-_SHOWN_CHARS:]}\n")
        return [], 0, 1
    found = [
        f"{lock.name}: {package['name']} {package['version']} has {problem['id']}"
        + (f", mended in {', '.join(problem['fix_versions'])}" if problem["fix_versions"] else "")
        for package in packages
        for problem in _problems(package)
    ]
    num_skipped = sum("skip_reason" in package for package in packages)
    return found, len(packages) - num_skipped, num_skipped


def _problems(package: dict[str, Any]) -> list[dict[str, Any]]:
    problems: list[dict[str, Any]] = package.get("vulns", [])
    return problems


def main() -> None:
    """Runs the command line."""
    is_required = "--required" in sys.argv[1:]
    results = [audit(lock) for lock in sorted(IMAGES.glob("requirements/*.txt"))]
    found = [sentence for sentences, _, _ in results for sentence in sentences]
    num_audited = sum(audited for _, audited, _ in results)
    num_skipped = sum(skipped for _, _, skipped in results)
    sys.stdout.write(f"audit: {num_audited} packages looked up, {num_skipped} not, {len(found)} vulnerabilities\n")
    if num_skipped:
        sys.stdout.write("audit: pip-audit did not reach its data for those: nothing is known of them\n")
    if found or (is_required and num_skipped):
        sys.exit("\n".join(found) or "error: the audit is not complete")


if __name__ == "__main__":
    main()
