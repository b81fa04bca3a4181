#!/usr/bin/env python3
# SPDX-FileCopyrightText: dsx contributors
# SPDX-License-Identifier: Apache-2.0
"""The helper that registers tests: an entry carries all of its labels, and `ctest -L '^NAME$'` selects it by each."""
import json
import subprocess
import sys

STEM = "lint/two_labels: "
EXPECTED = {
    "a case with the labels of its folder and file": {"lint", "unit"},
    "a case with two labels of its own": {"lint", "unit", "matrix", "probe"},
    "commas, \"quotes\", a*star, [brackets]; a $dollar, a back\\slash and 'more'": {"lint", "unit"},
}


def entries(build, *selection):
    out = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1", *selection], capture_output=True, text=True, check=True).stdout
    found = {}
    for test in json.loads(out)["tests"]:
        properties = {entry["name"]: entry["value"] for entry in test.get("properties", [])}
        found[test["name"]] = set(properties.get("LABELS", []))
    return found


def main():
    build = sys.argv[2]
    findings = []
    everything = entries(build)
    for case, labels in EXPECTED.items():
        have = everything.get(STEM + case)
        if have != labels:
            findings.append(f"{case}: labels {have}, {labels} were expected")
        for label in labels:
            if STEM + case not in entries(build, "-L", f"^{label}$"):
                findings.append(f"{case}: ctest -L '^{label}$' does not select it")
    for name in entries(build, "-L", "^probe$"):
        if "probe" not in everything[name]:
            findings.append(f"{name}: selected by '^probe$' without the label")
    # Each entry runs exactly one case, whatever its name holds.
    run = subprocess.run(["ctest", "--test-dir", build, "-R", "^lint/two_labels: ", "-V"], capture_output=True, text=True, check=False)
    if run.returncode != 0 or run.stdout.count("test cases: 1 | 1 passed") != len(EXPECTED):
        findings.append("the cases do not run one by one:\n" + run.stdout)
    for finding in findings:
        print(finding)
    print(f"{len(everything)} entries, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
