#!/usr/bin/env bash
# Install the .debs of the role from the flat APT repository in /in/debs. apt verifies the checksums.
# The script changes the stage in which it runs and creates no /out.
#
# Without an argument, it installs the packages that the preset names. With the list of the component libraries, it
# installs the packages of libraries that this image lacks, and keeps the list.
set -euo pipefail
# shellcheck source=components/common.sh
source "$(dirname "$0")/common.sh"

LIST=/usr/share/gapforge/libraries.tsv # in the image; check.py and the report of the build read it

# needed FILE: store in "packages" what the image lacks of the packages in the list, or has older than the builder.
needed() {
    local package version library file found
    local -A installed=() offered=() present=() chosen=() faults=()
    while IFS=$'\t' read -r found package version; do
        if [[ "$found" == installed ]]; then installed[$package]="$version"; fi
    done <<< "$(dpkg-query -W -f '${db:Status-Status}\t${Package}\t${Version}\n')"
    while read -r found package; do
        if [[ "$found" == Package: ]]; then offered[$package]=1; fi
    done <<< "$(cat "$IN/debs/Packages" 2> /dev/null || true)"
    while read -r found _; do
        if [[ -n "$found" ]]; then present[$found]=1; fi
    done <<< "$(ldconfig -p 2> /dev/null || true)"
    while IFS=$'\t' read -r package version library file; do
        # What no package owns, and what the base image has from elsewhere, is for the check of the finished image.
        if [[ "$package" == - || -n "${chosen[$package]:-}" ]]; then continue; fi
        found="${installed[$package]:-}"
        if [[ -n "$found" ]]; then
            if [[ "$found" == "$version" ]] || dpkg --compare-versions "$found" ge "$version"; then continue; fi
            if [[ -z "${offered[$package]:-}" ]]; then continue; fi
        elif [[ -n "${present[$library]:-}" ]]; then
            continue
        elif [[ -z "${offered[$package]:-}" ]]; then
            # A Python package may have plug-ins that it can do without; the check of the finished image knows them.
            if [[ "$file" == *-packages/* ]]; then
                say "apt: $file needs $library of $package, which is not there"
            else
                : "${faults["$package $library"]:="$file needs $library of the package $package"}"
            fi
            continue
        fi
        chosen[$package]=1
        packages+=("$package")
    done < "$1"
    if ((${#faults[@]} > 0)); then
        printf 'gapforge: error: apt: %s\n' "${faults[@]}" | sort >&2
        die "apt: neither the runtime base image nor the .debs of the runtime image contain this. Add the packages" \
            "above to apt.runtime of the preset, and synchronise again with --update"
    fi
    install -D -m 644 "$1" "$LIST"
}

packages=()
if (($# > 0)); then needed "$1"; else param_list packages packages; fi
if ((${#packages[@]} == 0)) || [[ -z "$(find "$IN/debs" -maxdepth 1 -name '*.deb' -print -quit 2> /dev/null)" ]]; then
    say "apt: nothing to install"
    exit 0
fi
command -v apt-get > /dev/null || die "apt: the base image has no apt-get; use a base image that contains apt"
[[ -f "$IN/debs/Packages" ]] || die "apt: $IN/debs has no Packages index"

# Let apt write to a temporary folder only: /in is read-only, and the image must not contain lists or a cache. The
# configuration, preferences and hooks of the base image do not apply: they may refuse the packages, delete files or
# start downloads. apt reads them after APT_CONFIG and they would win, so point apt to empty places instead.
state="$(mktemp -d)"
mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/log" "$state/none" "$state/home"
printf 'deb [trusted=yes] file:%s/debs ./\n' "$IN" > "$state/sources.list"
cat > "$state/apt.conf" << CONF
Dir::Etc::parts "$state/none";
Dir::Etc::main "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "$state/none";
Dir::Etc::sourcelist "$state/sources.list";
Dir::Etc::sourceparts "$state/none";
Dir::Etc::netrc "/dev/null";
Dir::Etc::netrcparts "$state/none";
Dir::State::lists "$state/lists";
Dir::Cache "$state/cache";
Dir::Log "$state/log";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Sandbox::User "root";
APT::Get::Assume-Yes "true";
Acquire::Languages "none";
Acquire::http::Proxy "http://127.0.0.1:9";
Acquire::https::Proxy "http://127.0.0.1:9";
Dpkg::Use-Pty "0";
DPkg::Options { "--force-confold"; "--force-unsafe-io"; };
CONF
export APT_CONFIG="$state/apt.conf" DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true TZ=Etc/UTC
unset DPKG_FORCE DPKG_ROOT DPKG_ADMINDIR

# dpkg always reads its configuration in /etc. Keep only what says which files the image contains (path-exclude,
# path-include) while the packages are installed, and restore the files afterwards.
dpkg_files=()
for file in /etc/dpkg/dpkg.cfg /etc/dpkg/dpkg.cfg.d/*; do
    if [[ -f "$file" ]]; then dpkg_files+=("$file"); fi
done
for number in "${!dpkg_files[@]}"; do
    file="${dpkg_files[number]}"
    cp -p "$file" "$state/dpkg-$number"
    grep -E '^[[:blank:]]*path-(exclude|include)[=[:blank:]]' "$state/dpkg-$number" > "$file" || true
    cp "$file" "$state/dpkg-$number.used"
done

say "apt: ${packages[*]}"
# dpkg reads .dpkg.cfg in the home folder too.
HOME="$state/home" apt-get -qq update
# Do not use --no-download: with a file: source, apt then fails with "Pathname to install is not absolute".
HOME="$state/home" apt-get -qq install --no-install-recommends -- "${packages[@]}"

# A package may have brought a new version of a file; that version stays.
for number in "${!dpkg_files[@]}"; do
    file="${dpkg_files[number]}"
    if cmp -s "$file" "$state/dpkg-$number.used"; then cp -p "$state/dpkg-$number" "$file"; fi
done
rm -rf "$state" /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/cache/ldconfig/aux-cache \
    /var/log/alternatives.log
say "apt: $(dpkg-query -f '.\n' -W | wc -l) packages in the image"
