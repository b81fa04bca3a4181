#!/usr/bin/env python3
# SPDX-FileCopyrightText: dsx contributors
# SPDX-License-Identifier: Apache-2.0
"""Every error number stands in the table once and in order, has a section in docs/errors.md, and a test provokes it."""
import os
import re
import sys

import sources

TABLE = "include/dsx/core/error_table.hpp"
# The one error of a file in tests/compile_fail, and what an example must print.
PROMISED = re.compile(r"^// (?:error|expect): .*?dsx-E(\d{3})\b", re.MULTILINE)
ASSERTION = re.compile(r"\b(?:CHECK|REQUIRE)\w*\(")
# What a name must hold for a comparison with a number to be one of error numbers.
ERROR = re.compile(r"error|refus|number", re.IGNORECASE)
# Helpers that take the number which a refusal must have: check(refusal, 643, {parts}), refused_as(304, change), outcome.all(303).
HELPERS = re.compile(r"\bcheck\(.*?\), (\d{3}), \{|(?:\brefused_as|\.all)\((\d{3})\b")
THROWN = re.compile(r"\bfail<(\d{3})>|\bError\{(\d{3}),")


def to_end(code, start):
    """What follows up to the end of its statement or of the bracket that it stands in; brackets in strings don't count."""
    depth = 0
    for token in re.finditer(r'R"([^(\s]*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'|[(){}\[\];]', code[start:], re.DOTALL):
        depth += token.group(0) in "({[" and 1 or token.group(0) in ")}]" and -1 or 0
        if depth < 0 or (depth == 0 and token.group(0) == ";"):
            return code[start:start + token.start()]
    return code[start:]


def expected_in(text):
    """The numbers whose error a test would miss if it didn't come: not those that a comment, a name or the test's own throw mentions."""
    promised = {int(n) for n in PROMISED.findall(text)}
    code = re.sub(r"^TEST_CASE\(.*", "", sources.code(text, keep_strings=True), flags=re.MULTILINE)
    numbers = set(HELPERS.findall(code))
    for found in ASSERTION.finditer(code):
        assertion = to_end(code, found.end())
        numbers.update(re.findall(r"\bdsx-E(\d{3})()\b", assertion))
        name = re.match(r"[(\s]*(\w+)(?:::\w+)?", assertion)
        made = name and re.search(rf"\b\w+ {name.group(1)} = ", code)
        if name and (ERROR.search(name.group(0)) or made and ERROR.search(to_end(code, made.start()))):
            numbers.update(re.findall(r"== (\d{3})()\b", assertion))
    thrown = {int(n) for pair in THROWN.findall(code) for n in pair if n}
    return promised | {int(n) for pair in numbers for n in pair if n} - thrown


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

    provoked = set()
    for name in files:
        if re.match(r"tests/(?!golden/|lint/).*\.(cpp|hpp)$", name) or re.match(r"examples/.*\.cpp$", name):
            provoked |= expected_in(sources.read(root, name))
    findings += [f"tests: none provokes dsx-E{number}" for number in numbers if number not in provoked]
    sources.finish(findings, len(numbers))


if __name__ == "__main__":
    main()
