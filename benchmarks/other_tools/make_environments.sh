#!/bin/sh
# Make the environments that `benchmarks/interventions.py` compares with, one a tool, because their requirements differ
# from each other's and from tunescope's. Wants Python 3.11 or newer and a package index; about 2 GB each.
#
#   sh benchmarks/other_tools/make_environments.sh            # into /tmp/bench-envs
#   sh benchmarks/other_tools/make_environments.sh FOLDER     # elsewhere: then --environments FOLDER
#
# The torch of both is tunescope's own (constraints.txt), so that the same matrix products are timed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-/tmp/bench-envs}
torch=$(grep '^torch==' "$here/../../constraints.txt")
for tool in nnsight transformer-lens; do
    place="$folder/$tool"
    if [ -x "$place/bin/python" ] && "$place/bin/python" -c "import $(echo $tool | tr - _)" 2>/dev/null; then
        echo "$tool: there already"
        continue
    fi
    python3 -m venv "$place"
    "$place/bin/pip" install --quiet "$torch" "$tool"
    echo "$tool: $("$place/bin/pip" freeze | grep -i "^$tool==")"
done
