"""Runs an image's tests inside it: python -m images.run_tests SET [PYTEST OPTION…]."""

import sys

import pytest

from images.table import ROOT, read_images


def main() -> None:
    """Exits as pytest does."""
    image = read_images()[sys.argv[1]]
    options = ["-p", "no:cacheprovider", "--rootdir", str(ROOT), "-m", "not slow"]
    sys.exit(pytest.main([*options, *image.tests, "images/tests", *sys.argv[2:]]))


if __name__ == "__main__":
    main()
