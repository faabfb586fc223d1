#!/bin/sh
# Names everything that this machine lacks to build the project, with the Debian or Ubuntu package
# that brings it. Prints nothing and exits 0 when all is there. Usage: check.sh [PYTHON]
python=${1:-python3}
missing=

need() { # what is missing, package
    echo "missing: $1; install it with: apt-get install $2" >&2
    missing=yes
}

if ! command -v "$python" >/dev/null; then
    need "$python (Python 3.11 or newer)" python3
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    need "Python 3.11 or newer ($python is $("$python" -V 2>&1))" "python3.11, then make PYTHON=python3.11"
else
    "$python" -c 'import venv, ensurepip' 2>/dev/null || need "Python's venv" python3-venv
    include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [ -f "$include/Python.h" ] || need "Python's headers (Python.h)" python3-dev
fi

if ! command -v gcc >/dev/null; then
    need "a C compiler (gcc)" gcc
elif ! echo '#include <pthread.h>' | gcc -fsyntax-only -x c - 2>/dev/null; then
    need "the C library's headers (pthread.h)" libc6-dev
fi
command -v make >/dev/null || need make make

[ -z "$missing" ]
