#!/usr/bin/env python3
# SPDX-FileCopyrightText: dsx contributors
# SPDX-License-Identifier: Apache-2.0
"""Sums up a ctest run: the seconds of each label, labels without a test, and the last line `N passed, N failed`.

    label_seconds.py BUILD_DIR REPORT.xml LABEL...      the labels may not be empty; exit code 1 if anything failed
"""
import json
import os
import subprocess
import sys
import xml.etree.ElementTree


def main():
    build, report, *required = sys.argv[1:]
    listing = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1"], stdout=subprocess.PIPE, text=True, check=True).stdout
    labels_of = {}
    for test in json.loads(listing)["tests"]:
        properties = {entry["name"]: entry["value"] for entry in test.get("properties", [])}
        labels_of[test["name"]] = properties.get("LABELS", [])

    seconds, count, passed, failed, skipped = {}, {}, 0, [], []
    for case in xml.etree.ElementTree.parse(report).getroot().iter("testcase") if os.path.exists(report) else ():
        name, reason = case.get("name"), case.find("skipped")
        if reason is not None and (reason.get("message") or "").startswith("SKIP"):
            skipped.append(name)
        elif case.get("status") == "run":
            passed += 1
        else:
            failed.append(name)
        for label in labels_of.get(name, []):
            seconds[label] = seconds.get(label, 0.0) + float(case.get("time", 0))
            count[label] = count.get(label, 0) + (0 if name in skipped else 1)

    print("\nseconds of each label")
    for label in sorted(set(required) | set(seconds)):
        print(f"  {label:14}{seconds.get(label, 0.0):9.1f} s {count.get(label, 0):6} tests")
    for name in skipped:
        print(f"skipped: {name}")
    empty = [label for label in required if not count.get(label)]
    for label in empty:
        print(f"empty label: no test carries {label}")
    total = passed + len(failed)
    percent = 100 * passed // total if total else 0
    print(f"\n{percent}% tests passed, {len(failed)} tests failed out of {total}")
    for name in failed:
        print(f"  failed: {name}")
    # A label that lost its last test is a failure like any other.
    print(f"{passed} passed, {len(failed) + len(empty)} failed")
    sys.exit(1 if failed or empty or not total else 0)


if __name__ == "__main__":
    main()
