#!/usr/bin/env bash
# Install the Python of the preset as python and python3 in /usr/local/bin. The script changes the stage in which it
# runs and creates no /out.
#
# /usr/local/bin precedes /usr/bin on PATH. /usr/bin/python3 is not changed, because system tools import modules
# (apt_pkg) that exist only for its version.
set -euo pipefail
# shellcheck source=components/common.sh
source "$(dirname "$0")/common.sh"

version="$(param python)"
[[ -n "$version" ]] || die "python: the option \"python\" is missing"
program="/usr/bin/python$version"
if [[ ! -x "$program" ]]; then
    present="$(find /usr/bin -maxdepth 1 -name 'python3.*' ! -name '*-config' -printf '%f ' 2> /dev/null)"
    die "python: $program is missing (this image has: ${present:-no Python}); use another python.version in" \
        "the preset, or add an archive that has python$version to apt.sources, and synchronise again"
fi

# Use a separate name. An alternative "python3" may exist whose link is /usr/bin/python3, and it would be moved.
update-alternatives --quiet --install /usr/local/bin/python3 gapforge-python "$program" 100 \
    --slave /usr/local/bin/python gapforge-python-unversioned "$program"
update-alternatives --quiet --set gapforge-python "$program"
rm -f /var/log/alternatives.log

hash -r
for name in python python3; do
    found="$("$name" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
    [[ "$found" == "$version" ]] || die "python: \"$name\" is $(command -v "$name"), version $found, not $version"
done
say "python: python and python3 are $program ($("$program" --version))"
