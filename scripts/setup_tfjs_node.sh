#!/usr/bin/env bash
# Builds the native binding of @tensorflow/tfjs-node where the package's own download is not available: compiles the sources
# in the package against the TensorFlow C library of a PyPI wheel. Linux x64; needs g++ and python3 with pip; about 30 s.
# usage: scripts/setup_tfjs_node.sh [--gpu]      --gpu: @tensorflow/tfjs-node-gpu against the CUDA build (sm_60 to sm_90)
# A package that is made anew (a fresh node_modules) has no binding: run this again.
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { echo "setup_tfjs_node: $*" >&2; exit 2; }

version=2.21.0
case "${1:-}" in
  '') package=@tensorflow/tfjs-node wheel=tensorflow-cpu hash=2b847d217b02ee7731ed91431daf3250daa0196c3c94614d23be27232e6e5b6c ;;
  --gpu) package=@tensorflow/tfjs-node-gpu wheel=tensorflow hash=9056fbc9ba04235810b71ae6cbd958a196e8804fb53bbcffbf3e23b56155f124 ;;
  *) fail "\"$1\" is not understood; the only option is --gpu" ;;
esac
[ "$(uname -sm)" = 'Linux x86_64' ] || fail "$(uname -sm): only Linux x86_64 has a wheel that fits"
for program in node g++ python3; do command -v "$program" > /dev/null || fail "$program is missing"; done
folder=$(cd packages/engine-tfjs && node -p "require('fs').realpathSync('node_modules/$package')" 2> /dev/null) ||
  fail "$package is not installed; run pnpm install"
headers=$(cd packages/engine-tfjs && node -p "require('node-api-headers').include_dir")
binding=$(cd "$folder" && node -p "require('@mapbox/node-pre-gyp').find('$folder/package.json')")
stamp="$wheel $version, binding of $(node -p "require('$folder/package.json').version")"

# The products of two matrices, computed by the binding.
proves() {
  TF_CPP_MIN_LOG_LEVEL=3 node -e "
    const util = require('util');
    Object.assign(util, { isNullOrUndefined: (v) => v == null, isArray: Array.isArray });
    const tf = require('$folder');
    const product = tf.matMul(tf.tensor2d([[1, 2]]), tf.tensor2d([[3], [4]])).dataSync()[0];
    if (tf.getBackend() !== 'tensorflow' || product !== 11) process.exit(1);
    console.log('TensorFlow C ' + tf.backend().binding.TF_Version + ': ' + tf.backend().binding.isUsingGpuDevice());"
}
if [ "$(cat "$folder/deps/built" 2> /dev/null)" = "$stamp" ] && proves > /dev/null 2>&1; then
  echo "there already: $binding"
  exit 0
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch" "$folder/deps.part"' EXIT
rm -rf "$folder/deps" "$folder/deps.part"
echo "$wheel==$version --hash=sha256:$hash" > "$scratch/requirements.txt"
# Nothing is installed into any Python, and any Python can fetch it.
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
  --python-version 3.11 --implementation cp --platform manylinux_2_27_x86_64 \
  --dest "$scratch" --requirement "$scratch/requirements.txt"
# Two libraries and the C headers, with what those include.
python3 - "$scratch" "$folder/deps.part" << 'PY'
import glob, os, shutil, sys, zipfile

scratch, deps = sys.argv[1:]
include = "tensorflow/include/"
kept = tuple(include + part for part in ("tensorflow/c/", "tensorflow/core/platform/", "tsl/", "xla/tsl/", "xla/c/"))
libraries = ("tensorflow/libtensorflow_cc.so.2", "tensorflow/libtensorflow_framework.so.2")
with zipfile.ZipFile(glob.glob(f"{scratch}/*.whl")[0]) as archive:
    for name in archive.namelist():
        if name in libraries:
            target = f"{deps}/lib/{os.path.basename(name)}"
        elif name.startswith(kept) and name.endswith(".h"):
            target = f"{deps}/include/{name[len(include):]}"
        else:
            continue
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with archive.open(name) as source, open(target, "wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
PY
rm -f "$scratch"/*.whl
mv "$folder/deps.part" "$folder/deps"
mkdir -p "$(dirname "$binding")"
# shellcheck disable=SC2016 # $ORIGIN is the loader's.
g++ -O2 -std=c++17 -shared -fPIC -w -DNAPI_VERSION=8 \
  -I "$folder" -I "$folder/deps/include" -I "$headers" \
  "$folder"/binding/tfjs_backend.cc "$folder"/binding/tfjs_binding.cc -o "$binding.part" \
  -L "$folder/deps/lib" -l:libtensorflow_cc.so.2 -l:libtensorflow_framework.so.2 '-Wl,-rpath,$ORIGIN/../../deps/lib'
mv "$binding.part" "$binding"
proves || fail "the binding was built, but does not compute"
echo "$stamp" > "$folder/deps/built"
echo "made: $binding"
