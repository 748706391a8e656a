#!/bin/sh
# with-secrets COMMAND ...: every file of /run/secrets whose name is a variable's becomes that variable, unless it is set already.
# So passwords stand in files, and neither in the compose file nor in what `docker inspect` shows.
set -eu
for file in "${SECRETS:-/run/secrets}"/*; do
  name=${file##*/}
  case $name in '*' | *[!A-Z0-9_]* | [0-9]*) continue ;; esac
  eval "known=\${$name-}"
  if [ -z "$known" ]; then export "$name=$(cat "$file")"; fi
done
exec "$@"
