#!/usr/bin/env python3
# SPDX-FileCopyrightText: dsx contributors
# SPDX-License-Identifier: Apache-2.0
"""A policy that is a new header and nothing else, in a copy of the tree: it stands in cells beside all others, in the tables, and what it
excludes does not compile. A line that names no slot is refused."""
import json
import os
import subprocess
import sys
import tempfile

HEADER = """#pragma once
#include <dsx/policy/schedule.hpp>
#include <dsx/policy/sharding.hpp>
namespace dsx {
struct GPipe;
struct Eager : Replicate {
  static constexpr Exclusion excludes[]{excluding<GPipe>("gradients leave as they come")};
};
}  // namespace dsx

// dsx-policy: sharding eager Eager{}
"""
REASON = "dsx-E107: the sharding of this recipe excludes its pipeline schedule: gradients leave as they come; drop one of the two"
OTHERS = ("1f1b", "interleaved", "host_state", "disk", "bf16", "recompute", "selective", "topk", "dropless", "sgd", "muon")


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        build = json.load(file)
    source = build["source"]
    with tempfile.TemporaryDirectory() as folder:
        include, pairs = os.path.join(folder, "include"), os.path.join(folder, "pairs")
        for here, folders, files in os.walk(os.path.join(source, "include")):
            there = os.path.join(include, os.path.relpath(here, os.path.join(source, "include")))
            os.makedirs(there, exist_ok=True)
            for name in files:
                os.symlink(os.path.join(here, name), os.path.join(there, name))
        os.mkdir(pairs)
        added = os.path.join(include, "dsx", "sharding", "eager.hpp")
        listing = [build["cmake"], f"-DINCLUDE={include}", f"-DOUTPUT={folder}/policies.hpp", "-P", f"{source}/cmake/list_policies.cmake"]

        with open(added, "w", encoding="utf-8") as out:
            out.write(HEADER.replace("sharding eager", "shading eager"))
        refused = subprocess.run(listing, capture_output=True, text=True, check=False)
        if refused.returncode == 0 or "dsx/sharding/eager.hpp" not in refused.stderr:
            sys.exit("FAILED: a line that names no slot is passed over: " + refused.stderr)

        with open(added, "w", encoding="utf-8") as out:
            out.write(HEADER)
        subprocess.run(listing, check=True)
        links = [path if os.path.isabs(path) else f"-l{path}" for path in build["links"]]
        program = os.path.join(folder, "list_pairs")
        subprocess.run([build["compiler"], "-std=c++20", "-O1", f"-I{include}", f"-I{folder}", f"-I{source}/tests",
                        f"{source}/tests/support/list_pairs.cpp", build["kernels"], *links, "-pthread", "-o", program], check=True)
        text = subprocess.run([program, pairs], capture_output=True, text=True, check=True).stdout
        if f"| `eager` | `gpipe` | {REASON} |" not in text or "| `eager` | `Eager{}` | `dsx/sharding/eager.hpp` |" not in text:
            sys.exit("FAILED: the tables don't name the new policy or what it excludes:\n" + text)
        cells = [line.partition(" on ")[0].removeprefix("cell: ").split("+") for line in text.splitlines() if line.startswith("cell: ")]
        mine = [cell for cell in cells if "eager" in cell]
        missing = [other for other in OTHERS if not any(other in cell for cell in mine)]
        if missing or any("gpipe" in cell for cell in mine):
            sys.exit(f"FAILED: of the cells of the new policy none holds {missing}, or one holds what it excludes: {mine}\n{text}")
        for name in ("eager_gpipe", "gpipe_eager"):
            checked = dict(build, source=folder)
            with open(os.path.join(folder, "toolchain.json"), "w", encoding="utf-8") as out:
                json.dump(checked, out)
            subprocess.run([sys.executable, f"{source}/tests/compile_fail/run.py", f"{folder}/toolchain.json", f"{pairs}/{name}.cpp"], check=True)
        print(f"{len(mine)} of {len(cells)} cells hold the new policy")


if __name__ == "__main__":
    main()
