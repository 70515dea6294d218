#!/usr/bin/env bash
# Install the .debs of the role from the flat APT repository in /in/debs. apt verifies the checksums.
# The script changes the stage in which it runs and creates no /out.
set -euo pipefail
# shellcheck source=components/common.sh
source "$(dirname "$0")/common.sh"

packages=()
param_list packages packages
if [[ -z "$(find "$IN/debs" -maxdepth 1 -name '*.deb' -print -quit 2> /dev/null)" ]]; then
    say "apt: nothing to install"
    exit 0
fi
((${#packages[@]} > 0)) || die "apt: $IN/debs contains packages, but the preset lists none"
command -v apt-get > /dev/null || die "apt: the base image has no apt-get; use a base image that contains apt"
[[ -f "$IN/debs/Packages" ]] || die "apt: $IN/debs has no Packages index"

# Let apt write to a temporary folder only: /in is read-only, and the image must not contain lists or a cache.
state="$(mktemp -d)"
mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/none"
printf 'deb [trusted=yes] file:%s/debs ./\n' "$IN" > "$state/sources.list"
# "#clear" removes the hooks of a base image, which may delete files or start downloads.
cat > "$state/apt.conf" << CONF
Dir::Etc::sourcelist "$state/sources.list";
Dir::Etc::sourceparts "$state/none";
Dir::State::lists "$state/lists";
Dir::Cache "$state/cache";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Sandbox::User "root";
APT::Get::Assume-Yes "true";
Acquire::Languages "none";
Acquire::http::Proxy "http://127.0.0.1:9";
Acquire::https::Proxy "http://127.0.0.1:9";
Dpkg::Use-Pty "0";
DPkg::Options { "--force-confold"; "--force-unsafe-io"; };
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
CONF
export APT_CONFIG="$state/apt.conf" DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true TZ=Etc/UTC

say "apt: ${packages[*]}"
apt-get -qq update
# Do not use --no-download: with a file: source, apt then fails with "Pathname to install is not absolute".
apt-get -qq install --no-install-recommends -- "${packages[@]}"

rm -rf "$state" /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/cache/ldconfig/aux-cache \
    /var/log/apt /var/log/dpkg.log /var/log/alternatives.log /var/log/bootstrap.log
say "apt: $(dpkg-query -f '.\n' -W | wc -l) packages in the image"
