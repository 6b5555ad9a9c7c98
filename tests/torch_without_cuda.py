#!/usr/bin/env python3
"""Lets PyPI's torch for Linux, which is linked to CUDA, run on the CPU without the 2.5 GB of CUDA libraries: each library that
its own need and that is not installed gets a stand-in whose functions all return 100 (cudaErrorNoDevice), so that torch finds
no GPU. Needs cc and readelf. Does nothing where torch can be imported. usage: .venv/bin/python tests/torch_without_cuda.py"""
import collections
import glob
import importlib.util
import os
import subprocess
import sys
import tempfile

CUDA = ("libcu", "libnv", "libnccl")
# Libraries without versioned symbols: theirs are told by their names.
PREFIXES = {"libnccl": "nccl", "libcurand": "curand", "libcufile": "cuFile", "libcusparseLt": "cusparseLt", "libnvshmem": "nvshmem"}


def lines(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()


def read_symbols(paths):
    """Libraries needed, undefined symbols by version, and those without one."""
    needed, versioned, plain = set(), collections.defaultdict(set), set()
    for path in paths:
        needed |= {line.split("[")[1][:-1] for line in lines("readelf", "-Wd", path) if "(NEEDED)" in line}
        for line in lines("readelf", "-W", "--dyn-syms", path):
            fields = line.split()
            if len(fields) >= 8 and fields[6] == "UND":
                name, _, version = fields[7].partition("@")
                (versioned[version] if version else plain).add(name)
    return needed, versioned, plain


def build(path, soname, versions, plain):
    with tempfile.TemporaryDirectory() as scratch:
        source, script = os.path.join(scratch, "stub.c"), os.path.join(scratch, "stub.map")
        names = set(plain).union(*versions.values())
        with open(source, "w") as file:
            file.writelines(f"int {name}(void) {{ return 100; }}\n" for name in sorted(names))
        with open(script, "w") as file:
            for version, symbols in versions.items():
                file.write(f"{version} {{ global: {' '.join(f'{s};' for s in sorted(symbols))} }};\n")
        command = ["cc", "-w", "-fno-builtin", "-shared", "-fPIC", "-o", path, f"-Wl,-soname,{soname}", source]
        subprocess.run(command + ([f"-Wl,--version-script={script}"] if versions else []), check=True)


def main():
    if subprocess.run([sys.executable, "-c", "import torch"], capture_output=True).returncode == 0:
        return
    folder = os.path.join(importlib.util.find_spec("torch").submodule_search_locations[0], "lib")
    needed, versioned, plain = read_symbols(glob.glob(os.path.join(folder, "*.so")))
    for soname in sorted(name for name in needed if name.startswith(CUDA) and name != "libcuda.so.1"):
        stem = soname.split(".so")[0]
        own = {v: s for v, s in versioned.items() if v == soname or ("nvshmem" in stem and "nvshmem" in v.lower())}
        prefix = next((p for name, p in PREFIXES.items() if stem.startswith(name)), None)
        build(os.path.join(folder, soname), soname, own, {s for s in plain if prefix and s.startswith(prefix)})
    subprocess.run([sys.executable, "-c", "import torch"], check=True)


main()
