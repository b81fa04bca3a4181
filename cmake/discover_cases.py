#!/usr/bin/env python3
# SPDX-FileCopyrightText: dsx contributors
# SPDX-License-Identifier: Apache-2.0
"""Asks a doctest program for its cases and writes the ctest entries: one a case, with all of its labels.

    discover_cases.py --program build/release/tests/test_core_shape --stem core/shape --labels "unit;gold"
                      --timeout 300 --cores 1 --output cases.cmake [--run 2 mpirun -np 2 --]
"""
import argparse
import os
import re
import subprocess
import sys
import xml.etree.ElementTree


def split_runs(words):
    """Takes each `--run NAME WORDS... --` out of the command line."""
    rest, runs, i = [], [], 0
    while i < len(words):
        if words[i] == "--run":
            end = words.index("--", i)
            runs.append((words[i + 1], words[i + 2:end]))
            i = end + 1
        else:
            rest.append(words[i])
            i += 1
    return rest, runs


def list_cases(program):
    """(name, labels from its suite) of each case."""
    listing = subprocess.run([program, "--list-test-cases", "--reporters=xml", "--no-version"], stdout=subprocess.PIPE, timeout=60, check=False)
    if listing.returncode != 0:
        sys.exit(f"{program} could not list its cases: exit code {listing.returncode}")
    root = xml.etree.ElementTree.fromstring(listing.stdout.decode("utf-8", "replace"))
    return [(case.get("name"), (case.get("testsuite") or "").split()) for case in root.iter("TestCase") if case.get("skipped") != "true"]


def filter_of(name):
    """The doctest filter that means this name: a comma separates filters, a star is a wildcard."""
    return name.replace("\\", "\\\\").replace(",", "\\,").replace("*", "?")


def matches(name, pattern_of):
    return re.fullmatch("".join("." if c in "*?" else re.escape(c) for c in pattern_of), name, re.DOTALL) is not None


def bracket(text):
    """A CMake bracket argument, which takes any text literally."""
    level = 1
    while "]" + "=" * level + "]" in text or text.endswith("]" + "=" * level):
        level += 1
    return "[" + "=" * level + "[" + text + "]" + "=" * level + "]"


def main():
    words, runs = split_runs(sys.argv[1:])
    parser = argparse.ArgumentParser()
    for option in ("program", "stem", "labels", "timeout", "cores", "output"):
        parser.add_argument("--" + option, required=True)
    given = parser.parse_args(words)
    if os.path.exists(given.output):
        os.remove(given.output)  # a listing that fails must not leave yesterday's cases

    cases = list_cases(given.program)
    if not cases:
        sys.exit(f"{given.stem} has no TEST_CASE")
    names = [name for name, _ in cases]
    common = [label for label in given.labels.split(";") if label]
    lines = []
    for name, own in cases:
        same = [other for other in names if matches(other, name)]
        if len(same) != 1:
            sys.exit(f"{given.stem}: doctest can't tell these cases apart by name: {same}")
        if "\n" in name:
            sys.exit(f"{given.stem}: the name of a case spans lines: {name!r}")
        labels = ";".join(dict.fromkeys(common + own))
        for processes, prefix in runs or [("", [])]:
            title = f"{given.stem}: {name}" + (f" [{processes} processes]" if processes else "")
            cores = int(processes) if processes else int(given.cores)
            command = prefix + [given.program, "--test-case=" + filter_of(name), "--case-sensitive", "--no-skipped-summary"]
            lines.append(f"add_test({bracket(title)} {' '.join(map(bracket, command))})")
            lines.append(
                f"set_tests_properties({bracket(title)} PROPERTIES LABELS {bracket(labels)} TIMEOUT {given.timeout} PROCESSORS {cores}"
                " ENVIRONMENT [=[OMP_WAIT_POLICY=passive]=] SKIP_REGULAR_EXPRESSION \"(^|\\n)SKIPPED: \" FAIL_REGULAR_EXPRESSION \"test cases: 0 \")")
    os.makedirs(os.path.dirname(given.output), exist_ok=True)
    with open(given.output + ".part", "w", encoding="utf-8") as out:
        out.write("\n".join(lines) + "\n")
    os.replace(given.output + ".part", given.output)


if __name__ == "__main__":
    main()
