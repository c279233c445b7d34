# What the scripts share; sourced, never run.

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# The newest Python from 3.11 on that is here; PYTHON=… decides otherwise.
find_python() {
  local candidate found
  for candidate in ${PYTHON:-} python3.13 python3.12 python3.11 python3 python3.14; do
    found=$(command -v "$candidate") || continue
    "$found" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$found"; return; }
  done
  fail "Python 3.11 or later is needed and was not found; install it, or name it: PYTHON=/path/to/python $0"
}

# need_command COMMAND PACKAGE WHY: a program of the system that tests use; root installs it, others are told.
need_command() {
  command -v "$1" >/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing $2 ($3)"
    { apt-get install -y --no-install-recommends "$2" || { apt-get update && apt-get install -y --no-install-recommends "$2"; }; } \
      </dev/null >/dev/null 2>&1 && return
  fi
  say "$1 is not here ($3): tests that need it will be skipped; install the package $2"
}

# need_postgres: Debian's PostgreSQL server, for sources of the tests; programs only, no cluster and no service of it.
need_postgres() {
  command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing postgresql (jobs copy from a real server)"
    local no_cluster=/etc/postgresql-common/createcluster.d/pondkeeper-tests.conf
    mkdir -p "${no_cluster%/*}" && echo "create_main_cluster = false" >"$no_cluster"
    { apt-get install -y --no-install-recommends postgresql || { apt-get update && apt-get install -y --no-install-recommends postgresql; }; } \
      </dev/null >/dev/null 2>&1 || true
    rm -f "$no_cluster"
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && return
  fi
  say "PostgreSQL's server is not here: tests that need it will be skipped; install the package postgresql"
}
