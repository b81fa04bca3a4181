#!/usr/bin/env python3
# SPDX-FileCopyrightText: dsx contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs an example as its own comment lines say, and holds its output against them.

    run_example.py examples/04_training_loop.cpp build/release/examples/04_training_loop SOURCE_DIR BUILD_DIR
"""
import re
import shlex
import subprocess
import sys
import tempfile


def lines_of(text, key):
    return [line[len(key) + 4:].strip() for line in text.splitlines() if line.startswith(f"// {key}:")]


def main():
    source, program, source_dir, build_dir = sys.argv[1:]
    with open(source, encoding="utf-8") as file:
        text = file.read()
    runs, expected = lines_of(text, "run") or [""], lines_of(text, "expect")
    with tempfile.TemporaryDirectory(prefix="dsx_example_") as temporary:
        output = ""
        for run in runs:
            for key, value in (("source", source_dir), ("build", build_dir), ("temporary", temporary)):
                run = run.replace(f"@{key}@", value)
            command = [program] + shlex.split(run)
            print("$", shlex.join(command), flush=True)
            result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=temporary, check=False)
            shown = result.stdout.decode("utf-8", "replace")
            print(shown, flush=True)
            if result.returncode != 0:
                sys.exit(f"FAILED: exit code {result.returncode}")
            output += shown
    for pattern in expected:
        if not re.search(pattern, output, re.MULTILINE):
            sys.exit(f"FAILED: the output does not match: {pattern}")
    if not output.strip():
        sys.exit("FAILED: the example prints nothing")


if __name__ == "__main__":
    main()
