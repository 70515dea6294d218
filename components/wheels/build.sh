#!/usr/bin/env bash
# Install the wheels of the preset into /out/dev; pip verifies each checksum. /out/runtime is equal, but for the files
# that the preset leaves out (not-in-runtime).
set -euo pipefail
# shellcheck source=components/common.sh
source "$(dirname "$0")/common.sh"
begin wheels

requirements="$IN/requirements.txt"
[[ -f "$requirements" ]] || requirements="$IN/wheels/requirements.txt"
if [[ -f "$requirements" ]] && grep -qE '^[A-Za-z0-9]' "$requirements"; then
    pip_install --quiet --require-hashes --find-links "$IN/wheels" -r "$requirements"
    # Compile to byte code that is validated by the hash of its source, so that it contains no time stamp. The user of
    # the runtime image cannot write there and would compile at every start. Ignore files for other Python versions.
    python3 -I -m compileall -q --invalidation-mode checked-hash -s "$OUT/dev" "$OUT/dev$(dist_packages)" > /dev/null || true
else
    say "wheels: the preset lists no packages"
fi
split_runtime

# Install pip after the split, so that only the dev image contains it, unless the preset has a pip of its own.
if ! compgen -G "$IN/wheels/pip-*.whl" > /dev/null && compgen -G "$IN/installer/pip-*.whl" > /dev/null; then
    pip_install --quiet "$IN"/installer/pip-*.whl
fi
finish
