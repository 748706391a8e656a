#!/bin/bash
# KAFKA_LOG_DIRS is log.dirs, as in the project's own image; a new data folder is formatted first.
set -euo pipefail
file=/tmp/server.properties
env | sed -n 's/^KAFKA_\([A-Z_]*\)=/\1=/p' | grep -v '^\(HEAP_OPTS\|CLUSTER_ID\)=' \
  | awk -F= '{key = tolower($1); gsub(/_/, ".", key); print key substr($0, length($1) + 1)}' > "$file"
kafka() { java ${KAFKA_HEAP_OPTS:--Xmx512m} -cp '/opt/kafka/libs/*' "$@"; }
if [ ! -s "$KAFKA_LOG_DIRS/meta.properties" ]; then
  kafka kafka.tools.StorageTool format --cluster-id "${CLUSTER_ID:-lakehouse-compose-000}" --config "$file"
fi
# shellcheck disable=SC2086 # options are words
exec java ${KAFKA_HEAP_OPTS:--Xmx512m} -cp '/opt/kafka/libs/*' kafka.Kafka "$file"
