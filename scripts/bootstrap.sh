#!/usr/bin/env bash
# Install missing programs on Debian 12 and Ubuntu 22.04:
#
#   scripts/bootstrap.sh sync     for ./deps_sync.sh: apt tools, skopeo, mmdebstrap, curl
#   scripts/bootstrap.sh build    Docker, unless it is installed
#   scripts/bootstrap.sh test     for ./test, with pinned Python tools in .gapforge/
#   scripts/bootstrap.sh all      all of these
#
# Packages come from the repositories of the distribution. A second run installs nothing and does
# not use the network. --print-packages only prints the packages. Exits with 17 on failure.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
readonly root

# shellcheck source=scripts/common.sh
source "$root/scripts/common.sh"

have() { command -v "$1" >/dev/null 2>&1; }

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# Add the package of a program that is missing.
want_program() { # want_program PROGRAM PACKAGE
    PATH="$PATH:/usr/sbin:/sbin" have "$1" || packages+=("$2")
}

want_package() { installed "$1" || packages+=("$1"); }

packages=()
policy=/usr/sbin/policy-rc.d
policy_mark="# by scripts/bootstrap.sh of gapforge, while it installs packages"
lock=/run/gapforge-bootstrap.lock

want_sync() {
    want_program skopeo skopeo
    want_program mmdebstrap mmdebstrap
    want_program curl curl
    want_program git git
    want_program ssh-keygen openssh-client
    want_program xz xz-utils
    want_program zstd zstd
    want_program gpg gpg
    want_program apt-ftparchive apt-utils
    want_package ca-certificates
    # The base image of the practice preset is Debian 12, and Ubuntu does not have Debian's keys.
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || want_package debian-archive-keyring
    want_python
}

want_build() {
    # Keep an installed Docker: docker.io and docker-ce exclude each other.
    have_docker || packages+=(docker.io)
    want_program unshare util-linux
    want_program mount mount
    want_program ssh-keygen openssh-client  # for signatures
}

have_docker() {
    PATH="$PATH:/usr/sbin:/sbin" have dockerd && have docker && return 0
    have docker && timeout 20 docker info --format '{{.ServerVersion}}' >/dev/null 2>&1
}

want_test() {
    want_program shellcheck shellcheck
    want_program gcc gcc  # tests/live makes small GPU libraries
    want_program git git
    want_program curl curl
    want_program skopeo skopeo
    want_program zstd zstd
    want_program rsync rsync
    want_program docker-registry docker-registry  # tests/live downloads images from one on loopback
    # File systems of sticks, mounted through FUSE.
    want_program mkfs.vfat dosfstools
    want_program mcopy mtools
    want_program fusefat fusefat
    want_program mkfs.exfat exfatprogs
    want_program mount.exfat-fuse exfat-fuse
    want_program ssh-keygen openssh-client
    want_package ca-certificates
    want_python
}

want_python() {
    if ! have python3; then
        packages+=(python3 python3-venv)
    elif ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        packages+=(python3-venv)
    fi
}

# Remove the policy that keeps services from starting, if it is of this script; a killed run left it.
remove_policy() { # remove_policy [sudo]
    if [ -e "$policy" ] && [[ $(<"$policy") == *"$policy_mark"* ]]; then "$@" rm -f "$policy"; fi
}

install_packages() {
    local -a wanted as_root=()
    mapfile -t wanted < <(printf '%s\n' "${packages[@]}" | sort -u)
    have apt-get || fail "apt-get이 없습니다. Debian 12 또는 Ubuntu 22.04에서 설치하십시오: ${wanted[*]}" \
        "apt-get not found; install on Debian 12 or Ubuntu 22.04: ${wanted[*]}"
    if [ "$(id -u)" != 0 ]; then
        if have sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
            as_root=(sudo)
        else
            fail "root 권한이 필요합니다. 관리자에게 요청하십시오: apt-get install ${wanted[*]}" \
                "root or sudo is required; ask an administrator: apt-get install ${wanted[*]}"
        fi
    fi
    say "설치합니다: ${wanted[*]}" "installing: ${wanted[*]}"
    # One run at a time: each would remove the policy of the other. The lock ends with this shell.
    coproc LOCK { "${as_root[@]}" flock "$lock" sh -c 'echo locked; exec cat' 2>&1; }
    local answer=
    read -r answer <&"${LOCK[0]}" || true
    [ "$answer" = locked ] || fail "잠글 수 없습니다: $lock" "cannot lock $lock: $answer"
    if [ ! -d /run/systemd/system ]; then
        remove_policy "${as_root[@]}"
        if [ ! -e "$policy" ]; then
            # Without an init system, packages that start a service may fail to install.
            printf '#!/bin/sh\n%s\nexit 101\n' "$policy_mark" | "${as_root[@]}" tee "$policy" >/dev/null
            "${as_root[@]}" chmod 755 "$policy"
            # shellcheck disable=SC2064 # expand the variables now
            trap "remove_policy ${as_root[*]}" EXIT
        fi
    fi
    local -a apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -o DPkg::Lock::Timeout=300)
    # Continue if a third-party source does not respond: only the installation has to work.
    "${apt[@]}" -qq update >&2 ||
        say "apt-get update가 일부 실패했습니다. 계속합니다." "apt-get update failed in part; continuing"
    "${apt[@]}" -qq install --no-install-recommends "${wanted[@]}" >&2 ||
        fail "패키지를 설치하지 못했습니다(Ubuntu에서는 universe 저장소가 필요합니다): ${wanted[*]}" \
            "cannot install (Ubuntu needs the universe repository): ${wanted[*]}"
    if [[ " ${wanted[*]} " == *" docker-registry "* ]] && [ -d /run/systemd/system ]; then
        # The package starts a registry on all addresses; the tests start their own.
        "${as_root[@]}" systemctl --quiet disable --now docker-registry >&2 || true
    fi
}

# Create a virtual environment of a requirements file, unless it is up to date.
make_venv() { # make_venv FOLDER PYTHON REQUIREMENTS
    local folder=$1 python=$2 requirements=$3 stamp base
    # In an activated environment "python3" may be the one that is replaced here.
    base=$("$python" -c 'import sys
print("%s/bin/python%d.%d" % (sys.base_prefix, *sys.version_info[:2]))')
    [ ! -x "$base" ] || python=$base
    stamp="$("$python" -c 'import sys; print(sys.version, sys.executable)') $(sha256sum <"$requirements")"
    need_state
    lock_folder exclusive "$folder"
    if [ -x "$folder/bin/python" ] && [ "$(cat "$folder/.stamp" 2>/dev/null)" = "$stamp" ]; then
        return 0
    fi
    say "Python 도구를 설치합니다: ${folder#"$root"/}" "installing Python tools: ${folder#"$root"/}"
    # Version 0.1 wrote no marker, only the stamp of a finished installation.
    [ ! -f "$folder/.stamp" ] || touch -- "$folder/.gapforge-folder"
    renew_folder "$folder" "Python tools"
    "$python" -m venv "$folder" >&2
    # pip refuses a constraints file without checksums together with --require-hashes. The files list
    # every package that is needed.
    env -u PIP_CONSTRAINT "$folder/bin/python" -m pip install -qq --disable-pip-version-check \
        --no-input --no-deps --require-hashes --only-binary :all: -r "$requirements" >&2 ||
        fail "Python 도구를 설치하지 못했습니다: $requirements" \
            "cannot install the Python tools: $requirements"
    sync -f "$folder" # a power cut must not keep the stamp and lose the tools
    printf '%s\n' "$stamp" >"$folder/.stamp"
    give_state_to_caller "$python"
}

# Print a Python 3.10, as sites have it, if this machine has one.
find_python310() {
    local candidate
    for candidate in python3.10 /usr/bin/python3.10 /usr/local/bin/python3.10 \
        "$HOME"/.pyenv/versions/3.10.*/bin/python3.10; do
        if "$candidate" -c 'import ensurepip, sys; assert sys.version_info[:2] == (3, 10)' \
            2>/dev/null; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
}

main() {
    local -a parts=()
    local part print_only=0 python310
    for part in "$@"; do
        case "$part" in
            sync | build | test) parts+=("$part") ;;
            mutants) parts+=(test mutants) ;;
            all) parts+=(sync build test) ;;
            --print-packages) print_only=1 ;;
            *)
                say "오류: 알 수 없는 인자입니다: $part (sync, build, test, mutants, all 중 하나)" \
                    "error: unknown argument: $part (expected sync, build, test, mutants or all)"
                exit 2
                ;;
        esac
    done
    [ "${#parts[@]}" -gt 0 ] || parts=(sync build)
    for part in "${parts[@]}"; do
        [ "$part" = mutants ] || "want_$part"
    done
    if [ "$print_only" = 1 ]; then
        [ "${#packages[@]}" = 0 ] || printf '%s\n' "${packages[@]}" | sort -u
        return 0
    fi
    if [ "${#packages[@]}" != 0 ]; then
        install_packages
    elif [ "$(id -u)" = 0 ]; then
        remove_policy
    else
        ! have sudo || remove_policy sudo -n || true
    fi
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        fail "Python 3.10 이상이 필요합니다. 현재: $(python3 --version)" \
            "Python 3.10 or newer is required; found: $(python3 --version)"
    for part in "${parts[@]}"; do
        if [ "$part" = mutants ]; then
            make_venv "$root/.gapforge/mutants" python3 "$root/tests/requirements-mutants.txt"
        fi
        [ "$part" = test ] || continue
        make_venv "$state/tests" python3 "$root/tests/requirements.txt"
        python310=$(find_python310)
        if [ -n "$python310" ] && ! python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))'; then
            make_venv "$state/tests-3.10" "$python310" "$root/tests/requirements.txt"
        fi
    done
}

main "$@"
