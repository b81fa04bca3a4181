#!/usr/bin/env python3
# SPDX-FileCopyrightText: dsx contributors
# SPDX-License-Identifier: Apache-2.0
"""The step and the trainer know policy concepts, never a policy's name: neither train/ nor weights/ names one."""
import re
import sys

import sources

FOLDERS = ("sharding", "offload", "pipeline", "moe", "quant", "precision", "recompute", "attention", "summation")
# Wherever they are defined.
ALWAYS = {"Replicate", "ZeRO", "MiCS", "Resident", "SingleStage", "GPipe", "OneForwardOneBackward", "FullPrecision", "Bf16", "Quantize", "Reproducible"}


def main():
    root = sys.argv[1]
    files = sources.listed(root)
    names = set(ALWAYS)
    for name in files:
        parts = name.split("/")
        if name.startswith("include/dsx/") and len(parts) > 3 and parts[2] in FOLDERS and name.endswith(".hpp"):
            # Types at the level of the namespace: their lines are not indented.
            names |= set(re.findall(r"^(?:struct|class) (?:\[\[\w+\]\] )?([A-Z]\w*)", sources.code(sources.read(root, name)), re.MULTILINE))
    subjects = [name for name in files if re.match(r"include/dsx/(train|weights)/.*\.hpp$", name)]
    findings = []
    for name in subjects:
        for line, text in sources.numbered(sources.code(sources.read(root, name))):
            for word in re.findall(r"\b[A-Z]\w*", text):
                if word in names:
                    findings.append(f"{name}:{line}: names the policy {word}")
    sources.finish(findings, len(subjects))


if __name__ == "__main__":
    main()
