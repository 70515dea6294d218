#!/usr/bin/env bash
# Fetches everything that presets need: ./deps_sync.sh PRESET [--update] [--from DIR] [--dry-run | --lock-only]
# Sets up its own tools (uv, pinned with hashes) in .gapforge/tools, then hands over to `gapforge sync`.
set -euo pipefail

here=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)
tools=${GAPFORGE_ROOT:-$here}/.gapforge/tools
pins=$here/tools/requirements.txt

fail() { # message, next command; exit code 17 is "tool" (gapforge --help lists them all)
    printf 'error: %s\nnext: %s\n' "$1" "$2" >&2
    exit 17
}

usable() { command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }

python=
if [[ -n ${GAPFORGE_INTERPRETER:-} ]] && ! usable "$GAPFORGE_INTERPRETER"; then
    fail "GAPFORGE_INTERPRETER=$GAPFORGE_INTERPRETER is not a Python 3.10 or newer" "unset GAPFORGE_INTERPRETER"
fi
for candidate in ${GAPFORGE_INTERPRETER:+"$GAPFORGE_INTERPRETER"} python3 python3.14 python3.13 python3.12 python3.11 python3.10 /usr/bin/python3; do
    if usable "$candidate"; then
        python=$candidate
        break
    fi
done
[[ -n $python ]] || fail "Python 3.10 or newer is needed to fetch (any; the image's own Python is another matter)" \
    "apt-get install python3"

# Everything that may be needed later is said now, before the first long download.
missing=()
for program in curl apt-get dpkg-deb; do
    command -v "$program" >/dev/null 2>&1 || missing+=("$program")
done
((${#missing[@]} == 0)) || fail "missing programs: ${missing[*]}" "apt-get install curl apt dpkg"
for program in skopeo mmdebstrap; do # only some presets need them; sync names them again where it does
    command -v "$program" >/dev/null 2>&1 ||
        printf 'note: %s is not installed; presets whose base image needs it will ask for: apt-get install %s\n' "$program" "$program" >&2
done

# The tools folder is complete only when its stamp equals the pins, so a killed setup is done again.
stamp="$tools/.complete"
state=$("$python" -c 'import hashlib, sys; print(sys.version_info[:2], sys.prefix, hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$pins")
if [[ -z ${GAPFORGE_UV:-} && ! " $* " =~ \ (-h|--help|--dry-run)\  ]] && [[ ! -f $stamp || $(<"$stamp") != "$state" ]]; then
    [[ ${GAPFORGE_OFFLINE:-} =~ ^(|0|false|no)$ ]] ||
        fail "uv is not set up in $tools, and GAPFORGE_OFFLINE is set" "unset GAPFORGE_OFFLINE; or name a uv: GAPFORGE_UV=/path/to/uv"
    echo "setting up uv in $tools" >&2
    if [[ -e $tools && ! -f $tools/.gapforge-folder ]]; then
        fail "$tools exists and was not made by gapforge" "move it away: mv '$tools' '$tools.old'"
    fi
    rm -rf -- "$tools"
    mkdir -p -- "$tools"
    echo "gapforge may delete this folder: tools of sync" >"$tools/.gapforge-folder"
    pip=("$tools/bin/python" -m pip)
    if ! "$python" -m venv "$tools" >/dev/null 2>&1; then
        # Debian's python3 makes virtual environments only with python3-venv; a pip from elsewhere (22.3 or newer) does too.
        "$python" -m venv --without-pip "$tools" >/dev/null 2>&1 || fail "$python cannot make a virtual environment" "apt-get install python3-venv"
        pip=("$python" -m pip --python "$tools/bin/python")
        "${pip[@]}" --version >/dev/null 2>&1 || fail "$python cannot make a virtual environment with pip" "apt-get install python3-venv"
    fi
    arguments=(--quiet --disable-pip-version-check --no-input --require-hashes --only-binary ":all:" --no-deps --upgrade)
    [[ -z ${GAPFORGE_INDEX_URL:-} ]] || arguments+=(--index-url "$GAPFORGE_INDEX_URL")
    [[ -z ${GAPFORGE_CA_BUNDLE:-} ]] || arguments+=(--cert "$GAPFORGE_CA_BUNDLE")
    "${pip[@]}" install "${arguments[@]}" -r "$pins" ||
        fail "uv could not be installed from the Python index" \
            "check https_proxy, GAPFORGE_INDEX_URL and GAPFORGE_CA_BUNDLE, then run the same command again; or name a uv: GAPFORGE_UV=/path/to/uv"
    printf '%s\n' "$state" >"$stamp"
fi

[[ ${1:-} != --setup ]] || exit 0 # the tools alone, for ./test

exec "$python" "$here/gapforge.py" sync "$@"
