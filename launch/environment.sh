# Sourced by the other scripts: makes and activates .venv, with uv if it is
# installed, else with venv and pip. Both install the same packages.
# shellcheck shell=bash

# has_uv: whether uv is on the PATH.
has_uv() {
  command -v uv >/dev/null
}

# A Python >= 3.11, the most tested version first; LOSA_PYTHON overrides the
# search. Without uv it must be able to make virtual environments.
find_python() {
  local candidate needs="venv, ensurepip"
  if has_uv; then
    needs=site
  fi
  for candidate in ${LOSA_PYTHON:-} python3.11 python3.12 python3.13 python3; do
    if "$candidate" -c "import sys, $needs
sys.exit(sys.version_info < (3, 11))" >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  echo "error: no Python >= 3.11 with venv; install one (Debian:" \
    "apt-get install python3 python3-venv) or set LOSA_PYTHON" >&2
  exit 1
}

# make_environment WHAT...: installs requirement files (*.txt) or `.[extras]`.
# Does nothing if requirements.txt and pyproject.toml have not changed since.
make_environment() {
  local python stamp wanted what
  local -a install=(python -m pip install --quiet --disable-pip-version-check)
  if has_uv; then
    install=(uv pip install --quiet)
  fi
  if [ ! -x .venv/bin/python ]; then
    python=$(find_python)
    echo "making .venv with $("$python" --version)"
    if has_uv; then
      # With pip inside, as venv makes it.
      uv venv --quiet --seed --python "$(command -v "$python")" .venv
    else
      "$python" -m venv .venv
    fi
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
      *.txt) "${install[@]}" -r "$what" ;;
      *) "${install[@]}" -e "$what" ;;
    esac
    echo "$wanted" >"$stamp"
  done
}
