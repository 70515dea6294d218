#!/usr/bin/env bash
# Find the packages of the builder that own the libraries which the files of the runtime image need, and write them to
# /out/libraries.tsv: package, version, library and file on each line. The stage mounts the runtime tree of each component
# in /trees. The component apt installs what the runtime base image lacks of these packages.
set -euo pipefail
# shellcheck source=components/common.sh
source "$(dirname "$0")/common.sh"
begin libraries

python3 -I "$(dirname "$0")/find_libraries.py" /trees > "$OUT/libraries.tsv"
finish
say "libraries: $(cut -f 1 "$OUT/libraries.tsv" | sort -u | paste -sd ' ')"
