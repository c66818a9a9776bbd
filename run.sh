#!/usr/bin/env bash
# Sets up the environment in .venv if it is missing, then runs the program:
#   ./run.sh [arguments of run.py]
#   ./run.sh pytest [arguments of pytest]
set -euo pipefail

self=${BASH_SOURCE[0]}
[[ ! -L $self ]] || self=$(readlink -f "$self")
root=$(cd "$(dirname "$self")" && pwd)
venv=$root/.venv

# This file exists during an install. If it exists at the start, an install was interrupted, and the
# environment is built again.
unfinished=$venv/.unfinished

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "run.sh: needs Python 3.10 or newer; name one with PYTHON=/path/to/python ./run.sh" >&2
    exit 2
}

# Identifies the folder and the pyproject.toml that an environment was installed for.
fingerprint() {
    echo "$root $(cksum <"$root/pyproject.toml")"
}

is_installed() {
    local stamp=$venv/.installed-$1
    [[ ! -e $unfinished && -x $venv/bin/python && -f $stamp && $(<"$stamp") == "$(fingerprint)" ]]
}

install() {
    local extra=$1 target=$root pip python
    python=$(find_python)
    if [[ -e $unfinished || ! -x $venv/bin/python ]]; then
        rm -rf "$venv"
        mkdir "$venv"
        touch "$unfinished"
        echo "run.sh: setting up .venv (once)" >&2
        # Debian's Python without the package python3-venv cannot put pip into the environment.
        "$python" -m venv "$venv" 2>/dev/null || "$python" -m venv --without-pip "$venv"
    fi
    touch "$unfinished"
    if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        pip=("$venv/bin/python" -m pip)
    else
        pip=("$python" -m pip --python "$venv/bin/python")
    fi
    [[ $extra != core ]] && target="$root[$extra]" || target="$root[plots,pictures]"
    echo "run.sh: installing what the program needs ($extra)" >&2
    "${pip[@]}" install --quiet --disable-pip-version-check --editable "$target" >&2
    fingerprint | tee "$venv/.installed-core" >"$venv/.installed-$extra"
    rm "$unfinished"
}

ensure_installed() {
    is_installed "$1" && return
    if command -v flock >/dev/null; then
        exec 9>"$root/.venv.lock"
        flock 9 # wait for the install of another process
        is_installed "$1" || install "$1"
        exec 9>&-
    else
        install "$1"
    fi
}

if [[ ${1:-} == pytest ]]; then
    shift
    ensure_installed test
    cd "$root"
    exec "$venv/bin/python" -m pytest "$@"
fi
ensure_installed core
exec "$venv/bin/python" "$root/run.py" "$@"
