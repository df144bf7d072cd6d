#!/bin/sh
# Compiles the plugin where there is a javac (17 or later), and leaves none where there is none:
#   build.sh MODEL_SERVER_JAR OUTPUT_DIRECTORY
# The output is a directory for MMS's class path. Without it /ping is MMS's own, which says 200 whatever happens, and hosted
# mode does not start: the stock server is no substitute, see Models.java.
set -eu
here=$(dirname "$0")
rm -rf "$2" # what is there may be of other sources
command -v javac >/dev/null 2>&1 || { echo "no javac (17 or later): /ping is MMS's own, there is no /metrics, no /execution-parameters and no hosted mode" >&2; exit 0; }
mkdir -p "$2/META-INF/services"
javac --release 17 -proc:none -Xlint:all -Werror -cp "$1" -d "$2" "$here"/*.java
for name in Ping Metrics ExecutionParameters; do
  echo "RuntimeEndpoints\$$name"
done >"$2/META-INF/services/software.amazon.ai.mms.servingsdk.ModelServerEndpoint"
