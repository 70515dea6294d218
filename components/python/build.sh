#!/usr/bin/env bash
# Make the preset's Python python and python3 in /usr/local/bin. It changes the stage itself and leaves no /out.
#
# /usr/local/bin stands before /usr/bin on PATH. /usr/bin/python3 stays the system's: its tools import modules
# (apt_pkg) that exist for that version only.
set -euo pipefail
# shellcheck source=components/common.sh
source "$(dirname "$0")/common.sh"

version="$(param python)"
[[ -n "$version" ]] || die "python: the option \"python\" is missing"
program="/usr/bin/python$version"
if [[ ! -x "$program" ]]; then
    present="$(find /usr/bin -maxdepth 1 -name 'python3.*' ! -name '*-config' -printf '%f ' 2> /dev/null)"
    die "python: $program is missing (this image has: ${present:-no Python}); add python$version to apt.builder and" \
        "apt.runtime of the preset, with an APT source that has it, and synchronise again"
fi

# A name of its own: an alternative called "python3" may exist with /usr/bin/python3 as its link, and would be moved.
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
