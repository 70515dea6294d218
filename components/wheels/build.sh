#!/usr/bin/env bash
# Install the preset's wheels, each hash checked by pip, into /out/dev; /out/runtime is the same without headers.
set -euo pipefail
# shellcheck source=components/common.sh
source "$(dirname "$0")/common.sh"
begin wheels

requirements="$IN/requirements.txt"
[[ -f "$requirements" ]] || requirements="$IN/wheels/requirements.txt"
if [[ -f "$requirements" ]] && grep -qE '^[A-Za-z0-9]' "$requirements"; then
    pip_install --quiet --require-hashes --find-links "$IN/wheels" -r "$requirements"
    # Byte code that is checked by the source's hash: no time stamp in it, and the runtime's user, who cannot write
    # there, does not compile again at every start. Files for other Pythons may not compile; that is their business.
    python3 -I -m compileall -q --invalidation-mode checked-hash -s "$OUT/dev" "$OUT/dev$(dist_packages)" > /dev/null || true
else
    say "wheels: no packages asked for"
fi
split_runtime

# pip itself: for developers only.
if compgen -G "$IN/wheels/pip-*.whl" > /dev/null; then pip_install --quiet "$IN"/wheels/pip-*.whl; fi
finish
