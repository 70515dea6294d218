# Functions of deps_sync.sh and scripts/bootstrap.sh. The caller sets "root", the project folder.
# shellcheck shell=bash

state=${GAPFORGE_ROOT:-$root}/.gapforge

case "${GAPFORGE_LANG:-${LC_ALL:-${LC_MESSAGES:-${LANG:-}}}}" in ko*) korean=1 ;; *) korean=0 ;; esac

say() { # say KOREAN ENGLISH
    if [[ $korean = 1 ]]; then printf '%s\n' "$1" >&2; else printf '%s\n' "$2" >&2; fi
}

fail() { # fail KOREAN ENGLISH [NEXT [NEXT-IN-ENGLISH]]; exit code 17 is "tool"
    say "오류: $1" "error: $2"
    [[ $# -lt 3 ]] || say "다음: $3" "next: ${4:-$3}"
    exit 17
}

# Print a word so that it can be pasted into a shell, whatever is in it.
quoted() { # quoted WORD
    if [[ $1 =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]]; then
        printf '%s' "$1"
    else
        printf "'%s'" "${1//\'/\'\\\'\'}"
    fi
}

# Create the folder of working files, or say whose it is and what gives it to this user.
need_state() {
    local place=$state owner command
    if ! mkdir -p -- "$state" 2>/dev/null; then place=$(dirname -- "$state"); fi
    [[ ! -w $place || $place != "$state" ]] || return 0
    owner=$(stat -c %U -- "$place")
    command="sudo chown -R \"\$(id -u):\$(id -g)\" $(quoted "$place")"
    fail "$place: 쓸 수 없습니다. 소유자는 ${owner}입니다" "$place cannot be written; it belongs to $owner" "$command"
}

# Under sudo, give the working files to the caller; the function is that of gapforge.
give_state_to_caller() { # give_state_to_caller PYTHON
    [[ -z ${SUDO_UID:-} ]] || "$1" -I -B -c 'import pathlib, sys
sys.path.insert(0, sys.argv[1])
from gapforge.base.sudo_caller import give_to_caller
state = pathlib.Path(sys.argv[2])
give_to_caller(state, keep={state / "engine"})' "$root/src" "$state" || true
}

# Lock a folder of working files until this shell, and the program that replaces it, ends: "shared"
# to use the folder, "exclusive" to replace it. A killed process leaves no lock.
lock_folder() { # lock_folder shared|exclusive FOLDER
    command -v flock >/dev/null 2>&1 || fail "flock이 설치되어 있지 않습니다" "flock is not installed" \
        "apt-get install util-linux"
    exec 9>>"$2.lock"
    flock --nonblock "--$1" 9 && return 0
    say "다른 프로세스가 $2 폴더를 사용하고 있어 기다립니다" "waiting for another process that uses $2"
    flock "--$1" 9
}

# Make an empty folder that gapforge may delete. One that gapforge did not make is left alone.
renew_folder() { # renew_folder FOLDER CONTENTS
    if [[ -e $1 && ! -f $1/.gapforge-folder ]]; then
        fail "gapforge가 만들지 않은 폴더가 있습니다: $1" "$1 exists and was not created by gapforge" \
            "다른 곳으로 옮기십시오: mv $(quoted "$1") $(quoted "$1.old")" \
            "move it away: mv $(quoted "$1") $(quoted "$1.old")"
    fi
    rm -rf -- "$1"
    mkdir -p -- "$1"
    echo "gapforge may delete this folder: $2" >"$1/.gapforge-folder"
}
