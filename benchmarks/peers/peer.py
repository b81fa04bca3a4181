# SPDX-FileCopyrightText: dsx contributors
# SPDX-License-Identifier: Apache-2.0
"""What the comparisons with other programs share: sides that take turns, medians, the lines of the result.

    ours = peer.Side([peer.program("gpt2_step"), "train", ...], threads=2)
    theirs = peer.Side([sys.executable, __file__, "--serve", ...], threads=2)
    for turn in peer.turns({"dsx": ours, "PyTorch": theirs}, rounds=5, note="gpt2_fp32_T64"): ...
    peer.ratio("gpt2_fp32_T64", peer.median(seconds["PyTorch"]) / peer.median(seconds["dsx"]))

A side is a process that answers each line on its standard input with a line of JSON. It sleeps while others have their turn, so both
stay loaded and warm; each has its own address space, so its peak memory is its own.
"""
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAUSE = 0.05  # seconds between turns: OpenMP's threads spin for some milliseconds before they sleep (KMP_BLOCKTIME: of LLVM's, in ms)

median = statistics.median
_lines = []


def progress(text):
    print(f"# {text}", file=sys.stderr, flush=True)


def stop(text):
    print(f"{pathlib.Path(sys.argv[0]).name}: {text}", file=sys.stderr)
    sys.exit(1)


def info(text):
    _lines.append(f"INFO {text}")


def ratio(name, value):
    """The peer's cost over dsx's: 1 is a draw, more is better."""
    _lines.append(f"RATIO {name} {value:.3f}")


def report():
    """All lines at the end, INFO first: what a script reads stands last."""
    print("\n".join(sorted(_lines, key=lambda line: line.startswith("RATIO "))), flush=True)


def need(module, package):
    """Stops with the line to type where a Python package is missing."""
    if importlib.util.find_spec(module) is None:
        stop(f"{sys.executable} has no {module}; type: python3 -m pip install {package}")


def program(name, build="build/release"):
    path = ROOT / build / "benchmarks" / "peers" / name
    if not path.exists():
        stop(f"{path} isn't built; type: cmake --preset release && cmake --build build/release --target peer_{name}")
    return str(path)


def processor():
    with open("/proc/cpuinfo") as file:
        facts = dict(line.split(":", 1) for line in file if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    named = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in facts.get("flags", "").split()]
    return f"{facts.get('model name', 'unknown')} (family {facts.get('cpu family')}, model {facts.get('model')}; {', '.join(named)})"


def processors(count):
    """`count` of those that this process may use, on different cores if there are so many."""
    allowed, first, rest = sorted(os.sched_getaffinity(0)), [], []
    seen = set()
    for cpu in allowed:
        try:
            core = pathlib.Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
        except OSError:
            core = str(cpu)
        (rest if core in seen else first).append(cpu)
        seen.add(core)
    if len(allowed) < count:
        stop(f"{count} threads on {len(allowed)} processors; type --threads {len(allowed)}")
    return (first + rest)[:count]


class Side:
    """One of the programs that are compared: pinned, with the same number of threads as the others."""

    def __init__(self, command, threads):
        cpus = processors(threads)
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads), OMP_DYNAMIC="false", MKL_DYNAMIC="FALSE",
                           KMP_BLOCKTIME="10")
        self.name = pathlib.Path(command[0]).name
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
                                        preexec_fn=lambda: os.sched_setaffinity(0, cpus))
        self.ready = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            stop(f"{self.name} ended with code {self.process.wait()} before it answered")
        return json.loads(line)

    def ask(self, line=""):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.read()

    def _thread_seconds(self):
        seconds = {}
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            seconds[task.name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return seconds

    def ask_counting(self, line=""):
        """The answer, and how many threads worked for it: those with a fifth of the busiest one's processor time."""
        before = self._thread_seconds()
        answer = self.ask(line)
        spent = [seconds - before.get(task, 0) for task, seconds in self._thread_seconds().items()]
        return answer, sum(s > 0.2 * max(spent) for s in spent)

    def close(self):
        self.process.stdin.close()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def turns(sides, rounds, steps):
    """Rounds of {name: answers}: each side takes `steps` steps a round, and who begins alternates."""
    names = list(sides)
    for number in range(rounds):
        answers = {}
        for name in names if number % 2 == 0 else reversed(names):
            time.sleep(PAUSE)
            answers[name] = [sides[name].ask() for _ in range(steps)]
        yield answers
