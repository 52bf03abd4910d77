#!/usr/bin/env python3
"""llama.cpp's side of `make bench-speed`: one request a line on standard input, one JSON answer a line.

    speed.py serve MODEL THREADS CONTEXT        loads the model, then answers
    speed.py quantise MODEL OUTPUT              writes MODEL as Q4_0, with llama.cpp's own quantiser

A request is {"prompt": [ids], "generate": n}: what the cache holds of the prompt is not computed again unless "fresh".
The calls go to llama.cpp's C functions; Python adds some microseconds a token.
"""

import ctypes
import json
import sys
import time

import llama_cpp
import numpy


def peak_kb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def reply(**values):
    print(json.dumps(values), flush=True)


def serve(path, threads, context):
    before_kb, start = peak_kb(), time.perf_counter()
    model_params = llama_cpp.llama_model_default_params()
    model_params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(path.encode(), model_params)
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = context, min(context, 2048), 512
    params.n_threads = params.n_threads_batch = threads
    ctx = llama_cpp.llama_init_from_model(model, params)
    vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    memory = llama_cpp.llama_get_memory(ctx)
    held = []

    def decode(tokens):
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        code = llama_cpp.llama_decode(ctx, llama_cpp.llama_batch_get_one(array, len(tokens)))
        assert code == 0, f"llama_decode returned {code}"
        held.extend(tokens)
        logits = llama_cpp.llama_get_logits_ith(ctx, -1)
        return int(numpy.ctypeslib.as_array(ctypes.cast(logits, ctypes.POINTER(ctypes.c_float)), (vocab,)).argmax())

    reply(load_s=time.perf_counter() - start)
    for line in sys.stdin:
        request = json.loads(line)
        prompt = request["prompt"]
        common = 0
        while not request.get("fresh") and common < min(len(held), len(prompt) - 1) and held[common] == prompt[common]:
            common += 1
        llama_cpp.llama_memory_seq_rm(memory, -1, common, -1)
        del held[common:]
        start = time.perf_counter()
        token = decode(prompt[common:])
        first = time.perf_counter()
        answer = [token]
        for _ in range(request["generate"]):
            token = decode([token])
            answer.append(token)
        end = time.perf_counter()
        reply(prefill_s=first - start, decode_s=end - first, answer=answer, peak_kb=peak_kb() - before_kb)


def quantise(path, output):
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = 2, True
    assert llama_cpp.llama_model_quantize(path.encode(), output.encode(), ctypes.byref(params)) == 0


if __name__ == "__main__":
    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    if sys.argv[1] == "quantise":
        quantise(sys.argv[2], sys.argv[3])
    else:
        reply(ready=True)
        serve(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
