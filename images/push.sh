#!/usr/bin/env bash
# Pushes images and writes how a pipeline refers to them, for `neumf compile --image-digests-file`: images/push.sh FILE.json SET…
#
#   REGISTRY  where the names begin
#   TAG       the tag that images/build.sh gave
#   CACHE     a tag that moves with each push, for the next build's layers; nothing if not set
set -euo pipefail

file=$1
shift
mkdir -p "$(dirname "$file")"
separator="{"
: >"$file.partial"
for set_name in "$@"; do
  docker push "$REGISTRY/$set_name:$TAG"
  if [[ -n ${CACHE:-} ]]; then
    docker push "$REGISTRY/$set_name-dependencies:$CACHE"
    docker tag "$REGISTRY/$set_name:$TAG" "$REGISTRY/$set_name:$CACHE"
    docker push "$REGISTRY/$set_name:$CACHE"
  fi
  digest=$(docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$REGISTRY/$set_name:$TAG" | grep -m 1 "$REGISTRY/$set_name@")
  printf '%s\n  "%s": "%s"' "$separator" "$set_name" "$digest" >>"$file.partial"
  separator=,
done
printf '\n}\n' >>"$file.partial"
mv "$file.partial" "$file"
