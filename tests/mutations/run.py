#!/usr/bin/env python3
# SPDX-FileCopyrightText: dsx contributors
# SPDX-License-Identifier: Apache-2.0
"""Switches one mechanism off in a copy of the tree: the named test case must notice.

    run.py build/release/tests/toolchain.json tests/mutations/clip_by_squared_norm.mut

A mutation is a text file; a value is everything after "key: ", taken literally:

    why: a gradient clipped by its squared norm still trains, only GOLD can see it
    file: include/dsx/train/trainer.hpp
    find: std::sqrt(verdict.squared_norm)
    replace: verdict.squared_norm
    test: tests/train/gold.cpp
    case: twenty steps equal the golden run

Demands: the text stands exactly once in the file; the untouched program passes the case; the mutant compiles; in the
mutant a CHECK or REQUIRE of the case fails, and nothing crashes or runs into the time limit. A find may span lines, as
several find: lines, and so may a replace. Optional keys: "compile: kernels/cpu/a.cpp" (a compiled source that sees the
mutated header and has to be compiled again; may be repeated), "flags: -fsanitize=thread" (more flags, for the mutant and
for an untouched program compiled like it), "report: ThreadSanitizer: data race" (instead of a failed CHECK, the output
must hold this text and the exit code be non-zero: for what only a sanitizer sees), "limit: 300" (seconds for a run, 120).
"""
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "cmake"))
sys.dont_write_bytecode = True
from discover_cases import filter_of  # noqa: E402

KEYS = {"why", "file", "find", "replace", "test", "case", "compile", "flags", "report", "limit"}
MANY = {"find", "replace", "compile"}


def read_mutation(path):
    found = {}
    with open(path, encoding="utf-8") as file:
        for line in file.read().splitlines():
            if not line.strip() or line.startswith("# ") or line == "#":
                continue
            key, colon, value = line.partition(":")
            if not colon or key not in KEYS:
                sys.exit(f"FAILED: {path}: not a key of a mutation: {line}")
            if key in found and key not in MANY:
                sys.exit(f"FAILED: {path}: {key} twice")
            found.setdefault(key, []).append(value[1:] if value.startswith(" ") else value)
    missing = {"why", "file", "find", "replace", "test", "case"} - found.keys()
    if missing:
        sys.exit(f"FAILED: {path}: no {', '.join(sorted(missing))}")
    return {key: values if key == "compile" else "\n".join(values) for key, values in found.items()}


def copy_tree(source, copy, mutated, text):
    """A copy of what a test is compiled from, linked file by file but for the mutated one."""
    shutil.rmtree(copy, ignore_errors=True)
    for top in ("include", "kernels", "tests"):
        for folder, folders, files in os.walk(os.path.join(source, top)):
            folders[:] = [name for name in folders if name not in ("golden", "__pycache__")]
            relative = os.path.relpath(folder, source)
            os.makedirs(os.path.join(copy, relative), exist_ok=True)
            for name in files:
                place = os.path.join(relative, name)
                if place == mutated:
                    with open(os.path.join(copy, place), "w", encoding="utf-8") as out:
                        out.write(text)
                elif name.endswith((".hpp", ".cpp", ".cu", ".cuh")):
                    os.symlink(os.path.join(source, place), os.path.join(copy, place))


def sources_of(build, test):
    """A test's own further sources, as its comment line names them (cmake/dsxTesting.cmake)."""
    with open(os.path.join(build["source"], test), encoding="utf-8") as file:
        return ["tests/" + word for line in file if line.startswith("// sources: ") for word in line.split()[2:]]


def compile_program(build, tree, program, test, sources, flags):
    """The test compiled in a tree, linked before the library, so that its own objects come first."""
    launcher = [build["launcher"]] if build["launcher"] else []
    sanitizers = [flag for flag in build["config_flags"] if flag.startswith("-fsanitize")]
    common = launcher + [build["compiler"], "-std=c++20", "-O1", *[f for f in build["own_flags"] if f.startswith("-m")], *sanitizers, *flags,
                         "-Iinclude", "-Itests", "-I.", "-Ikernels"]
    objects = []
    for source in [test] + sources_of(build, test) + sources:
        words = list(common)
        if source.startswith("tests/"):
            words += [f"-D{definition}" for definition in build["test_definitions"]] + [f"-isystem{path}" for path in build["test_includes"]]
        else:
            words += [f"-D{definition}" for definition in build["kernel_definitions"]] + build["openmp_flags"]
            words += [f"-isystem{path}" for path in build["kernel_includes"]]
            words += ["-march=x86-64-v4"] if source.endswith(".v4.cpp") else []
        words = [word for word in words if word != "-isystem/usr/include"]
        objects.append(re.sub(r"[^A-Za-z0-9]", "_", source) + ".o")
        words += ["-c", source, "-o", objects[-1]]
        print("$", shlex.join(words), flush=True)
        subprocess.run(words, cwd=tree, check=True)
    links = [path if os.path.isabs(path) else f"-l{path}" for path in build["links"]]
    rpaths = sorted({f"-Wl,-rpath,{os.path.dirname(path)}" for path in build["links"] if path.endswith(".so")})
    words = [build["compiler"], *sanitizers, *flags, *objects, build["test_main"], build["kernels"], *links, *rpaths, "-pthread", "-o", program]
    subprocess.run(words, cwd=tree, check=True)


def run_case(program, case, limit, folder):
    """(exit code, failed assertions, exceptions outside of one, cases run, output); the code is None after the time limit."""
    report = os.path.join(folder, "report.xml")
    command = [program, "--test-case=" + filter_of(case), "--case-sensitive", "--reporters=xml", "--no-breaks", "--out=" + report]
    print("$", shlex.join(command), flush=True)
    if os.path.exists(report):
        os.remove(report)
    try:
        result = subprocess.run(command, cwd=folder, timeout=limit, check=False, env={**os.environ, "OMP_WAIT_POLICY": "passive"},
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        code, output = result.returncode, result.stdout.decode("utf-8", "replace")
        print(output[:8000], flush=True)
    except subprocess.TimeoutExpired:
        return None, 0, 0, 0, ""
    try:
        with open(report, encoding="utf-8", errors="replace") as file:
            root = xml.etree.ElementTree.fromstring(re.sub("[^\t\n\x20-\U0010FFFF]", "?", file.read()))
    except (OSError, xml.etree.ElementTree.ParseError):
        return code, 0, 1, 0, output
    cases = [entry for entry in root.iter("TestCase") if entry.get("name") == case and entry.get("skipped") != "true"]
    failed = [entry for one in cases for entry in one.iter("Expression") if entry.get("success") == "false"]
    failed += [entry for one in cases for entry in one.iter("Message") if entry.get("type") == "FATAL ERROR" or entry.get("type") == "ERROR"]
    inside = {id(thrown) for entry in failed for thrown in entry.iter("Exception")}
    thrown = [entry for one in cases for entry in one.iter("Exception") if id(entry) not in inside]
    for entry in failed[:3]:
        print(f"  {entry.get('type')} failed, {os.path.basename(entry.get('filename') or '')}:{entry.get('line')}: {(entry.findtext('Original') or '').strip()}"
              f" with {(entry.findtext('Expanded') or '').strip()[:200]}")
    for entry in thrown[:3]:
        print(f"  threw: {(entry.text or '').strip()[:400]}")
    return code, len(failed), len(thrown), len(cases), output


def untouched_passes(build, mutation, flags, folder, limit):
    """Runs the case in the program of the build; what passed once is not run again until the program changes."""
    if flags:
        tree, program = os.path.join(folder, "untouched"), os.path.join(folder, "untouched", "program")
        copy_tree(build["source"], tree, None, "")
        compile_program(build, tree, program, mutation["test"], mutation.get("compile", []), flags)
    else:
        stem = re.sub(r"[^A-Za-z0-9_]", "_", os.path.splitext(os.path.relpath(mutation["test"], "tests"))[0])
        program = os.path.join(build["build"], "tests", "test_" + stem)
        if not os.path.exists(program):
            sys.exit(f"FAILED: {program} was not built")
    with open(program, "rb") as file:
        key = hashlib.sha256(file.read() + mutation["case"].encode()).hexdigest()
    green = os.path.join(build["build"], "tests", "mutations", "green", key)
    if os.path.exists(green):
        return True
    code, failed, thrown, cases, _ = run_case(program, mutation["case"], limit, folder)
    if cases != 1:
        sys.exit(f"FAILED: {mutation['test']} has {cases} cases of this name: {mutation['case']}")
    if code != 0 or failed or thrown:
        return False
    os.makedirs(os.path.dirname(green), exist_ok=True)
    with open(green, "w", encoding="utf-8"):
        pass
    return True


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        build = json.load(file)
    mutation = read_mutation(sys.argv[2])
    name = os.path.splitext(os.path.basename(sys.argv[2]))[0]
    folder = os.path.join(build["build"], "tests", "mutations", name)
    tree = os.path.join(folder, "mutant")
    os.makedirs(folder, exist_ok=True)
    flags, limit = shlex.split(mutation.get("flags", "")), float(mutation.get("limit", "120"))
    print(mutation["why"])

    with open(os.path.join(build["source"], mutation["file"]), encoding="utf-8") as file:
        original = file.read()
    count = original.count(mutation["find"])
    if count != 1:
        sys.exit(f"FAILED: {mutation['file']} holds the text {count} times: {mutation['find']}")
    if mutation["find"] == mutation["replace"]:
        sys.exit("FAILED: the mutation changes nothing")
    try:
        if not untouched_passes(build, mutation, flags, folder, limit):
            sys.exit("FAILED: the case fails without the mutation")
        copy_tree(build["source"], tree, mutation["file"], original.replace(mutation["find"], mutation["replace"]))
        sources = list(mutation.get("compile", []))
        if mutation["file"].startswith("kernels/") and mutation["file"].endswith(".cpp") and mutation["file"] not in sources:
            sources.append(mutation["file"])
        compile_program(build, tree, os.path.join(folder, "program"), mutation["test"], sources, flags)
        code, failed, thrown, _, output = run_case(os.path.join(folder, "program"), mutation["case"], limit, folder)
    except subprocess.CalledProcessError:
        sys.exit("FAILED: does not compile")
    finally:
        shutil.rmtree(tree, ignore_errors=True)
        shutil.rmtree(os.path.join(folder, "untouched"), ignore_errors=True)
    if code is None:
        sys.exit(f"FAILED: the mutant was still running after {limit:g} s")
    if "report" in mutation:
        if code == 0 or mutation["report"] not in output:
            sys.exit(f"FAILED: exit code {code}, and no report of: {mutation['report']}")
        print(f"noticed: {mutation['report']}")
        return
    if code < 0:
        sys.exit(f"FAILED: the mutant was ended by signal {-code}, not by a CHECK")
    if code == 0:
        sys.exit("FAILED: nothing noticed the mutation")
    if not failed:
        sys.exit(f"FAILED: the mutant failed with exit code {code}, {thrown} exceptions, but no CHECK did")
    os.remove(os.path.join(folder, "program"))
    print(f"noticed: {failed} failed checks")


if __name__ == "__main__":
    main()
