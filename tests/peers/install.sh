#!/usr/bin/env bash
# The Python packages that peers and comparisons need, in .cache/peers/venv: installed once, and again when
# requirements.txt or the flags change. Compiles llama.cpp, which takes ten minutes or more on two cores.
#
#   tests/peers/install.sh      prints the path of the environment's Python
set -euo pipefail
cd "$(dirname "$0")/../.."
peers=$PWD/.cache/peers
venv=$peers/venv

# What this processor has, named one by one: ggml's own detection would also take AMX, on which some virtual machines
# that announce it fail. With these flags llama.cpp uses the same instructions as our kernels.
flags=(-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DLLAVA_BUILD=OFF)
has() { grep -qw "$1" /proc/cpuinfo; }
if has avx512f && has avx512bw && has avx512vl && has avx512dq; then flags+=(-DGGML_AVX512=ON); fi
if has avx512_vnni; then flags+=(-DGGML_AVX512_VNNI=ON); fi
if has avx512vbmi; then flags+=(-DGGML_AVX512_VBMI=ON); fi
if has avx512_bf16; then flags+=(-DGGML_AVX512_BF16=ON); fi
case $(uname -m) in x86_64) ;; *) flags=(-DLLAVA_BUILD=OFF) ;; esac

wanted=$(cat tests/peers/requirements.txt; echo "# ${flags[*]}")
if [ "$wanted" != "$(cat "$peers/installed.txt" 2>/dev/null)" ]; then
    echo "installing the peers into $venv (once; llama.cpp is compiled, ten minutes or more)" >&2
    mkdir -p "$peers"
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    CMAKE_ARGS="${flags[*]}" "$venv/bin/pip" install --quiet -r tests/peers/requirements.txt >&2
    echo "$wanted" >"$peers/installed.txt"
fi
echo "$venv/bin/python"
