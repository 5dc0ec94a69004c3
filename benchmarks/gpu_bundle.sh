#!/usr/bin/env bash
# Packs what gpu.py needs and a machine with little more than torch may lack, into .gpu/ of the project: 40 MB. Nothing is
# downloaded: these are the environment's own files, of packages that run with any Python from 3.11 on.
#
#   bash benchmarks/gpu_bundle.sh                      # here; PYTHON=… for another environment than .venv
#   bash .gpu/go.sh --parts env,train                  # on that machine, in a copy of the project with .gpu/
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
rm -rf .gpu && mkdir .gpu
"$python" benchmarks/gpu_packages.py pack .gpu/packages
tar czf .gpu/packages.tar.gz -C .gpu packages && rm -r .gpu/packages
cat > .gpu/go.sh <<'GO'
#!/usr/bin/env bash
# Runs benchmarks/gpu.py with this machine's own packages, and packed ones where they are missing or too old.
set -euo pipefail
cd "$(dirname "$0")/.."
site=$(mktemp -d) && trap 'rm -rf "$site"' EXIT
tar xzf .gpu/packages.tar.gz -C "$site"
# gpu_packages.py needs packaging, which not even torch brings.
chosen=$(PYTHONPATH="$site/packages/packaging" "${PYTHON:-python3}" benchmarks/gpu_packages.py choose "$site/packages")
export PYTHONPATH="$chosen" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
"${PYTHON:-python3}" benchmarks/gpu.py ${OUT:+--output "$OUT"} "$@"
GO
ls -l .gpu
