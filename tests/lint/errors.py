#!/usr/bin/env python3
# SPDX-FileCopyrightText: dsx contributors
# SPDX-License-Identifier: Apache-2.0
"""Every error number stands in the table once and in order, has a section in docs/errors.md, and a test provokes it."""
import os
import re
import sys

import sources

TABLE = "include/dsx/core/error_table.hpp"


def main():
    root = sys.argv[1]
    files = sources.listed(root)
    numbers = [int(n) for n in re.findall(r"^\s*\{(\d{3}), \"", sources.read(root, TABLE), re.MULTILINE)]
    findings = []
    if numbers != sorted(set(numbers)):
        findings.append(f"{TABLE}: numbers twice or out of order")
    used = {}
    for name in files:
        if not name.startswith(("include/", "kernels/", "examples/")) or name == TABLE or not name.endswith((".hpp", ".cpp", ".cu", ".cuh")):
            continue
        for line, text in sources.numbered(sources.read(root, name)):
            for number in re.findall(r"\bfail<(\d+)>|\bdsx-E(\d{3})\b|\bError\{(\d{3}),", text):
                used.setdefault(int(next(filter(None, number))), f"{name}:{line}")
    findings += [f"{place}: E{number} does not stand in {TABLE}" for number, place in sorted(used.items()) if number not in numbers]
    findings += [f"{TABLE}: no source uses E{number}" for number in numbers if number not in used]

    page = sources.read(root, "docs/errors.md") if os.path.exists(os.path.join(root, "docs/errors.md")) else ""
    sections = [int(n) for n in re.findall(r"^#{2,3} dsx-E(\d{3})\b", page, re.MULTILINE)]
    findings += [f"docs/errors.md: no section for dsx-E{number}" for number in numbers if number not in sections]
    findings += [f"docs/errors.md: dsx-E{number} is not in the table" for number in sections if number not in numbers]
    findings += [f"docs/errors.md: dsx-E{number} twice" for number in sorted(set(sections)) if sections.count(number) > 1]

    tests = "\n".join(sources.read(root, name) for name in files if re.match(r"tests/(?!golden/|lint/).*\.(cpp|hpp|py|sh)$", name))
    provoked = {int(n) for n in re.findall(r"\b(?:dsx-)?E(\d{3})\b|<(\d{3})>", tests) for n in n if n}
    for line in re.findall(r"[^\n]*(?:check|refus|error|throws|number)[^\n]*", tests, re.IGNORECASE):
        provoked |= {int(n) for n in re.findall(r"\b(\d{3})\b", line)}
    findings += [f"tests: none provokes dsx-E{number}" for number in numbers if number not in provoked]
    sources.finish(findings, len(numbers))


if __name__ == "__main__":
    main()
