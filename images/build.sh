#!/usr/bin/env bash
# Builds one image and runs its tests in it: images/build.sh SET
#
#   REGISTRY    where its name begins, "neumf-python" if not set
#   TAG         "latest" if not set
#   BASE_IMAGE  another base than the Dockerfile's: Debian bookworm with Python 3.11
#   CACHE_FROM  a tag of the same registry whose layers may be used again; the layers of this build are then marked for reuse too
#   TESTS       "false" leaves its tests out, as for an accelerator's image where a build has no accelerator
#   VERSION, REVISION, SOURCE  what its labels say; the checkout's own if not set
set -euo pipefail
cd "$(dirname "$0")/.."

set_name=$1
registry=${REGISTRY:-neumf-python}
image=$registry/$set_name:${TAG:-latest}

from_checkout() { git "$@" 2>/dev/null || echo unknown; }
version=${VERSION:-$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)}
revision=${REVISION:-$(from_checkout rev-parse HEAD)}
# A remote of this machine says nothing to others; credentials in an address stay here.
origin=$(from_checkout config --get remote.origin.url | sed -e 's#//[^/@]*@#//#' -e '\#://#!s/.*/unknown/')
source=${SOURCE:-$origin}

# `neumf run --runner docker` compares it with its own code (pipelines/containers.py), for an image that is older.
code=$(find components -type f -not -path '*/__pycache__/*' -not -path '*/.*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum)
code=${code%% *}

options=(--file images/Dockerfile --build-arg "SET=$set_name")
if [[ -n ${BASE_IMAGE:-} ]]; then options+=(--build-arg "BASE_IMAGE=$BASE_IMAGE"); fi
labels=(--build-arg "VERSION=$version" --build-arg "REVISION=$revision" --build-arg "SOURCE=$source" --build-arg "CODE=$code")

if [[ -n ${CACHE_FROM:-} ]]; then
  # The dependencies are a stage of their own that the image only copies from: its layers are kept under a name of their own.
  cached=$registry/$set_name-dependencies:$CACHE_FROM
  options+=(--cache-from "$cached" --cache-from "$registry/$set_name:$CACHE_FROM" --build-arg BUILDKIT_INLINE_CACHE=1)
  docker build "${options[@]}" --target dependencies --tag "$cached" .
fi
if [[ ${TESTS:-true} != false ]]; then docker build "${options[@]}" --target test --tag "$image-test" .; fi
docker build "${options[@]}" "${labels[@]}" --tag "$image" .
