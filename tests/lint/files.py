#!/usr/bin/env python3
# SPDX-FileCopyrightText: dsx contributors
# SPDX-License-Identifier: Apache-2.0
"""Names and outsides of files: the top level, suffixes, SPDX lines, unfinished work, the length of the examples, case names."""
import os
import re
import sys

import sources

TOP = {
    "CMakeLists.txt", "CMakePresets.json", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md",
    "include", "kernels", "examples", "tests", "benchmarks", "docs", "cmake", "scripts",
}
SOURCES = (".hpp", ".cpp", ".cu", ".cuh", ".py", ".sh", ".cmake", ".txt", ".in", ".mut")
# Split, so that the lint does not find itself.
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX|HA" + r"CK)\b")
LONGEST_LINE = 150
LONGEST_EXAMPLE = 60


def main():
    root = sys.argv[1]
    files = sources.listed(root)
    findings, cases = [], {}
    for top in sorted({name.split("/")[0] for name in files}):
        if top not in TOP and not top.startswith("."):
            findings.append(f"{top}: does not belong at the top level")
    findings += [f"{name}: is missing at the top level" for name in sorted(TOP) if not os.path.exists(os.path.join(root, name))]
    for name in files:
        if name.endswith((".h", ".cuh", ".inl", ".hh", ".hxx", ".cc", ".cxx")) and name != "include/dsx/cuda/map.cuh":
            findings.append(f"{name}: headers end in .hpp, sources in .cpp or .cu")
        if re.match(r"tests/(golden|fuzz/corpus)/", name):
            continue
        base = os.path.basename(name)
        is_script = "." not in base and name.split("/")[0] in ("scripts", ".ci", "benchmarks")
        if not name.endswith(SOURCES) and not is_script and not name.endswith((".md", ".json", ".yml")):
            continue
        text = sources.read(root, name)
        if (name.endswith(SOURCES) or is_script) and base != "apt-packages.txt":
            head = "\n".join(text.splitlines()[:4])
            if "SPDX-FileCopyrightText: dsx contributors" not in head or "SPDX-License-Identifier: Apache-2.0" not in head:
                findings.append(f"{name}: the two SPDX lines are missing")
            for line, row in sources.numbered(text):
                if UNFINISHED.search(row):
                    findings.append(f"{name}:{line}: unfinished: {row.strip()[:80]}")
                if len(row) > LONGEST_LINE and name.endswith((".hpp", ".cpp", ".cu", ".cuh")):
                    findings.append(f"{name}:{line}: {len(row)} columns, {LONGEST_LINE} at most")
        if name.endswith(".hpp") and name.startswith("include/"):
            if "#pragma once" not in text:
                findings.append(f"{name}: no #pragma once")
            if not re.search(r"^///", text, re.MULTILINE):
                findings.append(f"{name}: no sentence on what it is")
            for line, row in sources.numbered(sources.code(text)):
                if re.match(r"\s*using namespace\b", row) and "literals" not in row:
                    findings.append(f"{name}:{line}: using namespace in a header")
                macro = re.match(r"\s*#\s*define\s+(\w+)", row)
                if macro and not macro.group(1).startswith("DSX_"):
                    findings.append(f"{name}:{line}: the macro {macro.group(1)} does not begin with DSX_")
        if re.match(r"examples/\d\d_\w+\.cpp$", name) and len(text.splitlines()) > LONGEST_EXAMPLE:
            findings.append(f"{name}: {len(text.splitlines())} lines, {LONGEST_EXAMPLE} at most")
        if name.startswith("tests/") and name.endswith(".cpp"):
            for case in re.findall(r'^TEST_CASE(?:_FIXTURE\(\w+, |\()"((?:\\.|[^"\\])*)"', text, re.MULTILINE):
                if case in cases:
                    findings.append(f"{name}: the case \"{case}\" is in {cases[case]} too")
                cases[case] = name
    sources.finish(findings, len(files))


if __name__ == "__main__":
    main()
