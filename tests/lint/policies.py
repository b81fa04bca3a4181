#!/usr/bin/env python3
# SPDX-FileCopyrightText: dsx contributors
# SPDX-License-Identifier: Apache-2.0
"""The step and the trainer know policy concepts, never a policy's name: neither train/ nor weights/ names one. Each slot states its
laws in a header, which every policy is held against, and a test shows that they catch what breaks them. Headers of policies end in the lines
that cells are made from."""
import re
import sys

import sources

FOLDERS = ("sharding", "offload", "pipeline", "moe", "quant", "precision", "recompute", "attention", "summation")
# Wherever they are defined.
ALWAYS = {"Replicate", "ZeRO", "MiCS", "Resident", "SingleStage", "GPipe", "OneForwardOneBackward", "FullPrecision", "Bf16", "Quantize", "Reproducible"}
SLOTS = ("sharding", "schedule", "offload", "quantizer", "precision", "recompute", "attention_exchange", "summation", "expert_router")


def main():
    root = sys.argv[1]
    files = sources.listed(root)
    names, findings = set(ALWAYS), []
    for name in files:
        parts = name.split("/")
        if name.startswith("include/dsx/") and len(parts) > 3 and parts[2] in FOLDERS and name.endswith(".hpp"):
            # Types at the level of the namespace: their lines are not indented.
            names |= set(re.findall(r"^(?:struct|class) (?:\[\[\w+\]\] )?([A-Z]\w*)", sources.code(sources.read(root, name)), re.MULTILINE))
    named = {name for name in files if re.match(r"include/dsx/(%s)/.*\.hpp$" % "|".join(FOLDERS), name)}
    named |= {f"include/dsx/policy/{slot}.hpp" for slot in SLOTS} & set(files)
    findings += [f"{name}: does not end in a line `// dsx-policy: <slot> <name> <C++ spelling>`, so no cell of tests/matrix trains with it"
                 for name in sorted(named) if not re.search(r"\n// dsx-policy: .+\n$", sources.read(root, name))]
    subjects = [name for name in files if re.match(r"include/dsx/(train|weights)/.*\.hpp$", name)]
    for name in subjects:
        for line, text in sources.numbered(sources.code(sources.read(root, name))):
            for word in re.findall(r"\b[A-Z]\w*", text):
                if word in names:
                    findings.append(f"{name}:{line}: names the policy {word}")
    held = ""
    for slot in SLOTS:
        header, laws, test = f"include/dsx/policy/{slot}.hpp", f"tests/laws/{slot}_laws.hpp", f"tests/laws/{slot}.cpp"
        findings += [f"{path}: is missing" for path in (header, laws, test) if path not in files]
        text = sources.code(sources.read(root, test)) if test in files else ""
        if header in files and laws not in sources.read(root, header):
            findings.append(f"{header}: does not say that its laws stand in {laws}")
        if "laws::broken(" not in text:
            findings.append(f"{test}: does not show that the laws catch a policy that breaks them")
        held += text
    findings += [f"tests/laws: no law is asked of {name}" for name in sorted(names - {"Quantize", "Reproducible"}) if not re.search(rf"\b{name}\b", held)]
    sources.finish(findings, len(subjects))


if __name__ == "__main__":
    main()
