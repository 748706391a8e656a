#!/bin/sh
# install ENVIRONMENT WHAT ...: packages of the versions and hashes of requirements.lock, without what no container of ours uses
# (together a sixth): symbols, headers, maps of JavaScript, Arrow Flight, sqlglot's compiled double, and the
# languages of Babel, which only reads numbers for dbt's tables.
set -eu
environment=$1
shift
/opt/tools/bin/uv pip install --quiet --no-cache --python "$environment/bin/python" --constraint /src/requirements.lock "$@"
if command -v strip > /dev/null; then /opt/tools/bin/uv pip uninstall --quiet --python "$environment/bin/python" sqlglotc sqlglotrs || true; fi
cd "$environment"/lib/python3*/site-packages
rm -rf pyarrow/include
find . -name '*.map' -delete
rm -f pyarrow/libarrow_flight* pyarrow/_flight.*
find . -path './babel/locale-data/*.dat' ! -name 'root.dat' ! -name 'en*' ! -name 'pt*' -delete
if command -v strip > /dev/null; then
  # not what auditwheel has patched (*.libs)
  find . -name '*.so*' -type f ! -path '*.libs/*' -exec strip --strip-unneeded {} + 2> /dev/null || true
fi
