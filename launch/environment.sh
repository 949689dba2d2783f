# Sourced by the other scripts: finds Python, makes and activates .venv.
# shellcheck shell=bash

# A Python >= 3.11 that can make virtual environments, the one tested most
# first; LOSA_PYTHON overrules the search.
find_python() {
  local candidate
  for candidate in ${LOSA_PYTHON:-} python3.11 python3.12 python3.13 python3; do
    if "$candidate" -c 'import sys, venv, ensurepip
sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  echo "error: no Python >= 3.11 with venv found; install one (Debian:" \
    "apt-get install python3 python3-venv) or set LOSA_PYTHON" >&2
  exit 1
}

# make_environment WHAT...: installs requirement files (*.txt) or
# `.[extras]`, once for each content of these files.
make_environment() {
  local python stamp wanted what
  if [ ! -x .venv/bin/python ]; then
    python=$(find_python)
    echo "making .venv with $("$python" --version)"
    "$python" -m venv .venv
  fi
  # shellcheck disable=SC1091
  . .venv/bin/activate
  for what in "$@"; do
    stamp=".venv/installed-$(printf '%s' "$what" | tr -c 'a-z0-9' '_')"
    wanted=$(cat requirements.txt pyproject.toml | sha256sum)
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
      continue
    fi
    echo "installing $what"
    case "$what" in
      *.txt) python -m pip install --quiet --disable-pip-version-check \
        -r "$what" ;;
      *) python -m pip install --quiet --disable-pip-version-check \
        -e "$what" ;;
    esac
    echo "$wanted" >"$stamp"
  done
}
