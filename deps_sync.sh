#!/usr/bin/env bash
# Download the files of presets: ./deps_sync.sh PRESET [--update] [--from DIR] [--dry-run | --lock-only]
# Installs uv, pinned with checksums, in .gapforge/tools and runs `gapforge sync`.
set -euo pipefail

root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)
# shellcheck source=scripts/common.sh
source "$root/scripts/common.sh"
tools=$state/tools
pins=$root/tools/requirements.txt

usable() { command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }

python=
if [[ -n ${GAPFORGE_INTERPRETER:-} ]] && ! usable "$GAPFORGE_INTERPRETER"; then
    fail "GAPFORGE_INTERPRETER=$GAPFORGE_INTERPRETER: Python 3.10 이상이 아닙니다" \
        "GAPFORGE_INTERPRETER=$GAPFORGE_INTERPRETER is not Python 3.10 or newer" \
        "unset GAPFORGE_INTERPRETER"
fi
for candidate in ${GAPFORGE_INTERPRETER:+"$GAPFORGE_INTERPRETER"} python3 python3.14 python3.13 \
    python3.12 python3.11 python3.10 /usr/bin/python3; do
    if usable "$candidate"; then
        python=$candidate
        break
    fi
done
[[ -n $python ]] || fail "동기화에는 Python 3.10 이상이 필요합니다(이미지의 Python 버전과는 관계없습니다)" \
    "sync needs Python 3.10 or newer (independent of the Python in the image)" "apt-get install python3"

# Report every missing program before the first long download.
missing=()
for program in curl apt-get dpkg-deb; do
    command -v "$program" >/dev/null 2>&1 || missing+=("$program")
done
((${#missing[@]} == 0)) || fail "설치되지 않은 프로그램: ${missing[*]}" \
    "missing programs: ${missing[*]}" "apt-get install curl apt dpkg"
for program in skopeo mmdebstrap; do # only some presets need them
    command -v "$program" >/dev/null 2>&1 ||
        say "참고: $program이 설치되어 있지 않습니다. 일부 프리셋의 베이스 이미지에 필요합니다: apt-get install $program" \
            "note: $program is not installed; the base images of some presets need it: apt-get install $program"
done

# The tools folder is complete only if its stamp matches, so a killed setup is repeated.
stamp="$tools/.complete"
state_of_tools=$("$python" -c 'import hashlib, sys
pins = open(sys.argv[1], "rb").read()
print(sys.version_info[:2], sys.prefix, hashlib.sha256(pins).hexdigest())' "$pins")
complete() { [[ -f $stamp && $(<"$stamp") = "$state_of_tools" ]]; }

# Runs side by side share the tools, and only one of them installs.
ready=1
if [[ -z ${GAPFORGE_UV:-} && ! " $* " =~ \ (-h|--help|--dry-run)\  ]]; then
    need_state
    lock_folder shared "$tools"
    if ! complete; then
        flock --unlock 9
        lock_folder exclusive "$tools"
        complete || ready=0
    fi
fi
if [[ $ready = 0 ]]; then
    trap 'give_state_to_caller "$python"' EXIT
    [[ ${GAPFORGE_OFFLINE:-} =~ ^(|0|false|no)$ ]] ||
        fail "$tools에 uv가 설치되어 있지 않고 GAPFORGE_OFFLINE이 설정되어 있습니다" \
            "uv is not installed in $tools, and GAPFORGE_OFFLINE is set" \
            "unset GAPFORGE_OFFLINE. 또는 uv를 지정하십시오: GAPFORGE_UV=/path/to/uv" \
            "unset GAPFORGE_OFFLINE; or specify a uv: GAPFORGE_UV=/path/to/uv"
    say "uv를 설치합니다: $tools" "installing uv in $tools"
    renew_folder "$tools" "tools of sync"
    pip=("$tools/bin/python" -m pip)
    if ! "$python" -m venv "$tools" >/dev/null 2>&1; then
        # Debian's python3 needs python3-venv for this, or a pip 22.3 or newer from elsewhere.
        "$python" -m venv --without-pip "$tools" >/dev/null 2>&1 ||
            fail "$python: 가상 환경을 만들지 못했습니다" \
                "$python cannot create a virtual environment" "apt-get install python3-venv"
        pip=("$python" -m pip --python "$tools/bin/python")
        "${pip[@]}" --version >/dev/null 2>&1 ||
            fail "$python: pip이 있는 가상 환경을 만들지 못했습니다" \
                "$python cannot create a virtual environment with pip" "apt-get install python3-venv"
    fi
    arguments=(--quiet --disable-pip-version-check --no-input --require-hashes
        --only-binary ":all:" --no-deps --upgrade)
    if [[ ${GAPFORGE_INDEX_URL:-} == file://* ]]; then # perhaps a folder of wheels
        arguments+=(--find-links "$GAPFORGE_INDEX_URL")
    fi
    [[ -z ${GAPFORGE_CA_BUNDLE:-} ]] || arguments+=(--cert "$GAPFORGE_CA_BUNDLE")
    ( # the address may hold a login, and everyone may read a program's arguments
        [[ -z ${GAPFORGE_INDEX_URL:-} ]] || export PIP_INDEX_URL=$GAPFORGE_INDEX_URL
        "${pip[@]}" install "${arguments[@]}" -r "$pins"
    ) ||
        fail "Python 인덱스에서 uv를 설치하지 못했습니다" \
            "uv cannot be installed from the Python index" \
            "https_proxy, GAPFORGE_INDEX_URL, GAPFORGE_CA_BUNDLE을 확인한 뒤 같은 명령을 다시 실행하십시오.
      또는 uv를 지정하십시오: GAPFORGE_UV=/path/to/uv" \
            "check https_proxy, GAPFORGE_INDEX_URL and GAPFORGE_CA_BUNDLE and run the same command again;
      or specify a uv: GAPFORGE_UV=/path/to/uv"
    sync -f "$tools" # a power cut must not keep the stamp and lose the tools
    printf '%s\n' "$state_of_tools" >"$stamp"
    give_state_to_caller "$python"
    flock --shared 9 # others may use the tools now, but not replace them
fi

[[ ${1:-} != --setup ]] || exit 0 # only install the tools, for ./test

exec "$python" "$root/src/gapforge/__main__.py" sync "$@"
