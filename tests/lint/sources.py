# SPDX-FileCopyrightText: dsx contributors
# SPDX-License-Identifier: Apache-2.0
"""What the lints share: the files of the repository, their text without comments, and how findings are shown.

    files = sources.listed(root)                  # what git tracks or would track; outside of git, all but build/
    sources.finish(findings)                      # prints one line a finding, exits 1 if there is any
"""
import os
import re
import subprocess
import sys

sys.dont_write_bytecode = True

TOKENS = re.compile(r'//[^\n]*|/\*.*?\*/|R"([^(\s]*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'', re.DOTALL)


def listed(root):
    if os.path.exists(os.path.join(root, ".git")):
        out = subprocess.run(["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture_output=True, check=False)
        if out.returncode == 0:
            names = set(out.stdout.decode().split("\0")) - {""}
            return sorted(name for name in names if os.path.isfile(os.path.join(root, name)))
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in ("build", "__pycache__", ".git", ".cache")]
        found += [os.path.relpath(os.path.join(folder, name), root) for name in files if not name.endswith((".pyc", ".swp"))]
    return sorted(found)


def read(root, name):
    with open(os.path.join(root, name), encoding="utf-8", errors="replace") as file:
        return file.read()


def code(text, keep_strings=False):
    """C++ without comments (and without what stands in strings); lines keep their numbers."""

    def blank(match):
        token = match.group(0)
        if keep_strings and not token.startswith("/"):
            return token
        return "\n" * token.count("\n") if token.startswith("/") else '""' + "\n" * token.count("\n")

    return TOKENS.sub(blank, text)


def numbered(text):
    return enumerate(text.splitlines(), 1)


def finish(findings, looked_at):
    for finding in findings:
        print(finding)
    print(f"{looked_at} files, {len(findings)} findings")
    if looked_at == 0:
        print("nothing to look at: the lint has lost its subject")
    sys.exit(1 if findings or looked_at == 0 else 0)
