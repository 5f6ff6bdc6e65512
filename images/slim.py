"""Removes from an environment what no step uses: python slim.py ENVIRONMENT. Standard library only."""

import shutil
import sys
from pathlib import Path

# Patterns below site-packages.
_UNUSED = (
    # To compile against the libraries.
    "tensorflow/include",
    "tensorflow/xla_aot_runtime_src",
    "numpy/_core/include",
    "numpy/_core/lib/*.a",
    "numpy/random/lib/*.a",
    "pyarrow/include",
    "pyarrow/src",
    "pyarrow/**/*.pxd",
    "pyarrow/**/*.pyx",
    "pyarrow/**/*.pxi",
    "**/*.pyi",
    # Tests of the packages.
    "apache_beam/**/*_test.py",
    "apache_beam/testing/data",
    "kfp/**/*_test.py",
    "numpy/**/tests",
    "pyarrow/tests",
    "h5py/tests",
    "google/**/tests",
)


def main() -> None:
    """Removes them."""
    (packages,) = Path(sys.argv[1]).glob("lib/python3.*/site-packages")
    for pattern in _UNUSED:
        for path in packages.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


if __name__ == "__main__":
    main()
