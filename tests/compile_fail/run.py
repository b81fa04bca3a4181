#!/usr/bin/env python3
# SPDX-FileCopyrightText: dsx contributors
# SPDX-License-Identifier: Apache-2.0
"""Compiles one file twice: with -DFIXED it must pass, without it must fail with the error that its header lines promise.

    run.py build/release/tests/toolchain.json tests/compile_fail/forgotten_fan_in.cpp

    // error: dsx-E201       the number of the one error

Beside the include chain it takes at most 8 lines, and the number stands in the first 3 of them.
"""
import json
import re
import subprocess
import sys

MOST_LINES, LEADING = 8, 3
INCLUDE_CHAIN = re.compile(r"^(In file included from |\s+from )\S+?:\d+[:,]?(\d+[:,]?)?$")


def header(text, key):
    found = re.search(rf"^// {key}: (.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else None


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        build = json.load(file)
    with open(sys.argv[2], encoding="utf-8") as file:
        text = file.read()
    number = header(text, "error")
    if not number or not re.fullmatch(r"dsx-E\d{3}", number):
        sys.exit("FAILED: the file has no line `// error: dsx-E201`")
    if "FIXED" not in text:
        sys.exit("FAILED: the file has no part that -DFIXED changes")
    include = build["source"] + "/include"
    command = [build["compiler"], "-std=c++20", "-fsyntax-only", "-fno-diagnostics-color", "-Wall", "-Wextra", "-I", include, sys.argv[2]]

    fixed = subprocess.run(command + ["-DFIXED"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if fixed.returncode != 0 or fixed.stdout:
        print(fixed.stdout)
        sys.exit("FAILED: does not compile cleanly with -DFIXED")
    broken = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(broken.stdout)
    if broken.returncode == 0:
        sys.exit("FAILED: compiles without -DFIXED")
    lines = [line for line in broken.stdout.splitlines() if not INCLUDE_CHAIN.match(line)]
    errors = [line for line in lines if re.search(r"\berror: ", line)]
    # clang ends with a count that is no part of the message.
    lines = [line for line in lines if not re.fullmatch(r"\d+ (error|warning)s?.* generated\.", line)]
    leading = next((i + 1 for i, line in enumerate(lines) if number in line), 0)
    print(f"{len(errors)} errors, {len(lines)} lines beside the include chain, {number} first in line {leading}")
    if not errors or number not in errors[0]:
        sys.exit(f"FAILED: the first error does not carry {number}")
    if len(errors) != 1:
        sys.exit("FAILED: more than one error")
    if len(lines) > MOST_LINES:
        sys.exit(f"FAILED: more than {MOST_LINES} lines")
    if leading > LEADING:
        sys.exit(f"FAILED: {number} is not in the first {LEADING} lines")


if __name__ == "__main__":
    main()
